//! The judge by values: each check is content with a cluster that is well, and not with the one thing that is wrong.

use super::super::args::Cli;
use super::super::testing::{self, name, operation};
use super::judge::{CHECKS, Facts, NodeFacts, State, judge};
use super::knowledge;
use super::samples::Samples;
use crate::types::{Code, Error, ShardId};
use crate::wire::alarm::{Alarm, Severity};
use crate::wire::breaker::{BreakerSeen, BreakerState, PeerBreaker, PeerClass};
use crate::wire::client::{Role, Strategy};
use crate::wire::command::{Info, NodeStatus, Status};
use crate::wire::guard::ServiceLevel;
use crate::wire::load::{Counts, NodeStats};
use crate::wire::operation::{Phase, Progress, SettingView, StrategyView};
use crate::wire::plan::LoadReport;

const NOW_MS: u64 = 1_800_000_000_000;
const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn status() -> Status {
    let node = |text: &str| NodeStatus {
        name: name(text),
        role: Role::Primary,
        addr: format!("{text}:7101"),
        up: true,
        shards_owned: 1,
        copies: 2,
    };
    Status {
        cluster: "c".into(),
        epoch: 9,
        strategy: Strategy::Sharded,
        answered_by: name("n1"),
        metadata_leader: Some(name("n1")),
        nodes: NODES.map(node).to_vec(),
        shards_leaderless: vec![],
        may_fail_without_loss: 0,
        messages: vec![],
        alarms: vec![],
        switches: Default::default(),
    }
}

fn info(text: &str) -> Info {
    Info { node: name(text), version: "0.1.0".into(), uptime_s: 7_200, ..testing::info() }
}

/// What a node that is well tells Prometheus; lines of `more` take the place of those of the same name.
fn samples(more: &str) -> Samples {
    let expires_s = NOW_MS / 1_000 + 100 * 86_400;
    let usual = [
        format!("ppdb_certificate_expiry_timestamp_seconds {expires_s}"),
        "ppdb_clock_offset_seconds -0.003".into(),
        "ppdb_copy_near{shard=\"s1\",node=\"n2\"} 1".into(),
        "ppdb_disk_size_bytes 1000".into(),
        "ppdb_disk_free_bytes 600".into(),
        "ppdb_map_size_bytes 1000".into(),
        "ppdb_copy_table_bytes{shard=\"s1\"} 100".into(),
        "ppdb_wal_fsync_duration_seconds_bucket{le=\"0.005\"} 1000".into(),
        "ppdb_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1000".into(),
        "process_resident_memory_bytes 100000000".into(),
    ];
    let named = |line: &str| line.split([' ', '{']).next().unwrap_or_default().to_owned();
    let replaced: Vec<String> = more.lines().map(named).collect();
    let usual = usual.iter().filter(|line| !replaced.contains(&named(line))).map(String::as_str);
    Samples::of(&usual.chain(more.lines()).collect::<Vec<_>>().join("\n"))
}

fn node(text: &str) -> NodeFacts {
    let stats = NodeStats {
        node: name(text),
        counts: Counts::default(),
        service: ServiceLevel::default(),
        load: LoadReport::default(),
        load_percent: 10,
        requests: 0,
        lag_entries: None,
    };
    NodeFacts {
        status: Some(status()),
        info: Some(info(text)),
        stats: Some(stats),
        samples: samples(""),
        ..NodeFacts::silent(name(text))
    }
}

fn facts() -> Facts {
    Facts {
        now_ms: NOW_MS,
        version: "0.1.0".into(),
        user: "ann".into(),
        own_certificate_days: Some(90),
        copies: vec![(ShardId(0), 2), (ShardId(1), 2)],
        status: status(),
        nodes: NODES.map(node).to_vec(),
        settings: Some(vec![]),
        strategy: Some(StrategyView {
            strategy: Strategy::Sharded,
            epoch: 9,
            operation: None,
            progress: None,
        }),
    }
}

/// What is wrong with a cluster in which one thing is: the codes and states.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, State)> {
    let mut facts = facts();
    change(&mut facts);
    let found = judge(&facts).into_iter().filter(|finding| finding.state != State::Ok);
    let mut found: Vec<_> = found
        .map(|finding| {
            let fix = finding.fix.expect("a command");
            let words = shlex::split(&fix).expect("balanced quotes");
            if let Err(error) = Cli::from_argv(words.into_iter().map(Into::into)) {
                panic!("{fix}: {error}");
            }
            assert!(!finding.seen.is_empty());
            (finding.check.code, finding.state)
        })
        .collect();
    found.dedup();
    found
}

#[test]
fn codes_are_unique_and_in_order_and_a_healthy_cluster_has_one_line_each() {
    for (number, check) in CHECKS.iter().enumerate() {
        assert_eq!(check.code, format!("D-{:02}", number + 1));
        assert!(check.looks_at.len() > 20, "{}", check.code);
    }
    let found = judge(&facts());
    assert_eq!(found.len(), CHECKS.len());
    assert!(found.iter().all(|finding| !finding.seen.is_empty() && finding.fix.is_none()));
    assert_eq!(wrong(|_| {}), []);
}

