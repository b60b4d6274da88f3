//! How a cluster comes to be, once: the first primary by name asks every member who it is, stores the
//! formation durably, tells the others to join, starts the metadata group and proposes the first state.
//!
//! Only the first primary does this and it decides by its own durable record, so two requests cannot form
//! two clusters; a member that has joined one formation refuses any other. Each step is repeatable: after
//! a crash the first primary goes on where it was.

use super::Node;
use crate::admin::Former;
use crate::pki::Subject;
use crate::transport::StreamClass;
use crate::types::{Code, Error, NodeId, NodeName, Result};
use crate::wire::client::{Map, Role};
use crate::wire::codec;
use crate::wire::command::Formation;
use crate::wire::peer::{FormationMember, FormationRecord, NodeAnswer, NodeCall, NodeDescription};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long one call to another member may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between attempts to complete a formation.
const COMPLETE_EVERY: Duration = Duration::from_millis(300);

/// The way from the control plane back to the node that assembled it.
pub(super) struct NodeFormer(pub(super) Weak<Node>);

impl Former for NodeFormer {
    fn form(&self, formation: Formation, deadline: Instant) -> BoxFuture<'_, Result<(Map, bool)>> {
        Box::pin(async move {
            let node = self.0.upgrade();
            let node = node.ok_or_else(|| Error::new(Code::NotReady, "this node is stopping"))?;
            node.form(formation, deadline).await
        })
    }
}

impl Node {
    async fn form(self: &Arc<Self>, wanted: Formation, deadline: Instant) -> Result<(Map, bool)> {
        self.check_first(&wanted)?;
        // One at a time, so that the second of two requests sees what the first one stored.
        let _one = self.forming.lock().await;
        let created = match self.view.formation() {
            Some(record) if is_same(&record, &wanted) => false,
            Some(record) => {
                return Err(Error::new(
                    Code::AlreadyFormed,
                    format!("this node belongs to cluster `{}` with other members", record.cluster),
                ));
            }
            None => {
                let record = self.plan_formation(&wanted).await?;
                self.adopt(record).await?;
                true
            }
        };
        self.wait_formed(deadline).await.map(|map| (map, created))
    }

    /// Only the first primary by name forms the cluster.
    fn check_first(&self, wanted: &Formation) -> Result<()> {
        if wanted.cluster != self.cluster {
            return Err(Error::new(
                Code::BadRequest,
                format!(
                    "the certificates are of cluster `{}`, not `{}`",
                    self.cluster, wanted.cluster
                ),
            ));
        }
        let first = wanted.members.iter().filter(|m| m.1 == Role::Primary).map(|m| &m.0).min();
        match first {
            Some(name) if *name == self.name => Ok(()),
            Some(name) => Err(Error::new(
                Code::NotLeader,
                format!("a cluster is formed by its first primary, {name}"),
            )
            .hint(Some(name.clone()))),
            None => Err(Error::new(Code::BadRequest, "a cluster needs a primary")),
        }
    }

    /// Asks every member who it is and draws up the formation. Stores nothing.
    async fn plan_formation(&self, wanted: &Formation) -> Result<FormationRecord> {
        let mut members = vec![];
        for (i, (name, role, addr)) in wanted.members.iter().enumerate() {
            let found = match *name == self.name {
                true => self.describe(),
                false => match self.call(addr, name, NodeCall::Describe).await? {
                    NodeAnswer::Description(found) => found,
                    NodeAnswer::Refused(error) => return Err(error),
                    NodeAnswer::Joined | NodeAnswer::Answer(_) => return Err(unexpected(name)),
                },
            };
            check_member(name, *role, &found)?;
            members.push(FormationMember {
                id: NodeId(i as u64 + 1),
                name: name.clone(),
                role: *role,
                addr: addr.clone(),
                disk: found.disk,
            });
        }
        let record = FormationRecord {
            id: rand::random(),
            cluster: wanted.cluster.clone(),
            shards: wanted.shards,
            members,
        };
        crate::cluster::core::check_formation(&record)?;
        Ok(record)
    }

    /// Joins a formation another member drew up, or a cluster that runs and has registered this node's
    /// empty disk.
    pub(super) async fn join(self: &Arc<Self>, record: FormationRecord) -> Result<()> {
        let me = record.members.iter().find(|m| m.name == self.name).ok_or_else(|| {
            Error::new(Code::BadRequest, format!("{} is not in the formation", self.name))
        })?;
        if let Some(joined) = self.view.formation().filter(|joined| joined.id == record.id) {
            return self.still_member(&joined, me);
        }
        crate::cluster::core::check_formation(&record)?;
        if me.disk != self.describe().disk || me.role != self.role {
            return Err(Error::new(
                Code::BadRequest,
                format!("{} was registered with another data folder or role", self.name),
            ));
        }
        let _one = self.forming.lock().await;
        match self.view.formation() {
            // Told twice at the same time.
            Some(joined) if joined.id == record.id => Ok(()),
            _ => self.adopt(record).await,
        }
    }

