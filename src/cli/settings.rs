//! `config get` and `config set`: the live settings of the cluster, the same on every node.

use super::caller::{Caller, other_answer};
use super::session::Call;
use super::value::{Answered, Doc};
use crate::cluster::settings::live_settings;
use crate::config::setting::closest;
use crate::types::{Code, Error, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::operation::SettingView;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// All live settings, or the one named.
pub async fn get<C: Caller>(caller: &C, name: Option<&str>, call: &Call) -> Result<Answered> {
    let all = ask(caller, Command::Settings, call.left()).await?;
    Ok(Answered::doc(doc(&all, name)?, None))
}

/// Sets one, and answers what holds then.
pub async fn set<C: Caller>(caller: &C, name: &str, value: &str, call: &Call) -> Result<Answered> {
    let order = Command::Set { name: name.to_owned(), value: value.to_owned() };
    let all = ask(caller, order, call.left()).await.map_err(|error| with_advice(error, name))?;
    Ok(Answered::doc(doc(&all, Some(name))?, None))
}

/// A refusal because of a name that is not known here either names the one that was meant.
fn with_advice(error: Error, name: &str) -> Error {
    let names = || live_settings().map(|setting| setting.name);
    match error.code {
        Code::BadConfig if !names().any(|known| known == name) => unknown(name, names().collect()),
        _ => error,
    }
}

/// Sends one of the two commands that are answered with all settings.
pub async fn ask<C: Caller>(
    caller: &C,
    command: Command,
    timeout: Duration,
) -> Result<Vec<SettingView>> {
    match caller.command(command, None, timeout).await? {
        (Answer::Settings(all), _) => Ok(all),
        _ => Err(other_answer()),
    }
}

/// The setting of that name, or which names there are.
pub fn find<'a>(all: &'a [SettingView], name: &str) -> Result<&'a SettingView> {
    all.iter()
        .find(|setting| setting.name == name)
        .ok_or_else(|| unknown(name, all.iter().map(|setting| setting.name.as_str()).collect()))
}

fn unknown(name: &str, names: Vec<&str>) -> Error {
    let advice = match closest(name, names.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are: {}", names.join(", ")),
    };
    Error::new(Code::BadConfig, format!("there is no live setting `{name}`; {advice}"))
}

fn doc(all: &[SettingView], name: Option<&str>) -> Result<Doc> {
    let (json, shown) = match name {
        Some(name) => {
            let setting = find(all, name)?;
            (setting_json(setting), std::slice::from_ref(setting))
        }
        None => (all.iter().map(setting_json).collect(), all),
    };
    let row = |s: &SettingView| [&s.name, &s.value, &s.default, &s.doc].map(Clone::clone).to_vec();
    let rows = shown.iter().map(row).collect();
    Ok(Doc {
        json,
        header: vec!["SETTING", "VALUE", "DEFAULT", "MEANING"],
        rows,
        notes: Vec::new(),
    })
}

fn setting_json(setting: &SettingView) -> Json {
    json!({
        "name": setting.name, "value": setting.value, "default": setting.default,
        "doc": setting.doc,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;

    #[test]
    fn one_setting_is_an_object_and_all_are_an_array() {
        let all = settings();
        let one = doc(&all, Some("reads.default")).unwrap();
        assert_eq!(one.json["value"], "linearizable");
        assert_eq!(one.rows.len(), 1);
        let every = doc(&all, None).unwrap();
        assert_eq!(every.json.as_array().map(Vec::len), Some(all.len()));
        assert_eq!(every.rows[0].len(), every.header.len());
    }

    #[test]
    fn a_name_that_does_not_exist_is_answered_with_one_that_does() {
        let error = doc(&settings(), Some("reads.defualt")).unwrap_err();
        assert_eq!(error.code, Code::BadConfig);
        assert!(error.message.contains("did you mean `reads.default`?"), "{error}");
        let refused = || Error::new(Code::BadConfig, "refused");
        let told = |name: &str| with_advice(refused(), name).message;
        assert!(told("reads.defualt").contains("did you mean `reads.default`?"));
        assert_eq!(told("reads.default"), "refused", "the name was not what was wrong");
        let error = doc(&settings(), Some("zzz")).unwrap_err();
        assert!(error.message.contains("there are: "), "{error}");
    }
}
