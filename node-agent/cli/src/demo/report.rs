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
use tokio::time::sleep;
use tokio_postgres::{Client, Error};

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
    let (there, is_whole) = read(target, record.run).await?;
    let mut verdict = Verdict { is_whole, ..Verdict::default() };
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

/// The run's transactions as (session, number), and whether the balances match: all from one session. A
/// member that hands over meanwhile ends the session, and the next one is asked from the start.
async fn read(target: &Target, run: i64) -> anyhow::Result<(HashSet<(i32, i64)>, bool)> {
    let end = Instant::now() + REACH_MAX;
    loop {
        let client = reach(target, end).await?;
        match tokio::try_join!(history(&client, run), is_whole(&client)) {
            Ok(found) => return Ok(found),
            Err(error) if is_of_session(&error) && Instant::now() < end => sleep(AGAIN).await,
            Err(error) => return Err(error).context("cannot read what the run wrote"),
        }
    }
}

/// Whether an error is the session's end, and says nothing about the statement: no answer at all, or a
/// server that goes (SQLSTATE class 57, "operator intervention").
fn is_of_session(error: &Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57"))
}

async fn history(client: &Client, run: i64) -> Result<HashSet<(i32, i64)>, Error> {
    let query = format!("SELECT session, number FROM understudy_demo_history WHERE run = {run}");
    let rows = client.query(&query, &[]).await?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// Balances and history come from one snapshot: two statements would see two moments.
async fn is_whole(client: &Client) -> Result<bool, Error> {
    let query = "SELECT \
          (SELECT CAST(coalesce(sum(balance), 0) AS bigint) FROM understudy_demo_accounts), \
          (SELECT CAST(coalesce(sum(delta), 0) AS bigint) FROM understudy_demo_history)";
    let row = client.query_one(query, &[]).await?;
    let (balances, deltas): (i64, i64) = (row.get(0), row.get(1));
    Ok(balances == deltas)
}

async fn reach(target: &Target, end: Instant) -> anyhow::Result<Client> {
    loop {
        match target.connect().await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= end => {
                return Err(error.context("the database was not reached for 60 s"));
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_postgres::NoTls;

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

    /// What a client says when the server answers its first message with `answer` and hangs up.
    async fn error_of(answer: &'static [u8]) -> Error {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("it is bound");
        let serve = async {
            let (mut client, _) = server.accept().await.expect("a client");
            client.read_buf(&mut Vec::new()).await.expect("it speaks first");
            client.write_all(answer).await.expect("it listens");
        };
        let uri = format!("postgresql://nobody@{address}/none?sslmode=disable");
        let connect = tokio_postgres::connect(&uri, NoTls);
        let ((), connected) = tokio::join!(serve, connect);
        connected.err().expect("no session is given")
    }

    #[tokio::test]
    async fn a_session_that_ended_is_read_again_and_a_refused_statement_is_not() {
        assert!(is_of_session(&error_of(b"").await));
        assert!(is_of_session(&error_of(b"E\0\0\0\x1aSFATAL\0C57P01\0Mgoing\0\0").await));
        assert!(!is_of_session(&error_of(b"E\0\0\0\x1aSERROR\0C42P01\0Mwhich\0\0").await));
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
