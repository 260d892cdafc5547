//! The end of a run: every remembered commit is looked for.

use super::{
    record::{Gap, Outcome, Record},
    target::Target,
};
use anyhow::Context;
use serde::Serialize;
use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};
use tokio_postgres::Client;

/// How long to try to reach the database for the verification.
const REACH_MAX: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Acknowledged and there.
    pub found: u64,
    /// Acknowledged and not there, as (session, number): lost.
    pub lost: Vec<(u16, u64)>,
    /// Unknown, and there: committed.
    pub unknown_committed: u64,
    /// Unknown, and not there: rolled back.
    pub unknown_rolled_back: u64,
    /// Whether every account's balance is the sum of its history: no half transaction.
    pub is_whole: bool,
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Acknowledged commits.
    pub acknowledged: u64,
    /// Commits whose outcome the client does not know.
    pub unknown: u64,
    /// Errors before any COMMIT.
    pub errors: u64,
    /// Sessions opened again.
    pub reconnects: u64,
    /// Longest time without an acknowledgement, in milliseconds.
    pub longest_gap_ms: u64,
    /// The gaps, longest first.
    pub gaps: Vec<Gap>,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Length of the run in milliseconds.
    pub elapsed_ms: u64,
    /// What was found.
    pub verdict: Verdict,
    /// Last errors in words.
    pub last_errors: Vec<String>,
}

impl Report {
    /// Of a record and what was found for it.
    #[must_use]
    pub fn new(record: &Record, verdict: Verdict) -> Self {
        let count = |outcome| record.sent.iter().filter(|s| s.outcome == outcome).count() as u64;
        Self {
            acknowledged: count(Outcome::Acknowledged),
            unknown: count(Outcome::Unknown),
            errors: record.errors,
            reconnects: record.reconnects,
            longest_gap_ms: record.gaps.first().map_or(0, |g| g.ms),
            gaps: record.gaps.clone(),
            p50_us: record.p50_us,
            p99_us: record.p99_us,
            elapsed_ms: record.elapsed_ms,
            verdict,
            last_errors: record.last_errors.clone(),
        }
    }

    /// Nothing acknowledged is missing, and nothing is half there.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.lost.is_empty() && self.verdict.is_whole
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.verdict;
        writeln!(
            f,
            "{} acknowledged, {} found, {} lost; {} unknown: {} committed, {} rolled back; balances {}",
            self.acknowledged,
            v.found,
            v.lost.len(),
            self.unknown,
            v.unknown_committed,
            v.unknown_rolled_back,
            if v.is_whole { "match" } else { "DO NOT MATCH" },
        )?;
        write!(
            f,
            "longest gap {} ms, {} reconnects, {} errors, latency p50 {} µs p99 {} µs",
            self.longest_gap_ms, self.reconnects, self.errors, self.p50_us, self.p99_us
        )?;
        for error in &self.last_errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

/// Looks for every transaction of the record.
pub(crate) async fn verify(target: &Target, record: &Record) -> anyhow::Result<Verdict> {
    let client = reach(target).await?;
    let query =
        format!("SELECT session, number FROM understudy_demo_history WHERE run = {}", record.run);
    let rows = client.query(&query, &[]).await.context("cannot read the history")?;
    let there: HashSet<(i32, i64)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let mut verdict = Verdict { is_whole: is_whole(&client).await?, ..Verdict::default() };
    for sent in &record.sent {
        let is_there = there.contains(&(i32::from(sent.session), sent.number as i64));
        match (sent.outcome, is_there) {
            (Outcome::Acknowledged, true) => verdict.found += 1,
            (Outcome::Acknowledged, false) => verdict.lost.push((sent.session, sent.number)),
            (Outcome::Unknown, true) => verdict.unknown_committed += 1,
            (Outcome::Unknown, false) => verdict.unknown_rolled_back += 1,
        }
    }
    Ok(verdict)
}

/// Balances and history come from one snapshot: two statements would see two moments.
async fn is_whole(client: &Client) -> anyhow::Result<bool> {
    let query = "SELECT \
          (SELECT CAST(coalesce(sum(balance), 0) AS bigint) FROM understudy_demo_accounts), \
          (SELECT CAST(coalesce(sum(delta), 0) AS bigint) FROM understudy_demo_history)";
    let row = client.query_one(query, &[]).await.context("cannot sum the balances")?;
    let (balances, deltas): (i64, i64) = (row.get(0), row.get(1));
    Ok(balances == deltas)
}

async fn reach(target: &Target) -> anyhow::Result<Client> {
    let end = Instant::now() + REACH_MAX;
    loop {
        match target.connect().await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= end => {
                return Err(error.context("the database was not reached for 60 s"));
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            run: 1,
            sent: vec![],
            errors: 0,
            reconnects: 0,
            gaps: vec![Gap { at_ms: 5, ms: 700 }],
            p50_us: 1,
            p99_us: 2,
            elapsed_ms: 3,
            last_errors: vec![],
        }
    }

    #[test]
    fn a_lost_commit_or_a_half_one_makes_the_report_dirty() {
        let whole = Verdict { is_whole: true, ..Verdict::default() };
        assert!(Report::new(&record(), whole.clone()).is_clean());
        let lost = Verdict { lost: vec![(0, 1)], ..whole };
        assert!(!Report::new(&record(), lost).is_clean());
        assert!(!Report::new(&record(), Verdict::default()).is_clean());
    }

    #[test]
    fn the_report_names_the_longest_gap() {
        let text = Report::new(&record(), Verdict::default()).to_string();
        assert!(text.contains("longest gap 700 ms"), "{text}");
    }
}
