//! How connections end: told, vanished, restarted.

use super::*;
use bytes::Bytes;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

fn short() -> Options {
    Options {
        idle_timeout: Duration::from_millis(1_000),
        keep_alive: Duration::from_millis(200),
        ..Default::default()
    }
}

/// A runtime that stands for another machine: shut down, it says nothing more.
fn machine() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_tells_its_reason_to_both_sides() {
    let Pair { near, far, .. } = &pair(None, Options::default()).await;
    let (sender, mut receiver) = near.open(StreamClass::Client).await.unwrap();
    let waiting = tokio::spawn(async move { receiver.recv().await });
    near.close("the node leaves");
    let why = Error::Lost("the node leaves".to_owned());
    assert_eq!(within(far.closed()).await, why);
    assert_eq!(within(near.closed()).await, why);
    assert_eq!(within(waiting).await.unwrap(), Err(why.clone()));
    // The stream opened before the close may have arrived; nothing comes after it.
    let told = match far.accept().await {
        Ok(_) => far.accept().await.err(),
        Err(told) => Some(told),
    };
    assert_eq!(told, Some(why.clone()));
    assert_eq!(near.open(StreamClass::Client).await.err(), Some(why));
    assert!(near.is_closed() && far.is_closed());
    while sender.send(Bytes::from_static(b"x")).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// Floods one side of a fresh pair, closes the other, and says what the flooded side was told.
async fn told_while_the_line_is_full(by_endpoint: bool) -> Error {
    let pair = pair(None, Options::default()).await;
    let (near, far) = (&pair.near, &pair.far);
    let (sender, _receiver) = near.open(StreamClass::Append).await.unwrap();
    let (_, _reply, mut frames) = within(far.accept()).await.unwrap();
    let reading = tokio::spawn(async move {
        loop {
            if let Err(why) = frames.recv().await {
                return why;
            }
        }
    });
    let flooding =
        tokio::spawn(
            async move { while sender.send(Bytes::from(vec![7; 1 << 20])).await.is_ok() {} },
        );
    tokio::time::sleep(Duration::from_millis(100)).await;
    match by_endpoint {
        true => within(pair._endpoints.1.close("enough")).await,
        false => near.close("enough"),
    }
    let told = within(far.closed()).await;
    assert_eq!(within(reading).await.unwrap(), told);
    within(flooding).await.unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_arrives_even_while_the_line_is_full() {
    for by_endpoint in [false, true] {
        // Whoever does not run for as long as a closed connection is remembered, with a full receive
        // buffer, learns only that it is gone. On a busy machine that happens, but not every time.
        let mut reasons = vec![];
        while reasons.len() < 5 && !reasons.contains(&Error::Lost("enough".to_owned())) {
            reasons.push(told_while_the_line_is_full(by_endpoint).await);
        }
        assert!(reasons.contains(&Error::Lost("enough".to_owned())), "{reasons:?}");
        assert!(reasons.iter().all(|told| matches!(told, Error::Lost(_))), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_closes_everything_with_its_reason_and_accepts_no_more() {
    let dir = ca("shop");
    let (server, addr, mut accepted) = serve(&node(dir.path(), "n1"), Options::default());
    let client = Endpoint::client(&node(dir.path(), "n2")).unwrap();
    let near = client.connect(&addr).await.unwrap();
    let far = within(accepted.recv()).await.unwrap();
    within(server.close("stopped by SIGTERM")).await;
    assert_eq!(within(near.closed()).await, Error::Lost("stopped by SIGTERM".to_owned()));
    assert!(matches!(within(far.closed()).await, Error::Lost(_)));
    assert!(within(server.accept()).await.is_none());
    assert!(within(accepted.recv()).await.is_none(), "the accept loop has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_stay() {
    let Pair { near, far, .. } = &pair(None, short()).await;
    tokio::time::sleep(short().idle_timeout * 2).await;
    assert!(!near.is_closed() && !far.is_closed());
}

#[test]
fn a_side_that_vanishes_is_noticed_within_the_idle_timeout() {
    let dir = ca("shop");
    let (one, two) = (node(dir.path(), "n1"), node(dir.path(), "n2"));
    for server_vanishes in [true, false] {
        let (here, there) = (machine(), machine());
        let (server_on, client_on) =
            if server_vanishes { (&there, &here) } else { (&here, &there) };
        let (_server, addr, mut accepted) = server_on.block_on(async { serve(&one, short()) });
        let (_client, near) = client_on.block_on(async {
            let client = Endpoint::client_with(&two, short()).unwrap();
            let near = client.connect(&addr).await.unwrap();
            (client, near)
        });
        let far = here.block_on(within(accepted.recv())).unwrap();
        let left = if server_vanishes { near } else { far };
        let since = Instant::now();
        there.shutdown_background();
        let why = here.block_on(within(left.closed()));
        let noticed = since.elapsed();
        assert!(matches!(&why, Error::Lost(why) if why.contains("idle timeout")), "{why}");
        // quinn counts from the last packet heard, and gives three probes their time.
        assert!(noticed < short().idle_timeout * 3, "after {noticed:?}");
    }
}

#[test]
fn a_restarted_node_disowns_its_old_connections_at_once() {
    let dir = ca("shop");
    let (one, two) = (node(dir.path(), "n1"), node(dir.path(), "n2"));
    let (here, there) = (machine(), machine());
    let (server, addr, accepted) = there.block_on(async { serve(&one, Options::default()) });
    let (_client, near) = here.block_on(async {
        let client = Endpoint::client_with(&two, Options::default()).unwrap();
        let near = client.connect(&addr).await.unwrap();
        (client, near)
    });
    let (sender, _receiver) = here.block_on(near.open(StreamClass::Append)).unwrap();
    there.shutdown_timeout(Duration::from_secs(5));
    drop((server, accepted));
    let again = machine();
    let bound: SocketAddr = addr.parse().unwrap();
    let _server = again.block_on(async {
        // The old socket goes with the last of its tasks.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Endpoint::server(bound, &one) {
                Ok(server) => return server,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let since = Instant::now();
    // It may be known already by now: the connection's own traffic asks too.
    let _ = here.block_on(sender.send(Bytes::from(vec![1; 100])));
    let why = here.block_on(within(near.closed()));
    assert_eq!(why, Error::Lost("the other side was restarted".to_owned()));
    assert!(since.elapsed() < Options::default().idle_timeout / 2, "{:?}", since.elapsed());
}
