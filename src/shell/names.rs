//! Names for completion, as far as they can be told at once: from what the shell has seen, from the file system,
//! and for keys, plans, operations and records by one question to the cluster that is given up quickly.
//!
//! The editor's thread asks and waits for the answer, so every question has a short time and a small page. Keys are
//! asked for with reads that any copy answers, which costs the cluster next to nothing.

use super::complete::{Found, Kind, Names};
use super::heard::Shared;
use crate::cli::{contexts, runs};
use crate::client::{CallOptions, Client, Level, ScanOptions};
use crate::wire::command::{Answer, Command};
use parking_lot::Mutex;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::runtime::Handle;

/// Keys in the one page that is asked for.
pub const KEYS_ASKED: u32 = 20;
/// How long a page of keys may take.
const KEYS_TIMEOUT: Duration = Duration::from_millis(100);
/// How long other questions may take.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Records of the operation log, and of runs, that are asked for.
const RECORDS_ASKED: u32 = 50;
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1_000;

/// The names that a shell can tell.
pub struct Live {
    /// What the shell has seen.
    pub shared: Arc<Mutex<Shared>>,
    /// The runtime that drives the client.
    pub handle: Handle,
    /// `PPDB_KEY_COMPLETION=off`: keys are not offered.
    pub keys: bool,
}

impl Names for Live {
    fn names(&self, kind: Kind, partial: &str) -> Found {
        let seen = |words: Vec<String>| Found { words, more: false };
        match kind {
            Kind::Node => seen(self.shared.lock().nodes.clone()),
            Kind::Shard => {
                let shards = self.shared.lock().shards;
                seen((0..shards).map(|number| format!("s{number}")).collect())
            }
            Kind::Operation => seen(self.operations()),
            Kind::Plan => seen(self.plans()),
            Kind::Run => seen(self.runs()),
            Kind::Context => {
                let contexts = contexts::file::read().map(|all| all.contexts);
                seen(contexts.unwrap_or_default().into_keys().collect())
            }
            Kind::Record => seen(self.records()),
            Kind::Key => self.keys(partial),
            Kind::File => files(partial, true),
            Kind::Folder => files(partial, false),
        }
    }
}

impl Live {
    /// Keys that this shell has seen, and one page of those that are there.
    fn keys(&self, partial: &str) -> Found {
        let off = !self.keys || self.shared.lock().seen.protected;
        if off {
            return Found::default();
        }
        let mut found =
            Found { words: self.shared.lock().keys.starting_with(partial), more: false };
        let prefix = partial.to_owned().into();
        let scan = ScanOptions { prefix, limit: KEYS_ASKED, keys_only: true, cursor: None };
        let options = CallOptions {
            level: Some(Level::Local { max_staleness_ms: None }),
            timeout: KEYS_TIMEOUT,
            retry: false,
            ..CallOptions::default()
        };
        let page =
            self.ask(KEYS_TIMEOUT, |client| async move { client.scan(&scan, &options).await.ok() });
        // Without an answer nobody knows what else there is.
        found.more = page.as_ref().is_none_or(|page| page.cursor.is_some());
        let keys = page.map(|page| page.entries).unwrap_or_default();
        let keys = keys.into_iter().filter_map(|(key, _)| String::from_utf8(key.into()).ok());
        found.words.extend(keys);
        found
    }

    fn operations(&self) -> Vec<String> {
        match self.answer(Command::StrategyHistory) {
            Some(Answer::History(all)) => all.iter().map(|op| op.id.to_string()).collect(),
            _ => Vec::new(),
        }
    }

    /// Plans that may still start something.
    fn plans(&self) -> Vec<String> {
        let Some(Answer::Plans(all)) = self.answer(Command::Plans) else { return Vec::new() };
        let usable = all.iter().filter(|plan| plan.outdated.is_none());
        usable.map(|plan| plan.id.to_string()).collect()
    }

