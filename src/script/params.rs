//! Parameters: what a script declares, what `--param` gives, and their types. Pure.
//!
//! `params(#{ hours: 24, node: required("string") })` comes before anything else in a script. So it can be looked at
//! without a cluster: a misspelt parameter is found before anything is done.

use crate::cli::runbook::{Param, Runbook};
use crate::types::{Code, Error, Result, units};
use rhai::{Dynamic, Map};

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Float,
    Text,
}

/// `required("string")`: a parameter without a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Required(Kind);

impl Kind {
    const ALL: [(Kind, &str); 4] =
        [(Kind::Bool, "bool"), (Kind::Int, "int"), (Kind::Float, "float"), (Kind::Text, "string")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("string", |(_, name)| name)
    }

    fn of(value: &Dynamic) -> Option<Self> {
        match value {
            value if value.is_bool() => Some(Kind::Bool),
            value if value.is_int() => Some(Kind::Int),
            value if value.is_float() => Some(Kind::Float),
            value if value.is_string() => Some(Kind::Text),
            value => value.read_lock::<Required>().map(|required| required.0),
        }
    }

    fn read(self, name: &str, text: &str) -> Result<Dynamic> {
        let value = match (self, text) {
            (Kind::Bool, "true" | "yes" | "on" | "1") => Some(true.into()),
            (Kind::Bool, "false" | "no" | "off" | "0") => Some(false.into()),
            (Kind::Bool, _) => None,
            (Kind::Int, text) => text.parse().ok().map(Dynamic::from_int),
            (Kind::Float, text) => {
                text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Dynamic::from_float)
            }
            (Kind::Text, text) => Some(text.to_owned().into()),
        };
        value.ok_or_else(|| {
            let wanted = match self {
                Kind::Bool => "true or false",
                Kind::Int => "a whole number, such as 3",
                Kind::Float => "a number, such as 1.5",
                Kind::Text => "text",
            };
            bad(format!("the parameter {name}={text} should be {wanted}"))
        })
    }
}

/// `required(kind)`.
pub fn required(kind: &str) -> Result<Required> {
    let found = Kind::ALL.iter().find(|(_, name)| *name == kind);
    found
        .map(|(kind, _)| Required(*kind))
        .ok_or_else(|| bad(format!("`{kind}` is no type of a parameter: bool, int, float, string")))
}

/// What a declaration says, by name.
pub fn declared(declaration: &Map) -> Result<Vec<Param>> {
    let param = |name: &str, value: &Dynamic| {
        let kind = Kind::of(value).ok_or_else(|| {
            let message = format!(
                "the parameter `{name}` should have a default that is true, 1, 1.5 or \"text\", or \
                 be `required(\"string\")`"
            );
            bad(message)
        })?;
        let default = match value.is::<Required>() {
            true => None,
            false => Some(super::convert::to_json(value)),
        };
        Ok(Param { name: name.to_owned(), kind: kind.name(), default })
    };
    declaration.iter().map(|(name, value)| param(name, value)).collect()
}

/// Refuses what was given and is not declared.
pub fn check(book: &Runbook, params: &[Param]) -> Result<()> {
    for (given, _) in &book.params {
        if params.iter().any(|param| param.name == *given) {
            continue;
        }
        let close = params
            .iter()
            .map(|param| (strsim::jaro_winkler(&param.name, given), &param.name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let all: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
        let advice = match close {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None if all.is_empty() => "it declares none by `params(#{ … })`".to_owned(),
            None => format!("it has: {}", all.join(", ")),
        };
        return Err(bad(format!("{} has no parameter `{given}`; {advice}", book.name)));
    }
    Ok(())
}

/// The values that are given, each in the type that is declared. A missing one is `()` if `may_lack` says that nobody
/// reads it.
pub fn values(book: &Runbook, declaration: &Map, may_lack: bool) -> Result<Map> {
    let params = declared(declaration)?;
    check(book, &params)?;
    let mut values = Map::new();
    for (name, declared) in declaration {
        let given = book.params.iter().rev().find(|(given, _)| given == name.as_str());
        let kind = Kind::of(declared).unwrap_or(Kind::Text);
        let value = match given {
            Some((_, text)) => kind.read(name, text)?,
            None if !declared.is::<Required>() => declared.clone(),
            None if may_lack => Dynamic::UNIT,
            None => return Err(missing(name)),
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// A parameter without a default was not given.
pub fn missing(name: &str) -> Error {
    bad(format!("the parameter `{name}` has no default: --param {name}=VALUE gives one"))
}

/// A duration with its unit.
pub fn duration(text: &str) -> Result<std::time::Duration> {
    units::duration(text).map_err(bad)
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tests::book;

    fn given(params: &[(&str, &str)]) -> Runbook {
        let params = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Runbook { params, ..book("") }
    }

    fn declaration() -> Map {
        let mut map = Map::new();
        map.insert("verify".into(), true.into());
        map.insert("hours".into(), 24_i64.into());
        map.insert("share".into(), 1.5.into());
        map.insert("keep".into(), "cart:".into());
        map.insert("node".into(), Dynamic::from(required("string").unwrap()));
        map
    }

    #[test]
    fn a_declaration_says_names_types_and_defaults() {
        let all = declared(&declaration()).unwrap();
        let of = |name: &str| {
            let param = all.iter().find(|param| param.name == name).unwrap();
            (param.kind, param.default.clone())
        };
        assert_eq!(of("hours"), ("int", Some(24.into())));
        assert_eq!(of("verify"), ("bool", Some(true.into())));
        assert_eq!(of("keep"), ("string", Some("cart:".into())));
        assert_eq!(of("node"), ("string", None));
        let mut odd = Map::new();
        odd.insert("list".into(), rhai::Array::new().into());
        assert!(declared(&odd).unwrap_err().message.contains("`list`"));
        assert!(required("text").unwrap_err().message.contains("string"));
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_right_one() {
        let all = declared(&declaration()).unwrap();
        let error = check(&given(&[("verfy", "no")]), &all).unwrap_err();
        assert!(error.message.contains("did you mean `verify`?"), "{error}");
        assert!(check(&given(&[("zz", "no")]), &all).unwrap_err().message.contains("hours"));
        assert_eq!(check(&given(&[("verify", "no")]), &all), Ok(()));
        assert!(check(&given(&[("a", "")]), &[]).unwrap_err().message.contains("declares none"));
    }

    #[test]
    fn a_value_has_the_type_that_is_declared() {
        let of = |name: &str, text: &str| {
            let book = given(&[(name, "first"), (name, text), ("node", "n1")]);
            values(&book, &declaration(), false).map(|all| all[name].clone())
        };
        assert!(!of("verify", "no").unwrap().as_bool().unwrap());
        assert_eq!(of("hours", "-7").unwrap().as_int(), Ok(-7));
        assert_eq!(of("share", "2").unwrap().as_float(), Ok(2.0));
        assert_eq!(of("keep", "x=y").unwrap().into_string(), Ok("x=y".to_owned()));
        for (name, text) in [("verify", "maybe"), ("hours", "1.5"), ("share", "nan")] {
            assert_eq!(of(name, text).unwrap_err().code, Code::BadRequest, "{text}");
        }
        let none = values(&given(&[("hours", "1")]), &declaration(), false).unwrap_err();
        assert!(none.message.contains("--param node=VALUE"), "{none}");
        assert!(values(&given(&[]), &declaration(), true).unwrap()["node"].is_unit());
    }
}
