//! How a failpoint is armed and what happens at it.
//!
//! The file `point` holds `NAME ACTION [COUNT]`: at the next COUNT passes (one, if it is not said) ACTION
//! happens: `kill`, `stop`, `error`, or `pause`, which holds up the one task for a second. The file is looked at every 10 ms; once it is in force a line `armed NAME ACTION` is appended to the file
//! `hits`, and at each pass, before anything else, a line `hit NAME ACTION`. After the last of them `point` is
//! removed, so that a process that is started again is not struck again. A line that is not understood is
//! answered with `refused LINE`.

use super::Injected;
use super::hooks;
use super::points::{OnError, Point, TABLE, spec};
use parking_lot::Mutex;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long `pause` holds up a task.
const PAUSE: Duration = Duration::from_secs(1);
/// Nobody has looked yet.
const UNKNOWN: u16 = 0;
/// Nothing is armed.
const NOTHING: u16 = 1;
/// Added to a point's number where it is the one that is armed.
const FIRST: u16 = 2;

/// What is armed, for everybody who passes a point.
static ARMED: AtomicU16 = AtomicU16::new(UNKNOWN);

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Error,
    Pause,
}

/// An order to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arming {
    point: Point,
    action: Action,
    /// Passes that are still struck.
    left: u32,
}

/// A folder of faults and what was read in it last.
struct Board {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    text: Option<String>,
    arming: Option<Arming>,
}

/// The folder that the environment names, with a thread that looks at it; none if it names none.
fn board() -> Option<&'static Board> {
    static BOARD: OnceLock<Option<Board>> = OnceLock::new();
    static WATCH: OnceLock<()> = OnceLock::new();
    let board = BOARD.get_or_init(|| {
        let dir = PathBuf::from(std::env::var_os("PPDB_FAULT_DIR")?);
        Some(Board { dir, state: Mutex::default() })
    });
    let Some(board) = board else {
        ARMED.store(NOTHING, Ordering::Relaxed);
        return None;
    };
    WATCH.get_or_init(|| {
        board.look();
        let watch = std::thread::Builder::new().name("faults".into()).spawn(|| {
            loop {
                std::thread::sleep(LOOK_EVERY);
                board.look();
            }
        });
        if let Err(error) = watch {
            tracing::error!(%error, "no thread that looks at faults");
        }
    });
    Some(board)
}

/// The folder of faults.
pub fn dir() -> Option<&'static Path> {
    board().map(|board| board.dir.as_path())
}

/// See `super::pass`.
#[inline]
pub fn pass(point: Point) -> Result<(), Injected> {
    match ARMED.load(Ordering::Relaxed) {
        NOTHING => Ok(()),
        armed if armed >= FIRST && armed != number(point) => Ok(()),
        _ => meet(point),
    }
}

fn number(point: Point) -> u16 {
    point as u16 + FIRST
}

#[cold]
fn meet(point: Point) -> Result<(), Injected> {
    match board().and_then(|board| board.strike(point)) {
        None => Ok(()),
        Some(Action::Error) => Err(Injected(point)),
        Some(Action::Pause) => {
            pause();
            Ok(())
        }
        Some(Action::Stop) => {
            signal(rustix::process::Signal::STOP);
            Ok(())
        }
        Some(Action::Kill) => loop {
            signal(rustix::process::Signal::KILL);
        },
    }
}

fn signal(signal: rustix::process::Signal) {
    if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), signal) {
        tracing::error!(%error, "a failpoint could not signal its process");
    }
}

impl Board {
    /// Reads the folder.
    fn look(&self) {
        hooks::refresh(&self.dir);
        let mut state = self.state.lock();
        let text = std::fs::read_to_string(self.dir.join("point")).ok();
        if state.text != text {
            state.arming = text.as_deref().and_then(|line| {
                let arming = parse(line.trim());
                let said = if arming.is_some() { "armed" } else { "refused" };
                self.note(&format!("{said} {}", line.trim()));
                arming
            });
            state.text = text;
        }
        publish(&state);
    }

