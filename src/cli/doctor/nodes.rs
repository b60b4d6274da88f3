//! Checks of each node. Pure.

use super::judge::{Facts, NodeFacts, Seen, State};
use crate::alarms::REQUESTS_MIN;
use crate::types::NodeName;
use std::collections::BTreeMap;
use std::time::Duration;

/// A node that runs for less than this was just started, while others have run for so long.
const RESTARTED_S: u64 = 600;
const LONG_S: u64 = 3_600;
/// Percent before an alarm from which on it is a warning.
const BEFORE_PERCENT: u32 = 10;
/// fdatasyncs that say something about a disk.
const SYNCS_MIN: f64 = 100.0;
/// Memory that is much: so many times what half of the nodes have, and so many bytes.
const MEMORY_TIMES: f64 = 3.0;
const MEMORY_MIN: f64 = 512.0 * 1024.0 * 1024.0;
/// Load in percent from which on there is little room, and from which on scans are refused.
const LOAD_WARN: u32 = 70;
const LOAD_BAD: u32 = 90;
const CPU_WARN: u32 = 90;
const DAY_S: f64 = 86_400.0;

/// The nodes that have answered, with a value that they have.
fn with<'a, T>(
    facts: &'a Facts,
    of: impl Fn(&'a NodeFacts) -> Option<T> + 'a,
) -> impl Iterator<Item = (&'a NodeFacts, T)> + 'a {
    facts.nodes.iter().filter_map(move |node| Some((node, of(node)?)))
}

/// One version everywhere.
pub fn versions(facts: &Facts) -> Seen {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, info) in with(facts, |node| node.info.as_ref()) {
        by_version.entry(&info.version).or_default().push(node.name.as_str());
    }
    by_version.entry(&facts.version).or_default().push("this program");
    let named = by_version.iter().map(|(version, who)| format!("{version}: {}", who.join(" ")));
    let named: Vec<String> = named.collect();
    let mut seen = Seen::fine(format!("{} everywhere", facts.version));
    if by_version.len() > 1 {
        seen.add(State::Warn, format!("versions differ: {}", named.join("; ")), "ppdb version");
    }
    seen
}

/// Copies are served.
pub fn ready(facts: &Facts) -> Seen {
    let mut seen = Seen::fine("every node that answers serves its copies");
    for (node, _) in with(facts, |node| node.info.as_ref().filter(|info| !info.ready)) {
        let name = &node.name;
        let what = format!("no quorum has confirmed the copies of {name} yet, it serves nothing");
        seen.add(State::Bad, what, format!("ppdb logs --node {name}"));
    }
    seen
}

/// Nodes that came back alone.
pub fn restarts(facts: &Facts) -> Seen {
    let uptime = |node: &NodeFacts| node.info.as_ref().map(|info| info.uptime_s);
    let time = |s: u64| humantime::format_duration(Duration::from_secs(s)).to_string();
    let longest = with(facts, uptime).map(|(_, s)| s).max().unwrap_or_default();
    let least = with(facts, uptime).map(|(_, s)| s).min().unwrap_or_default();
    let mut seen = Seen::fine(format!("all have run for {} at least", time(least)));
    for (node, uptime_s) in with(facts, uptime) {
        if uptime_s < RESTARTED_S && longest >= LONG_S {
            let name = &node.name;
            let what = format!("{name} was started {} ago, others run for longer", time(uptime_s));
            seen.add(State::Warn, what, format!("ppdb logs --node {name} --limit 50"));
        }
    }
    seen
}

/// How long certificates are valid.
pub fn certificates(facts: &Facts) -> Seen {
    let limit_days = facts.thresholds().certificate.as_secs_f64() / DAY_S;
    let now_s = facts.now_ms as f64 / 1_000.0;
    let nodes = with(facts, |n| n.samples.one("ppdb_certificate_expiry_timestamp_seconds"));
    let mut all: Vec<(String, f64, String)> = nodes
        .map(|(node, end_s)| {
            let fix = format!("ppdb cert issue node {}", node.name);
            (node.name.to_string(), (end_s - now_s) / DAY_S, fix)
        })
        .collect();
    if let Some(days) = facts.own_certificate_days {
        let fix = format!("ppdb cert issue user {}", facts.user);
        all.push((format!("user {}", facts.user), days as f64, fix));
    }
    let least = all.iter().map(|(_, days, _)| *days).reduce(f64::min);
    let mut seen = Seen::fine(match least {
        Some(days) => format!("valid for {days:.0} days at least"),
        None => "nobody tells".to_owned(),
    });
    for (who, days, fix) in all {
        let state = if days < 1.0 { State::Bad } else { State::Warn };
        if days < 0.0 {
            seen.add(state, format!("the certificate of {who} has run out"), fix);
        } else if days <= limit_days {
            seen.add(state, format!("the certificate of {who} is valid for {days:.1} days"), fix);
        }
    }
    seen
}

