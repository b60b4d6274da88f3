//! What this node knows of what an operator should see to: gathers the facts, keeps the alarms that follow from them,
//! tells people, and asks the other nodes for theirs, so that each can show all of them.

use super::disk::{Space, map_bytes_max};
use super::{Admin, Control};
use crate::alarms::{self, Facts, Watch};
use crate::cluster::{ClusterState, heard::clock_ms};
use crate::strategy::COORDINATOR;
use crate::types::histogram::Counted;
use crate::types::{NodeName, ShardId};
use crate::wire::alarm::Alarm;
use crate::wire::breaker::PeerBreaker;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{Operation, Phase};
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at the facts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two questions to the other nodes.
const LOOKS_PER_QUESTION: u64 = 2;
/// How long another node may take to answer, and how long its answer is shown.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_SHOWN: Duration = Duration::from_secs(10);
/// Alarms taken from one node; more say nothing new.
const ALARMS_MAX: usize = 256;
/// Looks over which the fdatasyncs of the log are judged: a minute. Fewer calls say nothing.
const SYNC_LOOKS: usize = 60;
const SYNCS_MIN: u64 = 20;

/// The alarms of this node and, as last heard, of the others.
#[derive(Default)]
pub struct Board {
    watch: Mutex<Watch>,
    others: Mutex<BTreeMap<NodeName, (Instant, Vec<Alarm>)>>,
    /// What the log's fdatasyncs were at the last looks, the oldest first.
    syncs: Mutex<VecDeque<Counted>>,
}

impl Admin {
    /// Looks after the alarms for ever.
    pub async fn watch_alarms(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for look in 0_u64.. {
            ticks.tick().await;
            let state = self.view.state();
            let control = self.control.read().clone().filter(|_| state.is_formed());
            let Some(control) = control else { continue };
            let found =
                alarms::conditions(&self.facts(&state, &control), &state.alarm_thresholds());
            let changes =
                self.alarms.watch.lock().step(found, &self.name, Instant::now(), clock_ms());
            tell(&changes);
            if look % LOOKS_PER_QUESTION == 0 {
                self.ask_others(&state, &control).await;
            }
        }
    }

    /// What this node sees.
    pub(super) fn own_alarms(&self) -> Vec<Alarm> {
        self.alarms.watch.lock().alarms(&self.name)
    }

    /// What all nodes see that were heard lately, each thing once, the worst first.
    pub(super) fn all_alarms(&self) -> Vec<Alarm> {
        let others = self.alarms.others.lock();
        let fresh = others.values().filter(|(at, _)| at.elapsed() < ANSWER_SHOWN);
        let heard = fresh.flat_map(|(_, alarms)| alarms.iter().cloned());
        alarms::merged(self.own_alarms().into_iter().chain(heard))
    }

    /// How long the operation under way has not moved; none where its progress is not known.
    pub(super) fn stalled(&self) -> Option<Duration> {
        let control = self.control.read().clone()?;
        control.coordinator.show().ok()?;
        Some(self.alarms.watch.lock().stalled(Instant::now()))
    }

    async fn ask_others(&self, state: &ClusterState, control: &Control) {
        let others = state.members.iter().filter(|(_, member)| member.name != self.name);
        let asked = others.map(async |(id, member)| {
            let asked = control.calls.call(*id, COORDINATOR, Command::Alarms, QUESTION_TIMEOUT);
            match asked.await {
                Ok(Answer::Alarms(mut alarms)) => {
                    alarms.truncate(ALARMS_MAX);
                    Some((member.name.clone(), (Instant::now(), alarms)))
                }
                _ => None,
            }
        });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let mut known = self.alarms.others.lock();
        known.extend(answers);
        known.retain(|_, (at, _)| at.elapsed() < ANSWER_SHOWN);
    }

    fn facts(&self, state: &ClusterState, control: &Control) -> Facts {
        let copies = self.registry.all();
        let largest = copies.iter().map(|(_, copy)| copy.shard.group().store().table_bytes()).max();
        let level = self.served.level.level(Instant::now());
        Facts {
            node: Some(self.name.clone()),
            silent: self.silent(state),
            leaderless: self.leaderless(),
            lagging: self.lagging(),
            disk_percent: self.disk_percent(),
            map_percent: (largest.unwrap_or_default() * 100 / map_bytes_max().max(1)) as u32,
            fsync_p99: self.fsync_p99(),
            requests: (level.requests(), level.errors),
            breakers_open: self.breakers_open(state),
            moving: moving(state, control),
            certificate: Some(Duration::from_millis(
                self.certificate_expires_ms.saturating_sub(clock_ms()),
            )),
            clock_off_ms: self.heard.clock_ahead_ms(),
        }
    }

    /// Every other member, with the time since it was heard, or since this process started.
    fn silent(&self, state: &ClusterState) -> Vec<(NodeName, Duration)> {
        let others = state.members.iter().filter(|(_, member)| member.name != self.name);
        let lasted = |id| self.heard.last(id).unwrap_or(self.started).elapsed();
        others.map(|(id, member)| (member.name.clone(), lasted(*id))).collect()
    }

