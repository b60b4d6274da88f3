//! Random requests against a map with time: the same answers, the same visible keys, an index in step.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Value and expiry of each key that exists; what has expired is taken out before anything else.
#[derive(Default)]
struct Model {
    now_ms: u64,
    keys: BTreeMap<Bytes, (Vec<u8>, Option<u64>)>,
}

impl Model {
    fn advance(&mut self, stamp_ms: u64) {
        self.now_ms = self.now_ms.max(stamp_ms);
        let now_ms = self.now_ms;
        self.keys.retain(|_, (_, expires_ms)| expires_ms.is_none_or(|at| at > now_ms));
    }

    fn apply(&mut self, op: &Op) -> OpResult {
        let now_ms = self.now_ms;
        let key = op.key().clone();
        let exists = self.keys.contains_key(&key);
        match op {
            Op::Get { .. } => match self.keys.get(&key) {
                Some((value, _)) => OpResult::Value(value.clone().into()),
                None => OpResult::Nil,
            },
            Op::Exists { .. } => OpResult::Bool(exists),
            Op::Ttl { .. } => match self.keys.get(&key) {
                Some((_, Some(at))) => OpResult::Int((at - now_ms) as i64),
                Some((_, None)) => OpResult::Int(-1),
                None => OpResult::Nil,
            },
            Op::Set { value, condition, expiry, .. } => {
                if (*condition == Condition::Absent && exists)
                    || (*condition == Condition::Present && !exists)
                {
                    return OpResult::Bool(false);
                }
                let old_ms = self.keys.get(&key).and_then(|(_, at)| *at);
                let expires_ms = match expiry {
                    Expiry::Never => None,
                    Expiry::AfterMs(ms) => Some(now_ms + ms),
                    Expiry::Keep => old_ms,
                };
                self.keys.insert(key, (value.to_vec(), expires_ms));
                OpResult::Done
            }
            Op::Del { .. } => OpResult::Bool(self.keys.remove(&key).is_some()),
            Op::Incr { by, .. } => {
                let old = self.keys.get(&key).map_or(&b"0"[..], |(value, _)| value);
                let Ok(old) = std::str::from_utf8(old).unwrap().parse::<i64>() else {
                    return OpResult::Failed(Code::NotAnInteger);
                };
                let Some(sum) = old.checked_add(*by) else {
                    return OpResult::Failed(Code::IntegerOverflow);
                };
                self.keys.entry(key).or_default().0 = sum.to_string().into_bytes();
                OpResult::Int(sum)
            }
            Op::Append { value, .. } => {
                let stored = &mut self.keys.entry(key).or_default().0;
                stored.extend_from_slice(value);
                OpResult::Int(stored.len() as i64)
            }
            Op::Cas { expected, value, .. } => {
                let old = self.keys.get(&key).map(|(value, _)| value.as_slice());
                if old != expected.as_deref() {
                    return OpResult::Bool(false);
                }
                self.keys.entry(key).or_default().0 = value.to_vec();
                OpResult::Bool(true)
            }
            Op::Expire { after_ms, .. } => {
                if let Some((_, expires_ms)) = self.keys.get_mut(&key) {
                    *expires_ms = Some(now_ms + after_ms);
                }
                OpResult::Bool(exists)
            }
            Op::Persist { .. } => {
                let expires_ms = self.keys.get_mut(&key).and_then(|(_, at)| at.take());
                OpResult::Bool(expires_ms.is_some())
            }
        }
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just("a"), Just("ab"), Just("b"), Just("\u{0}")].prop_map(bytes)
}

fn short_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(""), Just("1"), Just("-5"), Just("9223372036854775807"), Just("x")]
        .prop_map(bytes)
}

fn ttl_ms() -> impl Strategy<Value = u64> {
    1..60u64
}

pub fn op() -> impl Strategy<Value = Op> {
    let condition = prop_oneof![
        2 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present)
    ];
    let expiry =
        prop_oneof![Just(Expiry::Never), ttl_ms().prop_map(Expiry::AfterMs), Just(Expiry::Keep)];
    prop_oneof![
        key().prop_map(|key| Op::Get { key }),
        key().prop_map(|key| Op::Exists { key }),
        key().prop_map(|key| Op::Ttl { key }),
        (key(), short_value(), condition, expiry)
            .prop_map(|(key, value, condition, expiry)| Op::Set { key, value, condition, expiry }),
        key().prop_map(|key| Op::Del { key }),
        (key(), prop_oneof![Just(1i64), Just(-1), Just(i64::MIN)])
            .prop_map(|(key, by)| Op::Incr { key, by }),
        (key(), short_value()).prop_map(|(key, value)| Op::Append { key, value }),
        (key(), prop::option::of(short_value()), short_value())
            .prop_map(|(key, expected, value)| Op::Cas { key, expected, value }),
        (key(), ttl_ms()).prop_map(|(key, after_ms)| Op::Expire { key, after_ms }),
        key().prop_map(|key| Op::Persist { key }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    /// An entry with some requests; its stamp may lie before the last one.
    Entry {
        advance_ms: i64,
        requests: Vec<Vec<Op>>,
    },
    Reload,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let requests = prop::collection::vec(prop::collection::vec(op(), 1..5), 0..4);
    prop_oneof![
        10 => (-10..30i64, requests).prop_map(|(advance_ms, requests)| Step::Entry { advance_ms, requests }),
        1 => Just(Step::Reload),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_shard_behaves_as_a_map_with_time(steps in prop::collection::vec(step(), 1..60)) {
        let (mut copy, mut model, mut stamp_ms) = (Copy::new(), Model::default(), 1_000i64);
        for step in steps {
            match step {
                Step::Reload => copy.reload(),
                Step::Flush => { copy.digest(); }
                Step::Entry { advance_ms, requests } => {
                    stamp_ms += advance_ms;
                    model.advance(stamp_ms as u64);
                    let encoded: Vec<Bytes> = requests.iter().map(|ops| encode_ops(ops)).collect();
                    let items = encoded.iter().map(|ops| Item::Ops { dedup: None, ops }).collect();
                    let replies = copy.apply(stamp_ms as u64, items);
                    for (ops, reply) in requests.iter().zip(&replies) {
                        let expected: Vec<OpResult> = ops.iter().map(|op| model.apply(op)).collect();
                        prop_assert_eq!(results(reply), expected, "{:?}", ops);
                    }
                }
            }
            // Few keys expire at a time, so what is stored is what is visible.
            let stored: Vec<_> = copy.records(Space::Data).into_iter().map(|(key, record)| {
                let Record { expires_ms, value } = Record::decode(&record).unwrap();
                (Bytes::from(key), (value.to_vec(), expires_ms))
            }).collect();
            prop_assert_eq!(stored, model.keys.clone().into_iter().collect::<Vec<_>>());
            copy.check_index();
            prop_assert_eq!(copy.state().now_ms, model.now_ms);
        }
    }
}
