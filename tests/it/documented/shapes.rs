//! The shape of answers: which paths a document has, and of which types.
//!
//! One line for each path of each command: `strategy plan<TAB>.value.checks[].node<TAB>null|string`, and `?` behind the
//! path if it is not always there.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Below these, keys are data and not part of the contract.
const KEYS_ARE_DATA: &[&str] =
    &[".value.lines[].fields", ".value.params", ".value.steps[].result", ".value.result"];
/// Commands that answer the same document, and what it is called.
const ALIKE: &[(&str, &[&str])] = &[
    (
        "an operation",
        &[
            "strategy prepare",
            "strategy commit",
            "strategy switch",
            "strategy abort",
            "strategy revert",
            "strategy finalize",
            "strategy throttle",
            "strategy watch",
        ],
    ),
    ("breakers", &["breaker list", "breaker open", "breaker close"]),
];

/// What is known of one path.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    types: BTreeSet<String>,
    optional: bool,
}

/// By command and path.
#[derive(Default)]
pub struct Shapes {
    paths: BTreeMap<(String, String), Known>,
}

impl Shapes {
    /// Takes an answer of a command in.
    pub fn add(&mut self, name: &str, answer: &Value) {
        let alike = ALIKE.iter().find(|(_, commands)| commands.contains(&name));
        let name = alike.map_or(name, |(document, _)| document);
        let mut seen = BTreeMap::new();
        walk(answer, String::new(), &mut seen);
        // Objects that were there before, without what is new now.
        let before: BTreeSet<String> = self
            .paths
            .iter()
            .filter(|((command, _), known)| command == name && known.types.contains("object"))
            .map(|((_, path), _)| path.clone())
            .collect();
        for (path, (types, always)) in &seen {
            let optional = before.contains(parent(path)) && !path.is_empty();
            let known = self
                .paths
                .entry((name.to_owned(), path.clone()))
                .or_insert_with(|| Known { optional, ..Known::default() });
            known.types.extend(types.iter().map(|name| (*name).to_owned()));
            known.optional |= !always;
        }
        for ((command, path), known) in &mut self.paths {
            if command == name && !seen.contains_key(path) && parent_is_an_object(&seen, path) {
                known.optional = true;
            }
        }
    }

    /// Compares with what is written down, or writes it down if that is asked for.
    pub fn hold(&self, file: &Path) {
        let mut written = Self::of_text(&std::fs::read_to_string(file).expect("the file is there"));
        if std::env::var_os("PPDB_TEST_WRITE_ANSWERS").is_some() {
            written.take_in(self);
            std::fs::write(file, written.to_text()).expect("the file can be written");
            return;
        }
        let wrong = self.differences(&written);
        assert!(wrong.is_empty(), "the JSON has changed: {wrong:#?}");
    }

    /// What is not as it is written down.
    fn differences(&self, written: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        for ((command, path), known) in &self.paths {
            match written.paths.get(&(command.clone(), path.clone())) {
                None => wrong.push(format!("`{command}` has {path}, which is not written down")),
                Some(agreed) if !known.types.is_subset(&agreed.types) => wrong.push(format!(
                    "`{command}`: {path} is {:?}, agreed is {:?}",
                    known.types, agreed.types
                )),
                Some(agreed) if known.optional && !agreed.optional => {
                    wrong.push(format!("`{command}`: {path} is missing at times"));
                }
                Some(_) => {}
            }
        }
        for ((command, path), agreed) in &written.paths {
            let seen = self.paths.contains_key(&(command.clone(), path.clone()));
            if !seen && !agreed.optional && self.has_parent(command, path) {
                wrong.push(format!("`{command}` has no {path} any more"));
            }
        }
        wrong
    }

    /// What is new, added to what is written down. What is gone is taken out by hand, because that is a decision.
    fn take_in(&mut self, new: &Self) {
        for (key, seen) in &new.paths {
            match self.paths.get_mut(key) {
                Some(known) => {
                    known.types.extend(seen.types.iter().cloned());
                    known.optional |= seen.optional;
                }
                None => {
                    self.paths.insert(key.clone(), seen.clone());
                }
            }
        }
    }

    /// Paths of which nothing but null is known.
    pub fn unknown(&self) -> Vec<String> {
        let of_all = [".token", ".served_by"];
        let null = |known: &Known| known.types.iter().all(|name| name == "null");
        let paths = self
            .paths
            .iter()
            .filter(|((_, path), known)| null(known) && !of_all.contains(&path.as_str()));
        paths.map(|((command, path), _)| format!("{command} {path}")).collect()
    }

