//! What is measured, against whom, and what it must come to: the table of the design, as data.
//!
//! Pure: says which rows there are and judges findings. Measures nothing.

/// A row that can be asked for with `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Row {
    /// Durable set, sharded, 64 clients x 1.
    SetSharded,
    /// Durable set, sharded, 64 clients x 16 in flight.
    SetShardedPipelined,
    /// Linearizable get, sharded, 64 clients x 1.
    GetSharded,
    /// Switch to full replication without load.
    Switch,
    /// Durable set, full replication, 64 clients x 1.
    SetFull,
    /// Local get, full replication, 64 clients x 1.
    GetLocalFull,
    /// Switch to full replication under load.
    SwitchLoaded,
    /// The loss of a primary in full replication.
    Failover,
    /// CPU and memory of a cluster that does nothing.
    Idle,
}

/// The peer that a row is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Redis Cluster, 3 primaries and 3 replicas.
    Redis,
    /// etcd, 3 nodes.
    Etcd,
    /// Copying files by hand.
    Files,
    /// The same cluster just before.
    Itself,
    /// None: the demand is absolute.
    Nobody,
}

/// What a row demands. Every part given must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// PPDB's figure divided by the reference's is at least this.
    pub ratio_min: Option<f64>,
    /// PPDB's 99th percentile is below this.
    pub p99_ms_below: Option<f64>,
    /// CPU of all four processes, in percent of one core, is at most this.
    pub cpu_percent_max: Option<f64>,
    /// Anonymous memory of the largest process is at most this.
    pub anon_mib_max: Option<f64>,
    /// The 99th percentile is at most so many times what it was before.
    pub p99_growth_max: Option<f64>,
    /// The longest wait is at most so much longer than before; and nothing fails.
    pub gap_growth_ms_max: Option<f64>,
    /// The median of the times is at most this.
    pub median_s_max: Option<f64>,
    /// None of them is longer than this.
    pub longest_s_max: Option<f64>,
}

const NOTHING: Demand = Demand {
    ratio_min: None,
    p99_ms_below: None,
    cpu_percent_max: None,
    anon_mib_max: None,
    p99_growth_max: None,
    gap_growth_ms_max: None,
    median_s_max: None,
    longest_s_max: None,
};

const fn ratio(min: f64) -> Demand {
    Demand { ratio_min: Some(min), ..NOTHING }
}

/// What was found, as far as it applies to a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// PPDB divided by the reference.
    pub ratio: Option<f64>,
    /// 99th percentile of PPDB, in milliseconds.
    pub p99_ms: Option<f64>,
    /// CPU, in percent of one core.
    pub cpu_percent: Option<f64>,
    /// Anonymous memory, in MiB.
    pub anon_mib: Option<f64>,
    /// 99th percentile divided by what it was before.
    pub p99_growth: Option<f64>,
    /// The longest wait minus what it was before, in milliseconds; none if a request failed.
    pub gap_growth_ms: Option<f64>,
    /// Median of the times, in seconds.
    pub median_s: Option<f64>,
    /// The longest of them.
    pub longest_s: Option<f64>,
}

impl Demand {
    /// Whether a finding meets it. What was demanded and not found is not met.
    pub fn is_met(&self, found: &Found) -> bool {
        let at_least = |min: Option<f64>, value: Option<f64>| {
            min.is_none_or(|min| value.is_some_and(|value| value >= min))
        };
        let below = |max: Option<f64>, value: Option<f64>| {
            max.is_none_or(|max| value.is_some_and(|value| value < max))
        };
        let at_most = |max: Option<f64>, value: Option<f64>| {
            max.is_none_or(|max| value.is_some_and(|value| value <= max))
        };
        at_least(self.ratio_min, found.ratio)
            && below(self.p99_ms_below, found.p99_ms)
            && at_most(self.cpu_percent_max, found.cpu_percent)
            && at_most(self.anon_mib_max, found.anon_mib)
            && at_most(self.p99_growth_max, found.p99_growth)
            && at_most(self.gap_growth_ms_max, found.gap_growth_ms)
            && at_most(self.median_s_max, found.median_s)
            && at_most(self.longest_s_max, found.longest_s)
    }

