//! `explain CODE`: what an error means, where it usually comes from, what to do, and its exit code.

mod scripts;
mod texts;

use super::exit;
use super::output::{class_advice, class_name};
use super::value::{Answered, Doc};
use crate::config::setting::closest;
use crate::types::{Class, Code, Error, Result};
use scripts::{SCRIPT_CODES, ScriptCode};
use serde_json::{Value as Json, json};
use texts::Text;

/// A code with everything that is known of it.
struct Explained {
    name: &'static str,
    class: Class,
    exit: u8,
    text: Text,
}

/// One code, or a list of all.
pub fn run(name: Option<&str>) -> Result<Answered> {
    let doc = match name {
        Some(name) => one(&find(name)?),
        None => list(&all()),
    };
    Ok(Answered::doc(doc, None))
}

/// Every name, as `explain` takes it.
pub fn names() -> Vec<&'static str> {
    all().iter().map(|explained| explained.name).collect()
}

fn all() -> Vec<Explained> {
    let of_code = |code: &Code| Explained {
        name: code.name(),
        class: code.class(),
        exit: exit::of_code(*code),
        text: texts::of(*code),
    };
    let of_script = |code: &ScriptCode| Explained {
        name: code.name,
        class: code.class,
        exit: code.exit,
        text: Text { ..code.text },
    };
    Code::ALL.iter().map(of_code).chain(SCRIPT_CODES.iter().map(of_script)).collect()
}

fn find(name: &str) -> Result<Explained> {
    let mut all = all();
    if let Some(at) = all.iter().position(|known| known.name.eq_ignore_ascii_case(name)) {
        return Ok(all.swap_remove(at));
    }
    let lower = name.to_ascii_lowercase();
    let lowers: Vec<String> = all.iter().map(|known| known.name.to_ascii_lowercase()).collect();
    let close = closest(&lower, lowers.iter().map(String::as_str));
    let close =
        close.and_then(|close| all.iter().find(|known| known.name.eq_ignore_ascii_case(close)));
    let advice = match close {
        Some(known) => format!("did you mean `{}`?", known.name),
        None => "`ppdb explain` lists all of them".to_owned(),
    };
    Err(Error::new(Code::NotFound, format!("there is no code `{name}`; {advice}")))
}

fn json_of(explained: &Explained) -> Json {
    let outcome = if explained.class == Class::Uncertain { "unknown" } else { "fail" };
    json!({
        "code": explained.name, "class": explained.class, "outcome": outcome, "exit": explained.exit,
        "means": explained.text.means, "causes": explained.text.causes, "cures": explained.text.cures,
    })
}

fn one(explained: &Explained) -> Doc {
    let class = format!("{}: {}", class_name(explained.class), class_advice(explained.class));
    let mut rows = vec![
        ("code", explained.name.to_owned()),
        ("means", explained.text.means.to_owned()),
        ("class", class),
        ("exit code", explained.exit.to_string()),
    ];
    rows.extend(explained.text.causes.iter().map(|cause| ("usual cause", (*cause).to_owned())));
    rows.extend(explained.text.cures.iter().map(|cure| ("what to do", (*cure).to_owned())));
    Doc {
        json: json_of(explained),
        header: vec!["FIELD", "VALUE"],
        rows: rows.into_iter().map(|(field, value)| vec![field.to_owned(), value]).collect(),
        notes: Vec::new(),
    }
}

fn list(all: &[Explained]) -> Doc {
    let row = |explained: &Explained| {
        let class = class_name(explained.class).to_owned();
        vec![
            explained.name.to_owned(),
            class,
            explained.exit.to_string(),
            explained.text.means.to_owned(),
        ]
    };
    Doc {
        json: all.iter().map(json_of).collect(),
        header: vec!["CODE", "CLASS", "EXIT", "MEANS"],
        rows: all.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use std::ffi::OsString;

    #[test]
    fn every_code_has_a_text_of_its_own() {
        let all = all();
        assert_eq!(all.len(), Code::ALL.len() + SCRIPT_CODES.len());
        let mut means: Vec<&str> = all.iter().map(|explained| explained.text.means).collect();
        for explained in &all {
            let text = &explained.text;
            assert!(text.means.len() > 20, "{}", explained.name);
            assert!(!text.causes.is_empty() && !text.cures.is_empty(), "{}", explained.name);
        }
        means.sort_unstable();
        means.dedup();
        assert_eq!(means.len(), all.len(), "two codes mean the same");
    }

    #[test]
    fn every_code_that_a_script_can_end_with_is_explained() {
        let source = include_str!("../../script/failure.rs");
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let of_code = |text: &&str| text.len() > 3 && text.chars().all(|c| c.is_ascii_alphabetic());
        let mut given: Vec<&str> = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|text| text.starts_with(|c: char| c.is_ascii_uppercase()))
            .filter(of_code)
            .collect();
        given.sort_unstable();
        given.dedup();
        let mut known: Vec<&str> = SCRIPT_CODES.iter().map(|code| code.name).collect();
        known.sort_unstable();
        assert_eq!(given, known);
    }

    #[test]
    fn what_is_advised_can_be_typed() {
        let mut seen = 0;
        for explained in all() {
            let quoted =
                |text: &'static str| text.split('`').skip(1).step_by(2).collect::<Vec<_>>();
            for line in explained.text.cures.iter().flat_map(|cure| quoted(cure)) {
                let Some(line) = line.strip_prefix("ppdb ") else { continue };
                let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
                let parsed = Cli::from_words(words);
                let usage = parsed.err().filter(|error| {
                    use clap::error::ErrorKind;
                    // The name of a group stands for what is under it.
                    !matches!(
                        error.kind(),
                        ErrorKind::DisplayHelp
                            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                            | ErrorKind::MissingRequiredArgument
                            | ErrorKind::ValueValidation
                    )
                });
                if let Some(error) = usage.filter(|_| !line.starts_with("help COMMAND")) {
                    panic!("{}: {line}: {error}", explained.name);
                }
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn a_code_is_found_however_it_is_typed_and_a_typing_error_gets_the_right_one() {
        assert_eq!(find("ReadOnly").unwrap().exit, exit::REFUSED);
        assert_eq!(find("scriptfailed").unwrap().exit, exit::NO);
        let told = |name: &str| find(name).map(|_| ()).unwrap_err();
        assert_eq!(told("PrecheckFialed").code, Code::NotFound);
        assert!(told("PrecheckFialed").message.contains("did you mean `PrecheckFailed`?"));
        assert!(told("zzz").message.contains("lists all"));
        let doc = one(&find("Unknown").unwrap());
        assert_eq!((&doc.json["outcome"], &doc.json["exit"]), (&json!("unknown"), &json!(124)));
        assert!(doc.rows.iter().any(|row| row[0] == "what to do"));
    }
}
