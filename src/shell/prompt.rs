//! The prompt: where we are and how it is there, from what was heard last. Pure.

use crate::cli::strategy::document;
use crate::types::NodeName;
use crate::wire::client::Strategy;

/// What is known for the prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Cluster in our certificate.
    pub cluster: Option<String>,
    /// The node that answered last.
    pub node: Option<NodeName>,
    /// Placement and version of the map; none while not connected.
    pub map: Option<(Strategy, u64)>,
    /// Nodes that are down; none while nobody told.
    pub down: Option<Vec<NodeName>>,
}

/// `ppdb:prod n1 [sharded e41 ok]> `.
pub fn prompt(seen: &Seen) -> String {
    let cluster = seen.cluster.as_deref().unwrap_or("--");
    let node = seen.node.as_ref().map_or("--", NodeName::as_str);
    let Some((strategy, epoch)) = seen.map else {
        return format!("ppdb:{cluster} -- [not connected]> ");
    };
    let health = match &seen.down {
        None => String::new(),
        Some(down) if down.is_empty() => " ok".to_owned(),
        Some(down) => {
            let names: Vec<&str> = down.iter().map(NodeName::as_str).collect();
            format!(" degraded:{}", names.join(","))
        }
    };
    format!("ppdb:{cluster} {node} [{} e{epoch}{health}]> ", document::name(strategy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_we_are_and_how_it_is_there() {
        let node = |name: &str| NodeName::new(name).unwrap();
        let mut seen = Seen { cluster: Some("prod".into()), ..Seen::default() };
        assert_eq!(prompt(&Seen::default()), "ppdb:-- -- [not connected]> ");
        assert_eq!(prompt(&seen), "ppdb:prod -- [not connected]> ");
        seen.map = Some((Strategy::Sharded, 41));
        seen.node = Some(node("n1"));
        assert_eq!(prompt(&seen), "ppdb:prod n1 [sharded e41]> ");
        seen.down = Some(Vec::new());
        assert_eq!(prompt(&seen), "ppdb:prod n1 [sharded e41 ok]> ");
        seen.down = Some(vec![node("n2"), node("n3")]);
        seen.map = Some((Strategy::Full, 42));
        assert_eq!(prompt(&seen), "ppdb:prod n1 [full e42 degraded:n2,n3]> ");
    }
}
