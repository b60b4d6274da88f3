//! Contexts: connections with a name, kept in a file of the user, and which of them holds.
//!
//! `file` reads and replaces the file, `commands` are `context add|use|list|remove`, `validate` tries one out. Here is what
//! a context is and how it lies under the flags; nothing here opens a connection.

pub mod commands;
pub mod file;
pub mod validate;

use super::args::Globals;
use crate::config::setting::closest;
use crate::types::{Code, Error, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Contexts in a file; more are refused.
pub const CONTEXTS_MAX: usize = 256;
/// Characters in a name.
const NAME_CHARS_MAX: usize = 63;
/// The layout of the file.
const VERSION: u32 = 1;

/// The color of a context in the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// As for what must not be touched by accident.
    Red,
    /// Green.
    Green,
    /// Yellow.
    Yellow,
    /// Blue.
    Blue,
    /// Magenta.
    Magenta,
    /// Cyan.
    Cyan,
}

impl Color {
    /// The number of its foreground in a terminal's `ESC [ N m`.
    pub fn sgr(self) -> u8 {
        31 + self as u8
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Color::Red => "red",
            Color::Green => "green",
            Color::Yellow => "yellow",
            Color::Blue => "blue",
            Color::Magenta => "magenta",
            Color::Cyan => "cyan",
        }
    }
}

/// One connection: where, as whom, and how careful.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Nodes to start from, at least one.
    pub endpoints: Vec<String>,
    /// Folder of certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs: Option<PathBuf>,
    /// Whose certificate in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Certificate of the CA, instead of the one in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Own certificate, instead of the one in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Key of that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Nothing is changed here unless that was allowed.
    #[serde(default)]
    pub protected: bool,
    /// Its color in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
}

impl Context {
    /// The flags that it stands for.
    pub fn globals(&self) -> Globals {
        Globals {
            endpoints: self.endpoints.clone(),
            certs: self.certs.clone(),
            user: self.user.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            ..Globals::default()
        }
    }
}

/// Every context of a user, and the one that holds where none is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    version: u32,
    /// The one of `context use`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Default for Contexts {
    fn default() -> Self {
        Contexts { version: VERSION, current: None, contexts: BTreeMap::new() }
    }
}

impl Contexts {
    /// The context of that name, or which names there are.
    pub fn get(&self, name: &str) -> Result<&Context> {
        self.contexts.get(name).ok_or_else(|| self.unknown(name))
    }

    /// What is said of a name that is none.
    pub fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let advice = match (closest(name, names.iter().copied()), names.is_empty()) {
            (Some(close), _) => format!("did you mean `{close}`?"),
            (None, true) => "there is none yet; `ppdb context add` makes one".to_owned(),
            (None, false) => format!("there are: {}", names.join(", ")),
        };
        Error::new(Code::NotFound, format!("there is no context `{name}`; {advice}"))
    }

    /// What a file may hold.
    fn checked(self) -> Result<Self> {
        let bad = |why: String| Err(Error::new(Code::BadConfig, why));
        if self.version != VERSION {
            return bad(format!("its layout has version {}, known is {VERSION}", self.version));
        }
        if self.contexts.len() > CONTEXTS_MAX {
            return bad(format!("{} contexts; at most {CONTEXTS_MAX}", self.contexts.len()));
        }
        for (name, context) in &self.contexts {
            check_name(name).map_err(|why| Error::new(Code::BadConfig, why))?;
            if context.endpoints.is_empty() {
                return bad(format!("context `{name}` has no endpoint"));
            }
        }
        if let Some(name) = self.current.as_ref().filter(|name| !self.contexts.contains_key(*name))
        {
            return bad(format!("its current context `{name}` does not exist"));
        }
        Ok(self)
    }
}

/// A name of a context: 1 to 63 letters, digits, `.`, `-` and `_`, the first a letter or a digit. None is an address,
/// which has a colon.
pub fn check_name(name: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let fits = name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inside);
    match fits {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "`{name}` is no name of a context: 1 to {NAME_CHARS_MAX} letters, digits, `.`, `-` and `_`"
        )),
    }
}

/// The context that a connection goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its name.
    pub name: String,
    /// Its color in the prompt.
    pub color: Option<Color>,
    /// Nothing is changed here unless that was allowed.
    pub protected: bool,
}

/// What is known of the context of some flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Place {
    /// Nobody has looked.
    #[default]
    NotAsked,
    /// There is none.
    Bare,
    /// This one.
    In(Arc<InForce>),
}

impl Globals {
    /// The context that holds, once it was looked up.
    pub fn in_force(&self) -> Option<&InForce> {
        match &self.place {
            Place::In(context) => Some(context),
            Place::NotAsked | Place::Bare => None,
        }
    }

    /// Why nothing may be changed at this moment; none if it may.
    pub fn read_only(&self, now: Instant) -> Option<String> {
        let context = self.in_force().filter(|context| context.protected)?;
        let allowed = self.writes || self.writes_until.is_some_and(|until| now < until);
        (!allowed).then(|| {
            format!(
                "context `{}` is protected and read-only now; --writes allows one command to change something, \
                 `writes on` in a shell the lines that follow",
                context.name
            )
        })
    }
}

