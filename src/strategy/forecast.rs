//! What a switch will cost: bytes in and out of each node, seconds, the longest gap between writes, and the
//! peak on each disk. Pure: from what the nodes reported and measured.
//!
//! A copy takes a share of the slower of network and disk, less what the node is busy with. What is written meanwhile
//! follows by the log, like anything else that is written: it takes room, and time only where it is more than a copy
//! gets, so that the log would never be caught up with. What cannot be known without a measurement is not guessed.

use super::checks::Bench;
use crate::types::{NodeId, limits};
use crate::wire::client::{Role, Strategy};
use crate::wire::plan::{DISK_CHUNK_BYTES, DiskProbe, PeerProbe};
use crate::wire::terms::{NodePredicted, Predicted};

/// Share of what a disk and the network were measured at that a copy gets, in percent: it is read, sent, written and
/// installed, by the same processors. While clients are served, copies make way for them.
const COPY_SHARE_PERCENT: u64 = 50;
const COPY_SHARE_SERVING_PERCENT: u64 = 20;
/// What arrives takes this much more than its bytes while it is installed, in percent.
const INSTALL_PERCENT: u64 = 110;
/// Bytes that a table grows by for each byte written while it is being copied.
const GROWTH_TIMES: u64 = 2;
/// How fast a copy is read and hashed for the digest gate. While clients are served it rests three times as long as it
/// works, on what they leave of the processors; one shard is compared after the other, and each costs a flush on every
/// holder and two rounds.
const DIGEST_BYTES_PER_S: u64 = 400 << 20;
const DIGEST_SERVING_BYTES_PER_S: u64 = DIGEST_BYTES_PER_S / 10;
const COMPARISON_MS: u64 = 150;
/// A disk that takes a stream is at most so many times as fast as one that makes each chunk of it durable.
const STREAM_TIMES_MAX: u64 = 4;
/// Rounds of the coordinator from the start until the new strategy holds, and how long one takes.
const ROUNDS: u64 = 6;
const ROUND_MS: u64 = 50;
/// A change of voters is two entries; each waits for a round trip and for the disks of a majority.
const CHANGE_ENTRIES: u64 = 2;
/// Longer than any switch is allowed to take: the forecast for copies that never end.
pub const TOOK_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// The forecast for one switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// From the start until the new strategy holds everywhere.
    pub took_ms: u64,
    /// Longest time in which no write is acknowledged.
    pub write_gap_ms: u64,
    /// Every member, by id.
    pub nodes: Vec<NodeForecast>,
}

/// The forecast for one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeForecast {
    /// The node.
    pub node: NodeId,
    /// Bytes of the shards that it has no copy of and shall have.
    pub in_bytes: u64,
    /// Bytes that it sends, as the leader of what others lack.
    pub out_bytes: u64,
    /// Bytes a second at which copies arrive here; none if that was not measured.
    pub copy_bytes_per_s: Option<u64>,
    /// Bytes a second that are written elsewhere and have to arrive here, too.
    pub write_bytes_per_s: u64,
    /// Bytes more than before on its disk, at most, at one time.
    pub disk_peak_bytes: u64,
}

impl Forecast {
    /// Bytes more than before on a node's disk, at most.
    pub fn disk_peak_bytes(&self, node: NodeId) -> u64 {
        let of_node = self.nodes.iter().find(|forecast| forecast.node == node);
        of_node.map_or(0, |forecast| forecast.disk_peak_bytes)
    }

    /// As it is shown and journaled.
    pub(super) fn predicted(&self, bench: &Bench<'_>) -> Predicted {
        let node = |forecast: &NodeForecast| {
            Some(NodePredicted {
                node: bench.state.name(forecast.node)?,
                in_bytes: forecast.in_bytes,
                out_bytes: forecast.out_bytes,
                disk_peak_bytes: forecast.disk_peak_bytes,
            })
        };
        Predicted {
            copy_bytes: self.nodes.iter().map(|node| node.in_bytes).sum(),
            took_ms: self.took_ms,
            write_gap_ms: self.write_gap_ms,
            nodes: self.nodes.iter().filter_map(node).collect(),
        }
    }
}

