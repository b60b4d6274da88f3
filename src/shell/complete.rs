//! Completion from the command tree: commands, flags, the values that a flag or a position knows, and names
//! of nodes and live settings. Pure.

use crate::cli::args::Cli;
use crate::cluster::settings::live_settings;
use clap::{Arg, ArgAction, Command};

/// Words that only the shell knows.
const SHELL_WORDS: [&str; 2] = ["exit", "quit"];

/// Where the word under the cursor starts, and what it may become, in alphabetical order.
pub fn complete(line: &str, nodes: &[String]) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let partial = &line[start..];
    let mut root = Cli::line_command();
    root.build();
    let (command, given, open) = walk(&root, line[..start].split_whitespace());
    let mut words = match open {
        Some(flag) => values(flag, nodes),
        None if partial.starts_with('-') => flags(command),
        None => positions(command, &given, nodes),
    };
    if command.get_name() == root.get_name() && open.is_none() && !partial.starts_with('-') {
        words.extend(SHELL_WORDS.map(str::to_owned));
    }
    words.retain(|word| word.starts_with(partial));
    words.sort();
    words.dedup();
    (start, words)
}

/// The command that the words lead to, the words given to it, and the flag that still waits for its value.
fn walk<'a, 'w>(
    root: &'a Command,
    words: impl Iterator<Item = &'w str>,
) -> (&'a Command, Vec<&'w str>, Option<&'a Arg>) {
    let (mut command, mut given, mut open) = (root, Vec::new(), None::<&Arg>);
    for word in words {
        if open.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            open = command.get_arguments().find(|arg| takes_value(arg) && is_named(arg, word));
        } else if let Some(sub) = command.find_subcommand(word) {
            (command, given) = (sub, Vec::new());
        } else {
            given.push(word);
        }
    }
    (command, given, open)
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

fn values(arg: &Arg, nodes: &[String]) -> Vec<String> {
    if arg.get_long() == Some("node") {
        return nodes.to_vec();
    }
    let known = arg.get_possible_values();
    known.iter().map(|value| value.get_name().to_owned()).collect()
}

/// Subcommands, or what the next position takes.
fn positions(command: &Command, given: &[&str], nodes: &[String]) -> Vec<String> {
    let next = command.get_positionals().nth(given.len());
    match (command.get_name(), next.map(|position| position.get_id().as_str()), given) {
        ("info" | "kill" | "start", ..) | (_, Some("peer"), _) => return nodes.to_vec(),
        (_, Some("setting"), _) => {
            return live_settings().map(|setting| setting.name.to_owned()).collect();
        }
        (_, Some("value"), ["reads.default"]) => {
            return ["linearizable", "session", "local"].map(str::to_owned).to_vec();
        }
        (_, Some(_), _) => {
            let known = next.map(Arg::get_possible_values).unwrap_or_default();
            return known.iter().map(|value| value.get_name().to_owned()).collect();
        }
        _ => {}
    }
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.map(|sub| sub.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        complete(line, &["n1".to_owned(), "n2".to_owned()]).1
    }

    #[test]
    fn words_of_the_tree_are_completed() {
        assert_eq!(completed("clu"), ["cluster"]);
        assert_eq!(completed("keys "), ["help", "hot"]);
        assert_eq!(completed("cluster "), ["help", "init", "nodes"]);
        assert_eq!(completed("strategy s"), ["show", "switch"]);
        assert_eq!(completed("se"), ["serve", "set"]);
        assert_eq!(completed("qu"), ["quit"]);
        assert_eq!(completed("nothing-like-this"), [""; 0]);
        assert_eq!(complete("cluster no", &[]).0, 8);
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
        assert_eq!(completed("shard v"), ["verify"]);
        assert_eq!(completed("set "), [""; 0], "keys are not guessed");
    }

    #[test]
    fn flags_and_their_values_are_completed() {
        assert_eq!(completed("set k v --n"), ["--no-retry", "--node", "--nx"]);
        assert_eq!(completed("get k --level s"), ["session"]);
        assert_eq!(completed("get k --node "), ["n1", "n2"]);
        assert_eq!(completed("-o js"), ["json", "jsonl"]);
        assert_eq!(completed("-o json get k --max"), ["--max-staleness"]);
        assert_eq!(completed("info n"), ["n1", "n2"]);
        assert_eq!(completed("node kill "), ["n1", "n2"]);
        assert_eq!(completed("breaker open "), ["n1", "n2"]);
        // The value of a flag is no command.
        assert_eq!(completed("--user cluster statu"), ["status"]);
    }
}