#[test]
fn each_thing_that_is_wrong_with_the_cluster_is_found_by_its_own_check() {
    let lost = |facts: &mut Facts| {
        facts.nodes[2] = NodeFacts {
            error: Some(Error::new(Code::Unreachable, "n3 is down")),
            ..NodeFacts::silent(name("n3"))
        };
    };
    assert_eq!(wrong(lost), [("D-01", State::Bad)]);
    // What was not told is not taken to be well.
    let half = |f: &mut Facts| f.nodes[1].error = Some(Error::new(Code::DeadlineExceeded, "late"));
    assert_eq!(wrong(half), [("D-01", State::Warn)]);
    assert_eq!(wrong(|f| f.strategy = None), [("D-07", State::Warn)]);
    assert_eq!(wrong(|f| f.settings = None), [("D-08", State::Warn)]);
    let deaf = |f: &mut Facts| f.nodes[1].status.as_mut().unwrap().metadata_leader = None;
    assert_eq!(wrong(deaf), [("D-03", State::Warn)]);
    let cut_off = Status { metadata_leader: None, ..status() };
    assert!(knowledge(&status()) > knowledge(&cut_off));
    let mut alone = status();
    alone.nodes[0].up = false;
    assert!(knowledge(&status()) > knowledge(&alone));
    assert!(knowledge(&Status { epoch: 10, ..cut_off }) > knowledge(&status()));
    assert_eq!(wrong(|f| f.status.shards_leaderless = vec![ShardId(1)]), [("D-02", State::Bad)]);
    assert_eq!(wrong(|f| f.status.metadata_leader = None), [("D-03", State::Bad)]);
    let old = |f: &mut Facts| f.nodes[1].status.as_mut().unwrap().epoch = 8;
    assert_eq!(wrong(old), [("D-03", State::Warn)]);
    assert_eq!(wrong(|f| f.copies[1].1 = 1), [("D-04", State::Warn)]);
    assert_eq!(wrong(|f| f.status.strategy = Strategy::Full), [("D-04", State::Warn)]);
    let near = "ppdb_copy_near{shard=\"s1\",node=\"n2\"} 0";
    assert_eq!(wrong(|f| f.nodes[0].samples = samples(near)), [("D-05", State::Warn)]);
    let alarm = |name: &str, severity| Alarm {
        name: name.into(),
        severity,
        subject: "n1".into(),
        message: "it is bad".into(),
        fix: "mend it".into(),
        since_ms: 1,
        seen_by: vec![],
    };
    let critical = alarm("disk", Severity::Critical);
    assert_eq!(wrong(|f| f.status.alarms = vec![critical]), [("D-06", State::Bad)]);
    let warning = alarm("lag", Severity::Warning);
    assert_eq!(wrong(|f| f.status.alarms = vec![warning]), [("D-06", State::Warn)]);
    let under_way = |blocker: Option<&str>| {
        let blocker = blocker.map(str::to_owned);
        Some(StrategyView {
            strategy: Strategy::Sharded,
            epoch: 9,
            operation: Some(operation(7, Phase::Copying)),
            progress: Some(Progress { blocker, ..Progress::default() }),
        })
    };
    assert_eq!(wrong(|f| f.strategy = under_way(None)), []);
    assert_eq!(wrong(|f| f.strategy = under_way(Some("n2"))), [("D-07", State::Warn)]);
    let stuck = |f: &mut Facts| {
        f.strategy = under_way(None);
        f.status.alarms = vec![alarm("switch_stuck", Severity::Warning)];
    };
    assert_eq!(wrong(stuck), [("D-06", State::Warn), ("D-07", State::Bad)]);
}

