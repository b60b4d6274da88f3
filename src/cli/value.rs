//! What a command answers, and its JSON. This is the stable contract of every door.
//!
//! One answer is one object:
//! `{"v":1,"ok":true,"outcome":"ok","value":…,"token":…,"served_by":…,"ms":0.41}` or
//! `{"v":1,"ok":false,"outcome":"fail|unknown","code":…,"class":…,"message":…,"ms":0.41}`.
//! A failure also has `hint` (the node to ask) and `retry_after_ms` where they are known, and a bounded
//! `local` read has `age_ms`. `token` and `served_by` are null where there is none, a string where there
//! is one, and an array of strings where the keys of a command were on several shards.
//!
//! | command | `value` |
//! |---|---|
//! | `get` | string, or null for a missing key |
//! | `set` | true if stored, false if `--nx` or `--xx` did not hold |
//! | `del`, `exists` | number of the keys that existed |
//! | `del --prefix` | `{"prefix":…,"deleted":…,"dry_run":false}`; with `--dry-run` also `keys` and up to three `samples` |
//! | `mget` | array of string or null, in the order of the keys |
//! | `mset` | true |
//! | `scan` | `{"entries":[{"key":…,"value":…}],"cursor":string or null}`; no `value` with `--keys-only` |
//! | `incr` | number: the sum |
//! | `append` | number: bytes of the value |
//! | `cas`, `expire`, `persist` | true if done, false if the value, the key or a time to live was not there |
//! | `ttl` | number: milliseconds left, -1 without a time to live, null for a missing key |
//! | `help` | string |
//! | `version` | `{"name":"ppdb","version":…,"profile":"debug" or "release","failpoints":[…]}`; a release build has no failpoints |
//! | everything else | an object, or an array of objects |
//!
//! Bytes that are not UTF-8 are in base64 under another name: `value_b64` for `value`, `key_b64` for
//! `key`; as an element of an array they are `{"value_b64":…}`.
//!
//! A command on several keys of which some failed is a failure with `results`: an array with
//! `{"ok":true,"value":…}` or `{"ok":false,"outcome":…,"code":…,"class":…,"message":…}` for each key. If
//! writes among them took effect, its outcome is `unknown`: the command as a whole neither happened nor
//! not. `del --prefix` that ended early has `details` instead: `{"deleted":…,"unknown":…}`.

use crate::types::{Error, NodeName, Token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

/// The version of the contract.
pub const VERSION: u32 = 1;

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A missing key.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// Bytes of a value.
    Bytes(Bytes),
    /// Text of the program itself.
    Text(String),
    /// One for each key.
    List(Vec<Value>),
    /// A page of keys.
    Page {
        /// Keys with their values.
        entries: Vec<(Bytes, Option<Bytes>)>,
        /// For the next page.
        cursor: Option<String>,
    },
    /// A document, with the table that people see.
    Doc(Doc),
}

/// A document and how it looks as a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Doc {
    /// The contract.
    pub json: Json,
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// Rows of the table.
    pub rows: Vec<Vec<String>>,
    /// Sentences above the table.
    pub notes: Vec<String>,
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What it answered.
    pub value: Value,
    /// How far the shards had got, one for each shard.
    pub tokens: Vec<Token>,
    /// Who answered, each once.
    pub served_by: Vec<NodeName>,
    /// Age bound of a bounded `local` read; the oldest of several.
    pub age_ms: Option<u32>,
    /// False for a negative answer: the exit code is 1.
    pub yes: bool,
    /// The exit code of a command that has its own: `check`.
    pub code: Option<u8>,
}

/// A command that was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// What became of each key, if some were done.
    pub results: Vec<Result<Value, Error>>,
    /// What else is known of how far it came.
    pub details: Option<Box<Json>>,
}

/// How a command ended.
pub type Done = Result<Answered, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, results: Vec::new(), details: None }
    }
}

impl Answered {
    /// An answer that no shard and no node had part in.
    pub fn of(value: Value) -> Self {
        Answered {
            value,
            tokens: Vec::new(),
            served_by: Vec::new(),
            age_ms: None,
            yes: true,
            code: None,
        }
    }

    /// A document answered by a node.
    pub fn doc(doc: Doc, served_by: Option<NodeName>) -> Self {
        let served_by = served_by.into_iter().collect();
        Answered { served_by, ..Answered::of(Value::Doc(doc)) }
    }
}

/// The object of the contract.
pub fn envelope(done: &Done, ms: f64) -> Json {
    let ms = (ms * 100.0).round() / 100.0;
    let mut object = Map::new();
    object.insert("v".into(), json!(VERSION));
    match done {
        Ok(answered) => {
            object.insert("ok".into(), json!(true));
            object.insert("outcome".into(), json!("ok"));
            insert(&mut object, "value", &answered.value);
            object.insert("token".into(), one_or_many(&answered.tokens));
            object.insert("served_by".into(), one_or_many(&answered.served_by));
            if let Some(age_ms) = answered.age_ms {
                object.insert("age_ms".into(), json!(age_ms));
            }
        }
        Err(failure) => {
            failed(&mut object, &failure.error);
            if !failure.results.is_empty() {
                object.insert("results".into(), failure.results.iter().map(result).collect());
            }
            if let Some(details) = &failure.details {
                object.insert("details".into(), details.as_ref().clone());
            }
        }
    }
    object.insert("ms".into(), json!(ms));
    Json::Object(object)
}

