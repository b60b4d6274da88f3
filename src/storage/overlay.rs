//! Applied entries that are not in the table yet, in order, and the merge of both for a scan.
//!
//! Nothing here locks or touches a disk.

use super::table::{Snapshot, Visit, lower_bound};
use super::{Error, Space};
use bytes::Bytes;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

/// What a record costs in memory beyond the bytes of key and value (node of the tree, allocations).
const RECORD_OVERHEAD_BYTES: usize = 96;

/// Records of one space; none is a tombstone that hides the table's record.
type Records = BTreeMap<Box<[u8]>, Option<Bytes>>;

/// Ordered records of all spaces, tombstones included.
#[derive(Default)]
pub(super) struct Overlay {
    spaces: [Records; 4],
    size: Size,
}

/// What overlays hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes in memory, overhead included.
    pub bytes: usize,
    /// Records and tombstones.
    pub records: usize,
    /// Of those, the ones in `Space::Data`.
    pub data_records: usize,
}

impl std::ops::Add for Size {
    type Output = Size;
    fn add(self, other: Size) -> Size {
        Size {
            bytes: self.bytes + other.bytes,
            records: self.records + other.records,
            data_records: self.data_records + other.data_records,
        }
    }
}

impl Overlay {
    /// The value of a key, none inside for a tombstone; none outside if the overlay says nothing about it.
    pub fn get(&self, space: Space, key: &[u8]) -> Option<Option<&Bytes>> {
        self.spaces[space as usize].get(key).map(Option::as_ref)
    }

    /// Stores a value, or a tombstone for none.
    pub fn set(&mut self, space: Space, key: Box<[u8]>, value: Option<Bytes>) {
        let key_bytes = key.len();
        self.size.bytes += value_bytes(&value);
        match self.spaces[space as usize].insert(key, value) {
            Some(old) => self.size.bytes -= value_bytes(&old),
            None => {
                self.size.bytes += key_bytes + RECORD_OVERHEAD_BYTES;
                self.size.records += 1;
                self.size.data_records += usize::from(space == Space::Data);
            }
        }
    }

    /// Puts newer records on top.
    pub fn absorb(&mut self, newer: Overlay) {
        if self.is_empty() {
            *self = newer;
            return;
        }
        for (space, records) in Space::ALL.into_iter().zip(newer.spaces) {
            for (key, value) in records {
                self.set(space, key, value);
            }
        }
    }

    /// Records of one space in order.
    pub fn records(&self, space: Space) -> btree_map::Iter<'_, Box<[u8]>, Option<Bytes>> {
        self.spaces[space as usize].iter()
    }

    /// Whether there is nothing in it, not even a tombstone.
    pub fn is_empty(&self) -> bool {
        self.size.records == 0
    }

    /// What it holds.
    pub fn size(&self) -> Size {
        self.size
    }
}

fn value_bytes(value: &Option<Bytes>) -> usize {
    value.as_ref().map_or(0, Bytes::len)
}

/// Looks a key up in overlays, the newest first.
pub(super) fn find<'a>(
    layers: impl IntoIterator<Item = &'a Overlay>,
    space: Space,
    key: &[u8],
) -> Option<Option<&'a Bytes>> {
    layers.into_iter().find_map(|overlay| overlay.get(space, key))
}

/// Visits what overlays (the newest first) and table together hold, in order.
pub(super) fn merged_scan(
    layers: &[&Overlay],
    snapshot: &dyn Snapshot,
    space: Space,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let mut top = Layers::new(layers, space, prefix, after);
    let mut stopped = false;
    // The table drives: before each of its records come the overlays' records that sort before it.
    snapshot.scan(space, prefix, after, &mut |key, value| {
        let flow = match top.visit_before(key, visit) {
            ControlFlow::Continue(()) => match top.take(key) {
                Some(Some(newer)) => visit(key, newer),
                Some(None) => ControlFlow::Continue(()),
                None => visit(key, value),
            },
            stop => stop,
        };
        stopped = flow.is_break();
        flow
    })?;
    if !stopped {
        // A break in here ends the scan as well: nothing comes after.
        let _ = top.visit_rest(visit);
    }
    Ok(())
}

