//! Every operation in every state of its key, by values.

use super::*;
use crate::types::limits;

const NOW_MS: u64 = 1_200;

/// Applies an operation to a key that is absent; present; present with 300 ms left; expired and not yet
/// removed. Tells each result and what is stored afterwards.
fn outcomes(op: &Op) -> [String; 4] {
    let key = "k";
    let setups =
        [None, Some(set(key, "5")), Some(set_ttl(key, "5", 500)), Some(set_ttl(key, "5", 100))];
    setups.map(|setup| {
        let mut copy = Copy::new();
        if let Some(setup) = setup {
            copy.request(1_000, &[setup]);
        }
        let result = copy.request(NOW_MS, std::slice::from_ref(op)).remove(0);
        copy.check_index();
        format!("{result:?} -> {}", copy.stored(key))
    })
}

fn check(op: Op, absent: &str, present: &str, with_ttl: &str, expired: &str) {
    assert_eq!(outcomes(&op), [absent, present, with_ttl, expired], "{op:?}");
}

#[test]
fn reads() {
    let key = bytes("k");
    check(get("k"), "Nil -> -", "Value(b\"5\") -> 5", "Value(b\"5\") -> 5@1500", "Nil -> -");
    let exists = Op::Exists { key: key.clone() };
    check(
        exists,
        "Bool(false) -> -",
        "Bool(true) -> 5",
        "Bool(true) -> 5@1500",
        "Bool(false) -> -",
    );
    check(Op::Ttl { key }, "Nil -> -", "Int(-1) -> 5", "Int(300) -> 5@1500", "Nil -> -");
}

#[test]
fn set_by_condition() {
    let set = |condition| set_if("k", "6", condition, Expiry::Never);
    check(set(Condition::Always), "Done -> 6", "Done -> 6", "Done -> 6", "Done -> 6");
    let no = ["Bool(false) -> 5", "Bool(false) -> 5@1500"];
    check(set(Condition::Absent), "Done -> 6", no[0], no[1], "Done -> 6");
    check(
        set(Condition::Present),
        "Bool(false) -> -",
        "Done -> 6",
        "Done -> 6",
        "Bool(false) -> -",
    );
}

#[test]
fn set_by_expiry() {
    let set = |expiry| set_if("k", "6", Condition::Always, expiry);
    check(set(Expiry::Keep), "Done -> 6", "Done -> 6", "Done -> 6@1500", "Done -> 6");
    let after = "Done -> 6@1210";
    check(set(Expiry::AfterMs(10)), after, after, after, after);
    // The same time again: the index entry stays.
    let same = "Done -> 6@1500";
    check(set(Expiry::AfterMs(300)), same, same, same, same);
}

#[test]
fn del() {
    let no = "Bool(false) -> -";
    check(Op::Del { key: bytes("k") }, no, "Bool(true) -> -", "Bool(true) -> -", no);
}

#[test]
fn incr_and_append() {
    check(incr("k", -7), "Int(-7) -> -7", "Int(-2) -> -2", "Int(-2) -> -2@1500", "Int(-7) -> -7");
    let append = |text| Op::Append { key: bytes("k"), value: bytes(text) };
    check(append("ab"), "Int(2) -> ab", "Int(3) -> 5ab", "Int(3) -> 5ab@1500", "Int(2) -> ab");
    check(append(""), "Int(0) -> ", "Int(1) -> 5", "Int(1) -> 5@1500", "Int(0) -> ");
}

#[test]
fn cas() {
    let cas = |expected: Option<&str>| Op::Cas {
        key: bytes("k"),
        expected: expected.map(bytes),
        value: bytes("6"),
    };
    let no = "Bool(false) -> ";
    let [absent, present, with_ttl] = ["-", "5", "5@1500"].map(|stored| format!("{no}{stored}"));
    check(cas(None), "Bool(true) -> 6", &present, &with_ttl, "Bool(true) -> 6");
    check(cas(Some("5")), &absent, "Bool(true) -> 6", "Bool(true) -> 6@1500", &absent);
    check(cas(Some("x")), &absent, &present, &with_ttl, &absent);
}

#[test]
fn expire_and_persist() {
    let key = bytes("k");
    let (no, yes) = ("Bool(false) -> -", "Bool(true) -> 5@1240");
    check(Op::Expire { key: key.clone(), after_ms: 40 }, no, yes, yes, no);
    check(Op::Persist { key }, no, "Bool(false) -> 5", "Bool(true) -> 5", no);
}

