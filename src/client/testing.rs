//! A scripted network with its own clock, and small things that tests of this module share.

use super::net::{Failure, Found, Net, Target};
use crate::types::{
    Code, Condition, Error, Expiry, Incarnation, NodeName, Op, OpResult, Result, SessionId,
    ShardId, Token,
};
use crate::wire::client::{
    Kv, KvReply, Map, MapNode, MapShard, ReplyBody, RequestBody, Role, Strategy, encode_results,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn get(key: &str) -> Op {
    Op::Get { key: key.to_owned().into() }
}

pub(crate) fn set(key: &str, value: &str) -> Op {
    Op::Set {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        condition: Condition::Always,
        expiry: Expiry::Never,
    }
}

/// Primaries n1 to n3, replica r1; two shards, owned by n1 and n2.
pub(crate) fn map(epoch: u64, strategy: Strategy) -> Map {
    let node = |n: &str, role| MapNode { name: name(n), role, addr: format!("{n}:1") };
    let shard = |id: u16, owner: &str| MapShard {
        id: ShardId(id),
        incarnation: Incarnation(0),
        owner: name(owner),
        copies: match strategy {
            Strategy::Sharded => vec![name(owner), name("r1")],
            Strategy::Full => {
                let others = ["n1", "n2", "n3"].into_iter().filter(|n| *n != owner);
                std::iter::once(owner).chain(others).chain(["r1"]).map(name).collect()
            }
        },
    };
    Map {
        epoch,
        strategy,
        read_default: Default::default(),
        nodes: vec![
            node("n1", Role::Primary),
            node("n2", Role::Primary),
            node("n3", Role::Primary),
            node("r1", Role::Replica),
        ],
        shards: vec![shard(0, "n1"), shard(1, "n2")],
    }
}

pub(crate) fn token(shard: u16, index: u64) -> Token {
    Token { shard: ShardId(shard), incarnation: Incarnation(0), index }
}

pub(crate) fn results(shard: u16, index: u64, results: &[OpResult]) -> ReplyBody {
    let results = encode_results(results);
    ReplyBody::Kv(KvReply { results, token: token(shard, index), age_ms: None })
}

/// What happens to the next request.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    node: String,
    outcome: Result<ReplyBody, Failure>,
}

impl Step {
    fn new(node: &str, outcome: Result<ReplyBody, Failure>) -> Self {
        Self { node: node.into(), outcome }
    }

    /// `node` answers; `*` is any node.
    pub(crate) fn reply(node: &str, body: ReplyBody) -> Self {
        Self::new(node, Ok(body))
    }

    /// One write or read of one key on shard 0 is answered.
    pub(crate) fn done(node: &str) -> Self {
        Self::reply(node, results(0, 1, &[OpResult::Done]))
    }

    pub(crate) fn lost(node: &str) -> Self {
        Self::new(node, Err(Failure::Lost("connection cut".into())))
    }

    pub(crate) fn timed_out(node: &str) -> Self {
        Self::new(node, Err(Failure::TimedOut))
    }

    /// The same, whichever node is asked.
    pub(crate) fn anywhere(self) -> Self {
        Self { node: "*".into(), ..self }
    }

    pub(crate) fn not_sent(node: &str) -> Self {
        let error = Error::new(Code::Unreachable, format!("cannot reach {node}"));
        Self::new(node, Err(Failure::NotSent(error)))
    }

    pub(crate) fn refused(node: &str, code: Code, hint: Option<&str>) -> Self {
        let error = Error::new(code, "told so").hint(hint.map(name));
        Self::new(node, Err(Failure::Refused(error)))
    }
}

/// A clock that moves when everybody sleeps: to the end of the sleep that ends first.
pub(crate) struct VirtualTime {
    start: Instant,
    state: Mutex<Sleepers>,
}

#[derive(Default)]
struct Sleepers {
    passed: Duration,
    until: Vec<Instant>,
    /// Raised by whatever happens besides sleeping.
    activity: u64,
}

