//! Deadlines of authority, all on one member's own clock (R4–R6). No two clocks are ever compared;
//! only their *rates* are assumed to agree within 10 %, hence the factor F = 1.25.

use understudy_types::{Moment, Span};

/// The times of one pair, all derived from D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Span,
}

/// Why a lease duration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lease of {0} ms is out of range: write 3000 to 60000")]
pub struct TimingError(pub u64);

impl Timing {
    /// Shortest D in milliseconds.
    pub const LEASE_MS_MIN: u64 = 3_000;
    /// Longest D in milliseconds.
    pub const LEASE_MS_MAX: u64 = 60_000;

    /// From D in milliseconds.
    ///
    /// # Errors
    /// When D is out of range.
    pub const fn new(lease_duration_ms: u64) -> Result<Self, TimingError> {
        if lease_duration_ms < Self::LEASE_MS_MIN || lease_duration_ms > Self::LEASE_MS_MAX {
            return Err(TimingError(lease_duration_ms));
        }
        Ok(Self { lease: Span::millis(lease_duration_ms) })
    }

    /// D, which is also T: how long a renewal or a grant lasts.
    #[must_use]
    pub const fn lease(self) -> Span {
        self.lease
    }

    /// g = max(50 ms, D/50): kept away from the end by the one who has authority.
    #[must_use]
    pub fn guard(self) -> Span {
        Span::millis(50).max(self.lease.scaled(1, 50))
    }

    /// F·`span`: how long somebody else must wait for what lasts `span` here.
    #[must_use]
    pub const fn stretched(span: Span) -> Span {
        span.scaled(5, 4)
    }

    /// End of authority that rests on a request sent at `sent` and confirmed since (R4, R5).
    #[must_use]
    pub fn authority_end(self, sent: Moment) -> Moment {
        sent + self.lease - self.guard()
    }

    /// When an observer that first saw a version at `seen` may call it expired (R4).
    #[must_use]
    pub fn expiry(self, seen: Moment) -> Moment {
        seen + Self::stretched(self.lease) + self.guard()
    }

    /// How long a grant decided now is outstanding (R5).
    #[must_use]
    pub fn grant_out(self, decided: Moment) -> Moment {
        decided + Self::stretched(self.lease)
    }

    /// Longest time between two renewals: D/5.
    #[must_use]
    pub const fn renew_every(self) -> Span {
        self.lease.scaled(1, 5)
    }

    /// Time between two heartbeats: min(T/10, 200 ms).
    #[must_use]
    pub fn heartbeat_every(self) -> Span {
        Span::millis(200).min(self.lease.scaled(1, 10))
    }

    /// Oldest log probe with which a member still speaks for its data path: D/2 (A1.10).
    #[must_use]
    pub const fn probe_age_max(self) -> Span {
        self.lease.scaled(1, 2)
    }

    /// How long a member that lost authority sends no Lease write (R4): 2·D.
    #[must_use]
    pub const fn yield_time(self) -> Span {
        self.lease.scaled(2, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observer_always_waits_longer_than_the_holder_serves() {
        for ms in [3_000, 4_000, 60_000] {
            let timing = Timing::new(ms).unwrap();
            let sent = Moment(1_000_000_000);
            // The holder's clock runs 10 % slow, the observer's 10 % fast: 0.9 against 1.1.
            let holder_real = timing.authority_end(sent).since(sent).0 as f64 / 0.9;
            let observer_real = timing.expiry(sent).since(sent).0 as f64 / 1.1;
            assert!(holder_real < observer_real, "D = {ms} ms");
        }
    }

    #[test]
    fn a_lease_out_of_range_is_refused() {
        assert_eq!(Timing::new(2_999), Err(TimingError(2_999)));
        assert_eq!(Timing::new(60_001), Err(TimingError(60_001)));
    }
}
