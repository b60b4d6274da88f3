//! What the guard does about what it saw, by values: each limit alone, the way from the first bad window to the
//! end, and what it must leave alone.

use super::*;
use crate::cluster::core::tests::record;
use crate::cluster::{MetaCommand, MetaReply};
use crate::types::{CopyId, Incarnation, NodeId, ShardId};
use crate::wire::client::Strategy;
use crate::wire::operation::{CopyReport, Lead, NodeReport};
use crate::wire::terms::Terms;

const NOW_MS: u64 = 1_000_000;

fn served(write_p99_ms: u64) -> ServiceLevel {
    let us = Some(write_p99_ms * 1_000);
    ServiceLevel { reads: 1_000, writes: 1_000, read_p99_us: us, write_p99_us: us, ..no_level() }
}

fn no_level() -> ServiceLevel {
    ServiceLevel::default()
}

fn window(level: ServiceLevel) -> Window {
    Window { level, ..Window::default() }
}

/// Full replication is being made, and 40 ms were the 99th percentile before it.
fn operation(phase: Phase) -> Operation {
    let mut state = ClusterState::default();
    state.apply(&MetaCommand::Form(record(3, 1, 12)));
    let (to, by) = (Strategy::Full, "test".to_owned());
    let terms = Terms::default();
    let begin = MetaCommand::Begin { to, by, commit_asked: false, terms, now_ms: 1 };
    assert!(matches!(state.apply(&begin), MetaReply::Done { .. }));
    let mut op = state.operation().unwrap().clone();
    op.phase = phase;
    op.guard.baseline = Some(served(40));
    op.times.committed_ms = (phase > Phase::Prepared).then_some(NOW_MS - 60_000);
    op
}

fn bad() -> Window {
    window(served(81))
}

fn good() -> Window {
    window(served(80))
}

fn step(op: &Operation, windows: &[Window]) -> Step {
    judge(op, windows, NOW_MS)
}

#[test]
fn three_bad_windows_in_a_row_halve_then_hold_then_abort() {
    let mut op = operation(Phase::Copying);
    assert_eq!(step(&op, &[bad(), bad()]), Step::Nothing);
    assert_eq!(step(&op, &[bad(), good(), bad()]), Step::Nothing);
    assert_eq!(step(&op, &[good(), good(), good()]), Step::Nothing);
    let Step::Halve(why) = step(&op, &[good(), bad(), bad(), bad()]) else { panic!() };
    assert_eq!(why, "p99 of writes is 81.0 ms (limit 80.0 ms, before the switch 40.0 ms)");
    op.guard.stage = Stage::Slowed;
    assert!(matches!(step(&op, &[bad(); 3]), Step::Hold(_)));
    (op.guard.stage, op.guard.holds) = (Stage::Held, 1);
    assert!(matches!(step(&op, &[bad(); 3]), Step::Abort(_)));
    assert_eq!(step(&op, &[good(); 3]), Step::Release);
    assert_eq!(step(&op, &[good(), bad(), good()]), Step::Nothing);
    (op.guard.stage, op.guard.holds) = (Stage::Slowed, HOLDS_MAX);
    assert!(matches!(step(&op, &[bad(); 3]), Step::Abort(_)), "it was held often enough");
}

#[test]
fn what_is_prepared_and_waits_for_its_operator_is_only_spoken_about() {
    let mut op = operation(Phase::Prepared);
    assert!(matches!(step(&op, &[bad(); 3]), Step::Alarm(_)));
    op.guard.alarm = Some("told".into());
    assert_eq!(step(&op, &[bad(); 3]), Step::Nothing, "it was told");
    assert_eq!(step(&op, &[good(); 3]), Step::Calm);
    op.guard.alarm = None;
    op.commit_asked = true;
    assert!(matches!(step(&op, &[bad(); 3]), Step::Halve(_)), "nobody waits any more");
}

