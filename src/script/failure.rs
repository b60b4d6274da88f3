//! Whatever ends a script, as one error with a code, a place and an exit code. Pure.
//!
//! An error of a command is an exception: a map with `code`, `class`, `outcome`, `message`, and `hint` and
//! `retry_after_ms` where they are known. A script may catch it, look at it, and throw it again.

use super::engine;
use crate::cli::exit;
use crate::cli::runbook::Trouble;
use crate::types::{Class, Code, Error};
use rhai::{Dynamic, EvalAltResult, Map, ParseError, Position};
use std::time::Duration;

/// What a native function answers.
pub type Answer<T = Dynamic> = Result<T, Box<EvalAltResult>>;

/// Code of `fail(…)`, of a declined question, and of whatever else a script throws.
pub const FAILED: &str = "ScriptFailed";
/// Longest message of an error that is passed on.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// Code of a `guard` that does not hold: nothing was changed.
pub const GUARD: &str = "GuardFailed";
/// Code of a change outside of a step.
pub const NOT_IN_STEP: &str = "NotInStep";
/// Code of a script that takes more than it may.
pub const LIMIT: &str = "ScriptLimit";

/// Why a script was stopped from outside. No script can catch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// By Ctrl-C.
    Interrupted,
    /// Its time is up.
    OutOfTime,
    /// It takes more than it may.
    Limit(String),
    /// Its record cannot be written.
    Unrecorded(Error),
    /// A look at it has found what it was for.
    Looked,
}

impl Stopped {
    /// What the engine carries: code and message.
    pub fn token(self) -> Dynamic {
        let of = |code: &str, message: String| {
            let fields = [("code", code.into()), ("message", message.into())];
            Dynamic::from_map(fields.map(|(name, value)| (name.into(), value)).into())
        };
        match self {
            Stopped::Interrupted => of("Interrupted", "the script was interrupted".into()),
            Stopped::OutOfTime => of("ScriptTimeout", String::new()),
            Stopped::Limit(message) => of(LIMIT, message),
            Stopped::Unrecorded(error) => of(
                error.code.name(),
                format!("the record of this run cannot be kept: {}", error.message),
            ),
            Stopped::Looked => of(FAILED, "the script was only looked at".into()),
        }
    }

    /// The error that no script can catch.
    pub fn error(self) -> Box<EvalAltResult> {
        EvalAltResult::ErrorTerminated(self.token(), Position::NONE).into()
    }
}

/// An error of a command, as an exception.
pub fn thrown(error: Error) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("code".into(), error.code.name().into());
    map.insert("class".into(), class_name(error.class()).into());
    map.insert("outcome".into(), error.outcome().into());
    map.insert("hint".into(), error.hint.map_or(Dynamic::UNIT, |n| n.as_str().to_owned().into()));
    let retry = error.retry_after_ms.map_or(Dynamic::UNIT, |ms| Dynamic::from_int(ms.into()));
    map.insert("retry_after_ms".into(), retry);
    map.insert("message".into(), error.message.into());
    EvalAltResult::ErrorRuntime(Dynamic::from_map(map), Position::NONE).into()
}

/// `fail(message)`, as an exception.
pub fn failed(message: &str) -> Box<EvalAltResult> {
    raised(FAILED, message)
}

/// An exception with a code of scripts.
pub fn raised(code: &str, message: &str) -> Box<EvalAltResult> {
    let mut map = Map::new();
    for (name, value) in
        [("code", code), ("class", "fix"), ("outcome", "fail"), ("message", message)]
    {
        map.insert(name.into(), value.to_owned().into());
    }
    EvalAltResult::ErrorRuntime(Dynamic::from_map(map), Position::NONE).into()
}

/// The code that an exception carries, for the list of steps.
pub fn code_of(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(value, _) | EvalAltResult::ErrorTerminated(value, _) => {
            field(value, "code")
        }
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => Some(code_of(inner)),
        _ => None,
    }
    .unwrap_or_else(|| "ScriptError".to_owned())
}

/// The message of an exception, for the record.
pub fn message_of(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => {
            field(value, "message").unwrap_or_else(|| value.to_string())
        }
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => message_of(inner),
        other => without_place(other),
    }
}

/// What `on_failure` is given: what a `catch` would have been, with the code and the message at least.
pub fn as_value(trouble: &Trouble) -> Dynamic {
    let fields =
        [("code", &trouble.code), ("class", &trouble.class), ("message", &trouble.message)];
    let fields = fields.map(|(name, value)| (name.into(), value.clone().into()));
    Dynamic::from_map(fields.into_iter().collect())
}

/// What kept a script from being compiled.
pub fn of_parse(error: &ParseError) -> Box<Trouble> {
    Box::new(Trouble {
        code: "ScriptSyntax".into(),
        class: "fix".into(),
        message: error.err_type().to_string(),
        at: place(error.position()),
        inside: vec![],
        exit: exit::USAGE,
    })
}