impl VirtualTime {
    /// Polls of a sleeper without any activity after which everybody else must be asleep too.
    const IDLE_POLLS: u32 = 50;

    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.passed()
    }

    pub(crate) fn passed(&self) -> Duration {
        self.state.lock().passed
    }

    /// Something happened and took this long.
    pub(crate) fn spend(&self, time: Duration) {
        let mut state = self.state.lock();
        state.passed += time;
        state.activity += 1;
    }

    pub(crate) fn advance_to(&self, at: Instant) {
        self.spend(at.saturating_duration_since(self.now()));
    }

    pub(crate) async fn sleep_until(&self, at: Instant) {
        self.state.lock().until.push(at);
        let _awake = Awake(self, at);
        let (mut idle, mut activity) = (0, 0);
        while self.now() < at {
            tokio::task::yield_now().await;
            let mut state = self.state.lock();
            idle = if state.activity == activity { idle + 1 } else { 0 };
            activity = state.activity;
            if idle > Self::IDLE_POLLS && state.until.iter().all(|other| at <= *other) {
                state.passed = state.passed.max(at.saturating_duration_since(self.start));
                state.activity += 1;
            }
        }
    }
}

struct Awake<'a>(&'a VirtualTime, Instant);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let Some(at) = state.until.iter().position(|at| *at == self.1) {
            state.until.swap_remove(at);
        }
    }
}

/// Follows a script for `Kv`, `Scan` and `Command`; answers `Map` and `OpenSession` by itself. Its time
/// moves only while somebody waits.
pub(crate) struct Fake {
    time: VirtualTime,
    steps: Mutex<VecDeque<Step>>,
    /// When the script is over, this happens again and again.
    pub(crate) always: Option<Step>,
    pub(crate) map: Mutex<Map>,
    sent: Mutex<Vec<(NodeName, RequestBody)>>,
    sessions: Mutex<u64>,
}

impl Fake {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            time: VirtualTime::new(),
            steps: Mutex::new(steps.into_iter().collect()),
            always: None,
            map: Mutex::new(map(1, Strategy::Sharded)),
            sent: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// Every request so far, maps and sessions left out.
    pub(crate) fn sent(&self) -> Vec<(NodeName, RequestBody)> {
        let follows = |body: &RequestBody| {
            !matches!(body, RequestBody::Map | RequestBody::OpenSession { .. })
        };
        self.sent.lock().iter().filter(|(_, body)| follows(body)).cloned().collect()
    }

    pub(crate) fn sent_kv(&self) -> Vec<Kv> {
        let kv = |body| match body {
            RequestBody::Kv(kv) => Some(kv),
            _ => None,
        };
        self.sent().into_iter().filter_map(|(_, body)| kv(body)).collect()
    }

    pub(crate) fn asked_nodes(&self) -> Vec<String> {
        self.sent().into_iter().map(|(node, _)| node.to_string()).collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&RequestBody) -> bool) -> usize {
        self.sent.lock().iter().filter(|(_, body)| wanted(body)).count()
    }

    pub(crate) fn passed(&self) -> Duration {
        self.time.passed()
    }

    pub(crate) fn steps_left(&self) -> usize {
        self.steps.lock().len()
    }
}

impl Net for Fake {
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
        self.sent.lock().push((to.name.clone(), body.clone()));
        self.time.spend(Duration::ZERO);
        tokio::task::yield_now().await;
        match body {
            RequestBody::Map => return Ok(ReplyBody::Map(self.map.lock().clone())),
            RequestBody::OpenSession { .. } => {
                let mut opened = self.sessions.lock();
                *opened += 1;
                let incarnation = Incarnation(0);
                return Ok(ReplyBody::Session(SessionId { incarnation, index: *opened }));
            }
            _ => {}
        }
        let step = self.steps.lock().pop_front().or_else(|| self.always.clone());
        let step = step.unwrap_or_else(|| panic!("{} was asked after the script", to.name));
        assert!(step.node == "*" || step.node == to.name.as_str(), "{step:?}, not {}", to.name);
        if let Err(Failure::TimedOut) = step.outcome {
            self.time.advance_to(until);
        }
        step.outcome
    }

    async fn discover(&self, _until: Instant) -> Result<Found> {
        let target = Target { name: name("n1"), addr: "n1:1".into() };
        Ok(Found { target, map: Some(self.map.lock().clone()) })
    }
}
