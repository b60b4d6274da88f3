//! How large the record of a run may become, and every part of it. What is told is cut to this before it is proposed, and
//! again where it is applied: an entry is as short as what is kept of it.

use crate::types::{Code, Error};
use crate::wire::codec;
use crate::wire::runs::{Book, Run, RunEvent, RunOrder};

/// Steps of one run; another one is refused. What cleans up after a failure has one beside them.
pub const STEPS_MAX: usize = 256;
/// Notes of one run; another one is refused.
pub const NOTES_MAX: usize = 256;
/// Bytes of one record. A result that does not fit is left out; a step or a note that does not fit is refused.
pub const RUN_BYTES_MAX: usize = 64 << 10;
/// Bytes of one result; a longer one is left out.
pub const RESULT_BYTES_MAX: usize = 16 << 10;
/// Bytes of names and addresses; the rest is cut off.
pub const NAME_BYTES_MAX: usize = 256;
/// Kept free of results, so that every step can end, what cleans up can begin, and the run can end.
pub(super) const RESERVE_BYTES: usize = 4 << 10;
/// What is left of that for what cleans up, so that it can end, too.
pub(super) const CLOSING_BYTES: usize = 2 << 10;
/// What is left for the end of the run: one failure.
pub(super) const END_BYTES: usize = 1_280;
/// Bytes of a note, a path, a parameter or a message; the rest is cut off.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;
/// Parameters of a run; more are refused.
const PARAMS_MAX: usize = 32;
/// Operations of a step; the rest is left out.
const OPERATIONS_MAX: usize = 16;

/// An order with everything in it cut to its bounds. Cutting it twice changes nothing.
pub fn fitted(order: RunOrder) -> Result<RunOrder, Error> {
    let event = match order.event {
        RunEvent::Begin(book) => RunEvent::Begin(fitted_book(&book)?),
        RunEvent::Resume(book) => RunEvent::Resume(fitted_book(&book)?),
        RunEvent::StepBegan { index, name, line } => {
            RunEvent::StepBegan { index, name: cut(&name, NAME_BYTES_MAX), line }
        }
        RunEvent::StepEnded { index, result, failure, mut operations } => {
            operations.truncate(OPERATIONS_MAX);
            let result = result.filter(|text| text.len() <= RESULT_BYTES_MAX);
            RunEvent::StepEnded { index, result, failure: fitted_failure(failure), operations }
        }
        RunEvent::Note(text) => RunEvent::Note(cut(&text, TEXT_BYTES_MAX)),
        RunEvent::End(failure) => RunEvent::End(fitted_failure(failure)),
    };
    Ok(RunOrder { event, ..order })
}

fn fitted_book(book: &Book) -> Result<Book, Error> {
    if book.params.len() > PARAMS_MAX {
        let message = format!("a run has at most {PARAMS_MAX} parameters");
        return Err(Error::new(Code::BadRequest, message));
    }
    let param =
        |(name, value): &(String, String)| (cut(name, NAME_BYTES_MAX), cut(value, TEXT_BYTES_MAX));
    Ok(Book {
        script: cut(&book.script, TEXT_BYTES_MAX),
        sha256: cut(&book.sha256, NAME_BYTES_MAX),
        params: book.params.iter().map(param).collect(),
        host: cut(&book.host, NAME_BYTES_MAX),
    })
}

fn fitted_failure(failure: Option<(String, String)>) -> Option<(String, String)> {
    failure.map(|(code, message)| (cut(&code, NAME_BYTES_MAX / 4), cut(&message, TEXT_BYTES_MAX)))
}

/// The beginning of a text.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// Whether a record leaves so many bytes free.
pub(super) fn leaves(run: &Run, bytes: usize) -> Result<(), Error> {
    match codec::encode(run).len() + bytes <= RUN_BYTES_MAX {
        true => Ok(()),
        false => Err(too_much(format!(
            "the record of a run has at most {RUN_BYTES_MAX} bytes, and this one is full"
        ))),
    }
}

/// A bound is reached. No other refusal of an event has this code: whoever tells it can name the limit.
pub(super) fn too_much(message: String) -> Error {
    Error::new(Code::BatchTooLarge, message)
}
