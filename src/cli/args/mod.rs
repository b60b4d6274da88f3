//! The one command tree. The command line and a shell line are both parsed by it, so a command, its
//! flags and its help exist once.
//!
//! Only what was typed is here; `Globals::settle` and the modules of the commands check it.

pub mod admin;
pub mod consent;
pub mod contexts;
pub mod data;
pub mod globals;
pub mod live;
pub mod load;
pub mod local;
pub mod logs;
pub mod oplog;
pub mod run;
pub mod runs;
pub mod strategy;
pub mod watching;

pub use admin::Admin;
pub use consent::Consent;
pub use contexts::{ContextVerb, WritesVerb};
pub use data::Data;
pub use globals::{Format, Globals, LevelName};
pub use local::{
    CertVerb, CompletionsArgs, ConfigVerb, DemoArgs, IssueFlags, IssueVerb, ManArgs, NodeVerb,
    ServeArgs, SettingFlags, ShellArgs,
};
pub use run::RunArgs;
pub use watching::{CheckArgs, CheckFormat, MetricsVerb};

use super::bench::BenchOptions;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// What stands under `ppdb --help`.
const AFTER_HELP: &str = "\
Example:
  ppdb demo                          a throw-away cluster of four nodes, and a shell to it
  ppdb set user:1 ann --ttl 1h       one command
  ppdb shell -e \"set a 1; get a\"     some commands over one connection

Output:
  Results go to standard output, everything else to standard error. JSON is the stable contract:
  {\"v\":1,\"ok\":true,\"outcome\":\"ok\",\"value\":…} or
  {\"v\":1,\"ok\":false,\"outcome\":\"fail|unknown\",\"code\":\"…\",\"class\":\"retry|fix|uncertain|stop\",\"message\":\"…\"}

Exit codes:
  0    yes, or done
  1    a negative answer: the key is absent, a condition did not hold, a check failed
       (no-go of `strategy plan`, a difference in `shard verify`, `fail` in a runbook)
  2    the command is wrong
  3    the cluster cannot be reached
  4    a certificate or a permission is missing
  5    refused, nothing was changed: a precheck said no, the plan is outdated, the order does not fit
       what is under way, or the context is protected
  6    failed, and undone: the operation waited for was aborted or reverted
  7    failed, an operator has to look
  124  out of time, or the outcome is unknown; an operation that was waited for goes on
  130  interrupted; an operation under way goes on
  143  SIGTERM, in a shell that nobody sits in front of";

/// A durable, sharded key-value store that can be switched to full replication and back.
#[derive(Clone, Debug, Parser)]
#[command(name = "ppdb", version, after_help = AFTER_HELP, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The first word.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Keys and values.
    #[command(flatten)]
    Data(Data),
    /// Questions and orders to a node.
    #[command(flatten)]
    Admin(Admin),
    /// Runs a node until SIGTERM or SIGINT.
    #[command(
        after_help = "Example:\n  ppdb serve --primary --name n1 --listen 10.0.0.1:7101 --data-dir /var/lib/ppdb"
    )]
    Serve(ServeArgs),
    /// Opens a shell: the same commands, over long-lived connections.
    #[command(after_help = local::SHELL_EXAMPLES)]
    Shell(ShellArgs),
    /// Starts a throw-away cluster of three primaries and a replica on this machine.
    #[command(after_help = local::DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Kills and starts nodes, in the shell of a demo only.
    #[command(subcommand, after_help = "Example:\n  ppdb node kill n2")]
    Node(NodeVerb),
    /// Runs a runbook: a script over the same commands.
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),
    /// Measures a load, or replays a trace and checks every read.
    #[command(
        after_help = "Example:\n  ppdb bench --clients 64 --mix get=90,set=10 --duration 10s -o json\n  ppdb bench --trace block-io-trace.csv.gz"
    )]
    Bench(Box<BenchOptions>),
    /// Makes and lists certificates.
    #[command(subcommand, after_help = "Example:\n  ppdb cert init --cluster prod")]
    Cert(CertVerb),
    /// Settings: `check` and `show` for those of a node, `get` and `set` for those of the cluster.
    #[command(
        subcommand,
        after_help = "Example:\n  ppdb config show --origin --config /etc/ppdb/ppdb.toml\n  ppdb config set reads.default session"
    )]
    Config(ConfigVerb),
    /// Connections with a name: where a cluster is, who we are there, and whether it is protected.
    #[command(subcommand, after_help = contexts::EXAMPLES)]
    Context(ContextVerb),
    /// Allows a shell to change something in a protected context.
    #[command(subcommand, after_help = "Example:\n  ppdb shell -e 'writes on --for 10m; set a 1'")]
    Writes(WritesVerb),
    /// Says in one line whether all is well, with the exit codes of monitoring plugins.
    #[command(after_help = watching::CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Metrics: their names, their values, rules for Prometheus.
    #[command(subcommand, after_help = "Example:\n  ppdb metrics list")]
    Metrics(MetricsVerb),
    /// Prints a script that completes commands and flags in bash, zsh, fish and others.
    #[command(after_help = local::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Prints the manual page of a command, or writes all of them.
    #[command(after_help = local::MAN_EXAMPLES)]
    Man(ManArgs),
    /// Says what the code of an error means, where it usually comes from, and what to do; without one lists all of them.
    #[command(after_help = "Example:\n  ppdb explain PrecheckFailed\n  ppdb explain -o json")]
    Explain {
        /// The code, as it stands behind `error`.
        code: Option<String>,
    },
    /// Prints version and build; a debug build also lists its failpoints.
    #[command(after_help = "Example:\n  ppdb version -o json")]
    Version,
}

