//! Stored bytes never change: every kind of record, the batch header and the segment's block in hex.
//! A change here is a new version of the format, and the old one must still be read.

use super::super::body::{self, Change, Read};
use super::super::record::{self, Place, Salt};
use super::super::segment::{self, Block, Header};
use super::*;
use crate::types::GroupId;

const HEADER: Header = Header {
    segment: 2,
    random: 0x1122_3344_5566_7788,
    end_before: 0x5000,
    sequence_before: 41,
    batch_before: 6,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(change: Change, kind: u8, wanted: &str, read: Read<'_>) {
    let place = Place { salt: HEADER.salt(), base: 4160, batch: 7 };
    let mut buffer = Vec::new();
    change.write(&mut buffer, place, 42, GroupId(0x0003_0001));
    assert_eq!(hex(&buffer), wanted);
    assert_eq!(buffer.len(), change.record_bytes());
    let mut file = vec![0; 4160];
    file.extend_from_slice(&buffer);
    let (head, body) = record_at(&file, 4160, place.salt).unwrap();
    assert_eq!((head.kind, head.version, head.batch, head.sequence), (kind, 1, 7, 42));
    assert_eq!(body::read(&head, body), Some(read));
    // The same bytes elsewhere, in another segment or under another salt are no record.
    assert!(record::head(&file[8..], 4152, place.salt).is_none());
    for salt in [Salt { segment: 3, ..place.salt }, Salt { random: 1, ..place.salt }] {
        assert!(record::head(&file, 4160, salt).is_none());
    }
}

#[test]
fn the_block_of_a_segment() {
    let block = HEADER.block();
    assert_eq!(block.len(), 4096);
    let wanted = concat!(
        "7070646277616c00010000000000000002000000000000008877665544332211",
        "00500000000000002900000000000000060000000000000000000000186a5511",
    );
    assert_eq!(hex(&block[..64]), wanted);
    assert_eq!(hex(&block[2048..2112]), wanted);
    assert!(segment::is_zero(&block[64..2048]) && segment::is_zero(&block[2112..]));
    assert_eq!(segment::block(2, &block), Block::Used(HEADER));
}

#[test]
fn a_batch_header() {
    let place = Place { salt: HEADER.salt(), base: 4096, batch: 7 };
    let mut buffer = Vec::new();
    record::write_batch(&mut buffer, place, 41, 120, 1);
    let wanted = concat!(
        "61f686680cc709d7100000000101000002000000000000000700000000000000",
        "2900000000000000000000000000000078000000000000000100000000000000",
    );
    assert_eq!(hex(&buffer), wanted);
    let file = [vec![0; 4096], buffer].concat();
    let (head, body) = record_at(&file, 4096, place.salt).unwrap();
    assert_eq!((head.kind, head.batch, head.sequence, head.group), (1, 7, 41, 0));
    assert_eq!(body::read(&head, body), Some(Read::Batch { bytes: 120, count: 1 }));
}

#[test]
fn an_append() {
    let entries = vec![bytes("one"), Bytes::new(), bytes("three")];
    let change = Change::Append { first: 9, entries };
    let place = Place { salt: HEADER.salt(), base: 4160, batch: 7 };
    let mut buffer = Vec::new();
    change.write(&mut buffer, place, 42, GroupId(0x0003_0001));
    let wanted = concat!(
        "d93c34bf3e9275e8200000000201000002000000000000000700000000000000",
        "2a00000000000000010003000000000009000000000000000300000003000000",
        "00000000050000006f6e657468726565",
    );
    assert_eq!(hex(&buffer), wanted);
    assert_eq!(buffer.len(), change.record_bytes());
    let file = [vec![0; 4160], buffer].concat();
    let (head, body) = record_at(&file, 4160, place.salt).unwrap();
    let Some(Read::Append { first: 9, entries }) = body::read(&head, body) else { panic!() };
    let found: Vec<&[u8]> = entries.map(|(_, entry)| entry).collect();
    assert_eq!(found, [&b"one"[..], b"", b"three"]);
}

#[test]
fn a_truncate() {
    const HEX: &str = concat!(
        "3685b0caa8222bca080000000301000002000000000000000700000000000000",
        "2a0000000000000001000300000000000c00000000000000",
    );
    check(Change::Truncate { from: 12 }, 3, HEX, Read::Truncate { from: 12 });
}

#[test]
fn a_purge() {
    const HEX: &str = concat!(
        "1f98f6d8a639eb8b0e0000000401000002000000000000000700000000000000",
        "2a0000000000000001000300000000000b00000000000000312d322e31310000",
    );
    let change = Change::Purge { upto: 11, body: bytes("1-2.11") };
    check(change, 4, HEX, Read::Purge { upto: 11, body: b"1-2.11" });
}

#[test]
fn a_vote() {
    const HEX: &str = concat!(
        "782f3ed33a663e9c060000000501000002000000000000000700000000000000",
        "2a0000000000000001000300000000007465726d20330000",
    );
    check(Change::Vote(bytes("term 3")), 5, HEX, Read::Vote(b"term 3"));
}

#[test]
fn what_is_committed() {
    const HEX: &str = concat!(
        "bcf88905f8be9e4f060000000601000002000000000000000700000000000000",
        "2a0000000000000001000300000000007570746f20380000",
    );
    check(Change::Committed(bytes("upto 8")), 6, HEX, Read::Committed(b"upto 8"));
}

#[test]
fn a_creation() {
    const HEX: &str = concat!(
        "6fdb6c2afe476019060000000701000002000000000000000700000000000000",
        "2a000000000000000100030000000000636f707920350000",
    );
    check(Change::Create(bytes("copy 5")), 7, HEX, Read::Create(b"copy 5"));
}

#[test]
fn a_removal() {
    const HEX: &str = concat!(
        "e8d22fb92c6ea16f000000000801000002000000000000000700000000000000",
        "2a000000000000000100030000000000",
    );
    check(Change::Remove, 8, HEX, Read::Remove);
}

#[test]
fn records_of_a_later_version_are_not_understood() {
    for head in [
        record::Head {
            kind: 5,
            version: 2,
            body_bytes: 0,
            body_crc: 0,
            batch: 0,
            sequence: 0,
            group: 0,
        },
        record::Head {
            kind: 99,
            version: 1,
            body_bytes: 0,
            body_crc: 0,
            batch: 0,
            sequence: 0,
            group: 0,
        },
    ] {
        assert_eq!(body::read(&head, b""), None);
    }
}
