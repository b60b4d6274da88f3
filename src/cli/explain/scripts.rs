//! Codes that only a runbook ends with, and what they mean.

use super::super::exit;
use super::texts::{Text, text};
use crate::types::Class;

/// A code of a script, with its class and exit code.
pub struct ScriptCode {
    /// Its name.
    pub name: &'static str,
    /// Its class.
    pub class: Class,
    /// The exit code of `run`.
    pub exit: u8,
    /// What is said of it.
    pub text: Text,
}

/// Codes that only a runbook ends with.
pub const SCRIPT_CODES: &[ScriptCode] = &[
    ScriptCode {
        name: "ScriptSyntax",
        class: Class::Fix,
        exit: exit::USAGE,
        text: text(
            "the script does not compile; nothing was begun",
            &[
                "a bracket or a semicolon is missing",
                "`switch` is a word of the language: the function is `switch_to`",
            ],
            &[
                "the message names line and column",
                "`ppdb run --check FILE` compiles without running",
            ],
        ),
    },
    ScriptCode {
        name: "ScriptError",
        class: Class::Fix,
        exit: exit::USAGE,
        text: text(
            "the script called something that does not exist, or with values that do not fit",
            &["a function or a variable that is misspelt", "a string where a number belongs"],
            &["the message names line and column", "`scripts/README.md` lists the functions"],
        ),
    },
    ScriptCode {
        name: "ScriptLimit",
        class: Class::Fix,
        exit: exit::USAGE,
        text: text(
            "the script has reached a limit of what a script may cost",
            &[
                "a loop without end, or without a `sleep`",
                "a string, an array or a map that grows and grows",
                "functions that call each other too deep",
                "more than 256 steps or notes, or a record that is full",
            ],
            &[
                "wait with `sleep` or `watch` instead of looking again and again",
                "let a step do more, answer less, and note only what somebody will look up",
            ],
        ),
    },
    ScriptCode {
        name: "ScriptFailed",
        class: Class::Fix,
        exit: exit::NO,
        text: text(
            "the script ended itself: by `fail`, by `throw`, or because a question was answered with no",
            &["a check of the script said no"],
            &["the message is the script's own; orders that it gave before are in `ppdb op list`"],
        ),
    },
    ScriptCode {
        name: "GuardFailed",
        class: Class::Fix,
        exit: exit::REFUSED,
        text: text(
            "a `guard` of the script does not hold, so that it ended before it changed anything else",
            &["the cluster is not in the state that the script was written for"],
            &[
                "the message names the guard and its line: look whether it is right to insist",
                "`ppdb status` and `ppdb strategy show` tell how the cluster is",
            ],
        ),
    },
    ScriptCode {
        name: "NotInStep",
        class: Class::Fix,
        exit: exit::USAGE,
        text: text(
            "the script would have changed something outside of a step; that was not done",
            &["an order, a write or a setting that stands for itself instead of in a `step`"],
            &[
                "put it into `step(\"NAME\", || …)`, so that a run that ends early knows what was done",
                "`ppdb run --dry-run FILE` finds the next one without changing anything",
            ],
        ),
    },
    ScriptCode {
        name: "ScriptTimeout",
        class: Class::Uncertain,
        exit: exit::UNKNOWN,
        text: text(
            "the script did not end within its time; an operation under way goes on without it",
            &["it waits for an operation that is held or takes long"],
            &[
                "`ppdb strategy show` tells what is under way",
                "run it again with --timeout; the shipped ones go on where they find the cluster",
            ],
        ),
    },
    ScriptCode {
        name: "Interrupted",
        class: Class::Uncertain,
        exit: exit::INTERRUPTED,
        text: text(
            "the script was stopped by Ctrl-C; an operation under way goes on without it",
            &["somebody pressed it"],
            &["`ppdb strategy show` tells what is under way", "run it again"],
        ),
    },
];