/// Puts the context under what was typed: the one that is named, else the current one, unless where and as whom was
/// said without it. `read` is asked at most once, and not if it does not matter.
pub fn settled(globals: Globals, read: impl FnOnce() -> Result<Contexts>) -> Result<Globals> {
    if globals.place != Place::NotAsked {
        return Ok(globals);
    }
    let bare = |globals| Ok(Globals { place: Place::Bare, ..globals });
    if globals.context.is_none() && globals.is_whole() {
        return bare(globals);
    }
    let contexts = read()?;
    let Some(name) = globals.context.clone().or_else(|| contexts.current.clone()) else {
        return bare(globals);
    };
    let context = contexts.get(&name)?;
    let (color, protected) = (context.color, context.protected);
    let typed = Globals { context: None, ..globals };
    let all = context.globals().overlaid_by(&typed);
    let place = Place::In(Arc::new(InForce { name: name.clone(), color, protected }));
    Ok(Globals { context: Some(name), place, ..all })
}

/// The same with the file of this user.
pub fn here(globals: Globals) -> Result<Globals> {
    settled(globals, file::read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn contexts() -> Contexts {
        let context = |endpoint: &str, user: &str, protected| Context {
            endpoints: vec![endpoint.to_owned()],
            certs: Some(format!("/{user}").into()),
            user: Some(user.to_owned()),
            protected,
            ..Context::default()
        };
        let all = [("prod", context("p:1", "ann", true)), ("test", context("t:1", "bob", false))];
        Contexts {
            current: Some("prod".into()),
            contexts: all.into_iter().map(|(name, c)| (name.to_owned(), c)).collect(),
            ..Contexts::default()
        }
    }

    fn named(name: &str) -> Globals {
        Globals { context: Some(name.into()), ..Globals::default() }
    }

    fn at(endpoint: &str) -> Globals {
        Globals { endpoints: vec![endpoint.into()], ..Globals::default() }
    }

    fn settle(globals: Globals) -> (Vec<String>, Option<String>, Option<String>) {
        let all = settled(globals, || Ok(contexts())).unwrap();
        let name = all.in_force().map(|context| context.name.clone());
        (all.endpoints, all.user, name)
    }

    fn expected(
        endpoint: &str,
        user: &str,
        name: &str,
    ) -> (Vec<String>, Option<String>, Option<String>) {
        (vec![endpoint.into()], Some(user.into()), Some(name.into()))
    }

    #[test]
    fn flags_lie_over_the_environment_and_that_over_the_context() {
        assert_eq!(settle(Globals::default()), expected("p:1", "ann", "prod"));
        assert_eq!(settle(named("test")), expected("t:1", "bob", "test"));
        // A single flag or variable takes the place of one part.
        assert_eq!(settle(at("x:9")), expected("x:9", "ann", "prod"));
        // A context that is named by a flag leaves nothing of a connection below it.
        let env = Globals { user: Some("eve".into()), ..at("e:1") };
        assert_eq!(settle(env.overlaid_by(&named("test"))), expected("t:1", "bob", "test"));
        let flags = Globals { endpoints: vec!["x:9".into()], ..named("test") };
        assert_eq!(settle(env.overlaid_by(&flags)), expected("x:9", "bob", "test"));
        // One that is named by the environment lies below its other variables.
        assert_eq!(settle(named("test").overlaid_by(&at("e:1"))), expected("e:1", "bob", "test"));
        let error = settled(named("prd"), || Ok(contexts())).unwrap_err();
        assert_eq!(error.code, Code::NotFound);
        assert!(error.message.contains("did you mean `prod`?"), "{error}");
    }

    #[test]
    fn whoever_says_everything_needs_no_context_and_reads_no_file() {
        let whole = Globals { certs: Some("/c".into()), user: Some("u".into()), ..at("x:9") };
        let none = || Err(Error::new(Code::BadConfig, "broken"));
        let all = settled(whole.clone(), none).unwrap();
        assert_eq!((all.in_force(), &all.endpoints[..]), (None, &["x:9".to_owned()][..]));
        assert!(
            settled(at("x:9"), none).is_err(),
            "a broken file may be that of a protected context"
        );
        let over = named("prod").overlaid_by(&whole);
        assert_eq!(settled(over, none).unwrap().in_force(), None);
        // Named on the same line it holds all the same.
        let both = Globals { context: Some("prod".into()), ..whole };
        assert_eq!(settle(both), expected("x:9", "u", "prod"));
    }

    #[test]
    fn a_protected_context_is_read_only_until_that_is_lifted() {
        let now = Instant::now();
        let prod = settled(named("prod"), || Ok(contexts())).unwrap();
        assert!(prod.read_only(now).is_some_and(|why| why.contains("`prod`")));
        let writes = Globals { writes: true, ..Globals::default() };
        assert_eq!(prod.overlaid_by(&writes).read_only(now), None, "a flag on one line");
        let until = Globals { writes_until: Some(now + Duration::from_secs(5)), ..prod.clone() };
        assert_eq!(until.read_only(now), None);
        assert!(until.read_only(now + Duration::from_secs(5)).is_some(), "it ends by itself");
        // What was allowed in one context is not allowed in another.
        let test = until.overlaid_by(&named("test"));
        assert_eq!((test.writes, test.writes_until), (false, None));
        assert_eq!(settled(named("test"), || Ok(contexts())).unwrap().read_only(now), None);
        assert_eq!(Globals::default().read_only(now), None);
        // An address on the line changes the way there and not how careful we are.
        assert!(prod.overlaid_by(&at("p:2")).read_only(now).is_some());
    }

    #[test]
    fn names_are_short_words_and_never_addresses() {
        for good in ["prod", "eu-1.prod_2", "1", &"x".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", ".x", "a:1", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
