//! Bytes that claim to be the segment files of a write-ahead log: recovery ends, never panics, decides the
//! same each time, and claims no more records than the bytes can hold.
//!
//! Checksums are not compared in a build for fuzzing, or nothing but them would ever be tested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppdb::storage::wal::{Summary, recover_bytes};

/// Input: how many segments there are beside the last, the length of each of those in units of 512 bytes,
/// then the content of all segments behind each other.
fn segments(data: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let (count, mut rest) = data.split_first()?;
    let mut lengths = Vec::new();
    for _ in 0..count % 4 {
        let (length, left) = rest.split_first_chunk::<2>()?;
        lengths.push(usize::from(u16::from_le_bytes(*length)) * 512);
        rest = left;
    }
    let mut segments = Vec::new();
    for length in lengths {
        let (segment, left) = rest.split_at_checked(length)?;
        segments.push(segment);
        rest = left;
    }
    segments.push(rest);
    Some((1..).zip(segments).collect())
}

fuzz_target!(|data: &[u8]| {
    let Some(segments) = segments(data) else { return };
    let found = recover_bytes(&segments);
    match (&found, &recover_bytes(&segments)) {
        (Ok(first), Ok(second)) => assert_eq!(first, second),
        (Err(_), Err(_)) => {}
        other => panic!("recovery is of two minds: {other:?}"),
    }
    let Ok(found) = found else { return };
    let bytes: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(found.records <= bytes as u64, "{found:?} in {bytes} bytes");
    // Zeros behind the end are what an allocated file looks like; they hold nothing.
    let Some(longer) = recover_longer(&segments, 64) else {
        // Without checksums they complete the header of a later batch, if the end goes through one. That
        // takes a tear before it.
        assert!(found.cut, "zeros behind a clean end are taken for damage: {found:?}");
        return;
    };
    assert_eq!(longer, found);
    assert_eq!(recover_longer(&segments, 1024), Some(found));
});

/// Recovery with `zeros` behind the last segment; none if it finds damage.
fn recover_longer(segments: &[(u64, &[u8])], zeros: usize) -> Option<Summary> {
    let Some((last, others)) = segments.split_last() else { return recover_bytes(segments).ok() };
    let longer = [last.1, &vec![0; zeros]].concat();
    recover_bytes(&[others, &[(last.0, &longer)]].concat()).ok()
}
