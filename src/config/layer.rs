//! Sources on top of each other: default, file, environment, flags. Pure: what was read goes in, the
//! settings with the origin of each come out.

use super::setting::{SETTINGS, Setting};
use super::{Metrics, ServeSettings, file};
use crate::telemetry::LogFormat;
use crate::types::units;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::client::Role;
use std::fmt;
use std::path::PathBuf;

/// Variables that start with `PPDB_` and are no settings of a node.
const OTHER_ENV: &[&str] = &[
    "PPDB_CONFIG",
    "PPDB_ENDPOINTS",
    "PPDB_CERTS",
    "PPDB_USER",
    "PPDB_TIMEOUT",
    "PPDB_LEVEL",
    "PPDB_NODE",
    "PPDB_MAX_STALENESS",
    "PPDB_HISTFILE",
    "PPDB_CONTEXT",
    "PPDB_CONTEXTS",
    "PPDB_KEY_COMPLETION",
];
/// Families of variables that are left alone: Kubernetes makes the first two for a service called
/// `ppdb`, tests use the others.
const OTHER_ENV_PREFIXES: &[&str] = &["PPDB_PORT", "PPDB_SERVICE_", "PPDB_TEST_", "PPDB_FAULT_"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file:{}", path.display()),
            Origin::Env(name) => write!(f, "env:{name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// What one source says.
#[derive(Debug)]
pub struct Layer {
    /// The source. `Env("")` stands for the variable of each setting.
    pub origin: Origin,
    /// Its values, not checked yet.
    pub values: Vec<(&'static Setting, String)>,
}

impl Layer {
    /// Flags: name of the setting and value, for those that were given.
    pub fn flags(given: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Layer {
        let values = given
            .into_iter()
            .filter_map(|(name, value)| Some((Setting::find(name)?, value?)))
            .collect();
        Layer { origin: Origin::Flag, values }
    }

    /// The environment, given as pairs. An unknown `PPDB_` variable is refused.
    pub fn env(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Layer> {
        let mut values = Vec::new();
        for (name, value) in pairs {
            let Some(tail) = name.strip_prefix("PPDB_") else { continue };
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.env() == name) {
                values.push((setting, value));
                continue;
            }
            let known = OTHER_ENV.contains(&name.as_str())
                || OTHER_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if !known {
                let tail = tail.to_lowercase();
                let reason = file::unknown(&tail);
                return Err(bad(format!("environment variable {name}: {reason}")));
            }
        }
        Ok(Layer { origin: Origin::Env(String::new()), values })
    }
}

/// The value of one setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value; none if it has no default and was not given.
    pub text: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// All settings, in the order of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// One for each setting.
    pub values: Vec<Value>,
}

/// Puts layers on top of each other, the first at the bottom, and checks each value that counts.
pub fn resolve(layers: &[Layer]) -> Result<Resolved> {
    let mut resolved = Resolved { values: SETTINGS.iter().map(default).collect() };
    for layer in layers {
        for (setting, text) in &layer.values {
            let origin = match &layer.origin {
                Origin::Env(name) if name.is_empty() => Origin::Env(setting.env()),
                origin => origin.clone(),
            };
            if let Some(value) = resolved.values.iter_mut().find(|v| v.name == setting.name) {
                *value = Value { name: setting.name, text: Some(text.clone()), origin };
            }
        }
    }
    resolved.fill_in();
    for (setting, value) in SETTINGS.iter().zip(&resolved.values) {
        let Some(text) = &value.text else { continue };
        (setting.check)(text)
            .map_err(|error| bad(format!("{} (from {}): {error}", value.name, value.origin)))?;
    }
    Ok(resolved)
}

fn default(setting: &Setting) -> Value {
    Value { name: setting.name, text: setting.default.map(str::to_owned), origin: Origin::Default }
}

impl Resolved {
    /// The text of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| value.name == name)?.text.as_deref()
    }

    /// Puts `{name}` and `{listen}` into values; a value that lacks its part stays unset.
    fn fill_in(&mut self) {
        for part in ["name", "listen"] {
            let known = self.get(part).map(str::to_owned);
            let pattern = format!("{{{part}}}");
            for value in &mut self.values {
                let Some(text) = value.text.take_if(|text| text.contains(&pattern)) else {
                    continue;
                };
                value.text = known.as_ref().map(|known| text.replace(&pattern, known));
            }
        }
    }

    /// The checked settings; says which one is missing or does not fit with another.
    pub fn settings(&self) -> Result<ServeSettings> {
        let text = |name: &str| {
            self.get(name).ok_or_else(|| bad(format!("the setting `{name}` is missing")))
        };
        let role = match text("role") {
            Ok("replica") => Role::Replica,
            Ok(_) => Role::Primary,
            Err(_) => return Err(bad("say --primary or --replica, or set `role`".into())),
        };
        let settings = ServeSettings {
            name: NodeName::new(text("name")?).map_err(bad)?,
            role,
            listen: text("listen")?.parse().map_err(|_| bad("`listen` is no address".into()))?,
            advertise: text("advertise")?.to_owned(),
            data_dir: text("data_dir")?.into(),
            ca: text("ca")?.into(),
            cert: text("cert")?.into(),
            key: text("key")?.into(),
            log_level: text("log.level")?.to_owned(),
            log_format: match text("log.format")? {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            metrics: metrics(text("metrics.listen")?, text("metrics.tls")? == "on")?,
            wal_segment_bytes: units::bytes(text("wal.segment_bytes")?).map_err(bad)?,
            raft_heartbeat: units::duration(text("raft.heartbeat")?).map_err(bad)?,
            raft_election_min: units::duration(text("raft.election_min")?).map_err(bad)?,
            raft_election_max: units::duration(text("raft.election_max")?).map_err(bad)?,
        };
        // The silence after which a leader is given up is at least the sum of the two.
        if settings.raft_election_min + settings.raft_election_max <= settings.raft_heartbeat * 4 {
            let message = "raft.election_min and raft.election_max together have to be more than four heartbeats";
            return Err(bad(message.into()));
        }
        if settings.raft_election_max <= settings.raft_election_min {
            return Err(bad("raft.election_max has to be more than raft.election_min".into()));
        }
        Ok(settings)
    }
}

/// Where metrics are scraped; without TLS nowhere but on this machine.
fn metrics(listen: &str, tls: bool) -> Result<Option<Metrics>> {
    if listen == "off" {
        return Ok(None);
    }
    let listen: std::net::SocketAddr =
        listen.parse().map_err(|_| bad("`metrics.listen` is no address".into()))?;
    match tls || listen.ip().is_loopback() {
        true => Ok(Some(Metrics { listen, tls })),
        false => Err(bad(format!(
            "metrics.tls is off and metrics.listen {listen} can be reached from elsewhere; turn TLS on or listen \
             on a loopback address"
        ))),
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn env(pairs: &[(&str, &str)]) -> Result<Layer> {
        Layer::env(pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())))
    }

    fn flag(name: &'static str, value: &str) -> Layer {
        Layer::flags([(name, Some(value.to_owned()))])
    }

    fn origin<'a>(resolved: &'a Resolved, name: &str) -> (Option<&'a str>, String) {
        let value = resolved.values.iter().find(|value| value.name == name).unwrap();
        (value.text.as_deref(), value.origin.to_string())
    }

    #[test]
    fn the_later_source_wins_and_is_named() {
        let path = Path::new("/e/ppdb.toml");
        let file =
            file::parse("name='f'\nrole='replica'\nlisten='10.0.0.1:1'\ndata_dir='/f'", path);
        let env = env(&[("PPDB_NAME", "e"), ("PPDB_DATA_DIR", "/e"), ("HOME", "/root")]).unwrap();
        let resolved = resolve(&[file.unwrap(), env, flag("data_dir", "/g")]).unwrap();
        assert_eq!(origin(&resolved, "log.level"), (Some("info"), "default".into()));
        assert_eq!(origin(&resolved, "listen"), (Some("10.0.0.1:1"), "file:/e/ppdb.toml".into()));
        assert_eq!(origin(&resolved, "name"), (Some("e"), "env:PPDB_NAME".into()));
        assert_eq!(origin(&resolved, "data_dir"), (Some("/g"), "flag".into()));
        assert_eq!(origin(&resolved, "advertise"), (Some("10.0.0.1:1"), "default".into()));
        assert_eq!(origin(&resolved, "cert"), (Some("certs/node-e.crt"), "default".into()));
        let settings = resolved.settings().unwrap();
        assert_eq!((settings.role, settings.wal_segment_bytes), (Role::Replica, 64 << 20));
        assert_eq!(settings.advertise, "10.0.0.1:1");
    }

    #[test]
    fn unknown_variables_are_refused_unless_they_belong_to_others() {
        let error = env(&[("PPDB_DATADIR", "/x")]).unwrap_err();
        assert!(error.message.contains("did you mean `data_dir`"), "{error}");
        for fine in ["PPDB_ENDPOINTS", "PPDB_PORT_7101_UDP", "PPDB_SERVICE_HOST", "PATH"] {
            assert!(env(&[(fine, "x")]).unwrap().values.is_empty(), "{fine}");
        }
    }

    #[test]
    fn a_bad_value_names_its_source_and_a_covered_one_does_not_matter() {
        let bad = || env(&[("PPDB_WAL_SEGMENT_BYTES", "12")]).unwrap();
        let error = resolve(&[bad()]).unwrap_err();
        assert_eq!(error.code, Code::BadConfig);
        assert!(error.message.contains("env:PPDB_WAL_SEGMENT_BYTES"), "{error}");
        assert!(resolve(&[bad(), flag("wal.segment_bytes", "2MiB")]).is_ok());
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said() {
        let resolved = resolve(&[flag("role", "primary")]).unwrap();
        assert_eq!(resolved.get("cert"), None);
        assert!(resolved.settings().unwrap_err().message.contains("`name` is missing"));
        let layers =
            [flag("role", "primary"), flag("name", "n1"), flag("raft.election_min", "300ms")];
        assert!(resolve(&layers).unwrap().settings().unwrap_err().message.contains("heartbeats"));
        let layers = [flag("name", "n1")];
        assert!(resolve(&layers).unwrap().settings().unwrap_err().message.contains("--primary"));
        let layers = [flag("role", "primary"), flag("name", "n1"), flag("listen", "0.0.0.0:7101")];
        let error = resolve(&layers).unwrap_err().message;
        assert!(error.contains("advertise"), "a wildcard is no address to give others: {error}");
    }
}
