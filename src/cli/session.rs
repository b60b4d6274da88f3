//! A session: defaults, one connected client, and the commands that go over it, one at a time.
//!
//! The command line runs one command in a session, the shell many. A session does not parse or print.

mod asking;
mod connecting;
mod patience;
mod unparsed;

use super::args::admin::{Admin, Cluster};
use super::args::load::{Keys, Stats};
use super::args::strategy::Strategy;
use super::args::{
    Cli, ConfigVerb, Data, Format, Globals, MetricsVerb, NodeVerb, Verb, WritesVerb,
};
use super::care;
use super::contexts::{self, InForce};
use super::data::{self, Plan, Stand};
use super::sweep::{self, Progress, Sweep};
use super::talk::{Show, Talk};
use super::value::{Answered, Done, Failure, Value};
use super::{
    admin, big, cert, check, config, doctor, explain, live, manual, metrics, output, settings, top,
    version,
};
use crate::client::{CallOptions, Client};
use crate::types::{Code, Error, NodeName, Result, limits};
use crate::wire::client::Map;
use bytes::Bytes;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

pub use connecting::{client_options, open};
use patience::{out_of_time, timeout};
pub use unparsed::not_parsed;

/// Connections to each node; requests share them.
const CONNECTIONS_PER_NODE: usize = 1;
/// How long past its timeout a command may take to say so itself; then the session says it.
const GRACE: Duration = Duration::from_millis(250);
/// Time for a look at the map after a command that may have changed it.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(300);
/// Time for a goodbye to the nodes.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Who types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `ppdb COMMAND`.
    CommandLine,
    /// A line of a shell, whose standard input carries lines and never a value.
    Shell,
    /// A line of a program, which gets one answer and nothing else.
    Driven,
}

/// Processes that a session may kill and start: those of a demo.
pub trait Crew: Send {
    /// `kill -9`; an error if there is no such node, or it does not run.
    fn kill_node(&mut self, name: &NodeName) -> Result<()>;
    /// Starts one that does not run.
    fn start_node(&mut self, name: &NodeName) -> Result<()>;
}

/// One user's conversation with a cluster.
pub struct Session {
    base: Globals,
    door: Door,
    client: Option<Client>,
    cluster: Option<String>,
    last_node: Option<NodeName>,
    talk: Talk,
    /// The command under way may change something.
    changes: bool,
    /// A person at a terminal types, and can be asked.
    attended: bool,
    /// How far a deletion by prefix is.
    progress: Progress,
    home: Option<Home>,
}

/// A cluster whose processes belong to the session.
struct Home {
    crew: Arc<Mutex<dyn Crew>>,
    /// How it is reached.
    globals: Globals,
}

/// How one command is carried out, once defaults and flags are put together.
#[derive(Clone)]
pub struct Call {
    /// Environment, defaults of the session and flags together.
    pub globals: Globals,
    /// The flags of this command alone.
    pub typed: Globals,
    /// When its time is up.
    pub deadline: Instant,
    /// Where it says what happens while it waits.
    pub talk: Talk,
}

impl Call {
    /// What is left of its time, at least 1 ms.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// How its requests are carried out.
    pub fn options(&self, atomic: bool) -> Result<CallOptions> {
        Ok(CallOptions {
            level: self.globals.read_level()?,
            after: self.globals.after,
            timeout: self.left(),
            retry: !self.globals.no_retry,
            node: self.globals.node.clone(),
            atomic,
        })
    }
}

impl Session {
    /// A session with these defaults; connects when the first command needs it.
    pub fn new(base: Globals, door: Door) -> Self {
        let talk = Talk::default();
        let (client, cluster, last_node) = (None, None, None);
        let (attended, progress) = (false, Progress::default());
        let (changes, home) = (false, None);
        Self { base, door, client, cluster, last_node, talk, changes, attended, progress, home }
    }

    /// The same with a person at a terminal, who is asked before much is touched (`care`).
    pub fn attended(mut self, attended: bool) -> Self {
        self.attended = attended;
        self
    }

    /// Whether a person at a terminal types, and can be asked.
    pub fn is_attended(&self) -> bool {
        self.attended
    }

