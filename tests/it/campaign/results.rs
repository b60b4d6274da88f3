//! What became of the runs: a line for each in a file, so that a campaign that was stopped goes on, and a table
//! of all of them at the end.

use super::table::Run;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything held, and the operation ended so.
    Held(String),
    /// Something did not.
    Failed(String),
}

/// The file. A line is `held|failed TAB run TAB hit|missed TAB milliseconds TAB text`.
pub struct Results {
    path: PathBuf,
}

impl Results {
    /// The file that `PPDB_CAMPAIGN_RESULTS` names, else one beside the build products.
    pub fn open() -> Self {
        let beside = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("campaign.tsv");
        let path = std::env::var_os("PPDB_CAMPAIGN_RESULTS").map_or_else(beside, PathBuf::from);
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(fields).filter(|fields| fields.len() == 5).collect()
    }

    /// Runs that held; the others are made again.
    pub fn done(&self) -> BTreeSet<String> {
        let held = self.lines().into_iter().filter(|fields| fields[0] == "held");
        held.map(|fields| fields[1].clone()).collect()
    }

    /// Appends how a run ended.
    pub fn add(&self, run: &Run, hit: bool, took: Duration, outcome: &Outcome) {
        let (word, text) = match outcome {
            Outcome::Held(text) => ("held", text),
            Outcome::Failed(text) => ("failed", text),
        };
        let hit = if hit { "hit" } else { "missed" };
        let text = text.replace(['\n', '\t'], " ");
        let text: String = text.chars().take(400).collect();
        let line = format!("{word}\t{run}\t{hit}\t{}\t{text}\n", took.as_millis());
        let file = File::options().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
    }

    /// The last word on every run that was made: runs, hits, failures, for each action, and what failed.
    pub fn table(&self, all: &[Run]) -> String {
        let last: BTreeMap<String, Vec<String>> =
            self.lines().into_iter().map(|fields| (fields[1].clone(), fields)).collect();
        let mut out = String::from(
            "| action | runs | made | hit | held | failed |\n|---|---|---|---|---|---|\n",
        );
        for action in ["kill", "stop", "error", ""] {
            let of_action = |run: &&Run| action.is_empty() || run.action.word() == action;
            let runs: Vec<&Run> = all.iter().filter(of_action).collect();
            let made: Vec<&Vec<String>> =
                runs.iter().filter_map(|run| last.get(&run.to_string())).collect();
            let count = |field: usize, word: &str| made.iter().filter(|f| f[field] == word).count();
            let name = if action.is_empty() { "all" } else { action };
            out += &format!(
                "| {name} | {} | {} | {} | {} | {} |\n",
                runs.len(),
                made.len(),
                count(2, "hit"),
                count(0, "held"),
                count(0, "failed")
            );
        }
        let known: BTreeSet<String> = all.iter().map(Run::to_string).collect();
        for fields in last.values().filter(|f| f[0] == "failed" && known.contains(&f[1])) {
            out += &format!("failed: {}: {}\n", fields[1], fields[4]);
        }
        out
    }
}
