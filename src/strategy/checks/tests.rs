//! Every check by value: a cluster that is well, one thing that is not, and what is said about it.

use super::*;
use crate::cluster::core::tests::record;
use crate::cluster::{Event, MetaCommand, MetaReply};
use crate::strategy::core::Probed;
use crate::types::{CopyId, NodeId};
use crate::wire::operation::{Lead, MemberReport};
use crate::wire::plan::{DiskProbe, LoadReport, PeerProbe};
use crate::wire::terms::Terms;
use std::collections::BTreeSet;

pub(in crate::strategy) const NOW_MS: u64 = 1_700_000_000_000;
const MIB: u64 = 1 << 20;

/// Formed, and nothing ever happened to it.
pub(in crate::strategy) fn formed(primaries: u64) -> ClusterState {
    let mut state = ClusterState::default();
    let formed = state.apply(&MetaCommand::Form(record(primaries, 1, 6)));
    assert!(matches!(formed, MetaReply::Done { .. }));
    state
}

/// Everybody answers, and is well: tables of 10 MiB, fast disks, a fast network, little to do.
pub(in crate::strategy) fn well(state: &ClusterState) -> Seen {
    let nodes = || state.members.keys().copied();
    let reports = nodes().map(|node| (node, report(state, node))).collect();
    let probed = Probed { reports: nodes().map(|n| (n, probe(state, n))).collect(), age_ms: 2_000 };
    Seen { reports, probed: Some(probed), ..Seen::default() }
}

fn report(state: &ClusterState, node: NodeId) -> NodeReport {
    let led = state.shards.iter().filter(|shard| shard.owner == node);
    let copies = led.map(|shard| CopyReport {
        shard: shard.id,
        incarnation: shard.incarnation,
        copy: shard.copies[0].id,
        leader: Some(shard.copies[0].id),
        table_bytes: 10 * MIB,
        applied: 9,
        installed: 0,
        arriving_bytes: 0,
        lead: Some(Lead {
            fence: (0, 0),
            joint: false,
            last_index: 9,
            members: shard.copies.iter().map(|c| member(c.id, c.node, c.voter)).collect(),
        }),
    });
    NodeReport {
        node,
        clock_ms: NOW_MS,
        disk_free_bytes: 50 << 30,
        disk_total_bytes: 100 << 30,
        map_bytes_max: 16 << 30,
        version: "1.0".into(),
        certificate_expires_ms: NOW_MS + 90 * CERTIFICATE_LEFT_MS,
        load: LoadReport { window_ms: 10_000, cpu_percent: 10, ..LoadReport::default() },
        copies: copies.collect(),
        service: Default::default(),
        copied_bytes: 0,
    }
}

fn member(copy: CopyId, node: NodeId, voter: bool) -> MemberReport {
    MemberReport { copy, node, voter, matched: 9, answered_ms: Some(10), near: true }
}

fn probe(state: &ClusterState, node: NodeId) -> ProbeReport {
    let others = state.members.keys().filter(|other| **other != node);
    let way = |other: &NodeId| PeerProbe {
        node: *other,
        asked: 20,
        lost: 0,
        rtt_us: 400,
        rtt_worst_us: 2_000,
        bytes_per_s: 400 * MIB,
    };
    let disk = DiskProbe { write_bytes_per_s: 200 * MIB, sync_us: 800, sync_worst_us: 5_000 };
    ProbeReport { disk: Ok(disk), peers: others.map(way).collect() }
}

/// A check, its node, and what it says.
type Said = (String, Option<String>, Verdict);

fn said(name: &str, node: &str, verdict: Verdict) -> Said {
    (name.to_owned(), (!node.is_empty()).then(|| node.to_owned()), verdict)
}

/// All that is not a plain yes to a start.
fn told(state: &ClusterState, seen: &Seen, to: Strategy) -> Vec<Said> {
    let checks = at_start(state, seen, to, NOW_MS);
    for check in &checks {
        assert!(NAMES.iter().any(|(name, _)| *name == check.name), "{check:?}");
        assert!(!check.value.is_empty() && !check.limit.is_empty(), "{check:?}");
        let remarks = check.name == "off_peak";
        assert!(remarks || (check.verdict == Verdict::Go) == check.message.is_empty(), "{check:?}");
    }
    let not_go = checks.into_iter().filter(|check| check.verdict != Verdict::Go);
    not_go.map(|c| (c.name, c.node.map(|node| node.to_string()), c.verdict)).collect()
}

