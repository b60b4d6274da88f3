//! How a script tells its record something: what nobody can look up later shall not be done, so that a script ends whose
//! record cannot be written.

use super::bridge::{Bridge, interrupted};
use super::failure::{Answer, Stopped};
use crate::cli::caller::Caller;
use crate::types::{Code, Error, Result};
use std::future::Future;
use std::time::Duration;

/// How long something may still be told after the script was stopped, or its time is up. Less than a stopped script has
/// to end: what cleans up has to begin by then.
pub const GRACE: Duration = Duration::from_secs(1);

impl<C: Caller> Bridge<C> {
    /// Waits until the record was told something, or the script has to end. What was not known to be kept by then is told
    /// again before anything else is.
    pub fn record<T>(&self, work: impl Future<Output = Result<T>>) -> Answer<T> {
        let (stop, until, closing) = self.ends();
        let over = async {
            let why = tokio::select! {
                () = interrupted(stop, closing) => Stopped::Interrupted,
                () = tokio::time::sleep_until(until.into()) => Stopped::OutOfTime,
            };
            tokio::time::sleep(GRACE).await;
            why
        };
        let told = self.handle.block_on(async {
            tokio::select! {
                biased;
                told = work => told.map_err(unrecorded),
                why = over => Err(why),
            }
        });
        told.map_err(|why| self.ends_with(why))
    }

    /// A remark for the record. What cleans up goes on without one that does not fit.
    pub fn note(&self, text: &str) -> Answer<()> {
        let Some(recorder) = &self.recorder else { return Ok(()) };
        self.count()?;
        let closing = self.closing_until().is_some();
        self.record(async {
            match recorder.note(text).await {
                Err(error) if closing && error.code == Code::BatchTooLarge => {
                    self.stage.log(&format!("that note is not on record: {}", error.message));
                    Ok(())
                }
                noted => noted,
            }
        })
    }
}

/// A bound of the record is one of the script; anything else is told as it is.
fn unrecorded(error: Error) -> Stopped {
    match error.code {
        Code::BatchTooLarge => Stopped::Limit(error.message),
        _ => Stopped::Unrecorded(error),
    }
}