/// Forecasts.
pub(super) fn of(bench: &Bench<'_>) -> Forecast {
    let mut nodes: Vec<NodeForecast> =
        bench.state.members.keys().map(|node| of_node(bench, *node)).collect();
    let copy_ms = nodes.iter().map(copy_ms).max().unwrap_or_default();
    let copies = nodes.iter().any(|node| node.in_bytes > 0);
    let change_ms = change_ms(bench);
    let verify_ms = verify_ms(bench);
    // What has arrived is compared while the rest is copied; the last shard is left.
    let last_ms = if copies { verify_ms / bench.state.shards.len().max(1) as u64 } else { 0 };
    let steps_ms = ROUNDS * ROUND_MS + change_ms + last_ms;
    // While clients are served both live on what is left of the processors, and each rests half of its time or more.
    let (longer, shorter) = (copy_ms.max(verify_ms), copy_ms.min(verify_ms));
    let work_ms = if is_serving(bench) { longer.saturating_add(shorter / 2) } else { longer };
    let took_ms = work_ms.saturating_add(steps_ms).min(TOOK_MS_MAX);
    // Copies that never end are refused as such; what would be written meanwhile says nothing about a disk.
    let copying_ms = if took_ms < TOOK_MS_MAX { took_ms } else { 0 };
    for node in &mut nodes {
        let staged = if copies { led_bytes(bench, node.node) } else { 0 };
        let arrives = node.in_bytes.saturating_mul(INSTALL_PERCENT) / 100;
        let written = per_ms(node.write_bytes_per_s, copying_ms).saturating_mul(GROWTH_TIMES);
        node.disk_peak_bytes = arrives.saturating_add(staged).saturating_add(written);
    }
    Forecast { took_ms, write_gap_ms: change_ms, nodes }
}

/// How long it takes to compare every shard.
fn verify_ms(bench: &Bench<'_>) -> u64 {
    let held: u64 = bench.leads().map(|(_, copy)| copy.table_bytes).sum();
    let (bytes_per_s, each_ms) = match is_serving(bench) {
        true => (DIGEST_SERVING_BYTES_PER_S, COMPARISON_MS),
        false => (DIGEST_BYTES_PER_S, 0),
    };
    let shards = bench.state.shards.len() as u64;
    (held.saturating_mul(1_000) / bytes_per_s).saturating_add(shards * each_ms)
}

fn is_serving(bench: &Bench<'_>) -> bool {
    let requests = bench.seen.reports.values().map(|report| report.load.ops_per_s);
    requests.sum::<u64>() >= limits::SERVING_OPS_PER_S
}

fn of_node(bench: &Bench<'_>, node: NodeId) -> NodeForecast {
    let is_primary =
        bench.state.members.get(&node).is_some_and(|member| member.role == Role::Primary);
    let gains = is_primary && bench.to == Strategy::Full;
    let others = bench.seen.reports.iter().filter(|(other, _)| **other != node);
    let written = others.map(|(_, report)| report.load.write_bytes_per_s).sum();
    NodeForecast {
        node,
        in_bytes: if gains { lacking_bytes(bench, node) } else { 0 },
        out_bytes: if bench.to == Strategy::Full { outgoing_bytes(bench, node) } else { 0 },
        copy_bytes_per_s: copy_bytes_per_s(bench, node),
        write_bytes_per_s: if gains { written } else { 0 },
        disk_peak_bytes: 0,
    }
}

/// Bytes of the shards that a primary has no copy of.
fn lacking_bytes(bench: &Bench<'_>, node: NodeId) -> u64 {
    let lacks =
        |shard| bench.state.shard(shard).is_some_and(|s| s.copies.iter().all(|c| c.node != node));
    bench.leads().filter(|(_, c)| lacks(c.shard)).map(|(_, c)| c.table_bytes).sum()
}