#[test]
fn incr_takes_decimal_integers_only() {
    for (stored, by, expected) in [
        ("-9223372036854775808", 1, OpResult::Int(i64::MIN + 1)),
        ("007", 1, OpResult::Int(8)),
        ("9223372036854775807", 1, OpResult::Failed(Code::IntegerOverflow)),
        ("-9223372036854775808", -1, OpResult::Failed(Code::IntegerOverflow)),
        ("9223372036854775808", 1, OpResult::Failed(Code::NotAnInteger)),
        ("", 1, OpResult::Failed(Code::NotAnInteger)),
        (" 1", 1, OpResult::Failed(Code::NotAnInteger)),
        ("1\n", 1, OpResult::Failed(Code::NotAnInteger)),
        ("+1", 1, OpResult::Failed(Code::NotAnInteger)),
        ("1.0", 1, OpResult::Failed(Code::NotAnInteger)),
        ("0x1", 1, OpResult::Failed(Code::NotAnInteger)),
        ("-", 1, OpResult::Failed(Code::NotAnInteger)),
        ("\u{663}", 1, OpResult::Failed(Code::NotAnInteger)),
    ] {
        let mut copy = Copy::new();
        let results = copy.request(1, &[set("k", stored), incr("k", by)]);
        assert_eq!(results[1], expected, "{stored} + {by}");
        if matches!(expected, OpResult::Failed(_)) {
            assert_eq!(copy.stored("k"), stored);
        }
    }
}

#[test]
fn an_appended_value_stays_within_the_limit() {
    let mut copy = Copy::new();
    let half = "x".repeat(limits::VALUE_BYTES_MAX / 2);
    let append = |text: &str| Op::Append { key: bytes("k"), value: bytes(text) };
    let max = OpResult::Int(limits::VALUE_BYTES_MAX as i64);
    assert_eq!(copy.request(1, &[set("k", &half), append(&half)])[1], max);
    let too_long = OpResult::Failed(Code::ValueTooLong);
    assert_eq!(copy.request(1, &[append("y"), append("")]), [too_long, max]);
}

#[test]
fn operations_of_a_request_see_those_before_them() {
    let mut copy = Copy::new();
    let ops = [
        get("k"),
        set_ttl("k", "1", 50),
        incr("k", 4),
        get("k"),
        Op::Ttl { key: bytes("k") },
        Op::Persist { key: bytes("k") },
        Op::Ttl { key: bytes("k") },
        Op::Del { key: bytes("k") },
        Op::Exists { key: bytes("k") },
    ];
    let expected = [
        OpResult::Nil,
        OpResult::Done,
        OpResult::Int(5),
        value("5"),
        OpResult::Int(50),
        OpResult::Bool(true),
        OpResult::Int(-1),
        OpResult::Bool(true),
        OpResult::Bool(false),
    ];
    assert_eq!(copy.request(1_000, &ops), expected);
    copy.check_index();
}

#[test]
fn a_failed_operation_has_no_effect_and_the_others_have() {
    let mut copy = Copy::new();
    let failed = OpResult::Failed(Code::NotAnInteger);
    let results = copy.request(1, &[set("a", "x"), incr("a", 1), set("b", "y")]);
    assert_eq!(results, [OpResult::Done, failed, OpResult::Done]);
    assert_eq!([copy.stored("a"), copy.stored("b")], ["x", "y"]);
}

#[test]
fn a_reply_carries_a_bounded_number_of_value_bytes() {
    let mut copy = Copy::new();
    copy.request(1, &[set("k", &"x".repeat(limits::VALUE_BYTES_MAX)), set("s", "y")]);
    let fit = super::super::REPLY_VALUE_BYTES_MAX / limits::VALUE_BYTES_MAX;
    let mut ops = vec![get("k"); fit + 1];
    ops.push(incr("n", 1));
    let results = copy.request(1, &ops);
    assert!(results[..fit].iter().all(|result| matches!(result, OpResult::Value(_))));
    assert_eq!(results[fit..], [OpResult::Failed(Code::BatchTooLarge), OpResult::Int(1)]);
}

#[test]
fn bytes_are_bytes() {
    let mut copy = Copy::new();
    let (key, value) = (Bytes::from_static(&[0, 255, b'\n']), Bytes::from_static(&[0xff, 0, 0xfe]));
    let (condition, expiry) = (Condition::Always, Expiry::AfterMs(9));
    let op = Op::Set { key: key.clone(), value: value.clone(), condition, expiry };
    let results = copy.request(1, &[op, Op::Get { key }]);
    assert_eq!(results, [OpResult::Done, OpResult::Value(value)]);
    copy.check_index();
}
