//! What the wire can carry has a door: each command is typed somewhere, on the command line and in a shell alike
//! because both are one tree, and has a function for scripts where a script may want it.

use super::run::run;
use super::tests::{Paper, book};
use crate::cli::args::admin::{Admin, Cluster};
use crate::cli::args::{Cli, ConfigVerb, Verb};
use crate::cli::caller::Caller;
use crate::cli::session::Call;
use crate::cli::talk::Talk;
use crate::cli::testing::{Twin, name};
use crate::cli::{admin, check, metrics, settings};
use crate::client::{CallOptions, OpAnswer, Page, ScanOptions};
use crate::types::{Code, Error, NodeName, Op, Result, ShardId};
use crate::wire::breaker::BreakerOrder;
use crate::wire::client::{Map, Strategy};
use crate::wire::command::{Answer, Command, Formation};
use crate::wire::logs::{LogLevel, LogQuestion};
use crate::wire::monitor::{MonitorQuestion, Wish};
use crate::wire::operation::StrategyOrder;
use parking_lot::Mutex;
use std::ffi::OsString;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How a command is given.
enum Door {
    /// A line, and what a script says for it, or why a script has nothing to say.
    Typed(&'static str, std::result::Result<&'static str, &'static str>),
    /// By nobody but nodes and the program itself.
    Inside,
}

/// A command that is added has to say here how it is given.
fn door(command: &Command) -> Door {
    use Door::{Inside, Typed};
    let watching = Err("people watch; a script asks `cluster.status()`");
    match command {
        Command::ClusterInit(_) => {
            Typed("cluster init --member n1=primary@h:1", Err("a script has a cluster already"))
        }
        Command::Status => Typed("status", Ok("cluster.status()")),
        Command::Info => Typed("info n1", Ok("nodes.info(\"n1\")")),
        Command::ReplicaLag => Typed("replica lag", Ok("replicas.lag()")),
        Command::Digest { .. } => Typed("shard verify", Ok("shards.verify()")),
        Command::Precheck { .. } => Typed("strategy plan full", Ok("strategy.plan(\"full\")")),
        Command::Strategy(_) => {
            Typed("strategy prepare full", Ok("step(\"s\", || strategy.prepare(\"full\"))"))
        }
        Command::StrategyShow => Typed("strategy show", Ok("strategy.operation()")),
        Command::Plans => Typed("strategy plans", Ok("strategy.plans()")),
        Command::StrategyHistory => Typed("strategy history", Ok("strategy.history()")),
        Command::StrategyOf { .. } => Typed(
            "strategy abort --operation 1",
            Ok("step(\"s\", || { strategy.prepare(\"full\"); strategy.abort(\"no\") })"),
        ),
        Command::Settings => Typed("config get", Ok("cluster.setting(\"reads.default\")")),
        Command::Set { .. } => Typed(
            "config set reads.default local",
            Ok("step(\"s\", || cluster.configure(\"reads.default\", \"local\"))"),
        ),
        // Nodes ask each other; everybody else reads them in `status`.
        Command::Alarms => Inside,
        Command::Metrics => Typed("metrics show", watching),
        Command::OperationLog { .. } => Typed("op list", watching),
        Command::Logs(_) => Typed("logs", watching),
        Command::Breakers => Typed("breaker list", watching),
        Command::Breaker(_) => {
            Typed("breaker open n2 --for 1m", Err("an order for an emergency, given by hand"))
        }
        Command::Stats => Typed("stats", watching),
        Command::HotKeys { .. } => Typed("keys hot", watching),
        Command::SlowLog { .. } => Typed("slowlog", watching),
        Command::Monitor(_) => Typed("monitor --for 1s", watching),
        Command::Ping => Typed("latency --for 100ms", watching),
        Command::Runs { .. } => Typed("runs list", Err("a run is its own record")),
        Command::RunShow { .. } => Typed("runs show 1", Err("a run is its own record")),
        // A runner keeps the record of its run.
        Command::Run(_) => Inside,
        // Only nodes may give these.
        Command::Report
        | Command::Shard(_)
        | Command::Probe(_)
        | Command::Echo(_)
        | Command::Record(_) => Inside,
    }
}

/// Of each command that is typed one, whatever it says.
fn commands() -> Vec<Command> {
    let (order, to) = (StrategyOrder::Commit, Strategy::Full);
    let formation = Formation { cluster: "c".into(), shards: 1, members: Vec::new() };
    let breaker = BreakerOrder { peer: name("n1"), class: None, open: true, for_ms: 1 };
    let logs = LogQuestion { after: None, level: LogLevel::Info, since_ms: None, limit: 1 };
    let monitor = MonitorQuestion {
        watch: 1,
        wish: Wish { one_in: 1, pattern: None, kinds: Vec::new() },
        after: 0,
        is_last: true,
    };
    vec![
        Command::ClusterInit(formation),
        Command::Status,
        Command::Info,
        Command::ReplicaLag,
        Command::Digest { shard: ShardId(0), at: None },
        Command::Precheck { to },
        Command::Strategy(order.clone()),
        Command::StrategyShow,
        Command::StrategyHistory,
        Command::StrategyOf { operation: 1, order },
        Command::Settings,
        Command::Set { name: "a".into(), value: "b".into() },
        Command::Alarms,
        Command::Metrics,
        Command::OperationLog { limit: 1 },
        Command::Logs(logs),
        Command::Breakers,
        Command::Breaker(breaker),
        Command::Stats,
        Command::HotKeys { limit: 1 },
        Command::SlowLog { limit: 1 },
        Command::Monitor(monitor),
        Command::Ping,
        Command::Runs { limit: 1 },
        Command::RunShow { run: 1 },
        Command::Plans,
    ]
}

/// The twin, and what it was asked.
struct Recorder {
    twin: Twin,
    seen: Mutex<Vec<Command>>,
}

impl Recorder {
    fn new() -> Self {
        Self { twin: Twin::new(), seen: Mutex::default() }
    }

