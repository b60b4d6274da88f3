//! Completion from the command tree: commands, flags, and what a flag or a position takes. Pure: the names that
//! only a cluster knows are asked for where they are wanted (`Names`), and nowhere else.

use super::line::{self, Typing};
use crate::cli::args::Cli;
use crate::cluster::settings::live_settings;
use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Words that only the shell knows.
pub const SHELL_WORDS: [&str; 3] = ["exit", "quit", "rhai"];

/// What a place in a line takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member.
    Node,
    /// A shard.
    Shard,
    /// A change of strategy.
    Operation,
    /// A record of the operation log.
    Record,
    /// A plan of a switch.
    Plan,
    /// The record of a run.
    Run,
    /// Where a session may connect to.
    Context,
    /// A key, or its beginning.
    Key,
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// Where names come from. Each is asked for only when the cursor stands where one is wanted.
pub trait Names {
    /// Names of that kind which start so, as far as they can be told at once. What does not fit is sorted out
    /// by the caller.
    fn names(&self, kind: Kind, partial: &str) -> Found;
}

/// Names that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// They.
    pub words: Vec<String>,
    /// There may be others that start so.
    pub more: bool,
}

impl From<Vec<String>> for Found {
    fn from(words: Vec<String>) -> Self {
        Found { words, more: false }
    }
}

/// What completion offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the word under the cursor starts.
    pub start: usize,
    /// What it may become, as it has to be typed, in alphabetical order.
    pub words: Vec<String>,
    /// There may be others.
    pub more: bool,
}

/// What the word under the cursor may become.
pub fn complete(line: &str, names: &dyn Names) -> Offer {
    let typing = line::typing(line);
    let found = Place::of(tree(), &typing.words).words(&typing, names);
    let fit = found.words.iter().filter(|word| word.starts_with(&typing.partial));
    let mut words: Vec<String> = fit.filter_map(|word| line::quoted(word)).collect();
    words.sort();
    words.dedup();
    Offer { start: typing.start, words, more: found.more }
}

/// The tree as the shell sees it, with global flags in every command; to look at, not to parse with.
pub fn tree() -> &'static Command {
    static TREE: LazyLock<Command> = LazyLock::new(|| {
        let mut root = Cli::line_command();
        root.build();
        root
    });
    &TREE
}

/// Where in the tree a line has got to.
#[derive(Debug)]
pub struct Place<'a> {
    /// Names of the commands on the way, the root left out.
    pub path: Vec<&'a str>,
    /// The last of them.
    pub command: &'a Command,
    /// Words given to it that are no flags.
    pub given: Vec<&'a str>,
    /// Flags that were given.
    pub flags: Vec<&'a str>,
    /// The flag that still waits for its value.
    pub open: Option<&'a Arg>,
}

impl<'a> Place<'a> {
    /// The place behind complete words.
    pub fn of(root: &'a Command, words: &'a [String]) -> Self {
        let (path, given, flags) = (Vec::new(), Vec::new(), Vec::new());
        let mut place = Place { path, command: root, given, flags, open: None };
        // What is printed as `ppdb status` works here, too.
        let words = words.strip_prefix(&["ppdb".to_owned()]).unwrap_or(words);
        for word in words {
            if place.open.take().is_some() {
                continue;
            }
            if word.starts_with('-') && word.len() > 1 {
                let named = |arg: &&Arg| takes_value(arg) && is_named(arg, word);
                place.open = place.command.get_arguments().find(named);
                place.flags.push(word);
            } else if let Some(sub) = place.command.find_subcommand(word) {
                place.path.push(sub.get_name());
                (place.command, place.given) = (sub, Vec::new());
            } else {
                place.given.push(word);
            }
        }
        place
    }