    fn breakers_open(&self, state: &ClusterState) -> Vec<(NodeName, String)> {
        let is_heard =
            |name: &NodeName| state.member(name).is_some_and(|(id, _)| self.heard.is_up(id));
        not_called(self.breakers.all(Instant::now()), is_heard)
    }

    /// Copies that are not near their leader, of the shards that are led here.
    fn lagging(&self) -> Vec<(ShardId, NodeName)> {
        let copies = self.registry.all();
        let far = copies.iter().flat_map(|(shard, copy)| {
            let members = copy.shard.lead().map(|lead| lead.members).unwrap_or_default();
            let far = members.into_iter().filter(|member| !member.near);
            far.filter_map(|member| Some((*shard, self.view.name(member.node)?)))
        });
        far.collect()
    }

    /// None if it cannot be measured, which is bad by itself.
    fn disk_percent(&self) -> Option<u32> {
        Space::of(&self.data_dir).ok()?.taken_percent()
    }

    /// How long 99 of 100 fdatasyncs of the last minute took at most.
    fn fsync_p99(&self) -> Option<Duration> {
        let now = self.wal.measured().sync_us.counted();
        let mut looks = self.alarms.syncs.lock();
        looks.push_back(now.clone());
        if looks.len() > SYNC_LOOKS {
            looks.pop_front();
        }
        let lately = now.since(looks.front()?);
        let p99_us = lately.percentile(99).filter(|_| lately.total() >= SYNCS_MIN)?;
        Some(Duration::from_micros(p99_us))
    }
}

/// Peers that are heard and not called, with the class of calls. One that is not heard is down, and that is said.
fn not_called(
    all: Vec<PeerBreaker>,
    is_heard: impl Fn(&NodeName) -> bool,
) -> Vec<(NodeName, String)> {
    let open = all.into_iter().filter(|breaker| breaker.seen.is_open && is_heard(&breaker.peer));
    open.map(|breaker| (breaker.peer, breaker.class.name().to_owned())).collect()
}

/// The operation that should move, with a number that changes when it does. Only the coordinator knows of each byte.
fn moving(state: &ClusterState, control: &Control) -> Option<(u64, u64)> {
    let op = state.active().filter(|op| should_move(op))?;
    let progress = control.coordinator.show().ok()?.progress.unwrap_or_default();
    let arrived: u64 = progress.nodes.iter().map(|node| node.bytes_done).sum();
    // Steps are few, and each is worth more than the bytes before it.
    let marker =
        (op.step << 48).wrapping_add(arrived).wrapping_add(u64::from(progress.shards_done));
    Some((op.id, marker))
}

/// One that is held prepared or soaks rests because that is wanted.
fn should_move(op: &Operation) -> bool {
    op.phase.holds_slot() && (op.phase != Phase::Prepared || op.commit_asked)
}

/// Writes what has changed to the log, for those who watch that.
fn tell(changes: &alarms::Changes) {
    for alarm in &changes.raised {
        let Alarm { name, subject, message, fix, .. } = alarm;
        tracing::warn!(alarm = name, subject, fix, "alarm: {message}");
    }
    for alarm in &changes.ended {
        tracing::info!(alarm = alarm.name, subject = alarm.subject, "alarm over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetaCommand;
    use crate::cluster::core::tests::record;
    use crate::wire::breaker::{BreakerSeen, BreakerState, PeerClass};
    use crate::wire::client::Strategy;

    #[test]
    fn a_peer_that_is_down_is_not_told_a_second_time_as_one_that_is_not_called() {
        let name = |text: &str| NodeName::new(text).unwrap();
        let breaker = |peer: &str, is_open| PeerBreaker {
            peer: name(peer),
            class: PeerClass::Copy,
            seen: BreakerSeen {
                state: if is_open { BreakerState::Open } else { BreakerState::Closed },
                is_open,
                calls: 0,
                error_count: 0,
                slow_request_count: 0,
                last_failure_time: None,
                opened_total: 0,
                reason: None,
                forced_until: None,
            },
        };
        let all = vec![breaker("n1", false), breaker("n2", true), breaker("n3", true)];
        let told = not_called(all, |peer| peer.as_str() != "n3");
        assert_eq!(told, [(name("n2"), "copy".to_owned())]);
    }

    #[test]
    fn an_operation_that_rests_because_that_is_wanted_is_not_stuck() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 3)));
        let (to, by, terms) = (Strategy::Full, "test".to_owned(), Default::default());
        state.apply(&MetaCommand::Begin { to, by, commit_asked: false, now_ms: 1, terms });
        let op = state.operation().unwrap();
        let of =
            |phase, commit_asked| should_move(&Operation { phase, commit_asked, ..op.clone() });
        assert!(of(Phase::Copying, false) && of(Phase::Reverting, false));
        assert!(of(Phase::Prepared, true), "asked to go on");
        for (phase, asked) in
            [(Phase::Prepared, false), (Phase::Soaking, true), (Phase::Finalized, true)]
        {
            assert!(!of(phase, asked), "{}", phase.name());
        }
    }
}
