//! `stall`: what a checkpoint adds to commits, measured: the latency of one-row updates on a large
//! database while nothing else happens, and while one checkpoint after the other is taken. No test, a
//! report.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use understudy_tests::alone::Place;

/// Rows of one statement while the table is filled.
const CHUNK: u32 = 50_000;

/// Measures how long commits take with and without checkpoints.
#[derive(Debug, Parser)]
#[command(name = "stall")]
struct Arguments {
    /// Rows of the table
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// Sessions that commit
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    sessions: u32,
    /// Fewest seconds of each half; the second lasts for three checkpoints at least
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What a commit waits for
    #[arg(long, value_enum, default_value_t = Durability::LocalDisk)]
    durability: Durability,
    /// One line of JSON instead of the report
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Durability {
    LocalDisk,
    Memory,
}

/// Latencies of one half, in milliseconds.
#[derive(Debug, Serialize)]
struct Half {
    commits: usize,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// Both halves.
#[derive(Debug, Serialize)]
struct Report {
    rows: u32,
    sessions: u32,
    without: Half,
    with: Half,
    checkpoints: usize,
    /// The longest of them.
    checkpoint_max_ms: f64,
    /// What a checkpoint added to the longest commit.
    longest_stall_ms: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().context("no threads");
    match runtime.and_then(|runtime| runtime.block_on(run(&arguments))) {
        Ok(report) => {
            print(&report, arguments.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("stall: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let durability = match arguments.durability {
        Durability::LocalDisk => "local-disk",
        Durability::Memory => "memory",
    };
    let options = ["--memory", "3Gi", "--log-size", "8Gi", "--durability", durability];
    let place = Arc::new(Place::new(&options)?);
    let mut alone = place.start()?;
    fill(&place, arguments.rows).await?;
    let (without, _) = half(&place, arguments, false).await?;
    let (with, checkpoints) = half(&place, arguments, true).await?;
    alone.stop()?;
    Ok(Report {
        rows: arguments.rows,
        sessions: arguments.sessions,
        longest_stall_ms: (with.max_ms - without.max_ms).max(0.0),
        without,
        with,
        checkpoints: checkpoints.len(),
        checkpoint_max_ms: checkpoints.into_iter().map(in_ms).fold(0.0, f64::max),
    })
}

async fn fill(place: &Place, rows: u32) -> anyhow::Result<()> {
    let client = place.connect().await?;
    client
        .batch_execute("CREATE TABLE t (k integer PRIMARY KEY, n bigint NOT NULL, v text NOT NULL)")
        .await?;
    let mut next = 1;
    while next <= rows {
        let last = (next + CHUNK - 1).min(rows);
        let sql = format!(
            "INSERT INTO t SELECT i, 0, repeat('x', 84) FROM generate_series({next}, {last}) AS g (i)"
        );
        client.batch_execute(&sql).await?;
        next = last + 1;
    }
    client.batch_execute("CALL ttCkpt()").await?;
    Ok(())
}

/// Latencies of all commits of a half, and of its checkpoints.
async fn half(
    place: &Arc<Place>,
    arguments: &Arguments,
    takes: bool,
) -> anyhow::Result<(Half, Vec<Duration>)> {
    let ends = Arc::new(AtomicBool::new(false));
    let sessions: Vec<_> = (0..arguments.sessions)
        .map(|n| tokio::spawn(session(Arc::clone(place), n, arguments.rows, Arc::clone(&ends))))
        .collect();
    let begun = Instant::now();
    let least = Duration::from_secs(arguments.seconds);
    let mut checkpoints = Vec::new();
    if takes {
        let client = place.connect().await?;
        while begun.elapsed() < least || checkpoints.len() < 3 {
            let from = Instant::now();
            client.batch_execute("CALL ttCkpt()").await?;
            checkpoints.push(from.elapsed());
        }
    } else {
        tokio::time::sleep(least).await;
    }
    ends.store(true, Relaxed);
    let mut latencies = Vec::new();
    for session in sessions {
        latencies.extend(session.await??);
    }
    latencies.sort_unstable();
    anyhow::ensure!(!latencies.is_empty(), "nothing was committed");
    let share = |of: f64| in_ms(latencies[((latencies.len() - 1) as f64 * of) as usize]);
    let half = Half {
        commits: latencies.len(),
        p50_ms: share(0.5),
        p99_ms: share(0.99),
        p999_ms: share(0.999),
        max_ms: share(1.0),
    };
    Ok((half, checkpoints))
}

async fn session(
    place: Arc<Place>,
    number: u32,
    rows: u32,
    ends: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let client = place.connect().await?;
    let update = client.prepare("UPDATE t SET n = n + 1 WHERE k = $1").await?;
    let mut random = StdRng::seed_from_u64(number.into());
    let mut latencies = Vec::new();
    while !ends.load(Relaxed) {
        let row = i32::try_from(random.random_range(1..=rows))?;
        let from = Instant::now();
        client.execute(&update, &[&row]).await?;
        latencies.push(from.elapsed());
    }
    Ok(latencies)
}

fn in_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print(report: &Report, json: bool) {
    if json {
        println!("{}", serde_json::to_string(report).expect("a report is plain data"));
        return;
    }
    println!("{} rows, {} sessions", report.rows, report.sessions);
    for (name, half) in [("without", &report.without), ("with", &report.with)] {
        let Half { commits, p50_ms, p99_ms, p999_ms, max_ms } = half;
        println!(
            "{name} checkpoints: {commits} commits, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, \
             p99.9 {p999_ms:.2} ms, max {max_ms:.2} ms"
        );
    }
    let Report { checkpoints, checkpoint_max_ms, longest_stall_ms, .. } = report;
    println!("{checkpoints} checkpoints, the longest took {checkpoint_max_ms:.0} ms");
    println!("longest stall added: {longest_stall_ms:.2} ms");
}
