//! The spine of a call: operations -> shards -> requests -> a node each -> answers in order.
//!
//! Knows no nodes and no retries: `attempt` sends one request and brings its answer back.

use super::net::Net;
use super::route::{Node, View, want};
use super::sessions::Sessions;
use super::split::{Chunk, check_atomic, split};
use super::tokens::Seen;
use super::{CallOptions, Level, OpAnswer};
use crate::types::{Code, Error, NodeName, Op, OpResult, ReadLevel, Result, ShardId, Token};
use crate::wire::client::{Kv, KvReply, Map, ReplyBody, RequestBody, decode_results, encode_ops};
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Longest time a call may be given; only keeps the arithmetic of deadlines sound.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// A map older than this is asked for again.
const MAP_AGE_MAX: Duration = Duration::from_secs(2);

/// What all clones of a client share.
pub(crate) struct Inner<N> {
    pub(crate) net: N,
    view: RwLock<Arc<View>>,
    shards: OnceLock<Vec<ShardState>>,
    /// When the map was last asked for; held while asking.
    pub(crate) refreshing: tokio::sync::Mutex<Option<Instant>>,
    closed: AtomicBool,
    /// When the map was last confirmed, or when somebody last set out to do so.
    map_checked: Mutex<Option<Instant>>,
}

/// What the client keeps for a shard, whatever the map says.
#[derive(Default)]
pub(crate) struct ShardState {
    seen: Seen,
    pub(crate) sessions: Arc<Sessions>,
}

/// The answer to one request.
struct Answered {
    results: Vec<OpResult>,
    token: Token,
    age_ms: Option<u32>,
    served_by: NodeName,
}

