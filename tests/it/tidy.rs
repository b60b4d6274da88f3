//! Rules of the repository, as a test: the direction of dependencies, what only one module may name,
//! how a file opens, words that do not belong here, and that the gate runs what the README says.
//!
//! The rules are pure functions over (path, text), so each is also tested with a planted violation.

use std::fs;
use std::path::Path;

/// A file: path relative to the repository, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

/// Names that only some files may use, and which: a path has to start with one of the prefixes.
const RESERVED: &[(&str, &[&str])] = &[
    ("openraft", &["src/raft/"]),
    ("heed", &["src/storage/lmdb"]),
    ("unsafe", &["src/storage/lmdb"]),
];

/// Words that never belong into a file that is shipped, with what they usually mean.
const WORDS: &[(&str, &str)] = &[
    ("todo!", "unfinished"),
    ("unimplemented!", "unfinished"),
    ("TODO", "unfinished"),
    ("FIXME", "unfinished"),
    ("XXX", "unfinished"),
    ("dbg!", "left over"),
    ("ticket", "the text speaks of the product"),
    ("issue #", "the text speaks of the product"),
    ("coding agent", "the text speaks of the product"),
    ("language model", "the text speaks of the product"),
];

/// Where such a word is a term of the field.
const TERMS: &[&str] = &["session ticket", "TLS ticket"];

/// Lines of `src/main.rs` at most: everything else belongs into the library.
const MAIN_LINES_MAX: usize = 60;

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "fuzz", "scripts", "certs", ".ci"] {
        collect(root, &root.join(folder), &mut files);
    }
    for name in ["README.md", "ARCHITECTURE.md", "Cargo.toml"] {
        files.push(read(root, &root.join(name)));
    }
    assert!(files.len() > 40, "only {} files were found", files.len());
    let found = violations(&files);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// Every rule over every file.
fn violations(files: &[File]) -> Vec<String> {
    let text_of =
        |path: &str| files.iter().find(|f| f.path == path).map_or("", |f| f.text.as_str());
    let order = modules(text_of("src/lib.rs"));
    let mut found = Vec::new();
    for file in files {
        if file.path.ends_with(".rs") {
            found.extend(opening(file));
            let tokens = tokens(&file.text);
            found.extend(climbs(file, &tokens, &order));
            found.extend(reserved(file, &tokens));
        }
        found.extend(words(file));
    }
    let main_lines = text_of("src/main.rs").lines().count();
    if main_lines >= MAIN_LINES_MAX {
        found.push(format!(
            "src/main.rs has {main_lines} lines, allowed are under {MAIN_LINES_MAX}"
        ));
    }
    found.extend(commands(text_of("README.md"), text_of(".ci/run")));
    found
}

/// The modules in the order of `pub mod` in `lib.rs`: each may use those in front of it.
fn modules(lib: &str) -> Vec<String> {
    let name =
        |line: &str| line.trim().strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned);
    lib.lines().filter_map(name).collect()
}

/// Every source file opens by saying what it is for.
fn opening(file: &File) -> Option<String> {
    let fits =
        file.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 12);
    (!fits).then(|| format!("{}: does not open with `//!` and what the file is for", file.path))
}

/// Paths to a module that stands below the one they are written in.
fn climbs(file: &File, tokens: &[Token], order: &[String]) -> Vec<String> {
    let Some(own) = module_path(&file.path) else { return Vec::new() };
    let Some(rank) = own.first().and_then(|top| order.iter().position(|m| m == top)) else {
        return Vec::new();
    };
    let below =
        |name: &String| order.iter().position(|m| m == name).is_some_and(|other| other > rank);
    top_level_uses(tokens, own.len())
        .into_iter()
        .filter(|(name, _)| below(name))
        .map(|(name, line)| {
            format!("{}:{line}: `{}` uses `{name}`, which stands below it", file.path, order[rank])
        })
        .collect()
}

/// Names reserved for other files.
fn reserved(file: &File, tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, homes) in RESERVED {
        let at_home = homes.iter().any(|home| file.path.starts_with(home));
        let used = tokens.iter().find(|token| token.text == *name);
        if let (false, Some(token)) = (at_home, used) {
            let homes = homes.join(", ");
            found.push(format!("{}:{}: `{name}` belongs into {homes}", file.path, token.line));
        }
    }
    found
}

/// Words that do not belong here. This file has to name them and is left out.
fn words(file: &File) -> Vec<String> {
    if file.path == "tests/it/tidy.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let line = TERMS.iter().fold(line.to_owned(), |line, term| line.replace(term, ""));
        for (word, why) in WORDS {
            if contains_word(&line, word) {
                found.push(format!("{}:{}: `{word}`: {why}", file.path, number + 1));
            }
        }
    }
    found
}

