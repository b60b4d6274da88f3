//! `config check` and `config show` of a node, and how `serve` gets its settings: default, file, environment, flags.

use super::args::{ConfigVerb, Globals, ServeArgs};
use super::value::{Answered, Doc};
use crate::config::{Layer, Origin, Resolved, ServeSettings, file, resolve};
use crate::pki::{Identity, Subject};
use crate::types::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};
use std::path::{Path, PathBuf};

/// Carries out one of them.
pub fn run(verb: &ConfigVerb, flags: &Globals) -> Result<Answered> {
    match verb {
        ConfigVerb::Check(serve) => check(&resolved(serve, flags)?.settings()?),
        ConfigVerb::Show { serve, origin } => {
            Ok(Answered::doc(show(&resolved(serve, flags)?, *origin), None))
        }
        // Live settings are the cluster's, and go over a session.
        ConfigVerb::Get { .. } | ConfigVerb::Set { .. } => {
            Err(Error::new(Code::Internal, "a live setting was looked for on this machine"))
        }
    }
}

/// The settings from all sources. `globals` are the flags as typed, without the environment: the
/// variables of a node are a layer of their own.
pub fn resolved(serve: &ServeArgs, globals: &Globals) -> Result<Resolved> {
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with("PPDB_") && !value.is_empty())
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    let config = std::env::var_os("PPDB_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut layers = Vec::new();
    if let Some(path) = file::find(serve.settings.config.as_deref(), config) {
        layers.push(file::read(&path)?);
    }
    let certs = env.iter().find(|(name, _)| name == "PPDB_CERTS").map(|(_, folder)| folder.into());
    layers.extend(certs.map(|folder: PathBuf| Layer {
        origin: Origin::Env("PPDB_CERTS".to_owned()),
        ..Layer::flags(in_folder(&folder))
    }));
    layers.push(Layer::env(env)?);
    layers.push(flag_layer(serve, globals));
    resolve(&layers)
}

/// What was typed. `--certs` names three files at once; a file that was named as well wins.
fn flag_layer(serve: &ServeArgs, globals: &Globals) -> Layer {
    let text = |path: &PathBuf| Some(path.to_string_lossy().into_owned());
    let role = match (serve.primary, serve.replica) {
        (true, _) => Some("primary".to_owned()),
        (_, true) => Some("replica".to_owned()),
        _ => None,
    };
    let mut given = vec![("role", role)];
    given.extend(globals.certs.iter().flat_map(|folder| in_folder(folder)));
    given.push(("ca", globals.ca.as_ref().and_then(text)));
    given.push(("cert", globals.cert.as_ref().and_then(text)));
    given.push(("key", globals.key.as_ref().and_then(text)));
    given.extend(serve.settings.given.iter().cloned());
    Layer::flags(given)
}

/// The three files of a node in a folder of certificates.
fn in_folder(folder: &Path) -> [(&'static str, Option<String>); 3] {
    [("ca", "ca.crt"), ("cert", "node-{name}.crt"), ("key", "node-{name}.key")]
        .map(|(name, file)| (name, Some(folder.join(file).to_string_lossy().into_owned())))
}

/// Everything a start would refuse, short of opening the data folder.
fn check(settings: &ServeSettings) -> Result<Answered> {
    let identity = Identity::load(&settings.ca, &settings.cert, &settings.key)?;
    let principal = identity.principal();
    if principal.subject != Subject::Node(settings.name.clone()) {
        let message = format!(
            "{} is not the certificate of node {}; `ppdb cert issue node {}` makes one",
            settings.cert.display(),
            settings.name,
            settings.name
        );
        return Err(Error::new(Code::BadCertificate, message));
    }
    let json = json!({
        "name": settings.name.as_str(), "cluster": principal.cluster, "role": settings.role,
    });
    let notes = vec![format!(
        "settings and certificates of node {} in cluster {} are fine",
        settings.name, principal.cluster
    )];
    let row = vec![settings.name.to_string(), principal.cluster.clone()];
    let header = vec!["NODE", "CLUSTER"];
    Ok(Answered::doc(Doc { json, header, rows: vec![row], notes }, None))
}

fn show(resolved: &Resolved, origin: bool) -> Doc {
    let mut object = Map::new();
    let mut rows = Vec::new();
    for value in &resolved.values {
        let source = value.origin.to_string();
        let json = match origin {
            true => json!({ "value": value.text, "origin": source }),
            false => json!(value.text),
        };
        object.insert(value.name.to_owned(), json);
        let text = value.text.clone().unwrap_or_else(|| "(not set)".to_owned());
        let mut row = vec![value.name.to_owned(), text];
        row.extend(origin.then_some(source));
        rows.push(row);
    }
    let mut header = vec!["SETTING", "VALUE"];
    header.extend(origin.then_some("ORIGIN"));
    Doc { json: Json::Object(object), header, rows, notes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Verb};
    use super::*;
    use std::ffi::OsString;

    fn layer(line: &str) -> Resolved {
        let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        let cli = Cli::from_words(words).unwrap();
        let Verb::Serve(serve) = &cli.verb else { panic!("{line}") };
        resolve(&[flag_layer(serve, &cli.globals)]).unwrap()
    }

    #[test]
    fn every_flag_of_serve_is_a_setting() {
        let line = "serve --replica --name n9 --listen 127.0.0.1:9 --data-dir /d --log-level debug \
                    --log-format json --wal-segment-bytes 2MiB --raft-heartbeat 100ms --certs /c";
        let settings = layer(line).settings().unwrap();
        assert_eq!(settings.cert, PathBuf::from("/c/node-n9.crt"));
        assert_eq!(settings.ca, PathBuf::from("/c/ca.crt"));
        assert_eq!((settings.wal_segment_bytes, settings.log_level.as_str()), (2 << 20, "debug"));
        assert_eq!(settings.advertise, "127.0.0.1:9");
        assert_eq!(layer("serve --certs /c --key /k --name n1").get("key"), Some("/k"));
    }

    #[test]
    fn show_names_the_origin_when_asked() {
        let resolved = layer("serve --primary --name n1");
        let with = show(&resolved, true);
        assert_eq!(with.json["name"], json!({"value": "n1", "origin": "flag"}));
        assert_eq!(with.json["log.format"], json!({"value": "text", "origin": "default"}));
        assert_eq!(with.rows[0], ["name", "n1", "flag"]);
        assert_eq!(show(&resolved, false).json["name"], "n1");
        let unset = show(&layer("serve"), true);
        assert_eq!(unset.json["name"]["value"], Json::Null);
    }
}
