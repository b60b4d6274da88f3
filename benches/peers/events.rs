//! The two great events: a switch to full replication, without load and what clients notice of it under load, and
//! the loss of a primary in full replication.

use crate::data::{Data, Random};
use crate::driver::Driver;
use crate::load::{CLIENTS, Target as _};
use crate::quantile::quantile;
use crate::stats::median;
use crate::{Result, ppdb, switch};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Load before the first figure.
const WARMUP: Duration = Duration::from_secs(2);
/// A switch is over when it holds everywhere; what it delayed is answered within this.
const AFTER: Duration = Duration::from_millis(500);
/// How finely a switch is looked at, and from how long before.
const SLICE: Duration = Duration::from_millis(250);
const SLICES_BEFORE: u32 = 8;
/// Times that a primary is lost.
pub const FAILOVERS: usize = 20;

/// One switch under load, beside the same load just before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// 99th percentile before, in milliseconds.
    pub base_p99_ms: f64,
    /// Meanwhile.
    pub p99_ms: f64,
    /// The longest that a client waited for one write before.
    pub base_gap_ms: f64,
    /// Meanwhile.
    pub gap_ms: f64,
    /// Seconds of the switch.
    pub switch_s: f64,
    /// Writes that failed.
    pub failed: u64,
}

/// A write that ended.
#[derive(Clone, Copy)]
struct Write {
    ended: Instant,
    took: Duration,
    ok: bool,
}

/// Switches to full without load, so many times, each time beside a copy by hand: the one in the middle by what it
/// took as a multiple of that copy. The last switch stays.
pub async fn switch_without_load(
    own: &mut ppdb::Cluster,
    dir: &Path,
    times: usize,
) -> Result<(u64, f64, f64)> {
    own.set_live("switch.cool_down", "0s").await?;
    let mut all = vec![switch::measure(own, dir).await?];
    while all.len() < times {
        own.revert().await?;
        all.push(switch::measure(own, dir).await?);
    }
    for (bytes, switch_s, copy_s) in &all {
        eprintln!("a switch without load: {bytes} bytes in {switch_s:.2} s, by hand {copy_s:.2} s");
    }
    all.sort_by(|(_, a, by_hand_a), (_, b, by_hand_b)| (a / by_hand_a).total_cmp(&(b / by_hand_b)));
    Ok(all[all.len() / 2])
}

/// Switches to full under load and back, so many times; the medians, and all that failed.
pub async fn switch_under_load(
    own: &mut ppdb::Cluster,
    data: &Arc<Data>,
    base: Duration,
    times: usize,
) -> Result<Loaded> {
    own.set_live("switch.cool_down", "0s").await?;
    let mut all = Vec::new();
    for _ in 0..times {
        let driver = Arc::new(Driver::of(own, 1).await?);
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(write(driver.clone(), data.clone(), client, over.clone()));
        }
        tokio::time::sleep(WARMUP + base).await;
        let began = Instant::now();
        let switched = own.switch_to_full().await;
        let ended = Instant::now();
        tokio::time::sleep(AFTER).await;
        over.store(true, Ordering::Relaxed);
        let writes = clients.join_all().await.concat();
        let switched = switched?;
        let (base_p99_ms, base_gap_ms) = seen(&writes, began - base, began);
        let (p99_ms, gap_ms) = seen(&writes, began, ended + AFTER);
        let failed = writes.iter().filter(|write| !write.ok).count() as u64;
        let switch_s = switched.as_secs_f64();
        all.push(Loaded { base_p99_ms, p99_ms, base_gap_ms, gap_ms, switch_s, failed });
        eprintln!("a switch under load: {:?}", all[all.len() - 1]);
        eprintln!("  p99 in ms, of each {} ms: {}", SLICE.as_millis(), {
            slices(&writes, began - SLICES_BEFORE * SLICE, ended + AFTER)
        });
        own.revert().await?;
        driver.close().await;
    }
    let middle =
        |f: fn(&Loaded) -> f64| median(&all.iter().map(f).collect::<Vec<_>>()).unwrap_or_default();
    Ok(Loaded {
        base_p99_ms: middle(|l| l.base_p99_ms),
        p99_ms: middle(|l| l.p99_ms),
        base_gap_ms: middle(|l| l.base_gap_ms),
        gap_ms: middle(|l| l.gap_ms),
        switch_s: middle(|l| l.switch_s),
        failed: all.iter().map(|l| l.failed).sum(),
    })
}

async fn write(
    driver: Arc<Driver>,
    data: Arc<Data>,
    client: usize,
    over: Arc<AtomicBool>,
) -> Vec<Write> {
    let mut random = Random::new(client as u64 + 100);
    let mut writes = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        let set = driver.set(client, data.key(&mut random), data.value(&mut random));
        let ok = set.await.is_ok();
        let ended = Instant::now();
        writes.push(Write { ended, took: ended - started, ok });
    }
    writes
}

/// 99th percentile and longest time of the writes that ended between the two moments, in milliseconds.
fn seen(writes: &[Write], from: Instant, until: Instant) -> (f64, f64) {
    let inside = writes.iter().filter(|write| write.ok && (from..until).contains(&write.ended));
    let mut ms: Vec<f64> = inside.map(|write| write.took.as_secs_f64() * 1e3).collect();
    let mut at = |share: f64| quantile(&mut ms, share).unwrap_or_default();
    (at(0.99), at(1.0))
}

/// The 99th percentile of each slice of a time; the order of the switch is given where the line is.
fn slices(writes: &[Write], from: Instant, until: Instant) -> String {
    let starts = (0..).map(|i| from + SLICE * i).take_while(|start| *start < until);
    let of_slice = |(i, start)| {
        let (p99_ms, _) = seen(writes, start, start + SLICE);
        let mark = if i == SLICES_BEFORE as usize { "| " } else { "" };
        format!("{mark}{p99_ms:.0}")
    };
    starts.enumerate().map(of_slice).collect::<Vec<_>>().join(" ")
}

/// Kills the primary that leads most shards, again and again: seconds until every shard has acknowledged a
/// write that was begun after the kill.
pub async fn failovers(own: &mut ppdb::Cluster, times: usize) -> Result<Vec<f64>> {
    let driver = Arc::new(Driver::of(own, 1).await?);
    let mut all = Vec::new();
    for _ in 0..times {
        let keys = driver.key_of_each_shard().await?;
        let (victim, led) = own.first_leader().await?;
        own.kill(victim);
        let began = Instant::now();
        let mut writes = JoinSet::new();
        for key in keys {
            let driver = driver.clone();
            writes.spawn(async move { driver.set(0, key.clone(), key).await });
        }
        for written in writes.join_all().await {
            written.map_err(|error| format!("a write after the loss of a primary: {error}"))?;
        }
        let took_s = began.elapsed().as_secs_f64();
        eprintln!("a primary that led {led} shards was lost: {took_s:.2} s");
        all.push(took_s);
        own.start_again(victim).await?;
    }
    driver.close().await;
    Ok(all)
}