    /// What happens at this point, if it is the one that is armed.
    fn strike(&self, point: Point) -> Option<Action> {
        let mut state = self.state.lock();
        let mut arming = state.arming.filter(|arming| arming.point == point)?;
        arming.left -= 1;
        self.note(&format!("hit {}", line(&arming)));
        state.arming = Some(arming).filter(|arming| arming.left > 0);
        state.text = state.arming.map(|arming| format!("{} {}", line(&arming), arming.left));
        let file = self.dir.join("point");
        let kept = match &state.text {
            Some(text) => std::fs::write(file, text),
            None => std::fs::remove_file(file),
        };
        if let Err(error) = kept {
            tracing::error!(%error, "a failpoint stays armed");
        }
        publish(&state);
        Some(arming.action)
    }

    /// Appends a line that survives the death of this process.
    fn note(&self, line: &str) {
        let file = std::fs::File::options().create(true).append(true).open(self.dir.join("hits"));
        let noted = file.and_then(|mut file| {
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()
        });
        if let Err(error) = noted {
            tracing::error!(%error, line, "what a failpoint did is not noted");
        }
    }
}

fn publish(state: &State) {
    let armed = state.arming.map_or(NOTHING, |arming| number(arming.point));
    ARMED.store(armed, Ordering::Relaxed);
}

/// Holds up the task that is here. A runtime lets its other tasks go on meanwhile: the one thread that drives
/// network and consensus would hold up the whole node.
fn pause() {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let hold = || std::thread::sleep(PAUSE);
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(hold),
        _ => hold(),
    }
}

fn line(arming: &Arming) -> String {
    let action = match arming.action {
        Action::Kill => "kill",
        Action::Stop => "stop",
        Action::Error => "error",
        Action::Pause => "pause",
    };
    format!("{} {action}", spec(arming.point).name)
}

fn parse(line: &str) -> Option<Arming> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let spec = TABLE.iter().find(|spec| spec.name == name)?;
    let action = match words.next()? {
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        "pause" => Action::Pause,
        "error" if spec.on_error != OnError::Impossible => Action::Error,
        _ => return None,
    };
    let left = words.next().map_or(Some(1), |count| count.parse().ok().filter(|left| *left > 0))?;
    words.next().is_none().then_some(Arming { point: spec.point, action, left })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(dir: &Path) -> Board {
        Board { dir: dir.to_owned(), state: Mutex::default() }
    }

    fn hits(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("hits")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_point_is_struck_as_often_as_it_was_armed_for() {
        let dir = tempfile::tempdir().unwrap();
        let board = board(dir.path());
        board.look();
        assert_eq!(board.strike(Point::WalWrite), None);
        std::fs::write(dir.path().join("point"), "wal.write error 2\n").unwrap();
        board.look();
        board.look();
        assert_eq!(board.strike(Point::WalSynced), None, "another point");
        assert_eq!(board.strike(Point::WalWrite), Some(Action::Error));
        board.look();
        assert_eq!(board.strike(Point::WalWrite), Some(Action::Error));
        assert!(!dir.path().join("point").exists(), "a process that starts again is spared");
        assert_eq!(board.strike(Point::WalWrite), None);
        board.look();
        let said = ["armed wal.write error 2", "hit wal.write error", "hit wal.write error"];
        assert_eq!(hits(dir.path()), said);
        // The same words again are another arming.
        std::fs::write(dir.path().join("point"), "wal.write stop").unwrap();
        board.look();
        assert_eq!(board.strike(Point::WalWrite), Some(Action::Stop));
        std::fs::write(dir.path().join("point"), "wal.write stop").unwrap();
        board.look();
        std::fs::remove_file(dir.path().join("point")).unwrap();
        board.look();
        assert_eq!(board.strike(Point::WalWrite), None, "it was taken back");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let board = board(dir.path());
        let impossible = TABLE.iter().find(|s| s.on_error == OnError::Impossible).unwrap().name;
        for line in ["nowhere kill", "wal.write", "wal.write burn", "wal.write kill 0"] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(parse("wal.write kill 1 2"), None);
        assert_eq!(parse(&format!("{impossible} error")), None);
        assert!(parse(&format!("{impossible} stop")).is_some());
        std::fs::write(dir.path().join("point"), "nowhere kill").unwrap();
        board.look();
        assert_eq!(hits(dir.path()), ["refused nowhere kill"]);
    }
}
