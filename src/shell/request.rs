//! One line of a driver, as a command: a shell line, a JSON array of strings, or a JSON object.
//!
//! The object is `{"argv":[…],"key_b64":…,"value_b64":…,"expected_b64":…}`. The three stand for the KEY,
//! the VALUE and the EXPECTED of the command; `argv` leaves them out, `{"argv":["set","--nx"],
//! "key_b64":"…","value_b64":"…"}`, or holds anything in their places, which is replaced. Where a command
//! takes several keys, `key_b64` is the only one. Bytes that have no place in the command are refused; the prefix of
//! `del` has to be held open: `{"argv":["del","--yes","--prefix",""],"key_b64":"…"}`.

use super::line;
use crate::cli::args::{Cli, Data, Verb};
use crate::cli::data::Stand;
use crate::cli::session::not_parsed;
use crate::cli::value::{Answered, Done, Value};
use crate::types::{Code, Error, Result};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use clap::Subcommand;
use serde::Deserialize;
use std::ffi::OsString;

/// Words that no argument can be by accident: they stand for the bytes beside `argv`.
const KEY: &str = "\0key\0";
const VALUE: &str = "\0value\0";
const EXPECTED: &str = "\0expected\0";

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A command to carry out.
    Run(Box<Cli>, Stand),
    /// Nothing to carry out: help, or what is wrong with the line.
    Answer(Box<Done>),
    /// The end.
    Leave,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    argv: Vec<String>,
    key_b64: Option<String>,
    value_b64: Option<String>,
    expected_b64: Option<String>,
}

/// What a line asks for. A line that asks for nothing is answered as malformed.
pub fn parse(line: &[u8]) -> Asked {
    let line = line.trim_ascii();
    let asked = match line.first() {
        None => Err(bad("an empty line".to_owned())),
        Some(b'[') => json(line).map(|argv: Vec<String>| of_argv(argv)),
        Some(b'{') => json(line).and_then(of_object),
        Some(_) => line::words(line).map(of_words),
    };
    asked.unwrap_or_else(|error| Asked::Answer(Box::new(Err(error.into()))))
}

/// The same for words that were split already, as people and scripts type them.
pub fn of_words(words: Vec<OsString>) -> Asked {
    if words.is_empty() {
        return Asked::Answer(Box::new(Err(bad("an empty line".to_owned()).into())));
    }
    if words.len() == 1 && (words[0] == "exit" || words[0] == "quit") {
        return Asked::Leave;
    }
    if words[0] == "?" {
        let rest = words.into_iter().skip(1);
        return of_words([OsString::from("help")].into_iter().chain(rest).collect());
    }
    // Examples and messages name the program; here that is understood.
    if words[0] == "ppdb" {
        let rest: Vec<OsString> = words.into_iter().skip(1).collect();
        return of_words(if rest.is_empty() { vec!["help".into()] } else { rest });
    }
    match Cli::from_words(words) {
        Ok(cli) => Asked::Run(Box::new(cli), Stand::default()),
        Err(error) => Asked::Answer(Box::new(not_parsed(&error))),
    }
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|error| bad(format!("not a request: {error}")))
}

fn of_argv(argv: Vec<String>) -> Asked {
    of_words(argv.into_iter().map(OsString::from).collect())
}

