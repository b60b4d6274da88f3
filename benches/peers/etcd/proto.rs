//! The few protobuf messages of etcd's API that the bench needs, written and read by hand.
//!
//! Field numbers are those of etcd's `rpc.proto` and `kv.proto` (etcd 3.x): `PutRequest` key 1, value 2;
//! `RangeRequest` key 1, serializable 7; `RangeResponse` kvs 2, of which `KeyValue` value 5; `TxnRequest`
//! success 2, of which `RequestOp` request_put 2; `StatusResponse` header 1, leader 4; `ResponseHeader`
//! member_id 2.

use bytes::{BufMut, Bytes, BytesMut};

const VARINT: u64 = 0;
const LENGTH: u64 = 2;

fn put_varint(mut value: u64, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes(number: u64, bytes: &[u8], out: &mut BytesMut) {
    put_varint(number << 3 | LENGTH, out);
    put_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// `PutRequest`.
pub fn put(key: &[u8], value: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(key.len() + value.len() + 16);
    put_bytes(1, key, &mut out);
    put_bytes(2, value, &mut out);
    out
}

/// `RangeRequest` for one key, answered by the node asked from what it has (`serializable`).
pub fn range_serializable(key: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(key.len() + 8);
    put_bytes(1, key, &mut out);
    put_varint(7 << 3 | VARINT, &mut out);
    put_varint(1, &mut out);
    out
}

/// `TxnRequest` of nothing but puts.
pub fn txn<'a>(puts: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> BytesMut {
    let mut out = BytesMut::new();
    for (key, value) in puts {
        let mut op = BytesMut::new();
        put_bytes(2, &put(key, value), &mut op);
        put_bytes(2, &op, &mut out);
    }
    out
}

/// A message as gRPC frames it: not compressed, length, bytes.
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// The one message in the body of an answer.
pub fn unframed(body: &[u8]) -> Result<&[u8], String> {
    match body {
        [0, a, b, c, d, message @ ..]
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
        {
            Ok(message)
        }
        _ => Err(format!("an unexpected body of {} bytes", body.len())),
    }
}

/// A field as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The first field of that number; none if it is absent or the message cannot be read.
fn field(mut input: &[u8], number: u64) -> Option<Field<'_>> {
    while !input.is_empty() {
        let tag = take_varint(&mut input)?;
        let found = match tag & 7 {
            VARINT => Field::Int(take_varint(&mut input)?),
            LENGTH => {
                let length = usize::try_from(take_varint(&mut input)?).ok()?;
                let (bytes, rest) = input.split_at_checked(length)?;
                input = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if tag >> 3 == number {
            return Some(found);
        }
    }
    None
}

fn bytes(message: &[u8], number: u64) -> Option<&[u8]> {
    match field(message, number)? {
        Field::Bytes(bytes) => Some(bytes),
        Field::Int(_) => None,
    }
}

fn int(message: &[u8], number: u64) -> Option<u64> {
    match field(message, number)? {
        Field::Int(value) => Some(value),
        Field::Bytes(_) => None,
    }
}

/// The value of the first key in a `RangeResponse`; none if there is no key.
pub fn first_value(response: &[u8]) -> Option<&[u8]> {
    bytes(bytes(response, 2)?, 5)
}

/// Whether the node that gave this `StatusResponse` leads; none if no leader is known.
pub fn is_leader(response: &[u8]) -> Option<bool> {
    let leader = int(response, 4)?;
    let member = int(bytes(response, 1)?, 2)?;
    Some(leader == member)
}
