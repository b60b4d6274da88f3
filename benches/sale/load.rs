//! The load: 64 clients that set and get, as fast as they are answered or by schedule.
//!
//! Says what became of each request and when. Which figures follow from that is decided in `window`.

use crate::Result;
use crate::random::Random;
use crate::store::Store;
use crate::window::{CLIENTS, Request, due_us, is_write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Load before the first figure.
pub const WARMUP: Duration = Duration::from_secs(3);
/// How long what was due may take once the load ends: one request that fails, and what waited behind it.
const END_WAIT: Duration = Duration::from_secs(90);

/// How requests follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Each is due when the one before is answered.
    Answered,
    /// So many are due each second, all clients together, whether the ones before are answered or not.
    PerSecond(f64),
}

/// What became of the requests.
pub struct Answers {
    /// Those of each client, in its order.
    pub clients: Vec<Vec<Request>>,
    /// Why the first one that failed did.
    pub failure: Option<String>,
}

struct Shared {
    store: Arc<Store>,
    pace: Pace,
    started: Instant,
    /// What is due from here on is not sent any more.
    over_us: AtomicU64,
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Clients at work. They end when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<(usize, Vec<Request>, Option<String>)>,
}

impl Load {
    /// Starts the clients.
    pub fn start(store: &Arc<Store>, pace: Pace) -> Self {
        let (store, started, over_us) = (store.clone(), Instant::now(), AtomicU64::new(u64::MAX));
        let shared = Arc::new(Shared { store, pace, started, over_us });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(work(shared.clone(), client));
        }
        Self { shared, clients }
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// Ends the load. What was due before is still sent, and answered.
    pub async fn stop(mut self) -> Result<Answers> {
        self.shared.over_us.store(self.now_us(), Ordering::Relaxed);
        let mut answers = Answers { clients: vec![Vec::new(); CLIENTS], failure: None };
        let end = tokio::time::Instant::now() + END_WAIT;
        loop {
            let next = tokio::time::timeout_at(end, self.clients.join_next()).await;
            let next = next.map_err(|_| "requests were not answered within 90 s of the end")?;
            let Some(ended) = next else { return Ok(answers) };
            let (client, requests, failure) = ended?;
            answers.clients[client] = requests;
            answers.failure = answers.failure.or(failure);
        }
    }
}

async fn work(shared: Arc<Shared>, client: usize) -> (usize, Vec<Request>, Option<String>) {
    let mut random = Random::new(client as u64 + 100);
    let (mut requests, mut failure) = (Vec::new(), None);
    for number in 0.. {
        let due_us = match shared.pace {
            Pace::Answered => shared.now_us(),
            Pace::PerSecond(rate) => due_us(rate, client, number),
        };
        tokio::time::sleep_until((shared.started + Duration::from_micros(due_us)).into()).await;
        if due_us >= shared.over_us.load(Ordering::Relaxed) {
            break;
        }
        let (write, key) = (is_write(client, number), shared.store.values().any(&mut random));
        let outcome = match write {
            true => shared.store.set(key, &mut random).await,
            false => shared.store.get(key).await,
        };
        let ended_us = shared.now_us();
        requests.push(Request { write, due_us, ended_us, ok: outcome.is_ok() });
        failure = failure.or(outcome.err().map(|error| error.to_string()));
    }
    (client, requests, failure)
}

/// Requests a second that are answered if each client sends the next one at once. An error if one failed.
pub async fn saturated(store: &Arc<Store>, time: Duration) -> Result<f64> {
    let load = Load::start(store, Pace::Answered);
    tokio::time::sleep(WARMUP).await;
    let from_us = load.now_us();
    tokio::time::sleep(time).await;
    let until_us = load.now_us();
    let answers = load.stop().await?;
    if let Some(failure) = answers.failure {
        return Err(format!("a request failed: {failure}").into());
    }
    let inside = |request: &&Request| (from_us..until_us).contains(&request.ended_us);
    let answered = answers.clients.iter().flatten().filter(inside).count();
    match answered {
        0 => Err("no request was answered".into()),
        _ => Ok(answered as f64 * 1e6 / (until_us - from_us) as f64),
    }
}
