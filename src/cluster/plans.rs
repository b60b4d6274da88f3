//! Plans in the journal: a bounded list that every coordinator knows, each good for one start while nothing
//! that it is bound to has moved. Pure and deterministic, like `core`.

use super::core::ClusterState;
use crate::types::{Code, Error, limits};
use crate::wire::client::Strategy;
use crate::wire::plan::{BoundMember, Plan, PlanHead};
use crate::wire::terms::PlanId;

/// Plans that are kept. The oldest makes room for a new one.
pub const PLANS_MAX: usize = 16;
/// Bytes of a version that a plan names.
const VERSION_BYTES_MAX: usize = 64;

fn outdated(message: String) -> Error {
    Error::new(Code::PlanOutdated, message)
}

impl ClusterState {
    /// A plan, if it is known and may start a switch to `to` at `now_ms`: what moved since is named.
    pub fn plan_for(&self, id: PlanId, to: Strategy, now_ms: u64) -> Result<&Plan, Error> {
        let Some(plan) = self.plans.iter().find(|plan| plan.id == id) else {
            let why = match id.0 < self.next_plan {
                true => "was used already, or made room for later ones",
                false => "was never made",
            };
            return Err(outdated(format!("{id} {why}; make another plan")));
        };
        let moved = |what: String| outdated(format!("{id}: {what}; make another plan"));
        if plan.to != to {
            return Err(moved("it leads to the other strategy".into()));
        }
        self.outdated(plan, now_ms).map_or(Ok(plan), |what| Err(moved(what)))
    }

    /// The plans that are kept, oldest first, each with what keeps it from starting anything at `now_ms`.
    pub fn plan_heads(&self, now_ms: u64) -> Vec<PlanHead> {
        let head = |plan: &Plan| PlanHead {
            id: plan.id,
            to: plan.to,
            by: plan.by.clone(),
            expires_ms: plan.expires_ms,
            copy_bytes: plan.predicted.copy_bytes,
            took_ms: plan.predicted.took_ms,
            outdated: self.outdated(plan, now_ms),
        };
        self.plans.iter().map(head).collect()
    }

    fn outdated(&self, plan: &Plan, now_ms: u64) -> Option<String> {
        let past_s = now_ms.checked_sub(plan.expires_ms).map(|past_ms| past_ms / 1_000);
        past_s.map(|s| format!("it expired {s} s ago")).or_else(|| self.moved_since(plan))
    }

    /// What a plan is bound to and is not so any more. Members first: they raise the epoch as well.
    fn moved_since(&self, plan: &Plan) -> Option<String> {
        for was in &plan.bound.members {
            match self.members.get(&was.node) {
                None => return Some(format!("{} is no member under that id any more", was.name)),
                Some(is) if is.disk != was.disk => {
                    return Some(format!("{} has another disk", was.name));
                }
                Some(_) => {}
            }
        }
        let is_new = |node| !plan.bound.members.iter().any(|was| was.node == node);
        if let Some((_, member)) = self.members.iter().find(|(node, _)| is_new(**node)) {
            return Some(format!("{} is a new member", member.name));
        }
        let (was, is) = (plan.bound.epoch, self.epoch);
        (was != is).then(|| {
            format!("the epoch was {was} and is {is}: placement, an address or a setting changed")
        })
    }

    /// Keeps a plan under the next number.
    pub(super) fn keep_plan(&mut self, plan: &Plan) -> Result<(), Error> {
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        if plan.id.0 != self.next_plan {
            return Err(Error::new(Code::OperationConflict, "another plan came first"));
        }
        let members = &plan.bound.members;
        let long = |member: &BoundMember| member.version.len() > VERSION_BYTES_MAX;
        let members_max = limits::PRIMARIES_MAX + limits::REPLICAS_MAX;
        let costed = &plan.predicted.nodes;
        if members.len().max(costed.len()) > members_max || members.iter().any(long) {
            return Err(Error::new(Code::BadRequest, "a plan of this size is none"));
        }
        let by = super::journal::shortened(&plan.by);
        self.plans.push(Plan { by, ..plan.clone() });
        self.next_plan += 1;
        if self.plans.len() > PLANS_MAX {
            self.plans.remove(0);
        }
        Ok(())
    }

    /// A plan starts one switch.
    pub(super) fn use_plan(&mut self, id: PlanId) {
        self.plans.retain(|plan| plan.id != id);
    }

