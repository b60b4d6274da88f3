//! What this node knows of the cluster at any moment: the applied metadata, and before that the formation
//! it was told to join. Read by everything that needs a name, an address or a placement.

use super::core::ClusterState;
use crate::types::{NodeId, NodeName};
use crate::wire::peer::FormationRecord;
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::watch;

/// A shared, cheap view; clones see the same.
#[derive(Clone, Default)]
pub struct StateView {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    formation: Option<Arc<FormationRecord>>,
    state: Option<watch::Receiver<Arc<ClusterState>>>,
    /// Under which id this node's name goes on, with another disk.
    successor: Option<NodeId>,
    /// A quorum has confirmed the metadata since this process started.
    confirmed: bool,
}

impl StateView {
    /// The formation this node belongs to.
    pub fn formation(&self) -> Option<Arc<FormationRecord>> {
        self.inner.read().formation.clone()
    }

    /// Sets the formation; it never changes afterwards.
    pub fn set_formation(&self, record: FormationRecord) {
        self.inner.write().formation.get_or_insert_with(|| Arc::new(record));
    }

    /// Connects the applied metadata.
    pub fn set_state(&self, state: watch::Receiver<Arc<ClusterState>>) {
        self.inner.write().state = Some(state);
    }

    /// The applied metadata; unformed before the metadata group has applied anything here.
    pub fn state(&self) -> Arc<ClusterState> {
        self.inner.read().state.as_ref().map(|s| s.borrow().clone()).unwrap_or_default()
    }

    /// Resolves changes of the applied metadata, once the metadata group is open.
    pub fn watch(&self) -> Option<watch::Receiver<Arc<ClusterState>>> {
        self.inner.read().state.clone()
    }

    /// Every member, by the applied metadata, else by the formation.
    pub fn members(&self) -> Vec<NodeId> {
        let state = self.state();
        match self.formation() {
            Some(formation) if !state.is_formed() => {
                formation.members.iter().map(|m| m.id).collect()
            }
            _ => state.members.keys().copied().collect(),
        }
    }

    /// Where a node listens: by the applied metadata, else by the formation. Who is gone is nowhere, though
    /// another member may listen there.
    pub fn addr(&self, node: NodeId) -> Option<String> {
        let state = self.state();
        if let Some(member) = state.members.get(&node) {
            return Some(member.addr.clone());
        }
        if state.is_gone(node) {
            return None;
        }
        let formation = self.formation()?;
        formation.members.iter().find(|m| m.id == node).map(|m| m.addr.clone())
    }

    /// Notes that this node's name goes on under another id. True if that was not known.
    pub fn set_replaced(&self, successor: NodeId) -> bool {
        self.inner.write().successor.replace(successor) != Some(successor)
    }

    /// Notes that a quorum has confirmed the metadata.
    pub fn set_confirmed(&self) {
        self.inner.write().confirmed = true;
    }

    /// Whether what this node says of its copies counts: a quorum has confirmed the metadata since it
    /// started, and it was not replaced.
    pub fn counts(&self, me: NodeId) -> bool {
        self.inner.read().confirmed && !self.replaced(me)
    }

    /// Whether this node, known to itself as `me`, was replaced: it was told so, or sees that it is gone.
    pub fn replaced(&self, me: NodeId) -> bool {
        self.inner.read().successor.is_some() || self.state().is_gone(me)
    }

    /// The id of the node with that name.
    pub fn node(&self, name: &NodeName) -> Option<NodeId> {
        if let Some((id, _)) = self.state().member(name) {
            return Some(id);
        }
        let formation = self.formation()?;
        formation.members.iter().find(|m| m.name == *name).map(|m| m.id)
    }

    /// The name of a node.
    pub fn name(&self, node: NodeId) -> Option<NodeName> {
        if let Some(name) = self.state().name(node) {
            return Some(name);
        }
        let formation = self.formation()?;
        formation.members.iter().find(|m| m.id == node).map(|m| m.name.clone())
    }
}
