//! The binary: hands the command line to the one command tree, and the shell to whoever asks for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ppdb::cli::main(ppdb::shell::door)
}
