//! The table of all metrics: name, kind, labels and what each one says. `ppdb metrics list` prints it.
//!
//! Values are gathered where they are known (`admin`), and become text in `exposition`. Names follow the conventions of
//! Prometheus: base units, `_total` for counters. No key and no value of a user is ever a label.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises from the start of the process, or, where its text says so, from the forming of the cluster.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative counts by upper bound.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, by name.
        pub const METRICS: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    ALARM_ACTIVE: Gauge "ppdb_alarm_active" ["alarm", "subject", "severity"]
        "1 for each alarm that this node sees; absent without one.";
    BATCH_BYTES_MAX: Gauge "ppdb_batch_bytes_max" []
        "Bytes of keys and values that one request may have (safety.max_batch_bytes).";
    BATCH_OPS_MAX: Gauge "ppdb_batch_ops_max" []
        "Operations that one request may have (safety.max_batch_size).";
    BREAKER_ERRORS: Gauge "ppdb_breaker_errors" ["peer", "class"]
        "Calls of this node to a peer that failed in the last ten seconds, by class.";
    BREAKER_OPEN: Gauge "ppdb_breaker_open" ["peer", "class"]
        "1 while this node does not call a peer, by class of calls.";
    BREAKER_OPENED: Counter "ppdb_breaker_opened_total" ["peer", "class"]
        "How often that has begun by itself.";
    BREAKER_SLOW: Gauge "ppdb_breaker_slow_requests" ["peer", "class"]
        "Calls of this node to a peer that were slow in the last ten seconds, by class.";
    BUILD_INFO: Gauge "ppdb_build_info" ["version", "profile"]
        "Always 1; the version that runs.";
    CERTIFICATE_EXPIRY: Gauge "ppdb_certificate_expiry_timestamp_seconds" []
        "When this node's certificate ends, in seconds since 1970.";
    CLOCK_OFFSET: Gauge "ppdb_clock_offset_seconds" []
        "How far this node's clock is ahead of the middle of all clocks that it hears; absent if it hears none.";
    CLUSTER_AVAILABLE: Gauge "ppdb_cluster_available" []
        "1 while every shard has a leader, as far as this node knows.";
    CLUSTER_HEALTHY: Gauge "ppdb_cluster_healthy" []
        "1 while the cluster is available, every member is heard and nothing is an alarm here.";
    COPIED_BYTES: Counter "ppdb_copied_bytes_total" []
        "Bytes of copies of shards that this node has sent to others.";
    COPY_AGE: Gauge "ppdb_copy_age_seconds" ["shard"]
        "Since when this copy was last proven to have everything committed; absent where nobody has asked yet.";
    COPY_APPLIED_INDEX: Gauge "ppdb_copy_applied_index" ["shard"]
        "Last log index that this node's copy has applied.";
    COPY_FLUSHED_INDEX: Gauge "ppdb_copy_flushed_index" ["shard"]
        "Last log index that its table holds durably.";
    COPY_KEYS: Gauge "ppdb_copy_keys" ["shard"]
        "Keys of this node's copy; those that wait to be flushed may count twice.";
    COPY_LAG_ENTRIES: Gauge "ppdb_copy_lag_entries" ["shard", "node"]
        "Log entries that a copy has not acknowledged; told by the leader of the shard.";
    COPY_NEAR: Gauge "ppdb_copy_near" ["shard", "node"]
        "1 while a copy has everything that was written more than a second ago; told by the leader of the shard.";
    COPY_SILENT: Gauge "ppdb_copy_silent_seconds" ["shard", "node"]
        "Since when a copy has not answered the leader of the shard, which tells it.";
    COPY_OVERLAY_BYTES: Gauge "ppdb_copy_overlay_bytes" ["shard"]
        "Bytes that are applied and not yet flushed to the table.";
    COPY_TABLE_BYTES: Gauge "ppdb_copy_table_bytes" ["shard"]
        "Bytes of this node's table on disk.";
    COPY_TABLE_FREE_BYTES: Gauge "ppdb_copy_table_free_bytes" ["shard"]
        "Of these, bytes of pages that hold nothing.";
    DISK_FREE_BYTES: Gauge "ppdb_disk_free_bytes" []
        "Bytes free on the disk of the data folder.";
    DISK_SIZE_BYTES: Gauge "ppdb_disk_size_bytes" []
        "Size of that disk, without what is kept for the superuser.";
    EPOCH: Gauge "ppdb_epoch" []
        "Version of the map of the cluster, as this node knows it.";
    FAILED_OPERATIONS: Counter "ppdb_failed_operations_total" []
        "Changes of strategy that ended aborted, or that the guard took back, since the cluster was formed.";
    LAST_SWITCH_DURATION: Gauge "ppdb_last_switch_duration_seconds" []
        "How long the latest settled change of strategy took, without the time it was held prepared.";
    LAST_SWITCH_TIMESTAMP: Gauge "ppdb_last_switch_timestamp_seconds" []
        "When the latest change of strategy settled, in seconds since 1970.";
    LOAD_RATIO: Gauge "ppdb_load_ratio" []
        "The largest share of what can run out that this node has taken.";
    LOAD_SHARE_RATIO: Gauge "ppdb_load_share_ratio" ["resource"]
        "How much is taken of each thing that can run out; `unflushed` counts for copies only.";
    LOAD_THRESHOLD_RATIO: Gauge "ppdb_load_threshold_ratio" []
        "Load from which on copying makes way (safety.load_threshold).";
    MAP_SIZE_BYTES: Gauge "ppdb_map_size_bytes" []
        "Largest size that a table may grow to.";
    MAY_FAIL: Gauge "ppdb_may_fail_without_loss" []
        "How many more primaries may fail without loss of acknowledged data.";
    NODE_UP: Gauge "ppdb_node_up" ["node"]
        "1 while this node hears another one.";
    NODE_READY: Gauge "ppdb_node_ready" []
        "1 once a quorum has confirmed this node's copies.";
    RAFT_LEADER: Gauge "ppdb_raft_leader" ["shard"]
        "1 where this node's copy leads its group; `meta` is the metadata group.";
    RAFT_TERM: Gauge "ppdb_raft_term" ["shard"]
        "Term of the group, which rises with each election; `meta` is the metadata group.";
    READ_KEYS: Counter "ppdb_read_keys_total" []
        "Keys read, those of scans included.";
    REQUESTS: Counter "ppdb_requests_total" ["class", "code"]
        "Requests of clients by what they ask for and how they ended; the code is `ok` or that of the error.";
    REQUEST_DURATION: Histogram "ppdb_request_duration_seconds" ["class", "outcome"]
        "From the arrival of a request to its reply; the outcome is `ok` or `failed`.";
    REQUESTS_IN_FLIGHT: Gauge "ppdb_requests_in_flight" []
        "Requests for keys that this node works on.";
    REQUESTS_IN_FLIGHT_MAX: Gauge "ppdb_requests_in_flight_max" []
        "How many that may be (safety.max_concurrent_ops).";
    REQUEST_TIMEOUT: Gauge "ppdb_request_timeout_seconds" []
        "How long this node works on a request for keys (safety.timeout_ms).";
    SHARDS_LEADERLESS: Gauge "ppdb_shards_leaderless" []
        "Shards without a leader, as far as this node knows.";
    SHED: Counter "ppdb_shed_total" ["class"]
        "Requests refused at once, for lack of room, by class.";
    STRATEGY: Gauge "ppdb_strategy" ["strategy"]
        "1 for the strategy that holds, 0 for the other one.";
    STRATEGY_SWITCHES: Counter "ppdb_strategy_switches_total" ["from", "to", "result"]
        "Changes of strategy since the cluster was formed that settled, were aborted or were reverted; one that was \
         reverted after it had settled counts for both.";
    SWITCH_BYTES: Gauge "ppdb_switch_bytes" ["state"]
        "Bytes that the operation under way has copied (`done`) and has to copy (`total`); told by the coordinator.";
    SWITCH_ESTIMATE_RATIO: Gauge "ppdb_switch_estimate_ratio" ["term"]
        "Of the latest operation, what it cost divided by what its plan said: `bytes`, `duration`, `write_gap`.";
    SWITCH_ETA: Gauge "ppdb_switch_eta_seconds" []
        "Seconds until the operation under way is prepared, where the coordinator can tell.";
    SWITCH_PHASE: Gauge "ppdb_switch_phase" ["phase"]
        "1 for the phase of the latest operation; absent before the first one.";
    SWITCH_STALLED: Gauge "ppdb_switch_stalled_seconds" []
        "How long the operation under way has not moved, as the coordinator sees it.";
    SWITCH_DURATION_AVG: Gauge "ppdb_switch_duration_avg_seconds" []
        "Mean duration of the settled changes of strategy since the cluster was formed, without the time they were \
         held prepared.";
    WAL_BATCH_BYTES: Histogram "ppdb_wal_batch_bytes" []
        "Bytes that one fdatasync of the log made durable.";
    WAL_BATCH_RECORDS: Histogram "ppdb_wal_batch_records" []
        "Records that one fdatasync of the log made durable.";
    WAL_FSYNC_DURATION: Histogram "ppdb_wal_fsync_duration_seconds" []
        "How long an fdatasync of the log took.";
    WAL_QUEUE_RATIO: Gauge "ppdb_wal_queue_ratio" []
        "Share of the room for what waits to be written to the log that is taken.";
    WAL_SIZE_BYTES: Gauge "ppdb_wal_size_bytes" []
        "Bytes of the log on disk.";
    WRITE_GAP: Gauge "ppdb_write_gap_seconds" []
        "The longest time from the arrival of a write to its reply in the last five seconds.";
    WRITTEN_BYTES: Counter "ppdb_written_bytes_total" []
        "Bytes of the requests that changed keys.";
    WRITTEN_KEYS: Counter "ppdb_written_keys_total" []
        "Operations that changed a key.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "Time that the threads of this process spent on a processor.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory of this process, pages of mapped tables included.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When this process started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let Metric { name, kind, labels, help } = metric;
            assert!(name.starts_with("ppdb_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(!name.contains("_ms") && !name.contains("percent"), "{name} is in base units");
            assert!(!labels.iter().any(|label| ["key", "value", "le"].contains(label)), "{name}");
            assert!(help.ends_with('.') && help.len() > 15, "{name}: {help}");
        }
    }
}