    /// What must hold of the plans after every command.
    pub(super) fn check_plans(&self) -> Result<(), String> {
        let rising = self.plans.windows(2).all(|pair| pair[0].id < pair[1].id);
        let known = self.plans.last().is_none_or(|last| last.id.0 < self.next_plan);
        match rising && known && self.plans.len() <= PLANS_MAX {
            true => Ok(()),
            false => Err("there are more plans, or other ones, than there can be".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::core::tests::record;
    use super::super::{MetaCommand, MetaReply};
    use super::*;
    use crate::types::{DiskId, NodeId};
    use crate::wire::plan::Bound;
    use crate::wire::terms::{Predicted, Terms};

    fn formed() -> ClusterState {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        state
    }

    fn plan(state: &ClusterState) -> Plan {
        let member = |(node, member): (&NodeId, &super::super::Member)| BoundMember {
            node: *node,
            name: member.name.clone(),
            disk: member.disk,
            version: "1".into(),
            certificate_expires_ms: 9,
        };
        Plan {
            id: PlanId(state.next_plan),
            to: Strategy::Full,
            by: "user ann".into(),
            expires_ms: 1_000,
            predicted: Predicted { copy_bytes: 7, ..Predicted::default() },
            bound: Bound {
                epoch: state.epoch,
                members: state.members.iter().map(member).collect(),
            },
        }
    }

    fn keep(state: &mut ClusterState) -> PlanId {
        let plan = plan(state);
        let id = plan.id;
        assert!(matches!(state.apply(&MetaCommand::Plan(Box::new(plan))), MetaReply::Done { .. }));
        state.check().unwrap();
        id
    }

    fn begin(state: &mut ClusterState, plan: PlanId, now_ms: u64) -> MetaReply {
        let terms = Terms { plan: Some(plan), ..Terms::default() };
        let (to, by) = (Strategy::Full, "user ann".into());
        state.apply(&MetaCommand::Begin { to, by, commit_asked: false, now_ms, terms })
    }

    fn told(reply: MetaReply) -> String {
        match reply {
            MetaReply::Refused(error) => {
                assert_eq!(error.code, Code::PlanOutdated, "{error}");
                error.message
            }
            MetaReply::Done { .. } => panic!("it was not refused"),
        }
    }

    #[test]
    fn a_plan_starts_one_switch() {
        let mut state = formed();
        let id = keep(&mut state);
        assert_eq!(id, PlanId(1));
        assert!(matches!(begin(&mut state, id, 999), MetaReply::Done { .. }));
        assert_eq!(state.operation().and_then(|op| op.terms.plan), Some(id));
        assert!(state.plans.is_empty());
        let again = state.plan_for(id, Strategy::Full, 0).unwrap_err();
        assert!(again.message.contains("P-1 was used already"), "{again}");
        let never = state.plan_for(PlanId(2), Strategy::Full, 0).unwrap_err();
        assert!(never.message.contains("P-2 was never made"), "{never}");
    }

    #[test]
    fn a_plan_expires_and_leads_one_way() {
        let mut state = formed();
        let id = keep(&mut state);
        let late = told(begin(&mut state, id, 3_000));
        assert!(late.contains("expired 2 s ago"), "{late}");
        assert!(told(begin(&mut state, id, 1_000)).contains("expired 0 s ago"));
        let other = state.plan_for(id, Strategy::Sharded, 0).unwrap_err();
        assert!(other.message.contains("other strategy"), "{other}");
        assert!(state.plan_for(id, Strategy::Full, 999).is_ok());
        let listed = |now_ms| state.plan_heads(now_ms).remove(0);
        assert_eq!((listed(999).id, listed(999).copy_bytes, listed(999).outdated), (id, 7, None));
        assert_eq!(listed(3_000).outdated.as_deref(), Some("it expired 2 s ago"));
    }

    #[test]
    fn what_moved_is_named() {
        type Change = fn(&mut ClusterState);
        let cases: [(Change, &str); 4] = [
            (
                |state| {
                    state.apply(&MetaCommand::Set {
                        name: "reads.default".into(),
                        value: "local".into(),
                    });
                },
                "the epoch was 1 and is 2",
            ),
            (
                |state| {
                    state.apply(&MetaCommand::Rejoin { node: NodeId(2), disk: DiskId(77) });
                },
                "n2 is no member under that id",
            ),
            (
                |state| {
                    if let Some(member) = state.members.get_mut(&NodeId(3)) {
                        member.disk = DiskId(78);
                    }
                },
                "n3 has another disk",
            ),
            (
                |state| state.plans[0].bound.members.retain(|was| was.node != NodeId(4)),
                "n4 is a new member",
            ),
        ];
        for (change, what) in cases {
            let mut state = formed();
            keep(&mut state);
            change(&mut state);
            let id = state.plans[0].id;
            let listed = state.plan_heads(0).remove(0);
            assert!(listed.outdated.is_some_and(|why| why.contains(what)), "{what}");
            let message = told(begin(&mut state, id, 0));
            assert!(message.contains(what), "{message}");
            assert!(state.operations.is_empty());
        }
    }

    #[test]
    fn plans_are_few_and_numbers_are_never_used_again() {
        let mut state = formed();
        for i in 1..=2 * PLANS_MAX as u64 {
            assert_eq!(keep(&mut state), PlanId(i));
        }
        assert_eq!(state.plans.len(), PLANS_MAX);
        let old = state.plan_for(PlanId(1), Strategy::Full, 0).unwrap_err();
        assert!(old.message.contains("made room"), "{old}");
        let mut twin = plan(&state);
        twin.id = PlanId(3);
        let reply = state.apply(&MetaCommand::Plan(Box::new(twin)));
        assert!(matches!(reply, MetaReply::Refused(e) if e.code == Code::OperationConflict));
    }
}
