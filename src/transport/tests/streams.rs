//! Frames in both directions, bounds, and sides that break the rules.

use super::*;
use bytes::Bytes;

fn frame(n: usize, len: usize) -> Bytes {
    (0..len).map(|i| (n * 31 + i * 7 + i / 251) as u8).collect::<Vec<u8>>().into()
}

/// Sends back whatever comes on any stream of `connection`, with `limit` streams at a time as quinn has it.
fn echo(connection: Connection) {
    tokio::spawn(async move {
        while let Ok((_, sender, mut receiver)) = connection.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(frame)) = receiver.recv().await {
                    if sender.send(frame).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_all_sizes_travel_both_ways_in_order() {
    let Pair { near, far, .. } = pair(None, Options::default()).await;
    echo(far);
    for class in StreamClass::ALL {
        let max = class.frame_bytes_max();
        let mut sizes: Vec<usize> = (1..200).chain((200..20_000).step_by(997)).collect();
        sizes.extend([65_535, 65_536, 300_000, max - 1, max, 1, 2]);
        let (sender, mut receiver) = near.open(class).await.unwrap();
        let all = sizes.clone();
        tokio::spawn(async move {
            for (n, len) in all.into_iter().enumerate() {
                sender.send(frame(n, len)).await.unwrap();
            }
        });
        for (n, len) in sizes.into_iter().enumerate() {
            let got = within(receiver.recv()).await.unwrap().unwrap();
            assert!(got == frame(n, len), "{class:?}: frame {n} of {len} bytes");
        }
        // The sender is gone, so the echo ends, and ends its own.
        assert_eq!(within(receiver.recv()).await, Ok(None));
        assert_eq!(receiver.recv().await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_connection() {
    let Pair { near, far, .. } = pair(Some("alice"), Options::default()).await;
    echo(far);
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let near = near.clone();
            tokio::spawn(async move {
                let (sender, mut receiver) = near.open(StreamClass::Client).await.unwrap();
                for len in [1, 10 + n, 5_000] {
                    sender.send(frame(n, len)).await.unwrap();
                }
                for len in [1, 10 + n, 5_000] {
                    assert!(receiver.recv().await.unwrap().unwrap() == frame(n, len));
                }
            })
        })
        .collect();
    for task in tasks {
        within(task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_share_a_stream_and_the_last_one_finishes_it() {
    let Pair { near, far, .. } = pair(None, Options::default()).await;
    let (sender, receiver) = near.open(StreamClass::Append).await.unwrap();
    let (class, _reply, mut got) = within(far.accept()).await.unwrap();
    assert_eq!(class, StreamClass::Append);
    let tasks: Vec<_> = (0..8u8)
        .map(|n| {
            let sender = sender.clone();
            tokio::spawn(async move {
                for i in 0..100u8 {
                    sender.send(vec![n, i].into()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        within(task).await.unwrap();
    }
    // Everything here is dropped at once; what was queued still arrives.
    drop((sender, receiver, near));
    let mut next = [0u8; 8];
    while let Some(frame) = within(got.recv()).await.unwrap() {
        assert_eq!(frame[1], next[frame[0] as usize], "in the order of each sender");
        next[frame[0] as usize] += 1;
    }
    assert_eq!(next, [100; 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_not_open_streams_for_nodes() {
    logged();
    for class in StreamClass::ALL.into_iter().filter(|class| *class != StreamClass::Client) {
        let Pair { near, far, .. } = &pair(Some("alice"), Options::default()).await;
        let (sender, mut receiver) = near.open(class).await.unwrap();
        sender.send(Bytes::from_static(b"vote for me")).await.unwrap();
        let sentence = format!(
            "spiffe://shop/user/alice may not open a stream of class {class:?}: a node certificate is required"
        );
        let refused = Error::Refused(sentence.clone());
        assert_eq!(within(far.accept()).await.err(), Some(refused.clone()));
        assert_eq!(within(receiver.recv()).await, Err(refused.clone()));
        assert_eq!(within(near.closed()).await, refused.clone());
        assert_eq!(within(far.closed()).await, refused);
        let remote = far.remote_addr().to_string();
        is_logged(&["connection closed", &remote, &sentence]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_class_ends_the_connection() {
    let Pair { near, far, .. } = &pair(None, Options::default()).await;
    let (mut raw, _) = near.quinn().open_bi().await.unwrap();
    raw.write_all(&[6, 1, 2, 3]).await.unwrap();
    let why = "there is no stream class 6";
    assert_eq!(within(far.accept()).await.err(), Some(Error::Protocol(why.to_owned())));
    let told = Error::Protocol(format!("the other side says: {why}"));
    assert_eq!(within(near.closed()).await, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_class_is_passed_over_or_ends_the_connection_in_time() {
    let options = Options { open_timeout: Duration::from_millis(200), ..Default::default() };
    let Pair { near, far, .. } = &pair(None, options).await;
    let (mut finished, _keep) = near.quinn().open_bi().await.unwrap();
    finished.finish().unwrap();
    let (_sender, _receiver) = near.open(StreamClass::Node).await.unwrap();
    let (class, ..) = within(far.accept()).await.unwrap();
    assert_eq!(class, StreamClass::Node);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_framing_ends_the_connection_before_anything_is_allocated() {
    let max = StreamClass::Client.frame_bytes_max();
    let too_long = (max as u32 + 1).to_le_bytes();
    for (bytes, part) in [
        (too_long.to_vec(), format!("a frame of {} bytes, allowed are 1 to {max}", max + 1)),
        (u32::MAX.to_le_bytes().to_vec(), "a frame of 4294967295 bytes".to_owned()),
        (vec![0, 0, 0, 0], "a frame of 0 bytes".to_owned()),
        (vec![9, 0, 0, 0, 1, 2], "the stream ends within a frame".to_owned()),
        (vec![9, 0], "the stream ends within a frame".to_owned()),
    ] {
        let Pair { near, far, .. } = &pair(Some("eve"), Options::default()).await;
        let (mut raw, _keep) = near.quinn().open_bi().await.unwrap();
        raw.write_all(&[StreamClass::Client as u8, 1, 0, 0, 0, 42]).await.unwrap();
        raw.write_all(&bytes).await.unwrap();
        raw.finish().unwrap();
        let (_, _sender, mut receiver) = within(far.accept()).await.unwrap();
        assert_eq!(within(receiver.recv()).await.unwrap().unwrap(), vec![42]);
        let Err(Error::Protocol(why)) = within(receiver.recv()).await else {
            panic!("{part}: no violation")
        };
        assert!(why.contains(&part), "{why}");
        assert_eq!(receiver.recv().await, Err(Error::Protocol(why.clone())));
        let told = Error::Protocol(format!("the other side says: {why}"));
        assert_eq!(within(near.closed()).await, told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_wrong_size_is_refused_where_it_is_sent() {
    let Pair { near, far, .. } = pair(None, Options::default()).await;
    echo(far);
    let (sender, mut receiver) = near.open(StreamClass::Snapshot).await.unwrap();
    for len in [0, StreamClass::Snapshot.frame_bytes_max() + 1] {
        let payload = Bytes::from(vec![0; len]);
        let refused = sender.send(payload.clone()).await;
        assert!(matches!(refused, Err(Error::Protocol(_))), "{len}");
        assert_eq!(sender.try_send(payload.clone()), Err(payload));
    }
    sender.send(Bytes::from_static(b"fine")).await.unwrap();
    assert_eq!(within(receiver.recv()).await, Ok(Some(Bytes::from_static(b"fine"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_fills_the_queue_and_no_more() {
    let options = Options {
        queue_bytes: 64 << 10,
        queue_frames: 64,
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 64 << 10,
        send_window_bytes: 64 << 10,
        ..Default::default()
    };
    for len in [1, 1_000, 100_000] {
        let Pair { near, far, .. } = &pair(None, options.clone()).await;
        let (sender, _receiver) = near.open(StreamClass::Append).await.unwrap();
        let (_, _reply, mut receiver) = within(far.accept()).await.unwrap();
        let mut sent = 0;
        // Queued until nothing went through for a while: socket, windows and queue are full.
        while let Ok(result) =
            timeout(Duration::from_millis(300), sender.send(frame(sent, len))).await
        {
            result.unwrap();
            sent += 1;
            // Window, send window, queue, one batch in the writer's hand.
            let bound = (64 << 10) / len * 3 + 2 * 64 + 4;
            assert!(sent <= bound * if len == 1 { 8 } else { 1 }, "{sent} frames of {len} bytes");
        }
        assert!(sender.try_send(frame(sent, len)).is_err());
        for n in 0..sent {
            let got = within(receiver.recv()).await.unwrap().unwrap();
            assert!(got == frame(n, len), "frame {n} of {len}");
        }
        within(sender.send(frame(sent, len))).await.unwrap();
        assert!(within(receiver.recv()).await.unwrap().unwrap() == frame(sent, len));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_granted_streams_open_gives_up_in_time() {
    let options =
        Options { streams_max: 2, open_timeout: Duration::from_millis(200), ..Default::default() };
    let Pair { near, far, .. } = pair(None, options).await;
    echo(far.clone());
    let first = near.open(StreamClass::Client).await.unwrap();
    let _second = near.open(StreamClass::Client).await.unwrap();
    let Err(Error::Lost(why)) = near.open(StreamClass::Client).await else {
        panic!("a third stream was granted")
    };
    assert!(why.contains("no stream within 200ms"), "{why}");
    drop(first);
    let opened = within(async {
        loop {
            if let Ok(stream) = near.open(StreamClass::Client).await {
                break stream;
            }
        }
    });
    drop(opened.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_learns_that_nobody_reads() {
    let Pair { near, far, .. } = &pair(None, Options::default()).await;
    let (sender, _receiver) = near.open(StreamClass::Append).await.unwrap();
    drop(within(far.accept()).await.unwrap());
    let why = within(async {
        loop {
            if let Err(error) = sender.send(Bytes::from_static(b"hello?")).await {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let stopped = "the other side stopped reading the stream".to_owned();
    assert_eq!(why.await, Error::Lost(stopped));
    assert!(!near.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_senders_learn_that_the_connection_is_lost() {
    let options = Options { queue_bytes: 1_000, stream_window_bytes: 1_000, ..Default::default() };
    let Pair { near, far, .. } = &pair(None, options).await;
    let (sender, _receiver) = near.open(StreamClass::Append).await.unwrap();
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = sender.send(Bytes::from(vec![7; 900])).await {
                return error;
            }
        }
    });
    let _held = within(far.accept()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!sending.is_finished(), "the queue is full");
    far.close("gone");
    assert_eq!(within(sending).await.unwrap(), Error::Lost("gone".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_that_are_given_up_lose_nothing() {
    let Pair { near, far, .. } = &pair(None, Options::default()).await;
    let opening = near.clone();
    let sending = tokio::spawn(async move {
        let mut senders = vec![];
        for n in 0..50usize {
            let (sender, receiver) = opening.open(StreamClass::Append).await.unwrap();
            sender.send(frame(n, 3_000)).await.unwrap();
            senders.push((sender, receiver));
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        senders
    });
    let hasty = async {
        let mut streams = vec![];
        while streams.len() < 50 {
            // A budget of nothing: only what is there already comes back.
            let Ok(stream) = timeout(Duration::ZERO, far.accept()).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let (_, sender, mut receiver) = stream.unwrap();
            let got = loop {
                if let Ok(got) = timeout(Duration::ZERO, receiver.recv()).await {
                    break got;
                }
                tokio::task::yield_now().await;
            };
            let n = streams.len();
            assert!(got.unwrap().unwrap() == frame(n, 3_000), "stream {n}");
            streams.push((sender, receiver));
        }
    };
    within(hasty).await;
    within(sending).await.unwrap();
}
