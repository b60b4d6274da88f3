//! What the editor's thread, the background and the loop of the shell share, and the background that keeps
//! asking how the cluster is. A prompt never waits for a node: it shows what was heard last.

use super::keys::SeenKeys;
use super::notice::{About, Notice, notices};
use super::prompt::Seen;
use super::seen::{Heard, Snapshot};
use crate::cli::contexts::Color;
use crate::cli::session::Session;
use crate::cli::value::Done;
use crate::client::Client;
use crate::types::{Code, NodeName};
use crate::wire::command::{Answer, Command};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// How often the background asks how the cluster is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for the answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Notices that wait for the end of a command; the oldest makes room.
const NOTICES_MAX: usize = 20;

/// Shared state of one shell.
#[derive(Default)]
pub struct Shared {
    /// For questions of the background and of completion.
    pub client: Option<Client>,
    /// For the prompt.
    pub seen: Seen,
    /// Names of the members.
    pub nodes: Vec<String>,
    /// Number of shards.
    pub shards: usize,
    /// Keys typed and answered.
    pub keys: SeenKeys,
    /// A command about the change of strategy runs, and tells what happens to it.
    pub told_elsewhere: bool,
    /// In the Rhai mode: names that the language knows.
    pub script_names: Option<Vec<String>>,
    /// A line is being read, so that a notice may be drawn above it.
    pub reading: bool,
    /// Draws above the line.
    pub printer: Option<SyncSender<String>>,
    waiting: VecDeque<Notice>,
    /// How the cluster was when it answered last.
    last: Option<Snapshot>,
    /// Looks that were begun, and the one that was taken over last: an older answer never replaces a newer one.
    begun: u64,
    taken: u64,
}

impl Shared {
    /// Takes over what was heard; the changes become notices.
    fn take(&mut self, number: u64, heard: Heard, node: Option<NodeName>) {
        if number <= self.taken {
            return;
        }
        self.taken = number;
        let found = notices(&self.seen.heard, &heard);
        let told = self.told_elsewhere;
        self.waiting.extend(found.into_iter().filter(|n| !told || n.about != About::Operation));
        while self.waiting.len() > NOTICES_MAX {
            self.waiting.pop_front();
        }
        // The node that answered last may be the one that is gone.
        let gone = |node| heard.snapshot().is_none_or(|snapshot| snapshot.down.contains(node));
        if self.seen.node.as_ref().is_none_or(gone) {
            self.seen.node = node;
        }
        self.last = heard.snapshot().cloned().or(self.last.take());
        self.seen.heard = heard;
        self.deliver();
    }

