//! `understudy demo`: the recorder. Sessions run a TPC-B-like transaction; every acknowledgement is
//! remembered, gaps are measured at the client, and at the end each remembered commit is looked for.
//!
//! What it proves: an acknowledged transaction is there whole (its history row, and its part in the
//! account's balance); one whose outcome was unknown is there whole or absent.
//!
//! **Invariants.** 1. A key is noted as *sent* before its COMMIT leaves and as *acknowledged* only after
//! the server said so. 2. Every key is used once. 3. The count of sessions and the time are bounded.

mod record;
mod report;
mod session;
mod target;

pub use record::{Outcome, Record};
pub use report::{Report, Verdict};
pub use session::{is_rolled_back, recover};
pub use target::Direct;
pub(crate) use target::Target;

use crate::cluster::PairArguments;
use anyhow::Context;
use clap::Args;
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// Most sessions.
const SESSIONS_MAX: u16 = 64;

/// `understudy demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    #[command(flatten)]
    pair: Option<PairArguments>,
    /// Connect to this libpq URI (several hosts allowed) instead of through the API server. One with a
    /// password belongs into the variable, where no list of processes shows it
    #[arg(long, env = "UNDERSTUDY_URI", hide_env_values = true, conflicts_with = "pair")]
    uri: Option<String>,
    /// Certificate authority of the server, PEM; for --uri
    #[arg(long, requires = "uri")]
    ca: Option<PathBuf>,
    /// How long to write
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Sessions at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions: u16,
    /// Accounts in the demo's table
    #[arg(long, default_value_t = 1000)]
    accounts: u32,
    /// One JSON object at the end instead of the report
    #[arg(long)]
    json: bool,
    /// Keep every key with its outcome in this file
    #[arg(long)]
    record: Option<PathBuf>,
    /// Write nothing: look for the keys of --record again
    #[arg(long, requires = "record")]
    verify: bool,
}

/// Runs the load and verifies it; the exit code tells whether anything acknowledged is missing.
pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let target = Arc::new(target(&arguments).await?);
    let record = if arguments.verify {
        let path = arguments.record.as_deref().context("--verify needs --record")?;
        Record::read(path)?
    } else {
        write(&arguments, &target).await?
    };
    let verdict = report::verify(&target, &record).await?;
    let report = Report::new(&record, verdict);
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

async fn target(arguments: &DemoArguments) -> anyhow::Result<Target> {
    match (&arguments.uri, &arguments.pair) {
        (Some(uri), _) => Target::by_uri(uri, arguments.ca.as_deref()),
        (None, Some(pair)) => Target::by_cluster(pair).await,
        (None, None) => anyhow::bail!("name a pair, or give --uri"),
    }
}

async fn write(arguments: &DemoArguments, target: &Arc<Target>) -> anyhow::Result<Record> {
    let sessions = arguments.sessions.min(SESSIONS_MAX);
    target.prepare(arguments.accounts).await?;
    let record = Arc::new(record::Shared::new(Instant::now()));
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let run = session::run_id();
    let tasks: Vec<_> = (0..sessions)
        .map(|n| {
            let settings = session::Settings { run, session: n, accounts: arguments.accounts, end };
            tokio::spawn(session::run(Arc::clone(target), settings, Arc::clone(&record)))
        })
        .collect();
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        if !arguments.json {
            println!("{}", record.line());
        }
    }
    for task in tasks {
        task.await?;
    }
    let record = record.take(run, end);
    if let Some(path) = &arguments.record {
        record.write(path)?;
    }
    Ok(record)
}