    /// The same, with processes for `node kill` and `node start`: those of the cluster that the session begins with.
    pub fn with_crew(mut self, crew: Arc<Mutex<dyn Crew>>) -> Self {
        self.home = Some(Home { crew, globals: self.base.clone() });
        self
    }

    /// Defaults of the session.
    pub fn base(&self) -> &Globals {
        &self.base
    }

    /// From here on a program drives the session: nothing is said but answers.
    pub fn driven(&mut self) {
        self.door = Door::Driven;
    }

    /// The command under way was left early: what goes on without us, and what can be done about it.
    pub fn left_early(&self) -> String {
        let usual = "a command that changes something may or may not have done so";
        self.talk.close_line();
        if let Some(deleted) = self.progress.left_early() {
            return format!("interrupted; {deleted}");
        }
        match self.talk.left_running() {
            Some(left) => format!("interrupted; {left}"),
            None if self.changes => format!("interrupted; {usual}"),
            None => "interrupted".to_owned(),
        }
    }

    /// The cluster in our certificate, once it was read.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// The node that answered last.
    pub fn last_node(&self) -> Option<&NodeName> {
        self.last_node.as_ref()
    }

    /// The client, if connected.
    pub fn connected(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The context that the session is in, if it is in one.
    pub fn context(&self) -> Option<&InForce> {
        self.base.in_force()
    }

    /// Whether a line may change something at this moment: always, but in a protected context.
    pub fn writes_allowed(&self) -> bool {
        self.base.read_only(Instant::now()).is_none()
    }

    /// The map as last seen, if connected.
    pub fn map(&self) -> Option<Arc<Map>> {
        self.client.as_ref().map(Client::map)
    }

    /// Carries out one command within its timeout. Everything that goes wrong is in the answer.
    pub async fn run(&mut self, cli: Cli, stand: &Stand) -> Done {
        let globals = self.base.overlaid_by(&cli.globals);
        let globals = if connects(&cli.verb) { contexts::here(globals)? } else { globals };
        let timeout = timeout(&cli.verb, &cli.globals, &globals);
        let changes = care::changes(&cli.verb);
        if let Some(why) = globals.read_only(Instant::now()).filter(|_| changes) {
            return Err(Error::new(Code::ReadOnly, why).into());
        }
        if self.door == Door::CommandLine {
            self.base = globals.clone();
        }
        // Until everything is agreed on.
        self.changes = false;
        self.progress = Progress::default();
        let moves = matches!(cli.verb, Verb::Admin(Admin::Strategy(_))) && self.door == Door::Shell;
        self.talk = Talk::new(self.show(&cli.verb, &globals));
        let (mut verb, deadline) = (cli.verb, Instant::now() + timeout);
        let mut call = Call { globals, typed: cli.globals, deadline, talk: self.talk.clone() };
        self.look_up(&mut verb, &mut call).await?;
        if let Some(answered) = self.settled(&mut verb, &call, stand).await? {
            return Ok(answered);
        }
        // A person may have thought about it for a while.
        call.deadline = Instant::now() + timeout;
        self.changes = changes;
        let done =
            match tokio::time::timeout(timeout + GRACE, self.dispatch(verb, call, stand)).await {
                Ok(done) => done,
                Err(_) => Err(out_of_time(changes, timeout).into()),
            };
        if let (true, Some(client)) = (moves, &self.client) {
            // The prompt shows the map; a node that does not answer now is no reason to wait.
            let _ = tokio::time::timeout(REFRESH_TIMEOUT, client.refresh()).await;
        }
        if let Ok(Answered { served_by, .. }) = &done
            && let Some(node) = served_by.last()
        {
            self.last_node = Some(node.clone());
        }
        done
    }

    async fn dispatch(&mut self, verb: Verb, call: Call, stand: &Stand) -> Done {
        match verb {
            Verb::Data(data) => self.data(data, &call, stand).await,
            Verb::Admin(Admin::Connect { addr }) => self.connect(addr, &call).await,
            Verb::Admin(Admin::Cluster(Cluster::Init { members, shards })) => {
                admin::init(&members, shards, &call).await.map_err(Failure::from)
            }
            Verb::Admin(Admin::Doctor(args)) if args.list => Ok(doctor::list()),
            Verb::Admin(Admin::Top(args)) => {
                top::check(&call)?;
                let client = self.client(&call).await?;
                Ok(top::run(&client, &args, &call).await?)
            }
            Verb::Admin(Admin::Keys(Keys::Big(args))) => {
                let client = self.client(&call).await?;
                Ok(big::run(&client, &args, &call).await?)
            }
            Verb::Admin(command) => {
                let client = self.client(&call).await?;
                admin::run(&client, command, &call).await.map_err(Failure::from)
            }
            Verb::Cert(verb) => Ok(cert::run(&verb, &call.globals)?),
            Verb::Config(ConfigVerb::Get { setting }) => {
                let client = self.client(&call).await?;
                Ok(settings::get(&client, setting.as_deref(), &call).await?)
            }
            Verb::Config(ConfigVerb::Set { setting, value }) => {
                let client = self.client(&call).await?;
                Ok(settings::set(&client, &setting, &value, &call).await?)
            }
            Verb::Config(verb) => Ok(config::run(&verb, &call.typed)?),
            Verb::Check(args) => match self.client(&call).await {
                Ok(client) => Ok(check::run(&client, args, &call).await),
                Err(error) => Ok(check::failed(args, &error)),
            },
            Verb::Metrics(verb) => match metrics::offline(&verb) {
                Some(answered) => Ok(answered),
                None => Ok(metrics::run(&self.client(&call).await?, &verb, &call).await?),
            },
            Verb::Node(verb) => Ok(self.node(&verb).await?),
            Verb::Completions(args) => Ok(manual::completions(&args)),
            Verb::Man(args) => Ok(manual::man(&args)?),
            Verb::Context(verb) => Ok(contexts::commands::run(verb, &call).await?),
            Verb::Writes(verb) => Ok(self.writes(&verb)?),
            Verb::Explain { code } => Ok(explain::run(code.as_deref())?),
            Verb::Version => Ok(Answered::doc(version::of_this_build(), None)),
            Verb::Serve(_) | Verb::Shell(_) | Verb::Demo(_) | Verb::Bench(_) | Verb::Run(_) => {
                let message = "this command starts a program of its own; call it as `ppdb …`";
                Err(Error::new(Code::BadRequest, message).into())
            }
        }
    }

    async fn sweep(&mut self, prefix: Bytes, dry_run: bool, call: &Call) -> Done {
        let client = self.client(call).await?;
        if dry_run {
            return sweep::dry_run(&client, &prefix, call.deadline).await;
        }
        let log = self.door != Door::Driven && !std::io::stderr().is_terminal();
        let (deadline, progress, talk) = (call.deadline, &self.progress, call.talk.clone());
        Sweep { prefix, deadline, progress, talk, log }.run(&client).await
    }

    async fn node(&self, verb: &NodeVerb) -> Result<Answered> {
        let Some(home) = &self.home else {
            let message = "`node` works in the shell of `ppdb demo` only; elsewhere nodes are started and \
                           stopped by whoever runs their machines";
            return Err(Error::new(Code::BadRequest, message));
        };
        let mut crew = home.crew.lock().await;
        let text = match verb {
            NodeVerb::Kill { name } => {
                crew.kill_node(name).map(|()| format!("{name} was killed"))?
            }
            NodeVerb::Start { name } => crew.start_node(name).map(|()| format!("{name} starts"))?,
        };
        Ok(Answered::of(Value::Text(text)))
    }

    /// `writes on` and `writes off`, for the lines that follow.
    fn writes(&mut self, verb: &WritesVerb) -> Result<Answered> {
        if self.door == Door::CommandLine {
            let message = "`writes` is for the lines of a shell; a single command takes --writes";
            return Err(Error::new(Code::BadRequest, message));
        }
        let (writes, time) = match verb {
            WritesVerb::On { time } => (time.is_none(), *time),
            WritesVerb::Off => (false, None),
        };
        self.base.writes = writes;
        self.base.writes_until = time.map(|time| Instant::now() + time);
        Ok(contexts::commands::writes(self.context(), self.writes_allowed(), time))
    }

    /// Where this command says what happens while it waits.
    fn show(&self, verb: &Verb, globals: &Globals) -> Show {
        let format = output::format_or_default(globals.output);
        if let (Door::CommandLine | Door::Shell, Some(show)) =
            (self.door, live::shows(verb, format))
        {
            return show;
        }
        match (self.door, verb) {
            (Door::Driven, _) => Show::Nothing,
            (_, Verb::Admin(Admin::Stats(Stats { watch: true, .. }))) => {
                Show::Pages(output::format_or_default(globals.output))
            }
            (_, Verb::Admin(Admin::Strategy(Strategy::Watch))) => {
                match output::format_or_default(globals.output) {
                    Format::Json => Show::to_person(),
                    Format::Table if std::io::stdout().is_terminal() => Show::Bar,
                    format => Show::Lines(format),
                }
            }
            (_, Verb::Admin(Admin::Logs(args))) if args.follow => {
                Show::Lines(output::format_or_default(globals.output))
            }
            _ => Show::to_person(),
        }
    }

    async fn data(&mut self, mut data: Data, call: &Call, stand: &Stand) -> Done {
        if self.door == Door::CommandLine {
            from_standard_input(&mut data)?;
        }
        if let Some((prefix, dry_run)) = sweep::asked(&data, stand) {
            return self.sweep(prefix, dry_run, call).await;
        }
        let plan = data::plan(&data, stand)?;
        let options = call.options(matches!(plan, Plan::Ops { atomic: true, .. }))?;
        let client = self.client(call).await?;
        let options = CallOptions { timeout: call.left(), ..options };
        match plan {
            Plan::Ops { ops, shape, .. } => {
                let answers = client.call(ops.clone(), &options).await;
                data::finish(&ops, shape, answers)
            }
            Plan::Scan(scan) => Ok(data::finish_scan(client.scan(&scan, &options).await?)),
        }
    }

    /// Says goodbye to the nodes.
    pub async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
        }
    }
}

