//! A small cluster that applies writes, loses requests and answers, changes leaders and forgets
//! sessions, at random: whatever the client reports has to agree with what was applied.

use super::exec::Inner;
use super::net::{Failure, Found, Net, Target};
use super::testing::{VirtualTime, map, name, results};
use super::{CallOptions, OpAnswer};
use crate::types::{Class, Code, Error, Incarnation, Op, OpResult, Result, SessionId, SessionSeq};
use crate::wire::client::{ReplyBody, RequestBody, Strategy, decode_ops};
use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

struct Chaos {
    time: VirtualTime,
    state: Mutex<State>,
    /// Applies a repeated sequence again: what the tests have to notice.
    planted_double_apply: bool,
}

struct State {
    rng: StdRng,
    leader: usize,
    sessions: HashSet<SessionId>,
    results: HashMap<SessionSeq, i64>,
    sums: [i64; 2],
    index: u64,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

impl Chaos {
    fn new(seed: u64, planted_double_apply: bool) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            leader: 0,
            sessions: HashSet::new(),
            results: HashMap::new(),
            sums: [0; 2],
            index: 0,
        };
        Self { time: VirtualTime::new(), state: Mutex::new(state), planted_double_apply }
    }
}

impl State {
    fn serve(&mut self, node: &str, body: RequestBody, again: bool) -> Result<ReplyBody> {
        if NODES[self.leader] != node {
            let hint = self.rng.random_bool(0.7).then(|| name(NODES[self.leader]));
            return Err(Error::new(Code::NotLeader, "").hint(hint));
        }
        if self.rng.random_bool(0.1) {
            return Err(Error::new(Code::Overloaded, "").retry_after(3));
        }
        self.index += 1;
        let id = SessionId { incarnation: Incarnation(0), index: self.index };
        let RequestBody::Kv(kv) = body else {
            self.sessions.insert(id);
            return Ok(ReplyBody::Session(id));
        };
        if let Some(seq) = kv.dedup {
            if !self.sessions.contains(&seq.session) {
                return Err(Error::new(Code::SessionExpired, ""));
            }
            if let (Some(sum), false) = (self.results.get(&seq), again) {
                return Ok(results(kv.shard.0, self.index, &[OpResult::Int(*sum)]));
            }
        }
        let ops = decode_ops(&kv.ops)?;
        let [Op::Incr { by, .. }] = ops[..] else { unreachable!() };
        let sum = &mut self.sums[kv.shard.0 as usize];
        *sum += by;
        let sum = *sum;
        if let Some(seq) = kv.dedup {
            self.results.insert(seq, sum);
        }
        Ok(results(kv.shard.0, self.index, &[OpResult::Int(sum)]))
    }
}

impl Net for Chaos {
    fn now(&self) -> Instant {
        self.time.now()
    }

    async fn sleep_until(&self, at: Instant) {
        self.time.sleep_until(at).await;
    }

    async fn exchange(
        &self,
        to: &Target,
        body: RequestBody,
        until: Instant,
    ) -> Result<ReplyBody, Failure> {
        tokio::task::yield_now().await;
        if body == RequestBody::Map {
            return Ok(ReplyBody::Map(map(1, Strategy::Full)));
        }
        let mut state = self.state.lock();
        self.time.spend(Duration::from_micros(200));
        let roll = state.rng.random_range(0..1_000);
        match roll {
            0..100 => state.leader = state.rng.random_range(0..3),
            100..103 => state.sessions.clear(),
            _ => {}
        }
        let not_sent = Error::new(Code::Unreachable, "");
        match roll {
            120..200 => return Err(Failure::NotSent(not_sent)),
            200..280 => return Err(Failure::Lost("before it arrived".into())),
            _ => {}
        }
        let served = state.serve(to.name.as_str(), body, self.planted_double_apply);
        match roll {
            280..380 => Err(Failure::Lost("after it was served".into())),
            380..385 => {
                self.time.advance_to(until);
                Err(Failure::TimedOut)
            }
            _ => served.map_err(Failure::Refused),
        }
    }

    async fn discover(&self, _until: Instant) -> Result<Found> {
        let target = Target { name: name("n1"), addr: "n1:1".into() };
        Ok(Found { target, map: Some(map(1, Strategy::Full)) })
    }
}

/// Adds powers of two, so that the sum tells which ones were applied and how often.
async fn run(seed: u64, retry: bool, planted: bool) -> Result<[usize; 3], String> {
    let inner = Inner::new(Chaos::new(seed, planted));
    inner.adopt(map(1, Strategy::Full)).unwrap();
    // Short enough for some requests to run out of time, long enough for most to be answered.
    let timeout = Duration::from_secs(10);
    let options = CallOptions { retry, timeout, ..CallOptions::default() };
    let add = |i: u32| {
        let op = Op::Incr { key: "b".into(), by: 1 << (2 * i) };
        let (inner, options) = (&inner, &options);
        async move { inner.call(vec![op], options).await.remove(0) }
    };
    let answers: Vec<Result<OpAnswer>> = join_all((0..30).map(add)).await;
    let sum = inner.net.state.lock().sums[0];
    let mut counts = [0; 3];
    for (i, answer) in answers.iter().enumerate() {
        let applied = sum >> (2 * i) & 3;
        let (outcome, fits) = match answer {
            Ok(_) => (0, applied == 1),
            Err(error) if error.class() == Class::Uncertain => (1, applied <= 1),
            Err(_) => (2, applied == 0),
        };
        counts[outcome] += 1;
        if !fits {
            return Err(format!("seed {seed}: applied {applied} times, reported {answer:?}"));
        }
    }
    Ok(counts)
}

#[tokio::test]
async fn what_is_reported_agrees_with_what_was_applied() {
    for retry in [true, false] {
        let mut seen = [0; 3];
        for seed in 0..300 {
            let counts = run(seed, retry, false).await.unwrap();
            (0..3).for_each(|i| seen[i] += counts[i]);
        }
        let [ok, unknown, fail] = seen;
        assert!(ok > 20 && unknown > 20, "the story has both: {seen:?}");
        assert!(if retry { ok > 7_500 } else { fail > 20 }, "of 9,000: {seen:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_applies_a_repeat_again_is_noticed() {
    let mut noticed = 0;
    for seed in 0..50 {
        noticed += usize::from(run(seed, true, true).await.is_err());
    }
    assert!(noticed > 25, "{noticed} of 50");
}
