//! `top`: the whole cluster on a screen that is drawn again and again.
//!
//! `look` asks, `screen` draws what was seen, `place` says where on the pages a person is; the last two are pure. This
//! file owns the terminal, which is given back however it ends: by a key, a signal, a panic, or the time of the command.

mod look;
mod place;
mod screen;
#[cfg(test)]
mod tests;

use super::args::Format;
use super::args::live::TopArgs;
use super::caller::Caller;
use super::live;
use super::session::Call;
use super::value::{Answered, Doc};
use crate::types::{Code, Error, Result};
use look::Snapshot;
use place::Place;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use std::io::{self, IsTerminal, Stdout};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long a key may wait to be seen, and the end for the thread that waits for keys.
const KEY_WAIT: Duration = Duration::from_millis(50);
/// Keys that wait to be looked at.
const KEYS_MAX: usize = 64;

/// Refuses where there is no screen to draw on.
pub fn check(call: &Call) -> Result<()> {
    let is_table = matches!(call.typed.output, None | Some(Format::Table));
    if is_table && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return Ok(());
    }
    let message = "`top` draws on a terminal and there is none; `ppdb stats --watch` prints one answer after the other";
    Err(Error::new(Code::BadRequest, message))
}

/// Draws until somebody ends it.
pub async fn run<C: Caller>(caller: &C, args: &TopArgs, call: &Call) -> Result<Answered> {
    let mut screen = Screen::open()?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| internal("no signals can be heard", &e))?;
    let (keys, mut pressed) = mpsc::channel(KEYS_MAX);
    let is_over = Arc::new(AtomicBool::new(false));
    let waiting = tokio::task::spawn_blocking({
        let is_over = is_over.clone();
        move || wait_for_keys(&keys, &is_over)
    });
    let drawn = tokio::select! {
        drawn = draw(caller, args.interval, &mut screen, &mut pressed) => drawn,
        () = live::interrupted() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = tokio::time::sleep_until(call.deadline.into()) => Ok(()),
    };
    is_over.store(true, Ordering::Relaxed);
    // The thread may be handing over a key that nobody takes any more.
    pressed.close();
    // It ends within the time that a key may wait. Only then may the terminal hear what is typed next.
    let _ = waiting.await;
    drop(screen);
    drawn.map(|()| Answered::doc(Doc::default(), None))
}

/// Looks, draws, and goes where the keys say; ends by a key, or with the terminal.
async fn draw<C: Caller>(
    caller: &C,
    every: Duration,
    screen: &mut Screen,
    pressed: &mut mpsc::Receiver<Event>,
) -> Result<()> {
    let mut place = Place::default();
    let mut seen = look::look(caller).await;
    loop {
        let mut looking = pin!(async {
            tokio::time::sleep(every).await;
            look::look(caller).await
        });
        loop {
            screen.draw(&seen, &mut place)?;
            tokio::select! {
                fresh = &mut looking => {
                    seen = fresh;
                    break;
                }
                event = pressed.recv() => match event {
                    None => return Ok(()),
                    Some(Event::Key(key)) => {
                        if key.kind != KeyEventKind::Release && place.pressed(key) {
                            return Ok(());
                        }
                    }
                    // The terminal has another size, perhaps.
                    Some(_) => {}
                },
            }
        }
    }
}

/// Hands over what happens at the terminal, until it is over or the terminal is gone.
fn wait_for_keys(keys: &mpsc::Sender<Event>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(event) => {
                    // What is typed after that is meant for somebody else.
                    let is_last = event.as_key_press_event().is_some_and(place::ends);
                    if keys.blocking_send(event).is_err() || is_last {
                        return;
                    }
                }
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

/// The terminal while it is drawn on. It is given back when this is dropped, and before a panic is told.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    colors: bool,
}

impl Screen {
    fn open() -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let failed = |error| internal("the terminal cannot be drawn on", &error);
        enable_raw_mode().map_err(failed)?;
        let opened = execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        let terminal = opened.inspect_err(|_| give_back()).map_err(failed)?;
        let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self { terminal, colors })
    }

    fn draw(&mut self, seen: &Snapshot, place: &mut Place) -> Result<()> {
        let colors = self.colors;
        let drawn = self.terminal.draw(|frame| screen::draw(frame, seen, place, colors));
        drawn.map(drop).map_err(|error| internal("the terminal cannot be drawn on", &error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nothing is left to do if the terminal is gone. Giving back what was not taken changes nothing.
fn give_back() {
    let was_taken = ratatui::crossterm::terminal::is_raw_mode_enabled().unwrap_or(true);
    if was_taken {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    }
}

fn internal(what: &str, error: &io::Error) -> Error {
    Error::new(Code::Internal, format!("{what}: {error}"))
}