/// Whether a command has to do with a cluster, so that a context matters.
fn connects(verb: &Verb) -> bool {
    match verb {
        Verb::Config(verb) => matches!(verb, ConfigVerb::Get { .. } | ConfigVerb::Set { .. }),
        Verb::Cert(_) | Verb::Context(_) | Verb::Writes(_) | Verb::Node(_) => false,
        Verb::Explain { .. } | Verb::Completions(_) | Verb::Man(_) | Verb::Version => false,
        Verb::Metrics(verb) => !matches!(verb, MetricsVerb::List),
        Verb::Data(_) | Verb::Admin(_) | Verb::Check(_) => true,
        Verb::Serve(_) | Verb::Shell(_) | Verb::Demo(_) | Verb::Bench(_) | Verb::Run(_) => false,
    }
}

/// `set KEY -` and `append KEY -` on the command line: the value is all of standard input.
fn from_standard_input(data: &mut Data) -> Result<()> {
    use std::os::unix::ffi::OsStringExt;
    let (Data::Set { value, .. } | Data::Append { value, .. }) = data else { return Ok(()) };
    if value != "-" {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let limit = limits::VALUE_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(Code::BadRequest, format!("standard input: {error}")))?;
    *value = std::ffi::OsString::from_vec(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::parse;

    #[test]
    fn the_line_that_counts_is_wiped_before_it_is_said_what_was_deleted() {
        let mut session = Session::new(Globals::default(), Door::Shell);
        session.talk = Talk::new(Show::Progress);
        session.talk.progress("7 keys deleted");
        session.progress = Progress::of(7, 5);
        assert!(session.talk.has_open_line());
        assert!(session.left_early().starts_with("interrupted; 7 keys were deleted; 5 more"));
        assert!(!session.talk.has_open_line());
    }

    #[tokio::test]
    async fn programs_of_their_own_are_not_for_the_shell_and_a_missing_certificate_is_an_answer() {
        let mut session = Session::new(Globals::default(), Door::Shell);
        for line in ["serve --primary", "shell", "demo", "bench", "run x.rhai"] {
            let failure = session.run(parse(line).unwrap(), &Stand::default()).await.unwrap_err();
            assert_eq!(failure.error.code, Code::BadRequest, "{line}");
        }
        let answered = session.run(parse("version").unwrap(), &Stand::default()).await.unwrap();
        assert!(matches!(answered.value, Value::Doc(doc) if doc.json["name"] == "ppdb"));
    }
}