    fn was_asked(&self, command: &Command) -> bool {
        self.seen.lock().iter().any(|seen| discriminant(seen) == discriminant(command))
    }
}

impl Caller for Recorder {
    fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Answer, NodeName)>> + Send {
        self.seen.lock().push(command.clone());
        // Of what is only asked here, the twin knows nothing.
        let is_known = !matches!(
            command,
            Command::Metrics
                | Command::OperationLog { .. }
                | Command::Logs(_)
                | Command::Breakers
                | Command::Breaker(_)
                | Command::Stats
                | Command::HotKeys { .. }
                | Command::SlowLog { .. }
                | Command::Monitor(_)
                | Command::Ping
                | Command::Runs { .. }
        );
        let answer = is_known.then(|| self.twin.command(command, node, timeout));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Err(Error::new(Code::NotReady, "this is not answered here")),
            }
        }
    }

    fn call(
        &self,
        ops: Vec<Op>,
        options: &CallOptions,
    ) -> impl Future<Output = Vec<Result<OpAnswer>>> + Send {
        self.twin.call(ops, options)
    }

    fn scan(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
    ) -> impl Future<Output = Result<Page>> + Send {
        self.twin.scan(scan, options)
    }

    fn map(&self) -> impl Future<Output = Result<Arc<Map>>> + Send {
        self.twin.map()
    }
}

/// Carries a line out, as far as the twin can answer it.
async fn typed(line: &str, recorder: &Recorder) {
    let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
    let Cli { globals, verb } = Cli::from_words(words).unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    let call = Call { globals: globals.clone(), typed: globals, deadline, talk: Talk::default() };
    match verb {
        Verb::Admin(command) => drop(admin::run(recorder, command, &call).await),
        Verb::Check(args) => drop(check::run(recorder, args, &call).await),
        Verb::Metrics(verb) => drop(metrics::run(recorder, &verb, &call).await),
        Verb::Config(ConfigVerb::Get { setting }) => {
            drop(settings::get(recorder, setting.as_deref(), &call).await);
        }
        Verb::Config(ConfigVerb::Set { setting, value }) => {
            drop(settings::set(recorder, &setting, &value, &call).await);
        }
        other => panic!("`{line}` is {other:?}"),
    }
}

#[tokio::test]
async fn each_command_is_typed_and_has_a_function_where_a_script_may_want_it() {
    for command in commands() {
        let Door::Typed(line, script) = door(&command) else { continue };
        let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        let parsed = Cli::from_words(words);
        let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
        // Forming a cluster connects to a node that is named, not to the session's.
        if !matches!(parsed.verb, Verb::Admin(Admin::Cluster(Cluster::Init { .. }))) {
            let recorder = Recorder::new();
            if matches!(command, Command::StrategyOf { .. }) {
                typed("strategy prepare full --no-wait", &recorder).await;
            }
            typed(line, &recorder).await;
            assert!(recorder.was_asked(&command), "`{line}`: {:?}", recorder.seen.lock());
        }
        let Ok(source) = script else { continue };
        let recorder = Arc::new(Recorder::new());
        let (_stop, stopped) = watch::channel(false);
        let paper = Arc::new(Paper { answer: true, ..Paper::default() });
        let ended = run(recorder.clone(), book(source), paper, stopped).await;
        assert!(
            recorder.was_asked(&command),
            "{source}: {:?} {:?}",
            ended.result,
            recorder.seen.lock()
        );
    }
}
