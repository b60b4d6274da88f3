//! The history file: commands that people typed, which nobody else may read, and no secrets.
//!
//! What is written down is a command that parses and carries no value. Values may be anything: passwords, tokens,
//! what is known of people; so `set`, `append`, `mset`, `cas` and everything in Rhai stay in memory, for this shell.
//! So does what is no command, because it may be something that was pasted into the wrong window, and what asks for the
//! help of a command behind its values.

use super::request::{self, Asked};
use super::{line, rhai};
use crate::cli::args::{Data, Verb};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Lines kept.
pub const LINES_MAX: usize = 1_000;
/// Bytes of the file that are read; beyond that it is not ours.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// A parameter of a runbook with such a name is a secret.
const SECRET_NAMES: [&str; 5] = ["secret", "password", "passwd", "token", "key"];

/// Whether a command carries a value.
type Carries = fn(&Verb) -> bool;

/// Commands that may carry values: the name, and whether this one does.
const WITH_VALUES: [(&str, Carries); 5] = [
    ("set", |verb| matches!(verb, Verb::Data(Data::Set { .. }))),
    ("mset", |verb| matches!(verb, Verb::Data(Data::Mset { .. }))),
    ("append", |verb| matches!(verb, Verb::Data(Data::Append { .. }))),
    ("cas", |verb| matches!(verb, Verb::Data(Data::Cas { .. }))),
    ("run", |verb| matches!(verb, Verb::Run(args) if args.params.iter().any(is_secret))),
];

/// Where the history is: `PPDB_HISTFILE`, else in the user's state folder; none without a home, or if the
/// variable is empty.
pub fn file(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = get("PPDB_HISTFILE") {
        return Some(named).filter(|path| !path.as_os_str().is_empty());
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = get("XDG_STATE_HOME").filter(absolute);
    let state =
        state.or_else(|| get("HOME").filter(absolute).map(|home| home.join(".local/state")));
    state.map(|state| state.join("ppdb/history"))
}

/// Makes the file if it is not there, and takes every right of others away.
pub fn prepare(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The last lines of the file, oldest first. A file that has grown to twice of what is kept is cut.
pub fn load(path: &Path) -> io::Result<Vec<String>> {
    let mut text = Vec::new();
    OpenOptions::new().read(true).open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    if lines.len() > 2 * LINES_MAX {
        let kept: String = last.iter().map(|line| format!("{line}\n")).collect();
        OpenOptions::new().write(true).truncate(true).open(path)?.write_all(kept.as_bytes())?;
    }
    Ok(last.iter().map(|line| (*line).to_owned()).collect())
}

/// Writes a line down.
pub fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Whether a line may be written down. Nothing of the Rhai mode is, even if it would be a command elsewhere.
pub fn may_be_written(text: &str, in_script: bool) -> bool {
    if in_script {
        return false;
    }
    let private = text.starts_with(char::is_whitespace) || text.chars().any(char::is_control);
    if private || text.is_empty() || rhai::asked(text).is_some() {
        return false;
    }
    let Ok(words) = line::words(text.as_bytes()) else { return false };
    let only_names = names_only(&words);
    match request::of_words(words) {
        Asked::Leave => false,
        Asked::Answer(done) => done.is_ok() && only_names,
        Asked::Run(cli, _) => !WITH_VALUES.iter().any(|(_, carries)| carries(&cli.verb)),
    }
}

/// Whether a line that leads to help can have no value in it: `help NAME …`, or a line without such a command.
fn names_only(words: &[OsString]) -> bool {
    let mut rest = words.iter().skip_while(|word| *word == "ppdb");
    let asks = rest.next().is_some_and(|first| first == "help" || first == "?");
    let plain = rest.all(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let carries = |word: &OsString| WITH_VALUES.iter().any(|(name, _)| word == name);
    (asks && plain) || !words.iter().any(carries)
}

/// Whether a parameter of a runbook sounds like a secret.
fn is_secret((name, _): &(String, String)) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Option<PathBuf> {
        file(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
    }

    #[test]
    fn the_variable_wins_and_an_empty_one_means_none() {
        let home = ("HOME", "/home/ann");
        assert_eq!(found(&[home]), Some("/home/ann/.local/state/ppdb/history".into()));
        assert_eq!(found(&[home, ("XDG_STATE_HOME", "/s")]), Some("/s/ppdb/history".into()));
        assert_eq!(found(&[home, ("PPDB_HISTFILE", "/h")]), Some("/h".into()));
        assert_eq!(found(&[home, ("PPDB_HISTFILE", "")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/history");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        fs::write(&path, "get a\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "get a\n");
        assert!(prepare(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn lines_come_back_and_the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        prepare(&path).unwrap();
        append(&path, "get a\\b").unwrap();
        append(&path, "status").unwrap();
        assert_eq!(load(&path).unwrap(), ["get a\\b", "status"]);
        (0..2 * LINES_MAX).for_each(|i| append(&path, &format!("get k{i}")).unwrap());
        assert_eq!(load(&path).unwrap().len(), LINES_MAX);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), LINES_MAX);
        let last = format!("get k{}", 2 * LINES_MAX - 1);
        assert_eq!(load(&path).unwrap().last(), Some(&last));
    }

    #[test]
    fn values_and_what_is_no_command_are_not_written_down() {
        for line in [
            "get user:1",
            "status -o json",
            "strategy switch full",
            "help set",
            "ppdb help run",
            "? mset",
            "get user:1 --help",
            "config set reads.default session",
            "run x.rhai --param hours=48",
            "ppdb status",
        ] {
            assert!(may_be_written(line, false), "{line}");
            assert!(!may_be_written(line, true), "in the Rhai mode: {line}");
        }
        for line in [
            "set user:1 hunter2",
            "ppdb set user:1 hunter2",
            "mset a 1",
            "append log x",
            "cas a b c",
            "set user:1 hunter2 --help",
            "set --help user:1 hunter2",
            "ppdb --user get set user:1 hunter2 -h",
            "append log hunter2 --help",
            "help set user:1 hunter2 --help",
            "run x.rhai --param token=hunter2 --help",
            " get user:1",
            "hunter2",
            "get 'open",
            "set a",
            "rhai kv_set(1)",
            "rhai",
            "run x.rhai --param api_token=hunter2",
            "run x.rhai --param Password=hunter2",
            "exit",
            "",
        ] {
            assert!(!may_be_written(line, false), "{line}");
        }
    }

    #[test]
    fn every_command_that_takes_a_value_is_known_here() {
        let data = <Data as clap::Subcommand>::augment_subcommands(clap::Command::new("ppdb"));
        let takes_values = |command: &&clap::Command| {
            let names = command.get_arguments().flat_map(|arg| {
                let own = arg.get_id().as_str().to_uppercase();
                let shown = arg.get_value_names().unwrap_or_default();
                shown.iter().map(|name| name.as_str().to_owned()).chain([own])
            });
            names.into_iter().any(|name| name.ends_with("VALUE"))
        };
        let taking = data.get_subcommands().filter(takes_values).map(clap::Command::get_name);
        let mut taking: Vec<&str> = taking.chain(["run"]).collect();
        let mut known: Vec<&str> = WITH_VALUES.iter().map(|(name, _)| *name).collect();
        taking.sort_unstable();
        known.sort_unstable();
        assert_eq!(taking, known);
    }
}
