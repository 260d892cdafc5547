//! Faults that are injected for real, inside the container they hit.

use anyhow::Context;
use clap::{Args, Subcommand};
use rustix::process::{Signal, kill_process};
use std::{path::PathBuf, process::ExitCode};
use understudy_node_agent::supervisor::running_engine;

/// `understudy fault`.
#[derive(Debug, Args)]
pub struct FaultArguments {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// SIGKILL to the engine process of this container
    KillEngine(Target),
    /// SIGSTOP to the engine process of this container
    FreezeEngine(Target),
    /// SIGCONT to the engine process of this container
    ThawEngine(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// Directory where the agent keeps the engine's pid
    #[arg(long, env = "UNDERSTUDY_RUN_DIR", default_value = "/run/understudy")]
    run_dir: PathBuf,
}

/// Injects the fault.
///
/// # Errors
/// When there is no engine or it cannot be signalled.
pub fn run(arguments: &FaultArguments) -> anyhow::Result<ExitCode> {
    let (target, signal, done) = match &arguments.fault {
        Fault::KillEngine(t) => (t, Signal::KILL, "killed"),
        Fault::FreezeEngine(t) => (t, Signal::STOP, "frozen"),
        Fault::ThawEngine(t) => (t, Signal::CONT, "running again"),
    };
    let pid = running_engine(&target.run_dir)
        .with_context(|| format!("no engine was found by {}", target.run_dir.display()))?;
    kill_process(pid, signal).with_context(|| format!("engine {pid} cannot be signalled"))?;
    println!("engine {pid} {done}");
    Ok(ExitCode::SUCCESS)
}
