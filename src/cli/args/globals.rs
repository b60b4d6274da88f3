//! Flags that every command takes: output, where the cluster is, who we are, and how reads go.
//!
//! Three sources lie on top of each other: the environment, the flags of the program (which are the
//! defaults of a shell session), and the flags of one line.

use crate::cli::contexts::{Place, check_name};
use crate::client::Level;
use crate::types::units;
use crate::types::{Code, Error, NodeName, Result, Token};
use crate::wire::logs::LogLevel;
use clap::{Args, Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns, control characters escaped.
    Table,
    /// For pipes: the value alone, or columns separated by tabs.
    Plain,
    /// One JSON object.
    Json,
    /// One JSON object on one line.
    Jsonl,
}

/// What a read may return; and with `logs`, where the same flag has its other usual meaning, how much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelName {
    /// Real-time order, from any client.
    Linearizable,
    /// At least as new as what this session has seen.
    Session,
    /// The nearest copy.
    Local,
    /// Of log lines.
    #[value(hide = true)]
    Error,
    /// Of log lines.
    #[value(hide = true)]
    Warn,
    /// Of log lines.
    #[value(hide = true)]
    Info,
    /// Of log lines.
    #[value(hide = true)]
    Debug,
    /// Of log lines.
    #[value(hide = true)]
    Trace,
}

/// Flags that every command takes; whatever was not given is none. Their ids have a prefix, because an
/// argument of a command with the same id would silently take the place of the flag.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Globals {
    /// Output; a table on a terminal, plain when piped.
    #[arg(
        id = "global-output",
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        value_name = "FORMAT"
    )]
    #[arg(help_heading = "Global options", hide_possible_values = true)]
    #[arg(help = "Output: table, plain, json or jsonl; a table on a terminal, plain when piped")]
    pub output: Option<Format>,
    /// A connection by its name, see `context` (env PPDB_CONTEXT; the one of `context use`).
    #[arg(
        id = "global-context",
        long = "context",
        global = true,
        value_name = "NAME",
        value_parser = check_name
    )]
    #[arg(help_heading = "Global options")]
    pub context: Option<String>,
    /// Allow changes in a protected context.
    #[arg(id = "global-writes", long = "writes", global = true, help_heading = "Global options")]
    #[arg(hide_short_help = true)]
    pub writes: bool,
    /// Until when changes are allowed besides: `writes on --for`.
    #[arg(skip)]
    pub writes_until: Option<Instant>,
    /// The context that was found.
    #[arg(skip)]
    pub place: Place,
    /// A node to start from; repeat it for more (env PPDB_ENDPOINTS, separated by commas).
    #[arg(
        id = "global-endpoint",
        long = "endpoint",
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Global options")]
    pub endpoints: Vec<String>,
    /// Folder with ca.crt and the certificate of --user (env PPDB_CERTS; `certs` if there is one).
    #[arg(
        id = "global-certs",
        long = "certs",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub certs: Option<PathBuf>,
    /// Whose certificate in that folder (env PPDB_USER; `admin`).
    #[arg(
        id = "global-user",
        long = "user",
        global = true,
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub user: Option<String>,
    /// Certificate of the CA, instead of the one in --certs (env PPDB_CA).
    #[arg(
        id = "global-ca",
        long = "ca",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    #[arg(hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// Own certificate, instead of the one in --certs (env PPDB_CERT).
    #[arg(
        id = "global-cert",
        long = "cert",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    #[arg(hide_short_help = true)]
    pub cert: Option<PathBuf>,
    /// Key of that certificate, mode 0600 (env PPDB_KEY).
    #[arg(
        id = "global-key",
        long = "key",
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    #[arg(hide_short_help = true)]
    pub key: Option<PathBuf>,
    /// The whole time a command may take, retries included (env PPDB_TIMEOUT; 5s). Commands that wait for an
    /// operation, and `run`, go by the flag on their own line alone.
    #[arg(id = "global-timeout", long = "timeout", global = true, value_name = "TIME", value_parser = timeout)]
    #[arg(help_heading = "Global options")]
    pub timeout: Option<Duration>,
    /// Report the first failure; without it what is safe to repeat is repeated.
    #[arg(
        id = "global-no-retry",
        long = "no-retry",
        global = true,
        help_heading = "Global options",
        hide_short_help = true
    )]
    pub no_retry: bool,
    /// Ask this node for `session` and `local` reads, and for what a single node answers (env PPDB_NODE).
    #[arg(id = "global-node", long = "node", global = true, value_name = "NODE", value_parser = NodeName::new)]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    pub node: Option<NodeName>,
    /// What a read may return: linearizable, session or local (env PPDB_LEVEL; the cluster's reads.default).
    #[arg(
        id = "global-level",
        long = "level",
        global = true,
        value_enum,
        hide_possible_values = true,
        value_name = "LEVEL"
    )]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    #[arg(
        help = "What a read may return: linearizable, session or local (env PPDB_LEVEL; the cluster's reads.default)"
    )]
    pub level: Option<LevelName>,
    /// Oldest answer of a `local` read; it is refused rather than older (env PPDB_MAX_STALENESS).
    #[arg(id = "global-max-staleness", long = "max-staleness", global = true, value_name = "TIME", value_parser = staleness)]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    pub max_staleness: Option<Duration>,
    /// A token from an earlier answer that a `session` read has to have reached.
    #[arg(
        id = "global-after",
        long = "after",
        global = true,
        value_name = "TOKEN",
        help_heading = "Global options"
    )]
    #[arg(hide_short_help = true)]
    pub after: Option<Token>,
}