/// Puts a value under `name`, or its base64 under `name_b64`.
fn insert(object: &mut Map<String, Json>, name: &str, value: &Value) {
    match value {
        Value::Bytes(bytes) => named_bytes(object, name, bytes),
        other => {
            object.insert(name.into(), plain(other));
        }
    }
}

/// Puts bytes under `name`, or their base64 under `name_b64`.
pub fn named_bytes(object: &mut Map<String, Json>, name: &str, bytes: &Bytes) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), json!(text)),
        Err(_) => object.insert(format!("{name}_b64"), json!(BASE64.encode(bytes))),
    };
}

/// A value that stands alone, without a name.
fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => json!(yes),
        Value::Int(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({ "value_b64": BASE64.encode(bytes) }),
        },
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Page { entries, cursor } => {
            let entries: Vec<Json> = entries.iter().map(entry).collect();
            json!({ "entries": entries, "cursor": cursor })
        }
        Value::Doc(doc) => doc.json.clone(),
    }
}

fn entry((key, value): &(Bytes, Option<Bytes>)) -> Json {
    let mut object = Map::new();
    named_bytes(&mut object, "key", key);
    if let Some(value) = value {
        named_bytes(&mut object, "value", value);
    }
    Json::Object(object)
}

fn result(result: &Result<Value, Error>) -> Json {
    let mut object = Map::new();
    match result {
        Ok(value) => {
            object.insert("ok".into(), json!(true));
            insert(&mut object, "value", value);
        }
        Err(error) => failed(&mut object, error),
    }
    Json::Object(object)
}

fn failed(object: &mut Map<String, Json>, error: &Error) {
    object.insert("ok".into(), json!(false));
    object.insert("outcome".into(), json!(error.outcome()));
    object.insert("code".into(), json!(error.code.name()));
    object.insert("class".into(), json!(error.class()));
    object.insert("message".into(), json!(error.message));
    if let Some(node) = &error.hint {
        object.insert("hint".into(), json!(node.as_str()));
    }
    if let Some(ms) = error.retry_after_ms {
        object.insert("retry_after_ms".into(), json!(ms));
    }
}

fn one_or_many(items: &[impl ToString]) -> Json {
    match items {
        [] => Json::Null,
        [item] => json!(item.to_string()),
        many => many.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    fn check(value: Value, expected: &str) {
        let json = envelope(&Ok(Answered::of(value)), 0.414).to_string();
        let head = r#"{"v":1,"ok":true,"outcome":"ok","#;
        let tail = r#","token":null,"served_by":null,"ms":0.41}"#;
        assert_eq!(json, format!("{head}{expected}{tail}"));
    }

    fn bytes(text: &[u8]) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text))
    }

    #[test]
    fn values_have_their_shapes() {
        check(Value::Null, r#""value":null"#);
        check(bytes(b"ann"), r#""value":"ann""#);
        check(bytes(&[0xff, 0]), r#""value_b64":"/wA=""#);
        check(Value::Int(i64::MIN), r#""value":-9223372036854775808"#);
        check(Value::Bool(false), r#""value":false"#);
        let list = vec![bytes(b"a"), Value::Null, bytes(&[0xfe])];
        check(Value::List(list), r#""value":["a",null,{"value_b64":"/g=="}]"#);
        let entries = vec![
            (Bytes::from_static(b"k"), Some(Bytes::from_static(b"v"))),
            (Bytes::from_static(&[0x80]), Some(Bytes::from_static(&[0x81]))),
            (Bytes::from_static(b"only"), None),
        ];
        let page = r#""value":{"entries":[{"key":"k","value":"v"},{"key_b64":"gA==","value_b64":"gQ=="},{"key":"only"}],"cursor":"c"}"#;
        check(Value::Page { entries, cursor: Some("c".into()) }, page);
    }

    #[test]
    fn an_answer_names_its_tokens_and_nodes() {
        let token = |text: &str| text.parse::<Token>().unwrap();
        let node = |name: &str| NodeName::new(name).unwrap();
        let one = Answered {
            tokens: vec![token("s3.1.2048")],
            served_by: vec![node("n2")],
            age_ms: Some(7),
            ..Answered::of(Value::Bool(true))
        };
        let json = envelope(&Ok(one.clone()), 1.0);
        assert_eq!(json["token"], "s3.1.2048");
        assert_eq!((&json["served_by"], &json["age_ms"]), (&json!("n2"), &json!(7)));
        let two = Answered { tokens: vec![token("s3.1.1"), token("s4.1.9")], ..one };
        assert_eq!(envelope(&Ok(two), 1.0)["token"], json!(["s3.1.1", "s4.1.9"]));
    }

    #[test]
    fn a_failure_names_code_class_and_outcome() {
        let error = Error::new(Code::Overloaded, "the queue is full").retry_after(100);
        let json = envelope(&Err(error.into()), 2.0).to_string();
        let expected = r#"{"v":1,"ok":false,"outcome":"fail","code":"Overloaded","class":"retry","message":"the queue is full","retry_after_ms":100,"ms":2.0}"#;
        assert_eq!(json, expected);
        let json = envelope(&Err(Error::new(Code::Unknown, "lost").into()), 2.0);
        assert_eq!((&json["outcome"], &json["class"]), (&json!("unknown"), &json!("uncertain")));
        let results = vec![Ok(Value::Bool(true)), Err(Error::new(Code::NotReady, "booting"))];
        let failure = Failure { results, ..Error::new(Code::Unknown, "1 of 2").into() };
        let json = envelope(&Err(failure), 2.0);
        assert_eq!(json["results"][0], json!({"ok": true, "value": true}));
        assert_eq!(json["results"][1]["code"], "NotReady");
    }
}
