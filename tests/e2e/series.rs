//! What the long runs have in common: a seed that can be given again, an end by time, and JSON.

use clap::Args;
use std::time::{Duration, Instant};

/// Options of `tests/chaos/run` and `tests/sieve/run`.
#[derive(Debug, Args)]
pub(crate) struct Series {
    /// Picks what is left to chance; printed, so that a run can be had again
    #[arg(long)]
    seed: Option<u64>,
    /// Begin no run after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// One JSON object a run
    #[arg(long)]
    pub(crate) json: bool,
}

impl Series {
    /// The one that was given, or another one for each process.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| u64::from(std::process::id()))
    }

    /// When the last run may begin, counted from now; `None`: they end by number.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60))
    }
}
