//! Sieve's method: one scenario again and again, the operator disturbed in another way each time, and the
//! same end each time. The operator is killed after its writes, begins with old lists, misses events.
//!
//! Run by `tests/sieve/run`. The cluster's own operator is away meanwhile; each run has an operator of its
//! own that knows one namespace and reaches the API server through a proxy (`proxy.rs`).

mod bench;
mod operator;
pub(crate) mod proxy;
mod scenario;
mod upstream;
mod words;

use crate::{
    pair::{self, Namespace, Outcome},
    series::Series,
    shell::Shell,
};
use anyhow::Context;
use bench::Bench;
use clap::Args;
use scenario::Scene;
use serde_json::json;
use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};
use understudy_tests::sieve::case::Case;
use words::{Order, Report};

/// Those that need no number: the flow.
const WHOLE: [Case; 4] = [Case::EveryWrite, Case::Stale, Case::Dropped, Case::Merged];
/// Lines of the operator's log that are shown when a run failed.
const LOG_LINES: usize = 80;

/// `tests/sieve/run`.
#[derive(Debug, Args)]
pub(crate) struct SieveArguments {
    /// Only these cases, beside the reference
    #[arg(long)]
    only: Vec<Case>,
    /// Of the cases write-N, begin with this N
    #[arg(long, default_value_t = 1)]
    from: usize,
    /// How many runs go on side by side, each with a namespace, a proxy and an operator of its own
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    #[command(flatten)]
    series: Series,
    /// Print the writes of the reference
    #[arg(long)]
    writes: bool,
}

/// A run that is over.
struct Played {
    namespace: String,
    case: Case,
    report: Report,
    seconds: u64,
    ends: anyhow::Result<Vec<String>>,
}

