//! Answers as text: tables for people, plain for pipes, JSON for programs.
//!
//! Results go to standard output alone; errors and remarks go to standard error.

use super::args::Format;
use super::value::{Done, Failure, Value, envelope};
use crate::types::{Class, Code, Error};
use std::io::{self, IsTerminal, Write};

/// What is printed for one command: bytes for standard output, text for standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// For standard output.
    pub out: Vec<u8>,
    /// For standard error.
    pub err: String,
}

/// The format asked for, or the one that fits where standard output goes.
pub fn format_or_default(asked: Option<Format>) -> Format {
    let usual = if io::stdout().is_terminal() { Format::Table } else { Format::Plain };
    asked.unwrap_or(usual)
}

/// Prints what is left of a command.
pub fn print(printed: &Printed) -> io::Result<()> {
    let mut err = io::stderr().lock();
    err.write_all(printed.err.as_bytes())?;
    let mut out = io::stdout().lock();
    out.write_all(&printed.out)?;
    out.flush()
}

/// Renders one ended command.
pub fn render(done: &Done, format: Format, ms: f64) -> Printed {
    let mut printed = match format {
        Format::Json if io::stdout().is_terminal() => pretty(&envelope(done, ms)),
        Format::Json | Format::Jsonl => compact(&envelope(done, ms)),
        Format::Table | Format::Plain => match done {
            Ok(answered) => text(&answered.value, format),
            Err(_) => Printed::default(),
        },
    };
    if let Err(failure) = done
        && format != Format::Jsonl
    {
        printed.err.push_str(&explain(failure));
    }
    printed
}

/// One line of JSON.
pub fn compact(json: &serde_json::Value) -> Printed {
    Printed { out: format!("{json}\n").into_bytes(), err: String::new() }
}

fn pretty(json: &serde_json::Value) -> Printed {
    Printed { out: format!("{json:#}\n").into_bytes(), err: String::new() }
}

fn text(value: &Value, format: Format) -> Printed {
    let mut printed = Printed::default();
    let out = &mut printed.out;
    match value {
        Value::Null => printed.err.push_str("(absent)\n"),
        Value::Bool(yes) => out.extend_from_slice(if *yes { b"yes\n" } else { b"no\n" }),
        Value::Int(number) => out.extend_from_slice(format!("{number}\n").as_bytes()),
        Value::Text(text) => out.extend_from_slice(format!("{}\n", text.trim_end()).as_bytes()),
        // Piped, a value is its exact bytes and a line feed.
        Value::Bytes(bytes) if format == Format::Plain => {
            out.extend_from_slice(bytes);
            out.push(b'\n');
        }
        Value::Bytes(bytes) => out.extend_from_slice(format!("{}\n", escape(bytes)).as_bytes()),
        Value::List(items) => {
            let rows = items.iter().map(|item| vec![cell(item)]).collect::<Vec<_>>();
            out.extend_from_slice(table(&[], &rows, format).as_bytes());
        }
        Value::Page { entries, cursor } => {
            let row = |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| {
                [Some(key), value.as_ref()].into_iter().flatten().map(|part| escape(part)).collect()
            };
            let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
            out.extend_from_slice(table(&["KEY", "VALUE"], &rows, format).as_bytes());
            if let Some(cursor) = cursor {
                printed.err.push_str(&format!("more: --cursor {cursor}\n"));
            }
        }
        Value::Doc(doc) => {
            for note in doc.notes.iter().filter(|_| format == Format::Table) {
                out.extend_from_slice(format!("{note}\n").as_bytes());
            }
            let (header, rows) = match format {
                Format::Table => without_empty(&doc.header, &doc.rows),
                _ => (doc.header.clone(), doc.rows.clone()),
            };
            out.extend_from_slice(table(&header, &rows, format).as_bytes());
        }
    }
    printed
}

fn cell(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => escape(bytes),
        Value::Bool(yes) => yes.to_string(),
        Value::Int(number) => number.to_string(),
        _ => "(absent)".into(),
    }
}

