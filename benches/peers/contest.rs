//! Rounds: each row driven in each way, one after the other, again and again, so that what the machine does
//! meanwhile hits all of them alike.

use crate::data::Data;
use crate::load::{self, Measured, Shape, Work};
use crate::report::{Counts, Sample};
use crate::rows::Row;
use crate::{Result, driver, etcd, ppdb, redis};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between rounds: what the one before has left in queues is done by then.
const PAUSE: Duration = Duration::from_millis(300);
/// Requests a second that `redis-benchmark` is first thought to get; corrected by what was seen.
const RATE_FIRST_GUESS: f64 = 5_000.0;

/// Who is driven, and how.
pub struct Way {
    /// For the table.
    pub name: &'static str,
    /// What its figures are for.
    pub counts: Counts,
    /// Whether it takes part in this row.
    pub takes_part: fn(Row) -> bool,
    /// The client.
    pub driver: Driver,
}

/// A client.
pub enum Driver {
    /// The client library of PPDB.
    Ppdb(Arc<driver::Driver>),
    /// The bench's own client of Redis Cluster.
    Redis(Arc<redis::Client>),
    /// `redis-benchmark`, at this path.
    RedisBenchmark(PathBuf),
    /// The bench's own client of etcd.
    Etcd(Arc<etcd::Client>),
}

/// The systems that run.
pub struct Systems<'a> {
    /// PPDB.
    pub ppdb: &'a mut ppdb::Cluster,
    /// Redis, if it does.
    pub redis: Option<&'a mut redis::Cluster>,
    /// etcd, if it does.
    pub etcd: Option<&'a mut etcd::Cluster>,
}

impl Systems<'_> {
    fn check(&mut self) -> Result<()> {
        self.ppdb.check()?;
        if let Some(redis) = &mut self.redis {
            redis.check()?;
        }
        match &mut self.etcd {
            Some(etcd) => etcd.check(),
            None => Ok(()),
        }
    }

    fn cpu_s(&self, driver: &Driver) -> Result<f64> {
        match (driver, &self.redis, &self.etcd) {
            (Driver::Ppdb(_), ..) => self.ppdb.cpu_s(),
            (Driver::Redis(_) | Driver::RedisBenchmark(_), Some(redis), _) => redis.cpu_s(),
            (Driver::Etcd(_), _, Some(etcd)) => etcd.cpu_s(),
            _ => Err("a way to drive what does not run".into()),
        }
    }
}

/// What is measured, and for how long.
pub struct Contest {
    /// Keys and values.
    pub data: Arc<Data>,
    /// Seconds of a round.
    pub time: Duration,
    /// Rounds of each row and way.
    pub rounds: usize,
}

fn shape(row: Row, time: Duration) -> Shape {
    let work = match row {
        Row::GetSharded | Row::GetLocalFull => Work::Get,
        _ => Work::Set,
    };
    let pipeline = if row == Row::SetShardedPipelined { 16 } else { 1 };
    Shape { work, pipeline, warmup: time / 5, time }
}

impl Contest {
    /// All rounds of these rows. Every second round goes the other way round.
    pub async fn run(
        &self,
        rows: &[Row],
        ways: &[Way],
        systems: &mut Systems<'_>,
    ) -> Result<Vec<Sample>> {
        let mut samples: Vec<Sample> = Vec::new();
        for round in 0..self.rounds {
            for row in rows {
                let mut taking: Vec<&Way> = ways.iter().filter(|w| (w.takes_part)(*row)).collect();
                if round % 2 == 1 {
                    taking.reverse();
                }
                for way in taking {
                    let seen = samples.iter().filter(|s| s.row == *row);
                    let seen = seen.filter(|s| s.counts == Counts::Reference);
                    let guess = seen.map(|s| s.measured.rate).fold(RATE_FIRST_GUESS, f64::max);
                    let sample = self.one(*row, way, systems, guess).await?;
                    eprintln!(
                        "round {} of {}, {}, {}: {:.0}/s",
                        round + 1,
                        self.rounds,
                        row.name(),
                        way.name,
                        sample.measured.rate
                    );
                    samples.push(sample);
                }
            }
        }
        Ok(samples)
    }

    async fn one(
        &self,
        row: Row,
        way: &Way,
        systems: &mut Systems<'_>,
        guess: f64,
    ) -> Result<Sample> {
        tokio::time::sleep(PAUSE).await;
        systems.check()?;
        let shape = shape(row, self.time);
        let cpu_before_s = systems.cpu_s(&way.driver)?;
        let measured = self.drive(way, shape, systems, guess).await;
        let measured = measured.map_err(|e| format!("{}, {}: {e}", row.name(), way.name))?;
        systems.check()?;
        let cpu_s = systems.cpu_s(&way.driver)? - cpu_before_s;
        // CPU was counted over the warm-up as well, where there is one.
        let seconds = match way.driver {
            Driver::RedisBenchmark(_) => shape.time,
            _ => shape.time + shape.warmup,
        };
        let answers = (measured.rate * seconds.as_secs_f64()).max(1.0);
        let server_cpu_us = cpu_s * 1e6 / answers;
        Ok(Sample { row, way: way.name, counts: way.counts, measured, server_cpu_us })
    }

    async fn drive(
        &self,
        way: &Way,
        shape: Shape,
        systems: &Systems<'_>,
        guess: f64,
    ) -> Result<Measured> {
        let data = self.data.clone();
        match (&way.driver, &systems.redis) {
            (Driver::Ppdb(client), _) => load::run(client.clone(), data, shape).await,
            (Driver::Redis(client), _) => load::run(client.clone(), data, shape).await,
            (Driver::Etcd(client), _) => load::run(client.clone(), data, shape).await,
            (Driver::RedisBenchmark(program), Some(redis)) => {
                redis::benchmark(program, redis, data.keys.len(), shape, guess).await
            }
            (Driver::RedisBenchmark(_), None) => Err("Redis does not run".into()),
        }
    }
}
