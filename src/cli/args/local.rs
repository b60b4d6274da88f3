//! Commands that need no cluster, or start one: nodes, shells, demos, certificates, settings.

use crate::config::SETTINGS;
use crate::types::NodeName;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use std::path::PathBuf;

/// Under `help` in a shell.
pub const SHELL_WORDS_HELP: &str = "\
In a shell:
  rhai            lines of Rhai, the language of runbooks; `rhai 1 + 1` is one of them
  exit, quit      the end, as Ctrl-D
  ?               the same as help; `? strategy`, `help strategy` and `strategy --help` are one
  TAB             completes commands, flags, names, keys and files
  Ctrl-C          drops the line, or leaves what a command waits for: an operation goes on";

/// Under `ppdb shell --help`.
pub const SHELL_EXAMPLES: &str = "\
Example:
  ppdb shell
  ppdb shell -e \"set a 1; get a\"
  ppdb shell -o jsonl < requests

With -o jsonl, one line in is answered by exactly one JSON line out, in order. A line is a shell line,
a JSON array of strings, or {\"argv\":[…],\"key_b64\":\"…\",\"value_b64\":\"…\"} where the two stand for the
KEY and the VALUE of the command (expected_b64 for the EXPECTED of cas). The prefix of a deletion is held open for
its bytes: {\"argv\":[\"del\",\"--yes\",\"--prefix\",\"\"],\"key_b64\":\"…\"}. Bytes without a place are refused.

In -e and in lines from a pipe the first error ends the rest, and so does Ctrl-C, also in a view or a runbook.

At a terminal the prompt tells where it is and how it is there, and what changes meanwhile is told above the
line. The history keeps commands, and none that carries a value (set, mset, append, cas, rhai), nor a line that
starts with a blank. PPDB_KEY_COMPLETION=off keeps TAB from asking for keys; in a protected context it never does.";

/// Under `ppdb demo --help`.
pub const DEMO_EXAMPLES: &str = "\
Example:
  ppdb demo
  ppdb demo --port-offset 100 --keep ./my-demo
  ppdb demo --exit -o json";

/// Under `ppdb completions --help`.
pub const COMPLETIONS_EXAMPLES: &str = "\
Example:
  ppdb completions bash > ~/.local/share/bash-completion/completions/ppdb
  ppdb completions zsh > ~/.zfunc/_ppdb
  ppdb completions fish > ~/.config/fish/completions/ppdb.fish";

/// Under `ppdb man --help`.
pub const MAN_EXAMPLES: &str = "\
Example:
  ppdb man strategy plan | man -l -
  ppdb man --out /usr/local/share/man/man1";

/// Prints a script for a shell.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct CompletionsArgs {
    /// Whose completion.
    pub shell: clap_complete::Shell,
}

/// Prints a page, or writes them all.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct ManArgs {
    /// The command that the page is about; `ppdb` itself if none is named.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub words: Vec<String>,
    /// Write the pages of all commands into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Runs a node.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ServeArgs {
    /// Owns shards and votes.
    #[arg(long, conflicts_with = "replica")]
    pub primary: bool,
    /// Follows every shard, never votes.
    #[arg(long)]
    pub replica: bool,
    /// Where the settings come from.
    #[command(flatten)]
    pub settings: SettingFlags,
    /// Die with this process, which started the node.
    #[arg(long, hide = true, value_name = "PID")]
    pub parent_pid: Option<u32>,
}

/// `--config`, and a flag for each setting that no other flag sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingFlags {
    /// The settings file.
    pub config: Option<PathBuf>,
    /// Name of the setting and its value, where given.
    pub given: Vec<(&'static str, Option<String>)>,
}