/// Bytes that a node sends: each shard that it leads, to every primary that lacks it.
fn outgoing_bytes(bench: &Bench<'_>, node: NodeId) -> u64 {
    let primaries = bench.state.primaries();
    let led = bench.leads().filter(|(leader, _)| *leader == node).map(|(_, copy)| copy);
    let sent = led.map(|copy| {
        let placed = bench.state.shard(copy.shard).map_or(&[][..], |shard| &shard.copies);
        let lack = primaries.iter().filter(|p| placed.iter().all(|c| c.node != **p)).count();
        copy.table_bytes.saturating_mul(lack as u64)
    });
    sent.sum()
}

/// What a node copies to a file before it is sent.
fn led_bytes(bench: &Bench<'_>, node: NodeId) -> u64 {
    bench.leads().filter(|(leader, _)| *leader == node).map(|(_, copy)| copy.table_bytes).sum()
}

/// The slower of network and disk, less what the node is busy with, of which a copy gets its share. Each
/// source serves one target at a time, so its rate is shared by all of them.
fn copy_bytes_per_s(bench: &Bench<'_>, node: NodeId) -> Option<u64> {
    let disk = stream_bytes_per_s(bench.probe(node)?.disk.as_ref().ok()?);
    let sources: Vec<NodeId> =
        bench.state.primaries().into_iter().filter(|source| *source != node).collect();
    let mut arriving: u64 = 0;
    let limit = bench.state.copy_bytes_per_s();
    for source in &sources {
        let way = bench.probe(*source)?.peers.iter().find(|peer| peer.node == node)?;
        let sends = match limit {
            0 => way.bytes_per_s,
            limit => way.bytes_per_s.min(limit),
        };
        arriving = arriving.saturating_add(sends / sources.len() as u64);
    }
    let busy = bench.report(node)?.load.cpu_percent.min(100);
    let rate = arriving.min(disk) / 100 * u64::from(100 - busy);
    let percent = if is_serving(bench) { COPY_SHARE_SERVING_PERCENT } else { COPY_SHARE_PERCENT };
    let share = rate / 100 * percent;
    // A rate that was set is already a share.
    Some(if limit > 0 { rate.min(limit).max(share.min(limit)) } else { share })
}

/// What a disk takes of a stream that is made durable in the end, from what it took with each chunk made durable:
/// that takes it as long as a small write, and longer by what the bytes take.
fn stream_bytes_per_s(disk: &DiskProbe) -> u64 {
    let chunk_us = DISK_CHUNK_BYTES.saturating_mul(1_000_000) / disk.write_bytes_per_s.max(1);
    let bytes_us = chunk_us.saturating_sub(disk.sync_us).max(chunk_us / STREAM_TIMES_MAX);
    match bytes_us {
        0 => disk.write_bytes_per_s,
        us => DISK_CHUNK_BYTES.saturating_mul(1_000_000) / us,
    }
}

fn copy_ms(node: &NodeForecast) -> u64 {
    if node.in_bytes == 0 {
        return 0;
    }
    match node.copy_bytes_per_s.unwrap_or_default() {
        rate if rate <= node.write_bytes_per_s => TOOK_MS_MAX,
        rate => (node.in_bytes.saturating_mul(1_000) / rate).min(TOOK_MS_MAX),
    }
}

fn per_ms(bytes_per_s: u64, ms: u64) -> u64 {
    (u128::from(bytes_per_s) * u128::from(ms) / 1_000).min(u128::from(u64::MAX)) as u64
}

/// How long a change of the voters takes at worst, as far as it was measured.
fn change_ms(bench: &Bench<'_>) -> u64 {
    let probes = || bench.state.members.keys().filter_map(|node| bench.probe(*node));
    let rtt =
        probes().flat_map(|probe| &probe.peers).map(|peer: &PeerProbe| peer.rtt_worst_us).max();
    let disks = probes().filter_map(|probe| probe.disk.as_ref().ok());
    let sync = disks.map(|disk: &DiskProbe| disk.sync_worst_us).max();
    let entry_us = rtt.unwrap_or_default().saturating_add(sync.unwrap_or_default());
    CHANGE_ENTRIES.saturating_mul(entry_us).div_ceil(1_000)
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
