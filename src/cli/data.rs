//! Data commands: what was typed becomes operations, and their results become one value. Pure.

use super::args::Data;
use super::value::{Answered, Done, Failure, Value};
use crate::client::{OpAnswer, Page, ScanOptions};
use crate::types::{Class, Code, Condition, Error, Expiry, Op, OpResult, Result, limits};
use bytes::Bytes;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// Words that stand for bytes no command line can hold. A word that is none of them is its own bytes.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    /// Bytes by the word that stands for them.
    pub ins: HashMap<OsString, Bytes>,
}

impl Stand {
    /// The bytes that a word stands for.
    pub fn bytes(&self, word: &OsStr) -> Bytes {
        match self.ins.get(word) {
            Some(bytes) => bytes.clone(),
            None => word.to_owned().into_vec().into(),
        }
    }
}

/// What a data command asks of the client.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Operations, one for each key.
    Ops {
        /// In the order of the keys.
        ops: Vec<Op>,
        /// How their results become one value.
        shape: Shape,
        /// All or none.
        atomic: bool,
    },
    /// A page of keys.
    Scan(ScanOptions),
}

/// How results become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The only result.
    One,
    /// One for each key.
    List,
    /// How many of the results are true.
    Count,
    /// True once everything is done.
    All,
}

/// Turns a command into what is asked of the client.
pub fn plan(command: &Data, stand: &Stand) -> Result<Plan> {
    let of = |word: &OsString| stand.bytes(word);
    let each =
        |keys: &[OsString], op: fn(Bytes) -> Op| keys.iter().map(|key| op(of(key))).collect();
    let (ops, shape, atomic): (Vec<Op>, Shape, bool) = match command {
        Data::Get { key } => (vec![Op::Get { key: of(key) }], Shape::One, false),
        Data::Set { key, value, nx, xx, ttl, keep_ttl } => {
            let condition = match (nx, xx) {
                (true, _) => Condition::Absent,
                (_, true) => Condition::Present,
                _ => Condition::Always,
            };
            let expiry = match ttl {
                Some(ms) => Expiry::AfterMs(*ms),
                None if *keep_ttl => Expiry::Keep,
                None => Expiry::Never,
            };
            let op = Op::Set { key: of(key), value: of(value), condition, expiry };
            (vec![op], Shape::One, false)
        }
        Data::Del { prefix: Some(_), .. } => {
            let message = "keys are deleted by their prefix in a way of its own";
            return Err(Error::new(Code::Internal, message));
        }
        Data::Del { keys, atomic, .. } => {
            (each(keys, |key| Op::Del { key }), Shape::Count, *atomic)
        }
        Data::Exists { keys } => (each(keys, |key| Op::Exists { key }), Shape::Count, false),
        Data::Mget { keys, atomic } => (each(keys, |key| Op::Get { key }), Shape::List, *atomic),
        Data::Mset { pairs, atomic } => (mset(pairs, stand)?, Shape::All, *atomic),
        Data::Incr { key, by } => (vec![Op::Incr { key: of(key), by: *by }], Shape::One, false),
        Data::Append { key, value } => {
            (vec![Op::Append { key: of(key), value: of(value) }], Shape::One, false)
        }
        Data::Cas { key, words, absent } => {
            (vec![cas(of(key), words, *absent, stand)?], Shape::One, false)
        }
        Data::Ttl { key } => (vec![Op::Ttl { key: of(key) }], Shape::One, false),
        Data::Expire { key, after } => {
            (vec![Op::Expire { key: of(key), after_ms: *after }], Shape::One, false)
        }
        Data::Persist { key } => (vec![Op::Persist { key: of(key) }], Shape::One, false),
        Data::Scan { prefix, limit, cursor, keys_only } => {
            let prefix = prefix.as_ref().map(of).unwrap_or_default();
            let scan = ScanOptions {
                prefix,
                cursor: cursor.clone(),
                limit: *limit,
                keys_only: *keys_only,
            };
            return Ok(Plan::Scan(scan));
        }
    };
    ops.iter().try_for_each(Op::check)?;
    if ops.len() > limits::REQUEST_OPS_MAX {
        let message = format!("{} keys; at most {} at a time", ops.len(), limits::REQUEST_OPS_MAX);
        return Err(Error::new(Code::BatchTooLarge, message));
    }
    Ok(Plan::Ops { ops, shape, atomic })
}