fn of_object(object: Object) -> Result<Asked> {
    let mut stand = Stand::default();
    let fields = [
        ("key_b64", KEY, &object.key_b64),
        ("value_b64", VALUE, &object.value_b64),
        ("expected_b64", EXPECTED, &object.expected_b64),
    ];
    for (name, word, text) in fields {
        if let Some(text) = text {
            let bytes =
                BASE64.decode(text).map_err(|e| bad(format!("{name} is not base64: {e}")))?;
            stand.ins.insert(word.into(), Bytes::from(bytes));
        }
    }
    if stand.ins.is_empty() {
        return Ok(of_argv(object.argv));
    }
    if object.argv.iter().any(|word| [KEY, VALUE, EXPECTED].contains(&word.as_str())) {
        return Err(bad("argv holds a word that is kept for key_b64 and value_b64".to_owned()));
    }
    let words: Vec<OsString> = object.argv.into_iter().map(OsString::from).collect();
    let at = words
        .iter()
        .position(|word| word.to_str().is_some_and(Data::has_subcommand))
        .ok_or_else(|| bad("key_b64 and value_b64 go with a command on keys".to_owned()))?;
    let parsed = Cli::from_words(put_in(&words, at, &stand)).map(|mut cli| {
        let fits = in_place(&mut cli, &stand);
        (cli, fits)
    });
    let cli = match parsed {
        Ok((cli, true)) => {
            only_key(&cli, &stand)?;
            cli
        }
        // Perhaps something stands in their places already.
        other => match (replaced(words, &stand), other) {
            (Some(cli), _) => cli,
            (None, Err(error)) => return Ok(Asked::Answer(Box::new(not_parsed(&error)))),
            (None, Ok(_)) => {
                let message =
                    "not all of key_b64, value_b64 and expected_b64 have a place in this command";
                return Err(bad(message.to_owned()));
            }
        },
    };
    Ok(Asked::Run(Box::new(cli), stand))
}

/// Puts the words where their positions are: the key behind the command, expected behind the key, the value at the end.
fn put_in(words: &[OsString], at: usize, stand: &Stand) -> Vec<OsString> {
    let of =
        |word: &str| stand.ins.contains_key(OsString::from(word).as_os_str()).then(|| word.into());
    let (before, after) = words.split_at(at + 1);
    let mut all = before.to_vec();
    let (key, after) = match of(KEY) {
        Some(key) => (vec![key], after),
        None => {
            let (typed, rest) = after.split_at(after.len().min(1));
            (typed.to_vec(), rest)
        }
    };
    all.extend(key);
    all.extend(of(EXPECTED));
    all.extend_from_slice(after);
    all.extend(of(VALUE));
    all
}

/// Whether each word is where it belongs. Behind a flag it would be the flag's, whatever that does.
fn in_place(cli: &mut Cli, stand: &Stand) -> bool {
    let Verb::Data(data) = &mut cli.verb else { return false };
    let mut words = stand.ins.keys();
    words.all(|word| {
        let place = word.to_str().and_then(|name| place(data, name));
        place.is_some_and(|there| there == word)
    })
}

/// A second key beside `key_b64` may be meant or be a place holder; nobody can tell, so it is refused.
fn only_key(cli: &Cli, stand: &Stand) -> Result<()> {
    let has_key = stand.ins.contains_key(OsString::from(KEY).as_os_str());
    let keys = match &cli.verb {
        Verb::Data(Data::Del { keys, .. } | Data::Exists { keys } | Data::Mget { keys, .. }) => {
            keys.len()
        }
        Verb::Data(Data::Mset { pairs, .. }) => pairs.len() / 2,
        _ => 1,
    };
    if has_key && keys > 1 {
        return Err(bad("key_b64 stands for the only key of the command".to_owned()));
    }
    Ok(())
}

/// Parses the words as they are and replaces what stands in the places.
fn replaced(words: Vec<OsString>, stand: &Stand) -> Option<Cli> {
    let mut cli = Cli::from_words(words).ok()?;
    let Verb::Data(data) = &mut cli.verb else { return None };
    for word in stand.ins.keys() {
        *place(data, word.to_str()?)? = word.clone();
    }
    Some(cli)
}

/// The place of a word in a command, if it has one.
fn place<'a>(data: &'a mut Data, word: &str) -> Option<&'a mut OsString> {
    match (word, data) {
        (KEY, Data::Del { prefix: Some(prefix), .. }) => Some(prefix),
        (KEY, Data::Del { keys, .. } | Data::Exists { keys } | Data::Mget { keys, .. }) => {
            keys.first_mut()
        }
        (KEY, Data::Scan { prefix, .. }) => prefix.as_mut(),
        (KEY, Data::Mset { pairs, .. }) => pairs.first_mut(),
        (
            KEY,
            Data::Get { key }
            | Data::Set { key, .. }
            | Data::Incr { key, .. }
            | Data::Append { key, .. }
            | Data::Cas { key, .. }
            | Data::Ttl { key }
            | Data::Expire { key, .. }
            | Data::Persist { key },
        ) => Some(key),
        (VALUE, Data::Set { value, .. } | Data::Append { value, .. }) => Some(value),
        (VALUE, Data::Mset { pairs, .. }) => pairs.last_mut(),
        (VALUE, Data::Cas { words, .. }) => words.last_mut(),
        (EXPECTED, Data::Cas { words, .. }) if words.len() == 2 => words.first_mut(),
        _ => None,
    }
}