/// After one thing was changed in a cluster that is well, exactly these say so.
fn check(change: impl FnOnce(&mut Seen), expected: &[(&str, &str, Verdict)]) {
    let state = formed(3);
    let mut seen = well(&state);
    change(&mut seen);
    let found = told(&state, &seen, Strategy::Full);
    let expected: Vec<Said> =
        expected.iter().map(|(name, node, verdict)| said(name, node, *verdict)).collect();
    assert_eq!(found, expected);
}

fn of(seen: &mut Seen, node: u64) -> &mut NodeReport {
    seen.reports.get_mut(&NodeId(node)).unwrap()
}

fn probe_of(seen: &mut Seen, node: u64) -> &mut ProbeReport {
    seen.probed.as_mut().unwrap().reports.get_mut(&NodeId(node)).unwrap()
}

use Verdict::{NoGo, Warn};

#[test]
fn a_cluster_that_is_well_may_switch() {
    check(|_| (), &[]);
    let state = formed(3);
    let checks = at_start(&state, &well(&state), Strategy::Full, NOW_MS);
    assert_eq!(verdict(&checks), Verdict::Go);
    let ages: Vec<u64> = checks.iter().filter(|c| c.name == "network").map(|c| c.age_ms).collect();
    assert_eq!(ages, [2_000; 4], "what was probed has the age of the probe");
}

#[test]
fn only_what_was_measured_is_worth_another_probe() {
    let state = formed(3);
    let held = |skipped: &[String], change: fn(&mut Seen)| {
        let mut seen = well(&state);
        change(&mut seen);
        let held = at_commit(&state, &seen, Strategy::Full, skipped, NOW_MS).is_some();
        (held, is_held_by_probe(&state, &seen, (Strategy::Full, skipped), NOW_MS))
    };
    assert_eq!(held(&[], |_| ()), (false, false));
    assert_eq!(held(&[], |seen| of(seen, 1).load.cpu_percent = 99), (true, false));
    let slow = |seen: &mut Seen| probe_of(seen, 1).peers[0].bytes_per_s = 1;
    assert_eq!(held(&[], slow), (true, true));
    assert_eq!(held(&["network".to_owned()], slow), (false, false));
}

#[test]
fn a_primary_that_is_down_is_named_with_what_hangs_on_it() {
    let change = |seen: &mut Seen| drop(seen.reports.remove(&NodeId(2)));
    check(
        change,
        &[
            ("members", "n2", NoGo),
            ("leaders", "", NoGo),
            ("replica_lag", "n4", NoGo),
            ("disk", "n2", NoGo),
            ("map_space", "n2", NoGo),
            ("load", "n2", NoGo),
            ("copy_rate", "n2", NoGo),
            ("way_back", "", NoGo),
        ],
    );
}

#[test]
fn nothing_is_taken_for_granted_that_was_not_measured() {
    let state = formed(3);
    for age_ms in [None, Some(PROBE_OLD_MS + 1)] {
        let mut seen = well(&state);
        seen.probed = seen.probed.zip(age_ms).map(|(p, age_ms)| Probed { age_ms, ..p });
        let no: Vec<_> = told(&state, &seen, Strategy::Full);
        let names: BTreeSet<&str> = no.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["copy_rate", "disk_speed", "network", "write_load"]));
        assert!(no.iter().all(|(_, _, verdict)| *verdict == NoGo));
    }
    check(
        |seen| probe_of(seen, 3).peers.retain(|peer| peer.node != NodeId(1)),
        &[("network", "n3", NoGo), ("copy_rate", "n1", NoGo)],
    );
    check(
        |seen| probe_of(seen, 1).disk = Err("the disk is full".into()),
        &[("disk_speed", "n1", NoGo), ("copy_rate", "n1", NoGo), ("write_load", "n1", NoGo)],
    );
}

