//! The prompt: where we are and how it is there, from what was heard last. Pure.

use super::seen::{Heard, Snapshot};
use crate::cli::strategy::document;
use crate::types::NodeName;

const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const RED: u8 = 31;

/// What is known for the prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The context that the session is in.
    pub context: Option<String>,
    /// How the context wants to look: an SGR number such as 31.
    pub color: Option<u8>,
    /// Cluster in our certificate.
    pub cluster: Option<String>,
    /// The node that answered last.
    pub node: Option<NodeName>,
    /// True if nothing may be changed until `writes on`.
    pub read_only: bool,
    /// The context is protected: its keys are not offered.
    pub protected: bool,
    /// How it is there.
    pub heard: Heard,
}

/// A piece of text and how it is drawn.
type Piece = (String, Option<u8>);

/// The prompt without colors: `ppdb:prod n1 [sharded e41 ok]> `.
pub fn prompt(seen: &Seen) -> String {
    pieces(seen).into_iter().map(|(text, _)| text).collect()
}

/// The same with colors.
pub fn styled(seen: &Seen) -> String {
    let draw = |(text, color): Piece| match color {
        Some(color) => format!("\x1b[{color}m{text}\x1b[0m"),
        None => text,
    };
    pieces(seen).into_iter().map(draw).collect()
}

fn pieces(seen: &Seen) -> Vec<Piece> {
    let place = seen.context.as_deref().or(seen.cluster.as_deref()).unwrap_or("--");
    let mut pieces = vec![("ppdb:".to_owned(), None), (place.to_owned(), seen.color)];
    match &seen.heard {
        Heard::NotYet | Heard::Silence => {
            pieces.push((" -- ".to_owned(), None));
            pieces.push(("[not connected]".to_owned(), Some(RED)));
        }
        Heard::NotReady => {
            pieces.push((" -- ".to_owned(), None));
            pieces.push(("[not ready]".to_owned(), Some(YELLOW)));
        }
        Heard::Answer(snapshot) => {
            let node = seen.node.as_ref().map_or("--", NodeName::as_str);
            pieces.push((format!(" {node} ["), None));
            pieces.extend(state(snapshot));
            pieces.push(("]".to_owned(), None));
        }
    }
    if seen.read_only {
        pieces.push((" ro".to_owned(), Some(YELLOW)));
    }
    pieces.push(("> ".to_owned(), None));
    pieces
}

/// What stands between the brackets.
fn state(snapshot: &Snapshot) -> Vec<Piece> {
    let Snapshot { strategy, epoch, .. } = snapshot;
    let mut pieces = Vec::new();
    let running = snapshot.operation.as_ref().filter(|operation| operation.phase.holds_slot());
    match running {
        Some(operation) => {
            let (from, to) = (document::name(operation.from), document::name(operation.to));
            pieces.push((format!("{from}->{to} e{epoch} "), None));
            let percent = operation.percent.map_or(String::new(), |percent| format!(" {percent}%"));
            pieces.push((format!("{}{percent}", operation.phase.name()), Some(YELLOW)));
        }
        None => pieces.push((format!("{} e{epoch}", document::name(*strategy)), None)),
    }
    let bad = trouble(snapshot);
    match (bad.is_empty(), running) {
        (true, None) => pieces.push((" ok".to_owned(), Some(GREEN))),
        (true, Some(_)) => {}
        (false, _) => pieces.push((format!(" {}", bad.join(" ")), Some(RED))),
    }
    pieces
}

/// What is not well.
fn trouble(snapshot: &Snapshot) -> Vec<String> {
    let mut bad = Vec::new();
    if !snapshot.down.is_empty() {
        let names: Vec<&str> = snapshot.down.iter().map(NodeName::as_str).collect();
        bad.push(format!("degraded:{}", names.join(",")));
    }
    for (word, count) in [
        ("no-leader", snapshot.leaderless.len()),
        ("lag", snapshot.lagging()),
        ("alarms", snapshot.other_alarms()),
    ] {
        if count > 0 {
            bad.push(format!("{word}:{count}"));
        }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::super::seen::testing::{alarm, healthy, node, running};
    use super::*;
    use crate::alarms::Kind;
    use crate::types::ShardId;
    use crate::wire::client::Strategy;
    use crate::wire::operation::Phase;

    fn at(snapshot: Snapshot) -> Seen {
        Seen {
            cluster: Some("prod".into()),
            node: Some(node("n1")),
            heard: Heard::Answer(Box::new(snapshot)),
            ..Seen::default()
        }
    }

    #[test]
    fn it_says_where_we_are_and_how_it_is_there() {
        let mut seen = Seen { cluster: Some("prod".into()), ..Seen::default() };
        assert_eq!(prompt(&Seen::default()), "ppdb:-- -- [not connected]> ");
        assert_eq!(prompt(&seen), "ppdb:prod -- [not connected]> ");
        seen = at(healthy());
        assert_eq!(prompt(&seen), "ppdb:prod n1 [sharded e41 ok]> ");
        seen.context = Some("shop".into());
        seen.read_only = true;
        assert_eq!(prompt(&seen), "ppdb:shop n1 [sharded e41 ok] ro> ");
        let mut bad = Snapshot { strategy: Strategy::Full, epoch: 42, ..healthy() };
        bad.down = [node("n2"), node("n3")].into();
        bad.leaderless = [ShardId(4)].into();
        alarm(&mut bad, Kind::Lag, "s3 on r1");
        alarm(&mut bad, Kind::Disk, "n1");
        alarm(&mut bad, Kind::NodeDown, "n2");
        let expected = "ppdb:prod n1 [full e42 degraded:n2,n3 no-leader:1 lag:1 alarms:1]> ";
        assert_eq!(prompt(&at(bad)), expected);
        let lost = Seen { heard: Heard::Silence, ..at(healthy()) };
        assert_eq!(prompt(&lost), "ppdb:prod -- [not connected]> ");
        let starting = Seen { heard: Heard::NotReady, ..at(healthy()) };
        assert_eq!(prompt(&starting), "ppdb:prod -- [not ready]> ");
    }

    #[test]
    fn it_says_what_is_under_way() {
        let mut moving = Snapshot { operation: Some(running(Phase::Copying)), ..healthy() };
        assert_eq!(prompt(&at(moving.clone())), "ppdb:prod n1 [sharded->full e41 copying]> ");
        moving.operation =
            moving.operation.map(|op| super::super::seen::Running { percent: Some(37), ..op });
        assert_eq!(prompt(&at(moving.clone())), "ppdb:prod n1 [sharded->full e41 copying 37%]> ");
        moving.down = [node("n2")].into();
        let expected = "ppdb:prod n1 [sharded->full e41 copying 37% degraded:n2]> ";
        assert_eq!(prompt(&at(moving.clone())), expected);
        let soaking = Snapshot { operation: Some(running(Phase::Soaking)), ..healthy() };
        assert_eq!(prompt(&at(soaking)), "ppdb:prod n1 [sharded e41 ok]> ");
    }

    #[test]
    fn colors_change_nothing_but_colors() {
        let mut seen = at(Snapshot { down: [node("n3")].into(), ..healthy() });
        seen.color = Some(RED);
        let drawn = styled(&seen);
        assert!(drawn.contains("\x1b[31mprod\x1b[0m"), "{drawn}");
        assert!(drawn.contains("\x1b[31m degraded:n3\x1b[0m"), "{drawn}");
        let mut bare = drawn;
        for color in [RED, GREEN, YELLOW, 0] {
            bare = bare.replace(&format!("\x1b[{color}m"), "");
        }
        assert_eq!(bare, prompt(&seen));
    }
}
