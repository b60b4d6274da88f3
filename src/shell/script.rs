//! Commands without a person: `-e "a; b"`, and lines from a pipe. The first error ends a script, because
//! what follows was written for the case that it worked; a negative answer is no error. So do Ctrl-C and SIGTERM, wherever
//! they are heard: in a runbook, which cleans up first, in another command, or while the next line is waited for. A view
//! answers all the same on Ctrl-C, and is left on SIGTERM, which it does not hear.

use super::line;
use super::request::{self, Asked};
use super::signals::Signals;
use crate::cli::args::{Format, Globals, RunArgs, Verb};
use crate::cli::session::Session;
use crate::cli::value::Done;
use crate::cli::{exit, live, millis, output, runbook};
use std::pin::pin;
use std::time::Instant;
use tokio::io::BufReader;

/// Carries out the commands of `-e`; answers the exit code of the last one that ran.
pub async fn execute(session: &mut Session, commands: &str) -> u8 {
    let format = output::format_or_default(session.base().output);
    let Some(mut signals) = Signals::hear() else { return exit::OPERATOR };
    let mut code = exit::YES;
    for command in line::commands(commands) {
        match step(session, command.as_bytes(), format, &mut signals).await {
            Step::Done(ended) => code = ended,
            Step::Failed(ended) => return ended,
            Step::Leave => return code,
        }
    }
    code
}

/// Carries out lines from standard input; answers the exit code of the last one that ran.
pub async fn standard_input(session: &mut Session) -> u8 {
    let format = output::format_or_default(session.base().output);
    let mut input = BufReader::new(tokio::io::stdin());
    let Some(mut signals) = Signals::hear() else { return exit::OPERATOR };
    let mut code = exit::YES;
    loop {
        let next = tokio::select! {
            next = super::jsonl::next_line(&mut input) => next,
            code = signals.come() => return code,
        };
        let line = match next {
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(error))) => return show(&Err(error.into()), format, 0.0),
            Ok(None) | Err(_) => return code,
        };
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        match step(session, text, format, &mut signals).await {
            Step::Done(ended) => code = ended,
            Step::Failed(ended) => return ended,
            Step::Leave => return code,
        }
    }
}

enum Step {
    Done(u8),
    Failed(u8),
    Leave,
}

async fn step(
    session: &mut Session,
    command: &[u8],
    format: Format,
    signals: &mut Signals,
) -> Step {
    if let Some(code) = signals.came().await {
        return Step::Failed(code);
    }
    let started = Instant::now();
    let asked = match line::words(command) {
        Ok(words) if words.is_empty() => return Step::Done(exit::YES),
        Ok(words) => request::of_words(words),
        Err(error) => Asked::Answer(Box::new(Err(error.into()))),
    };
    let (done, format) = match asked {
        Asked::Run(cli, stand) => {
            if let Verb::Run(args) = &cli.verb {
                let mut struck = None;
                let asked = async || {
                    struck.get_or_insert(signals.come().await);
                };
                let code = runbook(session, args, &cli.globals, asked).await;
                return struck.map_or_else(|| ended(code), Step::Failed);
            }
            let format = cli.globals.output.unwrap_or(format);
            let ends_itself = live::hears_interrupt(&cli.verb);
            let (done, struck) = {
                let mut running = pin!(session.run(*cli, &stand));
                tokio::select! {
                    done = &mut running => (Some(done), None),
                    code = signals.come() => {
                        let answers = ends_itself && code == exit::INTERRUPTED;
                        (live::ended_after_interrupt(answers, running).await, Some(code))
                    }
                }
            };
            match (done, struck) {
                (Some(done), None) => (done, format),
                (Some(done), Some(code)) => {
                    show(&done, format, millis(started));
                    return Step::Failed(code);
                }
                (None, code) => {
                    eprintln!("{}", session.left_early());
                    return Step::Failed(code.unwrap_or(exit::INTERRUPTED));
                }
            }
        }
        Asked::Answer(done) => (*done, format),
        Asked::Leave => return Step::Leave,
    };
    match (&done, show(&done, format, millis(started))) {
        // An error ends the script, also one whose exit code is that of a no.
        (Err(_), code) => Step::Failed(code),
        (Ok(_), code) => ended(code),
    }
}

/// Yes and no are answers; whatever else a command ends with ends the script.
fn ended(code: u8) -> Step {
    match code {
        exit::YES | exit::NO => Step::Done(code),
        code => Step::Failed(code),
    }
}

/// Runs the runbook that a line asks for, to its exit code; it has a connection of its own. `asked` returns each time that
/// somebody wants an end of it.
pub async fn runbook(
    session: &Session,
    args: &RunArgs,
    typed: &Globals,
    asked: impl AsyncFnMut(),
) -> u8 {
    let all = session.base().overlaid_by(typed);
    let attended = session.is_attended();
    runbook::start_until(crate::script::DOOR, args, &all, typed, attended, asked).await
}

/// Prints one ended command; answers its exit code.
pub fn show(done: &Done, format: Format, ms: f64) -> u8 {
    // A reader that went away is no failure of the command.
    let _ = output::print(&output::render(done, format, ms));
    exit::of(done)
}