/// Variables that set a flag. A test holds them against the help.
const ENV: &[(&str, &str)] = &[
    // In front: the others count beside it.
    ("PPDB_CONTEXT", "--context"),
    ("PPDB_ENDPOINTS", "--endpoint"),
    ("PPDB_CERTS", "--certs"),
    ("PPDB_USER", "--user"),
    ("PPDB_CA", "--ca"),
    ("PPDB_CERT", "--cert"),
    ("PPDB_KEY", "--key"),
    ("PPDB_TIMEOUT", "--timeout"),
    ("PPDB_NODE", "--node"),
    ("PPDB_LEVEL", "--level"),
    ("PPDB_MAX_STALENESS", "--max-staleness"),
];

/// Default user name.
pub const USER_DEFAULT: &str = "admin";
/// Default certificate folder.
pub const CERTS_DEFAULT: &str = "certs";
/// Default endpoint: the default port of a node on this machine.
pub const ENDPOINT_DEFAULT: &str = "127.0.0.1:7101";

fn timeout(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time.is_zero() || time > Duration::from_secs(24 * 3600) {
        return Err("a timeout is 1ms to 24h".into());
    }
    Ok(time)
}

fn staleness(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time.as_millis() == 0 || time > Duration::from_secs(24 * 3600) {
        return Err("a staleness bound is 1ms to 1day".into());
    }
    Ok(time)
}