impl<N: Net> Inner<N> {
    pub(crate) fn new(net: N) -> Self {
        Self {
            net,
            view: RwLock::default(),
            shards: OnceLock::new(),
            refreshing: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            map_checked: Mutex::default(),
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Refuses everything from here on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn deadline(&self, timeout: Duration) -> Instant {
        self.net.now() + timeout.min(TIMEOUT_MAX)
    }

    /// Takes a map over if it is newer. One that cannot be routed by is refused.
    pub(crate) fn adopt(&self, map: Map) -> Result<()> {
        let in_order = map.shards.iter().enumerate().all(|(i, s)| s.id.0 as usize == i);
        let states = || map.shards.iter().map(|_| ShardState::default()).collect();
        if map.shards.is_empty() {
            let message = "the node belongs to no cluster yet; run `ppdb cluster init`";
            return Err(Error::new(Code::NotFormed, message));
        }
        if !in_order {
            return Err(Error::new(Code::Internal, "a map whose shards are not in their order"));
        }
        if self.shards.get_or_init(states).len() != map.shards.len() {
            let message = "a map with another number of shards: it is of another cluster";
            return Err(Error::new(Code::Internal, message));
        }
        *self.map_checked.lock() = Some(self.net.now());
        let mut view = self.view.write();
        if view.map.shards.is_empty() || map.epoch > view.map.epoch {
            *view = Arc::new(View::new(Arc::new(map), &view));
        }
        Ok(())
    }

    /// True if the map should be asked for again; says so to one caller only until it has grown old again.
    pub(crate) fn map_is_due(&self) -> bool {
        let now = self.net.now();
        let mut checked = self.map_checked.lock();
        let due = checked.is_some_and(|at| now.saturating_duration_since(at) >= MAP_AGE_MAX);
        if due {
            *checked = Some(now);
        }
        due
    }

    pub(crate) fn state(&self, shard: ShardId) -> Result<&ShardState> {
        let state = self.shards.get().and_then(|shards| shards.get(shard.0 as usize));
        state.ok_or_else(|| Error::new(Code::Internal, format!("no shard {shard} in the map")))
    }

    /// One result for each operation, in order.
    pub(crate) async fn call(&self, ops: Vec<Op>, options: &CallOptions) -> Vec<Result<OpAnswer>> {
        let deadline = self.deadline(options.timeout);
        let count = ops.len();
        let all = |error: Error| vec![Err(error); count];
        if ops.is_empty() {
            return vec![];
        }
        let view = match self.ensure_map(options.retry, deadline).await {
            Ok(view) => view,
            Err(error) => return all(error),
        };
        let shards = view.map.shards.len() as u16;
        if options.atomic {
            let checked = ops.iter().try_for_each(Op::check);
            if let Err(error) = checked.and_then(|()| check_atomic(&ops, shards)) {
                return all(error);
            }
        }
        let mut answers: Vec<Option<Result<OpAnswer>>> =
            ops.iter().map(|op| op.check().err().map(Err)).collect();
        let fit = ops.into_iter().enumerate().filter(|(place, _)| answers[*place].is_none());
        let groups = split(fit.collect::<Vec<_>>(), shards);
        let parts = groups.into_iter().map(|g| self.group(g.shard, g.chunks, options, deadline));
        for (place, answer) in join_all(parts).await.into_iter().flatten() {
            answers[place] = Some(answer);
        }
        let missing = || Err(Error::new(Code::Internal, "an operation without an answer"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// The requests of one shard, one after the other.
    async fn group(
        &self,
        shard: ShardId,
        chunks: Vec<Chunk>,
        options: &CallOptions,
        deadline: Instant,
    ) -> Vec<(usize, Result<OpAnswer>)> {
        let mut left: VecDeque<Chunk> = chunks.into();
        let mut answers = vec![];
        while let Some(mut chunk) = left.pop_front() {
            let is_write = chunk.ops.iter().any(Op::is_write);
            match self.request(shard, &chunk.ops, is_write, options, deadline).await {
                Ok(answered) => {
                    let results = answered.results.iter();
                    for ((place, op), result) in chunk.places.iter().zip(&chunk.ops).zip(results) {
                        answers.push((*place, answer(op, result, &answered)));
                    }
                }
                // The values together are larger than a frame, which only the node could know.
                Err(error)
                    if error.code == Code::BatchTooLarge
                        && !is_write
                        && !options.atomic
                        && chunk.ops.len() > 1 =>
                {
                    let half = chunk.ops.len() / 2;
                    let (ops, places) = (chunk.ops.split_off(half), chunk.places.split_off(half));
                    left.push_front(Chunk { places, ops });
                    left.push_front(chunk);
                }
                Err(error) => {
                    answers.extend(chunk.places.iter().map(|place| (*place, Err(error.clone()))))
                }
            }
        }
        answers
    }

    async fn request(
        &self,
        shard: ShardId,
        ops: &[Op],
        is_write: bool,
        options: &CallOptions,
        deadline: Instant,
    ) -> Result<Answered> {
        let state = self.state(shard)?;
        let view = self.view();
        let asked = level(options, &view);
        let level = self.read_level(shard, asked, options.after, &view)?;
        let want = want(is_write, view.map.strategy, asked, options.node.as_ref());
        let (encoded, count) = (encode_ops(ops), ops.len());
        let kv = |dedup| RequestBody::Kv(Kv { shard, ops: encoded.clone(), level, dedup });
        let reply = if is_write {
            self.write(shard, state, kv, options.retry, deadline).await
        } else {
            self.read(shard, &want, kv(None), options.retry, deadline).await
        };
        let (body, node) = match reply {
            Ok(reply) => reply,
            Err(error) => {
                self.after_refusal(shard, level, &error, deadline).await;
                return Err(error);
            }
        };
        let answered = answered(body, count, &node).map_err(|why| malformed(is_write, &why, &node));
        if let Ok(answered) = &answered {
            self.saw(shard, answered.token);
        }
        answered
    }

    pub(crate) fn read_level(
        &self,
        shard: ShardId,
        level: Level,
        after: Option<Token>,
        view: &View,
    ) -> Result<ReadLevel> {
        Ok(match level {
            Level::Linearizable => ReadLevel::Linearizable,
            Level::Local { max_staleness_ms } => ReadLevel::Local { max_staleness_ms },
            Level::Session => {
                let current = view.map.shards.get(shard.0 as usize).map(|s| s.incarnation);
                let after = after.filter(|token| token.shard == shard);
                self.state(shard)?.seen.level(after, current.unwrap_or_default())
            }
        })
    }

    /// A reply of a shard carried this token.
    pub(crate) fn saw(&self, shard: ShardId, token: Token) {
        if let (Ok(state), true) = (self.state(shard), token.shard == shard) {
            state.seen.saw(token);
        }
    }

    /// Forgets a lineage that a shard declared lost.
    pub(crate) async fn after_refusal(
        &self,
        shard: ShardId,
        level: ReadLevel,
        error: &Error,
        deadline: Instant,
    ) {
        if let (Code::TokenLost, ReadLevel::Session { incarnation, .. }) = (error.code, level) {
            if let Ok(state) = self.state(shard) {
                state.seen.lost(incarnation);
            }
            // The next read goes by the lineage in the map; without a newer map it is refused again.
            self.try_refresh(deadline).await;
        }
    }
}

/// The level asked for, or the one that holds if none is.
pub(crate) fn level(options: &CallOptions, view: &View) -> Level {
    let unnamed = || match options.after {
        Some(_) => Level::Session,
        None => Level::by_default(view.map.read_default),
    };
    options.level.unwrap_or_else(unnamed)
}

fn answered(body: ReplyBody, count: usize, node: &Node) -> Result<Answered, String> {
    let ReplyBody::Kv(KvReply { results, token, age_ms }) = body else {
        return Err("another kind of answer".into());
    };
    let results = decode_results(&results).map_err(|error| error.message)?;
    if results.len() != count {
        return Err(format!("{} results for {count} operations", results.len()));
    }
    Ok(Answered { results, token, age_ms, served_by: node.target.name.clone() })
}

/// A node answered, but not in a way we understand. A write then has taken effect or not.
pub(crate) fn malformed(is_write: bool, why: &str, node: &Node) -> Error {
    let code = if is_write { Code::Unknown } else { Code::Internal };
    Error::new(code, format!("{} sent an answer that does not fit: {why}", node.target.name))
}

fn answer(op: &Op, result: &OpResult, answered: &Answered) -> Result<OpAnswer> {
    if let OpResult::Failed(code) = result {
        return Err(Error::new(*code, failed(*code, op)));
    }
    Ok(OpAnswer {
        result: result.clone(),
        token: answered.token,
        served_by: answered.served_by.clone(),
        age_ms: answered.age_ms,
    })
}

fn failed(code: Code, op: &Op) -> String {
    let key = op.key().escape_ascii();
    match code {
        Code::NotAnInteger => format!("the value of `{key}` is not a 64-bit decimal integer"),
        Code::IntegerOverflow => format!("`{key}` would leave the range of a 64-bit integer"),
        Code::ValueTooLong => format!(
            "the value of `{key}` would be longer than {} bytes",
            crate::types::limits::VALUE_BYTES_MAX
        ),
        Code::Corrupt => format!("the stored record of `{key}` failed its checksum"),
        _ => format!("the operation on `{key}` was refused"),
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
