//! What the client knows of each transaction, in the order of its sessions.

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How a transaction ended, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The server acknowledged the COMMIT.
    Acknowledged,
    /// The COMMIT was sent, and the answer did not come or said *unknown*.
    Unknown,
}

/// One transaction whose COMMIT was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Session.
    pub session: u16,
    /// Its number in the session.
    pub number: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// A time without any acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Milliseconds from the start of the run to the last acknowledgement before it.
    pub at_ms: u64,
    /// Its length.
    pub ms: u64,
}

/// A finished run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The run's number, part of every key.
    pub run: i64,
    /// Every transaction whose COMMIT was sent.
    pub sent: Vec<Sent>,
    /// Errors before any COMMIT was sent: nothing can have happened.
    pub errors: u64,
    /// Sessions that were opened again.
    pub reconnects: u64,
    /// Gaps of at least `Shared::GAP_MS_MIN`, longest first.
    pub gaps: Vec<Gap>,
    /// Commit latency in microseconds, median.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Length of the run in milliseconds.
    pub elapsed_ms: u64,
    /// The last errors in words, at most 8.
    pub last_errors: Vec<String>,
}

impl Record {
    /// Reads a file written by [`Record::write`].
    ///
    /// # Errors
    /// When there is none, or it is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display()))
    }

    /// Writes the run to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(Debug)]
struct Inner {
    sent: Vec<Sent>,
    errors: u64,
    reconnects: u64,
    gaps: Vec<Gap>,
    last: Option<Instant>,
    latency: Histogram<u64>,
    last_errors: Vec<String>,
    told: usize,
}

/// The run as its sessions write it.
#[derive(Debug)]
pub(crate) struct Shared {
    begun: Instant,
    inner: Mutex<Inner>,
}

impl Shared {
    /// Shortest time without an acknowledgement that is noted.
    pub(crate) const GAP_MS_MIN: u64 = 50;
    /// Most gaps kept.
    const GAPS_MAX: usize = 64;
    /// Most errors kept in words.
    const ERRORS_MAX: usize = 8;

    /// An empty run that began at `begun`.
    #[must_use]
    pub(crate) fn new(begun: Instant) -> Self {
        let latency =
            Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order");
        let inner = Inner {
            sent: Vec::new(),
            errors: 0,
            reconnects: 0,
            gaps: Vec::new(),
            last: None,
            latency,
            last_errors: Vec::new(),
            told: 0,
        };
        Self { begun, inner: Mutex::new(inner) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner, Instant) -> T) -> T {
        let mut inner = self.inner.lock().expect("no session panics while it notes");
        change(&mut inner, self.begun)
    }

    /// A COMMIT was acknowledged after `took`.
    pub(crate) fn acknowledged(&self, session: u16, number: u64, took: Duration) {
        self.with(|inner, begun| {
            let now = Instant::now();
            inner.sent.push(Sent { session, number, outcome: Outcome::Acknowledged });
            let _ =
                inner.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
            note_gap(inner, begun, now);
            inner.last = Some(now);
        });
    }

    /// A COMMIT was sent and how it ended is not known.
    pub(crate) fn unknown(&self, session: u16, number: u64, error: &str) {
        self.with(|inner, _| {
            inner.sent.push(Sent { session, number, outcome: Outcome::Unknown });
            note(inner, error);
        });
    }

    /// Something failed before a COMMIT was sent.
    pub(crate) fn failed(&self, error: &str) {
        self.with(|inner, _| {
            inner.errors += 1;
            note(inner, error);
        });
    }

    /// A session was opened again.
    pub(crate) fn reconnected(&self) {
        self.with(|inner, _| inner.reconnects += 1);
    }

    /// One line about the time since the last line.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        self.with(|inner, begun| {
            let new = inner.sent.len() - inner.told;
            inner.told = inner.sent.len();
            let silent = inner.last.map_or(0, |l| l.elapsed().as_millis());
            format!(
                "{:6.1} s  {new:6} commits  {} unknown  {} errors  longest gap {} ms  silent {silent} ms",
                begun.elapsed().as_secs_f64(),
                inner.sent.iter().filter(|s| s.outcome == Outcome::Unknown).count(),
                inner.errors,
                inner.gaps.first().map_or(0, |g| g.ms),
            )
        })
    }

    /// The finished run, whose writing was to end at `end`: silence until then is a gap too.
    #[must_use]
    pub(crate) fn take(&self, run: i64, end: Instant) -> Record {
        self.with(|inner, begun| {
            note_gap(inner, begun, end);
            Record {
                run,
                sent: std::mem::take(&mut inner.sent),
                errors: inner.errors,
                reconnects: inner.reconnects,
                gaps: std::mem::take(&mut inner.gaps),
                p50_us: inner.latency.value_at_quantile(0.5),
                p99_us: inner.latency.value_at_quantile(0.99),
                elapsed_ms: begun.elapsed().as_millis() as u64,
                last_errors: std::mem::take(&mut inner.last_errors),
            }
        })
    }
}

/// Notes the time from the last acknowledgement, or from the beginning, to `now`.
fn note_gap(inner: &mut Inner, begun: Instant, now: Instant) {
    let last = inner.last.unwrap_or(begun);
    let ms = now.saturating_duration_since(last).as_millis() as u64;
    if ms >= Shared::GAP_MS_MIN {
        let at_ms = last.duration_since(begun).as_millis() as u64;
        inner.gaps.push(Gap { at_ms, ms });
        inner.gaps.sort_by_key(|g| std::cmp::Reverse(g.ms));
        inner.gaps.truncate(Shared::GAPS_MAX);
    }
}

fn note(inner: &mut Inner, error: &str) {
    if inner.last_errors.len() == Shared::ERRORS_MAX {
        inner.last_errors.remove(0);
    }
    inner.last_errors.push(error.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_until_the_end_is_a_gap() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let silent = Shared::new(begun).take(1, after(3_000));
        assert_eq!(silent.gaps, [Gap { at_ms: 0, ms: 3_000 }]);
        let shared = Shared::new(begun);
        shared.with(|inner, _| inner.last = Some(after(1_000)));
        assert_eq!(shared.take(1, after(3_000)).gaps, [Gap { at_ms: 1_000, ms: 2_000 }]);
        shared.with(|inner, _| inner.last = Some(after(2_999)));
        assert!(shared.take(1, after(3_000)).gaps.is_empty());
    }
}
