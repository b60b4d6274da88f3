//! Bytes that claim to be a client frame: requests, replies, and the operations and results inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppdb::types::limits;
use ppdb::wire::client::{
    Reply, ReplyBody, Request, RequestBody, decode_ops, decode_results, encode_ops, encode_results,
};
use ppdb_fuzz::round_trip;

fuzz_target!(|data: &[u8]| {
    if let Some(request) = round_trip::<Request>(data)
        && let RequestBody::Kv(kv) = request.body
    {
        ops(&kv.ops);
    }
    if let Some(reply) = round_trip::<Reply>(data)
        && let Ok(ReplyBody::Kv(kv)) = reply.body
    {
        results(&kv.results);
    }
    ops(data);
    results(data);
});

/// Accepted operations are within every limit, and travel again unchanged.
fn ops(data: &[u8]) {
    let Ok(ops) = decode_ops(data) else { return };
    assert!((1..=limits::REQUEST_OPS_MAX).contains(&ops.len()));
    for op in &ops {
        assert!((1..=limits::KEY_BYTES_MAX).contains(&op.key().len()));
        assert!(op.bytes() <= data.len());
    }
    assert_eq!(decode_ops(&encode_ops(&ops)).as_ref(), Ok(&ops));
}

fn results(data: &[u8]) {
    let Ok(results) = decode_results(data) else { return };
    assert_eq!(decode_results(&encode_results(&results)).as_ref(), Ok(&results));
}