    /// In a few words.
    pub fn text(&self) -> String {
        let parts = [
            self.ratio_min.map(|ratio| format!("{ratio}x")),
            self.p99_ms_below.map(|ms| format!("p99 < {ms} ms")),
            self.cpu_percent_max.map(|percent| format!("{percent} % of a core")),
            self.anon_mib_max.map(|mib| format!("{mib} MiB")),
            self.p99_growth_max.map(|times| format!("p99 <= {times}x")),
            self.gap_growth_ms_max.map(|ms| format!("gap <= +{ms} ms, 0 failed")),
            self.median_s_max.map(|seconds| format!("{seconds} s median")),
            self.longest_s_max.map(|seconds| format!("none over {seconds} s")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Row {
    /// Every row, in the order in which they are measured.
    pub const ALL: [Row; 9] = [
        Row::Idle,
        Row::SetSharded,
        Row::SetShardedPipelined,
        Row::GetSharded,
        Row::SwitchLoaded,
        Row::Switch,
        Row::SetFull,
        Row::GetLocalFull,
        Row::Failover,
    ];

    /// The name for `--only` and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Row::SetSharded => "set-sharded",
            Row::SetShardedPipelined => "set-sharded-pipelined",
            Row::GetSharded => "get-sharded",
            Row::Switch => "switch",
            Row::SwitchLoaded => "switch-loaded",
            Row::Failover => "failover",
            Row::SetFull => "set-full",
            Row::GetLocalFull => "get-local-full",
            Row::Idle => "idle",
        }
    }

    /// What is done.
    pub const fn work(self) -> &'static str {
        match self {
            Row::SetSharded => "durable set, sharded, 64 x 1",
            Row::SetShardedPipelined => "durable set, sharded, 64 x 16 pipelined",
            Row::GetSharded => "get, linearizable, sharded, 64 x 1",
            Row::Switch => "switch to full, no load",
            Row::SwitchLoaded => "switch to full under load",
            Row::Failover => "failover in full",
            Row::SetFull => "durable set, full, 64 x 1",
            Row::GetLocalFull => "get, local, full, 64 x 1",
            Row::Idle => "idle cluster, four processes",
        }
    }

    /// Whom it is compared with.
    pub const fn peer(self) -> Peer {
        match self {
            Row::SetSharded | Row::SetShardedPipelined | Row::GetSharded => Peer::Redis,
            Row::SetFull | Row::GetLocalFull => Peer::Etcd,
            Row::Switch => Peer::Files,
            Row::SwitchLoaded => Peer::Itself,
            Row::Idle | Row::Failover => Peer::Nobody,
        }
    }

    /// Whether it needs the cluster to be in full replication.
    pub const fn is_full(self) -> bool {
        matches!(self, Row::Switch | Row::SetFull | Row::GetLocalFull | Row::Failover)
    }

    /// The unit of the figures.
    pub const fn unit(self) -> &'static str {
        match self {
            Row::Switch => "MB/s",
            Row::SwitchLoaded => "ms p99",
            Row::Failover => "s",
            Row::Idle => "% of a core",
            _ => "/s",
        }
    }

    /// What has to be met.
    pub const fn gate(self) -> Demand {
        match self {
            Row::SetSharded => ratio(1.0),
            Row::SetShardedPipelined => ratio(0.5),
            Row::GetSharded => ratio(1.5),
            Row::Switch => ratio(0.4),
            Row::SwitchLoaded => {
                Demand { p99_growth_max: Some(2.0), gap_growth_ms_max: Some(200.0), ..NOTHING }
            }
            Row::Failover => {
                Demand { median_s_max: Some(3.0), longest_s_max: Some(5.0), ..NOTHING }
            }
            Row::SetFull => Demand { p99_ms_below: Some(30.0), ..ratio(4.0) },
            Row::GetLocalFull => ratio(15.0),
            Row::Idle => {
                Demand { cpu_percent_max: Some(10.0), anon_mib_max: Some(60.0), ..NOTHING }
            }
        }
    }

    /// What is aimed at.
    pub const fn goal(self) -> Demand {
        match self {
            Row::SetSharded => ratio(2.0),
            Row::SetShardedPipelined => ratio(1.0),
            Row::GetSharded => ratio(3.0),
            Row::Switch => ratio(0.7),
            Row::SwitchLoaded => {
                Demand { p99_growth_max: Some(1.3), gap_growth_ms_max: Some(200.0), ..NOTHING }
            }
            Row::Failover => {
                Demand { median_s_max: Some(1.5), longest_s_max: Some(5.0), ..NOTHING }
            }
            Row::SetFull => Demand { p99_ms_below: Some(15.0), ..ratio(8.0) },
            Row::GetLocalFull => ratio(30.0),
            Row::Idle => Demand { cpu_percent_max: Some(5.0), anon_mib_max: Some(60.0), ..NOTHING },
        }
    }
}
