//! The command line: one command tree, one session, one contract of answers.
//!
//! `args` is the tree, `session` carries a command out, `value` is what it answers, `output` prints it.
//! The shell and the runbooks are other doors to the same; they stand above this module and are handed in.

pub mod admin;
pub mod args;
pub mod bench;
pub mod big;
pub mod breakers;
pub mod caller;
pub mod care;
pub mod cert;
pub mod check;
pub mod config;
pub mod contexts;
pub mod data;
pub mod demo;
pub mod doctor;
pub mod everywhere;
pub mod exit;
pub mod explain;
pub mod hot;
pub mod latency;
pub mod live;
pub mod logs;
pub mod manual;
pub mod metrics;
pub mod monitor;
pub mod nodes;
pub mod oplog;
pub mod output;
pub mod preview;
pub mod runbook;
pub mod runs;
pub mod serve;
pub mod session;
pub mod settings;
pub mod slowlog;
pub mod stats;
pub mod strategy;
pub mod sweep;
pub mod talk;
#[cfg(test)]
pub(crate) mod testing;
pub mod top;
pub mod value;
pub mod verify;
pub mod version;

use crate::client::CallOptions;
use crate::types::{Code, Error, Result, limits};
use args::{Cli, ConfigVerb, Globals, ShellArgs, Verb};
use data::Stand;
use output::format_or_default;
use runbook::ScriptDoor;
use session::{Call, Door, Session};
use std::future::Future;
use std::io::IsTerminal;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use talk::{Show, Talk};
use value::Done;

/// Opens a shell on a session and answers the exit code. The session may be none the wiser: it connects
/// when the first line needs it.
pub type ShellDoor = fn(Session, ShellArgs) -> Pin<Box<dyn Future<Output = u8>>>;

/// The doors that stand above this module.
#[derive(Clone, Copy)]
pub struct Doors {
    /// Opens a shell.
    pub shell: ShellDoor,
    /// Runs runbooks.
    pub script: ScriptDoor,
}

/// How long threads that still wait for input may hold up the end.
const SHUTDOWN: Duration = Duration::from_millis(200);

/// Parses the command line, carries it out and answers the exit code.
pub fn main(doors: Doors) -> ExitCode {
    let cli = match Cli::from_argv(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell if not even this can be written.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let output = cli.globals.output;
    let code = start(cli, doors).unwrap_or_else(|error| {
        let done: Done = Err(error.into());
        report(&done, format_or_default(output), 0.0)
    });
    ExitCode::from(code)
}

fn start(cli: Cli, doors: Doors) -> Result<u8> {
    if let Verb::Serve(args) = &cli.verb {
        serve::run(args, &cli.globals)?;
        return Ok(exit::YES);
    }
    // What a node is set to is read from the environment by itself, with its origins.
    let env = match &cli.verb {
        Verb::Config(ConfigVerb::Check(_) | ConfigVerb::Show { .. }) => Globals::default(),
        _ => Globals::from_env(|name| std::env::var_os(name))?,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = runtime(cores)?;
    let code = runtime.block_on(async {
        match cli.verb {
            Verb::Shell(args) => {
                let base = contexts::here(env.overlaid_by(&cli.globals))?;
                // Whoever types lines can be asked; `-e` and a pipe are scripts.
                let attended = args.execute.is_none() && is_terminal();
                Ok((doors.shell)(Session::new(base, Door::Shell).attended(attended), args).await)
            }
            Verb::Bench(options) => {
                load(&contexts::here(env.overlaid_by(&cli.globals))?, &options).await
            }
            Verb::Run(args) => {
                let all = env.overlaid_by(&cli.globals);
                Ok(runbook::start(doors.script, &args, &all, &cli.globals, is_terminal()).await)
            }
            Verb::Demo(args) => demo::run(&args, &cli.globals, doors).await,
            verb => Ok(once(env, Cli { verb, globals: cli.globals }).await),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    code
}

/// Whether a person sits in front: reads what is said, and types.
pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The runtime of a program.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::Internal, format!("runtime: {error}")))
}

/// One command; Ctrl-C ends it.
async fn once(env: Globals, cli: Cli) -> u8 {
    let format = format_or_default(cli.globals.output);
    let started = Instant::now();
    let mut session = Session::new(env, Door::CommandLine).attended(is_terminal());
    let stand = Stand::default();
    let ends_itself = live::hears_interrupt(&cli.verb);
    let done = {
        let mut running = std::pin::pin!(session.run(cli, &stand));
        tokio::select! {
            done = &mut running => Some(done),
            _ = tokio::signal::ctrl_c() => live::ended_after_interrupt(ends_itself, running).await,
        }
    };
    let Some(done) = done else {
        eprintln!("{}", session.left_early());
        return exit::INTERRUPTED;
    };
    session.close().await;
    report(&done, format, millis(started))
}

/// `bench`: the report is an object of its own, and a person's table is the report's.
async fn load(globals: &Globals, options: &bench::BenchOptions) -> Result<u8> {
    if let Some(why) = globals.read_only(Instant::now()) {
        return Err(Error::new(Code::ReadOnly, why));
    }
    let timeout = globals.timeout.unwrap_or(limits::DEADLINE_DEFAULT);
    let call = Call {
        globals: globals.clone(),
        typed: Globals::default(),
        deadline: Instant::now() + timeout,
        talk: Talk::new(Show::to_person()),
    };
    let requests = CallOptions { timeout, ..call.options(false)? };
    let running = bench::run(session::client_options(globals)?, &requests, options, &call.talk);
    let report = tokio::select! {
        report = running => report?,
        _ = tokio::signal::ctrl_c() => {
            call.talk.close_line();
            return Ok(exit::INTERRUPTED);
        }
    };
    let printed = match format_or_default(globals.output) {
        args::Format::Table | args::Format::Plain => {
            output::Printed { out: report.to_string().into_bytes(), err: String::new() }
        }
        _ => {
            let json = serde_json::to_value(&report);
            output::compact(&json.map_err(|e| Error::new(Code::Internal, e.to_string()))?)
        }
    };
    let _ = output::print(&printed);
    Ok(if report.ok { exit::YES } else { exit::NO })
}

/// Prints how a command ended and answers its exit code.
fn report(done: &Done, format: args::Format, ms: f64) -> u8 {
    // A reader that went away, as `head` does, is no failure of the command.
    let _ = output::print(&output::render(done, format, ms));
    exit::of(done)
}

/// Milliseconds since then.
pub fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}
