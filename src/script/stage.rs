//! The functions around the orders: words for whoever watches, questions, pauses, giving up.

use super::bridge::{Bridge, refused};
use super::failure::{Answer, failed, thrown};
use super::params;
use crate::cli::caller::Caller;
use crate::cli::strategy::cost::seconds;
use crate::cli::strategy::document::show_size;
use rhai::Engine;
use std::sync::Arc;
use std::time::Duration;

/// Registers them.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.on_print(move |text| {
        if b.may_say(text) {
            b.stage.print(text);
        }
    });
    let b = bridge.clone();
    engine.on_debug(move |text, _, position| {
        let text = format!("{position:?}: {text}");
        if b.may_say(&text) {
            b.stage.log(&text);
        }
    });
    let b = bridge.clone();
    engine.register_fn("log", move |text: &str| {
        if b.may_say(text) {
            b.stage.log(text);
        }
    });
    let b = bridge.clone();
    engine.register_fn("note", move |text: &str| -> Answer<()> {
        if b.may_say(text) {
            b.stage.log(&format!("note: {text}"));
        }
        b.note(text)
    });
    let b = bridge.clone();
    engine.register_fn("confirm", move |question: &str| -> Answer<bool> { b.confirm(question) });
    engine.register_fn("fail", |message: &str| -> Answer { Err(failed(message)) });
    engine.register_fn("human", |bytes: i64| show_size(bytes.max(0).unsigned_abs()));
    engine.register_fn("human_ms", |ms: i64| seconds(ms.max(0).unsigned_abs()));
    let dry_run = bridge.is_dry();
    engine.register_fn("is_dry_run", move || dry_run);
    pauses(engine, bridge);
}

/// Pauses that Ctrl-C and the time limit end.
fn pauses<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("sleep", move |time: &str| -> Answer<()> {
        b.sleep(params::duration(time).map_err(thrown)?)
    });
    let b = bridge.clone();
    engine.register_fn("sleep", move |seconds: i64| -> Answer<()> {
        let seconds = u64::try_from(seconds).map_err(|_| refused("a pause is not negative"))?;
        b.sleep(Duration::from_secs(seconds))
    });
    let b = bridge.clone();
    engine.register_fn("sleep", move |seconds: f64| -> Answer<()> {
        let time = Duration::try_from_secs_f64(seconds);
        b.sleep(time.map_err(|_| refused(format!("{seconds} is no number of seconds")))?)
    });
}
