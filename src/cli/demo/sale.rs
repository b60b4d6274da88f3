//! The part of `demo --exit` that is about the switch: the runbook before a sale, reads from everywhere, the
//! loss of a primary, and the runbook afterwards, all under load.

use super::load::Load;
use super::nodes::{Node, Nodes};
use super::{PAUSE, say, verify, wait_ready};
use crate::cli::args::Format;
use crate::cli::runbook::{Ended, Runbook, ScriptDoor, Terminal};
use crate::cli::strategy::document;
use crate::client::{CallOptions, Client};
use crate::types::{Code, Condition, Error, Expiry, NodeName, Op, Result, ShardId, slots};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer, Command};
use crate::wire::plan::Verdict;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The runbooks as they are delivered.
const PRESALE: (&str, &str) =
    ("scripts/presale.rhai", include_str!("../../../scripts/presale.rhai"));
const POSTSALE: (&str, &str) =
    ("scripts/postsale.rhai", include_str!("../../../scripts/postsale.rhai"));
/// How long a runbook may take.
const RUN: Duration = Duration::from_secs(40);
/// How long the cluster may take after a restart until a switch may start.
const SETTLE: Duration = Duration::from_secs(15);
/// How long a precheck or a look may take.
const LOOK: Duration = Duration::from_secs(10);
/// Keys whose readers are counted.
const READS: u32 = 4_000;
/// How long writes may take to be served again after the loss of a primary.
const FAILOVER: Duration = Duration::from_secs(12);
/// How long a killed primary may take to come back.
const RESTART: Duration = Duration::from_secs(20);
/// The primary that is lost.
const LOST: &str = "n1";

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sale {
    /// Switches that reached their end.
    pub switches: u64,
    /// From the order to the end, copying and comparing included.
    pub to_full_ms: u64,
    /// The same for the way back.
    pub to_sharded_ms: u64,
    /// The longest time that a writer waited for an acknowledgement during the two.
    pub write_gap_ms_max: u64,
    /// Keys that each node answered under full replication.
    pub reads_by_node: BTreeMap<NodeName, u64>,
    /// From the death of a primary until every shard that it led had acknowledged a write.
    pub failover_ms: u64,
}

impl Sale {
    /// True if every part of it took place.
    pub fn ok(&self) -> bool {
        let answered = self.reads_by_node.iter().filter(|(_, reads)| **reads > 0);
        let primaries = answered.filter(|(name, _)| name.as_str().starts_with('n')).count();
        self.switches == 2 && self.failover_ms > 0 && primaries == 3
    }
}

/// Tells it; what was reached before an error is in `sale`.
pub async fn run(
    client: &Client,
    nodes: &mut Nodes,
    load: &Load,
    script: ScriptDoor,
    sale: &mut Sale,
) -> Result<()> {
    settled(client).await?;
    (sale.to_full_ms, sale.write_gap_ms_max) =
        switch(client, load, script, PRESALE, Strategy::Full).await?;
    sale.switches += 1;
    sale.reads_by_node = verify::anywhere(client, READS).await?;
    say(&format!("reads answered by {}", listed(&sale.reads_by_node)));
    sale.failover_ms = lose_a_primary(client, nodes).await?;
    say(&format!("{LOST} killed with -9: writes again after {} ms", sale.failover_ms));
    nodes.start()?;
    wait_ready(client, nodes, RESTART).await?;
    let gap_ms;
    (sale.to_sharded_ms, gap_ms) =
        switch(client, load, script, POSTSALE, Strategy::Sharded).await?;
    sale.switches += 1;
    sale.write_gap_ms_max = sale.write_gap_ms_max.max(gap_ms);
    Ok(())
}

