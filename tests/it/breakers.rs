//! The breakers of a client, on real processes: a node that answers slowly and one that fails half of the calls are
//! gone around, and asked again once they do well; a planned pause is no fault of anybody.

use crate::harness::{Cluster, Node, Shape, get, one, set, within};
use ppdb::breaker::State;
use ppdb::client::{CallClass, CallOptions, Client, Level, NodeBreaker};
use ppdb::types::NodeName;
use ppdb::wire::client::Strategy;
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
/// The window of a breaker, and some time to fill it.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// The longest that it is open here, and some time to try.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);
/// Shorter than a breaker is open.
const GONE_AROUND_FOR: Duration = Duration::from_secs(3);
/// The node that does badly.
const BAD: &str = "n3";
const READERS: usize = 6;
/// Of a reader, between two reads.
const REST: Duration = Duration::from_millis(5);

/// Reads of one client: some that only the bad node may answer, and some that any node may.
struct Reads {
    stop: Arc<AtomicBool>,
    readers: JoinSet<Vec<(Instant, NodeName)>>,
}

impl Reads {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for of in 0..READERS * 2 {
            let pinned = (of >= READERS).then(|| NodeName::new(BAD).expect("a name"));
            let (client, stop) = (client.clone(), stop.clone());
            readers.spawn(async move { read(&client, pinned, &stop).await });
        }
        Self { stop, readers }
    }

    /// Who answered the reads that any node may answer, and when they were asked.
    async fn end(self) -> Vec<(Instant, NodeName)> {
        self.stop.store(true, Ordering::Relaxed);
        self.readers.join_all().await.concat()
    }
}

/// Reads until told to stop. What is pinned may fail.
async fn read(
    client: &Client,
    pinned: Option<NodeName>,
    stop: &AtomicBool,
) -> Vec<(Instant, NodeName)> {
    let is_pinned = pinned.is_some();
    let timeout = if is_pinned { Duration::from_millis(700) } else { MINUTE };
    let level = Some(Level::Local { max_staleness_ms: None });
    let options = CallOptions { level, node: pinned, timeout, ..CallOptions::default() };
    let mut answered = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match one(client, get("key:1"), &options).await {
            Ok(_) if is_pinned => {}
            Ok(answer) => answered.push((asked, answer.served_by)),
            Err(error) => assert!(is_pinned, "somebody answers: {error}"),
        }
        tokio::time::sleep(REST).await;
    }
    answered
}

fn breaker(client: &Client, node: &str) -> NodeBreaker {
    let mut all = client.breakers().into_iter();
    let of_node = |b: &NodeBreaker| b.node.as_str() == node && b.class == CallClass::Read;
    all.find(of_node).expect("a breaker")
}

/// Lets the node run for a while and stand still for a while, by turns as long as each of `stands`, until the breaker
/// is as wanted.
async fn until(
    client: &Client,
    node: &Node,
    (runs, stands): (Duration, &[Duration]),
    state: State,
    limit: Duration,
) -> Instant {
    let end = Instant::now() + limit;
    let mut stands = stands.iter().cycle();
    loop {
        let look = Instant::now() + runs;
        while Instant::now() < look {
            let seen = breaker(client, BAD).seen;
            if seen.state == state {
                return Instant::now();
            }
            assert!(Instant::now() < end, "not {state:?} within {limit:?}: {seen:?}");
            tokio::time::sleep(REST.min(runs)).await;
        }
        if let Some(stands) = stands.next() {
            node.pause();
            tokio::time::sleep(*stands).await;
            node.resume();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_badly_is_gone_around_and_asked_again_once_it_does_well() {
    let mut cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    let reads = Reads::start(&client);
    one(&client, set("key:1", "value"), &within(MINUTE)).await.expect("a write");

    // A planned pause: every shard moves, there and back, under load.
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    cluster
        .order(&client, StrategyOrder::Revert { reason: "planned".into() })
        .await
        .expect("it goes back");
    cluster.wait_phase(&client, &[Phase::Reverted], MINUTE).await;
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    let opened: Vec<NodeBreaker> =
        client.breakers().into_iter().filter(|b| b.seen.opened_total > 0).collect();
    assert!(opened.is_empty(), "a switch opened {opened:?}");
    reads.end().await;

    let ms = Duration::from_millis;
    let well = (ms(100), &[][..]);
    // A reader rests for longer than the node runs. So all answers come after 150 ms; then of each two calls, and of
    // the three after them, one is answered at the end and the others get no answer in time.
    let slow = (ms(2), &[ms(150)][..]);
    let half = (ms(2), &[ms(1_000), ms(1_450)][..]);
    for (what, badly) in [("slow", slow), ("failed", half)] {
        let reads = Reads::start(&client);
        let began = Instant::now();
        let node = cluster.node(BAD);
        let open = until(&client, node, badly, State::Open, OPEN_WITHIN).await;
        let seen = breaker(&client, BAD).seen;
        println!("{what}: open after {:.1?}: {seen:?}", open - began);
        assert!(seen.is_open && seen.reason.is_some_and(|reason| reason.contains(what)));
        tokio::time::sleep(GONE_AROUND_FOR).await;
        let around = Instant::now();
        until(&client, node, well, State::Closed, CLOSED_WITHIN).await;
        println!("{what}: closed {:.1?} after it was opened", open.elapsed());
        tokio::time::sleep(ms(500)).await;
        let answered = reads.end().await;
        let while_open = answered.iter().filter(|(asked, _)| (open..around).contains(asked));
        let by_bad = while_open.clone().filter(|(_, by)| by.as_str() == BAD).count();
        let asked = while_open.count();
        assert!(asked > 100, "{asked} reads while it was open");
        assert_eq!(by_bad, 0, "of {asked} reads while it was open");
    }
    for node in ["n1", "n2"] {
        assert_eq!(breaker(&client, node).seen.opened_total, 0, "{node} did nothing wrong");
    }
}