#[test]
fn a_clock_a_version_and_a_certificate() {
    check(|seen| of(seen, 3).clock_ms += CLOCK_OFF_MS, &[]);
    check(|seen| of(seen, 3).clock_ms += CLOCK_OFF_MS + 1, &[("clocks", "n3", NoGo)]);
    // A report that came before somebody else was waited for is judged by the time it came.
    let early = |seen: &mut Seen| {
        seen.arrived_ms.insert(NodeId(3), NOW_MS - 2 * CLOCK_OFF_MS);
    };
    check(
        |seen| {
            early(seen);
            of(seen, 3).clock_ms -= 2 * CLOCK_OFF_MS;
        },
        &[],
    );
    check(early, &[("clocks", "n3", NoGo)]);
    check(|seen| of(seen, 2).version = "1.1".into(), &[("versions", "n2", NoGo)]);
    let state = formed(3);
    let mut halves = well(&state);
    (of(&mut halves, 1).version, of(&mut halves, 2).version) = ("1.1".into(), "1.1".into());
    let named = told(&state, &halves, Strategy::Full);
    assert_eq!(named.len(), 4, "of two halves none is right: {named:?}");
    let expires = |ms: u64| move |seen: &mut Seen| of(seen, 4).certificate_expires_ms = NOW_MS + ms;
    check(expires(CERTIFICATE_LEFT_MS), &[]);
    check(expires(CERTIFICATE_LEFT_MS - 1), &[("certificates", "n4", NoGo)]);
    check(expires(0), &[("certificates", "n4", NoGo)]);
}

#[test]
fn a_certificate_has_to_outlast_the_switch_three_times() {
    let state = formed(3);
    let mut seen = well(&state);
    // A day of copying at 1 MiB/s.
    for report in seen.reports.values_mut() {
        report.disk_total_bytes = 100 << 40;
        report.disk_free_bytes = 90 << 40;
        report.map_bytes_max = 1 << 50;
        report.copies.iter_mut().for_each(|copy| copy.table_bytes = 24 * 3600 * MIB / 4);
        report.certificate_expires_ms = NOW_MS + 2 * CERTIFICATE_LEFT_MS;
    }
    for probe in seen.probed.as_mut().unwrap().reports.values_mut() {
        let disk = probe.disk.as_mut().unwrap();
        disk.write_bytes_per_s = 2 * MIB + MIB / 4;
    }
    let found = told(&state, &seen, Strategy::Full);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|(name, _, verdict)| name == "certificates" && *verdict == NoGo));
}

#[test]
fn a_disk_has_room_for_the_peak_and_a_tenth_beside_it() {
    let state = formed(3);
    let seen = well(&state);
    let bench = Bench { state: &state, seen: &seen, to: Strategy::Full, now_ms: NOW_MS };
    let peak = bench.forecast().disk_peak_bytes(NodeId(2));
    // Four tables come, 10 % more while they are installed; the two it leads are staged.
    assert_eq!(peak, 4 * 11 * MIB + 2 * 10 * MIB);
    let need = peak * 120 / 100;
    let free = |bytes: u64| move |seen: &mut Seen| of(seen, 2).disk_free_bytes = bytes;
    check(free((10 << 30) + 2 * need), &[]);
    check(free((10 << 30) + need + need / 10), &[("disk", "n2", Warn)]);
    check(free((10 << 30) + need - 1), &[("disk", "n2", NoGo)]);
    let state = formed(3);
    let mut small = well(&state);
    of(&mut small, 2).disk_free_bytes = (10 << 30) - 5 * MIB;
    let checks = at_start(&state, &small, Strategy::Full, NOW_MS);
    let no = checks.iter().find(|check| is_no(check)).unwrap();
    let short = need.div_ceil(MIB) + 5;
    assert_eq!(no.message, format!("free {short}MiB more on its data folder's disk"));
}

#[test]
fn a_map_that_is_too_small_is_told() {
    let map = |bytes: u64| move |seen: &mut Seen| of(seen, 3).map_bytes_max = bytes;
    check(map(20 * MIB), &[]);
    check(map(14 * MIB), &[("map_space", "n3", Warn)]);
    check(map(12 * MIB), &[("map_space", "n3", NoGo)]);
}

#[test]
fn a_node_that_is_busy_is_left_alone() {
    check(|seen| of(seen, 1).load.cpu_percent = LOAD_PERCENT_MAX - 1, &[]);
    check(|seen| of(seen, 1).load.cpu_percent = LOAD_PERCENT_MAX, &[("load", "n1", NoGo)]);
    check(|seen| of(seen, 4).load.queue_percent = 99, &[("load", "n4", NoGo)]);
    check(|seen| of(seen, 2).load.window_ms = 0, &[("load", "n2", NoGo)]);
}

#[test]
fn a_replica_that_lags_or_is_silent_is_told() {
    let behind = |change: fn(&mut MemberReport)| {
        move |seen: &mut Seen| {
            let leads = of(seen, 1).copies.iter_mut().filter_map(|copy| copy.lead.as_mut());
            let members = leads.flat_map(|lead| &mut lead.members);
            members.filter(|member| member.node == NodeId(4)).for_each(change);
        }
    };
    check(behind(|m| m.near = false), &[("replica_lag", "n4", NoGo)]);
    check(behind(|m| m.answered_ms = Some(1_001)), &[("replica_lag", "n4", NoGo)]);
    check(behind(|m| m.answered_ms = None), &[("replica_lag", "n4", NoGo)]);
}

