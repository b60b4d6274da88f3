//! Who has to agree to what.

use super::super::args::Cli;
use super::*;
use std::ffi::OsString;

fn verb(line: &str) -> Verb {
    let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
    Cli::from_words(words).unwrap_or_else(|error| panic!("{line}: {error}")).verb
}

#[test]
fn only_what_changes_something_ends_unknown() {
    for (line, expected) in [
        ("set k v", true),
        ("incr k", true),
        ("mset a 1 b 2", true),
        ("get k", false),
        ("scan", false),
        ("del --prefix a", true),
        ("del --prefix a --dry-run", false),
        ("status", false),
        ("cluster init --member n1=primary@h:1", true),
        ("strategy commit --no-wait", true),
        ("strategy plan full", false),
        ("strategy watch", false),
        ("config set reads.default local", true),
        ("config get", false),
        ("shard verify", false),
        ("op list", false),
        ("breaker open n2 --for 1m", true),
        ("breaker close n2 --for 1m", true),
        ("breaker list", false),
        ("stats --watch", false),
        ("keys hot", false),
        ("context use prod", false),
        ("writes on", false),
    ] {
        assert_eq!(changes(&verb(line)), expected, "{line}");
    }
}

/// What a line comes to at a terminal, and elsewhere.
fn decided(line: &str) -> [&'static str; 2] {
    let verb = verb(line);
    [true, false].map(|attended| {
        match decide(danger(&verb, &Stand::default()), given(&verb), attended, "shop") {
            Decision::Go => "go",
            Decision::AskYes => "y/N",
            Decision::AskName => "name",
            Decision::Refuse(error) => {
                assert_eq!(error.code, Code::BadRequest);
                "refused"
            }
        }
    })
}

#[test]
fn a_person_is_asked_and_a_script_says_it_beforehand_where_more_is_touched_than_is_named() {
    for (line, expected) in [
        ("set a 1", ["go", "go"]),
        ("del a b", ["go", "go"]),
        ("config set reads.default local", ["go", "go"]),
        ("strategy plan full", ["go", "go"]),
        ("strategy switch full", ["y/N", "go"]),
        ("strategy switch full --yes", ["go", "go"]),
        ("strategy prepare full", ["y/N", "go"]),
        ("strategy commit", ["y/N", "go"]),
        ("strategy finalize -y", ["go", "go"]),
        // The way out is never held up.
        ("strategy abort", ["go", "go"]),
        ("strategy revert", ["go", "go"]),
        ("strategy throttle 8MiB", ["go", "go"]),
        ("breaker open n2 --for 1m", ["y/N", "go"]),
        ("breaker close n2 --for 1m", ["go", "go"]),
        ("del --prefix user:", ["y/N", "refused"]),
        ("del --prefix user: --yes", ["go", "go"]),
        ("del --prefix user: --dry-run", ["go", "go"]),
        // Everything: a yes is not enough.
        ("del --prefix '' --yes", ["name", "refused"]),
        ("del --prefix '' --confirm shop", ["go", "go"]),
        ("del --prefix '' --confirm test", ["refused", "refused"]),
        ("del --prefix '' --dry-run", ["go", "go"]),
    ] {
        assert_eq!(decided(line), expected, "{line}");
    }
}

#[test]
fn whoever_has_to_agree_changes_something() {
    for line in ["strategy switch full", "breaker open n2 --for 1m", "del --prefix a"] {
        let verb = verb(line);
        assert!(danger(&verb, &Stand::default()) != Danger::Mild && changes(&verb), "{line}");
    }
}

#[test]
fn only_a_yes_is_a_yes() {
    assert!(["y", "Y", "yes", " yes "].into_iter().all(is_yes));
    assert!(!["", "n", "ye", "yess", "y n", "shop"].into_iter().any(is_yes));
}