/// Clocks that are off the middle of all.
pub fn clocks(facts: &Facts) -> Seen {
    let limit = facts.thresholds().clock;
    let off = |node: &NodeFacts| node.samples.one("ppdb_clock_offset_seconds");
    let most = with(facts, off).map(|(_, off)| off.abs()).reduce(f64::max).unwrap_or_default();
    let mut seen = Seen::fine(format!("{:.0} ms apart at most", most * 1_000.0));
    for (node, off_s) in with(facts, off).filter(|(_, off)| off.abs() >= limit.as_secs_f64()) {
        let what = format!(
            "the clock of {} is {:.0} ms off, limit {limit:?}; look at its time synchronization",
            node.name,
            off_s * 1_000.0
        );
        seen.add(State::Warn, what, format!("ppdb metrics show --node {}", node.name));
    }
    seen
}

/// Shares of something that fills up: bad from a limit on, a warning a little before.
fn fills<'a>(
    what: &str,
    limit_percent: u32,
    shares: impl Iterator<Item = (&'a NodeFacts, f64)>,
    fix: &str,
) -> Seen {
    let shares: Vec<(&NodeFacts, f64)> = shares.collect();
    let most = shares.iter().map(|(_, share)| share * 100.0).reduce(f64::max);
    let mut seen = Seen::fine(match most {
        Some(percent) => format!("{percent:.0} % of {what} is taken at most"),
        None => "nobody tells".to_owned(),
    });
    for (node, share) in shares {
        let percent = share * 100.0;
        let state = match percent {
            full if full >= f64::from(limit_percent) => State::Bad,
            near if near >= f64::from(limit_percent.saturating_sub(BEFORE_PERCENT)) => State::Warn,
            _ => continue,
        };
        let name = &node.name;
        let text = format!("{percent:.0} % of {what} of {name} is taken, limit {limit_percent} %");
        seen.add(state, text, fix);
    }
    seen
}

/// Disks of the data folders.
pub fn disks(facts: &Facts) -> Seen {
    let share = |node: &NodeFacts| {
        let size = node.samples.one("ppdb_disk_size_bytes").filter(|size| *size > 0.0)?;
        Some(1.0 - node.samples.one("ppdb_disk_free_bytes")? / size)
    };
    let limit = facts.thresholds().disk_percent;
    fills("the disk", limit, with(facts, share), "ppdb keys big --max-keys 1000000")
}

/// The largest table against the largest size that one may have.
pub fn tables(facts: &Facts) -> Seen {
    let share = |node: &NodeFacts| {
        let size = node.samples.one("ppdb_map_size_bytes").filter(|size| *size > 0.0)?;
        Some(node.samples.largest("ppdb_copy_table_bytes")? / size)
    };
    let limit = facts.thresholds().map_percent;
    fills("the largest table", limit, with(facts, share), "ppdb keys big --max-keys 1000000")
}

/// How long the log waits for its disk.
pub fn log(facts: &Facts) -> Seen {
    let limit = facts.thresholds().fsync_p99;
    let p99 = |node: &NodeFacts| {
        node.samples.quantile("ppdb_wal_fsync_duration_seconds", 0.99, SYNCS_MIN)
    };
    let slowest = with(facts, p99).map(|(_, s)| s).reduce(f64::max);
    let mut seen = Seen::fine(match slowest {
        Some(s) => format!("99 of 100 fdatasyncs take {:.1} ms at most", s * 1_000.0),
        None => "too few fdatasyncs to tell".to_owned(),
    });
    for (node, p99_s) in with(facts, p99).filter(|(_, s)| *s >= limit.as_secs_f64()) {
        let name = &node.name;
        let what = match p99_s.is_finite() {
            true => {
                format!("one in 100 fdatasyncs of {name} takes {:.0} ms or longer", p99_s * 1e3)
            }
            false => format!("one in 100 fdatasyncs of {name} takes longer than can be told"),
        };
        let what = format!("{what}, limit {limit:?}; look for other work on its disk");
        seen.add(State::Warn, what, format!("ppdb slowlog --node {name}"));
    }
    seen
}

