//! Running a runbook, as typed.

use clap::Args;
use std::path::PathBuf;

/// Under `ppdb run --help`.
pub const EXAMPLES: &str = "\
Example:
  ppdb run scripts/presale.rhai
  ppdb run scripts/presale.rhai --dry-run
  ppdb run scripts/postsale.rhai --param finalize=true --yes
  ppdb run --check scripts/presale.rhai
  ppdb run --resume RUN-12
  ppdb run --definitions ppdb.d.rhai

A runbook is a Rhai script that gives the same orders as the command line. It has no files, processes or
network of its own. Each run has a record in the cluster: `ppdb runs list`. One that ended early goes on with
--resume; steps that are done are not done again. In a protected context that takes --writes.
With -o json standard output is one object at the end: ok, run, result, steps, calls, ms; what the script prints
goes to standard error. With -o jsonl each printed line is an object, too. --timeout bounds the whole script, one
hour unless it says otherwise. Ctrl-C stops the script; an operation under way goes on.
`scripts/README.md` lists the functions.";

/// Runs a runbook.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RunArgs {
    /// The script; with --resume the one of the record, unless given.
    #[arg(value_name = "FILE", required_unless_present_any = ["resume", "definitions"])]
    pub file: Option<PathBuf>,
    /// A parameter of the script; repeat it for more. With --resume they come from the record.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param, conflicts_with = "resume")]
    pub params: Vec<(String, String)>,
    /// Ask the cluster every question and give it no order; say what would be done.
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// Answer yes to whatever the script asks.
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Compile the script, list its parameters, and do not run it.
    #[arg(long, conflicts_with_all = ["dry_run", "yes", "resume"])]
    pub check: bool,
    /// Go on with a run that ended early: what it has done is not done again.
    #[arg(long, value_name = "RUN", value_parser = super::runs::number)]
    pub resume: Option<u64>,
    /// Go on although the script has changed since.
    #[arg(long, requires = "resume")]
    pub allow_changed: bool,
    /// Write everything that a script may call to a file, for editors.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "params", "resume", "check", "dry_run"])]
    pub definitions: Option<PathBuf>,
}

fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(format!("`{text}` is not a parameter such as verify=true")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verb;
    use super::*;
    use crate::cli::testing;

    fn parse(line: &str) -> Result<RunArgs, String> {
        match testing::parse(&format!("run {line}")).map(|cli| cli.verb) {
            Ok(Verb::Run(args)) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn parameters_are_names_and_values() {
        let args = parse("a.rhai --param a=1 --param b=x=y --param c= -y --dry-run").unwrap();
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(args.params, [of("a", "1"), of("b", "x=y"), of("c", "")]);
        assert!(args.yes && args.dry_run && !args.check);
        let resumed = parse("--resume RUN-12 --allow-changed").unwrap();
        assert_eq!((resumed.resume, resumed.file), (Some(12), None));
        assert!(parse("--definitions x.d.rhai").is_ok());
        for bad in [
            "",
            "a.rhai --param a",
            "a.rhai --param =1",
            "a.rhai --check --dry-run",
            "a.rhai --resume x",
            "a.rhai --allow-changed",
            "a.rhai --resume 3 --param a=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
