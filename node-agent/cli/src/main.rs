//! The `understudy` binary: one multi-call program for the agent, the engine and the person. Called as
//! `kubectl-understudy` it is a kubectl plugin.

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = understudy_cli::Arguments::parse();
    match understudy_cli::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("understudy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
