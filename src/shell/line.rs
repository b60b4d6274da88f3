//! Lines and words: quotes as in a POSIX shell, `;` between commands, `#` before a comment. No variables,
//! no patterns, no pipes.

use crate::types::{Code, Error, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The words of a line; an open quote is refused. A line of blanks or a comment has none.
pub fn words(line: &[u8]) -> Result<Vec<OsString>> {
    let words = shlex::bytes::split(line).ok_or_else(|| {
        Error::new(Code::BadRequest, "a quote is not closed, or a `\\` ends the line")
    })?;
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

/// A line that is still being typed, up to the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typing {
    /// Words that are complete: a blank follows them.
    pub words: Vec<String>,
    /// Where the last one starts, its quote included.
    pub start: usize,
    /// The last one, without its quotes; empty behind a blank.
    pub partial: String,
    /// The quote that is open.
    pub quote: Option<char>,
}

/// Splits what was typed so far. Never fails: what is not finished is the last word.
pub fn typing(line: &str) -> Typing {
    let mut typing = Typing { start: line.len(), ..Typing::default() };
    let (mut in_word, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        let blank = typing.quote.is_none() && !escaped && c.is_whitespace();
        if blank {
            if std::mem::take(&mut in_word) {
                typing.words.push(std::mem::take(&mut typing.partial));
            }
            typing.start = line.len();
            continue;
        }
        if !std::mem::replace(&mut in_word, true) {
            typing.start = at;
        }
        match (typing.quote, c) {
            _ if std::mem::take(&mut escaped) => typing.partial.push(c),
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => typing.quote = Some(c),
            (Some(open), c) if c == open => typing.quote = None,
            (_, c) => typing.partial.push(c),
        }
    }
    typing
}

/// A word as it has to be typed to be taken as it is; none if it cannot be typed.
pub fn quoted(word: &str) -> Option<String> {
    if word.chars().any(char::is_control) {
        return None;
    }
    shlex::try_quote(word).ok().map(|quoted| quoted.into_owned())
}

/// The commands of a script: parts between `;` that stand outside quotes and comments, blank ones left out.
pub fn commands(script: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let (mut start, mut quote, mut escaped, mut comment) = (0, None, false, false);
    let mut word_start = true;
    for (at, c) in script.char_indices() {
        let was_word_start = std::mem::replace(&mut word_start, c.is_whitespace() || c == ';');
        if comment {
            comment = c != '\n';
            continue;
        }
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '#') if was_word_start => comment = true,
            (None, ';') => {
                commands.push(&script[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    commands.push(&script[start..]);
    commands.retain(|command| !command.trim().is_empty());
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_those_of_a_shell() {
        for (line, expected) in [
            ("set a 'b c'", vec!["set", "a", "b c"]),
            (r#"set a "b \" c" d\ e"#, vec!["set", "a", "b \" c", "d e"]),
            ("set a '' # a comment", vec!["set", "a", ""]),
            ("  ", vec![]),
            ("get a#b", vec!["get", "a#b"]),
        ] {
            let expected: Vec<OsString> = expected.into_iter().map(OsString::from).collect();
            assert_eq!(words(line.as_bytes()).unwrap(), expected, "{line}");
        }
        for open in ["set a 'b", "set a \"b", "set a b\\"] {
            assert_eq!(words(open.as_bytes()).unwrap_err().code, Code::BadRequest, "{open}");
        }
        assert_eq!(words(b"get \xff").unwrap()[1].as_encoded_bytes(), b"\xff");
    }

    #[test]
    fn what_is_being_typed_is_the_last_word_without_its_quotes() {
        let check = |line: &str, words: &[&str], start: usize, partial: &str| {
            let typing = typing(line);
            assert_eq!(typing.words, words, "{line}");
            assert_eq!((typing.start, typing.partial.as_str()), (start, partial), "{line}");
        };
        check("", &[], 0, "");
        check("get", &[], 0, "get");
        check("  get ", &["get"], 6, "");
        check("get 'a b", &["get"], 4, "a b");
        check("get 'a b' ", &["get", "a b"], 10, "");
        check("get a\\ b", &["get"], 4, "a b");
        check("set \"x\\\"y\" '", &["set", "x\"y"], 11, "");
        check("set '' v", &["set", ""], 7, "v");
        check("get \u{e9}t\u{e9}", &["get"], 4, "\u{e9}t\u{e9}");
        assert_eq!(typing("get 'a").quote, Some('\''));
        for word in ["a", "a b", "it's", "$x", ""] {
            let quoted = quoted(word).unwrap();
            assert_eq!(words(quoted.as_bytes()).unwrap(), [word], "{quoted}");
        }
        assert_eq!(quoted("a\nb"), None);
    }

    #[test]
    fn a_semicolon_outside_quotes_separates() {
        assert_eq!(commands("status; get a;;"), ["status", " get a"]);
        assert_eq!(commands("set a 'x;y'; get \"a;\\\";b\""), ["set a 'x;y'", " get \"a;\\\";b\""]);
        assert_eq!(commands(r"set a \;b; get a"), [r"set a \;b", " get a"]);
        assert_eq!(commands("get a # not; this\n; get b"), ["get a # not; this\n", " get b"]);
        assert_eq!(commands("get a#b; get c"), ["get a#b", " get c"]);
        assert!(commands(" ; ;").is_empty());
    }
}