fn mset(pairs: &[OsString], stand: &Stand) -> Result<Vec<Op>> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::new(
            Code::BadRequest,
            "mset takes KEY VALUE pairs; the last key has no value",
        ));
    }
    let set = |[key, value]: &[OsString; 2]| Op::Set {
        key: stand.bytes(key),
        value: stand.bytes(value),
        condition: Condition::Always,
        expiry: Expiry::Never,
    };
    Ok(pairs.iter().map(set).collect())
}

fn cas(key: Bytes, words: &[OsString], absent: bool, stand: &Stand) -> Result<Op> {
    match (words, absent) {
        ([value], true) => Ok(Op::Cas { key, expected: None, value: stand.bytes(value) }),
        ([expected, value], false) => {
            let expected = Some(stand.bytes(expected));
            Ok(Op::Cas { key, expected, value: stand.bytes(value) })
        }
        _ => {
            let message = "cas takes KEY EXPECTED VALUE, or KEY --absent VALUE";
            Err(Error::new(Code::BadRequest, message))
        }
    }
}

/// Turns the results of all operations into the end of the command.
pub fn finish(ops: &[Op], shape: Shape, answers: Vec<Result<OpAnswer>>) -> Done {
    let mut answered = Answered::of(Value::Null);
    let mut results = Vec::with_capacity(answers.len());
    for (op, answer) in ops.iter().zip(answers) {
        results.push(answer.and_then(|answer| {
            if !answered.tokens.contains(&answer.token) {
                answered.tokens.push(answer.token);
            }
            if !answered.served_by.contains(&answer.served_by) {
                answered.served_by.push(answer.served_by);
            }
            answered.age_ms = answered.age_ms.max(answer.age_ms);
            value(op, answer.result)
        }));
    }
    if results.iter().any(Result::is_err) {
        return Err(partly(ops, results));
    }
    let values: Vec<Value> = results.into_iter().flatten().collect();
    (answered.value, answered.yes) = shaped(shape, values)?;
    Ok(answered)
}

/// Turns a page into the end of a scan.
pub fn finish_scan(page: Page) -> Answered {
    Answered::of(Value::Page { entries: page.entries, cursor: page.cursor })
}

fn value(op: &Op, result: OpResult) -> Result<Value> {
    Ok(match (op, result) {
        (_, OpResult::Nil) => Value::Null,
        (_, OpResult::Done) => Value::Bool(true),
        (_, OpResult::Bool(yes)) => Value::Bool(yes),
        (_, OpResult::Int(number)) => Value::Int(number),
        (_, OpResult::Value(bytes)) => Value::Bytes(bytes),
        (op, OpResult::Failed(code)) => {
            let key = super::output::escape(op.key());
            return Err(Error::new(code, format!("the operation on `{key}` had no effect")));
        }
    })
}

fn shaped(shape: Shape, values: Vec<Value>) -> Result<(Value, bool)> {
    let missing = || Error::new(Code::Internal, "fewer results than operations");
    Ok(match shape {
        Shape::One => {
            let value = values.into_iter().next().ok_or_else(missing)?;
            let yes = !matches!(value, Value::Null | Value::Bool(false));
            (value, yes)
        }
        Shape::List => {
            let yes = !values.contains(&Value::Null);
            (Value::List(values), yes)
        }
        Shape::Count => {
            let count = values.iter().filter(|value| **value == Value::Bool(true)).count();
            (Value::Int(count as i64), count > 0)
        }
        Shape::All => (Value::Bool(true), true),
    })
}

