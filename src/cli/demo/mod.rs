//! `ppdb demo`: three primaries and a replica on this machine, as separate processes of this program, with
//! a CA and data of their own that are thrown away.
//!
//! `place` is its folder, `nodes` its processes, `story` what `--exit` does and `sale` its part with the switch,
//! `ledger` and `verify` how it judges. Whatever happens, no process is left behind.

mod ledger;
mod load;
mod nodes;
mod place;
mod sale;
mod story;
mod verify;

use super::args::admin::Member;
use super::args::{DemoArgs, Format, Globals, ShellArgs};
use super::runbook::ScriptDoor;
use super::session::{self, Call, Door, Session};
use super::talk::Talk;
use super::{Doors, admin, exit, output};
use crate::client::Client;
use crate::pki::{self, IssueOptions, Subject};
use crate::types::{Class, Code, Error, Result};
use crate::wire::command::{Answer, Command};
use nodes::{Nodes, PORT_BASE};
use place::Place;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

/// Name of the cluster.
const CLUSTER: &str = "demo";
/// The user that the demo makes.
const USER: &str = "admin";
/// How long forming a cluster may take.
const FORM: Duration = Duration::from_secs(20);
/// How long nodes that were formed may take until they serve.
const SERVE: Duration = Duration::from_secs(15);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// One attempt to ask a node.
const ASK: Duration = Duration::from_millis(800);
/// Time for a goodbye to the nodes.
const CLOSE: Duration = Duration::from_millis(500);
/// The whole time of `--exit` with the usual number of keys.
const STORY: Duration = Duration::from_secs(80);
/// Keys a second that are written and read back at the least; more keys get more time.
const KEYS_PER_S: u32 = 1_000;

/// Runs a demo; answers the exit code.
pub async fn run(args: &DemoArgs, globals: &Globals, doors: Doors) -> Result<u8> {
    let started = Instant::now();
    let place = Place::take(args.port_offset, args.keep.as_deref())?;
    let nodes = Arc::new(Mutex::new(Nodes::new(&place, args.port_offset)?));
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Error::new(Code::Internal, format!("signals: {error}")))?;
    let code = tokio::select! {
        biased;
        // The shell inside hears it, too, and would end with a code of its own; who is asked is the demo.
        _ = terminate.recv() => {
            if !args.exit && super::is_terminal() {
                // The line with the prompt is left as it is.
                eprintln!();
            }
            Ok(exit::TERMINATED)
        }
        _ = interrupted(args.exit) => Ok(exit::INTERRUPTED),
        code = act(args, globals, &place, &nodes, doors, started) => code,
    };
    if !nodes.lock().await.stop().await {
        eprintln!("a node did not stop by itself and was killed");
    }
    match &code {
        Ok(exit::YES | exit::NO | exit::INTERRUPTED | exit::TERMINATED) => clear(&place)?,
        _ if !args.exit && code.is_ok() => clear(&place)?,
        _ => eprintln!("the logs of the nodes are in {}", place.dir.display()),
    }
    code
}

/// Ctrl-C ends a story; in a shell it belongs to the shell.
async fn interrupted(story: bool) {
    if story {
        let _ = tokio::signal::ctrl_c().await;
    } else {
        std::future::pending().await
    }
}

fn clear(place: &Place) -> Result<()> {
    match place.keep {
        true => say(&format!("data and certificates stay in {}", place.dir.display())),
        false => say("data and certificates are deleted"),
    }
    place.leave()
}

async fn act(
    args: &DemoArgs,
    globals: &Globals,
    place: &Place,
    shared: &Arc<Mutex<Nodes>>,
    doors: Doors,
    started: Instant,
) -> Result<u8> {
    let mut guard = shared.lock().await;
    let nodes = &mut *guard;
    certificates(&place.dir, nodes)?;
    nodes.start()?;
    let base = Globals {
        output: globals.output,
        endpoints: nodes.endpoints(),
        certs: Some(place.dir.join("certs")),
        user: Some(USER.to_owned()),
        ..Globals::default()
    };
    form(&base, nodes).await?;
    let (client, _) = connect(&base, FORM).await?;
    wait_ready(&client, nodes, SERVE).await?;
    say(&format!(
        "3 primaries and 1 replica serve, {:.1} s after the start",
        started.elapsed().as_secs_f64()
    ));
    if args.exit {
        let code = tell(args, &client, nodes, doors.script, started).await;
        let _ = tokio::time::timeout(CLOSE, client.close()).await;
        return Ok(code(globals.output));
    }
    let _ = tokio::time::timeout(CLOSE, client.close()).await;
    how_to_connect(&base, args);
    drop(guard);
    let attended = super::is_terminal();
    let session = Session::new(base, Door::Shell).attended(attended).with_crew(shared.clone());
    Ok((doors.shell)(session, ShellArgs::default()).await)
}

