//! What the fuzz targets share: one round trip, checked.
//!
//! Nothing here knows a message type.

use ppdb::wire::codec;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Decodes `data` as a `T`. What decodes must encode to bytes that decode to an equal value, and must
/// refuse one more byte at its end.
///
/// The encoded form may be shorter than `data`, because a varint has more than one spelling, but never
/// longer.
pub fn round_trip<T: Serialize + DeserializeOwned + Debug + PartialEq>(data: &[u8]) -> Option<T> {
    let value: T = codec::decode(data).ok()?;
    let mut encoded = codec::encode(&value);
    assert!(encoded.len() <= data.len(), "{value:?} grew from {} bytes", data.len());
    let again: T = codec::decode(&encoded).expect("an encoded value decodes");
    assert_eq!(value, again);
    encoded.push(0);
    assert_eq!(codec::decode::<T>(&encoded), Err(codec::Error::Trailing(1)));
    Some(value)
}
