//! Would the campaign notice? Each bug is put in force in all nodes of a debug build, and the run over the point it
//! touches must fail.

use super::ground::{Ground, held};
use super::results::Outcome;
use super::table::all;

/// A bug, and the run that has to notice it.
const BUGS: &[(&str, &str)] = &[
    // Copies count as compared, and nobody has looked at them.
    ("digest-gate-skipped", "digest.scan kill target full switch"),
    // Shards change their voters, then the commit is journaled.
    ("journal-after-act", "journal.commit.before stop coordinator full switch"),
    // The way back leads to what the state says, not to what the operation recorded.
    ("origin-inferred", "journal.revert.after kill coordinator full revert"),
    // A copy is dropped because of its shard, whichever copy of it that is by then.
    ("drop-by-shard", "drop.begin kill target full abort"),
];

/// An event of the journal is taken whatever step the operation is at.
const UNCONDITIONAL: &str = "unconditional-step";

fn plant(ground: &Ground, bug: &str) {
    ground.cluster.nodes.iter().for_each(|node| node.plant("bug", bug));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some minutes: run it with `cargo test --test it -- --ignored each_planted_bug_is_noticed`"]
async fn each_planted_bug_is_noticed() {
    for (bug, line) in BUGS {
        let run = all().into_iter().find(|run| run.to_string() == *line).expect("a run");
        let mut ground = Ground::start().await;
        plant(&ground, bug);
        let (_, outcome) = ground.run(&run).await;
        println!("{bug}: {line}: {outcome:?}");
        assert!(matches!(outcome, Outcome::Failed(_)), "{bug} was not noticed");
    }
    let mut ground = Ground::start().await;
    ground.race_a_revert().await.expect("a late step is refused");
    plant(&ground, UNCONDITIONAL);
    let raced = async { ground.race_a_revert().await.map(|()| "nothing".to_owned()) };
    let outcome = held(raced).await;
    println!("{UNCONDITIONAL}: {outcome:?}");
    assert!(matches!(outcome, Outcome::Failed(_)), "{UNCONDITIONAL} was not noticed");
}
