//! What was found: the switch without load, the rates, and run by run what each step came to. Data, and what
//! follows from it by plain arithmetic; nothing is judged here.

use crate::window::Window;

/// What a switch cost, beside what its plan had predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes that are copied, by the plan.
    pub predicted_bytes: u64,
    /// By the journal.
    pub actual_bytes: u64,
    /// From the start until the new strategy holds everywhere, without the time it is held, by the plan.
    pub predicted_ms: u64,
    /// By the journal.
    pub actual_ms: u64,
    /// The time from prepared to the commit point, which neither of them counts.
    pub held_ms: u64,
}

impl Cost {
    /// Actual by predicted bytes; none where nothing was predicted and nothing copied.
    pub fn bytes_ratio(&self) -> Option<f64> {
        let copies = self.predicted_bytes > 0 || self.actual_bytes > 0;
        copies.then(|| self.actual_bytes as f64 / self.predicted_bytes as f64)
    }

    /// Actual by predicted time.
    pub fn time_ratio(&self) -> f64 {
        self.actual_ms as f64 / self.predicted_ms as f64
    }
}

/// One step of a run.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// Seconds from the order until it was done.
    pub took_s: f64,
    /// What clients saw, half a second more included.
    pub window: Window,
    /// If it was a switch.
    pub cost: Option<Cost>,
}

/// One time through the sequence.
#[derive(Clone, Debug)]
pub struct Run {
    /// What clients saw before.
    pub base: Window,
    /// And from the first plan to the last step, without a pause.
    pub whole: Window,
    /// Step by step.
    pub steps: Vec<Step>,
    /// Requests of the whole run that failed, the warm-up included.
    pub failed: usize,
    /// Why the first one did.
    pub failure: Option<String>,
}

impl Run {
    /// What its switches cost.
    pub fn costs(&self) -> impl Iterator<Item = Cost> {
        self.steps.iter().filter_map(|step| step.cost)
    }
}

/// The switch to full replication without load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unloaded {
    /// Bytes of the table files, for each copy that is made.
    pub bytes: u64,
    /// Seconds of the switch, from the order until it holds.
    pub switch_s: f64,
    /// Seconds of a copy with fsync of the same files by hand.
    pub copy_s: f64,
    /// Beside its plan.
    pub cost: Cost,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Keys.
    pub keys: usize,
    /// Bytes of all values.
    pub bytes: u64,
    /// Without load.
    pub unloaded: Unloaded,
    /// Requests a second at most, sharded.
    pub sharded_rate: f64,
    /// And in full replication.
    pub full_rate: f64,
    /// Requests a second of the load.
    pub rate: f64,
    /// Each time through the sequence.
    pub runs: Vec<Run>,
}

impl Findings {
    /// Requests that failed, in all.
    pub fn failed(&self) -> usize {
        self.runs.iter().map(|run| run.failed).sum()
    }
}