/// True if `word` stands in `line` and does not begin in the middle of another word.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// The test command of the README is the one that the gate runs, and so is the demo.
fn commands(readme: &str, gate: &str) -> Vec<String> {
    let without_comment = |line: &str| line.split(" #").next().unwrap_or("").trim().to_owned();
    let in_readme: Vec<String> = readme
        .lines()
        .map(without_comment)
        .filter(|line| {
            line.starts_with("cargo test") || line.starts_with("cargo run --release -- demo --exit")
        })
        .collect();
    let in_gate: Vec<String> = gate.lines().map(without_comment).collect();
    let mut found = Vec::new();
    for wanted in ["cargo test", "cargo run --release -- demo --exit"] {
        if !in_readme.iter().any(|line| line.starts_with(wanted)) {
            found.push(format!("README.md does not show `{wanted}` on a line of its own"));
        }
    }
    for command in in_readme {
        let runs = |line: &String| {
            line.strip_prefix(&command).is_some_and(|rest| {
                !rest.starts_with(' ') || rest.trim_start().starts_with(['>', '|'])
            })
        };
        if !in_gate.iter().any(runs) {
            found.push(format!(".ci/run does not run `{command}` of README.md"));
        }
    }
    found
}

/// `src/storage/wal/mod.rs` is `[storage, wal]`; `lib.rs`, `main.rs` and other folders are no module.
fn module_path(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts != ["lib"] && parts != ["main"]).then_some(parts)
}

/// A word or a sign of the source, outside comments and literals.
#[derive(Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// Splits source into identifiers, `::`, and single signs; drops comments, strings and characters.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut out) = (0, 1, Vec::new());
    let mut raw_from = None;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        let end = match (c, next) {
            ('/', Some('/')) => find(&chars, at, |i| chars[i] == '\n'),
            ('/', Some('*')) => block_comment_end(&chars, at),
            ('"', _) => string_end(&chars, at, raw_from.take()),
            ('\'', _) => char_end(&chars, at),
            (':', Some(':')) => at + 2,
            _ if is_word(c) => find(&chars, at, |i| !is_word(chars[i])),
            _ => at + 1,
        };
        let text: String = chars[at..end].iter().collect();
        // `r"…"`, `br##"…"##`: the string that follows ends at a quote with as many `#`.
        if c == '#' && raw_from.is_some() {
            raw_from = raw_from.map(|hashes: usize| hashes + 1);
        } else {
            raw_from = matches!(text.as_str(), "r" | "br").then_some(0);
        }
        if is_word(c) || text == "::" || "{}*,;#".contains(c) {
            out.push(Token { text: text.clone(), line });
        }
        line += text.matches('\n').count();
        at = end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// First index from `at` on for which `stop` holds, or the end.
fn find(chars: &[char], at: usize, stop: impl Fn(usize) -> bool) -> usize {
    (at..chars.len()).find(|i| stop(*i)).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    find(chars, at + 2, |i| chars[i] == '*' && chars.get(i + 1) == Some(&'/'))
        .saturating_add(2)
        .min(chars.len())
}

fn string_end(chars: &[char], at: usize, raw_hashes: Option<usize>) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match (chars[i], raw_hashes) {
            ('\\', None) => i += 1,
            ('"', None) => return i + 1,
            ('"', Some(hashes)) if (1..=hashes).all(|n| chars.get(i + n) == Some(&'#')) => {
                return i + 1 + hashes;
            }
            _ => {}
        }
        i += 1;
    }
    chars.len()
}

/// The end of `'x'` or `'\n'`; of a lifetime only its quote.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => find(chars, at + 3, |i| chars[i] == '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
    .min(chars.len())
}

