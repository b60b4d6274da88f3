//! Feeds the ring from the events of the program: each becomes a line, cut to its bounds.

use super::ring::{FIELDS_MAX, Ring, TEXT_BYTES_MAX};
use crate::wire::logs::{LogLevel, LogLine};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Keeps every event that the filter lets through.
pub(super) struct Capture(pub(super) Arc<Mutex<Ring>>);

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut texts = Texts::default();
        event.record(&mut texts);
        let metadata = event.metadata();
        let line = LogLine {
            sequence: 0,
            at_ms: now_ms(),
            level: level(*metadata.level()),
            target: metadata.target().to_owned(),
            message: texts.message,
            fields: texts.fields,
        };
        // The texts are made before: only this is done while others wait.
        self.0.lock().push(line);
    }
}

/// This machine's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(String, String)>,
}

impl Texts {
    fn note(&mut self, field: &Field, mut text: String) {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        match field.name() {
            "message" => self.message = text,
            name if self.fields.len() < FIELDS_MAX => self.fields.push((name.to_owned(), text)),
            _ => {}
        }
    }
}

impl Visit for Texts {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.to_owned());
    }
}
