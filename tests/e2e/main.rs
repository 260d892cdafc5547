//! End to end: a real API server and kubelets, real pods, real faults, and the recorder as the client.
//! Every flow has a namespace and a pair of its own; each ends with nothing lost and the pair whole.
//!
//! Run by `tests/e2e/run`, which brings the cluster up. Without a cluster (`cargo test`) the flows are
//! skipped and counted.

#[path = "../chaos/mod.rs"]
mod chaos;
mod fields;
mod flows;
mod loss;
mod pair;
mod policies;
mod refusals;
mod report;
mod series;
mod shell;
#[path = "../sieve/mod.rs"]
mod sieve;
mod two_actives;

use clap::{Parser, Subcommand};
use pair::{Namespace, Outcome};
use report::Report;
use shell::Shell;
use std::{process::ExitCode, time::Instant};

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// How often each flow runs
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Only this flow
    #[arg(long)]
    flow: Option<String>,
    /// One JSON object a run
    #[arg(long)]
    json: bool,
    /// Names of the flows
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The fault campaign
    Chaos(chaos::ChaosArguments),
    /// The operator killed after its writes, old lists, lost and merged events
    Sieve(sieve::SieveArguments),
    /// What stands between such an operator and the API server
    #[command(hide = true)]
    SieveProxy(sieve::proxy::ProxyArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let shell = Shell::from_environment();
    match &arguments.what {
        Some(What::Chaos(arguments)) => return chaos::campaign(shell.as_ref(), arguments),
        Some(What::Sieve(arguments)) => return sieve::run(shell.as_ref(), arguments),
        Some(What::SieveProxy(arguments)) => return sieve::proxy::main(arguments),
        None => {}
    }
    let chosen: Vec<_> = match &arguments.flow {
        None => flows::ALL.iter().collect(),
        Some(name) => flows::every().filter(|flow| name == flow.name).collect(),
    };
    if arguments.list || chosen.is_empty() {
        for flow in flows::every() {
            println!("{:28} {}", flow.name, flow.what);
        }
        return if chosen.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    if let Err(error) = fields::assert_every_leaf_has_a_case() {
        println!("{error:#}");
        return ExitCode::FAILURE;
    }
    let Some(shell) = shell else {
        println!("no cluster: run tests/e2e/run");
        println!("0 passed, 0 failed, {} skipped", chosen.len());
        return ExitCode::SUCCESS;
    };
    let mut report = Report::default();
    for round in 1..=arguments.repeat {
        for flow in &chosen {
            let outcome = run(&shell, flow, round, arguments.json);
            report.add(flow.name, outcome);
        }
    }
    print!("{report}");
    if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one flow in its own namespace; a failure prints the state of everything in it.
fn run(shell: &Shell, flow: &flows::Flow, round: u32, json: bool) -> Option<Outcome> {
    let begun = Instant::now();
    let namespace = format!("e2e-{}-{round}", flow.name);
    let result = Namespace::create(shell, &namespace, round)
        .and_then(|namespace| (flow.run)(shell, &namespace));
    let seconds = begun.elapsed().as_secs();
    match &result {
        Ok(outcome) if json => println!("{}", outcome.json(flow.name, round, seconds)),
        Ok(outcome) => println!("ok    {:28} {round}  {outcome}  ({seconds} s)", flow.name),
        Err(error) => {
            println!("FAIL  {:28} {round}  {error:#}  ({seconds} s)", flow.name);
            pair::dump(shell, &namespace);
        }
    }
    pair::delete_namespace(shell, &namespace);
    result.ok()
}
