//! The spine of the data plane: one request from its frame to its reply.
//!
//! 1 decode, 2 deadline, 3 admission, 4 route (shard -> copy here, fence, incarnation), 5 write through the
//! batcher or read at its level, 6 measure (what was slow goes to the slow log, what is watched to whoever watches it),
//! 7 reply with token. Each step may refuse; none goes back.

use crate::admission::{Budget, Class};
use crate::cluster::{ClusterState, CopyPlacement, LocalCopy, Registry, StateView};
use crate::faults::{self, Point};
use crate::hot::Hot;
use crate::monitor::Monitor;
use crate::pki::Principal;
use crate::service::{Kind, Meter, RequestClass, Totals};
use crate::shard::{self, Spent};
use crate::slowlog::{Asked, KeyHead, SlowLog};
use crate::types::{Code, Error, NodeId, NodeName, Op, ReadLevel, Result, ShardId, limits};
use crate::wire::client::{
    self, Hello, Kv, KvReply, Reply, ReplyBody, Request, RequestBody, Scan, Strategy,
};
use crate::wire::codec;
use crate::wire::slowlog::SlowKind;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where requests come from: one stream of a connection.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The identity that was verified.
    pub who: Principal,
    /// The address at the other end.
    pub from: SocketAddr,
}

/// Carries out commands that are not about keys; the control plane implements it.
pub trait Commands: Send + Sync + 'static {
    /// Carries out one command.
    fn run(
        &self,
        origin: Origin,
        command: crate::wire::command::Command,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<crate::wire::command::Answer>>;
}

/// What was served since the start, in operations, and how well of late.
#[derive(Debug, Default)]
pub struct Served {
    /// Keys read, those of scans included.
    pub reads: AtomicU64,
    /// Operations that change a key.
    pub writes: AtomicU64,
    /// Bytes of the requests that they came in.
    pub write_bytes: AtomicU64,
    /// Requests for keys by name, measured. Pages of scans are not: one says nothing about the next.
    pub level: Meter,
    /// Every request, by class and outcome.
    pub totals: Totals,
    /// Which keys were asked for.
    pub hot: Hot,
    /// Who watches what is served.
    pub monitor: Monitor,
}

/// A request under way.
struct UnderWay {
    class: RequestClass,
    /// What it takes of the budget.
    held_bytes: usize,
    arrived: Instant,
    deadline: Instant,
}

