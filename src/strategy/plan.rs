//! Plans: the checks and the forecast put together, what a plan is bound to, and what moved since. Pure.

use super::checks::{self, Bench};
use super::core::Seen;
use crate::cluster::ClusterState;
use crate::types::{Code, Error, Result};
use crate::wire::client::Strategy;
use crate::wire::plan::{Bound, BoundMember, Plan, Precheck, Verdict};
use crate::wire::terms::PlanId;
use std::time::Duration;

/// How long a plan may start a switch. Once it has begun, the commit rests on checks of its own.
pub const VALID: Duration = Duration::from_secs(15 * 60);

/// Checks everything before a start and says what it will cost. The plan under which it may start is not
/// journaled yet, and has no number.
pub fn precheck(
    state: &ClusterState,
    seen: &Seen,
    to: Strategy,
    skipped: &[String],
    now_ms: u64,
) -> Precheck {
    let mut checks = checks::at_start(state, seen, to, now_ms);
    checks::skip(&mut checks, skipped);
    let verdict = checks::verdict(&checks);
    let bench = Bench { state, seen, to, now_ms };
    let predicted = bench.forecast().predicted(&bench);
    Precheck { to, verdict, checks, predicted, plan: None }
}

/// The plan that a precheck makes, if anything may start.
pub fn of(
    state: &ClusterState,
    seen: &Seen,
    found: &Precheck,
    by: &str,
    now_ms: u64,
) -> Option<Plan> {
    (found.verdict != Verdict::NoGo).then(|| Plan {
        id: PlanId(state.next_plan),
        to: found.to,
        by: by.to_owned(),
        expires_ms: now_ms.saturating_add(VALID.as_millis() as u64),
        predicted: found.predicted.clone(),
        bound: bound(state, seen),
    })
}

/// The world as it is.
fn bound(state: &ClusterState, seen: &Seen) -> Bound {
    let member = |(node, member): (&crate::types::NodeId, &crate::cluster::Member)| {
        let report = seen.reports.get(node);
        BoundMember {
            node: *node,
            name: member.name.clone(),
            disk: member.disk,
            version: report.map(|report| report.version.clone()).unwrap_or_default(),
            certificate_expires_ms: report.map_or(0, |report| report.certificate_expires_ms),
        }
    };
    Bound { epoch: state.epoch, members: state.members.iter().map(member).collect() }
}

/// Refuses a plan whose world has moved by what the nodes report of themselves. Members, epoch and time are
/// judged by the journal (`cluster::plans`).
pub fn still_holds(plan: &Plan, seen: &Seen) -> Result<()> {
    let moved = |what: String| {
        let message = format!("{}: {what}; make another plan", plan.id);
        Err(Error::new(Code::PlanOutdated, message))
    };
    for was in &plan.bound.members {
        // Who does not answer fails the check `members`.
        let Some(is) = seen.reports.get(&was.node) else { continue };
        if was.version != is.version {
            return moved(format!("{} ran {} and runs {}", was.name, was.version, is.version));
        }
        if was.certificate_expires_ms != is.certificate_expires_ms {
            return moved(format!("{} has another certificate", was.name));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
