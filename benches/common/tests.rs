//! Tests of what the benches decide and decode by themselves: without these, a wrong parser would look like
//! a slow peer.

// Only parts of these files are used here.
#![allow(dead_code)]

#[path = "../peers/redis/benchmark_csv.rs"]
mod benchmark_csv;
#[path = "../sale/demands.rs"]
mod demands;
#[path = "../sale/findings.rs"]
mod findings;
mod proc_files;
#[path = "../peers/etcd/proto.rs"]
mod proto;
mod quantile;
mod random;
#[path = "../peers/redis/resp.rs"]
mod resp;
#[path = "../peers/rows.rs"]
mod rows;
mod sale_tests;
mod stats;
mod text;
#[path = "../sale/values.rs"]
mod values;
#[path = "../sale/window.rs"]
mod window;

use bytes::BytesMut;
use resp::Reply;
use rows::{Demand, Found, Row};

#[test]
fn a_median_is_in_the_middle() {
    assert_eq!(stats::median(&[]), None);
    assert_eq!(stats::median(&[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(stats::median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    assert_eq!(stats::range(&[4.0, 1.0, 2.0]), Some((1.0, 4.0)));
}

#[test]
fn a_demand_is_met_by_all_of_its_parts_only() {
    let gate = Row::SetFull.gate();
    let found =
        |ratio, p99_ms| Found { ratio: Some(ratio), p99_ms: Some(p99_ms), ..Found::default() };
    assert!(gate.is_met(&found(4.0, 29.9)));
    assert!(!gate.is_met(&found(3.99, 29.9)));
    assert!(!gate.is_met(&found(4.0, 30.0)));
    assert!(!gate.is_met(&Found { ratio: Some(9.0), ..Found::default() }), "what was not found");
    assert!(!gate.is_met(&found(f64::NAN, 1.0)));
    let idle = Row::Idle.gate();
    let rest = |cpu, mib| Found { cpu_percent: Some(cpu), anon_mib: Some(mib), ..Found::default() };
    assert!(idle.is_met(&rest(10.0, 60.0)));
    assert!(!idle.is_met(&rest(10.1, 60.0)) && !idle.is_met(&rest(1.0, 61.0)));
    assert_eq!(idle.text(), "10 % of a core, 60 MiB");
    let loaded = Row::SwitchLoaded.gate();
    let grown = |p99, gap| Found { p99_growth: Some(p99), gap_growth_ms: gap, ..Found::default() };
    assert!(loaded.is_met(&grown(2.0, Some(-5.0))) && !loaded.is_met(&grown(2.1, Some(0.0))));
    assert!(!loaded.is_met(&grown(1.0, None)), "a request failed");
    let lost = Row::Failover.gate();
    let times = |median, longest| Found {
        median_s: Some(median),
        longest_s: Some(longest),
        ..Found::default()
    };
    assert!(lost.is_met(&times(3.0, 5.0)) && !lost.is_met(&times(1.0, 5.1)));
    let all: Vec<Demand> = Row::ALL.iter().flat_map(|row| [row.gate(), row.goal()]).collect();
    assert!(all.iter().all(|demand| !demand.is_met(&Found::default())), "every row demands");
}

#[test]
fn replies_of_redis_are_read_however_they_are_cut() {
    let mut request = BytesMut::new();
    resp::encode(&[b"SET", b"k", b"0123456789"], &mut request);
    assert_eq!(&request[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n");

    let stream = b"+OK\r\n$5\r\na\r\nbc\r\n$-1\r\n:-7\r\n-ERR no\r\n$0\r\n\r\n";
    let expected = [
        Reply::Simple("OK".into()),
        Reply::Bulk("a\r\nbc".into()),
        Reply::Nil,
        Reply::Int(-7),
        Reply::Error("ERR no".into()),
        Reply::Bulk("".into()),
    ];
    for step in 1..stream.len() {
        let (mut input, mut replies) = (BytesMut::new(), Vec::new());
        for part in stream.chunks(step) {
            input.extend_from_slice(part);
            while let Some(reply) = resp::decode(&mut input).unwrap() {
                replies.push(reply);
            }
        }
        assert_eq!(replies, expected, "in steps of {step}");
        assert!(input.is_empty());
    }
    for bad in [&b"*1\r\n"[..], b"$x\r\n", b"$-2\r\n", b"$99999999\r\n", b"\r\n"] {
        assert!(resp::decode(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn messages_of_etcd_are_written_and_read_as_protobuf() {
    // As protoc encodes them.
    assert_eq!(&proto::put(b"k", b"vw")[..], b"\x0a\x01k\x12\x02vw");
    assert_eq!(&proto::range_serializable(b"k")[..], b"\x0a\x01k\x38\x01");
    let long = [b'x'; 300];
    assert_eq!(proto::put(&long, b"")[..4], [0x0a, 0xac, 0x02, b'x']);
    let txn = proto::txn([(&b"k"[..], &b"v"[..])].into_iter());
    assert_eq!(&txn[..], b"\x12\x08\x12\x06\x0a\x01k\x12\x01v");
    let framed = proto::framed(b"abc");
    assert_eq!(&framed[..], b"\0\0\0\0\x03abc");
    assert_eq!(proto::unframed(&framed), Ok(&b"abc"[..]));
    assert!(proto::unframed(&framed[..7]).is_err() && proto::unframed(b"").is_err());

    // RangeResponse: header 1, kvs 2 (key 1, create_revision 2, value 5), count 4.
    let range = b"\x0a\x04\x08\x01\x10\x02\x12\x0b\x0a\x01k\x10\x05\x2a\x04vvvv\x20\x01";
    assert_eq!(proto::first_value(range), Some(&b"vvvv"[..]));
    assert_eq!(proto::first_value(b"\x0a\x02\x08\x01"), None, "no such key");
    assert_eq!(proto::first_value(&range[..12]), None, "cut off");
    // StatusResponse: header 1 (cluster_id 1, member_id 2), version 2, leader 4.
    let status = |leader: u8| [0x0a, 4, 8, 1, 0x10, 9, 0x12, 1, b'3', 0x20, leader];
    assert_eq!(proto::is_leader(&status(9)), Some(true));
    assert_eq!(proto::is_leader(&status(8)), Some(false));
    assert_eq!(proto::is_leader(b"\x0a\x02\x10\x09"), None, "no leader is known");
}

#[test]
fn what_redis_benchmark_prints_is_read() {
    let text = "WARNING: …\nCluster has 3 master nodes:\n\n\
        \"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
        \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
        \"SET\",\"13400.50\",\"4.700\",\"1.200\",\"4.500\",\"7.100\",\"9.900\",\"30.100\"\n";
    let [rate, p50_ms, p99_ms] = benchmark_csv::parse(text).unwrap();
    assert_eq!((rate, p50_ms, p99_ms), (13_400.5, 4.5, 9.9));
    assert!(benchmark_csv::parse("Could not connect\n").is_none());
    assert!(benchmark_csv::parse(&text[..text.len() - 60]).is_none());
}

#[test]
fn processes_are_read_from_proc() {
    let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 4 0 100 1 2";
    assert_eq!(proc_files::ticks(stat), Some(175.0));
    assert_eq!(proc_files::ticks("nonsense"), None);
    assert_eq!(proc_files::anon_kib("VmRSS:\t 9 kB\nRssAnon:\t    2048 kB\n"), Some(2048.0));
    assert_eq!(proc_files::anon_kib("VmRSS:\t 9 kB\n"), None);
}

#[test]
fn numbers_are_printed_to_be_compared() {
    let shown = [0.0123, 9.876, 42.04, 999.6, 1_234_567.0, -1_000.0].map(text::number);
    assert_eq!(shown, ["0.01", "9.88", "42.0", "1 000", "1 234 567", "-1 000"]);
}
