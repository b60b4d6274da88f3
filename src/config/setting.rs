//! The table of all settings: name, default, meaning, and the check of each value.
//!
//! A setting is called `wal.segment_bytes` in the file, `PPDB_WAL_SEGMENT_BYTES` in the environment and
//! `--wal-segment-bytes` as a flag.

use crate::types::NodeName;
use crate::types::units;
use std::net::SocketAddr;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Name in the file, with a dot for a table.
    pub name: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// Default; `{name}` stands for the node's name, none means that it has to be given.
    pub default: Option<&'static str>,
    /// One sentence.
    pub doc: &'static str,
    /// True for paths: a relative one in a file counts from that file's folder.
    pub path: bool,
    /// Refuses what does not fit.
    pub check: fn(&str) -> Result<(), String>,
}

/// Every setting of a node.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "name",
        flag: "name",
        default: None,
        doc: "name of the node, as in its certificate",
        path: false,
        check: |text| NodeName::new(text).map(drop),
    },
    Setting {
        name: "role",
        flag: "role",
        default: None,
        doc: "`primary` or `replica`",
        path: false,
        check: |text| one_of(text, &["primary", "replica"]),
    },
    Setting {
        name: "listen",
        flag: "listen",
        default: Some("127.0.0.1:7101"),
        doc: "address and UDP port the node listens on",
        path: false,
        check: |text| socket(text).map(drop),
    },
    Setting {
        name: "advertise",
        flag: "advertise",
        default: Some("{listen}"),
        doc: "host and port at which others reach the node",
        path: false,
        check: host_port,
    },
    Setting {
        name: "data_dir",
        flag: "data-dir",
        default: Some("data/{name}"),
        doc: "the data folder",
        path: true,
        check: not_empty,
    },
    Setting {
        name: "ca",
        flag: "ca",
        default: Some("certs/ca.crt"),
        doc: "certificate of the cluster's CA",
        path: true,
        check: not_empty,
    },
    Setting {
        name: "cert",
        flag: "cert",
        default: Some("certs/node-{name}.crt"),
        doc: "certificate of the node",
        path: true,
        check: not_empty,
    },
    Setting {
        name: "key",
        flag: "key",
        default: Some("certs/node-{name}.key"),
        doc: "key of that certificate, mode 0600",
        path: true,
        check: not_empty,
    },
    Setting {
        name: "log.level",
        flag: "log-level",
        // At `info`, openraft writes several lines for each group and election.
        default: Some("info"),
        doc: "filter of log lines, such as `info` or `warn,ppdb::raft=debug`",
        path: false,
        check: log_filter,
    },
    Setting {
        name: "log.format",
        flag: "log-format",
        default: Some("text"),
        doc: "`text` or `json`, on standard error",
        path: false,
        check: |text| one_of(text, &["text", "json"]),
    },
    Setting {
        name: "metrics.listen",
        flag: "metrics-listen",
        default: Some("off"),
        doc: "address and TCP port at which Prometheus scrapes /metrics, or `off`",
        path: false,
        check: |text| if text == "off" { Ok(()) } else { socket(text).map(drop) },
    },
    Setting {
        name: "metrics.tls",
        flag: "metrics-tls",
        default: Some("on"),
        doc: "`on`: HTTPS with a certificate of the cluster; `off`: plain HTTP, on a loopback address only",
        path: false,
        check: |text| one_of(text, &["on", "off"]),
    },
    Setting {
        name: "wal.segment_bytes",
        flag: "wal-segment-bytes",
        default: Some("64MiB"),
        doc: "size of one segment of the write-ahead log",
        path: false,
        check: |text| within(units::bytes(text)?, 1 << 20, 1 << 30, "1MiB to 1GiB"),
    },
    Setting {
        name: "raft.heartbeat",
        flag: "raft-heartbeat",
        default: Some("250ms"),
        doc: "between heartbeats; the same on every node",
        path: false,
        check: millis,
    },
    Setting {
        name: "raft.election_min",
        flag: "raft-election-min",
        default: Some("500ms"),
        doc: "shortest wait for an election after a leader's lease; the same on every node",
        path: false,
        check: millis,
    },
    Setting {
        name: "raft.election_max",
        flag: "raft-election-max",
        default: Some("700ms"),
        doc: "longest wait for an election, and a leader's lease; the same on every node",
        path: false,
        check: millis,
    },
];

impl Setting {
    /// Finds a setting by its name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Its environment variable.
    pub fn env(&self) -> String {
        format!("PPDB_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// The closest of some names, if one is close.
pub fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn one_of(text: &str, names: &[&str]) -> Result<(), String> {
    if names.contains(&text) {
        return Ok(());
    }
    Err(format!("`{text}` is none of {}", names.join(", ")))
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("an empty path".into()) } else { Ok(()) }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address such as 127.0.0.1:7101"))
}

/// A host name or address, with a port; IPv6 in brackets.
fn host_port(text: &str) -> Result<(), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(format!("`{text}` is not an address that others can reach"));
        }
        return Ok(());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let named = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if named && port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Ok(());
    }
    Err(format!("`{text}` is not a host and port such as db1.example:7101"))
}

fn log_filter(text: &str) -> Result<(), String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(drop)
        .map_err(|error| format!("`{text}` is not a log filter: {error}"))
}

fn millis(text: &str) -> Result<(), String> {
    within(units::duration(text)?.as_millis() as u64, 10, 60_000, "10ms to 1m")
}

fn within(value: u64, min: u64, max: u64, words: &str) -> Result<(), String> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(format!("it has to be {words}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_in_every_source_and_defaults_fit() {
        let mut envs: Vec<String> = SETTINGS.iter().map(Setting::env).collect();
        envs.sort();
        envs.dedup();
        assert_eq!(envs.len(), SETTINGS.len());
        for setting in SETTINGS {
            assert_eq!(setting.flag, setting.name.replace(['.', '_'], "-"));
            if let Some(default) = setting.default.filter(|default| !default.contains('{')) {
                assert_eq!((setting.check)(default), Ok(()), "{}", setting.name);
            }
        }
    }

    #[test]
    fn addresses_that_nobody_can_reach_are_refused() {
        for good in ["127.0.0.1:7101", "[::1]:7101", "db1.example:7101", "n1:1"] {
            assert_eq!(host_port(good), Ok(()), "{good}");
        }
        for bad in ["", ":7101", "db1", "db1:0", "db1:70000", "0.0.0.0:7101", "[::]:7101", "a b:1"]
        {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_close_name_is_suggested_and_a_far_one_is_not() {
        let names = || SETTINGS.iter().map(|setting| setting.name);
        assert_eq!(closest("data_dri", names()), Some("data_dir"));
        assert_eq!(closest("wal.segment_byte", names()), Some("wal.segment_bytes"));
        assert_eq!(closest("zzz", names()), None);
    }
}
