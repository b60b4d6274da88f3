//! Real-time order from any client, for every key, while nodes are killed and stopped.
//!
//! Eight clients work on a few hot keys at a time. Each phase has keys of its own and gives one history
//! a key, at most 400 operations long, so that the checker ends. Every operation has a value that no
//! other writes; what failed is left out of the history, so a failed write that is seen is caught too.

use crate::checker::{Event, Seen, check};
use crate::harness::{Cluster, Shape, get, one, set};
use ppdb::client::{CallOptions, Client};
use ppdb::types::{Class, Op, OpResult};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub const CLIENTS: u32 = 8;
/// Keys that are hot at the same time.
const KEYS: usize = 4;
/// Operations of one client on one key: 8 clients make a history of 400.
const OPS_PER_KEY: usize = 50;
/// Operations whose outcome is known or unknown, failed ones not counted.
const OPERATIONS_MIN: usize = 10_000;
/// How long faults are made at least, and how long the recording may take.
const TIME_MIN: Duration = Duration::from_secs(45);
const TIME_MAX: Duration = Duration::from_secs(180);

/// Events of one phase, by key.
pub type Histories = BTreeMap<String, Vec<Event>>;

/// One client with what it last saw of each key.
struct Actor {
    id: u32,
    client: Client,
    rng: StdRng,
    zero: Instant,
    values: i64,
    last_seen: BTreeMap<String, Option<i64>>,
}

impl Actor {
    async fn phase(mut self, keys: Vec<String>, ops_per_key: usize) -> (Self, Histories) {
        let mut plan: Vec<String> =
            keys.iter().flat_map(|key| vec![key.clone(); ops_per_key]).collect();
        plan.shuffle(&mut self.rng);
        let mut histories = Histories::new();
        for key in plan {
            let event = self.act(&key).await;
            if let Some(event) = event {
                histories.entry(key).or_default().push(event);
            }
        }
        (self, histories)
    }

    /// One operation; none if it failed, which says that it never took effect.
    async fn act(&mut self, key: &str) -> Option<Event> {
        self.values += 1_000;
        let value = self.values;
        let expected = self.last_seen.get(key).copied().flatten();
        let (op, wanted) = match self.rng.random_range(0..10) {
            0..4 => (get(key), Seen::Get(None)),
            4..6 => (set(key, value.to_string()), Seen::Set { value }),
            6..8 => {
                let op = Op::Cas {
                    key: key.to_owned().into(),
                    expected: expected.map(|n| n.to_string().into()),
                    value: value.to_string().into(),
                };
                (op, Seen::Cas { expected, value, swapped: None })
            }
            _ => {
                let by = self.rng.random_range(1..10);
                (Op::Incr { key: key.to_owned().into(), by }, Seen::Incr { by, sum: None })
            }
        };
        // Most operations wait out a fault and are settled by their retries; some give up soon and leave
        // outcomes unknown.
        let patient = self.rng.random_bool(0.85);
        let timeout = Duration::from_millis(if patient { 8_000 } else { 300 });
        let options = CallOptions { timeout, retry: patient, ..CallOptions::default() };
        let called_ns = self.now_ns();
        let answer = one(&self.client, op, &options).await;
        let returned_ns = self.now_ns();
        match answer {
            Ok(answer) => {
                let seen = answered(wanted, answer.result);
                self.remember(key, seen);
                Some(Event { client: self.id, called_ns, returned_ns: Some(returned_ns), seen })
            }
            Err(error) if error.class() == Class::Uncertain => {
                let read = matches!(wanted, Seen::Get(_));
                (!read).then_some(Event {
                    client: self.id,
                    called_ns,
                    returned_ns: None,
                    seen: wanted,
                })
            }
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        }
    }

    fn remember(&mut self, key: &str, seen: Seen) {
        let value = match seen {
            Seen::Get(value) => value,
            Seen::Set { value } | Seen::Cas { value, swapped: Some(true), .. } => Some(value),
            Seen::Incr { sum, .. } => sum,
            Seen::Cas { .. } => return,
        };
        self.last_seen.insert(key.to_owned(), value);
    }

    fn now_ns(&self) -> i64 {
        self.zero.elapsed().as_nanos() as i64
    }
}

/// The event's description with its answer put in.
fn answered(wanted: Seen, result: OpResult) -> Seen {
    match (wanted, result) {
        (Seen::Get(_), OpResult::Nil) => Seen::Get(None),
        (Seen::Get(_), OpResult::Value(bytes)) => {
            let text = String::from_utf8_lossy(&bytes);
            Seen::Get(Some(text.parse().unwrap_or_else(|_| panic!("`{text}` was never written"))))
        }
        (Seen::Set { .. }, OpResult::Done) => wanted,
        (Seen::Cas { expected, value, .. }, OpResult::Bool(swapped)) => {
            Seen::Cas { expected, value, swapped: Some(swapped) }
        }
        (Seen::Incr { by, .. }, OpResult::Int(sum)) => Seen::Incr { by, sum: Some(sum) },
        (wanted, result) => panic!("{wanted:?} was answered with {result:?}"),
    }
}

