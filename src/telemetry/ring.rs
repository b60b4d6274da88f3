//! The last log lines of this process, in bounded memory. Plain code: `now_ms` is an argument.

use crate::wire::logs::{LogLevel, LogLine, LogPage, LogPosition, LogQuestion};
use std::collections::VecDeque;

/// Lines kept, and their bytes. The oldest make room.
pub const LINES_MAX: usize = 4_096;
const BYTES_MAX: usize = 1 << 20;
/// Bytes of the message of one line, and of one field; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Fields of one line; further ones are left out.
pub const FIELDS_MAX: usize = 32;
/// Lines in one page, and their bytes; a page has one line at least.
pub const PAGE_LINES_MAX: usize = 1_000;
const PAGE_BYTES_MAX: usize = 512 << 10;
/// What a line costs beside its texts.
const LINE_BYTES: usize = 128;

/// The lines, oldest first.
#[derive(Debug)]
pub struct Ring {
    started_ms: u64,
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Of the newest line.
    last: u64,
}

impl Ring {
    /// No line yet, of a process that started then.
    pub fn new(started_ms: u64) -> Self {
        Self { started_ms, lines: VecDeque::new(), bytes: 0, last: 0 }
    }

    /// Keeps a line under the next number.
    pub fn push(&mut self, line: LogLine) {
        self.last += 1;
        self.bytes += cost(&line);
        self.lines.push_back(LogLine { sequence: self.last, ..line });
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= cost(&oldest);
        }
    }

    /// The lines that are wanted, as many as fit into a page.
    pub fn page(&self, question: &LogQuestion, now_ms: u64) -> LogPage {
        let from_ms = question.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let wanted = |line: &LogLine| is_wanted(line, question.level, from_ms);
        let mut room = Room::of(question.limit);
        match question.after {
            None => {
                let newest = self.lines.iter().rev().filter(|line| wanted(line));
                let newest = newest.take_while(|line| room.takes(line));
                let mut lines: Vec<LogLine> = newest.cloned().collect();
                lines.reverse();
                self.answer(lines, self.last, self.dropped_after(0))
            }
            Some(position) => {
                // What another process has said is not to be had any more, and nobody counts it.
                let is_same = position.started_ms == self.started_ms;
                let after = if is_same { position.sequence } else { 0 };
                let (mut lines, mut read) = (Vec::new(), after.max(self.dropped()).min(self.last));
                for line in self.lines.iter().filter(|line| line.sequence > after) {
                    if wanted(line) {
                        if !room.takes(line) {
                            break;
                        }
                        lines.push(line.clone());
                    }
                    read = line.sequence;
                }
                self.answer(lines, read, self.dropped_after(after))
            }
        }
    }

    fn answer(&self, lines: Vec<LogLine>, sequence: u64, dropped: u64) -> LogPage {
        let position = LogPosition { started_ms: self.started_ms, sequence };
        LogPage { lines, position, dropped }
    }

    /// How many were pushed out since the start: the number of the last of them.
    fn dropped(&self) -> u64 {
        self.last - self.lines.len() as u64
    }

    fn dropped_after(&self, sequence: u64) -> u64 {
        self.dropped().saturating_sub(sequence)
    }
}

/// What is left of a page.
struct Room {
    lines: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    fn of(limit: u32) -> Self {
        let lines = (limit as usize).min(PAGE_LINES_MAX);
        Self { lines, bytes: PAGE_BYTES_MAX, is_empty: true }
    }

