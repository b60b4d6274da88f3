//! The kept cluster that runs are made on, and one run from its start to the last look.

use super::checks::{self, Known};
use super::course::{Orders, end_of, history};
use super::results::Outcome;
use super::strike;
use super::table::{Action, Run};
use super::watch::{LASTING, LASTING_PREFIX, Watch};
use crate::durability::{Ledger, verify};
use crate::harness::{Cluster, Shape, Wrap, wait_until, within};
use crate::linearizability::CLIENTS;
use crate::switch::wait_tidy;
use crate::switch_kills::{agree, fill};
use futures_util::FutureExt;
use ppdb::client::Client;
use ppdb::faults::{Course, Role};
use ppdb::types::{NodeName, Op};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command, Status};
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that only have to be copied, in values of so many.
const DATA_BYTES: usize = 8 << 20;
const VALUE_BYTES: usize = 16 << 10;
/// Log kept for who is behind: so little that every new copy needs a snapshot.
const LOG_KEEP_BYTES: &str = "16384";
/// How long the cluster may take for what no fault is in.
const CALM_WITHIN: Duration = Duration::from_secs(30);
/// How long after the end of a course a hit may still come.
const LATE_HIT: Duration = Duration::from_secs(2);
/// Longer than a paused task is held up, until what it was about to say was said.
const LATE_ENTRY: Duration = Duration::from_secs(2);
/// Keys of each run that are kept and looked at again at the end.
const KEPT_KEYS: usize = 10;

/// See the module.
pub struct Ground {
    /// The cluster.
    pub cluster: Cluster,
    client: Client,
    hot: Vec<Client>,
    kept: Ledger,
    known: Vec<Known>,
    holds: Strategy,
    runs: usize,
}

impl Ground {
    /// Starts a cluster with a little data, all of it in the tables.
    pub async fn start() -> Self {
        let keep = ("PPDB_TEST_LOG_KEEP_BYTES".to_owned(), LOG_KEEP_BYTES.to_owned());
        let wrap = Wrap { env: vec![keep], ..Wrap::default() };
        let cluster = Cluster::start(Shape { wrap, ..Shape::default() }).await;
        let client = cluster.client().await;
        cluster.set_live(&client, "switch.cool_down", "0s").await;
        fill(&client, DATA_BYTES, VALUE_BYTES).await;
        crate::scan::fill(&client, LASTING_PREFIX, LASTING).await;
        let mut hot = vec![];
        for _ in 0..CLIENTS {
            hot.push(cluster.client().await);
        }
        // Every copy is flushed for its digest, after which the log may go.
        cluster.assert_copies_equal(&client).await;
        let (kept, known) = (Ledger::default(), vec![]);
        Self { cluster, client, hot, kept, known, holds: Strategy::Sharded, runs: 0 }
    }

    /// The strategy that holds.
    pub fn holds(&self) -> Strategy {
        self.holds
    }

    /// One run; whether its point was hit, and how it ended. After a failure the cluster is of no more use.
    pub async fn run(&mut self, run: &Run) -> (bool, Outcome) {
        self.runs += 1;
        let mut hit = false;
        let outcome = held(self.make(run, &mut hit)).await;
        (hit, outcome)
    }

    async fn make(&mut self, run: &Run, hit: &mut bool) -> Result<String, String> {
        if self.holds != run.from() {
            self.switch_calmly(run.from()).await?;
        }
        let astray = match run.course {
            Course::Astray => Some(self.lead_astray().await?),
            _ => None,
        };
        let name = match &astray {
            Some(leader) => leader.clone(),
            None => self.who(run.role).await,
        };
        let watch = Watch::start(&self.client, self.hot.clone(), &format!("r{}", self.runs));
        watch.load.until(10).await;
        let phase = self.strike(run, &name, hit).await?;
        let (phase, holds) = self.settle(run, phase).await?;
        watch.load.until(10).await;
        let (ledger, operations) = watch.end().await;
        self.look(holds).await;
        let writes = ledger.acked.len();
        self.keep_a_few(ledger).await;
        Ok(format!("{} on {name}, {writes} writes, {operations} on hot keys", phase.name()))
    }