    /// Stores the formation durably, then starts this node's part of it. A node that has stored it and
    /// cannot start would wait for ever, so it stops.
    async fn adopt(self: &Arc<Self>, record: FormationRecord) -> Result<()> {
        let (node, stored) = (self.clone(), record.clone());
        let saved = tokio::task::spawn_blocking(move || node.disk.lock().join(&stored)).await;
        saved.map_err(|e| Error::new(Code::Internal, e.to_string()))??;
        let started = self.start_cluster(record).await;
        if let Err(error) = &started {
            let _ = self.fatal.try_send(error.clone());
        }
        started
    }

    /// On the first primary: repeats what is left of the formation until the cluster exists.
    pub(super) async fn complete_formation(self: Arc<Self>, record: Arc<FormationRecord>) {
        let mut joined = std::collections::BTreeSet::from([self.name.clone()]);
        loop {
            if self.view.state().is_formed() {
                return;
            }
            for member in record.members.iter() {
                if joined.contains(&member.name) {
                    continue;
                }
                let call = NodeCall::Join(record.as_ref().clone());
                match self.call(&member.addr, &member.name, call).await {
                    Ok(NodeAnswer::Joined) => {
                        joined.insert(member.name.clone());
                    }
                    Ok(NodeAnswer::Refused(error)) | Err(error) => {
                        tracing::warn!(member = %member.name, %error, "member has not joined");
                    }
                    Ok(NodeAnswer::Description(_) | NodeAnswer::Answer(_)) => {}
                }
            }
            let (agent, meta) =
                (self.agent(), self.control.read().as_ref().map(|c| c.metadata.clone()));
            if let (Some(agent), Some(meta)) = (agent, meta)
                && joined.len() == record.members.len()
            {
                match agent.complete_formation(&meta, &record).await {
                    Ok(()) => tracing::info!(cluster = %record.cluster, "cluster formed"),
                    Err(error) => tracing::info!(%error, "cluster not formed yet"),
                }
            }
            tokio::time::sleep(COMPLETE_EVERY).await;
        }
    }

    /// What this node says of itself.
    pub(super) fn describe(&self) -> NodeDescription {
        NodeDescription {
            name: self.name.clone(),
            role: self.role,
            disk: self.disk_id,
            formation: self.view.formation().map(|record| record.id),
        }
    }

    async fn wait_formed(&self, deadline: Instant) -> Result<Map> {
        loop {
            let state = self.view.state();
            if state.is_formed() {
                return Ok(state.map());
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Code::NotReady,
                    "the formation is stored and goes on by itself; not every member has joined yet",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One call to whatever node of that name listens at an address, on a connection of its own.
    pub(super) async fn call(
        &self,
        addr: &str,
        name: &NodeName,
        call: NodeCall,
    ) -> Result<NodeAnswer> {
        let unreachable = |why: String| Error::new(Code::Unreachable, format!("{name}: {why}"));
        let talk = async {
            let connection =
                self.endpoint.connect(addr).await.map_err(|e| unreachable(e.to_string()))?;
            if connection.principal().subject != Subject::Node(name.clone()) {
                let found = format!("{:?}", connection.principal().subject);
                return Err(Error::new(
                    Code::BadRequest,
                    format!("at {addr} answers {found}, not node {name}"),
                ));
            }
            let stream = connection.open(StreamClass::Node).await;
            let (sender, mut receiver) = stream.map_err(|e| unreachable(e.to_string()))?;
            let sent = sender.send(codec::encode(&call).into()).await;
            sent.map_err(|e| unreachable(e.to_string()))?;
            let answer = receiver.recv().await.map_err(|e| unreachable(e.to_string()))?;
            let answer = answer.ok_or_else(|| unreachable("it hung up".into()))?;
            connection.close("done");
            codec::decode(&answer).map_err(|e| Error::new(Code::BadVersion, e.to_string()))
        };
        match tokio::time::timeout(CALL_TIMEOUT, talk).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("no answer from {addr}"))),
        }
    }
}

fn check_member(name: &NodeName, role: Role, found: &NodeDescription) -> Result<()> {
    if found.name != *name || found.role != role {
        return Err(Error::new(
            Code::BadRequest,
            format!(
                "{name} shall be a {role:?}, but it is {} started as {:?}",
                found.name, found.role
            ),
        ));
    }
    match found.formation {
        None => Ok(()),
        Some(_) => {
            Err(Error::new(Code::AlreadyFormed, format!("{name} belongs to a cluster already")))
        }
    }
}

/// Whether a formation is what was asked for, but for its id and disks.
fn is_same(record: &FormationRecord, wanted: &Formation) -> bool {
    let mut have: Vec<_> =
        record.members.iter().map(|m| (m.name.clone(), m.role, m.addr.clone())).collect();
    let mut want = wanted.members.clone();
    have.sort();
    want.sort();
    record.cluster == wanted.cluster && record.shards == wanted.shards && have == want
}

fn unexpected(name: &NodeName) -> Error {
    Error::new(Code::Internal, format!("{name} answered something else"))
}
