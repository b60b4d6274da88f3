//! Splitting a call: one group of operations for each shard, cut into requests within the limits.

use crate::types::{Code, Error, Op, Result, ShardId, limits, slots};
use std::collections::BTreeMap;

/// Operations of one request, with their places in the call.
#[derive(Debug, PartialEq)]
pub(crate) struct Chunk {
    pub places: Vec<usize>,
    pub ops: Vec<Op>,
}

/// All operations of one shard. Its chunks are sent one after the other, so that operations on one
/// key keep their order.
#[derive(Debug, PartialEq)]
pub(crate) struct Group {
    pub shard: ShardId,
    pub chunks: Vec<Chunk>,
}

/// Groups operations by shard, in the order given.
pub(crate) fn split(ops: impl IntoIterator<Item = (usize, Op)>, shards: u16) -> Vec<Group> {
    let mut groups: BTreeMap<ShardId, Vec<Chunk>> = BTreeMap::new();
    let mut bytes_in_last: BTreeMap<ShardId, usize> = BTreeMap::new();
    for (place, op) in ops {
        let shard = slots::shard_of(op.key(), shards);
        let (chunks, bytes) =
            (groups.entry(shard).or_default(), bytes_in_last.entry(shard).or_default());
        let full = |chunk: &Chunk| {
            chunk.ops.len() >= limits::REQUEST_OPS_MAX
                || *bytes + op.bytes() > limits::REQUEST_BYTES_MAX
        };
        if chunks.last().is_none_or(full) {
            chunks.push(Chunk { places: vec![], ops: vec![] });
            *bytes = 0;
        }
        *bytes += op.bytes();
        if let Some(chunk) = chunks.last_mut() {
            chunk.places.push(place);
            chunk.ops.push(op);
        }
    }
    groups.into_iter().map(|(shard, chunks)| Group { shard, chunks }).collect()
}

/// Refuses, before anything is sent, a batch that cannot be atomic.
pub(crate) fn check_atomic(ops: &[Op], shards: u16) -> Result<()> {
    let mut of: Vec<ShardId> = ops.iter().map(|op| slots::shard_of(op.key(), shards)).collect();
    of.sort();
    of.dedup();
    if of.len() > 1 {
        let message = format!(
            "an atomic batch needs keys of one shard, these belong to {}; a common `{{tag}}` keeps keys together",
            of.len()
        );
        return Err(Error::new(Code::CrossShard, message));
    }
    let bytes: usize = ops.iter().map(Op::bytes).sum();
    if ops.len() > limits::REQUEST_OPS_MAX || bytes > limits::REQUEST_BYTES_MAX {
        let message = format!(
            "an atomic batch has at most {} operations and {} bytes, this one has {} and {bytes}",
            limits::REQUEST_OPS_MAX,
            limits::REQUEST_BYTES_MAX,
            ops.len()
        );
        return Err(Error::new(Code::BatchTooLarge, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{get, set};
    use bytes::Bytes;

    #[test]
    fn every_operation_is_in_one_chunk_of_its_shard_in_order() {
        let ops: Vec<Op> = (0..5_000).map(|i| get(&format!("k{}", i % 700))).collect();
        let groups = split(ops.iter().cloned().enumerate(), 3);
        assert_eq!(groups.len(), 3);
        let mut places: Vec<usize> = vec![];
        for group in &groups {
            let mut last = None;
            for chunk in &group.chunks {
                assert!(chunk.ops.len() <= limits::REQUEST_OPS_MAX);
                for (place, op) in chunk.places.iter().zip(&chunk.ops) {
                    assert_eq!(slots::shard_of(op.key(), 3), group.shard);
                    assert_eq!(op, &ops[*place]);
                    assert!(last < Some(*place));
                    last = Some(*place);
                    places.push(*place);
                }
            }
        }
        places.sort();
        assert!(places.into_iter().eq(0..5_000));
    }

    #[test]
    fn chunks_stay_within_the_bytes_of_a_request() {
        let value = "x".repeat(limits::VALUE_BYTES_MAX);
        let ops: Vec<Op> = (0..9).map(|i| set(&format!("{{t}}{i}"), &value)).collect();
        let groups = split(ops.into_iter().enumerate(), 12);
        let sizes: Vec<usize> = groups[0].chunks.iter().map(|c| c.ops.len()).collect();
        assert_eq!((groups.len(), sizes), (1, vec![3, 3, 3]));
    }

    #[test]
    fn a_single_operation_is_never_too_large_for_a_request() {
        let value = Bytes::from(vec![0; limits::VALUE_BYTES_MAX]);
        let key = Bytes::from(vec![0; limits::KEY_BYTES_MAX]);
        let largest = Op::Cas { key, expected: Some(value.clone()), value };
        assert!(largest.bytes() <= limits::REQUEST_BYTES_MAX);
    }

    #[test]
    fn atomic_batches_are_of_one_shard_and_one_request() {
        assert!(check_atomic(&[get("{a}1"), get("{a}2")], 12).is_ok());
        let error = check_atomic(&[get("a"), get("b"), get("c")], 12).unwrap_err();
        assert_eq!(error.code, Code::CrossShard);
        let many: Vec<Op> = (0..=limits::REQUEST_OPS_MAX).map(|_| get("a")).collect();
        assert_eq!(check_atomic(&many, 12).unwrap_err().code, Code::BatchTooLarge);
    }
}
