//! Names of nodes as people type them: whole, or so much of the beginning that only one fits.

use super::args::admin::Cluster;
use super::args::load::Breaker;
use super::args::{Admin, Globals, MetricsVerb, NodeVerb, Verb};
use crate::config::setting::closest;
use crate::types::{Code, Error, NodeName, Result};

/// The places of a command that hold the name of a node of the cluster that exists.
pub fn places<'a>(verb: &'a mut Verb, globals: &'a mut Globals) -> Vec<&'a mut NodeName> {
    let named = match verb {
        Verb::Admin(Admin::Cluster(Cluster::Init { .. }) | Admin::Connect { .. }) => return vec![],
        Verb::Admin(Admin::Info { of: Some(of) }) => Some(of),
        Verb::Admin(Admin::Breaker(Breaker::Open(force) | Breaker::Close(force))) => {
            Some(&mut force.peer)
        }
        Verb::Node(NodeVerb::Kill { name } | NodeVerb::Start { name }) => return vec![name],
        Verb::Data(_) | Verb::Admin(_) | Verb::Metrics(MetricsVerb::Show) => None,
        _ => return vec![],
    };
    named.into_iter().chain(globals.node.as_mut()).collect()
}

/// The node that is meant.
pub fn resolve(typed: &NodeName, names: &[&NodeName]) -> Result<NodeName> {
    if names.contains(&typed) {
        return Ok(typed.clone());
    }
    let fits = |name: &&&NodeName| name.as_str().starts_with(typed.as_str());
    let fitting: Vec<&NodeName> = names.iter().filter(fits).copied().collect();
    let list =
        |names: &[&NodeName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match fitting[..] {
        [one] => Ok(one.clone()),
        [] => {
            let close = closest(typed.as_str(), names.iter().map(|name| name.as_str()));
            let advice = match close {
                Some(close) => format!("did you mean `{close}`? there are: {}", list(names)),
                None => format!("there are: {}", list(names)),
            };
            Err(Error::new(Code::NotFound, format!("there is no node `{typed}`; {advice}")))
        }
        _ => {
            let message = format!("`{typed}` fits more than one node: {}", list(&fitting));
            Err(Error::new(Code::BadRequest, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn the_beginning_is_enough_if_only_one_fits() {
        let all = ["n1", "n11", "n2", "east-1", "east-2"].map(|name| NodeName::new(name).unwrap());
        let names: Vec<&NodeName> = all.iter().collect();
        let found = |typed: &str| {
            let found = resolve(&NodeName::new(typed).unwrap(), &names);
            found.map(|name| name.to_string()).map_err(|error| (error.code, error.message))
        };
        assert_eq!(found("n2").as_deref(), Ok("n2"));
        assert_eq!(found("n1").as_deref(), Ok("n1"), "a whole name is not ambiguous");
        assert_eq!(found("east-2").as_deref(), Ok("east-2"));
        let ambiguous =
            (Code::BadRequest, "`e` fits more than one node: east-1, east-2".to_owned());
        assert_eq!(found("e"), Err(ambiguous));
        let (code, message) = found("esat-1").unwrap_err();
        assert_eq!(code, Code::NotFound);
        assert!(message.contains("did you mean `east-1`?"), "{message}");
        assert!(found("zz").unwrap_err().1.contains("there are: n1, n11"));
    }

    #[test]
    fn names_are_looked_up_where_a_cluster_has_them() {
        let count = |line: &str| {
            let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
            let mut cli = Cli::from_words(words).unwrap();
            places(&mut cli.verb, &mut cli.globals).len()
        };
        for (line, expected) in [
            ("info n", 1),
            ("info", 0),
            ("info n --node n1", 2),
            ("get k --node n", 1),
            ("breaker open n2 --for 1m", 1),
            ("node kill n2", 1),
            ("metrics show --node n", 1),
            ("metrics list --node n", 0),
            ("cluster init --member n1=primary@h:1 --node n1", 0),
            ("connect h:1 --node n", 0),
            ("cert list --node n", 0),
        ] {
            assert_eq!(count(line), expected, "{line}");
        }
    }
}