#[test]
fn each_thing_that_is_wrong_with_a_node_is_found_by_its_own_check() {
    assert_eq!(wrong(|f| f.version = "0.2.0".into()), [("D-09", State::Warn)]);
    let of_info = |change: fn(&mut Info)| wrong(|f| change(f.nodes[1].info.as_mut().unwrap()));
    assert_eq!(of_info(|info| info.version = "0.0.9".into()), [("D-09", State::Warn)]);
    assert_eq!(of_info(|info| info.ready = false), [("D-10", State::Bad)]);
    assert_eq!(of_info(|info| info.uptime_s = 599), [("D-11", State::Warn)]);
    assert_eq!(of_info(|info| info.uptime_s = 600), []);
    let young = |f: &mut Facts| {
        f.nodes.iter_mut().for_each(|node| node.info.as_mut().unwrap().uptime_s = 5);
    };
    assert_eq!(wrong(young), [], "all were started together");
    let told = |lines: &str| wrong(|f| f.nodes[1].samples = samples(lines));
    let expires = |days: f64| {
        let end_s = NOW_MS as f64 / 1_000.0 + days * 86_400.0;
        told(&format!("ppdb_certificate_expiry_timestamp_seconds {end_s}"))
    };
    assert_eq!(expires(14.5), []);
    assert_eq!(expires(13.5), [("D-12", State::Warn)]);
    assert_eq!(expires(0.5), [("D-12", State::Bad)]);
    assert_eq!(expires(-2.0), [("D-12", State::Bad)]);
    assert_eq!(wrong(|f| f.own_certificate_days = Some(3)), [("D-12", State::Warn)]);
    assert_eq!(told("ppdb_clock_offset_seconds 0.499"), []);
    assert_eq!(told("ppdb_clock_offset_seconds -0.5"), [("D-13", State::Warn)]);
    assert_eq!(told("ppdb_disk_free_bytes 251"), []);
    assert_eq!(told("ppdb_disk_free_bytes 240"), [("D-14", State::Warn)]);
    assert_eq!(told("ppdb_disk_free_bytes 140"), [("D-14", State::Bad)]);
    assert_eq!(told("ppdb_copy_table_bytes{shard=\"s1\"} 710"), [("D-15", State::Warn)]);
    assert_eq!(told("ppdb_copy_table_bytes{shard=\"s1\"} 810"), [("D-15", State::Bad)]);
    let syncs = |slow: u32| {
        told(&format!(
            "ppdb_wal_fsync_duration_seconds_bucket{{le=\"0.1\"}} {}\n\
             ppdb_wal_fsync_duration_seconds_bucket{{le=\"0.25\"}} 1000\n\
             ppdb_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} 1000",
            1_000 - slow
        ))
    };
    assert_eq!((syncs(9), syncs(11)), (vec![], vec![("D-16", State::Warn)]));
    assert_eq!(told("process_resident_memory_bytes 500000000"), [], "not much");
    assert_eq!(told("process_resident_memory_bytes 600000000"), [("D-17", State::Warn)]);
    let of_two = |f: &mut Facts| {
        f.nodes.truncate(2);
        f.nodes[1].samples = samples("process_resident_memory_bytes 600000000");
    };
    assert_eq!(wrong(of_two), [("D-17", State::Warn)]);
}

#[test]
fn what_a_node_cannot_bear_is_found() {
    let of_stats =
        |change: fn(&mut NodeStats)| wrong(|f| change(f.nodes[1].stats.as_mut().unwrap()));
    assert_eq!(of_stats(|stats| stats.load_percent = 69), []);
    assert_eq!(of_stats(|stats| stats.load_percent = 70), [("D-18", State::Warn)]);
    assert_eq!(of_stats(|stats| stats.load_percent = 90), [("D-18", State::Bad)]);
    assert_eq!(of_stats(|stats| stats.load.cpu_percent = 95), [("D-18", State::Warn)]);
    assert_eq!(of_stats(|stats| stats.counts.refused_bulk = 1), [("D-19", State::Warn)]);
    let failing = |stats: &mut NodeStats| (stats.service.reads, stats.service.errors) = (990, 9);
    assert_eq!(of_stats(failing), [("D-19", State::Warn)]);
    let failing = |stats: &mut NodeStats| (stats.service.reads, stats.service.errors) = (980, 20);
    assert_eq!(of_stats(failing), [("D-19", State::Bad)]);
    let seen = BreakerSeen {
        state: BreakerState::Open,
        is_open: true,
        calls: 10,
        error_count: 9,
        slow_request_count: 0,
        last_failure_time: None,
        opened_total: 1,
        reason: Some("9 of 10 calls failed".into()),
        forced_until: None,
    };
    let breaker = PeerBreaker { peer: name("n3"), class: PeerClass::Copy, seen };
    let open = breaker.clone();
    assert_eq!(wrong(|f| f.nodes[0].breakers = vec![open]), [("D-20", State::Warn)]);
    // Whoever is down is told once.
    let down = |f: &mut Facts| {
        f.nodes[0].breakers = vec![breaker];
        f.nodes[2] = NodeFacts::silent(name("n3"));
    };
    assert_eq!(wrong(down), [("D-01", State::Bad)]);
}

#[test]
fn thresholds_are_those_that_are_set_and_what_is_set_is_told() {
    let set = |name: &str, value: &str| SettingView {
        name: name.into(),
        value: value.into(),
        default: "85".into(),
        doc: "a setting".into(),
    };
    let low = vec![set("alarm.disk", "30")];
    assert_eq!(wrong(|f| f.settings = Some(low.clone())), [("D-14", State::Bad)]);
    let told = judge(&Facts { settings: Some(low), ..facts() });
    let settings = told.iter().find(|finding| finding.check.code == "D-08").unwrap();
    assert_eq!((settings.state, settings.seen.as_str()), (State::Ok, "set: alarm.disk=30"));
}
