//! Hints: what a command still wants, shown behind the cursor, from the command tree. Pure. They are no
//! completion: nothing of them is ever put into the line.

use super::complete::{Place, tree};
use super::line;
use clap::{Arg, Command};

/// Characters of a hint; a line that wraps for a hint is worse than none.
const CHARS_MAX: usize = 60;
/// Values of a word that are spelled out.
const VALUES_MAX: usize = 4;

/// What may follow a line; none if that is nothing, or not known.
pub fn hint(line: &str) -> Option<String> {
    let mut typing = line::typing(line);
    if typing.quote.is_some() || line.trim().is_empty() {
        return None;
    }
    let blank = typing.partial.is_empty();
    let before = typing.words.clone();
    let place = Place::of(tree(), &before);
    if !blank {
        if typing.partial.starts_with('-') {
            return None;
        }
        // A word that is being typed counts once it can be nothing else: the name of a command, or a position.
        let is_command = place.command.find_subcommand(&typing.partial).is_some();
        if place.open.is_none() && place.next().is_none() && !is_command {
            return None;
        }
        typing.words.push(std::mem::take(&mut typing.partial));
    }
    let place = Place::of(tree(), &typing.words);
    // What `help` takes are words that need nothing more.
    if place.path.first() == Some(&"help") {
        return None;
    }
    let text = cut(wanted(&place).join(" "));
    match (text.is_empty(), blank) {
        (true, _) => None,
        (false, true) => Some(text),
        (false, false) => Some(format!(" {text}")),
    }
}

fn cut(text: String) -> String {
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}

/// What a place still wants.
fn wanted(place: &Place<'_>) -> Vec<String> {
    if let Some(flag) = place.open {
        return vec![value(flag)];
    }
    let positions: Vec<&Arg> = place.command.get_positionals().collect();
    if positions.is_empty() && place.given.is_empty() && place.command.has_subcommands() {
        return if place.path.is_empty() { Vec::new() } else { vec![subcommands(place.command)] };
    }
    let mut left = place.given.len();
    let mut parts = Vec::new();
    for position in positions {
        let most = position.get_num_args().map_or(1, |range| range.max_values());
        if left >= most {
            left -= most;
            continue;
        }
        parts.push(positional(position, left));
        left = 0;
    }
    let missing = place.command.get_opts().filter(|flag| {
        let typed = |word: &&str| word.strip_prefix("--") == flag.get_long();
        flag.is_required_set() && !place.flags.iter().any(typed)
    });
    parts
        .extend(missing.map(|flag| format!("--{} {}", flag.get_long().unwrap_or(""), value(flag))));
    parts
}

/// A position, of which some words were given.
fn positional(position: &Arg, given: usize) -> String {
    let several = position.get_num_args().is_some_and(|range| range.max_values() > 1);
    let names = position.get_value_names().unwrap_or_default();
    // A pair whose first half stands there wants the second.
    let text = match names {
        [_, second] if given % 2 == 1 => second.to_string(),
        [first, second] => format!("{first} {second}"),
        _ => value(position),
    };
    let optional = !position.is_required_set() || (several && given > 0 && names.len() < 2);
    match (optional, several) {
        (true, true) => format!("[{text}…]"),
        (true, false) => format!("[{text}]"),
        (false, true) if names.len() > 1 => format!("{text} …"),
        (false, _) => text,
    }
}

/// What a flag or a position takes, as short as it can be said.
fn value(arg: &Arg) -> String {
    let values = arg.get_possible_values();
    let shown: Vec<&str> =
        values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name()).collect();
    if !shown.is_empty() && shown.len() <= VALUES_MAX {
        return shown.join("|");
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_string());
    name.unwrap_or_else(|| arg.get_id().to_string()).to_uppercase()
}

fn subcommands(command: &Command) -> String {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let names: Vec<&str> = shown.map(Command::get_name).filter(|name| *name != "help").collect();
    names.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        assert_eq!(hint(line).unwrap_or_default(), expected, "{line}");
    }

    #[test]
    fn it_says_what_a_command_still_wants() {
        check("set", " KEY VALUE");
        check("set ", "KEY VALUE");
        check("set user:1", " VALUE");
        check("set user:1 ", "VALUE");
        check("set user:1 ann", "");
        check("strategy switch", " full|sharded");
        check("strategy switch full ", "");
        check("shard", " map|verify");
        check("shard verify ", "[SHARD]");
        check("scan", " [PREFIX]");
        check("del a ", "[KEY…]");
        check("mset ", "KEY VALUE …");
        check("mset a ", "VALUE …");
        check("breaker open ", "NODE --for TIME");
        check("breaker open n2 --for ", "TIME");
        check("get k --level ", "linearizable|session|local");
        check("help strategy", "");
        check("status", "");
    }

    #[test]
    fn it_is_silent_where_nothing_is_known() {
        for line in ["", "  ", "gte", "gte x", "ge", "get 'a", "strategy swi", "set k --n"] {
            check(line, "");
        }
        let long = hint("strategy ").unwrap();
        assert!(long.chars().count() == CHARS_MAX && long.ends_with('…'), "{long}");
    }
}