#[test]
fn the_network_is_judged_way_by_way() {
    let way = |change: fn(&mut PeerProbe)| {
        move |seen: &mut Seen| probe_of(seen, 2).peers.iter_mut().skip(1).take(1).for_each(change)
    };
    check(way(|peer| peer.lost = 1), &[("network", "n2", NoGo)]);
    check(way(|peer| peer.rtt_us = RTT_MAX_US), &[]);
    check(way(|peer| peer.rtt_us = RTT_MAX_US + 1), &[("network", "n2", NoGo)]);
    check(way(|peer| peer.rtt_worst_us = 300_000), &[("network", "n2", Warn)]);
    check(way(|peer| peer.bytes_per_s = MIB - 1), &[("network", "n2", NoGo)]);
    let state = formed(3);
    let mut seen = well(&state);
    probe_of(&mut seen, 2).peers[1].lost = 2;
    let checks = at_start(&state, &seen, Strategy::Full, NOW_MS);
    let no = checks.iter().find(|check| is_no(check)).unwrap();
    assert!(no.value.starts_with("to n3: 2 of 20 lost"), "{no:?}");
    // What is written and copied has to fit twice.
    let mut seen = well(&state);
    of(&mut seen, 1).load.write_bytes_per_s = 201 * MIB;
    let names = told(&state, &seen, Strategy::Full);
    assert!(names.iter().any(|(name, ..)| name == "network"), "{names:?}");
}

#[test]
fn copies_have_to_outrun_what_is_written() {
    // Copies come at 72 MiB/s: a fifth of what a network at 400 MiB/s does beside a process that takes a tenth.
    let written = |mib: u64| {
        move |seen: &mut Seen| {
            let load = &mut of(seen, 1).load;
            (load.write_bytes_per_s, load.ops_per_s) = (mib * MIB, 1_000);
        }
    };
    check(written(40), &[]);
    check(written(56), &[("copy_rate", "n2", Warn), ("copy_rate", "n3", Warn)]);
    check(written(61), &[("copy_rate", "n2", NoGo), ("copy_rate", "n3", NoGo)]);
    // Towards `sharded` nothing is copied and nobody writes more than before.
    let state = formed(3);
    let mut seen = well(&state);
    written(61)(&mut seen);
    let found = at_start(&state, &seen, Strategy::Sharded, NOW_MS);
    assert!(!found.iter().any(|check| ["copy_rate", "write_load"].contains(&check.name.as_str())));
}

#[test]
fn every_disk_has_to_bear_what_all_write() {
    let slow = |seen: &mut Seen| {
        let disk = probe_of(seen, 3).disk.as_mut().unwrap();
        disk.write_bytes_per_s = 40 * MIB;
        of(seen, 1).load.write_bytes_per_s = 5 * MIB;
        of(seen, 2).load.write_bytes_per_s = 5 * MIB;
        of(seen, 3).load.write_bytes_per_s = 20 * MIB;
    };
    let state = formed(3);
    let mut seen = well(&state);
    slow(&mut seen);
    let found = told(&state, &seen, Strategy::Full);
    assert!(found.contains(&said("write_load", "n3", NoGo)), "{found:?}");
}

#[test]
fn a_busy_hour_is_only_a_warning_and_little_history_says_so() {
    let busy = |minutes: u32| {
        move |seen: &mut Seen| {
            let load = &mut of(seen, 1).load;
            (load.ops_per_s, load.ops_per_s_p50, load.ops_per_s_p95) = (900, 100, 800);
            for report in seen.reports.values_mut() {
                report.load.history_minutes = minutes;
            }
        }
    };
    check(busy(24 * 60), &[("off_peak", "", Warn)]);
    check(busy(9), &[]);
    let state = formed(3);
    for (minutes, says) in [(9, "only 9 minutes of history"), (60, "by only 60 minutes of history")]
    {
        let mut seen = well(&state);
        busy(minutes)(&mut seen);
        let checks = at_start(&state, &seen, Strategy::Full, NOW_MS);
        let off_peak = checks.iter().find(|check| check.name == "off_peak").unwrap();
        assert!(off_peak.message.contains(says), "{off_peak:?}");
    }
}