/// What kept a script from starting.
pub fn of_error(error: &Error) -> Box<Trouble> {
    Box::new(Trouble {
        code: error.code.name().into(),
        class: class_name(error.class()).into(),
        message: error.message.clone(),
        at: None,
        inside: vec![],
        exit: exit::of_code(error.code),
    })
}

/// What ended a running script.
pub fn of_run(error: EvalAltResult, timeout: Duration) -> Box<Trouble> {
    let (mut inside, mut at, mut error) = (Vec::new(), None, error);
    while let EvalAltResult::ErrorInFunctionCall(name, _, inner, position) = error {
        at = place(position).or(at);
        inside.push(name);
        error = *inner;
    }
    // From the innermost outwards, which is how it is read.
    inside.reverse();
    let at = place(error.position()).or(at);
    let (code, class, exit) = kind(&error);
    let message = match &error {
        EvalAltResult::ErrorRuntime(value, _) => {
            field(value, "message").unwrap_or_else(|| value.to_string())
        }
        EvalAltResult::ErrorTerminated(..) if *code == *"ScriptTimeout" => {
            let time = humantime::format_duration(timeout);
            format!("the script did not end within {time}; --timeout gives it more")
        }
        EvalAltResult::ErrorTerminated(token, _) => field(token, "message").unwrap_or_default(),
        other => match limit(other) {
            Some(limit) => format!("{}: {limit}", without_place(other)),
            None => without_place(other),
        },
    };
    let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
    Box::new(Trouble { code, class, message, at, inside, exit })
}

/// A failure of the program itself while it ran a script.
pub fn broken(what: &str) -> Box<Trouble> {
    of_error(&Error::new(Code::Internal, what))
}

/// Code, class and exit code.
fn kind(error: &EvalAltResult) -> (String, String, u8) {
    use EvalAltResult as E;
    let of = |code: &str, class: &str, exit| (code.to_owned(), class.to_owned(), exit);
    match error {
        E::ErrorRuntime(value, _) | E::ErrorTerminated(value, _) => {
            let name = field(value, "code").unwrap_or_default();
            match Code::ALL.iter().find(|code| code.name() == name) {
                Some(code) => (name, class_name(code.class()).to_owned(), exit::of_code(*code)),
                None => match name.as_str() {
                    "Interrupted" => of(&name, "uncertain", exit::INTERRUPTED),
                    "ScriptTimeout" => of(&name, "uncertain", exit::UNKNOWN),
                    GUARD => of(&name, "fix", exit::REFUSED),
                    NOT_IN_STEP | LIMIT => of(&name, "fix", exit::USAGE),
                    _ => of(FAILED, "fix", exit::NO),
                },
            }
        }
        E::ErrorTooManyOperations(_)
        | E::ErrorTooManyVariables(_)
        | E::ErrorTooManyModules(_)
        | E::ErrorStackOverflow(_)
        | E::ErrorDataTooLarge(..) => of(LIMIT, "fix", exit::USAGE),
        E::ErrorParsing(..) => of("ScriptSyntax", "fix", exit::USAGE),
        _ => of("ScriptError", "fix", exit::USAGE),
    }
}

/// The limit that was reached, for a person.
fn limit(error: &EvalAltResult) -> Option<String> {
    use EvalAltResult as E;
    match error {
        E::ErrorTooManyOperations(_) => Some(format!(
            "a script has at most {}; `sleep` between two looks costs none",
            engine::OPERATIONS_MAX
        )),
        E::ErrorTooManyVariables(_) => Some(format!("at most {}", engine::VARIABLES_MAX)),
        E::ErrorStackOverflow(_) => {
            Some(format!("functions call each other at most {} deep", engine::CALL_DEPTH_MAX))
        }
        E::ErrorDataTooLarge(..) => Some(format!(
            "a string has at most {} bytes, an array {} elements, a map {} entries, with those inside",
            engine::STRING_BYTES_MAX,
            engine::ARRAY_MAX,
            engine::MAP_MAX
        )),
        _ => None,
    }
}

/// The text of an error without its place, which is shown beside it.
fn without_place(error: &EvalAltResult) -> String {
    let text = error.to_string();
    let place = format!(" ({})", error.position());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

fn place(position: Position) -> Option<(usize, usize)> {
    Some((position.line()?, position.position().unwrap_or(1)))
}

fn field(value: &Dynamic, name: &str) -> Option<String> {
    let map = value.read_lock::<Map>()?;
    map.get(name)?.clone().into_string().ok()
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Retry => "retry",
        Class::Fix => "fix",
        Class::Uncertain => "uncertain",
        Class::Stop => "stop",
    }
}
