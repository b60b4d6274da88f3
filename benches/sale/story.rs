//! The sequence under load: to full, back, to full again, closed, to sharded, closed. By the orders that an
//! operator gives, each switch under a plan that was measured for it.

use crate::Result;
use crate::findings::{Cost, Run, Step};
use crate::load::{Load, Pace, WARMUP};
use crate::ppdb::Cluster;
use crate::store::Store;
use crate::window::{Window, seen};
use ppdb::wire::client::Strategy;
use ppdb::wire::operation::{Operation, Phase, StrategyOrder};
use ppdb::wire::plan::{Precheck, Verdict};
use ppdb::wire::terms::{PlanId, Terms};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A step is over when the cluster says so; what it delayed is answered within this. The next one follows at once.
const AFTER: Duration = Duration::from_millis(500);
/// How long a plan is made again because something speaks against a switch at this moment. Patient: what was
/// measured before would be lost with the run.
const PLAN: Duration = Duration::from_secs(300);
/// Between two attempts.
const PLAN_PAUSE: Duration = Duration::from_millis(500);

/// What is done in a step.
#[derive(Clone, Copy)]
enum Act {
    Plan(Strategy),
    Switch(Strategy),
    Revert,
    Finalize,
}

const STORY: [(&str, Act); 9] = [
    ("plan", Act::Plan(Strategy::Full)),
    ("to full", Act::Switch(Strategy::Full)),
    ("revert", Act::Revert),
    ("plan again", Act::Plan(Strategy::Full)),
    ("to full again", Act::Switch(Strategy::Full)),
    ("finalize full", Act::Finalize),
    ("plan back", Act::Plan(Strategy::Sharded)),
    ("to sharded", Act::Switch(Strategy::Sharded)),
    ("finalize sharded", Act::Finalize),
];

/// A step that is over.
struct Told {
    name: &'static str,
    span_us: Range<u64>,
    took: Duration,
    cost: Option<Cost>,
}

/// Once through it, after a baseline.
pub async fn run(own: &mut Cluster, store: &Arc<Store>, rate: f64, base: Duration) -> Result<Run> {
    let load = Load::start(store, Pace::PerSecond(rate));
    tokio::time::sleep(WARMUP).await;
    let base_from_us = load.now_us();
    tokio::time::sleep(base).await;
    let base_us = base_from_us..load.now_us();
    let told = tell(own, &load).await?;
    let answers = load.stop().await?;

    let of = |span_us: &Range<u64>| seen(&answers.clients, span_us);
    let steps = told.iter().map(|step| Step {
        name: step.name,
        took_s: step.took.as_secs_f64(),
        window: of(&step.span_us),
        cost: step.cost,
    });
    let end_us = told.last().map_or(base_us.end, |step| step.span_us.end);
    let base = of(&base_us);
    if base.answered == 0 {
        return Err("no request was answered before the first switch".into());
    }
    Ok(Run {
        base,
        whole: of(&(base_us.end..end_us)),
        steps: steps.collect(),
        failed: of(&(0..u64::MAX)).failed,
        failure: answers.failure,
    })
}

async fn tell(own: &mut Cluster, load: &Load) -> Result<Vec<Told>> {
    let (mut told, mut plan) = (Vec::new(), None);
    for (name, act) in STORY {
        let (from_us, began) = (load.now_us(), Instant::now());
        let done = perform(own, act, &mut plan).await;
        let cost = done.map_err(|error| format!("{name}: {error}"))?;
        let took = began.elapsed();
        tokio::time::sleep(AFTER).await;
        eprintln!("  {name}: {:.2} s", took.as_secs_f64());
        told.push(Told { name, span_us: from_us..load.now_us(), took, cost });
    }
    Ok(told)
}

async fn perform(own: &mut Cluster, act: Act, plan: &mut Option<PlanId>) -> Result<Option<Cost>> {
    match act {
        Act::Plan(to) => {
            *plan = Some(plan_for(own, to).await?);
            Ok(None)
        }
        Act::Switch(to) => {
            let terms = Terms { plan: plan.take(), ..Terms::default() };
            own.order(StrategyOrder::Switch { to, terms }).await?;
            cost(&own.reached(Phase::Soaking).await?).map(Some)
        }
        Act::Revert => own.revert().await.map(|()| None),
        Act::Finalize => {
            own.order(StrategyOrder::Finalize).await?;
            own.reached(Phase::Finalized).await?;
            Ok(None)
        }
    }
}

/// A plan under which a switch may start, made again while something passing speaks against it.
async fn plan_for(own: &mut Cluster, to: Strategy) -> Result<PlanId> {
    let until = Instant::now() + PLAN;
    let mut told = String::new();
    loop {
        own.check()?;
        let found = own.plan(to).await;
        if let Ok(Precheck { plan: Some(plan), .. }) = found {
            return Ok(plan.id);
        }
        let why = found.map_or_else(|error| error.to_string(), |found| refusals(&found));
        if Instant::now() >= until {
            return Err(format!("no switch may start: {why}").into());
        }
        if why != told {
            eprintln!("  no switch may start yet: {why}");
            told = why;
        }
        tokio::time::sleep(PLAN_PAUSE).await;
    }
}

fn refusals(found: &Precheck) -> String {
    let no_go = found.checks.iter().filter(|check| check.verdict == Verdict::NoGo);
    let told = no_go.map(|check| {
        format!("{}: {}, limit {} ({})", check.name, check.value, check.limit, check.message)
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What a switch cost, by its journal.
pub fn cost(operation: &Operation) -> Result<Cost> {
    let times = &operation.times;
    let parts = (|| {
        let predicted = operation.terms.predicted.as_ref()?;
        Some(Cost {
            predicted_bytes: predicted.copy_bytes,
            actual_bytes: operation.actual.copy_bytes?,
            predicted_ms: predicted.took_ms,
            actual_ms: times.took_ms()?,
            held_ms: times.committed_ms?.saturating_sub(times.prepared_ms?),
        })
    })();
    parts.ok_or_else(|| format!("the journal lacks a figure: {operation:?}").into())
}

/// What clients saw, in a line.
pub fn line(window: &Window) -> String {
    format!(
        "p99 {:.1} ms, longest write gap {:.0} ms, longest wait for a write {:.0} ms, {} failed",
        window.p99_ms, window.gap_ms, window.wait_ms, window.failed
    )
}
