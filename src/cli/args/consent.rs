//! Consent, as typed: the answer to what a person at a terminal would be asked.

use clap::Args;

/// The answer to what a person at a terminal would be asked.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Do not ask: yes.
    #[arg(short = 'y', long)]
    pub yes: bool,
}