/// Memory that one node has and the others have not.
pub fn memory(facts: &Facts) -> Seen {
    let memory = |node: &NodeFacts| node.samples.one("process_resident_memory_bytes");
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let mut all: Vec<f64> = with(facts, memory).map(|(_, bytes)| bytes).collect();
    all.sort_by(f64::total_cmp);
    // At least half of them have no more, also of two.
    let half = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    let most = all.last().copied().unwrap_or_default();
    let mut seen = Seen::fine(format!("{:.0} MiB resident at most", mib(most)));
    let much = (half * MEMORY_TIMES).max(MEMORY_MIN);
    for (node, bytes) in with(facts, memory).filter(|(_, bytes)| *bytes >= much) {
        let what = format!(
            "{} has {:.0} MiB resident, half of the nodes {:.0} MiB or less",
            node.name,
            mib(bytes),
            mib(half)
        );
        seen.add(State::Warn, what, format!("ppdb info {}", node.name));
    }
    seen
}

/// Room for requests, and processors.
pub fn load(facts: &Facts) -> Seen {
    let stats = || with(facts, |node| node.stats.as_ref());
    let load = stats().map(|(_, stats)| stats.load_percent).max().unwrap_or_default();
    let cpu = stats().map(|(_, stats)| stats.load.cpu_percent).max().unwrap_or_default();
    let mut seen = Seen::fine(format!("load {load} % and processors {cpu} % at most"));
    for (node, stats) in stats() {
        let (name, load, cpu) = (&node.name, stats.load_percent, stats.load.cpu_percent);
        if load >= LOAD_WARN {
            let state = if load >= LOAD_BAD { State::Bad } else { State::Warn };
            seen.add(state, format!("{name} has a load of {load} %"), "ppdb stats --watch");
        } else if cpu >= CPU_WARN {
            let what = format!("{name} takes {cpu} % of its processors");
            seen.add(State::Warn, what, "ppdb stats --watch");
        }
    }
    seen
}

/// Requests that got nothing.
pub fn refusals(facts: &Facts) -> Seen {
    let limit_ppm = facts.thresholds().error_rate_ppm;
    let mut seen = Seen::fine("nothing was refused or failed in the last seconds");
    for (node, stats) in with(facts, |node| node.stats.as_ref()) {
        let (counts, service, name) = (&stats.counts, &stats.service, &node.name);
        let refused = counts.refused_bulk + counts.refused_writes + counts.refused_reads;
        if refused > 0 {
            let what = format!(
                "{name} has just refused {} scans and batches, {} writes, {} reads for lack of room",
                counts.refused_bulk, counts.refused_writes, counts.refused_reads
            );
            seen.add(State::Warn, what, format!("ppdb info {name}"));
        }
        if service.errors > 0 {
            let requests = service.requests();
            let is_bad = requests >= REQUESTS_MIN && service.errors_ppm() >= limit_ppm;
            let state = if is_bad { State::Bad } else { State::Warn };
            let what =
                format!("{} of {requests} requests to {name} have just failed", service.errors);
            seen.add(state, what, format!("ppdb slowlog --node {name}"));
        }
    }
    seen
}

/// Calls that are held back.
pub fn breakers(facts: &Facts) -> Seen {
    let mut seen = Seen::fine("all nodes that answer call each other");
    // One that is down is told once.
    let answers = |peer: &NodeName| {
        facts.nodes.iter().any(|node| node.name == *peer && node.status.is_some())
    };
    for node in &facts.nodes {
        let open = node.breakers.iter().filter(|breaker| breaker.seen.is_open);
        for breaker in open.filter(|breaker| answers(&breaker.peer)) {
            let (name, peer, class) = (&node.name, &breaker.peer, breaker.class.name());
            let why = breaker.seen.reason.as_deref().unwrap_or("calls failed");
            let what = format!("{name} does not call {peer} ({class}): {why}");
            seen.add(State::Warn, what, format!("ppdb breaker list --node {name}"));
        }
    }
    seen
}