    /// Orders the course while the point is armed; answers the phase reached.
    async fn strike(
        &mut self,
        run: &Run,
        name: &NodeName,
        hit: &mut bool,
    ) -> Result<Phase, String> {
        let (client, began) = (&self.client, Notify::new());
        let names: Vec<NodeName> = self.cluster.nodes.iter().map(|n| n.name.clone()).collect();
        let after = self.known.last().map_or(0, |known| known.id);
        let orders = Orders { client, nodes: &names, after };
        let others: Vec<NodeName> = names.iter().filter(|n| *n != name).cloned().collect();
        let node = self.cluster.node(name.as_str());
        let early = match run.course {
            Course::Busy => None,
            _ => Some(strike::arm(node, strike::line(run)).await?),
        };
        let was_hit = AtomicBool::new(false);
        let (struck, phase) = {
            let struck = async {
                let armed = match early {
                    Some(armed) => armed,
                    None => {
                        began.notified().await;
                        strike::arm(node, strike::line(run)).await?
                    }
                };
                strike::hit(node, &armed).await;
                was_hit.store(true, Relaxed);
                let early = uncommitted(client, &others, run, after).await;
                strike::recover(node, run).await?;
                early
            };
            let drive = orders.drive(run.course, run.to(), &began);
            let (mut struck, mut drive) = (Box::pin(struck), Box::pin(drive));
            tokio::select! {
                struck = &mut struck => (struck, drive.await),
                phase = &mut drive => {
                    let late = tokio::select! {
                        struck = &mut struck => struck,
                        () = not_hit(&was_hit) => Err(format!("the point was not hit on {name}")),
                    };
                    (late, phase)
                }
            }
        };
        *hit = was_hit.load(Relaxed);
        strike::disarm(self.cluster.node(name.as_str()));
        struck?;
        phase
    }

    /// The end of the operation, and one strategy everywhere within seconds.
    async fn settle(&mut self, run: &Run, phase: Phase) -> Result<(Phase, Strategy), String> {
        let given_up = phase == Phase::Aborted && run.course != Course::Abort;
        if given_up && run.action != Action::Error {
            return Err(format!("it was aborted by a {}", run.action.word()));
        }
        let holds = match phase {
            Phase::Aborted | Phase::Reverted => run.from(),
            _ => run.to(),
        };
        agree(&self.cluster, &self.client, holds).await;
        let end = if phase == Phase::Soaking { self.finalize().await? } else { phase };
        let expected = if given_up { Phase::Aborted } else { end_of(run.course) };
        if end != expected {
            return Err(format!("it ended {}, not {}", end.name(), expected.name()));
        }
        self.note(run.from(), run.to(), end);
        Ok((end, holds))
    }

    async fn finalize(&self) -> Result<Phase, String> {
        let nodes: Vec<NodeName> = self.cluster.nodes.iter().map(|n| n.name.clone()).collect();
        let after = self.known.last().map_or(0, |known| known.id);
        let orders = Orders { client: &self.client, nodes: &nodes, after };
        orders.give(StrategyOrder::Finalize).await?;
        orders.wait(&[Phase::Finalized]).await
    }

    fn note(&mut self, from: Strategy, to: Strategy, phase: Phase) {
        let id = self.known.last().map_or(0, |known| known.id) + 1;
        self.known.push(Known { id, from, to, phase });
        self.holds = match phase {
            Phase::Finalized => to,
            _ => from,
        };
    }

    /// Everything that must hold on all nodes.
    async fn look(&self, holds: Strategy) {
        self.cluster.wait_ready().await;
        agree(&self.cluster, &self.client, holds).await;
        checks::groups_follow(&self.cluster, &self.client, holds).await;
        checks::history_is_true(&self.cluster, &self.client, &self.known).await;
        wait_tidy(&self.cluster, &self.client).await;
        checks::nothing_staged(&self.cluster).await;
        self.cluster.assert_copies_equal(&self.client).await;
    }

    /// A switch that nothing is planted in.
    async fn switch_calmly(&mut self, to: Strategy) -> Result<(), String> {
        let from = self.holds;
        self.cluster.switch(&self.client, to, CALM_WITHIN).await;
        let end = self.finalize().await?;
        self.note(from, to, end);
        Ok(())
    }

    /// The keys of the run make room, but for a few.
    async fn keep_a_few(&mut self, mut ledger: Ledger) {
        let gone = ledger
            .acked
            .split_off(&ledger.acked.keys().nth(KEPT_KEYS).cloned().unwrap_or_default());
        let gone: Vec<String> = gone.into_keys().collect();
        for keys in gone.chunks(500) {
            let ops = keys.iter().map(|key| Op::Del { key: key.clone().into() }).collect();
            for answer in self.client.call(ops, &within(CALM_WITHIN)).await {
                answer.expect("a key is deleted");
            }
        }
        ledger.counters.clear();
        self.kept.add(ledger);
    }