/// The reference, then every case asked for.
pub(crate) fn run(shell: Option<&Shell>, arguments: &SieveArguments) -> ExitCode {
    let Some(shell) = shell else {
        println!("no cluster: run tests/sieve/run");
        println!("0 passed, 0 failed, all skipped");
        return ExitCode::SUCCESS;
    };
    let seed = arguments.series.seed();
    println!("seed {seed}");
    let until = arguments.series.until();
    let mut names = Vec::new();
    let played = Bench::new(shell).and_then(|bench| {
        let table = Table { bench: &bench, prefix: format!("sieve-{}", std::process::id()), seed };
        let (reference, ends) = table.reference(&mut names)?;
        tell(shell, &reference, arguments);
        let numbered = (arguments.from..=reference.report.writes.len()).map(Case::Write);
        let cases = match arguments.only.as_slice() {
            [] => WHOLE.into_iter().chain(numbered).collect(),
            only => only.iter().copied().filter(|case| *case != Case::Reference).collect(),
        };
        let mut played = vec![reference];
        played.extend(table.play_all(cases, &ends, (arguments.parallel, until), &|played| {
            tell(shell, played, arguments);
        }));
        Ok(played)
    });
    names.extend(played.iter().flatten().map(|played| played.namespace.clone()));
    for name in names {
        pair::delete_namespace(shell, &name);
    }
    let played = match played {
        Ok(played) => played,
        Err(error) => {
            println!("FAIL  {error:#}");
            return ExitCode::FAILURE;
        }
    };
    summary(&played);
    if played.iter().all(|played| played.ends.is_ok()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The slice of it that is a flow: every write once, old lists, lost and merged events.
pub(crate) fn flow(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let bench = Bench::new(shell)?;
    let table = Table { bench: &bench, prefix: namespace.name.clone(), seed: namespace.seed() };
    let mut names = Vec::new();
    let played = table.reference(&mut names).map(|(reference, ends)| {
        let cases = WHOLE.to_vec();
        let slots = cases.len();
        let mut played = table.play_all(cases, &ends, (slots, None), &|played| {
            if let Err(error) = &played.ends {
                println!("{}: {error:#}", played.case);
                show(shell, played);
            }
        });
        played.insert(0, reference);
        played
    });
    // Only an operator takes a pair's finalizer away.
    drop(bench);
    names.extend(played.iter().flatten().map(|played| played.namespace.clone()));
    for name in names {
        pair::delete_namespace(shell, &name);
    }
    let mut told = Vec::new();
    for played in played? {
        let words = words_of(&played.report);
        told.push(format!("{}: {words}", played.case));
        played.ends.with_context(|| format!("{}, {words}", played.case))?;
    }
    Ok(Outcome { note: told.join("; "), ..Outcome::default() })
}

/// Where runs are played.
struct Table<'a> {
    bench: &'a Bench<'a>,
    /// Namespaces are called so, and then after the case.
    prefix: String,
    seed: u64,
}

impl Table<'_> {
    /// The run without a disturbance. Its namespace is named whatever becomes of it.
    fn reference(&self, names: &mut Vec<String>) -> anyhow::Result<(Played, Vec<String>)> {
        let mut reference = self.play(Case::Reference, None);
        match std::mem::replace(&mut reference.ends, Ok(Vec::new())) {
            Ok(ends) => Ok((reference, ends)),
            Err(error) => {
                show(self.bench.shell, &reference);
                names.push(reference.namespace);
                Err(error.context("the reference"))
            }
        }
    }

    /// All cases, several side by side; none begins after the end of the time.
    fn play_all(
        &self,
        mut cases: Vec<Case>,
        reference: &[String],
        (slots, until): (usize, Option<Instant>),
        tell: &(dyn Fn(&Played) + Sync),
    ) -> Vec<Played> {
        cases.reverse();
        let (cases, played) = (Mutex::new(cases), Mutex::new(Vec::new()));
        let next = || {
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            let mut cases = cases.lock().unwrap_or_else(PoisonError::into_inner);
            cases.pop().filter(|_| !is_late)
        };
        thread::scope(|scope| {
            for _ in 0..slots.max(1) {
                scope.spawn(|| {
                    while let Some(case) = next() {
                        let one = self.play(case, Some(reference));
                        let mut played = played.lock().unwrap_or_else(PoisonError::into_inner);
                        tell(&one);
                        played.push(one);
                    }
                });
            }
        });
        played.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn play(&self, case: Case, reference: Option<&[String]>) -> Played {
        let begun = Instant::now();
        let namespace = format!("{}-{case}", self.prefix);
        let mut report = Report::default();
        let ends = self.play_in(&namespace, case, reference, &mut report);
        Played { namespace, case, report, seconds: begun.elapsed().as_secs(), ends }
    }

    fn play_in(
        &self,
        name: &str,
        case: Case,
        reference: Option<&[String]>,
        report: &mut Report,
    ) -> anyhow::Result<Vec<String>> {
        let namespace = Namespace::create(self.bench.shell, name, 1)?;
        let proxy = self.bench.proxy(name, case, self.seed)?;
        let scene = Scene::new(self.bench.shell, &namespace, proxy, case);
        let ends = scene.play(reference);
        *report = scene.order(&Order::Report).unwrap_or_default();
        ends.with_context(|| format!("the operator's last words:\n{}", scene.last_words(LOG_LINES)))
    }
}

fn tell(shell: &Shell, played: &Played, arguments: &SieveArguments) {
    let Played { case, report, seconds, .. } = played;
    let words = words_of(report);
    match &played.ends {
        Ok(_) if arguments.series.json => println!(
            "{}",
            json!({"case": case.to_string(), "seconds": seconds, "writes": report.writes.len(),
                "killed": report.killed, "oldLists": report.old_lists,
                "heldWatches": report.held_watches, "withheld": report.withheld,
                "expired": report.expired})
        ),
        Ok(_) => println!("ok    {:14} {words}  ({seconds} s)", case.to_string()),
        Err(error) => {
            println!("FAIL  {:14} {words}  ({seconds} s)\n{error:#}", case.to_string());
            show(shell, played);
        }
    }
    if arguments.writes && *case == Case::Reference {
        list_writes(report);
    }
}

fn list_writes(report: &Report) {
    for (at, written) in report.writes.iter().enumerate() {
        let mark = if written.was_fatal { "  the operator dies" } else { "" };
        println!(
            "      {:3} {:12} {} {}{mark}",
            at + 1,
            written.stage,
            written.write,
            written.code
        );
    }
}

/// Everything that helps to understand a failure.
fn show(shell: &Shell, played: &Played) {
    list_writes(&played.report);
    pair::dump(shell, &played.namespace);
}

fn words_of(report: &Report) -> String {
    let mut words = format!("{} writes, killed {} times", report.writes.len(), report.killed);
    for (number, what) in [
        (report.old_lists, "old lists"),
        (report.held_watches, "held watches"),
        (report.withheld, "events withheld"),
        (report.expired, "watches expired"),
    ] {
        if number > 0 {
            words.push_str(&format!(", {number} {what}"));
        }
    }
    words
}

fn summary(played: &[Played]) {
    let passed = played.iter().filter(|played| played.ends.is_ok()).count();
    let killed: u64 = played.iter().map(|played| played.report.killed).sum();
    println!(
        "{passed} passed, {} failed; the operator was killed {killed} times",
        played.len() - passed
    );
}
