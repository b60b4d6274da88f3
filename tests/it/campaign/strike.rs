//! Arms a point on a node, waits until it is hit, and brings the node back.

use super::table::{Action, Run};
use crate::harness::Node;
use std::time::{Duration, Instant};

/// How long a process stands still.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long a node may take to say that a point is armed.
const ARMED_WITHIN: Duration = Duration::from_secs(5);
/// How long a process may take to end that was killed, or that met what it cannot live with.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How long a process that ended stays away.
const AWAY: Duration = Duration::from_millis(300);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Lines of `hits` before the arming: what was said then is of an earlier run.
pub struct Armed {
    before: usize,
    line: String,
}

fn hits(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.fault_dir().join("hits")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What is written to `point` for a run.
pub fn line(run: &Run) -> String {
    format!("{} {}", run.spec.name, run.action.word())
}

/// Arms the point; the node has said so when this returns.
pub async fn arm(node: &Node, line: String) -> Result<Armed, String> {
    let before = hits(node).len();
    node.plant("point", &line);
    let end = Instant::now() + ARMED_WITHIN;
    loop {
        // It may be hit at once; then it was armed.
        if hits(node).len() > before {
            let said = &hits(node)[before];
            return match said.strip_prefix("armed ") {
                Some(armed) if armed == line => Ok(Armed { before, line }),
                _ => Err(format!("{} answered the arming of `{line}` with `{said}`", node.name)),
            };
        }
        if Instant::now() >= end {
            return Err(format!("{} did not arm `{line}`", node.name));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Resolves when the point was hit.
pub async fn hit(node: &Node, armed: &Armed) {
    let wanted = format!("hit {}", armed.line);
    while !hits(node)[armed.before..].contains(&wanted) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes back an arming that was not hit.
pub fn disarm(node: &Node) {
    let _ = std::fs::remove_file(node.fault_dir().join("point"));
}

/// After a hit: waits out what it does, and has the node run again.
pub async fn recover(node: &mut Node, run: &Run) -> Result<(), String> {
    if run.ends_process() {
        let end = Instant::now() + ENDS_WITHIN;
        while node.is_running() {
            if Instant::now() >= end {
                return Err(format!("{} goes on after `{run}`", node.name));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(AWAY).await;
        node.kill();
        node.start();
    } else if run.action == Action::Stop {
        tokio::time::sleep(STANDSTILL).await;
        node.resume();
    }
    Ok(())
}
