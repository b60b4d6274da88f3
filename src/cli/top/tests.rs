//! The screen by values: what was seen is drawn, in its place, on a terminal of any size.

use super::super::testing::{Twin, name, operation, progress};
use super::look::{Snapshot, look};
use super::place::{Page, Place};
use super::screen::draw;
use crate::types::{Incarnation, ShardId};
use crate::wire::alarm::{Alarm, Severity};
use crate::wire::breaker::{BreakerSeen, BreakerState, PeerBreaker, PeerClass};
use crate::wire::client::{Map, MapShard, Role, Strategy};
use crate::wire::command::{CopyLag, NodeStatus, Status};
use crate::wire::guard::ServiceLevel;
use crate::wire::load::{Counts, NodeStats};
use crate::wire::operation::{Phase, StrategyView};
use crate::wire::plan::LoadReport;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::sync::Arc;

fn stats(node: &str) -> NodeStats {
    let counts = Counts { window_ms: 2_000, reads: 2_468, writes: 100, ..Counts::default() };
    NodeStats {
        node: name(node),
        counts,
        service: ServiceLevel { write_p99_us: Some(12_300), ..ServiceLevel::default() },
        load: LoadReport { cpu_percent: 61, ..LoadReport::default() },
        load_percent: 7,
        requests: 3,
        lag_entries: Some(17),
    }
}

fn snapshot() -> Snapshot {
    let node = |text: &str, role, up| NodeStatus {
        name: name(text),
        role,
        addr: String::new(),
        up,
        shards_owned: 1,
        copies: 2,
    };
    let alarm = Alarm {
        name: "node_down".into(),
        severity: Severity::Critical,
        subject: "n2".into(),
        message: "n2 is not heard".into(),
        fix: "start it".into(),
        since_ms: 1_699_999_939_000,
        seen_by: vec![],
    };
    let status = Status {
        cluster: "shop".into(),
        epoch: 42,
        strategy: Strategy::Sharded,
        answered_by: name("n1"),
        metadata_leader: Some(name("n1")),
        nodes: vec![
            node("n1", Role::Primary, true),
            node("n2", Role::Primary, false),
            node("r1", Role::Replica, true),
        ],
        shards_leaderless: vec![ShardId(1)],
        may_fail_without_loss: 0,
        messages: vec![],
        alarms: vec![alarm],
        switches: Default::default(),
    };
    let shard = |id| MapShard {
        id: ShardId(id),
        incarnation: Incarnation(1),
        owner: name(["n1", "n2"][usize::from(id % 2)]),
        copies: vec![name("n1"), name("r1")],
    };
    let lag = |node: &str, state: &str, matched| CopyLag {
        shard: ShardId(0),
        node: name(node),
        state: state.into(),
        leader_index: 90,
        matched,
    };
    let breaker = |open| PeerBreaker {
        peer: name(if open { "n2" } else { "r1" }),
        class: PeerClass::Control,
        seen: BreakerSeen {
            state: if open { BreakerState::Open } else { BreakerState::Closed },
            is_open: open,
            calls: 10,
            error_count: 9,
            slow_request_count: 0,
            last_failure_time: None,
            opened_total: 1,
            reason: open.then(|| "9 of 10 calls failed".into()),
            forced_until: None,
        },
    };
    Snapshot {
        at_ms: 1_700_000_000_000,
        status: Some(status),
        error: None,
        map: Some(Arc::new(Map {
            epoch: 42,
            shards: (0..40).map(shard).collect(),
            ..Map::default()
        })),
        stats: vec![stats("n1")],
        breakers: vec![(name("n1"), breaker(false)), (name("n1"), breaker(true))],
        lag: vec![
            lag("n1", "leader", Some(90)),
            lag("n3", "voter", Some(89)),
            lag("r1", "learner", Some(78)),
            lag("r2", "learner", None),
        ],
        strategy: None,
    }
}

/// The lines of a screen of that size.
fn drawn(seen: &Snapshot, place: &mut Place, size: (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, seen, place, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..size.1).map(|y| line(y).trim_end().to_owned()).collect()
}

fn page(page: Page) -> Vec<String> {
    drawn(&snapshot(), &mut Place { page, ..Place::default() }, (80, 12))
}