    /// A revert that is ordered in the very moment in which the coordinator is about to journal that the switch has
    /// settled: what it was about to say is of another step, and has to be refused. No shard gets its voters back
    /// meanwhile, so that nothing but that late entry could end the way back.
    pub async fn race_a_revert(&mut self) -> Result<(), String> {
        if self.holds == Strategy::Sharded {
            self.switch_calmly(Strategy::Full).await?;
        }
        let names: Vec<NodeName> = self.cluster.nodes.iter().map(|n| n.name.clone()).collect();
        let after = self.known.last().map_or(0, |known| known.id);
        let coordinator = self.who(Role::Coordinator).await;
        let node = self.cluster.node(coordinator.as_str());
        let armed = strike::arm(node, "journal.soaking.before pause".to_owned()).await?;
        let orders = Orders { client: &self.client, nodes: &names, after };
        orders.give(StrategyOrder::switch(Strategy::Sharded)).await?;
        let hit = strike::hit(node, &armed);
        tokio::time::timeout(CALM_WITHIN, hit).await.map_err(|_| "the point was not hit")?;
        self.cluster.nodes.iter().for_each(|node| node.plant("hold-voters", ""));
        orders.give(StrategyOrder::Revert { reason: "a race".to_owned() }).await?;
        tokio::time::sleep(LATE_ENTRY).await;
        if orders.wait(&[Phase::Reverting, Phase::Reverted]).await? == Phase::Reverted {
            return Err("it is reverted, and no shard has its voters back".to_owned());
        }
        self.cluster.nodes.iter().for_each(|node| node.mend("hold-voters"));
        let phase = orders.wait(&[Phase::Reverted]).await?;
        self.note(Strategy::Full, Strategy::Sharded, phase);
        self.look(Strategy::Full).await;
        Ok(())
    }

    /// What was kept of all runs is still there.
    pub async fn verify_kept(&self) {
        verify(&self.client, &self.kept, &within(CALM_WITHIN), "at the end").await;
    }

    async fn status(&self) -> Option<Status> {
        match self.client.command(Command::Status, None, Duration::from_secs(2)).await {
            Ok((Answer::Status(status), _)) => Some(status),
            _ => None,
        }
    }

    /// The node that plays a role now; of several the next one in each run.
    async fn who(&self, role: Role) -> NodeName {
        let ask = async || self.status().await.and_then(|status| status.metadata_leader);
        let leader = wait_until("coordinator", CALM_WITHIN, ask, Option::is_some).await;
        let leader = leader.expect("just checked");
        let names = self.cluster.nodes.iter().map(|node| &node.name);
        let mut others = names.filter(|name| name.as_str().starts_with('n') && **name != leader);
        match role {
            Role::Coordinator => leader,
            Role::Owner | Role::Target => {
                others.nth(self.runs % 2).cloned().expect("two other primaries")
            }
            Role::Replica => NodeName::new("r1").expect("a name"),
        }
    }

    /// Kills an owner until others lead its shards, and answers one of them.
    async fn lead_astray(&mut self) -> Result<NodeName, String> {
        let owner = self.who(Role::Owner).await;
        self.cluster.node(owner.as_str()).kill();
        let ask = async || self.led_by_another(&owner).await;
        let found = wait_until("another leader", CALM_WITHIN, ask, Option::is_some).await;
        self.cluster.node(owner.as_str()).start();
        self.cluster.wait_ready().await;
        found.ok_or_else(|| "nobody leads".to_owned())
    }

    /// A node that leads a shard of `owner`.
    async fn led_by_another(&self, owner: &NodeName) -> Option<NodeName> {
        let map = self.client.refresh().await.ok()?;
        let of_owner = |shard| map.shards.iter().any(|s| s.id == shard && s.owner == *owner);
        for node in self.cluster.nodes.iter().map(|node| &node.name).filter(|name| *name != owner) {
            let asked =
                self.client.command(Command::ReplicaLag, Some(node), Duration::from_secs(2));
            let Ok((Answer::ReplicaLag(lag), _)) = asked.await else { continue };
            if lag.iter().any(|c| c.state == "leader" && c.node == *node && of_owner(c.shard)) {
                return Some(node.clone());
            }
        }
        None
    }
}

/// Resolves if the point is not hit for a while after the end of the course. What was hit takes its time.
async fn not_hit(was_hit: &AtomicBool) {
    tokio::time::sleep(LATE_HIT).await;
    if was_hit.load(Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// While the coordinator is gone before its commit is journaled, no shard has other voters yet.
async fn uncommitted(
    client: &Client,
    others: &[NodeName],
    run: &Run,
    after: u64,
) -> Result<(), String> {
    if run.spec.name != "journal.commit.before" || run.action == Action::Error {
        return Ok(());
    }
    let voters = checks::voters(client, others).await;
    for node in others {
        // If another coordinator was quick, there is nothing to say.
        let journal = history(client, Some(node)).await.unwrap_or_default();
        if journal.iter().any(|op| op.id > after && op.times.committed_ms.is_some()) {
            return Ok(());
        }
    }
    let wanted = checks::voters_of(run.from());
    match voters.iter().find(|(_, voters)| voters.len() != wanted) {
        Some((shard, voters)) => {
            Err(format!("{shard} has the voters {voters:?} before the commit is journaled"))
        }
        None => Ok(()),
    }
}

/// How work ended that may also panic: the checks of other tests do.
pub async fn held(work: impl Future<Output = Result<String, String>>) -> Outcome {
    let panic = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(text)) => return Outcome::Held(text),
        Ok(Err(text)) => return Outcome::Failed(text),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    Outcome::Failed(text.unwrap_or_else(|| "a panic without a word".to_owned()))
}
