//! Points and lengths of time as plain numbers, so that pure code can reason about deadlines.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};

/// A reading of this machine's own CLOCK_BOOTTIME, in nanoseconds. Comparable only with readings of
/// the same machine since the same boot; never sent to another member as a time to act on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

/// A length of time in nanoseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Moment {
    /// The earliest reading; a deadline that has always passed.
    pub const ZERO: Moment = Moment(0);
    /// A deadline that never passes.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// How long until `later`; zero when it has passed.
    #[must_use]
    pub const fn until(self, later: Moment) -> Span {
        Span(later.0.saturating_sub(self.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// From milliseconds.
    #[must_use]
    pub const fn millis(ms: u64) -> Span {
        Span(ms * 1_000_000)
    }

    /// From whole seconds.
    #[must_use]
    pub const fn seconds(s: u64) -> Span {
        Span(s * 1_000_000_000)
    }

    /// In whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Multiplied by `numerator / denominator`, rounded up; `denominator` is not zero.
    #[must_use]
    pub const fn scaled(self, numerator: u64, denominator: u64) -> Span {
        Span((self.0 * numerator).div_ceil(denominator))
    }
}

impl Add<Span> for Moment {
    type Output = Moment;
    fn add(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Moment {
    type Output = Moment;
    fn sub(self, span: Span) -> Moment {
        Moment(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        std::time::Duration::from_nanos(span.0)
    }
}