#[test]
fn after_the_commit_point_it_goes_back_only_if_asked_and_only_in_time() {
    for phase in [Phase::Committing, Phase::Soaking] {
        let mut op = operation(phase);
        assert!(matches!(step(&op, &[bad(); 3]), Step::Alarm(_)), "{phase:?}");
        op.terms.auto_revert_within_ms = Some(60_000);
        assert!(matches!(step(&op, &[bad(); 3]), Step::Revert(_)), "{phase:?}");
        op.guard.alarm = Some("told".into());
        assert!(matches!(step(&op, &[bad(); 3]), Step::Revert(_)), "{phase:?}: told before");
        op.terms.auto_revert_within_ms = Some(59_999);
        assert_eq!(step(&op, &[bad(); 3]), Step::Nothing, "{phase:?}: too late");
        op.guard.alarm = None;
        assert!(matches!(step(&op, &[bad(); 3]), Step::Alarm(_)), "{phase:?}");
    }
}

#[test]
fn nothing_is_done_on_a_way_back_or_when_it_is_over() {
    use Phase::*;
    for phase in [Planned, Finalizing, Finalized, Aborting, Aborted, Reverting, Reverted] {
        let mut op = operation(phase);
        op.terms.auto_revert_within_ms = Some(u64::MAX);
        op.guard.alarm = Some("told".into());
        assert_eq!(step(&op, &[bad(); 3]), Step::Nothing, "{phase:?}");
    }
}

/// The complaint about one window.
fn complaint_of(terms: Terms, baseline: Option<ServiceLevel>, window: Window) -> Option<String> {
    let mut op = operation(Phase::Copying);
    (op.terms, op.guard.baseline) = (terms, baseline);
    complaint(&op, &window)
}

#[test]
fn a_percentile_is_judged_by_its_limit_else_by_twice_what_it_was_and_never_below_the_floor() {
    let none = Terms::default();
    let of = |terms: &Terms, before: Option<u64>, now: u64| {
        complaint_of(terms.clone(), before.map(served), window(served(now))).is_some()
    };
    assert!(!of(&none, Some(1), 50), "an idle cluster is not judged");
    assert!(of(&none, Some(1), 51));
    assert!(!of(&none, Some(40), 80) && of(&none, Some(40), 81));
    assert!(!of(&none, None, 5_000), "what was not measured before cannot have become worse");
    let own = Terms { max_p99_ms: Some(10), ..Terms::default() };
    assert!(of(&own, None, 11) && of(&own, Some(100), 11) && !of(&own, Some(100), 10));
    let unknown = window(ServiceLevel { write_p99_us: None, read_p99_us: None, ..served(0) });
    assert_eq!(complaint_of(own, Some(served(1)), unknown), None);
    let reads = ServiceLevel { write_p99_us: None, ..served(500) };
    let told = complaint_of(none, Some(served(40)), window(reads)).unwrap();
    assert!(told.starts_with("p99 of reads is 500.0 ms"), "{told}");
}

#[test]
fn errors_gaps_and_lag_are_bad_each_for_itself() {
    let none = Terms::default();
    let with_errors = |errors, writes| {
        let level = ServiceLevel { reads: 0, writes, errors, ..served(1) };
        complaint_of(none.clone(), Some(served(40)), window(level))
    };
    assert_eq!(with_errors(5, 995), None, "half a percent");
    let told = with_errors(6, 994).unwrap();
    assert_eq!(told, "0.60 % of requests fail (limit 0.50 %)");
    assert_eq!(with_errors(50, 49), None, "too few to tell");
    let own = Terms { max_error_rate_ppm: Some(10_000), ..Terms::default() };
    let level = ServiceLevel { reads: 0, writes: 990, errors: 10, ..served(1) };
    assert_eq!(complaint_of(own, None, window(level)), None);

    let gap = window(ServiceLevel { write_gap_ms: 301, ..served(1) });
    assert_eq!(complaint_of(none.clone(), None, gap), None, "no limit, no complaint");
    let own = Terms { max_write_gap_ms: Some(300), ..Terms::default() };
    let told = complaint_of(own, None, gap).unwrap();
    assert_eq!(told, "the longest write gap is 301 ms (limit 300 ms)");

    let lagging = |far, lag_growth| {
        let lag = Lag { entries: 10_000, far };
        complaint_of(none.clone(), None, Window { level: served(1), lag, lag_growth })
    };
    assert!(lagging(1, LAG_GROWTH_MIN).is_some());
    assert!(lagging(0, LAG_GROWTH_MIN).is_none() && lagging(1, LAG_GROWTH_MIN - 1).is_none());
}