    /// The next position, if there is one.
    pub fn next(&self) -> Option<&'a Arg> {
        let mut last = None;
        let mut left = self.given.len();
        for position in self.command.get_positionals() {
            let most = position.get_num_args().map_or(1, |range| range.max_values());
            if left < most {
                return Some(position);
            }
            left -= most;
            last = Some(position);
        }
        last.filter(|last| matches!(last.get_action(), ArgAction::Append))
    }

    fn words(&self, typing: &Typing, names: &dyn Names) -> Found {
        if let Some(flag) = self.open {
            return self.values(flag, &typing.partial, names);
        }
        if typing.partial.starts_with('-') {
            return flags(self.command).into();
        }
        if let Some(position) = self.next() {
            return self.values(position, &typing.partial, names);
        }
        let shown = self.command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut words: Vec<String> = shown.map(|sub| sub.get_name().to_owned()).collect();
        if self.path.is_empty() {
            words.extend(SHELL_WORDS.map(str::to_owned));
        }
        words.into()
    }

    fn values(&self, arg: &Arg, partial: &str, names: &dyn Names) -> Found {
        if let Some(kind) = self.kind(arg) {
            return names.names(kind, partial);
        }
        let words: Vec<String> = match (arg.get_id().as_str(), self.given.as_slice()) {
            ("setting", _) => live_settings().map(|setting| setting.name.to_owned()).collect(),
            ("value", ["reads.default"]) => {
                ["linearizable", "session", "local"].map(str::to_owned).into()
            }
            _ => {
                let known = arg.get_possible_values();
                let shown = known.iter().filter(|value| !value.is_hide_set());
                shown.map(|value| value.get_name().to_owned()).collect()
            }
        };
        words.into()
    }

    /// What an argument takes, where the tree itself cannot tell its values.
    fn kind(&self, arg: &Arg) -> Option<Kind> {
        if arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
            let folder = arg.get_value_names().is_some_and(|names| names[0] == "DIR");
            return Some(if folder { Kind::Folder } else { Kind::File });
        }
        match (arg.get_id().as_str(), self.path.as_slice()) {
            ("global-node" | "of" | "peer", _) | ("name", ["node", ..]) => Some(Kind::Node),
            ("node", _) => Some(Kind::Node),
            ("shard", _) => Some(Kind::Shard),
            ("operation", _) => Some(Kind::Operation),
            ("id", ["op", ..]) => Some(Kind::Record),
            ("plan", ["strategy", ..]) => Some(Kind::Plan),
            ("run", ["runs", ..]) | ("resume", ["run"]) => Some(Kind::Run),
            ("key" | "keys" | "prefix", [_]) => Some(Kind::Key),
            ("pairs", _) if self.given.len().is_multiple_of(2) => Some(Kind::Key),
            (id, _) if id.ends_with("context") => Some(Kind::Context),
            ("name", ["context", verb]) if *verb != "add" => Some(Kind::Context),
            ("addr", ["connect"]) => Some(Kind::Context),
            _ => None,
        }
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn is_named(arg: &Arg, word: &str) -> bool {
    let long = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
    long || arg.get_short().is_some_and(|short| word == format!("-{short}"))
}