impl Globals {
    /// What the environment says; `get` looks a variable up. An empty variable counts as unset.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Env {
            #[command(flatten)]
            globals: Globals,
        }
        let mut all = Globals::default();
        for (name, flag) in ENV {
            let Some(value) = get(name).filter(|value| !value.is_empty()) else { continue };
            let mut word = OsString::from(format!("{flag}="));
            word.push(&value);
            let parsed = Env::try_parse_from([word]).map_err(|error| {
                let text = error.to_string();
                let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                Error::new(Code::BadRequest, format!("environment variable {name}: {reason}"))
            })?;
            all = all.overlaid_by(&parsed.globals);
        }
        Ok(all)
    }

    /// True if where the cluster is and who we are is said without a context.
    pub fn is_whole(&self) -> bool {
        let folder = self.certs.is_some() && self.user.is_some();
        let files = self.ca.is_some() && self.cert.is_some() && self.key.is_some();
        !self.endpoints.is_empty() && (folder || files)
    }

    /// The same, to nowhere.
    fn unconnected(&self) -> Globals {
        Globals {
            endpoints: vec![],
            certs: None,
            user: None,
            ca: None,
            cert: None,
            key: None,
            context: None,
            writes: false,
            writes_until: None,
            place: Place::NotAsked,
            ..self.clone()
        }
    }

    /// These flags with others on top. A read level, bound or token on top replaces all three, because
    /// they have a meaning together only. A context on top, or a whole connection, replaces the connection below, with
    /// what was allowed in it.
    pub fn overlaid_by(&self, top: &Globals) -> Globals {
        match top.context.is_some() || top.is_whole() {
            true => self.unconnected().under(top),
            false => self.under(top),
        }
    }

    fn under(&self, top: &Globals) -> Globals {
        let reads = if top.level.is_some() || top.max_staleness.is_some() || top.after.is_some() {
            top
        } else {
            self
        };
        let place = if top.place == Place::NotAsked { &self.place } else { &top.place };
        let endpoints = if top.endpoints.is_empty() { &self.endpoints } else { &top.endpoints };
        // `--certs` and `--user` on top are meant to count, so single files below do not outlive them.
        let folder = top.certs.is_some() || top.user.is_some();
        let below = |path: &Option<PathBuf>| path.clone().filter(|_| !folder);
        Globals {
            output: top.output.or(self.output),
            context: top.context.clone().or_else(|| self.context.clone()),
            writes: top.writes || self.writes,
            writes_until: top.writes_until.or(self.writes_until),
            place: place.clone(),
            endpoints: endpoints.clone(),
            certs: top.certs.clone().or_else(|| self.certs.clone()),
            user: top.user.clone().or_else(|| self.user.clone()),
            ca: top.ca.clone().or_else(|| below(&self.ca)),
            cert: top.cert.clone().or_else(|| below(&self.cert)),
            key: top.key.clone().or_else(|| below(&self.key)),
            timeout: top.timeout.or(self.timeout),
            no_retry: top.no_retry || self.no_retry,
            node: top.node.clone().or_else(|| self.node.clone()),
            level: reads.level,
            max_staleness: reads.max_staleness,
            after: reads.after,
        }
    }

    /// The read level: the one named, or the one that a bound or a token implies. None: whatever the
    /// cluster's setting `reads.default` says.
    pub fn read_level(&self) -> Result<Option<Level>> {
        let refuse = |message: &str| Err(Error::new(Code::BadRequest, message));
        let name = match (self.level, self.max_staleness, self.after) {
            (Some(name), ..) => name,
            (None, Some(_), _) => LevelName::Local,
            (None, None, Some(_)) => LevelName::Session,
            (None, None, None) => return Ok(None),
        };
        if self.max_staleness.is_some() && name != LevelName::Local {
            return refuse("--max-staleness goes with --level local");
        }
        if self.after.is_some() && name != LevelName::Session {
            return refuse("--after goes with --level session");
        }
        match name {
            LevelName::Linearizable => Ok(Some(Level::Linearizable)),
            LevelName::Session => Ok(Some(Level::Session)),
            LevelName::Local => {
                let bound_ms = self.max_staleness.map(|bound| bound.as_millis() as u32);
                Ok(Some(Level::Local { max_staleness_ms: bound_ms }))
            }
            LevelName::Error
            | LevelName::Warn
            | LevelName::Info
            | LevelName::Debug
            | LevelName::Trace => refuse(
                "the level of a read is linearizable, session or local; that one is of log lines",
            ),
        }
    }

    /// The level of log lines: the one named, or all of them.
    pub fn log_level(&self) -> Result<LogLevel> {
        match self.level {
            None | Some(LevelName::Trace) => Ok(LogLevel::Trace),
            Some(LevelName::Debug) => Ok(LogLevel::Debug),
            Some(LevelName::Info) => Ok(LogLevel::Info),
            Some(LevelName::Warn) => Ok(LogLevel::Warn),
            Some(LevelName::Error) => Ok(LogLevel::Error),
            Some(LevelName::Linearizable | LevelName::Session | LevelName::Local) => {
                let message = "the level of log lines is error, warn, info, debug or trace; that one is of reads";
                Err(Error::new(Code::BadRequest, message))
            }
        }
    }

    /// Where to start; the default node on this machine if nothing was said.
    pub fn endpoints(&self) -> Vec<String> {
        if self.endpoints.is_empty() {
            return vec![ENDPOINT_DEFAULT.to_owned()];
        }
        self.endpoints.clone()
    }

    /// Paths of CA, certificate and key.
    pub fn identity_paths(&self) -> (PathBuf, PathBuf, PathBuf) {
        let folder = self.certs.clone().unwrap_or_else(|| CERTS_DEFAULT.into());
        let user = self.user.as_deref().unwrap_or(USER_DEFAULT);
        (
            self.ca.clone().unwrap_or_else(|| folder.join("ca.crt")),
            self.cert.clone().unwrap_or_else(|| folder.join(format!("user-{user}.crt"))),
            self.key.clone().unwrap_or_else(|| folder.join(format!("user-{user}.key"))),
        )
    }

    /// True if `other` reaches the same cluster as the same person.
    pub fn same_connection(&self, other: &Globals) -> bool {
        self.endpoints() == other.endpoints() && self.identity_paths() == other.identity_paths()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    fn line(text: &str) -> Globals {
        let words = shlex::split(&format!("version {text}")).unwrap();
        Cli::from_words(words.into_iter().map(OsString::from)).unwrap().globals
    }

    #[test]
    fn the_environment_lies_below_the_flags() {
        let env = Globals::from_env(|name| {
            let value = match name {
                "PPDB_ENDPOINTS" => "a:1,b:2",
                "PPDB_TIMEOUT" => "2s",
                "PPDB_CA" => "",
                _ => return None,
            };
            Some(value.into())
        });
        let env = env.unwrap();
        assert_eq!(env.endpoints, ["a:1", "b:2"]);
        assert_eq!((env.timeout, &env.ca), (Some(Duration::from_secs(2)), &None));
        let both = env.overlaid_by(&line("--endpoint c:3 --no-retry"));
        assert_eq!(both.endpoints, ["c:3"]);
        assert_eq!((both.timeout, both.no_retry), (Some(Duration::from_secs(2)), true));
        let error = Globals::from_env(|name| (name == "PPDB_TIMEOUT").then(|| "2".into()));
        assert!(error.unwrap_err().message.contains("PPDB_TIMEOUT"));
    }

    #[test]
    fn every_variable_is_in_the_help_and_the_other_way_round() {
        let command = Cli::command();
        let documented: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| argument.get_help().map(ToString::to_string))
            .filter_map(|help| help.split_once("(env ").map(|(_, tail)| tail.to_owned()))
            .collect();
        assert_eq!(documented.len(), ENV.len());
        for (name, _) in ENV {
            let found = documented.iter().any(|tail| {
                tail.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
            });
            assert!(found, "{name}");
        }
    }

    #[test]
    fn variables_of_the_client_do_not_keep_a_node_from_starting() {
        let pairs = ENV.iter().map(|(name, _)| ((*name).to_owned(), "x".to_owned()));
        assert!(crate::config::Layer::env(pairs).is_ok());
    }

    #[test]
    fn bounds_and_tokens_imply_their_level_and_fit_no_other() {
        assert_eq!(line("").read_level(), Ok(None));
        assert_eq!(line("--level linearizable").read_level(), Ok(Some(Level::Linearizable)));
        assert!(line("--level warn").read_level().is_err(), "of log lines");
        assert_eq!(line("--level warn").log_level(), Ok(LogLevel::Warn));
        assert_eq!(line("").log_level(), Ok(LogLevel::Trace));
        assert!(line("--level session").log_level().is_err());
        let bounded = Some(Level::Local { max_staleness_ms: Some(500) });
        assert_eq!(line("--max-staleness 500ms").read_level(), Ok(bounded));
        let unbounded = Some(Level::Local { max_staleness_ms: None });
        assert_eq!(line("--level local").read_level(), Ok(unbounded));
        assert_eq!(line("--after s3.1.2048").read_level(), Ok(Some(Level::Session)));
        assert!(line("--level session --max-staleness 1s").read_level().is_err());
        assert!(line("--level linearizable --after s3.1.1").read_level().is_err());
        let session = line("--level local --max-staleness 1s");
        let reads = session.overlaid_by(&line("--level session"));
        assert_eq!((reads.read_level(), reads.max_staleness), (Ok(Some(Level::Session)), None));
        assert_eq!(session.overlaid_by(&line("--no-retry")).max_staleness, session.max_staleness);
    }

    #[test]
    fn a_folder_and_a_user_name_three_files() {
        let (ca, cert, key) = line("--certs /c --user bob").identity_paths();
        assert_eq!(ca, PathBuf::from("/c/ca.crt"));
        assert_eq!(
            (cert, key),
            (PathBuf::from("/c/user-bob.crt"), PathBuf::from("/c/user-bob.key"))
        );
        let mixed = line("--ca /x/ca.crt").overlaid_by(&line("--certs /c"));
        assert_eq!(mixed.identity_paths().0, PathBuf::from("/c/ca.crt"));
        assert!(!line("--user bob").same_connection(&line("")));
        assert!(line("--timeout 1s").same_connection(&line("")));
    }
}
