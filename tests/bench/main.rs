//! The engine beside its peer, interleaved in one run on the same cores: `tests/bench/run`.
//!
//! The peer is PostgreSQL 15 where a server is measured, and SQLite where the engine is called in the
//! caller's own process. Rounds go ours, peer, ours, peer; what counts is the median. A ratio above 1 always means better than
//! the peer. Measures over a socket have a third side, the floor (`floor`): about what is left to any server
//! behind that client. A target that is missed is printed and fails nothing: it is a finding.

mod bare;
mod floor;
mod inprocess;
mod machine;
mod measure;
mod pgbench;
mod restart;
mod size;
mod tatp;
mod wire;

use clap::Parser;
use measure::Bench;
use std::{path::PathBuf, process::ExitCode};

/// `tests/bench/run`.
#[derive(Debug, Parser)]
#[command(about = "Measures the engine beside its peer")]
pub(crate) struct Arguments {
    /// Only this measure; may be repeated
    #[arg(long, value_name = "MEASURE")]
    only: Vec<String>,
    /// A line of JSON at the end of each measure
    #[arg(long)]
    json: bool,
    /// Names of the measures
    #[arg(long)]
    list: bool,
    /// Rounds of each side
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of a round
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Measure although something else uses the processors
    #[arg(long)]
    busy: bool,
    /// Where a directory for the servers' files is made, and removed after
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
    /// Be the floor: answer what comes to a socket in this directory with bytes made beforehand
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    floor: Option<PathBuf>,
    /// Loops of the floor
    #[arg(long, hide = true, default_value = "1")]
    loops: usize,
    /// Clients of the floor at a time
    #[arg(long, hide = true, default_value = "1")]
    clients: usize,
    /// The floor executes what it is sent
    #[arg(long, hide = true)]
    with_engine: bool,
    /// The program to measure
    #[arg(long, env = "UNDERSTUDY_BIN", default_value = "target/debug/understudy")]
    understudy: PathBuf,
}

/// The allocator of the program that is measured, for what is measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for measure in measure::ALL {
            println!("{:20} {:22} {}", measure.name, measure.aim(), measure.what);
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tests/bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(directory) = &arguments.floor {
        let size = (arguments.loops, arguments.clients);
        return floor::serve(directory, size, arguments.with_engine);
    }
    let chosen = measure::chosen(&arguments.only)?;
    if !arguments.busy {
        machine::assert_quiet()?;
    }
    println!(
        "{} rounds of {} s each, medians; {}",
        arguments.rounds,
        arguments.seconds,
        machine::describe()
    );
    let mut bench = Bench::new(arguments)?;
    let mut missed = Vec::new();
    for measure in chosen {
        let verdict = (measure.run)(&mut bench)?;
        println!("{}", measure.line(&verdict));
        if arguments.json {
            println!("{}", measure.json(&verdict));
        }
        if !measure.is_reached(&verdict) {
            missed.push(measure.name);
        }
    }
    match missed.as_slice() {
        [] => println!("every target was reached"),
        missed => println!("below target: {}", missed.join(", ")),
    }
    Ok(())
}
