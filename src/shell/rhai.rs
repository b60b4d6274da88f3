//! The Rhai mode of the shell: `rhai EXPRESSION`, or lines that are put together until they are a script. Pure:
//! what the lines mean is the language's business (`script::console`).

/// Bytes of a script that is typed.
const SCRIPT_BYTES_MAX: usize = 64 << 10;
/// Empty lines that end a script that is not finished, or the mode.
const BLANKS: u8 = 2;

/// What a line of the shell asks of Rhai: the mode (an empty text), or one expression; none if it is something else.
pub fn asked(line: &str) -> Option<&str> {
    let line = line.trim();
    let rest = line.strip_prefix("ppdb ").map_or(line, str::trim_start).strip_prefix("rhai")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

/// What becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next one follows.
    More,
    /// This is a script.
    Run(String),
    /// The mode ends.
    Leave,
    /// This is too long to be a script.
    TooLong,
}

/// Lines that are on their way to be a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    text: String,
    blanks: u8,
}

impl Lines {
    /// The prompt for the next line.
    pub fn prompt(&self) -> &'static str {
        if self.text.is_empty() { "rhai> " } else { "....> " }
    }

    /// Forgets what was typed so far.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes a line. The language says whether a script is unfinished.
    pub fn take(&mut self, line: &str, unfinished: impl FnOnce(&str) -> bool) -> Taken {
        let open = !self.text.is_empty();
        if !open && matches!(line.trim(), "exit" | "quit") {
            return Taken::Leave;
        }
        self.blanks = if line.trim().is_empty() { self.blanks + 1 } else { 0 };
        match (open, self.blanks) {
            (false, BLANKS..) => return Taken::Leave,
            (true, BLANKS..) => return self.done(),
            (false, 1..) => return Taken::More,
            _ => {}
        }
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > SCRIPT_BYTES_MAX {
            self.clear();
            return Taken::TooLong;
        }
        if unfinished(&self.text) { Taken::More } else { self.done() }
    }

    fn done(&mut self) -> Taken {
        let text = std::mem::take(self).text;
        Taken::Run(text)
    }
}

/// Where the name under the cursor starts: letters, digits and `_`.
pub fn name_start(line: &str) -> usize {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.rfind(|c| !part_of_name(c))
        .map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> bool {
        text.matches('{').count() > text.matches('}').count()
    }

    fn run(text: &str) -> Taken {
        Taken::Run(text.to_owned())
    }

    #[test]
    fn lines_are_put_together_until_the_script_is_finished() {
        let mut lines = Lines::default();
        assert_eq!(lines.prompt(), "rhai> ");
        assert_eq!(lines.take("for i in 0..3 {", open), Taken::More);
        assert_eq!(lines.prompt(), "....> ");
        assert_eq!(lines.take("  print(i);", open), Taken::More);
        assert_eq!(lines.take("", open), Taken::More, "one empty line is part of it");
        assert_eq!(lines.take("}", open), run("for i in 0..3 {\n  print(i);\n\n}\n"));
        assert_eq!(lines.take("1 + 1", open), run("1 + 1\n"));
        assert_eq!(lines.take("{", open), Taken::More);
        assert_eq!(lines.take("exit", open), Taken::More, "a word of the script");
        lines.clear();
        assert_eq!(lines.take("exit", open), Taken::Leave);
    }

    #[test]
    fn two_empty_lines_end_what_is_unfinished_or_the_mode() {
        let mut lines = Lines::default();
        assert_eq!(lines.take("{", open), Taken::More);
        assert_eq!(lines.take("", open), Taken::More);
        assert_eq!(lines.take("", open), run("{\n\n"));
        assert_eq!(lines.take("", open), Taken::More);
        assert_eq!(lines.take("1", open), run("1\n"), "an empty line between is nothing");
        assert_eq!(lines.take("", open), Taken::More);
        assert_eq!(lines.take(" ", open), Taken::Leave);
    }

    #[test]
    fn a_script_without_an_end_is_not_kept() {
        let mut lines = Lines::default();
        let long = "x".repeat(SCRIPT_BYTES_MAX);
        assert_eq!(lines.take("{", open), Taken::More);
        assert_eq!(lines.take(&long, open), Taken::TooLong);
        assert_eq!(lines, Lines::default());
    }

    #[test]
    fn a_line_that_asks_for_rhai_is_told_from_others() {
        assert_eq!(asked("rhai"), Some(""));
        assert_eq!(asked(" rhai  1 + 1 "), Some("1 + 1"));
        assert_eq!(asked("ppdb rhai 'x'"), Some("'x'"));
        assert_eq!(asked("rhain"), None);
        assert_eq!(asked("get rhai"), None);
        assert_eq!(name_start("let x = stat"), 8);
        assert_eq!(name_start("status"), 0);
        assert_eq!(name_start("é(po"), 3);
    }
}