fn flags(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown.filter_map(|arg| arg.get_long().map(|long| format!("--{long}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;

    impl Names for Few {
        fn names(&self, kind: Kind, partial: &str) -> Found {
            let names: &[&str] = match kind {
                Kind::Node => &["n1", "n2", "r1"],
                Kind::Shard => &["s0", "s1"],
                Kind::Operation => &["7"],
                Kind::Record => &["41", "42"],
                Kind::Plan => &["P-17"],
                Kind::Run => &["RUN-11", "RUN-12"],
                Kind::Context => &["demo", "prod"],
                Kind::Key => &["user:1", "user:2", "cart:1", "two words", "it's"],
                Kind::File => &["scripts/", "x.rhai"],
                Kind::Folder => &["certs/"],
            };
            let fit = names.iter().filter(|name| name.starts_with(partial));
            fit.map(ToString::to_string).collect::<Vec<_>>().into()
        }
    }

    fn completed(line: &str) -> Vec<String> {
        complete(line, &Few).words
    }

    #[test]
    fn words_of_the_tree_are_completed() {
        assert_eq!(completed("clu"), ["cluster"]);
        assert_eq!(completed("cluster "), ["help", "init", "nodes"]);
        assert_eq!(completed("strategy s"), ["show", "switch"]);
        assert_eq!(completed("se"), ["serve", "set"]);
        assert_eq!(completed("qu"), ["quit"]);
        assert_eq!(completed("rh"), ["rhai"]);
        assert_eq!(completed("ppdb strategy s"), ["show", "switch"]);
        assert_eq!(completed("help strategy s"), ["show", "switch"]);
        assert_eq!(completed("nothing-like-this"), [""; 0]);
        assert_eq!(complete("cluster no", &Few).start, 8);
    }

    #[test]
    fn what_a_position_knows_is_completed() {
        assert_eq!(completed("strategy prepare "), ["full", "sharded"]);
        assert_eq!(completed("strategy switch s"), ["sharded"]);
        assert_eq!(completed("strategy prepare full "), [""; 0]);
        assert_eq!(completed("strategy commit --no-w"), ["--no-wait"]);
        assert_eq!(completed("config set reads"), ["reads.default"]);
        assert_eq!(completed("config get switch."), ["switch.cool_down", "switch.revert_window"]);
        assert_eq!(completed("config set reads.default l"), ["linearizable", "local"]);
        assert_eq!(completed("config set switch.cool_down "), [""; 0]);
        assert_eq!(completed("shard verify s"), ["s0", "s1"]);
        assert_eq!(completed("op show 4"), ["41", "42"]);
        assert_eq!(completed("run "), ["scripts/", "x.rhai"]);
    }

    #[test]
    fn keys_are_completed_where_a_key_stands_and_nowhere_else() {
        for line in ["get us", "set us", "del x us", "mget us", "scan us", "mset a 1 us", "ttl us"]
        {
            assert_eq!(completed(line), ["user:1", "user:2"], "{line}");
        }
        for line in ["set k us", "mset us", "mset a us", "incr k us", "expire k us", "get k us"] {
            let expected: &[&str] = if line == "mset us" { &["user:1", "user:2"] } else { &[] };
            assert_eq!(completed(line), expected, "{line}");
        }
        assert_eq!(completed("get tw"), ["'two words'"]);
        assert_eq!(completed("get 'tw"), ["'two words'"]);
        assert_eq!(complete("get 'two w", &Few).start, 4);
        assert_eq!(completed("get it"), ["\"it's\""]);
    }

    #[test]
    fn flags_and_their_values_are_completed() {
        assert_eq!(completed("set k v --n"), ["--no-retry", "--node", "--nx"]);
        assert_eq!(completed("get k --level s"), ["session"]);
        assert_eq!(completed("get k --level "), ["linearizable", "local", "session"]);
        assert_eq!(completed("get k --node "), ["n1", "n2", "r1"]);
        assert_eq!(completed("-o js"), ["json", "jsonl"]);
        assert_eq!(completed("-o json get k --max"), ["--max-staleness"]);
        assert_eq!(completed("info n"), ["n1", "n2"]);
        assert_eq!(completed("node kill "), ["n1", "n2", "r1"]);
        assert_eq!(completed("breaker open n"), ["n1", "n2"]);
        assert_eq!(completed("strategy switch full --plan "), ["P-17"]);
        assert_eq!(completed("strategy abort --operation "), ["7"]);
        assert_eq!(completed("runs show RUN-"), ["RUN-11", "RUN-12"]);
        assert_eq!(completed("run --resume "), ["RUN-11", "RUN-12"]);
        assert_eq!(completed("get k --certs "), ["certs/"]);
        assert_eq!(completed("get k --ca x"), ["x.rhai"]);
        // The value of a flag is no command.
        assert_eq!(completed("--user cluster statu"), ["status"]);
    }
}
