//! `completions` and `man`: what other programs show of the command tree, made from the tree itself.
//!
//! The completion of a shell line of our own is `shell::complete`: it also knows names in the cluster.

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::value::{Answered, Doc, Value};
use crate::types::{Code, Error, Result};
use clap::{Command, CommandFactory};
use serde_json::json;
use std::path::Path;

/// The name that the scripts complete.
const PROGRAM: &str = "ppdb";

/// A script that completes the tree in one of the usual shells.
pub fn completions(args: &CompletionsArgs) -> Answered {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree(), PROGRAM, &mut script);
    Answered::of(Value::Text(String::from_utf8_lossy(&script).into_owned()))
}

/// A manual page as roff, or a list of those that were written.
///
/// # Errors
/// `UnknownCommand` if the words lead to none, `BadRequest` with the path if a page cannot be written.
pub fn man(args: &ManArgs) -> Result<Answered> {
    let tree = tree();
    if let Some(folder) = &args.out {
        return write(&tree, folder);
    }
    let mut command = &tree;
    for word in &args.words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let message = format!("no command `{}`; `ppdb help` lists them", args.words.join(" "));
            Error::new(Code::UnknownCommand, message)
        })?;
    }
    Ok(Answered::of(Value::Text(page(command)?)))
}

/// The tree, with the full name of each command worked out.
fn tree() -> Command {
    let mut tree = Cli::command().color(clap::ColorChoice::Never);
    tree.build();
    tree
}

fn page(command: &Command) -> Result<String> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut roff = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).title(name);
    man.render(&mut roff).map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn write(tree: &Command, folder: &Path) -> Result<Answered> {
    let failed = |path: &Path, error: std::io::Error| {
        Error::new(Code::BadRequest, format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let mut written = Vec::new();
    for command in all(tree) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = folder.join(format!("{name}.1"));
        std::fs::write(&path, page(command)?).map_err(|error| failed(&path, error))?;
        written.push(path.display().to_string());
    }
    let rows = written.iter().map(|path| vec![path.clone()]).collect();
    let doc =
        Doc { json: json!({ "pages": written }), header: vec!["PAGE"], rows, notes: Vec::new() };
    Ok(Answered::doc(doc, None))
}

/// A command and all below it, `help` left out.
fn all(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    std::iter::once(command).chain(below.flat_map(all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_tree() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let Value::Text(script) = completions(&CompletionsArgs { shell }).value else {
                panic!("a script is text");
            };
            for word in ["strategy", "prepare", "max-staleness", "linearizable"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { words: Vec::new(), out: Some(folder.path().join("man1")) };
        man(&args).unwrap();
        let tree = tree();
        for command in all(&tree) {
            let name = command.get_display_name().unwrap_or("ppdb");
            let path = folder.path().join("man1").join(format!("{name}.1"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert!(text.contains("Example:"), "{name}");
        }
        assert!(folder.path().join("man1/ppdb-strategy-plan.1").exists());
    }

    #[test]
    fn one_page_is_printed_and_a_wrong_word_is_refused() {
        let of = |words: &[&str]| {
            man(&ManArgs { words: words.iter().map(|w| (*w).to_owned()).collect(), out: None })
        };
        let Value::Text(page) = of(&["strategy", "plan"]).unwrap().value else { panic!("text") };
        assert!(page.contains("ppdb\\-strategy\\-plan") || page.contains("ppdb-strategy-plan"));
        assert_eq!(of(&["strategy", "plna"]).unwrap_err().code, Code::UnknownCommand);
        let out = Some("/dev/null/man".into());
        let error = man(&ManArgs { words: Vec::new(), out }).unwrap_err();
        assert!(error.message.contains("/dev/null/man"), "{error}");
    }
}