impl Cli {
    /// Parses a command line, program name first.
    pub fn from_argv(argv: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(argv).map(Self::settled)
    }

    /// `check --format json` is another way to say `-o json`.
    fn settled(mut self) -> Self {
        if let Verb::Check(CheckArgs { format: Some(CheckFormat::Json) }) = self.verb {
            self.globals.output = Some(Format::Json);
        }
        self
    }

    /// Parses the words of a shell line. The parser is built anew each time, so nothing of an earlier
    /// line is left in it.
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut matches = Self::line_command().try_get_matches_from(words)?;
        Self::from_arg_matches_mut(&mut matches).map(Self::settled)
    }

    /// The tree as the shell sees it.
    pub fn line_command() -> clap::Command {
        Self::command()
            .no_binary_name(true)
            .disable_version_flag(true)
            .color(clap::ColorChoice::Never)
            .after_help(format!("{AFTER_HELP}\n\n{}", local::SHELL_WORDS_HELP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound_for_both_doors() {
        Cli::command().debug_assert();
        Cli::line_command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        fn walk(path: String, command: &clap::Command, seen: &mut usize) {
            *seen += 1;
            assert!(command.get_about().is_some(), "`{path}` says what it does");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example:\n  ppdb"), "`{path}` has an example");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{path}` explains {}", argument.get_id());
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                walk(format!("{path} {}", sub.get_name()), sub, seen);
            }
        }
        let mut seen = 0;
        walk("ppdb".into(), &Cli::command(), &mut seen);
        assert!(seen > 35, "{seen} commands");
    }

    #[test]
    fn no_argument_of_a_command_takes_the_place_of_a_global_flag() {
        fn walk(command: &clap::Command, globals: &[String]) {
            for sub in command.get_subcommands() {
                for id in sub.get_arguments().map(|argument| argument.get_id().to_string()) {
                    assert!(!globals.contains(&id), "`{}`: {id}", sub.get_name());
                }
                walk(sub, globals);
            }
        }
        let root = Cli::command();
        let globals = root.get_arguments().filter(|argument| argument.is_global_set());
        let globals: Vec<String> = globals.map(|argument| argument.get_id().to_string()).collect();
        assert!(globals.len() > 10);
        walk(&root, &globals);
    }

    #[test]
    fn every_example_parses() {
        fn walk(command: &clap::Command, lines: &mut Vec<String>) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = after.lines().filter_map(|line| line.strip_prefix("  ppdb "));
            lines.extend(examples.map(|line| line.split("   ").next().unwrap_or(line).to_owned()));
            command.get_subcommands().for_each(|sub| walk(sub, lines));
        }
        let mut lines = Vec::new();
        walk(&Cli::command(), &mut lines);
        assert!(lines.len() > 35);
        for line in lines {
            let line = line.split(['<', '>', '|']).next().unwrap_or(&line);
            let words = shlex::split(line).expect("balanced quotes");
            let argv = ["ppdb".to_owned()].into_iter().chain(words).map(OsString::from);
            if let Err(error) = Cli::from_argv(argv) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_typo_is_answered_with_the_right_word() {
        let error = Cli::from_words(["strategy", "shwo"].map(OsString::from)).unwrap_err();
        assert!(error.to_string().contains("'show'"), "{error}");
    }
}
