//! The campaign: a switch is struck at every failpoint, in every way that can be, on every node that passes it,
//! in both directions, under load. After each run everything that is promised of a switch is looked at.
//!
//! The whole takes an hour or two and is made in parts: `PPDB_CAMPAIGN_RUNS` says how many runs a start makes, a
//! file keeps what became of each (`results`), and the next start goes on. `tests/it/README.md` has the commands.

mod bugs;
mod checks;
mod course;
mod ground;
mod hooks;
mod results;
mod strike;
mod table;
mod watch;

use ground::Ground;
use results::{Outcome, Results};
use std::time::{Duration, Instant};
use table::Run;

/// Lines of each node's log that are printed after a failure.
const LOG_LINES: usize = 120;

/// Makes runs one after the other; a failure costs the cluster, and the next run gets another one.
async fn make(mut left: Vec<Run>, mut told: impl FnMut(&Run, bool, Duration, &Outcome)) -> usize {
    let mut ground = Ground::start().await;
    let mut failed = 0;
    while let Some(run) = table::next(&mut left, ground.holds()) {
        let began = Instant::now();
        let (hit, outcome) = ground.run(&run).await;
        told(&run, hit, began.elapsed(), &outcome);
        if let Outcome::Failed(_) = outcome {
            failed += 1;
            ground.cluster.show_logs(LOG_LINES);
            drop(ground);
            ground = Ground::start().await;
        }
    }
    ground.verify_kept().await;
    failed
}

fn print(run: &Run, hit: bool, took: Duration, outcome: &Outcome) {
    let hit = if hit { "hit" } else { "NOT HIT" };
    println!("{run}: {hit}, {:.1} s: {outcome:?}", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_is_struck_at_a_dozen_points() {
    let results = std::env::var_os("PPDB_CAMPAIGN_RESULTS").map(|_| Results::open());
    let failed = make(table::sample(), |run, hit, took, outcome| {
        print(run, hit, took, outcome);
        results.iter().for_each(|results| results.add(run, hit, took, outcome));
    })
    .await;
    assert_eq!(failed, 0, "runs failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "an hour or two, in parts: see tests/it/README.md"]
async fn campaign_of_every_point() {
    let results = Results::open();
    let done = results.done();
    let named = std::env::var("PPDB_CAMPAIGN_ONLY").unwrap_or_default();
    let mut left = table::all();
    left.retain(|run| !done.contains(&run.to_string()) && run.to_string().contains(&named));
    let runs = std::env::var("PPDB_CAMPAIGN_RUNS").ok().and_then(|text| text.parse().ok());
    // Spread over the table, so that a part of it says something about all of it.
    let left = spread(left, runs.unwrap_or(usize::MAX));
    let failed = make(left, |run, hit, took, outcome| {
        print(run, hit, took, outcome);
        results.add(run, hit, took, outcome);
    })
    .await;
    println!("{}\n{}", results.path().display(), results.table(&table::all()));
    assert_eq!(failed, 0, "runs failed");
}

/// So many of them, evenly spread.
fn spread(runs: Vec<Run>, wanted: usize) -> Vec<Run> {
    let all = runs.len();
    let wanted = wanted.min(all);
    (0..wanted).map(|i| runs[i * all / wanted]).collect()
}
