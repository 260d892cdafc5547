//! How old the oldest record is that the standby lacks, judged from a few looks at the log's end.

use std::collections::VecDeque;
use understudy_types::{Lsn, MaxLoss, Moment, Span};

/// Looks within the longest allowed age.
const LOOKS: u64 = 8;

/// Ends of the log at some moments, oldest first; never more than two beyond [`LOOKS`].
#[derive(Debug, Default)]
pub(crate) struct Lag(VecDeque<(Moment, Lsn)>);

impl Lag {
    /// Takes a look, if it is time for one.
    pub(crate) fn note(&mut self, end: Lsn, most: MaxLoss, now: Moment) {
        let age = Span::millis(most.millis);
        let apart = Span::millis(most.millis / LOOKS);
        if self.0.back().is_none_or(|(at, _)| now.since(*at) >= apart) {
            self.0.push_back((now, end));
        }
        // The newest look that is too old stays: what came after it may be too old as well.
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= age) {
            self.0.pop_front();
        }
    }

    /// Whether everything older than allowed is received, with certainty: up to the first look that is
    /// not too old.
    pub(crate) fn is_within(&self, received: Lsn, most: MaxLoss, now: Moment) -> bool {
        let age = Span::millis(most.millis);
        let young = self.0.iter().find(|(at, _)| now.since(*at) < age);
        young.is_some_and(|(_, end)| received >= *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: MaxLoss = MaxLoss { commits: 100, millis: 800 };

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn a_standby_is_within_until_what_it_lacks_is_too_old() {
        let mut lag = Lag::default();
        for ms in (0..=500).step_by(20) {
            lag.note(Lsn(10), MOST, at(ms));
        }
        assert!(lag.is_within(Lsn(10), MOST, at(500)));
        // Ten more records at 510 ms, which the standby never gets.
        for ms in (520..=1_280).step_by(20) {
            lag.note(Lsn(20), MOST, at(ms));
            assert!(lag.is_within(Lsn(20), MOST, at(ms)));
        }
        assert!(lag.is_within(Lsn(10), MOST, at(1_180)));
        assert!(!lag.is_within(Lsn(10), MOST, at(1_310)), "they are 800 ms old by now");
    }

    #[test]
    fn nothing_is_within_before_the_first_look_and_after_a_standstill() {
        let mut lag = Lag::default();
        assert!(!lag.is_within(Lsn(10), MOST, at(0)));
        lag.note(Lsn(10), MOST, at(0));
        assert!(!lag.is_within(Lsn(10), MOST, at(5_000)), "nobody looked for five seconds");
    }

    #[test]
    fn few_looks_are_kept() {
        let mut lag = Lag::default();
        for ms in 0..10_000 {
            lag.note(Lsn(ms), MOST, at(ms));
        }
        assert!(lag.0.len() <= LOOKS as usize + 2, "{}", lag.0.len());
    }
}
