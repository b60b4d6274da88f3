//! The spine of the control plane: one command from its arrival to its answer.
//!
//! 1 who may, 2 carry out, 3 answer. Reads the cluster's state and this node's copies; changes nothing by
//! itself: forming a cluster is handed to the node.

mod status;

use crate::cluster::{Heard, Registry, StateView};
use crate::pki::{Principal, Subject};
use crate::request::Commands;
use crate::shard;
use crate::storage::wal::Wal;
use crate::types::{Code, DiskId, Error, NodeName, Result, ShardId};
use crate::wire::client::Map;
use crate::wire::command::{Answer, Command, CopyDigest, Formation};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Forms a cluster; the node implements it.
pub trait Former: Send + Sync + 'static {
    /// Returns the map, and whether the cluster was formed just now.
    fn form(&self, formation: Formation, deadline: Instant) -> BoxFuture<'_, Result<(Map, bool)>>;
}

/// What the control plane works with.
pub struct Admin {
    /// This node's name.
    pub name: NodeName,
    /// Its disk.
    pub disk: DiskId,
    /// When the process started.
    pub started: Instant,
    /// What is known of the cluster.
    pub view: StateView,
    /// The copies held here.
    pub registry: Registry,
    /// Which peers are heard.
    pub heard: Heard,
    /// The metadata group, once it is open.
    pub metadata: Arc<parking_lot::RwLock<Option<crate::raft::Group>>>,
    /// The log, for its counters.
    pub wal: Wal,
    /// Forms clusters.
    pub former: Arc<dyn Former>,
    /// Set when the node stops: no command starts any more.
    pub stopping: Arc<AtomicBool>,
}

impl Commands for Admin {
    fn run(
        &self,
        who: Principal,
        command: Command,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.handle(who, command, deadline))
    }
}

impl Admin {
    async fn handle(&self, who: Principal, command: Command, deadline: Instant) -> Result<Answer> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::NotReady, format!("{} is stopping", self.name)));
        }
        match command {
            Command::ClusterInit(formation) => {
                tracing::info!(by = %subject(&who), cluster = %formation.cluster, "cluster init");
                let (map, created) = self.former.form(formation, deadline).await?;
                Ok(Answer::Formed { map, created })
            }
            Command::Status => self.status().map(Answer::Status),
            Command::Info => Ok(Answer::Info(self.info())),
            Command::ReplicaLag => self.replica_lag().map(Answer::ReplicaLag),
            Command::Precheck { .. }
            | Command::Strategy(_)
            | Command::StrategyShow
            | Command::StrategyHistory
            | Command::Settings
            | Command::Set { .. }
            | Command::Report
            | Command::Shard(_) => Err(Error::new(Code::UnknownCommand, "not yet")),
            Command::Digest { shard, at } => {
                self.digest(shard, at, deadline).await.map(Answer::Digest)
            }
        }
    }

    async fn digest(
        &self,
        shard: ShardId,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<CopyDigest> {
        let copy = self.registry.get(shard).ok_or_else(|| {
            Error::new(Code::NotFound, format!("{} holds no copy of {shard}", self.name))
        })?;
        let index = match at {
            Some(index) => index,
            None => copy.shard.propose_digest(deadline).await.map_err(|e| match e {
                shard::Error::NotLeader(leader) => {
                    let hint = leader.and_then(|node| self.view.name(node));
                    Error::new(Code::NotLeader, format!("{} does not lead {shard}", self.name))
                        .hint(hint)
                }
                shard::Error::Public(error) => error,
            })?,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let found = copy.shard.group().digest(index, left).await.ok_or_else(|| {
            Error::new(Code::NotYet, format!("no digest of {shard} at {index} yet"))
                .retry_after(100)
        })?;
        let digest = found.map_err(|code| {
            Error::new(code, format!("the digest of {shard} on {} failed", self.name))
        })?;
        Ok(CopyDigest {
            node: self.name.clone(),
            shard,
            incarnation: copy.incarnation,
            index,
            keys: digest.keys,
            sha256: digest.sha256.iter().map(|b| format!("{b:02x}")).collect(),
        })
    }
}

/// A principal as logs show it.
fn subject(who: &Principal) -> String {
    match &who.subject {
        Subject::Node(name) => format!("node {name}"),
        Subject::User(name) => format!("user {name}"),
    }
}