/// The answer to the end of a session.
pub fn goodbye() -> Done {
    Ok(Answered::of(Value::Null))
}

fn bad(message: String) -> Error {
    Error::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::care::{self, Danger};
    use crate::cli::data::{Plan, plan};
    use crate::cli::sweep;
    use crate::types::Op;

    fn ops(line: &str) -> Vec<Op> {
        match parse(line.as_bytes()) {
            Asked::Run(cli, stand) => match cli.verb {
                Verb::Data(data) => match plan(&data, &stand).unwrap() {
                    Plan::Ops { ops, .. } => ops,
                    Plan::Scan(scan) => vec![Op::Get { key: scan.prefix }],
                },
                other => panic!("{other:?}"),
            },
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> Code {
        match parse(line.as_bytes()) {
            Asked::Answer(done) => done.unwrap_err().error.code,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn set(key: &'static [u8], value: &'static [u8]) -> Vec<Op> {
        let (condition, expiry) = Default::default();
        let (key, value) = (Bytes::from_static(key), Bytes::from_static(value));
        vec![Op::Set { key, value, condition, expiry }]
    }

    #[test]
    fn the_three_forms_mean_the_same() {
        for line in [
            "set a 'b c'",
            r#"["set","a","b c"]"#,
            r#"{"argv":["set","a","b c"]}"#,
            r#"{"argv":["set"],"key_b64":"YQ==","value_b64":"YiBj"}"#,
            r#"{"argv":["set","a"],"value_b64":"YiBj"}"#,
            r#"{"argv":["set","b c"],"key_b64":"YQ"}"#,
            r#"{"argv":["set","",""],"key_b64":"YQ==","value_b64":"YiBj"}"#,
            r#"{"argv":["set","a","?"],"value_b64":"YiBj"}"#,
        ] {
            assert_eq!(ops(line), set(b"a", b"b c"), "{line}");
        }
    }

    #[test]
    fn bytes_of_any_kind_reach_the_operation() {
        let line = r#"{"argv":["set","--level","local"],"key_b64":"AP8=","value_b64":"LS1ueA=="}"#;
        assert_eq!(ops(line), set(b"\0\xff", b"--nx"));
        assert_eq!(ops(r#"{"argv":["set","k"],"value_b64":""}"#), set(b"k", b""));
        assert_eq!(ops("{\"argv\":[\"set\",\"k\",\"\\u00e9\"]}"), set(b"k", "é".as_bytes()));
        let key = Bytes::from_static(b"\xfe");
        assert_eq!(
            ops(r#"{"argv":["incr","5"],"key_b64":"/g=="}"#),
            [Op::Incr { key: key.clone(), by: 5 }]
        );
        assert_eq!(ops(r#"{"argv":["scan"],"key_b64":"/g=="}"#), [Op::Get { key: key.clone() }]);
        assert_eq!(ops(r#"{"argv":["mget"],"key_b64":"/g=="}"#), [Op::Get { key: key.clone() }]);
        let value = Bytes::from_static(b"n");
        let expected = Some(Bytes::from_static(b"o"));
        let cas = Op::Cas { key, expected, value: value.clone() };
        let line = r#"{"argv":["cas","o"],"key_b64":"/g==","value_b64":"bg=="}"#;
        assert_eq!(ops(line), vec![cas.clone()]);
        let line = r#"{"argv":["cas"],"key_b64":"/g==","expected_b64":"bw==","value_b64":"bg=="}"#;
        assert_eq!(ops(line), [cas]);
        let line = r#"{"argv":["cas","b"],"expected_b64":"bw==","value_b64":"bg=="}"#;
        let at_b = |op| match op {
            Op::Cas { key, .. } => key == "b",
            _ => false,
        };
        assert!(ops(line).into_iter().all(at_b), "the key may stand in argv");
        let absent = ops(r#"{"argv":["cas","k","--absent"],"value_b64":"bg=="}"#);
        assert_eq!(absent, [Op::Cas { key: Bytes::from_static(b"k"), expected: None, value }]);
    }

    #[test]
    fn the_prefix_of_a_deletion_may_be_any_bytes_and_is_judged_by_them() {
        let asked = |line: &str| match parse(line.as_bytes()) {
            Asked::Run(cli, stand) => match &cli.verb {
                Verb::Data(data) => {
                    let (prefix, _) = sweep::asked(data, &stand).unwrap();
                    (prefix, care::danger(&cli.verb, &stand))
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{line}: {other:?}"),
        };
        let line =
            |key: &str| format!(r#"{{"argv":["del","--yes","--prefix",""],"key_b64":"{key}"}}"#);
        assert_eq!(asked(&line("AP8=")), (Bytes::from_static(b"\0\xff"), Danger::Wide));
        assert_eq!(asked(&line("")), (Bytes::new(), Danger::Severe));
        let named = r#"{"argv":["del","--yes","--prefix","user:"],"key_b64":""}"#;
        assert_eq!(asked(named), (Bytes::new(), Danger::Severe), "whatever held its place");
    }

    #[test]
    fn what_is_malformed_is_an_answer() {
        for line in [
            "",
            "   ",
            "# a comment",
            "[1]",
            "[",
            "{}",
            "[]",
            r#"{"argv":["get","a"],"kye_b64":""}"#,
            r#"{"argv":["get"],"key_b64":"%"}"#,
            r#"{"argv":["status"],"key_b64":"YQ=="}"#,
            r#"{"argv":["get"],"value_b64":"YQ==","key_b64":"YQ=="}"#,
            r#"{"argv":["del","a"],"key_b64":"YQ=="}"#,
            r#"{"argv":["set","\u0000key\u0000"],"value_b64":"YQ=="}"#,
            // The value of a flag is not for bytes that stand for something else, and no key is either.
            r#"{"argv":["del","--yes","--prefix"],"value_b64":""}"#,
            r#"{"argv":["del","--yes","--prefix",""],"value_b64":"YQ=="}"#,
            r#"{"argv":["del"],"value_b64":"YQ=="}"#,
            r#"{"argv":["del"],"expected_b64":"YQ=="}"#,
            r#"{"argv":["scan","--cursor"],"value_b64":""}"#,
            r#"{"argv":["config","set","reads.default"],"value_b64":"YQ=="}"#,
            "set a",
            "get 'a",
        ] {
            assert_eq!(refused(line), Code::BadRequest, "{line}");
        }
        assert_eq!(refused("gte a"), Code::UnknownCommand);
        assert_eq!(refused(r#"["nope"]"#), Code::UnknownCommand);
    }

    #[test]
    fn help_is_an_answer_and_exit_is_the_end() {
        for line in ["help", "?", "help get", "get --help", r#"["help"]"#] {
            assert!(
                matches!(parse(line.as_bytes()), Asked::Answer(done) if done.is_ok()),
                "{line}"
            );
        }
        let text = |line: &str| match parse(line.as_bytes()) {
            Asked::Answer(done) => format!("{:?}", done.unwrap().value),
            other => panic!("{line}: {other:?}"),
        };
        for (one, other) in [
            ("help", "--help"),
            ("help", "?"),
            ("help", "ppdb"),
            ("help strategy", "strategy --help"),
            ("help strategy", "? strategy"),
            ("help strategy switch", "strategy switch --help"),
            ("help set", "ppdb set --help"),
        ] {
            assert_eq!(text(one), text(other), "{one}");
        }
        assert_eq!(ops("ppdb set a 'b c'"), set(b"a", b"b c"));
        assert!(matches!(parse(b"exit"), Asked::Leave));
        assert!(matches!(parse(b" quit \r"), Asked::Leave));
    }
}
