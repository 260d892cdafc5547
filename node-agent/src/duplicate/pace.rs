//! How fast a duplicate may go, so that it leaves the disk and the link to the commits.

use std::time::Duration;

/// Keeps a stream at or below a rate, on average since its beginning. Pure: the time enters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// `None` is as fast as it goes.
    bytes_per_second: Option<u64>,
    sent_bytes: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, sent_bytes: 0 }
    }

    /// Counts bytes that were sent, and says how long to wait when the stream has run for `elapsed`.
    pub(super) fn after(&mut self, bytes: u64, elapsed: Duration) -> Duration {
        self.sent_bytes += bytes;
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else {
            return Duration::ZERO;
        };
        Duration::from_secs_f64(self.sent_bytes as f64 / rate as f64).saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_waits_exactly_as_long_as_it_is_ahead() {
        let mut pace = Pace::new(Some(1000));
        assert_eq!(pace.after(500, Duration::ZERO), Duration::from_millis(500));
        assert_eq!(pace.after(500, Duration::from_millis(600)), Duration::from_millis(400));
        assert_eq!(pace.after(100, Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Pace::new(None).after(u64::MAX, Duration::ZERO), Duration::ZERO);
        assert_eq!(Pace::new(Some(0)).after(1 << 40, Duration::ZERO), Duration::ZERO);
    }
}
