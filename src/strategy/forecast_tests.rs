//! Forecasts by value.

use super::super::checks::tests::{NOW_MS, formed, well};
use super::super::core::Seen;
use super::*;
use crate::cluster::ClusterState;

const MIB: u64 = 1 << 20;

fn forecast(state: &ClusterState, seen: &Seen, to: Strategy) -> Forecast {
    of(&Bench { state, seen, to, now_ms: NOW_MS })
}

#[test]
fn every_primary_gets_what_it_lacks_and_sends_what_it_leads() {
    let state = formed(3);
    let forecast = forecast(&state, &well(&state), Strategy::Full);
    let moved: Vec<(u64, u64)> =
        forecast.nodes.iter().map(|node| (node.in_bytes / MIB, node.out_bytes / MIB)).collect();
    // Six shards of 10 MiB: each primary leads two, lacks four, and sends its two to two others.
    assert_eq!(moved, [(40, 40), (40, 40), (40, 40), (0, 0)]);
    let (sent, got) = forecast
        .nodes
        .iter()
        .fold((0, 0), |sum, node| (sum.0 + node.out_bytes, sum.1 + node.in_bytes));
    assert_eq!(sent, got);
}

#[test]
fn the_slowest_copy_and_the_digests_make_the_time() {
    let state = formed(3);
    let mut seen = well(&state);
    let usual = forecast(&state, &seen, Strategy::Full);
    // 40 MiB at half of 360 MiB/s; meanwhile digests of 60 MiB at 400 MiB/s, of which the last one is left; six
    // rounds, two entries of 7 ms.
    assert_eq!(usual.took_ms, 222 + 150 / 6 + 300 + 14);
    assert_eq!(usual.write_gap_ms, 14);
    let probe = seen.probed.as_mut().unwrap().reports.get_mut(&NodeId(2)).unwrap();
    probe.disk.as_mut().unwrap().write_bytes_per_s = 20 * MIB;
    let slower = forecast(&state, &seen, Strategy::Full);
    // A quarter of a mebibyte in 12.5 ms, 0.8 ms of which it would take without any bytes.
    let copy_ms = (40.0 * (12.5 - 0.8) / 0.25 / 0.45) as u64;
    assert!((slower.took_ms - usual.took_ms).abs_diff(copy_ms - 222) <= 5, "{slower:?}");
}

#[test]
fn a_rate_that_is_set_bounds_the_copies() {
    let mut state = formed(3);
    state.settings.insert("copy.bytes_per_s".into(), "1MiB".into());
    let bounded = forecast(&state, &well(&state), Strategy::Full);
    let rate = bounded.nodes[0].copy_bytes_per_s.unwrap();
    assert!((MIB * 8 / 10..=MIB).contains(&rate), "{rate}");
    assert!(bounded.took_ms > 40_000, "{bounded:?}");
}

#[test]
fn copies_that_never_end_are_told_as_such() {
    let state = formed(3);
    let mut seen = well(&state);
    seen.reports.get_mut(&NodeId(1)).unwrap().load.write_bytes_per_s = 500 * MIB;
    let endless = forecast(&state, &seen, Strategy::Full);
    assert_eq!(endless.took_ms, TOOK_MS_MAX);
    assert!(endless.nodes.iter().all(|node| node.disk_peak_bytes < 100 * MIB), "{endless:?}");
    seen.probed = None;
    let blind = forecast(&state, &seen, Strategy::Full);
    assert!(blind.nodes.iter().all(|node| node.copy_bytes_per_s.is_none()));
    assert_eq!(blind.took_ms, TOOK_MS_MAX);
}

#[test]
fn towards_sharded_nothing_is_copied() {
    let state = formed(3);
    let back = forecast(&state, &well(&state), Strategy::Sharded);
    assert!(back.nodes.iter().all(|n| n.in_bytes + n.out_bytes + n.disk_peak_bytes == 0));
    assert_eq!(back.took_ms, 150 + 300 + 14);
}

#[test]
fn while_clients_are_served_copies_make_way_and_shards_are_compared_one_by_one() {
    let state = formed(3);
    let mut seen = well(&state);
    seen.reports.get_mut(&NodeId(2)).unwrap().load.ops_per_s = limits::SERVING_OPS_PER_S;
    let compared_ms = 10 * 150 + 6 * COMPARISON_MS;
    assert_eq!(forecast(&state, &seen, Strategy::Sharded).took_ms, compared_ms + 300 + 14);
    let full = forecast(&state, &seen, Strategy::Full);
    let copied_per_s = full.nodes[0].copy_bytes_per_s.unwrap();
    assert_eq!(copied_per_s / MIB, 360 * 20 / 100 - 1);
    let copy_ms = 40 * MIB * 1_000 / copied_per_s;
    assert!(copy_ms < compared_ms);
    assert_eq!(full.took_ms, compared_ms + copy_ms / 2 + compared_ms / 6 + 300 + 14);
}

#[test]
fn what_is_written_meanwhile_takes_room_too() {
    let state = formed(3);
    let mut seen = well(&state);
    let before = forecast(&state, &seen, Strategy::Full);
    let quiet = before.disk_peak_bytes(NodeId(2));
    seen.reports.get_mut(&NodeId(1)).unwrap().load.write_bytes_per_s = 45 * MIB;
    let busy = forecast(&state, &seen, Strategy::Full).disk_peak_bytes(NodeId(2));
    // Each byte that is written until the end counts twice: copies and comparisons go on until then.
    assert_eq!((busy - quiet) / MIB, 45 * 2 * before.took_ms / 1_000);
}
