//! The copies this node holds, and whether each may answer yet (the boot fence).
//!
//! Holds handles only. Who opens copies is the agent; who asks is the request path.

use crate::shard::Shard;
use crate::types::{CopyId, Incarnation, ShardId};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A copy held here.
pub struct LocalCopy {
    /// The replicated shard.
    pub shard: Shard,
    /// Its id.
    pub copy: CopyId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// Where its table lies.
    pub dir: std::path::PathBuf,
    /// It had applied nothing when it was opened.
    pub was_empty: bool,
    serving: AtomicBool,
}

impl LocalCopy {
    /// A copy that does not answer yet.
    pub fn new(
        shard: Shard,
        copy: CopyId,
        incarnation: Incarnation,
        dir: std::path::PathBuf,
    ) -> Self {
        let was_empty = shard.group().state().applied.is_none();
        Self { shard, copy, incarnation, dir, was_empty, serving: AtomicBool::new(false) }
    }

    /// True once the boot fence has passed for this copy.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Lets it answer from now on.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// Lets it answer no more.
    pub fn close(&self) {
        self.serving.store(false, Ordering::Release);
    }
}

/// All copies held here, by shard. Clones share them.
#[derive(Clone, Default)]
pub struct Registry {
    copies: Arc<RwLock<BTreeMap<ShardId, Arc<LocalCopy>>>>,
}

impl Registry {
    /// The copy of a shard.
    pub fn get(&self, shard: ShardId) -> Option<Arc<LocalCopy>> {
        self.copies.read().get(&shard).cloned()
    }

    /// Every copy, by shard.
    pub fn all(&self) -> Vec<(ShardId, Arc<LocalCopy>)> {
        self.copies.read().iter().map(|(id, copy)| (*id, copy.clone())).collect()
    }

    /// Takes a copy out, if it is still that one: no request reaches it any more.
    pub fn remove(&self, shard: ShardId, copy: CopyId) -> Option<Arc<LocalCopy>> {
        let mut copies = self.copies.write();
        copies.get(&shard).is_some_and(|held| held.copy == copy).then(|| copies.remove(&shard))?
    }

    /// Adds a copy that was opened.
    pub fn insert(&self, shard: ShardId, copy: LocalCopy) -> Arc<LocalCopy> {
        let copy = Arc::new(copy);
        self.copies.write().insert(shard, copy.clone());
        copy
    }
}