    fn runs(&self) -> Vec<String> {
        match self.answer(Command::Runs { limit: RECORDS_ASKED }) {
            Some(Answer::Runs(all)) => all.iter().map(|run| runs::name(run.number)).collect(),
            _ => Vec::new(),
        }
    }

    fn records(&self) -> Vec<String> {
        match self.answer(Command::OperationLog { limit: RECORDS_ASKED }) {
            Some(Answer::OperationLog(records)) => {
                records.iter().map(|record| record.number.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What some node answers at once.
    fn answer(&self, question: Command) -> Option<Answer> {
        self.ask(ASK_TIMEOUT, |client| async move {
            client.command(question, None, ASK_TIMEOUT).await.ok().map(|(answer, _)| answer)
        })
    }

    /// One question, from the editor's thread to the runtime and back. It is given up when its time is over, also
    /// when the runtime is.
    fn ask<T: Send + 'static, F: Future<Output = Option<T>> + Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(Client) -> F,
    ) -> Option<T> {
        let client = self.shared.lock().client.clone()?;
        let (tell, told) = sync_channel(1);
        let work = question(client);
        let task = self.handle.spawn(async move {
            // Nobody listens any more if it took too long.
            let _ = tell.try_send(work.await);
        });
        let answer = told.recv_timeout(timeout).ok().flatten();
        task.abort();
        answer
    }
}

/// What a path that starts so may become. Hidden entries are offered to whoever types the dot.
fn files(partial: &str, with_files: bool) -> Found {
    let (folder, start) = partial.rsplit_once('/').map_or(("", partial), |(f, s)| (f, s));
    let at = match (folder, partial.starts_with('/')) {
        ("", true) => Path::new("/"),
        ("", false) => Path::new("."),
        _ => Path::new(folder),
    };
    let prefix = &partial[..partial.len() - start.len()];
    let entries = std::fs::read_dir(at).into_iter().flatten().take(ENTRIES_MAX + 1).flatten();
    let mut found = Found::default();
    for (number, entry) in entries.enumerate() {
        found.more |= number == ENTRIES_MAX;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let hidden = name.starts_with('.') && !start.starts_with('.');
        if hidden || !name.starts_with(start) {
            continue;
        }
        // A link to a folder is one for whoever types.
        match std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
            true => found.words.push(format!("{prefix}{name}/")),
            false if with_files => found.words.push(format!("{prefix}{name}")),
            false => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_with_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        for name in ["a.rhai", "sale.rhai", ".hidden", "sub/x.rhai"] {
            std::fs::write(path(name), "").unwrap();
        }
        let root = folder.path().to_str().unwrap().to_owned();
        let under = |partial: &str, with_files| {
            let mut words = files(&format!("{root}/{partial}"), with_files).words;
            words.sort();
            words.into_iter().map(|w| w[root.len() + 1..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(under("", true), ["a.rhai", "sale.rhai", "sub/"]);
        assert_eq!(under("s", true), ["sale.rhai", "sub/"]);
        assert_eq!(under("s", false), ["sub/"]);
        assert_eq!(under("sub/", true), ["sub/x.rhai"]);
        assert_eq!(under(".h", true), [".hidden"]);
        assert!(files("/nowhere/at/all/", true).words.is_empty());
    }

    #[test]
    fn a_question_without_a_cluster_or_without_an_answer_is_given_up() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let live = Live { shared: shared.clone(), handle: runtime.handle().clone(), keys: true };
        shared.lock().keys.note("user:1");
        let found = live.names(Kind::Key, "us");
        assert_eq!((found.words, found.more), (vec!["user:1".to_owned()], true));
        for kind in [Kind::Record, Kind::Plan, Kind::Run, Kind::Operation] {
            assert!(live.names(kind, "").words.is_empty(), "{kind:?}");
        }
        let off = Live { keys: false, ..live };
        assert_eq!(off.names(Kind::Key, "us"), Found::default());
        shared.lock().seen.protected = true;
        let protected = Live { keys: true, ..off };
        assert_eq!(protected.names(Kind::Key, "us"), Found::default());
    }
}
