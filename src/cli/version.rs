//! `version`: which build this is, and which faults could be planted in it.

use super::value::Doc;
use crate::faults;
use serde_json::json;

/// Name, version, build profile and failpoints of this program.
pub fn of_this_build() -> Doc {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let failpoints = faults::names();
    let row = vec![name.into(), version.into(), profile.into(), failpoints.len().to_string()];
    Doc {
        json: json!({
            "name": name, "version": version, "profile": profile, "failpoints": failpoints,
        }),
        header: vec!["NAME", "VERSION", "PROFILE", "FAILPOINTS"],
        rows: vec![row],
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_lists_its_failpoints_and_a_release_build_has_none() {
        let json = of_this_build().json;
        assert_eq!(json["name"], "ppdb");
        let listed = json["failpoints"].as_array().map_or(0, Vec::len);
        match cfg!(debug_assertions) {
            true => assert!(json["profile"] == "debug" && listed >= 40, "{listed} failpoints"),
            false => assert!(json["profile"] == "release" && listed == 0),
        }
    }
}