/// Phases one after the other until `over`, given the number of operations, says so.
pub async fn record(
    clients: Vec<Client>,
    zero: Instant,
    time_max: Duration,
    over: impl Fn(usize) -> bool,
) -> Vec<Histories> {
    record_on(("lin", OPS_PER_KEY), clients, zero, time_max, over).await
}

/// The same on keys that begin so and that nobody has used before, with so many operations of each client on
/// each, at most `OPS_PER_KEY`.
pub async fn record_on(
    (prefix, ops_per_key): (&str, usize),
    clients: Vec<Client>,
    zero: Instant,
    time_max: Duration,
    over: impl Fn(usize) -> bool,
) -> Vec<Histories> {
    let mut actors: Vec<Actor> = (0..CLIENTS)
        .zip(clients)
        .map(|(id, client)| Actor {
            id,
            client,
            rng: StdRng::seed_from_u64(id.into()),
            zero,
            values: i64::from(id + 1) * 1_000_000_000_000,
            last_seen: BTreeMap::new(),
        })
        .collect();
    let (mut phases, mut operations) = (Vec::new(), 0);
    while !over(operations) {
        assert!(zero.elapsed() < time_max, "only {operations} operations in {time_max:?}");
        let keys: Vec<String> =
            (0..KEYS).map(|k| format!("{prefix}:{}:{k}", phases.len())).collect();
        let running: JoinSet<_> =
            actors.drain(..).map(|actor| actor.phase(keys.clone(), ops_per_key)).collect();
        let mut phase = Histories::new();
        for (actor, histories) in running.join_all().await {
            actors.push(actor);
            for (key, events) in histories {
                operations += events.len();
                phase.entry(key).or_default().extend(events);
            }
        }
        phases.push(phase);
    }
    phases
}

/// Kills and stops nodes until the recording is over. Returns how many faults of each kind there were.
async fn faults(cluster: &mut Cluster, over: impl Fn() -> bool) -> (u32, u32) {
    let mut rng = StdRng::seed_from_u64(7);
    let (mut kills, mut stops) = (0, 0);
    let sleep = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
    sleep(500).await;
    while !over() {
        let name = ["n1", "n2", "n3", "r1"][rng.random_range(0..4)];
        match rng.random_range(0..10) {
            0..4 => {
                cluster.node(name).kill();
                sleep(rng.random_range(0..500)).await;
                cluster.node(name).start();
                kills += 1;
                sleep(rng.random_range(1_500..3_500)).await;
            }
            4 => {
                cluster.kill_all();
                cluster.start_all();
                kills += 1;
                sleep(4_000).await;
            }
            _ => {
                cluster.node(name).pause();
                sleep(rng.random_range(50..1_500)).await;
                cluster.node(name).resume();
                stops += 1;
                sleep(rng.random_range(200..800)).await;
            }
        }
    }
    (kills, stops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_linearizable_while_nodes_are_killed_and_stopped() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client().await);
    }
    let zero = Instant::now();
    let over = move |operations| operations >= OPERATIONS_MIN && zero.elapsed() >= TIME_MIN;
    let recorder = tokio::spawn(record(clients, zero, TIME_MAX, over));
    let (kills, stops) = faults(&mut cluster, || recorder.is_finished()).await;
    let phases = recorder.await.expect("the recording");
    cluster.wait_ready().await;
    drop(cluster);

    let histories = check_all(phases);
    let operations: usize = histories.iter().map(|(_, events)| events.len()).sum();
    let open = histories.iter().flat_map(|(_, e)| e).filter(|e| e.returned_ns.is_none()).count();
    println!(
        "{operations} operations, {open} of them with an unknown outcome, on {} keys; {kills} kills, {stops} stops",
        histories.len()
    );
    assert!(operations >= OPERATIONS_MIN && kills >= 3 && stops >= 3);
}

/// Checks every history, key by key.
pub fn check_all(phases: Vec<Histories>) -> Vec<(String, Vec<Event>)> {
    let histories: Vec<(String, Vec<Event>)> = phases.into_iter().flatten().collect();
    let longest = CLIENTS as usize * OPS_PER_KEY;
    for (key, events) in &histories {
        assert!(events.len() <= longest);
        check(events).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    histories
}
