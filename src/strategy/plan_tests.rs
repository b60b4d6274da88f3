//! What a plan is made of, and what it notices.

use super::super::checks::tests::{NOW_MS, formed, well};
use super::*;
use crate::types::NodeId;
use crate::wire::plan::Field;

#[test]
fn a_plan_is_bound_to_the_world_it_was_made_for() {
    let state = formed(3);
    let seen = well(&state);
    let found = precheck(&state, &seen, Strategy::Full, &[], NOW_MS);
    assert_eq!(found.verdict, Verdict::Go);
    assert_eq!(found.predicted.copy_bytes, (3 * 40) << 20);
    assert_eq!(found.predicted.nodes.len(), 4);
    let plan = of(&state, &seen, &found, "user ann", NOW_MS).unwrap();
    assert_eq!((plan.id, plan.bound.epoch), (PlanId(1), 1));
    assert_eq!(plan.expires_ms, NOW_MS + 15 * 60 * 1_000);
    assert_eq!(plan.bound.members.len(), 4);
    still_holds(&plan, &seen).unwrap();

    let mut moved = well(&state);
    moved.reports.get_mut(&NodeId(3)).unwrap().version = "1.1".into();
    let error = still_holds(&plan, &moved).unwrap_err();
    assert_eq!(error.code, Code::PlanOutdated);
    assert!(error.message.contains("P-1: n3 ran 1.0 and runs 1.1"), "{error}");
    let mut moved = well(&state);
    moved.reports.get_mut(&NodeId(4)).unwrap().certificate_expires_ms += 1;
    let error = still_holds(&plan, &moved).unwrap_err();
    assert!(error.message.contains("n4 has another certificate"), "{error}");
}

#[test]
fn nothing_that_may_not_start_has_a_plan() {
    let state = formed(3);
    let mut seen = well(&state);
    seen.reports.get_mut(&NodeId(2)).unwrap().load.cpu_percent = 90;
    let found = precheck(&state, &seen, Strategy::Full, &[], NOW_MS);
    assert_eq!(
        (found.verdict, found.field(Field::EnoughResources)),
        (Verdict::NoGo, Verdict::NoGo)
    );
    assert_eq!(found.field(Field::SystemHealthy), Verdict::Go);
    assert_eq!(found.impact_percent(), 113, "90 of 80 percent");
    assert_eq!(of(&state, &seen, &found, "user ann", NOW_MS), None);
    let skipped = precheck(&state, &seen, Strategy::Full, &["load".into()], NOW_MS);
    assert_eq!(skipped.verdict, Verdict::Go);
    assert!(of(&state, &seen, &skipped, "user ann", NOW_MS).is_some());
}
