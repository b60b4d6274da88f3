//! Switches in both directions while the processes that carry them out are killed: the coordinator, an owner,
//! a target, the replica, at random moments. One strategy everywhere within seconds, nothing lost, no
//! request failed that was safely repeated, every hot key linearizable, copies equal, nothing left behind.

use crate::durability::{Ledger, Load, verify};
use crate::harness::{Cluster, Shape, one, set, wait_until, within};
use crate::linearizability::{CLIENTS, check_all, record};
use ppdb::client::Client;
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::operation::{Phase, StrategyOrder};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long one strategy may take to be everywhere once all processes are up.
const AGREE_WITHIN: Duration = Duration::from_secs(10);
/// How long a switch may take with kills in it.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);
/// Deadline of each request of the load.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
const VALUE_BYTES: usize = 16 << 10;

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Role {
    Coordinator,
    Owner,
    Target,
    Replica,
}

const ROLES: [Role; 4] = [Role::Coordinator, Role::Owner, Role::Target, Role::Replica];

/// How much is tried.
struct Campaign {
    data_bytes: usize,
    /// Switches in each direction.
    switches: usize,
    /// Kills in each switch.
    kills: usize,
    seed: u64,
}

/// Bytes that only have to be copied, in values of so many.
pub async fn fill(client: &Client, bytes: usize, value_bytes: usize) {
    const WRITERS: usize = 8;
    let values = bytes / value_bytes;
    let writing = (0..WRITERS).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(writer as u64);
            let mut value = vec![0; value_bytes];
            for i in (writer..values).step_by(WRITERS) {
                rng.fill_bytes(&mut value);
                one(&client, set(format!("bulk:{i}"), value.clone()), &within(LOAD_DEADLINE))
                    .await
                    .expect("a write");
            }
        })
    });
    for writer in writing.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
}

/// The node that plays a role now.
async fn who(cluster: &Cluster, client: &Client, role: Role, rng: &mut StdRng) -> String {
    let leader = async || match client.command(Command::Status, None, Duration::from_secs(2)).await
    {
        Ok((Answer::Status(status), _)) => status.metadata_leader,
        _ => None,
    };
    let coordinator =
        wait_until("coordinator", Duration::from_secs(20), leader, |found| found.is_some()).await;
    let coordinator = coordinator.expect("just checked").to_string();
    let primaries: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.name.to_string())
        .filter(|name| name.starts_with('n') && *name != coordinator)
        .collect();
    match role {
        Role::Coordinator => coordinator,
        // Every primary owns shards and is a target for those of the others.
        Role::Owner | Role::Target => primaries[rng.random_range(0..primaries.len())].clone(),
        Role::Replica => "r1".to_owned(),
    }
}

/// Waits until every node, asked for itself, says the same.
pub async fn agree(cluster: &Cluster, client: &Client, strategy: Strategy) {
    for node in &cluster.nodes {
        let ask = async || match client
            .command(Command::Status, Some(&node.name), Duration::from_secs(2))
            .await
        {
            Ok((Answer::Status(status), _)) => Some(status.strategy),
            _ => None,
        };
        wait_until("one strategy", AGREE_WITHIN, ask, |found| *found == Some(strategy)).await;
    }
}

async fn run(campaign: Campaign) {
    let mut rng = StdRng::seed_from_u64(campaign.seed);
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    fill(&client, campaign.data_bytes, VALUE_BYTES).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        clients.push(cluster.client().await);
    }
    let ended = Arc::clone(&over);
    let recorder = tokio::spawn(record(clients, Instant::now(), Duration::from_secs(3_600), {
        move |_| ended.load(Ordering::Relaxed)
    }));

    let (mut ledger, mut kills) = (Ledger::default(), 0);
    for round in 0..campaign.switches * 2 {
        let to = if round % 2 == 0 { Strategy::Full } else { Strategy::Sharded };
        let load = Load::patient(&client, &format!("kill{round}"), LOAD_DEADLINE);
        load.until(50).await;
        let started = Instant::now();
        cluster.order(&client, StrategyOrder::switch(to)).await.expect("the switch begins");
        for kill in 0..campaign.kills {
            let role = ROLES[(round * campaign.kills + kill) % ROLES.len()];
            let name = who(&cluster, &client, role, &mut rng).await;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
            cluster.node(&name).kill();
            kills += 1;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..900))).await;
            cluster.node(&name).start();
        }
        // An order that was journaled is carried out, unless a check before the commit point aborted it.
        let view = cluster.wait_phase(&client, &[Phase::Soaking], SETTLE_WITHIN).await;
        assert_eq!(view.strategy, to);
        agree(&cluster, &client, to).await;
        let took = started.elapsed();
        cluster.wait_ready().await;
        load.until(50).await;
        let part = load.end().await;
        assert!(
            part.failed.is_empty(),
            "{} requests failed, such as {:?}",
            part.failed.len(),
            part.failed.first()
        );
        verify(&client, &part, &within(LOAD_DEADLINE), &format!("switch {round}")).await;
        println!(
            "switch {round} to {to:?}: {took:?}, {} writes acknowledged meanwhile",
            part.acked.len()
        );
        ledger.add(part);
        // The way back is closed, so that nothing is kept for it.
        cluster.order(&client, StrategyOrder::Finalize).await.expect("it can be finalized");
        cluster.wait_phase(&client, &[Phase::Finalized], SETTLE_WITHIN).await;
    }
    over.store(true, Ordering::Relaxed);
    let phases = recorder.await.expect("the recording");
    cluster.wait_ready().await;
    verify(&client, &ledger, &within(LOAD_DEADLINE), "at the end").await;
    cluster.assert_copies_equal(&client).await;
    crate::switch::wait_tidy(&cluster, &client).await;
    drop(cluster);
    let histories = check_all(phases);
    let operations: usize = histories.iter().map(|(_, events)| events.len()).sum();
    println!(
        "{kills} kills in {} switches, {} writes acknowledged, {operations} operations on hot keys",
        campaign.switches * 2,
        ledger.acked.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_survives_the_death_of_any_process() {
    run(Campaign { data_bytes: 64 << 20, switches: 2, kills: 3, seed: 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some minutes: run it with `cargo test --test it -- --ignored forty_kills`"]
async fn forty_kills_in_switches_with_300_mib() {
    run(Campaign { data_bytes: 300 << 20, switches: 3, kills: 7, seed: 2 }).await;
}