/// The columns in which there is anything: for people the others are noise.
fn without_empty<'a>(header: &[&'a str], rows: &[Vec<String>]) -> (Vec<&'a str>, Vec<Vec<String>>) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let filled = |column: &usize| rows.iter().any(|row| !cell(row, *column).is_empty());
    let kept: Vec<usize> = (0..columns).filter(filled).collect();
    let header = kept.iter().filter_map(|column| header.get(*column).copied()).collect();
    let row = |row: &Vec<String>| kept.iter().map(|column| cell(row, *column)).collect();
    (header, rows.iter().map(row).collect())
}

/// Aligned columns under a header for people; tabs and no header for pipes.
fn table(header: &[&str], rows: &[Vec<String>], format: Format) -> String {
    if format == Format::Plain || rows.is_empty() {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
    let size = io::stdout().is_terminal().then(|| rustix::termios::tcgetwinsize(io::stdout()).ok());
    let columns = size.flatten().map(|size| size.ws_col).filter(|columns| *columns > 0);
    columns_in(header, rows, columns)
}

/// A table; where it would not fit in so many characters, its longest cells are broken into several lines.
fn columns_in(header: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().take(columns).copied().collect::<Vec<_>>());
    }
    if let Some(width) = width {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_width(width);
    }
    table.add_rows(rows.iter().map(|row| row.iter().map(String::as_str).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Bytes that a terminal shows and does not obey: what is not printable becomes `\n`, `\t` or `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() || is_format(c) => {
                    let mut buffer = [0; 4];
                    c.encode_utf8(&mut buffer).bytes().for_each(|b| hex(&mut text, b));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| hex(&mut text, *b));
    }
    text
}

/// Characters that reorder or hide what stands around them.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn hex(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

/// An error for people: what happened, and what to do about it.
pub fn explain(failure: &Failure) -> String {
    let error = &failure.error;
    let mut text =
        format!("error[{}]: {}\n", error.code, escape(error.message.trim_end().as_bytes()));
    text.push_str(&format!(
        "  class {}: {}\n",
        class_name(error.class()),
        class_advice(error.class())
    ));
    for (index, result) in failure.results.iter().enumerate() {
        let line = match result {
            Ok(value) => cell(value),
            Err(error) => format!("{}: {}", error.code, escape(error.message.as_bytes())),
        };
        text.push_str(&format!("  {}. {line}\n", index + 1));
    }
    if let Some(node) = &error.hint {
        text.push_str(&format!("  hint: {node} should know\n"));
    }
    if let Some(ms) = error.retry_after_ms {
        text.push_str(&format!("  hint: try again in {ms} ms\n"));
    }
    match hint(error) {
        Some(hint) => text.push_str(&format!("  hint: {hint}\n")),
        None => text.push_str(&format!("  more: `ppdb explain {}`\n", error.code)),
    }
    text
}

/// The name of a class.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Retry => "retry",
        Class::Fix => "fix",
        Class::Uncertain => "uncertain",
        Class::Stop => "stop",
    }
}

/// What the caller should do next.
pub fn class_advice(class: Class) -> &'static str {
    match class {
        Class::Retry => "nothing happened; the same command may succeed later or elsewhere",
        Class::Fix => "nothing happened, and nothing will until the command or the settings change",
        Class::Uncertain => "it may or may not have happened; read before you repeat it",
        Class::Stop => "stored data or the program itself is in doubt; an operator has to look",
    }
}

fn hint(error: &Error) -> Option<&'static str> {
    match error.code {
        Code::Unreachable => {
            Some("name a running node with --endpoint HOST:PORT or PPDB_ENDPOINTS")
        }
        Code::BadCertificate => {
            Some("`ppdb cert list --certs DIR` shows which certificates there are")
        }
        Code::NotFormed => {
            Some("`ppdb cluster init --member n1=primary@HOST:PORT …` forms a cluster")
        }
        Code::CrossShard => Some("keys with the same {tag} share a shard"),
        Code::BadConfig => Some(
            "`ppdb config show --origin` shows the settings of a node, `ppdb config get` the live ones",
        ),
        Code::PrecheckFailed => Some("`ppdb strategy plan full` (or `sharded`) lists every check"),
        Code::PlanOutdated => Some("`ppdb strategy plan full` (or `sharded`) makes another plan"),
        Code::OperationConflict | Code::NotSafeNow => {
            Some("`ppdb strategy show` tells what is under way and what it waits for")
        }
        Code::Undone => Some("`ppdb strategy history` lists what was done and why it ended"),
        Code::UnknownCommand => Some("`help` lists the commands"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::{Answered, Doc};
    use super::*;
    use bytes::Bytes;

    fn shown(value: Value, format: Format) -> (String, String) {
        let printed = render(&Ok(Answered::of(value)), format, 1.0);
        (String::from_utf8_lossy(&printed.out).into_owned(), printed.err)
    }

    #[test]
    fn a_terminal_never_gets_control_characters_and_a_pipe_gets_every_byte() {
        let value = || Value::Bytes(Bytes::from_static(b"a\x1b[31m\xff\n"));
        assert_eq!(shown(value(), Format::Table).0, "a\\x1b[31m\\xff\\n\n");
        let piped = render(&Ok(Answered::of(value())), Format::Plain, 1.0);
        assert_eq!(piped.out, b"a\x1b[31m\xff\n\n");
        assert_eq!(escape("é\u{202e}\u{9b}".as_bytes()), "é\\xe2\\x80\\xae\\xc2\\x9b");
    }

    #[test]
    fn absence_is_talk_and_not_a_result() {
        assert_eq!(shown(Value::Null, Format::Plain), (String::new(), "(absent)\n".into()));
        assert_eq!(shown(Value::Int(-1), Format::Plain).0, "-1\n");
    }

    #[test]
    fn tables_are_aligned_for_people_and_tabs_for_pipes() {
        let doc = Doc {
            header: vec!["NODE", "ROLE"],
            rows: vec![vec!["n1".into(), "primary".into()], vec!["n22".into(), "replica".into()]],
            notes: vec!["two nodes".into()],
            ..Doc::default()
        };
        let table = shown(Value::Doc(doc.clone()), Format::Table).0;
        assert_eq!(table, "two nodes\nNODE  ROLE\nn1    primary\nn22   replica\n");
        assert_eq!(shown(Value::Doc(doc), Format::Plain).0, "n1\tprimary\nn22\treplica\n");
        let gap = Doc {
            header: vec!["A", "B", "C"],
            rows: vec![vec!["1".into(), String::new(), "3".into()]],
            ..Doc::default()
        };
        assert_eq!(shown(Value::Doc(gap.clone()), Format::Table).0, "A  C\n1  3\n");
        assert_eq!(shown(Value::Doc(gap), Format::Plain).0, "1\t\t3\n");
        let entries = vec![(Bytes::from_static(b"k"), None)];
        let page = Value::Page { entries, cursor: Some("c9".into()) };
        assert_eq!(
            shown(page.clone(), Format::Plain),
            ("k\n".into(), "more: --cursor c9\n".into())
        );
        assert_eq!(shown(page, Format::Table).0, "KEY\nk\n");
    }

    #[test]
    fn a_table_does_not_run_over_the_edge_of_a_terminal() {
        let long = "one two three four five six seven eight nine ten";
        let rows = [vec!["1".to_owned(), long.to_owned(), "ok".to_owned()]];
        let text = columns_in(&["N", "WHAT", "STATE"], &rows, Some(40));
        assert!(text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        let whole = columns_in(&["N", "WHAT", "STATE"], &rows, Some(80));
        assert_eq!(whole, columns_in(&["N", "WHAT", "STATE"], &rows, None));
        assert_eq!(whole.lines().count(), 2);
    }

    #[test]
    fn an_error_says_what_to_do_and_stays_off_standard_output() {
        let error = Error::new(Code::Unreachable, "no node answered");
        let printed = render(&Err(error.into()), Format::Table, 1.0);
        assert!(printed.out.is_empty());
        assert!(printed.err.starts_with("error[Unreachable]: no node answered\n  class retry: "));
        assert!(printed.err.contains("--endpoint"), "{}", printed.err);
        assert!(!printed.err.contains("explain"), "{}", printed.err);
        // Where no hint is known, there is where to read more.
        let printed = render(&Err(Error::new(Code::NoSpace, "full").into()), Format::Table, 1.0);
        assert!(printed.err.ends_with("  more: `ppdb explain NoSpace`\n"), "{}", printed.err);
    }
}
