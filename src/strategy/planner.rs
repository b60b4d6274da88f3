//! The coordinator as a maker of plans: looks, has the cluster measured, decides by `plan`, and journals what
//! may start. It begins operations, each under a plan.

use super::core::Seen;
use super::driver::Coordinator;
use super::probing::{self, Made};
use super::{checks, plan};
use crate::cluster::heard::clock_ms;
use crate::cluster::{ClusterState, MetaCommand};
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::client::Strategy;
use crate::wire::operation::{Operation, Phase};
use crate::wire::plan::{Planned, Precheck, Verdict};
use crate::wire::terms::{PlanId, Terms};
use std::time::{Duration, Instant};

/// How long a node that has just started is waited for, until it knows how busy it is: two of its samples.
const LOAD_KNOWN_WITHIN: Duration = Duration::from_millis(2_500);
/// How often it is asked meanwhile.
const LOAD_LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a plan is journaled again when another one took its number.
const PLAN_TRIES: usize = 3;

impl Coordinator {
    /// Whether a change of strategy may start now, and the plan under which it may.
    pub async fn precheck(&self, by: &str, to: Strategy) -> Result<Precheck> {
        self.require_lead()?;
        let seen = self.measured(to, &[]).await?;
        self.make(&seen, by, to, &[]).await
    }

    /// Begins an operation, under the plan that was named or under one that is made for it.
    pub(super) async fn begin(
        &self,
        by: &str,
        to: Strategy,
        commit_asked: bool,
        terms: Terms,
    ) -> Result<()> {
        terms.check()?;
        checks::may_skip(&terms.skipped)?;
        // The journal's own refusal says more than the list of checks, and costs no measurement.
        self.state().may_begin(to, clock_ms())?;
        if let Some(id) = terms.plan {
            self.state().plan_for(id, to, clock_ms())?;
        }
        let seen = self.measured(to, &terms.skipped).await?;
        let terms = match terms.plan {
            Some(id) => self.bind(&seen, to, id, terms)?,
            None => {
                let found = self.make(&seen, by, to, &terms.skipped).await?;
                let plan = found.plan.map(|plan| plan.id).ok_or_else(|| refused(&found))?;
                Terms { plan: Some(plan), predicted: Some(found.predicted), ..terms }
            }
        };
        let (by, now_ms) = (by.to_owned(), clock_ms());
        self.propose(MetaCommand::Begin { to, by, commit_asked, now_ms, terms }).await
    }

    /// The terms under a plan that was made before: it still holds, and the checks say the same once more.
    fn bind(&self, seen: &Seen, to: Strategy, id: PlanId, terms: Terms) -> Result<Terms> {
        let (state, now_ms) = (self.state(), clock_ms());
        let made = state.plan_for(id, to, now_ms)?;
        plan::still_holds(made, seen)?;
        let found = plan::precheck(&state, seen, to, &terms.skipped, now_ms);
        match found.verdict {
            Verdict::NoGo => Err(refused(&found)),
            _ => Ok(Terms { predicted: Some(made.predicted.clone()), ..terms }),
        }
    }

    /// Checks, and journals the plan if anything may start.
    async fn make(
        &self,
        seen: &Seen,
        by: &str,
        to: Strategy,
        skipped: &[String],
    ) -> Result<Precheck> {
        for tries_left in (0..PLAN_TRIES).rev() {
            let (state, now_ms) = (self.state(), clock_ms());
            let found = plan::precheck(&state, seen, to, skipped, now_ms);
            let Some(made) = plan::of(&state, seen, &found, by, now_ms) else { return Ok(found) };
            let named = Planned { id: made.id, expires_ms: made.expires_ms };
            match self.propose(MetaCommand::Plan(Box::new(made))).await {
                Ok(()) => return Ok(Precheck { plan: Some(named), ..found }),
                Err(error) if error.code == Code::OperationConflict && tries_left > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Code::Overloaded, "too many plans are made at a time").retry_after(500))
    }

    /// What the nodes say, beside a probe that is fresh: one that says no is not for long. Nothing is probed while
    /// somebody is silent: that is a no already, and measuring a silent node takes long.
    async fn measured(&self, to: Strategy, skipped: &[String]) -> Result<Seen> {
        let seen = self.look_until_load_is_known(skipped).await;
        let state = self.state();
        if !all_answer(&state, &seen) {
            return Ok(Seen { probed: None, ..seen });
        }
        self.measure(&state, probing::FRESH).await?;
        // The probe took a while, and what was reported before it is old.
        let seen = self.look().await;
        let found = plan::precheck(&state, &seen, to, skipped, clock_ms());
        if !checks::is_no_by_probe(&found.checks) {
            return Ok(seen);
        }
        self.measure(&state, probing::FRESH_WHERE_HELD).await?;
        Ok(self.look().await)
    }

