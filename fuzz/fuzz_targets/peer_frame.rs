//! Bytes that claim to come from another node: peer frames, snapshot headers, calls and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppdb::types::limits;
use ppdb::wire::peer::{NodeAnswer, NodeCall, PeerFrame, SnapshotHeader, decode_frame};
use ppdb_fuzz::round_trip;

fuzz_target!(|data: &[u8]| {
    let decoded = round_trip::<PeerFrame>(data);
    match (decode_frame(data), decoded) {
        (Ok(frame), Some(decoded)) => {
            assert_eq!(frame, decoded);
            assert!(frame.messages.len() <= limits::PEER_FRAME_MESSAGES_MAX);
        }
        (Ok(frame), None) => panic!("accepted without being a frame: {frame:?}"),
        (Err(_), Some(decoded)) => {
            assert!(decoded.messages.len() > limits::PEER_FRAME_MESSAGES_MAX);
        }
        (Err(_), None) => {}
    }
    round_trip::<SnapshotHeader>(data);
    round_trip::<NodeCall>(data);
    round_trip::<NodeAnswer>(data);
});
