//! What a line that is not a command is answered.

use crate::cli::output;
use crate::cli::value::{Answered, Done, Value};
use crate::types::{Code, Error};

/// What clap has to say about a line, as an answer: help is one, everything else is a failure.
pub fn not_parsed(error: &clap::Error) -> Done {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    let code = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Ok(Answered::of(Value::Text(text)));
        }
        ErrorKind::InvalidSubcommand => {
            return Err(Error::new(Code::UnknownCommand, no_such_command(error)).into());
        }
        _ => Code::BadRequest,
    };
    let message = text.trim_start_matches("error: ").lines();
    let message: Vec<&str> = message.take_while(|line| !line.starts_with("Usage:")).collect();
    let message = message.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let message = message.replacen(" tip: ", "; ", 1);
    let message = if message.is_empty() { "the command is not complete".into() } else { message };
    Err(Error::new(code, output::escape(message.as_bytes())).into())
}

/// A word that is no command, and those that were perhaps meant, the likeliest first.
fn no_such_command(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    let word = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => output::escape(word.as_bytes()),
        _ => String::new(),
    };
    let mut close = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(close)) => vec![close.clone()],
        Some(ContextValue::Strings(close)) => close.clone(),
        _ => Vec::new(),
    };
    close.reverse();
    let close: Vec<String> = close.iter().map(|close| format!("`{close}`")).collect();
    match close.is_empty() {
        true => format!("there is no command `{word}`"),
        false => format!("there is no command `{word}`; did you mean {}?", close.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::parse;

    #[test]
    fn what_is_not_a_command_is_an_answer() {
        let code = |line: &str| match not_parsed(&parse(line).unwrap_err()) {
            Ok(answered) => format!("{:?}", answered.value).chars().take(4).collect(),
            Err(failure) => {
                assert!(!failure.error.message.contains('\n'), "{}", failure.error.message);
                failure.error.code.to_string()
            }
        };
        let said = |line: &str| not_parsed(&parse(line).unwrap_err()).unwrap_err().error.message;
        let expected = "there is no command `swich`; did you mean `switch` or `watch`?";
        assert_eq!(said("strategy swich full"), expected);
        assert_eq!(said("zzzzz"), "there is no command `zzzzz`");
        assert!(said("set k v --nxx").ends_with("; a similar argument exists: '--nx'"));
        assert_eq!(code("gte k"), "UnknownCommand");
        assert_eq!(code("strategy shwo"), "UnknownCommand");
        assert_eq!(code("get"), "BadRequest");
        assert_eq!(code("get k --timeout 5"), "BadRequest");
        assert_eq!(code(""), "BadRequest");
        assert_eq!(code("cluster"), "BadRequest");
        assert_eq!(code("help set"), "Text");
        assert_eq!(code("get --help"), "Text");
    }
}