#[test]
fn a_rate_is_halved_from_what_is_sent_or_may_be_sent_and_stays_above_the_least() {
    const MIB: u64 = 1 << 20;
    assert_eq!(halved(0, 8 * MIB), 4 * MIB, "unlimited: from what was sent");
    assert_eq!(halved(8 * MIB, 100 * MIB), 4 * MIB);
    assert_eq!(halved(8 * MIB, 2 * MIB), MIB, "a limit that is not reached is none");
    assert_eq!(halved(0, 0), COPY_BYTES_PER_S_MIN);
    assert_eq!(halved(1, 0), COPY_BYTES_PER_S_MIN);
}

#[test]
fn windows_are_of_one_turn_and_begin_anew_after_a_step() {
    let (start, lag) = (Instant::now(), |entries| Lag { entries, far: 1 });
    let mut op = operation(Phase::Copying);
    let mut watch = Watch::default();
    let at = |s: u64| start + Duration::from_secs(s);
    assert!(!watch.look(&op, served(1), lag(10), at(0)));
    assert!(!watch.look(&op, served(1), lag(900), at(4)));
    assert!(watch.look(&op, served(2), lag(110), at(5)));
    assert_eq!(watch.windows(), [Window { level: served(2), lag: lag(110), lag_growth: 100 }]);
    for i in 2..=5 {
        let ended =
            watch.look(&op, ServiceLevel { write_gap_ms: 70, ..served(i) }, lag(0), at(5 * i));
        assert!(ended);
    }
    assert_eq!(watch.windows().len(), WINDOWS);
    assert_eq!(watch.windows()[2].level.write_p99_us, Some(5_000));
    watch.acted();
    assert_eq!(watch.windows(), []);
    op.turn += 1;
    assert!(!watch.look(&op, served(9), lag(0), at(100)), "another turn begins its own windows");
    assert_eq!((watch.windows(), watch.gap_ms()), (&[][..], 70));
    op.id += 1;
    assert!(!watch.look(&op, served(9), lag(0), at(101)));
    assert_eq!(watch.gap_ms(), 0);
}

#[test]
fn only_copies_that_counted_before_can_lag() {
    let mut state = ClusterState::default();
    state.apply(&MetaCommand::Form(record(3, 1, 12)));
    let replica = state.of_role(Role::Replica)[0];
    let member = |copy, node, voter, matched, answered_ms, near| MemberReport {
        copy: CopyId(copy),
        node,
        voter,
        matched,
        answered_ms,
        near,
    };
    let members = vec![
        member(1, NodeId(1), true, 100, Some(0), true),
        member(2, replica, false, 40, Some(0), false),
        // A target that is being filled, and a voter that does not answer at all.
        member(3, NodeId(2), false, 0, Some(0), false),
        member(4, NodeId(3), true, 0, None, false),
    ];
    let lead = Lead { fence: (0, 0), joint: false, last_index: 100, members };
    let copy = CopyReport {
        shard: ShardId(0),
        incarnation: Incarnation(1),
        copy: CopyId(1),
        leader: None,
        table_bytes: 0,
        applied: 0,
        installed: 0,
        arriving_bytes: 0,
        lead: Some(lead),
    };
    let report = NodeReport {
        node: NodeId(1),
        clock_ms: 0,
        disk_free_bytes: 0,
        disk_total_bytes: 0,
        map_bytes_max: 0,
        version: String::new(),
        certificate_expires_ms: 0,
        load: Default::default(),
        copies: vec![copy],
        service: served(3),
        copied_bytes: 0,
    };
    let seen = Seen { reports: [(NodeId(1), report)].into(), ..Seen::default() };
    assert_eq!(lag(&state, &seen), Lag { entries: 60, far: 1 });
    assert_eq!(level(&seen), served(3));
}
