//! Faults that are injected for real, inside the container they hit.

use anyhow::Context;
use clap::{Args, Subcommand};
use rustix::process::{Signal, kill_process};
use std::{path::PathBuf, process::ExitCode};
use understudy_node_agent::supervisor::running_engine;

/// `understudy fault`.
#[derive(Debug, Args)]
pub(crate) struct FaultArguments {
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// SIGKILL to the engine process of this container
    #[command(name = "kill-engine")]
    Kill(Target),
    /// SIGSTOP to the engine process of this container
    #[command(name = "freeze-engine")]
    Freeze(Target),
    /// SIGCONT to the engine process of this container
    #[command(name = "thaw-engine")]
    Thaw(Target),
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
pub(crate) fn run(arguments: &FaultArguments) -> anyhow::Result<ExitCode> {
    let (target, signal, done) = match &arguments.fault {
        Fault::Kill(t) => (t, Signal::KILL, "killed"),
        Fault::Freeze(t) => (t, Signal::STOP, "frozen"),
        Fault::Thaw(t) => (t, Signal::CONT, "running again"),
    };
    let pid = running_engine(&target.run_dir)
        .with_context(|| format!("no engine was found by {}", target.run_dir.display()))?;
    kill_process(pid, signal).with_context(|| format!("engine {pid} cannot be signalled"))?;
    println!("engine {pid} {done}");
    Ok(ExitCode::SUCCESS)
}