/// Waits until nothing speaks against a switch any more: all nodes have just been restarted.
async fn settled(client: &Client) -> Result<()> {
    let until = Instant::now() + SETTLE;
    loop {
        let refused = match client
            .command(Command::Precheck { to: Strategy::Full }, None, LOOK)
            .await
        {
            Ok((Answer::Precheck(plan), _)) if plan.verdict < Verdict::NoGo => return Ok(()),
            Ok((Answer::Precheck(plan), _)) => {
                let no_go = plan.checks.iter().find(|check| check.verdict == Verdict::NoGo);
                no_go.map_or_else(String::new, |check| format!("{}: {}", check.name, check.message))
            }
            Ok(_) => "another answer".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            let message = format!("no switch may start: {refused}");
            return Err(Error::new(Code::PrecheckFailed, message));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs a runbook to its end; answers how long it took, and the longest gap of a writer, in milliseconds.
async fn switch(
    client: &Client,
    load: &Load,
    script: ScriptDoor,
    (name, source): (&str, &str),
    to: Strategy,
) -> Result<(u64, u64)> {
    say(&format!("ppdb run {name}"));
    let book = Runbook {
        // A warning about this machine is no reason to end a demo.
        params: vec![("accept_warn".to_owned(), "true".to_owned())],
        yes: true,
        timeout: RUN,
        ..Runbook::of(name, source)
    };
    // Progress goes to standard error, whatever the format of the summary.
    let stage = Arc::new(Terminal::new(Format::Json, false));
    let (_never, stop) = watch::channel(false);
    let began = Instant::now();
    load.watch_gaps();
    let Ended { result, .. } = (script.run)(client.clone(), book, stage.clone(), stop).await;
    let (took, gap) = (began.elapsed(), load.longest_gap());
    stage.close();
    if let Err(trouble) = result {
        let at = trouble.at.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        let message = format!("{name}{at}: {} ({})", trouble.message, trouble.code);
        return Err(Error::new(Code::Internal, message));
    }
    let holds = client.refresh().await?.strategy;
    if holds != to {
        let message = format!("after {name} the strategy is {}", document::name(holds));
        return Err(Error::new(Code::Internal, message));
    }
    say(&format!(
        "{} ms, the longest gap of a writer was {} ms",
        took.as_millis(),
        gap.as_millis()
    ));
    Ok((took.as_millis() as u64, gap.as_millis() as u64))
}

/// Kills a primary and waits until each shard that it led has acknowledged a write; answers how long it took.
async fn lose_a_primary(client: &Client, nodes: &mut Nodes) -> Result<u64> {
    let map = client.refresh().await?;
    let shards = map.shards.len() as u16;
    let led = map.shards.iter().filter(|shard| shard.owner.as_str() == LOST);
    let keys: Vec<String> = led.map(|shard| key_in(shard.id, shards)).collect();
    if keys.is_empty() {
        return Err(Error::new(Code::Internal, format!("{LOST} owns no shard")));
    }
    let options = CallOptions { timeout: FAILOVER, ..CallOptions::default() };
    let began = Instant::now();
    nodes.kill(|node: &Node| node.name.as_str() == LOST);
    let writes = keys.into_iter().map(|key| {
        let op = Op::Set {
            key: key.into(),
            value: LOST.into(),
            condition: Condition::Always,
            expiry: Expiry::Never,
        };
        client.call(vec![op], &options)
    });
    for answer in join_all(writes).await.into_iter().flatten() {
        answer?;
    }
    Ok(began.elapsed().as_millis() as u64)
}

/// A key that lies in a shard.
fn key_in(shard: ShardId, shards: u16) -> String {
    let names = (0..).map(|number: u64| format!("failover:{number}"));
    let mut inside = names.filter(|name| slots::shard_of(name.as_bytes(), shards) == shard);
    inside.next().unwrap_or_default()
}

fn listed(reads_by_node: &BTreeMap<NodeName, u64>) -> String {
    let each = reads_by_node.iter().map(|(name, reads)| format!("{name}: {reads}"));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sale_is_ok_if_every_primary_answered_and_both_switches_ended() {
        let name = |name| NodeName::new(name).unwrap();
        let good = Sale {
            switches: 2,
            failover_ms: 900,
            reads_by_node: ["n1", "n2", "n3"].map(|n| (name(n), 5)).into(),
            ..Sale::default()
        };
        assert!(good.ok());
        let with = |n, reads| {
            let mut sale = good.clone();
            sale.reads_by_node.insert(name(n), reads);
            sale.ok()
        };
        assert!(with("r1", 9) && !with("n2", 0));
        assert!(!Sale { switches: 1, ..good.clone() }.ok());
        assert!(!Sale { failover_ms: 0, ..good.clone() }.ok());
        assert!(!Sale::default().ok());
    }

    #[test]
    fn there_is_a_key_for_every_shard() {
        for shard in (0..12).map(ShardId) {
            assert_eq!(slots::shard_of(key_in(shard, 12).as_bytes(), 12), shard);
        }
    }
}