/// Some operations failed. For a single one its error is the command's; of several, what is worst
/// counts, and writes of which some took effect are neither done nor not done.
fn partly(ops: &[Op], results: Vec<Result<Value>>) -> Failure {
    let total = results.len();
    let done =
        ops.iter().zip(&results).filter(|(op, result)| op.is_write() && result.is_ok()).count();
    let worst = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .max_by_key(|error| match error.class() {
            Class::Retry => 0,
            Class::Fix => 1,
            Class::Stop => 2,
            Class::Uncertain => 3,
        })
        .cloned()
        .unwrap_or_else(|| Error::new(Code::Internal, "no error among failed results"));
    if total == 1 {
        return worst.into();
    }
    if done > 0 && worst.class() != Class::Uncertain {
        let message = format!("{done} of {total} operations took effect; {worst}");
        return Failure { results, ..Error::new(Code::Unknown, message).into() };
    }
    Failure { results, ..worst.into() }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Verb};
    use super::*;
    use crate::types::{NodeName, Token};

    fn planned(line: &str) -> Result<Plan> {
        let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        match Cli::from_words(words).unwrap_or_else(|error| panic!("{line}: {error}")).verb {
            Verb::Data(data) => plan(&data, &Stand::default()),
            other => panic!("{other:?}"),
        }
    }

    fn ops(line: &str) -> (Vec<Op>, Shape) {
        match planned(line).unwrap() {
            Plan::Ops { ops, shape, .. } => (ops, shape),
            other => panic!("{other:?}"),
        }
    }

    fn set(condition: Condition, expiry: Expiry) -> Vec<Op> {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        vec![Op::Set { key, value, condition, expiry }]
    }

    #[test]
    fn set_has_conditions_and_times_to_live() {
        assert_eq!(ops("set k v").0, set(Condition::Always, Expiry::Never));
        assert_eq!(
            ops("set k v --nx --ttl 30s").0,
            set(Condition::Absent, Expiry::AfterMs(30_000))
        );
        assert_eq!(ops("set --xx k v --keep-ttl").0, set(Condition::Present, Expiry::Keep));
        for bad in ["set k v --nx --xx", "set k v --ttl 1s --keep-ttl", "set k v --ttl 0s", "set k"]
        {
            let words = shlex::split(bad).unwrap().into_iter().map(OsString::from);
            assert!(Cli::from_words(words).is_err(), "{bad}");
        }
    }

    #[test]
    fn negative_numbers_are_values() {
        let (key, by) = (Bytes::from_static(b"k"), -3);
        assert_eq!(ops("incr k -3").0, vec![Op::Incr { key, by }]);
        assert!(matches!(&ops("set k -5").0[0], Op::Set { value, .. } if value == "-5"));
        assert!(matches!(&ops("set k -- -x").0[0], Op::Set { value, .. } if value == "-x"));
    }

    #[test]
    fn cas_and_mset_count_their_words() {
        let expected = |line: &str| match &ops(line).0[0] {
            Op::Cas { expected, value, .. } => (expected.clone(), value.clone()),
            other => panic!("{other:?}"),
        };
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert_eq!(expected("cas k a b"), (Some(a), b.clone()));
        assert_eq!(expected("cas k --absent b"), (None, b));
        for bad in ["cas k b", "cas k a b --absent"] {
            assert_eq!(planned(bad).unwrap_err().code, Code::BadRequest, "{bad}");
        }
        assert_eq!(ops("mset a 1 b 2").0.len(), 2);
        assert_eq!(ops("mset a 1 b 2").1, Shape::All);
    }

    #[test]
    fn limits_are_refused_before_anything_is_sent() {
        let long = "x".repeat(limits::KEY_BYTES_MAX + 1);
        assert_eq!(planned(&format!("get {long}")).unwrap_err().code, Code::KeyTooLong);
        assert_eq!(planned("get ''").unwrap_err().code, Code::KeyTooLong);
        let many = format!("mget {}", "k ".repeat(limits::REQUEST_OPS_MAX + 1));
        assert_eq!(planned(&many).unwrap_err().code, Code::BatchTooLarge);
    }

    #[test]
    fn a_stand_in_is_replaced_by_its_bytes() {
        let key = Bytes::from_static(&[0, 0xff]);
        let stand = Stand { ins: [(OsString::from("WORD"), key.clone())].into() };
        let data = Data::Get { key: "WORD".into() };
        let Plan::Ops { ops, .. } = plan(&data, &stand).unwrap() else { panic!() };
        assert_eq!(ops, vec![Op::Get { key }]);
    }

    fn answer(result: OpResult) -> Result<OpAnswer> {
        let token: Token = "s1.1.5".parse().unwrap();
        Ok(OpAnswer { result, token, served_by: NodeName::new("n1").unwrap(), age_ms: None })
    }

    fn finished(line: &str, results: Vec<Result<OpAnswer>>) -> Done {
        let (ops, shape) = ops(line);
        finish(&ops, shape, results)
    }

    fn value_of(line: &str, results: Vec<OpResult>) -> (Value, bool) {
        let done = finished(line, results.into_iter().map(answer).collect()).unwrap();
        (done.value, done.yes)
    }

    #[test]
    fn results_become_the_shapes_of_the_contract() {
        use OpResult::*;
        let bytes = Bytes::from_static(b"v");
        assert_eq!(value_of("get k", vec![Nil]), (super::Value::Null, false));
        assert_eq!(
            value_of("get k", vec![Value(bytes.clone())]).0,
            super::Value::Bytes(bytes.clone())
        );
        assert_eq!(value_of("set k v", vec![Done]), (super::Value::Bool(true), true));
        assert_eq!(value_of("set k v --nx", vec![Bool(false)]), (super::Value::Bool(false), false));
        assert_eq!(
            value_of("del a b c", vec![Bool(true), Bool(false), Bool(true)]).0,
            super::Value::Int(2)
        );
        assert_eq!(value_of("exists a", vec![Bool(false)]), (super::Value::Int(0), false));
        let list = super::Value::List(vec![super::Value::Null, super::Value::Bytes(bytes.clone())]);
        assert_eq!(value_of("mget a b", vec![Nil, Value(bytes)]), (list, false));
        assert_eq!(value_of("mset a 1 b 2", vec![Done, Done]).0, super::Value::Bool(true));
        assert_eq!(value_of("incr a -2", vec![Int(-2)]), (super::Value::Int(-2), true));
        assert_eq!(value_of("ttl a", vec![Int(-1)]), (super::Value::Int(-1), true));
        assert_eq!(value_of("ttl a", vec![Nil]), (super::Value::Null, false));
        assert_eq!(value_of("cas a x y", vec![Bool(false)]), (super::Value::Bool(false), false));
    }

    #[test]
    fn tokens_and_nodes_are_named_once() {
        let done =
            finished("mget a b", vec![answer(OpResult::Nil), answer(OpResult::Nil)]).unwrap();
        assert_eq!((done.tokens.len(), done.served_by.len()), (1, 1));
    }

    #[test]
    fn half_a_batch_of_writes_is_neither_done_nor_not_done() {
        let busy = || Err(Error::new(Code::Overloaded, "full"));
        let lost = || Err(Error::new(Code::Unknown, "lost"));
        let code = |line: &str, results| finished(line, results).unwrap_err().error.code;
        assert_eq!(code("set a 1", vec![busy()]), Code::Overloaded);
        assert_eq!(code("mset a 1 b 2", vec![busy(), busy()]), Code::Overloaded);
        assert_eq!(code("mset a 1 b 2", vec![answer(OpResult::Done), busy()]), Code::Unknown);
        assert_eq!(code("mset a 1 b 2", vec![busy(), lost()]), Code::Unknown);
        // Reads change nothing, so half of them is an ordinary failure.
        assert_eq!(code("mget a b", vec![answer(OpResult::Nil), busy()]), Code::Overloaded);
        let failure = finished("mget a b", vec![answer(OpResult::Nil), busy()]).unwrap_err();
        assert_eq!(failure.results.len(), 2);
        let refused = answer(OpResult::Failed(Code::NotAnInteger));
        assert_eq!(code("incr a", vec![refused]), Code::NotAnInteger);
    }
}