/// Top-level modules that are named by `crate::…` or by a `super::…` that reaches the root, with lines.
/// `depth` is the depth of the file's module; inline modules count on top of it.
fn top_level_uses(tokens: &[Token], depth: usize) -> Vec<(String, usize)> {
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    let mut found = Vec::new();
    let mut inline = Vec::new();
    let mut braces = 0usize;
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "mod" if text(i + 2) == "{" => inline.push(braces),
            "{" => braces += 1,
            "}" => {
                braces = braces.saturating_sub(1);
                inline.pop_if(|opened| *opened == braces);
            }
            "crate" if text(i + 1) == "::" => heads(tokens, i + 2, &mut found),
            "super" if i == 0 || text(i - 1) != "::" => {
                let mut supers = 0;
                while text(i + 2 * supers) == "super" && text(i + 2 * supers + 1) == "::" {
                    supers += 1;
                }
                if supers == depth + inline.len() {
                    heads(tokens, i + 2 * supers, &mut found);
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// The first names after a path prefix: one, or those of a `{…}` group.
fn heads(tokens: &[Token], at: usize, found: &mut Vec<(String, usize)>) {
    let Some(first) = tokens.get(at) else { return };
    if first.text != "{" {
        found.push((first.text.clone(), first.line));
        return;
    }
    let (mut level, mut expects_head) = (0usize, true);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => level += 1,
            "}" if level == 1 => return,
            "}" => level -= 1,
            "," if level == 1 => expects_head = true,
            name if level == 1 && expects_head && name.starts_with(is_word) => {
                found.push((name.to_owned(), token.line));
                expects_head = false;
            }
            _ => {}
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a folder entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let is_text =
            [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)) || name == "run";
        if path.is_dir() && !["corpus", "target", "artifacts"].contains(&name) {
            collect(root, &path, files);
        } else if path.is_file() && is_text {
            files.push(read(root, &path));
        }
    }
}

fn read(root: &Path, path: &Path) -> File {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let path = path
        .strip_prefix(root)
        .expect("a path below the root")
        .to_string_lossy()
        .replace('\\', "/");
    File { path, text }
}

mod planted {
    //! Each rule notices the violation it is for, and nothing else.

    use super::*;

    const LIB: &str =
        "//! A library.\npub mod types;\npub mod storage;\npub mod client;\npub mod raft;\n";
    const README: &str = "cargo test   # all\ncargo run --release -- demo --exit -o json\n";
    const GATE: &str = "  cargo test\n  cargo run --release -- demo --exit -o json >\"$out\"\n";

    /// Violations of a small, otherwise tidy repository with one more file.
    fn check(path: &str, text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let mut files = vec![
            file("src/lib.rs", LIB),
            file("src/main.rs", "//! The program.\nfn main() {}\n"),
            file("README.md", README),
            file(".ci/run", GATE),
        ];
        files.retain(|f| f.path != path);
        files.push(file(path, text));
        violations(&files)
    }

    fn source(body: &str) -> String {
        format!("//! A file with a purpose.\n{body}\n")
    }

    #[test]
    fn a_tidy_file_passes() {
        for body in [
            "use crate::types::{Code, Error};\nuse crate::client::net;",
            "// crate::raft would climb\nconst A: &str = \"crate::raft\";",
            "const A: &str = r#\"a \" crate::raft\"#; const B: char = '\"';",
            "/* crate::raft */ fn f<'a>(x: &'a str) -> char { '\\'' }",
            "use super::retry;\nmod tests { use super::*; use super::super::route; }",
            "mod raft {} use self::raft::x;",
            "// refuses session tickets; unsafe_code is denied",
        ] {
            assert_eq!(check("src/client/net.rs", &source(body)), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_found_in_every_spelling() {
        for body in [
            "use crate::raft::Group;",
            "fn f() { crate::raft::open() }",
            "use crate::{types::{Code, Error}, raft};",
            "use crate::{\n    types,\n    raft::{self, Group},\n};",
            "use super::super::raft;",
            "mod tests { use super::super::super::raft; }",
            "mod a { fn f() {} } use super::super::raft::x;",
            "pub(in crate::raft) fn f() {}",
        ] {
            let found = check("src/client/net.rs", &source(body));
            assert_eq!(found.len(), 1, "{body}: {found:?}");
            assert!(found[0].contains("`client` uses `raft`"), "{found:?}");
        }
        let found = check("src/storage/mod.rs", &source("\n\nuse super::client;"));
        assert_eq!(found, ["src/storage/mod.rs:4: `storage` uses `client`, which stands below it"]);
        let found = check("src/types.rs", &source("use crate::{raft, client, storage};"));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn reserved_names_stay_at_home() {
        for (path, body, fits) in [
            ("src/raft/net.rs", "use openraft::Raft;", true),
            ("src/raft.rs", "use openraft::Raft;", false),
            ("src/client/net.rs", "type A = openraft::Vote;", false),
            ("src/storage/lmdb/env.rs", "use heed::Env; unsafe { open() }", true),
            ("src/storage/lmdb.rs", "use heed::Env; unsafe { open() }", true),
            ("src/storage/store.rs", "use heed::Env;", false),
            ("src/client/net.rs", "unsafe { f() }", false),
            ("tests/it/x.rs", "unsafe { f() }", false),
            ("src/client/net.rs", "#![deny(unsafe_code)] // heed, openraft", true),
        ] {
            let found = check(path, &source(body));
            assert_eq!(found.is_empty(), fits, "{path}: {body}: {found:?}");
        }
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        for text in ["use std::fs;\n//! Late.", "", "//!\n//! Second line.", "// Only a comment."] {
            let found = check("src/client/net.rs", text);
            assert!(found.len() == 1 && found[0].contains("open with"), "{text}: {found:?}");
        }
    }

    #[test]
    fn words_that_do_not_belong_are_found_in_code_and_text() {
        for (path, text) in [
            ("src/client/net.rs", "fn f() { todo!() }"),
            ("src/client/net.rs", "// FIXME later"),
            ("tests/it/x.rs", "unimplemented!()"),
            ("scripts/README.md", "See ticket 7."),
            ("ARCHITECTURE.md", "Closes issue #2."),
        ] {
            let found = check(path, &source(text));
            assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        }
        assert!(check("scripts/README.md", "ppdb cert issue user; no session tickets").is_empty());
    }

    #[test]
    fn the_program_stays_thin() {
        let long = source(&"fn f() {}\n".repeat(MAIN_LINES_MAX));
        assert!(check("src/main.rs", &long)[0].contains("lines"));
    }

    #[test]
    fn the_gate_runs_what_the_readme_says() {
        assert!(
            check("README.md", "cargo test --all\ncargo run --release -- demo --exit\n").len() == 2
        );
        assert!(check(".ci/run", "cargo test --lib\n").len() == 2);
        assert!(check("README.md", "Read the code.").len() == 2);
    }
}