type Layer<'a> = Peekable<btree_map::Range<'a, Box<[u8]>, Option<Bytes>>>;

/// Several overlays as one ordered sequence in which the newest record of a key wins.
struct Layers<'a> {
    layers: Vec<Layer<'a>>,
    prefix: &'a [u8],
}

impl<'a> Layers<'a> {
    fn new(overlays: &[&'a Overlay], space: Space, prefix: &'a [u8], after: Option<&[u8]>) -> Self {
        let range = (lower_bound(prefix, after), Bound::Unbounded);
        let layer = |overlay: &&'a Overlay| {
            overlay.spaces[space as usize].range::<[u8], _>(range).peekable()
        };
        Self { layers: overlays.iter().map(layer).collect(), prefix }
    }

    fn peek(&mut self) -> Option<&'a [u8]> {
        let prefix = self.prefix;
        let firsts =
            self.layers.iter_mut().filter_map(|layer| layer.peek().map(|(key, _)| &key[..]));
        firsts.min().filter(|key| key.starts_with(prefix))
    }

    /// Takes the newest record of `key`, if any overlay has one, and passes the older ones.
    fn take(&mut self, key: &[u8]) -> Option<Option<&'a Bytes>> {
        let mut newest = None;
        for layer in &mut self.layers {
            if let Some((_, value)) = layer.next_if(|(found, _)| found[..] == *key) {
                newest = newest.or(Some(value.as_ref()));
            }
        }
        newest
    }

    fn visit_before(&mut self, key: &[u8], visit: &mut Visit<'_>) -> ControlFlow<()> {
        self.visit_while(|first| first < key, visit)
    }

    fn visit_rest(&mut self, visit: &mut Visit<'_>) -> ControlFlow<()> {
        self.visit_while(|_| true, visit)
    }

    fn visit_while(
        &mut self,
        within: impl Fn(&[u8]) -> bool,
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        while let Some(first) = self.peek().filter(|first| within(first)) {
            if let Some(Some(value)) = self.take(first) {
                visit(first, value)?;
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(overlay: &mut Overlay, key: &str, value: Option<&str>) {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        overlay.set(Space::Data, key.as_bytes().into(), value);
    }

    #[test]
    fn the_size_follows_every_change() {
        let mut overlay = Overlay::default();
        set(&mut overlay, "key", Some("value"));
        let one = Size { bytes: 8 + RECORD_OVERHEAD_BYTES, records: 1, data_records: 1 };
        assert_eq!(overlay.size(), one);
        set(&mut overlay, "key", Some("other"));
        assert_eq!(overlay.size(), one);
        set(&mut overlay, "key", None);
        assert_eq!(overlay.size(), Size { bytes: 3 + RECORD_OVERHEAD_BYTES, ..one });

        let mut newer = Overlay::default();
        set(&mut newer, "key", Some("value"));
        newer.set(Space::Meta, (*b"k").into(), None);
        overlay.absorb(newer);
        let both = Size { bytes: 9 + 2 * RECORD_OVERHEAD_BYTES, records: 2, data_records: 1 };
        assert_eq!(overlay.size(), both);
    }

    #[test]
    fn the_newest_overlay_wins_and_a_tombstone_is_an_answer() {
        let (mut newer, mut older) = (Overlay::default(), Overlay::default());
        set(&mut older, "a", Some("old"));
        set(&mut older, "b", Some("old"));
        set(&mut newer, "a", None);
        let look = |key: &[u8]| find([&newer, &older], Space::Data, key).map(|v| v.cloned());
        assert_eq!(look(b"a"), Some(None));
        assert_eq!(look(b"b"), Some(Some(Bytes::from_static(b"old"))));
        assert_eq!(look(b"c"), None);
    }
}