/// Runs the story; what it answers prints the summary and answers the exit code.
async fn tell(
    args: &DemoArgs,
    client: &Client,
    nodes: &mut Nodes,
    script: ScriptDoor,
    started: Instant,
) -> impl FnOnce(Option<Format>) -> u8 {
    let limit = STORY + Duration::from_secs(u64::from(args.keys / KEYS_PER_S));
    let story = story::run(client, nodes, args.keys, script);
    let summary = match tokio::time::timeout(limit, story).await {
        Ok(summary) => summary,
        Err(_) => {
            let message = format!("it took more than {} s", limit.as_secs());
            let failure = Some(Error::new(Code::DeadlineExceeded, message));
            story::Summary { failure, ..story::Summary::default() }
        }
    };
    if !summary.ok() {
        for node in &nodes.all {
            eprintln!("{}", nodes::tail(&node.log));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    move |format| {
        print_summary(&summary, seconds, output::format_or_default(format));
        if summary.ok() { exit::YES } else { exit::OPERATOR }
    }
}

fn print_summary(summary: &story::Summary, seconds: f64, format: Format) {
    let json = summary.json(seconds);
    let printed = match (format, &json) {
        (Format::Table | Format::Plain, serde_json::Value::Object(fields)) => {
            let lines = fields.iter().map(|(name, value)| format!("{name}\t{value}\n"));
            output::Printed { out: lines.collect::<String>().into_bytes(), err: String::new() }
        }
        _ => output::compact(&json),
    };
    let _ = output::print(&printed);
}

/// A CA, a certificate for each node and one for the user, unless they are there.
fn certificates(dir: &Path, nodes: &Nodes) -> Result<()> {
    let certs = dir.join("certs");
    if !certs.join(pki::CA_CERT_FILE).exists() {
        pki::init(&certs, CLUSTER)?;
    }
    let missing = |name: &str| !certs.join(format!("{name}.crt")).exists();
    for node in &nodes.all {
        if missing(&format!("node-{}", node.name)) {
            pki::issue(&certs, Subject::Node(node.name.clone()), IssueOptions::default())?;
        }
    }
    if missing(&format!("user-{USER}")) {
        pki::issue(&certs, Subject::User(USER.to_owned()), IssueOptions::default())?;
    }
    Ok(())
}

/// Forms the cluster, as `ppdb cluster init` does; repeating it is harmless, so it is repeated until all
/// nodes are there.
async fn form(base: &Globals, nodes: &mut Nodes) -> Result<()> {
    let of = |node: &nodes::Node| Member {
        name: node.name.clone(),
        role: node.role,
        addr: node.addr.clone(),
    };
    let members: Vec<Member> = nodes.all.iter().map(of).collect();
    let until = Instant::now() + FORM;
    loop {
        nodes.check()?;
        let call = call(base, until);
        let error = match admin::init(&members, crate::types::limits::SHARDS_DEFAULT, &call).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let again = matches!(error.class(), Class::Retry | Class::Uncertain);
        if !again || Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn call(base: &Globals, deadline: Instant) -> Call {
    Call { globals: base.clone(), typed: Globals::default(), deadline, talk: Talk::default() }
}

async fn connect(base: &Globals, within: Duration) -> Result<(Client, String)> {
    session::open(base, &call(base, Instant::now() + within)).await
}

/// Waits until every node, as the process that runs it, serves, and every shard has a leader.
async fn wait_ready(client: &Client, nodes: &mut Nodes, within: Duration) -> Result<()> {
    let until = Instant::now() + within;
    loop {
        nodes.check()?;
        let waiting = match not_ready(client, nodes).await {
            None => return Ok(()),
            Some(waiting) => waiting,
        };
        if Instant::now() >= until {
            return Err(Error::new(
                Code::NotReady,
                format!("after {} s: {waiting}", within.as_secs()),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is still waited for.
async fn not_ready(client: &Client, nodes: &Nodes) -> Option<String> {
    for node in &nodes.all {
        match client.command(Command::Info, Some(&node.name), ASK).await {
            Ok((Answer::Info(info), _)) if info.ready && Some(info.pid) == node.pid() => {}
            Ok(_) => return Some(format!("{} is not ready", node.name)),
            Err(error) => return Some(format!("{}: {error}", node.name)),
        }
    }
    match client.command(Command::Status, None, ASK).await {
        Ok((Answer::Status(status), _)) if status.shards_leaderless.is_empty() => None,
        Ok((Answer::Status(status), _)) => {
            Some(format!("{} shards without a leader", status.shards_leaderless.len()))
        }
        Ok(_) => Some("no status".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn how_to_connect(base: &Globals, args: &DemoArgs) {
    let certs = base.certs.clone().unwrap_or_default();
    let first = format!("127.0.0.1:{}", PORT_BASE + args.port_offset);
    eprintln!("connect from elsewhere:");
    eprintln!("  export PPDB_ENDPOINTS={first} PPDB_CERTS={} PPDB_USER={USER}", certs.display());
    eprintln!("  ppdb status");
    eprintln!("`node kill n2` and `node start n2` are this demo's own; Ctrl-D ends it");
}

/// Progress goes to standard error; standard output is for the summary.
fn say(text: &str) {
    eprintln!("[ok] {text}");
}