impl Served {
    /// `bytes` is what the request had.
    fn count(&self, reads: usize, writes: usize, bytes: usize) {
        self.reads.fetch_add(reads as u64, Ordering::Relaxed);
        if writes > 0 {
            self.writes.fetch_add(writes as u64, Ordering::Relaxed);
            self.write_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// What the data plane works with.
pub struct Plane {
    /// This node's name.
    pub name: NodeName,
    /// What is known of the cluster.
    pub view: StateView,
    /// The copies held here.
    pub registry: Registry,
    /// May a request start now.
    pub budget: Budget,
    /// The control plane.
    pub commands: Arc<dyn Commands>,
    /// What was served.
    pub served: Arc<Served>,
    /// What took long.
    pub slow: Arc<SlowLog>,
}

impl Plane {
    /// Answers one frame of a client. A frame that cannot be decoded has no id to answer to: `Err` ends
    /// the stream.
    pub async fn answer(&self, origin: &Origin, frame: Bytes) -> Result<Bytes> {
        let arrived = Instant::now();
        let request: Request = client::decode(&frame)?;
        let (id, body) = (request.id, request.body);
        let mut under_way = UnderWay {
            class: RequestClass::of(&body),
            held_bytes: frame.len(),
            arrived,
            deadline: arrived + self.time_for(&body, request.deadline_ms),
        };
        let done = self.carry_out(origin, body, &mut under_way).await;
        self.served.totals.note(under_way.class, arrived, done.as_ref().err().map(|e| e.code));
        Ok(codec::encode(&Reply { id, body: done }).into())
    }

    /// How long a request is worked on. Orders of operators have their own time.
    fn time_for(&self, body: &RequestBody, deadline_ms: u32) -> Duration {
        let asked = time_asked(deadline_ms);
        match body {
            RequestBody::Command(_) => asked,
            _ => self.budget.time_for(asked),
        }
    }

    async fn carry_out(
        &self,
        origin: &Origin,
        body: RequestBody,
        under_way: &mut UnderWay,
    ) -> Result<ReplyBody> {
        let (arrived, deadline) = (under_way.arrived, under_way.deadline);
        match body {
            RequestBody::Hello => Ok(ReplyBody::Hello(self.hello())),
            RequestBody::Map => Ok(ReplyBody::Map(self.view.state().map())),
            RequestBody::Command(command) => {
                self.commands.run(origin.clone(), command, deadline).await.map(ReplyBody::Command)
            }
            RequestBody::Kv(kv) => self.kv(&origin.who, kv, under_way).await.map(ReplyBody::Kv),
            RequestBody::Scan(scan) => {
                let watched = self.served.monitor.pick_scan(scan.shard, &scan.prefix);
                let done = self.scan(&origin.who, scan, arrived, deadline).await;
                if let Some(picked) = watched {
                    let code = done.as_ref().err().map(|error| error.code);
                    self.served.monitor.note_scan(picked, &origin.who, arrived.elapsed(), code);
                }
                done
            }
            RequestBody::OpenSession { shard } => {
                let _permit = self.budget.admit(Class::Write, under_way.held_bytes)?;
                let copy = self.route(shard)?;
                let opened = copy.shard.open_session(deadline).await;
                opened.map(ReplyBody::Session).map_err(|e| self.public(shard, e))
            }
        }
    }

    async fn kv(&self, who: &Principal, kv: Kv, under_way: &mut UnderWay) -> Result<KvReply> {
        let ops = client::decode_ops(&kv.ops)?;
        let watched = self.served.monitor.pick(kv.shard, &ops);
        let done = self.ops(who, kv, ops, under_way).await;
        if let Some(picked) = watched {
            self.served.monitor.note(picked, who, under_way.arrived.elapsed(), &done);
        }
        done
    }

    async fn ops(
        &self,
        who: &Principal,
        kv: Kv,
        ops: Vec<Op>,
        under_way: &mut UnderWay,
    ) -> Result<KvReply> {
        let writes = ops.iter().filter(|op| op.is_write()).count();
        under_way.class = RequestClass::of_ops(ops.len(), writes);
        let bytes = kv.ops.len();
        let _permit = self.budget.admit_ops((ops.len(), writes), bytes, under_way.held_bytes)?;
        let copy = self.route(kv.shard)?;
        self.check_shard(kv.shard, ops.iter().map(|op| op.key()))?;
        self.served.hot.note(kv.shard, &ops);
        let (arrived, deadline) = (under_way.arrived, under_way.deadline);
        let (operations, reads) = (ops.len(), ops.len() - writes);
        let key = KeyHead::of(ops.first().map_or(&[][..], |op| op.key()));
        let of = |kind| Asked { kind, operations, key, shard: kv.shard, arrived };
        let (kind, asked) = match writes {
            0 => (Kind::Read, of(SlowKind::Read)),
            _ => (Kind::Write, of(SlowKind::Write)),
        };
        let done = match kind {
            Kind::Read => self.read(&copy, kv.shard, ops, kv.level, deadline).await,
            Kind::Write => self.write(&copy, kv, deadline).await,
        };
        let took = self.served.level.note(kind, arrived, done.as_ref().err());
        self.slow.note(&asked, who, took, spent(&done));
        let (reply, _) = done?;
        self.served.count(reads, writes, bytes);
        Ok(reply)
    }

    async fn write(&self, copy: &LocalCopy, kv: Kv, deadline: Instant) -> Result<(KvReply, Spent)> {
        let written = copy.shard.write(kv.ops, kv.dedup, deadline).await;
        let (results, token, timing) = written.map_err(|e| self.public(kv.shard, e))?;
        faults::at(Point::ReplyBefore);
        Ok((KvReply { results, token, age_ms: None }, Spent::Write(timing)))
    }

    async fn read(
        &self,
        copy: &LocalCopy,
        shard: ShardId,
        ops: Vec<Op>,
        level: ReadLevel,
        deadline: Instant,
    ) -> Result<(KvReply, Spent)> {
        self.check_level(copy, shard, level)?;
        let read = copy.shard.read(ops, level, deadline).await;
        let (reply, waited) = read.map_err(|e| self.public(shard, e))?;
        Ok((reply, Spent::Read(waited)))
    }

    async fn scan(
        &self,
        who: &Principal,
        scan: Scan,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<ReplyBody> {
        let _permit = self.budget.admit(Class::Bulk, limits::SCAN_PAGE_BYTES_MAX)?;
        let (kind, shard, key) = (SlowKind::Scan, scan.shard, KeyHead::of(&scan.prefix));
        let copy = self.route(shard)?;
        self.check_level(&copy, shard, scan.level)?;
        let page = copy.shard.scan(scan, deadline).await.map_err(|e| self.public(shard, e));
        let done = page.map(|(page, waited)| (page, Spent::Read(waited)));
        let operations = done.as_ref().map_or(0, |(page, _)| page.entries.len());
        let asked = Asked { kind, operations, key, shard, arrived };
        self.slow.note(&asked, who, arrived.elapsed(), spent(&done));
        let (page, _) = done?;
        self.served.count(page.entries.len(), 0, 0);
        Ok(ReplyBody::Scan(page))
    }

    /// The copy of a shard here, if there is one and its fence is lifted.
    fn route(&self, shard: ShardId) -> Result<Arc<LocalCopy>> {
        let state = self.view.state();
        if !state.is_formed() {
            let message = match self.view.formation() {
                Some(_) => return Err(not_ready("the cluster is still forming")),
                None => "this node belongs to no cluster; run `ppdb cluster init`",
            };
            return Err(Error::new(Code::NotFormed, message));
        }
        let placed = state
            .shard(shard)
            .ok_or_else(|| Error::new(Code::Moved, format!("there is no shard {shard}")))?;
        let Some(copy) = self.registry.get(shard) else {
            let mine = |c: &&CopyPlacement| state.name(c.node).as_ref() == Some(&self.name);
            return match placed.copies.iter().find(mine) {
                Some(copy) if state.is_lost(copy) => {
                    Err(not_ready("its data was on a disk that this node lost"))
                }
                Some(_) => Err(not_ready("the copy is being opened")),
                None => {
                    Err(Error::new(Code::Moved, format!("{shard} has no copy on {}", self.name))
                        .hint(state.name(placed.owner)))
                }
            };
        };
        if placed.incarnation != copy.incarnation {
            return Err(Error::new(Code::Moved, format!("{shard} has another incarnation")));
        }
        match copy.is_serving() {
            true => Ok(copy),
            false => Err(not_ready("no metadata quorum has confirmed this node's copies yet")),
        }
    }

    /// Every key belongs to the shard the request names, or the client's map is of another cluster.
    fn check_shard<'a>(
        &self,
        shard: ShardId,
        mut keys: impl Iterator<Item = &'a Bytes>,
    ) -> Result<()> {
        let shards = self.view.state().shards.len() as u16;
        match keys.all(|key| crate::types::slots::shard_of(key, shards) == shard) {
            true => Ok(()),
            false => Err(Error::new(Code::CrossShard, format!("a key does not belong to {shard}"))),
        }
    }

    /// Linearizable reads are answered by the leader, and in full replication by any primary.
    fn check_level(&self, copy: &LocalCopy, shard: ShardId, level: ReadLevel) -> Result<()> {
        let group = copy.shard.group();
        if level == ReadLevel::Linearizable && (group.reads_alone() || group.is_leader()) {
            return Ok(());
        }
        let state = self.view.state();
        if level != ReadLevel::Linearizable {
            return self.check_serves(&state, copy, shard);
        }
        let votes = state
            .shard(shard)
            .is_some_and(|s| s.copies.iter().any(|c| c.id == copy.copy && c.voter));
        match state.strategy == Strategy::Full && votes {
            true => Ok(()),
            false => Err(self.not_leader(shard, group.leader().map(|(_, n)| n))),
        }
    }

    /// A copy that is being made, or kept for the way back, answers nobody.
    fn check_serves(&self, state: &ClusterState, copy: &LocalCopy, shard: ShardId) -> Result<()> {
        let placed = state.shard(shard);
        let mine = placed.and_then(|s| s.copies.iter().find(|c| c.id == copy.copy));
        match mine.is_some_and(|c| state.serves(c)) {
            true => Ok(()),
            false => {
                let message = format!("{} does not serve {shard}", self.name);
                let owner = placed.and_then(|s| state.name(s.owner));
                Err(Error::new(Code::Moved, message).hint(owner))
            }
        }
    }

    fn public(&self, shard: ShardId, error: shard::Error) -> Error {
        match error {
            shard::Error::NotLeader(leader) => self.not_leader(shard, leader),
            shard::Error::Public(error) => error,
        }
    }

    fn not_leader(&self, shard: ShardId, leader: Option<NodeId>) -> Error {
        let hint = leader.and_then(|node| self.view.name(node));
        Error::new(Code::NotLeader, format!("{} does not lead {shard}", self.name)).hint(hint)
    }

    fn hello(&self) -> Hello {
        Hello {
            node: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            formed: self.view.state().is_formed(),
        }
    }
}

/// Where the time of a request went, or why it failed.
fn spent<T>(done: &Result<(T, Spent)>) -> std::result::Result<Spent, Code> {
    done.as_ref().map(|(_, spent)| *spent).map_err(|error| error.code)
}

/// How long a request may take by what it says.
fn time_asked(deadline_ms: u32) -> Duration {
    match deadline_ms {
        0 => limits::DEADLINE_DEFAULT,
        ms => Duration::from_millis(ms.into()).min(limits::DEADLINE_MAX),
    }
}

fn not_ready(message: &str) -> Error {
    Error::new(Code::NotReady, message).retry_after(50)
}
