//! The shell: the commands of the command line over long-lived connections, typed, scripted or driven.
//!
//! `interactive` is for people, `script` for `-e` and piped lines, `jsonl` for programs in any language.
//! What a line means is `line` and `request`; commands are carried out by the session, as everywhere.
//!
//! Of the interactive one, `prompt`, `notice`, `complete`, `hint` and `rhai` decide, from values; `editor` owns the
//! terminal, `heard` keeps asking how the cluster is, `names` asks for names.

pub mod complete;
pub mod editor;
pub mod heard;
pub mod hint;
pub mod history;
pub mod interactive;
pub mod jsonl;
pub mod keys;
pub mod line;
pub mod names;
pub mod notice;
pub mod prompt;
pub mod request;
pub mod rhai;
pub mod script;
pub mod script_mode;
pub mod seen;
pub mod signals;

use crate::cli::args::{Format, ShellArgs};
use crate::cli::session::Session;
use std::future::Future;
use std::io::IsTerminal;
use std::pin::Pin;

/// Opens the shell that fits where the lines come from; answers the exit code.
pub fn door(session: Session, args: ShellArgs) -> Pin<Box<dyn Future<Output = u8>>> {
    Box::pin(open(session, args))
}

async fn open(mut session: Session, args: ShellArgs) -> u8 {
    let code = if let Some(commands) = &args.execute {
        script::execute(&mut session, commands).await
    } else if std::io::stdin().is_terminal() {
        interactive::run(&mut session, args.no_history).await
    } else if session.base().output == Some(Format::Jsonl) {
        jsonl::run(&mut session).await
    } else {
        script::standard_input(&mut session).await
    };
    session.close().await;
    code
}
