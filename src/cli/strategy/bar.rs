//! The one line that is written over at a terminal while an operation is followed. Pure: whoever draws it knows
//! how wide the terminal is and whether it may have colors.

use super::document;
use super::follow::Change;
use crate::wire::operation::Phase;

/// Cells of the bar.
const CELLS: usize = 20;
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// How it may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Characters in a line; what does not fit is cut off, because a line that wraps cannot be written over.
    pub columns: usize,
    /// Whether colors are wanted.
    pub colors: bool,
}

/// The line, without its end.
pub fn line(change: &Change, look: Look) -> String {
    let bar = change.fraction().map_or(String::new(), bar);
    let text = document::change_line(change);
    let all = if bar.is_empty() { text } else { format!("{bar}  {text}") };
    let shown: String = all.chars().filter(|c| !c.is_control()).take(look.columns).collect();
    let color = match (change.guard.alarm.is_some(), change.phase) {
        (true, _) | (_, Phase::Aborting | Phase::Aborted | Phase::Reverting | Phase::Reverted) => {
            RED
        }
        _ => GREEN,
    };
    match look.colors {
        true => format!("{color}{shown}{PLAIN}"),
        false => shown,
    }
}

fn bar(fraction: f64) -> String {
    let full = ((fraction * CELLS as f64) as usize).min(CELLS);
    format!("[{}{}]", "#".repeat(full), "-".repeat(CELLS - full))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{operation, progress};
    use super::*;

    fn change(phase: Phase) -> Change {
        Change::of(&operation(7, phase), Some(&progress(3, 12)))
    }

    #[test]
    fn the_bar_is_as_long_as_what_is_done_and_never_wraps() {
        let plain = Look { columns: 200, colors: false };
        let text = line(&change(Phase::Copying), plain);
        assert!(text.starts_with("[#####---------------]  operation 7"), "{text}");
        let narrow = line(&change(Phase::Copying), Look { columns: 30, ..plain });
        assert_eq!(narrow.chars().count(), 30);
        assert!(text.starts_with(&narrow));
        let done = line(&change(Phase::Aborted), plain);
        assert!(done.starts_with("operation 7"), "nothing is on its way: {done}");
    }

    #[test]
    fn colors_are_left_out_where_they_are_not_wanted() {
        let text = |colors| line(&change(Phase::Copying), Look { columns: 80, colors });
        assert!(!text(false).contains('\x1b'));
        assert!(text(true).starts_with(GREEN) && text(true).ends_with(PLAIN));
        let mut bad = change(Phase::Soaking);
        bad.guard.alarm = Some("p99".into());
        assert!(line(&bad, Look { columns: 80, colors: true }).starts_with(RED));
    }
}
