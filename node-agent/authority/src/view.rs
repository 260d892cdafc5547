//! What one member has seen of the Lease, and when by its own clock (R4). Seeing never gives
//! authority, and never ends doubt about a write (A2.3).

use crate::{LeaseRecord, LeaseSeen, LeaseState, Timing};
use understudy_types::{Epoch, Incarnation, Moment, Span};

/// A record with the version that a compare-and-swap must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// `resourceVersion`, opaque.
    pub version: String,
    /// The record.
    pub record: LeaseRecord,
}

/// One look at the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// What was seen.
    pub versioned: Versioned,
    /// When the request was sent, for a consistent read; `None` for a watch event, which may be old.
    pub asked: Option<Moment>,
}

/// All that is known of the Lease.
#[derive(Debug, Clone, Default)]
pub struct LeaseView {
    current: Option<Versioned>,
    first_seen: Moment,
    expired: bool,
    longest: Span,
    highest: LeaseSeen,
    contact: Option<Moment>,
    regressed: bool,
    trusted: Option<LeaseRecord>,
}

impl LeaseView {
    /// Nothing seen by this process; `highest` from the control file.
    #[must_use]
    pub fn new(highest: LeaseSeen) -> Self {
        Self { highest, ..Self::default() }
    }

    /// Takes a look into account. Returns whether this version is new.
    pub fn observe(&mut self, sight: Sight, now: Moment) -> bool {
        if sight.asked.is_some() {
            self.contact = Some(now);
        }
        let order = order_of(&sight.versioned.record);
        let known = self.current.as_ref();
        if known.is_some_and(|c| c.version == sight.versioned.version) {
            self.confirm_expiry(sight.asked);
            return false;
        }
        if sight.asked.is_none() && known.is_some() && order < self.highest {
            // A watch may tell the past; only a consistent read can tell that the Lease went back.
            return false;
        }
        self.regressed = order < self.highest;
        let epoch_changed = known.is_none_or(|c| c.record.epoch != sight.versioned.record.epoch);
        let duration = Span::millis(sight.versioned.record.lease_duration_ms);
        self.longest = if epoch_changed { duration } else { self.longest.max(duration) };
        self.highest = self.highest.max(order);
        self.first_seen = now;
        self.expired = false;
        if !self.regressed {
            self.trusted = Some(sight.versioned.record.clone());
        }
        self.current = Some(sight.versioned);
        true
    }

    /// The newest version.
    #[must_use]
    pub fn current(&self) -> Option<&Versioned> {
        self.current.as_ref()
    }

    /// The newest record.
    #[must_use]
    pub fn record(&self) -> Option<&LeaseRecord> {
        self.current.as_ref().map(|c| &c.record)
    }

    /// The newest record that was not older than one before it: who is fed by whom, and whose grants count,
    /// goes on by it while the Lease is amnesiac (R21). The newest of all when there is no such record.
    #[must_use]
    pub fn trusted(&self) -> Option<&LeaseRecord> {
        self.trusted.as_ref().or(self.record())
    }

    /// Epoch on the newest record; zero before the first look.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.record().map_or(Epoch::ZERO, |r| r.epoch)
    }

    /// The process that holds the Lease now.
    #[must_use]
    pub fn holder_incarnation(&self) -> Option<Incarnation> {
        let record = self.record()?;
        match record.state {
            LeaseState::Held => record.holder.as_ref().map(|h| h.incarnation),
            LeaseState::Uninitialised
            | LeaseState::Initialising { .. }
            | LeaseState::Released
            | LeaseState::Transferring { .. } => None,
        }
    }

    /// Highest (epoch, seq) ever seen here.
    #[must_use]
    pub fn highest(&self) -> LeaseSeen {
        self.highest
    }

    /// Whether the Lease is older than what was seen before: an amnesiac voter (A1.14, R21).
    #[must_use]
    pub fn is_regressed(&self) -> bool {
        self.regressed
    }

    /// When the API server last answered.
    #[must_use]
    pub fn contact(&self) -> Option<Moment> {
        self.contact
    }

    /// When the newest version may be called expired, given that a consistent read confirms it.
    #[must_use]
    pub fn expiry(&self) -> Moment {
        match Timing::new(self.longest.as_millis()) {
            Ok(timing) if self.current.is_some() => timing.expiry(self.first_seen),
            Ok(_) | Err(_) => Moment::NEVER,
        }
    }

    /// Whether the version is expired, confirmed by a consistent read after the wait (R4).
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expired
    }

    /// Whether it is time for the consistent read that confirms the expiry.
    #[must_use]
    pub fn needs_confirmation(&self, now: Moment) -> bool {
        !self.expired && now >= self.expiry()
    }

    fn confirm_expiry(&mut self, asked: Option<Moment>) {
        if asked.is_some_and(|at| at >= self.expiry()) {
            self.expired = true;
        }
    }
}

fn order_of(record: &LeaseRecord) -> LeaseSeen {
    LeaseSeen { epoch: record.epoch, seq: record.seq }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(version: &str, epoch: u64, seq: u64, asked: Option<u64>) -> Sight {
        let mut record = LeaseRecord::uninitialised(4_000);
        record.epoch = Epoch(epoch);
        record.seq = seq;
        Sight {
            versioned: Versioned { version: version.into(), record },
            asked: asked.map(|ms| Moment(ms * 1_000_000)),
        }
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn expiry_needs_a_consistent_read_after_the_wait() {
        let mut view = LeaseView::default();
        view.observe(sight("1", 1, 1, Some(0)), at(10));
        assert!(!view.needs_confirmation(at(5_000)));
        assert!(view.needs_confirmation(at(5_200)));
        view.observe(sight("1", 1, 1, None), at(6_000));
        view.observe(sight("1", 1, 1, Some(4_900)), at(6_000));
        assert!(!view.is_expired(), "a watch event or an early read proves nothing");
        view.observe(sight("1", 1, 1, Some(5_200)), at(6_000));
        assert!(view.is_expired());
        view.observe(sight("2", 1, 2, Some(6_100)), at(6_110));
        assert!(!view.is_expired(), "a new version starts the wait again");
    }

    #[test]
    fn an_old_watch_event_is_ignored_and_an_old_read_is_a_regression() {
        let mut view = LeaseView::default();
        view.observe(sight("5", 3, 9, Some(0)), at(1));
        assert!(!view.observe(sight("4", 3, 8, None), at(2)));
        assert!(!view.is_regressed());
        assert!(view.observe(sight("9", 1, 1, Some(3)), at(4)));
        assert!(view.is_regressed());
        assert_eq!(view.epoch(), Epoch(1));
        assert_eq!(view.trusted().map(|record| record.epoch), Some(Epoch(3)));
    }
}