/// Settings that have a flag elsewhere: `--primary`, `--replica` and the global ones.
const FLAG_ELSEWHERE: &[&str] = &["role", "ca", "cert", "key"];

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = clap::Arg::new("config").long("config").value_name("FILE");
        let config = config.value_parser(clap::value_parser!(PathBuf));
        let config = config.help("Settings file (env PPDB_CONFIG; ppdb.toml if there is one)");
        let flags = SETTINGS.iter().filter(|setting| !FLAG_ELSEWHERE.contains(&setting.name));
        let flags = flags.map(|setting| {
            let argument = clap::Arg::new(setting.name).long(setting.flag).value_name("VALUE");
            argument.help(setting.doc).help_heading("Settings")
        });
        command.arg(config).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = SETTINGS.iter().filter(|setting| !FLAG_ELSEWHERE.contains(&setting.name));
        let given = flags
            .filter_map(|s| Some((s.name, Some(matches.get_one::<String>(s.name)?.clone()))))
            .collect();
        Ok(Self { config: matches.get_one("config").cloned(), given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Opens a shell.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ShellArgs {
    /// Carry out these commands, separated by `;`, and end; the first error ends them early.
    #[arg(short = 'e', long = "execute", value_name = "COMMANDS")]
    pub execute: Option<String>,
    /// Keep no history (env PPDB_HISTFILE names another file).
    #[arg(long)]
    pub no_history: bool,
}

/// Starts a throw-away cluster.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct DemoArgs {
    /// Added to the ports, which are 7101 to 7104.
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub port_offset: u16,
    /// Put data and certificates here and leave them; without it they are deleted.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Run load, kill nodes, check that nothing acknowledged was lost, and end.
    #[arg(long)]
    pub exit: bool,
    /// Keys that --exit writes.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub keys: u32,
}

/// The processes of a demo, in its own shell.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum NodeVerb {
    /// Kills a node of the demo with `kill -9`.
    #[command(after_help = "Example:\n  ppdb node kill n2")]
    Kill {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: NodeName,
    },
    /// Starts a node of the demo that does not run.
    #[command(after_help = "Example:\n  ppdb node start n2")]
    Start {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: NodeName,
    },
}

/// Makes and lists certificates.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum CertVerb {
    /// Makes the CA of a cluster in the --certs folder.
    #[command(after_help = "Example:\n  ppdb cert init --cluster prod --certs certs")]
    Init {
        /// Name of the cluster; it is in every certificate.
        #[arg(long, default_value = "ppdb", value_name = "NAME")]
        cluster: String,
    },
    /// Issues a certificate.
    #[command(subcommand, after_help = "Example:\n  ppdb cert issue user ann --days 30")]
    Issue(IssueVerb),
    /// Lists the certificates in the --certs folder.
    #[command(after_help = "Example:\n  ppdb cert list --certs certs")]
    List,
}

/// For whom a certificate is.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum IssueVerb {
    /// For a node; valid for 90 days unless asked otherwise.
    #[command(after_help = "Example:\n  ppdb cert issue node n1 --out n1-certs")]
    Node {
        /// Its name.
        #[arg(value_parser = NodeName::new)]
        name: NodeName,
        /// How it differs from the default.
        #[command(flatten)]
        options: IssueFlags,
    },
    /// For a person or a program; valid for 7 days unless asked otherwise.
    #[command(after_help = "Example:\n  ppdb cert issue user ann --days 30")]
    User {
        /// The name.
        name: String,
        /// How it differs from the default.
        #[command(flatten)]
        options: IssueFlags,
    },
}

/// How a certificate differs from the default.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct IssueFlags {
    /// Days of validity.
    #[arg(long, value_name = "N")]
    pub days: Option<u32>,
    /// Folder for the files; without it the --certs folder. It also gets a copy of ca.crt.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A further host name or address in the certificate; repeat it for more. PPDB does not need any.
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}

/// Settings of a node, and the live ones of the cluster.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ConfigVerb {
    /// The live settings of the cluster, or one of them.
    #[command(after_help = "Example:\n  ppdb config get\n  ppdb config get reads.default -o json")]
    Get {
        /// Its name; without it all of them.
        setting: Option<String>,
    },
    /// Sets a live setting of the cluster; it holds on every node at once.
    #[command(
        after_help = "Example:\n  ppdb config set reads.default session\n  ppdb config set switch.cool_down 0s"
    )]
    Set {
        /// Its name.
        setting: String,
        /// What shall hold.
        value: String,
    },
    /// Says whether a node would start with these settings, certificates included.
    #[command(after_help = "Example:\n  ppdb config check --config /etc/ppdb/ppdb.toml")]
    Check(ServeArgs),
    /// Shows every setting.
    #[command(after_help = "Example:\n  ppdb config show --origin --name n1 --primary")]
    Show {
        /// What is shown.
        #[command(flatten)]
        serve: ServeArgs,
        /// Say where each value came from: default, file, environment or flag.
        #[arg(long)]
        origin: bool,
    },
}
