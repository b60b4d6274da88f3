//! Parameters: what `--param` gives, what a script asks for, and their types. Pure.
//!
//! A misspelt parameter is found before anything is done: the names a script asks for stand in its text.

use crate::cli::runbook::Runbook;
use crate::types::{Code, Error, Result, units};
use rhai::Dynamic;
use std::collections::BTreeSet;

/// Names in calls of `param` with a literal first argument; none if one of them is computed.
pub fn asked_for(source: &str) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (at, _) in source.match_indices("param") {
        let before = source[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(rest) = source[at + "param".len()..].trim_start().strip_prefix('(') else {
            continue;
        };
        let literal = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (name, tail) = literal?;
        if name.contains('\\') || !tail.trim_start().starts_with([',', ')']) {
            return None;
        }
        names.insert(name.to_owned());
    }
    Some(names)
}

/// Refuses a parameter that the script never asks for.
pub fn check(book: &Runbook) -> Result<Vec<String>> {
    let Some(names) = asked_for(&book.source) else { return Ok(Vec::new()) };
    for (given, _) in &book.params {
        if names.contains(given) {
            continue;
        }
        let close = names
            .iter()
            .map(|known| (strsim::jaro_winkler(known, given), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let advice = match close {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None if all.is_empty() => "it has none".to_owned(),
            None => format!("it has: {}", all.join(", ")),
        };
        let message = format!("{} has no parameter `{given}`; {advice}", book.name);
        return Err(Error::new(Code::BadRequest, message));
    }
    Ok(names.into_iter().collect())
}

/// The value of a parameter: as given, in the type of the default; the default if it was not given.
pub fn value(book: &Runbook, name: &str, default: Option<Dynamic>) -> Result<Dynamic> {
    let given = book.params.iter().rev().find(|(n, _)| n == name).map(|(_, text)| text.as_str());
    match (given, default) {
        (Some(text), Some(default)) => typed(name, text, &default),
        (Some(text), None) => Ok(Dynamic::from(text.to_owned())),
        (None, Some(default)) => Ok(default),
        (None, None) => {
            let message =
                format!("the parameter `{name}` has no default: --param {name}=VALUE gives one");
            Err(Error::new(Code::BadRequest, message))
        }
    }
}

fn typed(name: &str, text: &str, default: &Dynamic) -> Result<Dynamic> {
    let parsed = if default.is_bool() {
        match text {
            "true" | "yes" | "on" | "1" => Ok(Dynamic::from(true)),
            "false" | "no" | "off" | "0" => Ok(Dynamic::from(false)),
            _ => Err("true or false"),
        }
    } else if default.is_int() {
        text.parse().map(Dynamic::from_int).map_err(|_| "a whole number")
    } else if default.is_float() {
        let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
        float.map(Dynamic::from_float).ok_or("a number")
    } else {
        Ok(Dynamic::from(text.to_owned()))
    };
    parsed.map_err(|kind| {
        let message = format!("the parameter {name}={text} should be {kind}, such as {default}");
        Error::new(Code::BadRequest, message)
    })
}

/// A duration with its unit.
pub fn duration(text: &str) -> Result<std::time::Duration> {
    units::duration(text).map_err(|why| Error::new(Code::BadRequest, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::book;

    #[test]
    fn names_are_read_from_the_text() {
        let names = |source: &str| asked_for(source).map(|n| n.into_iter().collect::<Vec<_>>());
        let source = "let a = param(\"a\", 1);\nlet b = param ( \"b\" ); xparam(c); param_x(1);";
        assert_eq!(names(source), Some(vec!["a".into(), "b".into()]));
        assert_eq!(names("no_params()"), Some(vec![]));
        assert_eq!(names("param(name)"), None);
        assert_eq!(names("param(\"a\" + x)"), None);
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_right_one() {
        let mut book = book("param(\"verify\", true)");
        book.params = vec![("verfy".into(), "no".into())];
        let error = check(&book).unwrap_err();
        assert!(error.message.contains("did you mean `verify`?"), "{error}");
        book.params = vec![("verify".into(), "no".into())];
        assert_eq!(check(&book), Ok(vec!["verify".to_owned()]));
        book.source = "param(x)".into();
        assert_eq!(check(&book), Ok(vec![]), "computed names are not judged");
    }

    #[test]
    fn a_value_has_the_type_of_its_default() {
        let mut book = book("");
        let mut of = |text: &str, default: Dynamic| {
            book.params = vec![("p".into(), "first".into()), ("p".into(), text.into())];
            value(&book, "p", Some(default))
        };
        assert!(!of("no", true.into()).unwrap().as_bool().unwrap());
        assert_eq!(of("-7", 1_i64.into()).unwrap().as_int(), Ok(-7));
        assert_eq!(of("2", 1.5.into()).unwrap().as_float(), Ok(2.0));
        assert_eq!(of("x=y", "".into()).unwrap().into_string(), Ok("x=y".to_owned()));
        for (text, default) in
            [("maybe", Dynamic::from(true)), ("1.5", 1_i64.into()), ("nan", 1.5.into())]
        {
            assert_eq!(of(text, default).unwrap_err().code, Code::BadRequest, "{text}");
        }
        book.params.clear();
        assert_eq!(value(&book, "p", Some(3_i64.into())).unwrap().as_int(), Ok(3));
        assert!(value(&book, "p", None).unwrap_err().message.contains("--param p=VALUE"));
    }
}