#[test]
fn nodes_are_shown_with_their_numbers_and_one_that_is_down_as_such() {
    let lines = page(Page::Nodes);
    assert_eq!(
        lines[0],
        "shop  sharded  epoch 42  2 of 3 up, 1 alarms  n1 coordinates  2023-11-14T22:13:2"
    );
    assert_eq!(lines[1], " 1 nodes  2 shards  3 breakers  4 alarms");
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let n1 = ["n1", "prim", "up", "1234", "50", "0.0", "-", "12.3", "61", "7", "17"];
    assert_eq!(cells(&lines[3]), n1);
    assert_eq!(cells(&lines[4])[..4], ["n2", "prim", "DOWN", "-"]);
    assert_eq!(cells(&lines[5])[..4], ["r1", "repl", "slow", "-"]);
    assert!(lines[11].starts_with("q ends"), "{lines:?}");
}

#[test]
fn shards_are_shown_with_the_copy_that_is_furthest_behind_and_scroll() {
    let lines = page(Page::Shards);
    assert_eq!(lines[3], "s0     n1        led       12       r1        n1 r1");
    assert_eq!(lines[4], "s1     n2        NO LEADER -        -         n1 r1");
    let mut place = Place { page: Page::Shards, scrolled: 900, ..Place::default() };
    let lines = drawn(&snapshot(), &mut place, (80, 12));
    assert!(lines[10].starts_with("s39 "), "{lines:?}");
    assert_eq!((place.rows, place.scrolled), (8, 32));
}

#[test]
fn breakers_that_are_open_come_first_and_alarms_say_what_can_be_done() {
    let lines = page(Page::Breakers);
    assert!(lines[3].starts_with("n1        n2        control open      10"), "{lines:?}");
    assert!(lines[3].ends_with("9 of 10 calls failed") && lines[4].contains("closed"), "{lines:?}");
    let lines = page(Page::Alarms);
    assert_eq!(lines[3], "critical 61s      node_down    n2 is not heard");
    assert_eq!(lines[4].trim(), "start it");
    let mut well = snapshot();
    well.status.as_mut().unwrap().alarms.clear();
    let lines = drawn(&well, &mut Place { page: Page::Alarms, ..Place::default() }, (80, 12));
    assert_eq!(lines[2], "no alarm");
}

#[test]
fn an_operation_under_way_has_its_line_and_a_bar_and_one_that_is_over_has_none() {
    let view = |phase| StrategyView {
        strategy: Strategy::Sharded,
        epoch: 42,
        operation: Some(operation(7, phase)),
        progress: Some(progress(3, 12)),
    };
    let seen = Snapshot { strategy: Some(view(Phase::Copying)), ..snapshot() };
    let lines = drawn(&seen, &mut Place::default(), (80, 12));
    assert!(lines[2].starts_with("operation 7  sharded -> full  copying"), "{lines:?}");
    assert!(lines[3].contains("25%") && lines[3].starts_with('█'), "{lines:?}");
    assert!(lines[4].starts_with("NODE"), "{lines:?}");
    let seen = Snapshot { strategy: Some(view(Phase::Finalized)), ..snapshot() };
    assert!(drawn(&seen, &mut Place::default(), (80, 12))[2].starts_with("NODE"));
}

#[test]
fn nobody_who_answers_is_said_and_no_size_is_too_small() {
    let seen = Snapshot { at_ms: 1, error: Some("n1 is\u{1b} gone".into()), ..Snapshot::default() };
    let lines = drawn(&seen, &mut Place::default(), (80, 5));
    assert_eq!(lines[2], "no node answers: n1 is\\x1b gone");
    for (width, height) in [(1, 1), (10, 3), (200, 60)] {
        for page in Page::ALL {
            drawn(&snapshot(), &mut Place { page, ..Place::default() }, (width, height));
        }
    }
}

#[tokio::test]
async fn a_look_without_an_answer_says_why() {
    let twin = Twin::with(|state| state.down = Some(name("n1")));
    let seen = look(&twin).await;
    assert!(seen.status.is_none() && seen.at_ms > 0);
    assert_eq!(seen.error.as_deref(), Some("n1 is down"));
}
