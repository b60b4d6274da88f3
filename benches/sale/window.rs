//! What clients saw in a span of time: the 99th percentile, the longest write gap, the longest wait for a write.
//!
//! Pure: from requests to figures. Everything counts from the moment a request was due, whether it could be sent
//! then or not, so that a cluster that stands still cannot hide behind the requests that were not made meanwhile.

use crate::quantile::quantile;
use std::ops::Range;

/// Clients: tasks, each of which has one request under way.
pub const CLIENTS: usize = 64;
/// Of so many requests of a client one is a get, the others are sets.
const GET_EVERY: u64 = 5;

/// Whether a client's request of this number is a set. The turns of the clients are spread over the requests.
pub const fn is_write(client: usize, number: u64) -> bool {
    number % GET_EVERY != client as u64 % GET_EVERY
}

/// When a client's request of this number is due, in microseconds from the start.
pub fn due_us(rate: f64, client: usize, number: u64) -> u64 {
    ((number * CLIENTS as u64 + client as u64) as f64 * 1e6 / rate) as u64
}

/// A request that ended. Times are microseconds from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// It is a set.
    pub write: bool,
    /// When it was due.
    pub due_us: u64,
    /// When its outcome was known.
    pub ended_us: u64,
    /// It was carried out.
    pub ok: bool,
}

/// The requests that were due in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// How many were carried out.
    pub answered: usize,
    /// 99 of 100 were answered within this time.
    pub p99_ms: f64,
    /// The same for writes alone.
    pub write_p99_ms: f64,
    /// The longest time between two successive acknowledgements of writes that one client saw; the later of the two
    /// writes was due in the span.
    pub gap_ms: f64,
    /// The longest time from the moment a write was due until it was acknowledged.
    pub wait_ms: f64,
    /// How many were not carried out.
    pub failed: usize,
}

/// What the clients saw; one list for each of them, in its order.
pub fn seen(clients: &[Vec<Request>], span_us: &Range<u64>) -> Window {
    let mut window = Window::default();
    let (mut all, mut writes) = (Vec::new(), Vec::new());
    for requests in clients {
        let mut acknowledged_us = None;
        for request in requests {
            let inside = span_us.contains(&request.due_us);
            if !request.ok {
                window.failed += usize::from(inside);
                continue;
            }
            let wait_ms = request.ended_us.saturating_sub(request.due_us) as f64 / 1e3;
            if inside {
                all.push(wait_ms);
            }
            if !request.write {
                continue;
            }
            let since_us = acknowledged_us.replace(request.ended_us).unwrap_or(request.due_us);
            if inside {
                writes.push(wait_ms);
                let gap_ms = request.ended_us.saturating_sub(since_us) as f64 / 1e3;
                window.gap_ms = window.gap_ms.max(gap_ms);
            }
        }
    }
    window.answered = all.len();
    window.wait_ms = writes.iter().copied().fold(0.0, f64::max);
    window.p99_ms = quantile(&mut all, 0.99).unwrap_or_default();
    window.write_p99_ms = quantile(&mut writes, 0.99).unwrap_or_default();
    window
}
