//! The `understudy` command line: its sub-commands as a library, so that tests call them too.
//!
//! `agent` and `engine` are what the container runs; everything else is for a person with a
//! kubeconfig, or for a shell inside a member's pod (`status --local`, `fault`).
//!
//! Deliberately absent: anything that changes a pair beside its resource. `failover` notes a person's word
//! on it, for the operator to act on.

mod agent;
mod cluster;
mod connect;
pub mod demo;
mod explain;
mod failover;
mod fault;
mod standalone;
mod status;
mod trapped;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs and inspects active standby pairs.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, about, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Container entry point: supervises the engine (PID 1)
    Agent,
    /// The engine; started by the agent
    Engine,
    /// One database on this machine, without Kubernetes and without a standby
    Standalone(standalone::StandaloneArguments),
    /// Live state of a pair and its members
    Status(status::StatusArguments),
    /// Why the pair's roles changed: its decisions, newest first
    Explain(explain::ExplainArguments),
    /// Go on without the commits of an active that does not come back
    Failover(failover::FailoverArguments),
    /// Transactions that an old active had and the pair went on without
    Trapped(trapped::TrappedArguments),
    /// Open psql on the active through the API server
    #[command(visible_alias = "psql")]
    Connect(connect::ConnectArguments),
    /// Write, remember every acknowledgement, measure gaps, verify
    Demo(demo::DemoArguments),
    /// Break something on purpose, inside a member's pod
    Fault(fault::FaultArguments),
}

/// Runs one command.
///
/// # Errors
/// What failed, for a person to read.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider().install_default().ok();
    match arguments.command {
        Command::Agent => agent::agent(),
        Command::Engine => agent::engine(),
        Command::Standalone(arguments) => standalone::run(arguments),
        Command::Status(arguments) => block_on(status::run(arguments)),
        Command::Explain(arguments) => block_on(explain::run(arguments)),
        Command::Failover(arguments) => block_on(failover::run(arguments)),
        Command::Trapped(arguments) => block_on(trapped::run(arguments)),
        Command::Connect(arguments) => block_on(connect::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Fault(arguments) => fault::run(&arguments),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}