    fn takes(&mut self, line: &LogLine) -> bool {
        let bytes = cost(line);
        let fits = self.lines > 0 && (self.is_empty || bytes <= self.bytes);
        if fits {
            self.lines -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
    }
}

fn is_wanted(line: &LogLine, level: LogLevel, from_ms: u64) -> bool {
    line.level <= level && line.at_ms >= from_ms
}

fn cost(line: &LogLine) -> usize {
    let fields: usize = line.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    LINE_BYTES + line.target.len() + line.message.len() + fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: LogQuestion =
        LogQuestion { after: None, level: LogLevel::Trace, since_ms: None, limit: 1_000 };

    fn line(at_ms: u64, level: LogLevel) -> LogLine {
        let (target, message) = ("ppdb::test".to_owned(), format!("at {at_ms}"));
        LogLine { sequence: 0, at_ms, level, target, message, fields: vec![] }
    }

    fn ring(lines: u64) -> Ring {
        let mut ring = Ring::new(7);
        (1..=lines).for_each(|at_ms| ring.push(line(at_ms, LogLevel::Info)));
        ring
    }

    fn sequences(page: &LogPage) -> Vec<u64> {
        page.lines.iter().map(|line| line.sequence).collect()
    }

    fn after(sequence: u64) -> LogQuestion {
        LogQuestion { after: Some(LogPosition { started_ms: 7, sequence }), ..NEWEST }
    }

    #[test]
    fn the_newest_come_oldest_first_and_say_where_to_go_on() {
        let ring = ring(9);
        let page = ring.page(&LogQuestion { limit: 3, ..NEWEST }, 9);
        assert_eq!(sequences(&page), [7, 8, 9]);
        assert_eq!(page.position, LogPosition { started_ms: 7, sequence: 9 });
        assert_eq!(page.dropped, 0);
        assert!(ring.page(&after(9), 9).lines.is_empty());
    }

    #[test]
    fn whoever_goes_on_misses_nothing() {
        let ring = ring(9);
        let page = ring.page(&LogQuestion { limit: 4, ..after(3) }, 9);
        assert_eq!(sequences(&page), [4, 5, 6, 7]);
        assert_eq!(page.position.sequence, 7);
        assert_eq!(sequences(&ring.page(&after(7), 9)), [8, 9]);
    }

    #[test]
    fn level_and_time_choose_and_what_is_passed_over_is_not_looked_at_again() {
        let mut ring = ring(3);
        ring.push(line(4, LogLevel::Warn));
        ring.push(line(5, LogLevel::Debug));
        let warn = ring.page(&LogQuestion { level: LogLevel::Warn, ..NEWEST }, 5);
        assert_eq!(sequences(&warn), [4]);
        let recent = ring.page(&LogQuestion { since_ms: Some(2), ..NEWEST }, 5);
        assert_eq!(sequences(&recent), [3, 4, 5]);
        let none = ring.page(&LogQuestion { level: LogLevel::Error, ..after(0) }, 5);
        assert_eq!((none.lines.len(), none.position.sequence), (0, 5));
    }

    #[test]
    fn what_is_pushed_out_is_counted() {
        let extra = 10;
        let ring = ring(LINES_MAX as u64 + extra);
        let page = ring.page(&after(4), 0);
        assert_eq!((page.dropped, page.lines[0].sequence), (extra - 4, extra + 1));
        assert_eq!(page.lines.len(), PAGE_LINES_MAX);
        assert_eq!(ring.page(&NEWEST, 0).dropped, extra);
        assert_eq!(ring.page(&after(extra), 0).dropped, 0);
    }

    #[test]
    fn bytes_bound_the_ring_and_a_page() {
        let mut ring = Ring::new(7);
        let message = "x".repeat(TEXT_BYTES_MAX);
        for at_ms in 0..1_000 {
            ring.push(LogLine { message: message.clone(), ..line(at_ms, LogLevel::Info) });
        }
        assert!(ring.bytes <= BYTES_MAX && ring.lines.len() > 200, "{}", ring.lines.len());
        let page = ring.page(&NEWEST, 0);
        assert!(page.lines.len() > 100 && page.lines.len() < 130, "{}", page.lines.len());
        assert_eq!(page.lines.last().map(|line| line.sequence), Some(1_000));
    }

    #[test]
    fn another_process_begins_anew() {
        let ring = ring(3);
        let position = LogPosition { started_ms: 6, sequence: 900 };
        let page = ring.page(&LogQuestion { after: Some(position), ..NEWEST }, 3);
        assert_eq!(sequences(&page), [1, 2, 3]);
        assert_eq!(page.position, LogPosition { started_ms: 7, sequence: 3 });
    }

    #[test]
    fn a_position_that_was_never_reached_is_not_believed() {
        let page = ring(3).page(&after(900), 3);
        assert_eq!((page.lines.len(), page.position.sequence, page.dropped), (0, 3, 0));
    }
}
