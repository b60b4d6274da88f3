//! The settings file: TOML, flattened to names with dots. An unknown key is refused with the closest
//! known one.

use super::setting::{SETTINGS, Setting, closest};
use super::{Layer, Origin};
use crate::types::{Code, Error, Result};
use std::path::{Path, PathBuf};

/// Where the file is looked for: `--config`, `PPDB_CONFIG`, or `ppdb.toml` in the working folder if
/// there is one. A file that was named has to exist.
pub fn find(flag: Option<&Path>, env: Option<PathBuf>) -> Option<PathBuf> {
    let named = flag.map(Path::to_path_buf).or(env);
    named.or_else(|| Some(PathBuf::from("ppdb.toml")).filter(|path| path.exists()))
}

/// Reads a file into a layer.
pub fn read(path: &Path) -> Result<Layer> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| bad(format!("{}: {error}", path.display())))?;
    parse(&text, path)
}

/// The same for a text; `path` is only named.
pub fn parse(text: &str, path: &Path) -> Result<Layer> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| bad(format!("{}: {error}", path.display())))?;
    let mut values = Vec::new();
    flatten("", &table, &mut values)
        .map_err(|error| bad(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for (setting, text) in &mut values {
        if setting.path && !text.is_empty() && Path::new(text.as_str()).is_relative() {
            *text = folder.join(text.as_str()).to_string_lossy().into_owned();
        }
    }
    Ok(Layer { origin: Origin::File(path.to_path_buf()), values })
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    values: &mut Vec<(&'static Setting, String)>,
) -> Result<(), String> {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match (Setting::find(&name), value) {
            (Some(setting), toml::Value::String(text)) => values.push((setting, text.clone())),
            (Some(setting), toml::Value::Integer(number)) => {
                values.push((setting, number.to_string()));
            }
            (Some(_), other) => {
                return Err(format!(
                    "`{name}` is a {}, not a string or a number",
                    other.type_str()
                ));
            }
            (None, toml::Value::Table(inner)) if is_table(&name) => {
                flatten(&format!("{name}."), inner, values)?;
            }
            (None, _) => return Err(unknown(&name)),
        }
    }
    Ok(())
}

fn is_table(name: &str) -> bool {
    SETTINGS
        .iter()
        .any(|setting| setting.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// What is said of a name that is no setting.
pub fn unknown(name: &str) -> String {
    let tables = SETTINGS.iter().filter_map(|setting| setting.name.split_once('.')).map(|(t, _)| t);
    let names = SETTINGS.iter().map(|setting| setting.name).chain(tables);
    match closest(name, names) {
        Some(close) => format!("unknown setting `{name}`; did you mean `{close}`?"),
        None => format!("unknown setting `{name}`; `ppdb config show` lists all of them"),
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Vec<(&'static str, String)>, String> {
        parse(text, Path::new("/etc/ppdb/ppdb.toml"))
            .map(|layer| layer.values.into_iter().map(|(s, text)| (s.name, text)).collect())
            .map_err(|error| error.message)
    }

    #[test]
    fn tables_are_names_with_dots_and_paths_count_from_the_file() {
        let text = "name = 'n1'\ndata_dir = 'data'\nkey = '/k'\n[wal]\nsegment_bytes = 1048576\n";
        let mut found = values(text).unwrap();
        found.sort();
        let expected = [
            ("data_dir", "/etc/ppdb/data"),
            ("key", "/k"),
            ("name", "n1"),
            ("wal.segment_bytes", "1048576"),
        ];
        assert_eq!(found, expected.map(|(name, text)| (name, text.to_owned())));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_closest_name() {
        for (text, expected) in [
            ("nmae = 'n1'", "did you mean `name`"),
            ("[wal]\nsegment_size = 1", "did you mean `wal.segment_bytes`"),
            ("[wla]\nsegment_bytes = 1", "unknown setting `wla`"),
            ("qqq = 1", "lists all of them"),
            ("name = true", "not a string or a number"),
            ("name = 'a'\nname = 'b'", "duplicate key"),
            ("name = ", "ppdb.toml"),
        ] {
            let error = values(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