    fn has_parent(&self, command: &str, path: &str) -> bool {
        let parent = (command.to_owned(), parent(path).to_owned());
        self.paths.get(&parent).is_some_and(|known| known.types.contains("object"))
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for ((command, path), known) in &self.paths {
            let types: Vec<&str> = known.types.iter().map(String::as_str).collect();
            let mark = if known.optional { "?" } else { "" };
            let _ = writeln!(text, "{command}\t{path}{mark}\t{}", types.join("|"));
        }
        text
    }

    /// Reads what is written down.
    pub fn of_text(text: &str) -> Self {
        let mut shapes = Self::default();
        for line in text.lines() {
            let mut parts = line.split('\t');
            let mut next = || parts.next().unwrap_or_else(|| panic!("half a line: {line}"));
            let (command, path, types) = (next(), next(), next());
            let optional = path.ends_with('?');
            let types = types.split('|').map(str::to_owned).collect();
            let key = (command.to_owned(), path.trim_end_matches('?').to_owned());
            shapes.paths.insert(key, Known { types, optional });
        }
        shapes
    }
}

type Seen = BTreeMap<String, (BTreeSet<&'static str>, bool)>;

fn parent_is_an_object(seen: &Seen, path: &str) -> bool {
    seen.get(parent(path)).is_some_and(|(types, _)| types.contains("object"))
}

/// `.value.nodes[]` of `.value.nodes[].name`, and `.value.nodes` of that; the answer itself is the empty path.
fn parent(path: &str) -> &str {
    path.strip_suffix("[]").unwrap_or_else(|| path.rfind('.').map_or("", |at| &path[..at]))
}

fn walk(value: &Value, path: String, seen: &mut Seen) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    seen.entry(path.clone()).or_insert_with(|| (BTreeSet::new(), true)).0.insert(kind);
    if KEYS_ARE_DATA.contains(&path.as_str()) {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, format!("{path}.{key}"), seen);
            }
        }
        Value::Array(elements) => {
            let below = format!("{path}[].");
            let mut of_all: Option<BTreeSet<String>> = None;
            for element in elements {
                let mut of_one = Seen::new();
                walk(element, format!("{path}[]"), &mut of_one);
                let own = |p: &&String| p.starts_with(&below) && parent(p) == format!("{path}[]");
                let keys: BTreeSet<String> = of_one.keys().filter(own).cloned().collect();
                of_all = Some(match of_all {
                    Some(before) => before.intersection(&keys).cloned().collect(),
                    None => keys,
                });
                for (path, (types, always)) in of_one {
                    let known = seen.entry(path).or_insert_with(|| (BTreeSet::new(), true));
                    known.0.extend(types);
                    known.1 &= always;
                }
            }
            // What some elements have and others do not.
            let of_all = of_all.unwrap_or_default();
            for (found, known) in seen.iter_mut() {
                if found.starts_with(&below) && parent(found) == format!("{path}[]") {
                    known.1 &= of_all.contains(found);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn of_every_field_it_is_known_what_it_is_when_it_is_there() {
    let unknown = Shapes::of_text(include_str!("answers.txt")).unknown();
    assert!(unknown.is_empty(), "write down by hand what they may be: {unknown:#?}");
}

#[test]
fn a_field_that_is_gone_or_of_another_type_is_noticed() {
    let answer = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let mut agreed = Shapes::default();
    agreed.add("a", &answer(r#"{"v":1,"list":[{"x":1,"y":null},{"x":2}],"o":{"p":true}}"#));
    agreed.add("a", &answer(r#"{"v":1,"list":[],"o":null}"#));
    let written = Shapes::of_text(&agreed.to_text());
    let holds = |text: &str| {
        let mut shapes = Shapes::default();
        shapes.add("a", &answer(text));
        shapes.differences(&written).is_empty()
    };
    assert!(holds(r#"{"v":1,"list":[{"x":1}],"o":{"p":false}}"#));
    assert!(holds(r#"{"v":1,"list":[],"o":null}"#));
    for changed in [
        r#"{"v":1,"list":[{"y":null}],"o":null}"#,
        r#"{"v":"1","list":[],"o":null}"#,
        r#"{"v":1,"list":[],"o":{}}"#,
        r#"{"v":1,"list":[]}"#,
        r#"{"v":1,"list":[],"o":null,"new":1}"#,
    ] {
        assert!(!holds(changed), "{changed}");
    }
}