    /// Shows what waits above the line that is being typed, if one is.
    pub fn deliver(&mut self) {
        let Some(printer) = self.printer.as_ref().filter(|_| self.reading) else { return };
        while let Some(notice) = self.waiting.front() {
            if printer.try_send(shown(notice)).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// What waits, for whoever prints between two lines.
    pub fn waiting(&mut self) -> Vec<String> {
        self.waiting.drain(..).map(|notice| shown(&notice)).collect()
    }

    /// The session is somewhere else: nothing that is on its way is about here.
    pub fn moved(&mut self) {
        self.taken = self.begun;
        self.waiting.clear();
        self.last = None;
        self.seen.heard = Heard::NotYet;
        self.keys = SeenKeys::default();
    }

    /// Takes over what the session learned.
    pub fn remember(&mut self, session: &Session) {
        self.client = session.connected().cloned();
        self.seen.cluster = session.cluster().map(str::to_owned);
        let context = session.context();
        self.seen.context = context.map(|context| context.name.clone());
        self.seen.color = context.and_then(|context| context.color).map(Color::sgr);
        self.seen.protected = context.is_some_and(|context| context.protected);
        self.seen.read_only = !session.writes_allowed();
        if let Some(node) = session.last_node() {
            self.seen.node = Some(node.clone());
        }
        if let Some(map) = session.map().filter(|map| !map.nodes.is_empty()) {
            self.nodes = map.nodes.iter().map(|node| node.name.to_string()).collect();
            self.shards = map.shards.len();
        }
    }

    /// Takes over names in a command that was carried out and in its answer.
    pub fn note(&mut self, typed: &[OsString], done: &Done) {
        self.keys.note_all(typed, done);
    }
}

fn shown(notice: &Notice) -> String {
    format!("* {}\n", notice.text)
}

/// Keeps asking how the cluster is, while there is a client.
pub async fn watch(shared: Arc<Mutex<Shared>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        look(&shared).await;
    }
}

/// Asks once.
pub async fn look(shared: &Mutex<Shared>) {
    let (client, number, before) = {
        let mut shared = shared.lock();
        let Some(client) = shared.client.clone() else { return };
        shared.begun += 1;
        (client, shared.begun, shared.last.clone())
    };
    let (heard, node) = ask(&client, before.as_ref()).await;
    shared.lock().take(number, heard, node);
}

async fn ask(client: &Client, before: Option<&Snapshot>) -> (Heard, Option<NodeName>) {
    let status = client.command(Command::Status, None, LOOK_TIMEOUT);
    let view = client.command(Command::StrategyShow, None, LOOK_TIMEOUT);
    // The coordinator may be the one that is gone; the rest does not wait for it.
    let (status, view) = tokio::join!(status, view);
    let view = match view {
        Ok((Answer::StrategyView(view), _)) => Some(*view),
        _ => None,
    };
    match status {
        Ok((Answer::Status(status), node)) => {
            let snapshot = Snapshot::of(&status, view.as_ref(), before);
            (Heard::Answer(Box::new(snapshot)), Some(node))
        }
        Err(error) if matches!(error.code, Code::Unreachable | Code::DeadlineExceeded) => {
            (Heard::Silence, None)
        }
        _ => (Heard::NotReady, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::testing::{healthy, node, running};
    use super::*;
    use crate::wire::operation::Phase;

    fn heard(snapshot: Snapshot) -> Heard {
        Heard::Answer(Box::new(snapshot))
    }

    fn with(phase: Phase) -> Heard {
        heard(Snapshot { operation: Some(running(phase)), ..healthy() })
    }

    #[test]
    fn an_older_answer_never_replaces_a_newer_one() {
        let mut shared = Shared::default();
        shared.take(2, heard(Snapshot { epoch: 42, ..healthy() }), Some(node("n1")));
        shared.take(1, heard(healthy()), Some(node("n2")));
        assert_eq!(shared.seen.heard.snapshot().unwrap().epoch, 42);
        assert_eq!(shared.seen.node, Some(node("n1")));
        shared.begun = 3;
        shared.moved();
        shared.take(3, heard(healthy()), None);
        assert_eq!(shared.seen.heard, Heard::NotYet, "it was asked elsewhere");
    }

    #[test]
    fn the_prompt_names_no_node_that_is_gone() {
        let mut shared = Shared::default();
        shared.take(1, heard(healthy()), Some(node("n1")));
        let down = Snapshot { down: [node("n1")].into(), ..healthy() };
        shared.take(2, heard(down), Some(node("n2")));
        assert_eq!(shared.seen.node, Some(node("n2")));
    }

    #[test]
    fn notices_wait_while_nothing_is_read_and_come_above_the_line_while_something_is() {
        let mut shared = Shared::default();
        let (printer, printed) = std::sync::mpsc::sync_channel(1);
        shared.printer = Some(printer);
        shared.take(1, with(Phase::Copying), None);
        shared.take(2, with(Phase::Soaking), None);
        assert!(printed.try_recv().is_err(), "a command may be printing");
        shared.reading = true;
        shared.deliver();
        assert!(printed.try_recv().unwrap().contains("is settled"));
        // What does not fit waits, and is not lost.
        let down = |names: &[&str]| {
            let down = names.iter().map(|name| node(name)).collect();
            heard(Snapshot { down, operation: Some(running(Phase::Soaking)), ..healthy() })
        };
        shared.take(3, down(&["n1", "n2"]), None);
        assert!(printed.try_recv().unwrap().contains("n1 is down"));
        assert_eq!(shared.waiting(), ["* n2 is down\n"]);
    }

    #[test]
    fn what_a_command_tells_itself_is_not_told_again() {
        let mut shared = Shared::default();
        shared.take(1, with(Phase::Copying), None);
        shared.told_elsewhere = true;
        shared.take(2, with(Phase::Soaking), None);
        assert!(shared.waiting().is_empty());
        shared.told_elsewhere = false;
        shared.take(3, with(Phase::Reverted), None);
        assert_eq!(shared.waiting().len(), 1);
    }

    #[test]
    fn more_than_a_few_notices_are_not_kept() {
        let mut shared = Shared::default();
        shared.take(1, heard(healthy()), None);
        for number in 1..=NOTICES_MAX as u64 {
            let down = Snapshot { down: [node("n1")].into(), ..healthy() };
            shared.take(2 * number, heard(down), None);
            shared.take(2 * number + 1, heard(healthy()), None);
        }
        assert_eq!(shared.waiting().len(), NOTICES_MAX);
    }
}