#[test]
fn too_few_primaries_are_refused_or_told() {
    let state = formed(1);
    let found = told(&state, &well(&state), Strategy::Full);
    assert_eq!(found[0], said("operation", "", NoGo));
    assert_eq!(found[1], said("redundancy", "", NoGo));
    let state = formed(2);
    assert_eq!(told(&state, &well(&state), Strategy::Full), [said("redundancy", "", Warn)]);
}

#[test]
fn one_operation_at_a_time() {
    let mut state = formed(3);
    let (to, by, terms) = (Strategy::Full, "user ann".into(), Terms::default());
    state.apply(&MetaCommand::Begin { to, by, commit_asked: false, now_ms: NOW_MS, terms });
    let found = told(&state, &well(&state), Strategy::Full);
    assert_eq!(found, [said("operation", "", NoGo)]);
    let (event, now_ms) = (Event::Abort { reason: "r".into() }, NOW_MS);
    state.apply(&MetaCommand::Advance { operation: 1, step: 1, event, now_ms });
    assert_eq!(told(&state, &well(&state), Strategy::Full).len(), 1, "it is still on its way out");
}

#[test]
fn what_is_skipped_does_not_count_and_some_things_cannot_be() {
    let state = formed(3);
    let mut seen = well(&state);
    of(&mut seen, 1).load.cpu_percent = 99;
    of(&mut seen, 2).clock_ms = 0;
    let mut checks = at_start(&state, &seen, Strategy::Full, NOW_MS);
    assert!(refusal(&checks).starts_with("clocks on n2: "), "{}", refusal(&checks));
    skip(&mut checks, &["load".into()]);
    assert_eq!(verdict(&checks), NoGo);
    assert!(!refusal(&checks).contains("load"));
    skip(&mut checks, &["load".into(), "clocks".into()]);
    assert_eq!((verdict(&checks), refusal(&checks)), (Verdict::Go, String::new()));
    seen.reports.remove(&NodeId(2));
    let text = refusal(&at_start(&state, &seen, Strategy::Full, NOW_MS));
    assert!(text.starts_with("members on n2: ") && text.ends_with(" more"), "{text}");
    assert_eq!(text.matches(" (limit ").count(), REFUSAL_CHECKS_MAX, "{text}");
    assert!(may_skip(&["load".into(), "off_peak".into()]).is_ok());
    for (name, says) in [
        ("members", "never skipped"),
        ("operation", "never skipped"),
        ("redundancy", "never skipped"),
        ("leaders", "never skipped"),
        ("disc", "there is no check `disc`"),
        ("", "there is no check"),
    ] {
        let error = may_skip(&[name.to_owned()]).unwrap_err();
        assert!(error.code == Code::BadRequest && error.message.contains(says), "{error}");
    }
}

#[test]
fn before_the_commit_the_same_is_asked_again() {
    let state = formed(3);
    let at =
        |seen: &Seen, skipped: &[String]| at_commit(&state, seen, Strategy::Full, skipped, NOW_MS);
    assert_eq!(at(&well(&state), &[]), None);
    type Change = fn(&mut Seen);
    let changes: [(Change, &str); 7] = [
        (|seen| drop(seen.reports.remove(&NodeId(4))), "members on n4"),
        (|seen| of(seen, 1).clock_ms = 0, "clocks on n1"),
        (|seen| of(seen, 1).version = "2".into(), "versions on n1"),
        (|seen| of(seen, 2).certificate_expires_ms = NOW_MS, "certificates on n2"),
        (|seen| of(seen, 3).disk_free_bytes = 0, "disk on n3"),
        (|seen| of(seen, 3).load.cpu_percent = 90, "load on n3"),
        (|seen| seen.probed = None, "network on n1"),
    ];
    for (change, says) in changes {
        let mut seen = well(&state);
        change(&mut seen);
        let why = at(&seen, &[]).unwrap();
        assert!(why.starts_with(says), "{why}");
    }
    let mut seen = well(&state);
    of(&mut seen, 3).load.cpu_percent = 90;
    assert_eq!(at(&seen, &["load".to_owned()]), None);
}

#[test]
fn shares_round_up_and_nothing_of_nothing_is_none() {
    assert_eq!((percent(0, 0), percent(1, 0), percent(0, 5)), (0, u32::MAX, 0));
    assert_eq!((percent(1, 1_000), percent(99, 100), percent(u64::MAX, 1)), (1, 99, u32::MAX));
}