    /// Right after its start a node cannot say yet how busy it is. That is no reason to refuse: it soon can.
    async fn look_until_load_is_known(&self, skipped: &[String]) -> Seen {
        let until = Instant::now() + LOAD_KNOWN_WITHIN;
        loop {
            let seen = self.look().await;
            if !waits_for_load(&self.state(), &seen, skipped) || Instant::now() >= until {
                return seen;
            }
            tokio::time::sleep(LOAD_LOOK_EVERY).await;
        }
    }

    /// Probes, unless the last probe is younger than `fresh` and of the same members. One at a time; who waited
    /// finds it done.
    async fn measure(&self, state: &ClusterState, fresh: Duration) -> Result<()> {
        let _turn = self.inner.probing.lock().await;
        let nodes: Vec<NodeId> = state.members.keys().copied().collect();
        let amid = state.active().is_some_and(|op| op.phase.holds_slot());
        let serves = |made: &Made| made.serves(&nodes, amid, fresh, Instant::now());
        if self.inner.memory.lock().probed.as_ref().is_some_and(serves) {
            return Ok(());
        }
        let reports = probing::run(&*self.inner.calls, &nodes).await?;
        self.inner.memory.lock().probed = Some(Made { ended: Instant::now(), amid, reports });
        Ok(())
    }

    /// Has a probe at hand when a commit that was asked for comes near.
    pub(super) fn measure_ahead(&self, state: &ClusterState, seen: &Seen) {
        let commits = |op: &&Operation| {
            op.commit_asked && matches!(op.phase, Phase::CaughtUp | Phase::Prepared)
        };
        let Some(op) = state.active().filter(commits) else { return };
        let terms = (op.to, &op.terms.skipped[..]);
        let fresh = match checks::is_held_by_probe(state, seen, terms, clock_ms()) {
            true => probing::FRESH_WHERE_HELD,
            false => probing::FRESH,
        };
        let is_fresh = |age_ms| Duration::from_millis(age_ms) < fresh;
        if seen.probed.as_ref().is_some_and(|probed| is_fresh(probed.age_ms)) {
            return;
        }
        if !all_answer(state, seen) {
            return;
        }
        if self.inner.probing.try_lock().is_err() {
            return;
        }
        let (this, state) = (self.clone(), self.state());
        tokio::spawn(async move {
            if let Err(error) = this.measure(&state, fresh).await {
                tracing::info!(%error, "the cluster was not measured");
            }
        });
    }
}

/// Whether a look has to be repeated because somebody cannot say yet how busy it is: not where it is a no already, or
/// that check is skipped.
pub(super) fn waits_for_load(state: &ClusterState, seen: &Seen, skipped: &[String]) -> bool {
    let is_known = seen.reports.values().all(|report| report.load.window_ms > 0);
    !is_known && all_answer(state, seen) && !skipped.iter().any(|check| check == "load")
}

fn all_answer(state: &ClusterState, seen: &Seen) -> bool {
    state.members.keys().all(|node| seen.reports.contains_key(node))
}

fn refused(found: &Precheck) -> Error {
    Error::new(Code::PrecheckFailed, checks::refusal(&found.checks))
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::{formed, well};
    use super::*;
    use crate::types::NodeId;

    #[test]
    fn load_is_waited_for_only_where_it_decides() {
        let state = formed(3);
        let waits = |change: fn(&mut Seen), skipped: &[&str]| {
            let mut seen = well(&state);
            seen.reports.values_mut().for_each(|report| report.load.window_ms = 1_000);
            change(&mut seen);
            let skipped: Vec<String> = skipped.iter().map(|name| (*name).to_owned()).collect();
            waits_for_load(&state, &seen, &skipped)
        };
        let starts = |seen: &mut Seen| {
            seen.reports.values_mut().take(1).for_each(|report| report.load.window_ms = 0);
        };
        assert!(!waits(|_| (), &[]));
        assert!(waits(starts, &[]) && waits(starts, &["disk"]));
        assert!(!waits(starts, &["load"]));
        let silent = |seen: &mut Seen| {
            seen.reports.values_mut().for_each(|report| report.load.window_ms = 0);
            seen.reports.remove(&NodeId(2));
        };
        assert!(!waits(silent, &[]), "it is a no already");
    }
}
