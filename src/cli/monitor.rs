//! `monitor`: operations of all nodes, or of one, as they come, and a summary at the end.
//!
//! Each node is asked for what has come since the last question. What it dropped is counted, and estimates say so.

use super::args::live::MonitorArgs;
use super::caller::{Caller, other_answer};
use super::everywhere;
use super::live::{self, End, Round};
use super::logs::time;
use super::output::escape;
use super::session::Call;
use super::talk::Talk;
use super::value::{Answered, Doc, named_bytes};
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::monitor::{MonitorEvent, MonitorPage, MonitorQuestion, Outcome, Wish};
use parking_lot::Mutex;
use serde_json::{Map as JsonMap, Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two questions to a node.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Operations in the one answer of `-o json`; further ones are counted.
const EVENTS_MAX: usize = 10_000;

/// An operation and the node that carried it out.
type Of = (NodeName, MonitorEvent);

/// Watches until the time is up, there were so many lines, or Ctrl-C.
pub async fn run<C: Caller>(caller: &C, args: MonitorArgs, call: &Call) -> Result<Answered> {
    let prints = call.talk.prints_lines();
    if !prints && args.time.is_none() && args.limit.is_none() {
        let message = "one answer needs an end: say --for TIME or --limit N, or use -o jsonl";
        return Err(Error::new(Code::BadRequest, message));
    }
    let pattern = args.pattern().map_err(|why| Error::new(Code::BadRequest, why))?;
    let wish = Wish { one_in: args.sample, pattern, kinds: args.kinds.clone() };
    let nodes = everywhere::nodes(caller, call).await?;
    let watching = Mutex::new(Watching::new(&nodes, wish, args.limit));
    let until = live::end(call, args.time);
    let question = |node: &NodeName| Command::Monitor(watching.lock().question(node, false));
    let rounds = live::rounds(caller, &nodes, ASK_EVERY, question);
    let mut is_begun = false;
    let end = live::watch(rounds, until, |round| {
        let mut watching = watching.lock();
        let events = watching.take(round);
        if !is_begun && watching.is_begun() {
            is_begun = true;
            call.talk.note(&watching.said());
        }
        watching.keep(events, prints, call)
    })
    .await;
    let question = |node: &NodeName| Command::Monitor(watching.lock().question(node, true));
    let answers = everywhere::ask(caller, &nodes, call, question).await;
    let mut watching = watching.into_inner();
    watching.silent = answers.silent.clone();
    for (node, answer) in answers.given {
        let took = Duration::ZERO;
        let events = watching.take(Round { node, answer: Ok(answer), took });
        watching.keep(events, prints, call);
    }
    watching.answered(end, &call.talk)
}

/// What one node has told.
#[derive(Debug, Default)]
struct Told {
    /// Of the watch that goes on; another one begins anew.
    began_us: u64,
    last: u64,
    counts: Counts,
    /// Of the watches before it, and how many there were.
    earlier: Counts,
    begun_anew: u64,
    spent_first_us: Option<u64>,
    spent_us: u64,
    /// It has answered, or not: then it is no more waited for.
    is_heard: bool,
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    sampled: u64,
    matched: u64,
    dropped: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            sampled: self.sampled + other.sampled,
            matched: self.matched + other.matched,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// How far the watch is.
struct Watching {
    watch: u64,
    wish: Wish,
    limit: Option<u64>,
    began: Instant,
    told: BTreeMap<NodeName, Told>,
    silent: Vec<NodeName>,
    shown: u64,
    by_kind: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    /// For one answer.
    events: Vec<Of>,
}

impl Watching {
    fn new(nodes: &[NodeName], wish: Wish, limit: Option<u64>) -> Self {
        Self {
            watch: rand::random(),
            wish,
            limit,
            began: Instant::now(),
            told: nodes.iter().map(|node| (node.clone(), Told::default())).collect(),
            silent: Vec::new(),
            shown: 0,
            by_kind: BTreeMap::new(),
            failed: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn question(&self, node: &NodeName, is_last: bool) -> MonitorQuestion {
        let after = self.told.get(node).map_or(0, |told| told.last);
        MonitorQuestion { watch: self.watch, wish: self.wish.clone(), after, is_last }
    }

    /// What a node has told that was not told before.
    fn take(&mut self, round: Round) -> Vec<Of> {
        let Some(told) = self.told.get_mut(&round.node) else { return Vec::new() };
        told.is_heard = true;
        let page = match round.answer {
            Ok(Answer::Monitor(page)) => page,
            Ok(_) => {
                told.error = Some(other_answer());
                return Vec::new();
            }
            Err(error) => {
                told.error = Some(error);
                return Vec::new();
            }
        };
        told.error = None;
        told.count(&page);
        page.events.into_iter().map(|event| (round.node.clone(), event)).collect()
    }

    /// Every node has answered, or is known not to.
    fn is_begun(&self) -> bool {
        self.told.values().all(|told| told.is_heard)
    }

    /// Who is watched.
    fn said(&self) -> String {
        let heard = self.told.iter().filter(|(_, told)| told.error.is_none());
        let names: Vec<&str> = heard.map(|(node, _)| node.as_str()).collect();
        let refused = self.told.iter().filter_map(|(node, told)| {
            told.error.as_ref().map(|error| format!("; {node}: {}", error.message))
        });
        let refused: String = refused.collect();
        format!("watching {}, one in {} operations{refused}", names.join(" "), self.wish.one_in)
    }

    /// Prints operations, or keeps them for the answer; false if nobody reads, or there were enough.
    fn keep(&mut self, mut events: Vec<Of>, prints: bool, call: &Call) -> bool {
        if let Some(limit) = self.limit {
            events.truncate(usize::try_from(limit - self.shown).unwrap_or(usize::MAX));
        }
        for (_, event) in &events {
            self.shown += 1;
            *self.by_kind.entry(event.kind.name()).or_default() += 1;
            if let Outcome::Failed(code) = event.outcome {
                *self.failed.entry(code.name()).or_default() += 1;
            }
        }
        let is_read = match prints {
            true => call.talk.lines(&events, row, |of| json!({ "v": 1, "operation": json_of(of) })),
            false => {
                let room = EVENTS_MAX.saturating_sub(self.events.len());
                self.events.extend(events.into_iter().take(room));
                true
            }
        };
        is_read && self.limit.is_none_or(|limit| self.shown < limit)
    }

    fn answered(self, end: End, talk: &Talk) -> Result<Answered> {
        let error = self.told.values().find_map(|told| told.error.clone());
        let is_told = self.told.values().any(|told| told.began_us > 0);
        match error {
            Some(error) if !is_told => Err(error),
            _ => {
                let doc = self.doc(self.began.elapsed());
                talk.aside(&doc.notes);
                Ok(end.of(Answered::doc(doc, None)))
            }
        }
    }

    fn doc(&self, time: Duration) -> Doc {
        let all = self.told.values().map(|told| told.earlier.plus(told.counts));
        let all = all.fold(Counts::default(), Counts::plus);
        let seconds = time.as_secs_f64().max(0.001);
        // Each that is shown stands for those that were not sampled, and for those that were dropped.
        let weight = f64::from(self.wish.one_in) * all.matched as f64 / self.shown.max(1) as f64;
        let rate = |count: u64| count as f64 * weight / seconds;
        let spent_us: u64 = self.told.values().map(Told::spent_us).sum();
        let kinds = self.by_kind.iter().map(|(kind, count)| {
            json!({ "op": kind, "shown": count, "ops_per_s": rate(*count).round() })
        });
        let failed =
            self.failed.iter().map(|(code, count)| json!({ "code": code, "shown": count }));
        let begun_anew: u64 = self.told.values().map(|told| told.begun_anew).sum();
        let silent: Vec<&str> = self.silent.iter().map(NodeName::as_str).collect();
        let summary = json!({
            "seconds": (seconds * 10.0).round() / 10.0, "one_in": self.wish.one_in,
            "sampled": all.sampled, "matched": all.matched, "shown": self.shown,
            "dropped": all.dropped, "ops_per_s": rate(self.shown).round(),
            "kinds": kinds.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>(),
            "node_ms": spent_us as f64 / 1_000.0, "begun_anew": begun_anew, "no_answer": silent,
        });
        let json = json!({
            "operations": self.events.iter().map(json_of).collect::<Vec<_>>(), "summary": summary,
        });
        let mut notes = vec![format!(
            "{} shown of {} that match, {} sampled (one in {}) in {seconds:.1} s; about {:.0} a second match",
            self.shown,
            all.matched,
            all.sampled,
            self.wish.one_in,
            rate(self.shown)
        )];
        let kinds = self
            .by_kind
            .iter()
            .map(|(kind, count)| format!("{kind} {count} ({:.0}/s)", rate(*count)));
        let failed = self.failed.iter().map(|(code, count)| format!("{code} {count}"));
        let listed = [("by operation", kinds.collect::<Vec<_>>()), ("failed", failed.collect())];
        for (what, list) in listed.into_iter().filter(|(_, list)| !list.is_empty()) {
            notes.push(format!("{what}: {}", list.join("  ")));
        }
        notes.push(format!(
            "dropped for lack of room: {}; the nodes spent {:.1} ms on it",
            all.dropped,
            spent_us as f64 / 1_000.0
        ));
        if begun_anew > 0 {
            notes.push(format!(
                "not counted is what came while a node had forgotten the watch or was started anew: {begun_anew} times"
            ));
        }
        if !silent.is_empty() {
            notes.push(format!("no answer from {}", silent.join(", ")));
        }
        Doc { json, header: Vec::new(), rows: Vec::new(), notes }
    }
}

impl Told {
    fn count(&mut self, page: &MonitorPage) {
        if self.began_us != page.began_us {
            self.earlier = self.earlier.plus(self.counts);
            self.begun_anew += u64::from(self.began_us > 0);
            (self.began_us, self.last) = (page.began_us, 0);
        }
        self.counts =
            Counts { sampled: page.sampled, matched: page.matched, dropped: page.dropped };
        self.last = page.events.last().map_or(self.last, |event| event.sequence);
        // A process that was started anew counts from zero.
        let first = self.spent_first_us.get_or_insert(page.spent_us);
        *first = (*first).min(page.spent_us);
        self.spent_us = page.spent_us;
    }

    fn spent_us(&self) -> u64 {
        self.spent_us - self.spent_first_us.unwrap_or(self.spent_us)
    }
}

/// The columns: time, node, who, what, key, outcome, milliseconds.
fn row((node, event): &Of) -> Vec<String> {
    let dots = if event.key_bytes as usize > event.key.len() { "..." } else { "" };
    vec![
        time(event.at_ms),
        node.to_string(),
        event.by.clone(),
        event.kind.name().to_owned(),
        format!("{}{dots}", escape(&event.key)),
        event.outcome.name().to_owned(),
        format!("{:.3}", event.took_us as f64 / 1_000.0),
    ]
}

fn json_of((node, event): &Of) -> Json {
    let mut object = JsonMap::new();
    object.insert("at_ms".into(), json!(event.at_ms));
    object.insert("node".into(), json!(node.as_str()));
    object.insert("by".into(), json!(event.by));
    object.insert("op".into(), json!(event.kind.name()));
    named_bytes(&mut object, "key", &event.key);
    if let Json::Object(more) = json!({
        "key_bytes": event.key_bytes, "shard": event.shard.0, "operations": event.operations,
        "outcome": event.outcome.name(), "ms": event.took_us as f64 / 1_000.0,
    }) {
        object.extend(more);
    }
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use super::super::testing::name;
    use super::*;
    use crate::types::ShardId;
    use crate::wire::monitor::OpKind;

    fn event(sequence: u64, kind: OpKind, outcome: Outcome) -> MonitorEvent {
        MonitorEvent {
            sequence,
            at_ms: 1_700_000_000_123,
            by: "user ann".into(),
            kind,
            key: "cart:\u{1b}42".into(),
            key_bytes: 8,
            shard: ShardId(3),
            operations: 1,
            outcome,
            took_us: 1_250,
        }
    }

    fn page(began_us: u64, first: u64, count: u64, counts: Counts) -> MonitorPage {
        let of = |sequence| match sequence % 2 {
            0 => event(sequence, OpKind::Set, Outcome::Failed(Code::Overloaded)),
            _ => event(sequence, OpKind::Get, Outcome::Absent),
        };
        MonitorPage {
            began_us,
            events: (first..first + count).map(of).collect(),
            sampled: counts.sampled,
            matched: counts.matched,
            dropped: counts.dropped,
            spent_us: 100 * counts.sampled,
        }
    }

    fn take(watching: &mut Watching, node: &str, page: MonitorPage) -> Vec<Of> {
        let answer = Ok(Answer::Monitor(page));
        watching.take(Round { node: name(node), answer, took: Duration::ZERO })
    }

    fn counts(sampled: u64, matched: u64, dropped: u64) -> Counts {
        Counts { sampled, matched, dropped }
    }

    fn watching(limit: Option<u64>) -> Watching {
        let wish = Wish { one_in: 10, pattern: None, kinds: vec![] };
        Watching::new(&[name("n1"), name("n2")], wish, limit)
    }

    fn call() -> Call {
        super::super::testing::call(Duration::from_secs(5))
    }

    #[test]
    fn a_question_goes_on_where_the_last_page_ended_and_a_new_watch_begins_anew() {
        let mut watching = watching(None);
        assert_eq!(watching.question(&name("n1"), false).after, 0);
        assert_eq!(take(&mut watching, "n1", page(5, 1, 3, counts(30, 3, 0))).len(), 3);
        assert_eq!(watching.question(&name("n1"), false).after, 3);
        take(&mut watching, "n1", page(5, 4, 0, counts(40, 3, 0)));
        assert_eq!(watching.question(&name("n1"), true).after, 3);
        assert!(!watching.is_begun(), "n2 was not heard");
        let error = Err(Error::new(Code::Unreachable, "n2 is down"));
        watching.take(Round { node: name("n2"), answer: error, took: Duration::ZERO });
        assert!(watching.is_begun());
        assert_eq!(watching.said(), "watching n1, one in 10 operations; n2: n2 is down");
        // Another process: its numbers and counts begin at 1.
        take(&mut watching, "n1", page(9, 1, 1, counts(7, 1, 0)));
        assert_eq!(watching.question(&name("n1"), false).after, 1);
        let told = &watching.told[&name("n1")];
        assert_eq!((told.earlier.plus(told.counts), told.begun_anew), (counts(47, 4, 0), 1));
        let doc = watching.doc(Duration::from_secs(1));
        assert_eq!(doc.json["summary"]["begun_anew"], 1);
    }

    #[test]
    fn the_summary_counts_what_was_shown_and_estimates_the_rest() {
        let mut watching = watching(None);
        // Half of what matches was dropped.
        let events = take(&mut watching, "n1", page(5, 1, 10, counts(50, 20, 10)));
        assert!(watching.keep(events, false, &call()));
        watching.silent = vec![name("n2")];
        let doc = watching.doc(Duration::from_secs(10));
        let summary = &doc.json["summary"];
        assert_eq!((&summary["shown"], &summary["matched"]), (&json!(10), &json!(20)));
        assert_eq!((&summary["dropped"], &summary["ops_per_s"]), (&json!(10), &json!(20.0)));
        let get = json!({ "op": "get", "shown": 5, "ops_per_s": 10.0 });
        assert_eq!(summary["kinds"][0], get);
        assert_eq!(summary["failed"], json!([{ "code": "Overloaded", "shown": 5 }]));
        assert_eq!(summary["no_answer"], json!(["n2"]));
        let first = &doc.json["operations"][0];
        assert_eq!((&first["op"], &first["outcome"]), (&json!("get"), &json!("absent")));
        assert_eq!((&first["key"], &first["ms"]), (&json!("cart:\u{1b}42"), &json!(1.25)));
        assert!(doc.notes[0].starts_with("10 shown of 20 that match, 50 sampled"), "{doc:?}");
    }

    #[test]
    fn a_limit_ends_it_and_lines_obey_no_terminal() {
        let mut watching = watching(Some(3));
        let events = take(&mut watching, "n1", page(5, 1, 2, counts(2, 2, 0)));
        assert!(watching.keep(events, false, &call()));
        let events = take(&mut watching, "n1", page(5, 3, 9, counts(11, 11, 0)));
        assert!(!watching.keep(events, false, &call()));
        assert_eq!((watching.shown, watching.events.len()), (3, 3));
        let row = row(&watching.events[1]);
        let expected = [
            "2023-11-14T22:13:20.123Z",
            "n1",
            "user ann",
            "set",
            "cart:\\x1b42",
            "Overloaded",
            "1.250",
        ];
        assert_eq!(row, expected);
    }

    #[test]
    fn nobody_to_watch_is_an_error_and_some_are_enough() {
        let mut none = watching(None);
        let error = || Err(Error::new(Code::Overloaded, "too many"));
        let round = |node, answer| Round { node: name(node), answer, took: Duration::ZERO };
        none.take(round("n1", error()));
        none.take(round("n2", error()));
        assert_eq!(none.answered(End::Time, &Talk::default()).unwrap_err().code, Code::Overloaded);
        let mut one = watching(None);
        take(&mut one, "n1", page(5, 1, 0, counts(0, 0, 0)));
        one.take(round("n2", error()));
        assert_eq!(one.answered(End::Interrupted, &Talk::default()).unwrap().code, Some(130));
    }
}
