//! The binary: hands the command line to the one command tree, and the other doors to whoever asks for them.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ppdb::cli::main(ppdb::cli::Doors { shell: ppdb::shell::door, script: ppdb::script::DOOR })
}
