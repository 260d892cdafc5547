//! The fault campaign: one pair under the recorder's load, one fault at a random moment, over and over.
//! What must hold after each run: no acknowledged commit is lost, and the pair is whole again by itself.
//!
//! Run by `tests/chaos/run`. A run is told by its seed: the same seed picks the same faults at the same
//! moments of the load.

mod arena;
mod authority;
mod certificates;
mod clocks;
mod disks;
mod faults;
mod network;
mod processes;
mod summary;
mod words;

use crate::{pair, series::Series, shell::Shell};
use arena::Arena;
use clap::Args;
use faults::Fault;
use std::{process::ExitCode, time::Instant};
use summary::Summary;

/// `tests/chaos/run`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArguments {
    /// Only this fault; may be repeated
    #[arg(long)]
    fault: Vec<String>,
    /// How often each fault comes
    #[arg(long, default_value_t = 1)]
    runs: u32,
    #[command(flatten)]
    series: Series,
    /// Show what the object said in each run
    #[arg(long)]
    words: bool,
    /// Names of the faults
    #[arg(long)]
    list: bool,
}

/// Numbers that a seed gives (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The next number below `end`, which is above zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Runs the campaign, or lists what it has.
pub(crate) fn campaign(shell: Option<&Shell>, arguments: &ChaosArguments) -> ExitCode {
    let chosen: Vec<&Fault> = faults::ALL
        .iter()
        .filter(|fault| {
            arguments.fault.is_empty() || arguments.fault.iter().any(|name| name == fault.name)
        })
        .collect();
    if arguments.list || chosen.is_empty() {
        for fault in faults::ALL {
            println!("{:30} {}", fault.name, fault.what);
        }
        return if chosen.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let Some(shell) = shell else {
        println!("no cluster: run tests/chaos/run");
        println!("0 passed, 0 failed, {} skipped", chosen.len());
        return ExitCode::SUCCESS;
    };
    let seed = arguments.series.seed();
    let until = arguments.series.until();
    println!("seed {seed}, {} faults, {} runs each", chosen.len(), arguments.runs);
    let mut summary = Summary::default();
    let mut arena = Arena::new(shell);
    for round in 0..arguments.runs {
        for fault in in_order(&chosen, seed, round, until.is_some()) {
            if until.is_some_and(|until| Instant::now() + fault.takes_about() > until) {
                continue;
            }
            run(&mut arena, fault, (seed, round), arguments, &mut summary);
        }
    }
    arena.close();
    print!("{summary}");
    if summary.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A campaign that ends by time begins with another fault each time.
fn in_order<'a>(chosen: &[&'a Fault], seed: u64, round: u32, is_slice: bool) -> Vec<&'a Fault> {
    let mut order = chosen.to_vec();
    if is_slice {
        let mut dice = Dice(seed ^ u64::from(round) << 32);
        for last in (1..order.len()).rev() {
            let other = dice.below(last as u64 + 1) as usize;
            order.swap(last, other);
        }
    }
    order
}

/// One run; after a failure the state of everything is printed and the next one gets another pair.
fn run(
    arena: &mut Arena<'_>,
    fault: &'static Fault,
    (seed, round): (u64, u32),
    arguments: &ChaosArguments,
    summary: &mut Summary,
) {
    let begun = Instant::now();
    let name = fault.name.bytes().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let dice = Dice(seed ^ name ^ u64::from(round) << 48);
    let outcome = arena.run(fault, round, dice);
    arena.heal();
    let seconds = begun.elapsed().as_secs();
    let is_passed = outcome.as_ref().is_ok_and(|outcome| outcome.lost == 0);
    match &outcome {
        Ok(outcome) if arguments.series.json => {
            println!("{}", outcome.json(fault.name, round + 1, seconds))
        }
        Ok(outcome) => {
            let word = if is_passed { "ok  " } else { "LOST" };
            println!("{word}  {:30} {:3}  {outcome}  ({seconds} s)", fault.name, round + 1);
        }
        Err(error) => {
            println!("FAIL  {:30} {:3}  {error:#}  ({seconds} s)", fault.name, round + 1);
        }
    }
    if arguments.words {
        for word in arena.heard() {
            println!("      {word}");
        }
    }
    if !is_passed {
        if let Some(namespace) = arena.namespace_name() {
            pair::dump(arena.shell, &namespace);
        }
        arena.close();
    }
    summary.add(fault, is_passed, outcome.ok());
}
