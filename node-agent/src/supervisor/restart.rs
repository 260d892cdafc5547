//! When the next engine starts. Pure.

use std::time::Duration;
use understudy_types::Span;

/// Exit code of an engine that wants to be started again now: a demoted or fenced one rejoins as a new
/// incarnation.
pub const EXIT_AGAIN: i32 = 75;
/// First pause, after the second quick death.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A life at least this long was no quick death.
const LONG_LIFE: Span = Span::seconds(10);
/// Wishes in a row to be started again that are granted at once: a rejoin takes one or two.
const AGAIN_MAX: u32 = 5;

/// Counts quick deaths.
#[derive(Debug)]
pub(super) struct Restarts {
    first: Duration,
    quick: u32,
    again: u32,
}

impl Restarts {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, quick: 0, again: 0 }
    }

    /// The pause before the next start.
    pub(super) fn after(&mut self, exit_code: i32, lived: Span) -> Duration {
        if lived >= LONG_LIFE {
            (self.quick, self.again) = (0, 0);
        }
        if exit_code == EXIT_AGAIN && self.again < AGAIN_MAX {
            self.again += 1;
            return Duration::ZERO;
        }
        self.quick = self.quick.saturating_add(1);
        match self.quick {
            1 => Duration::ZERO,
            // 2^10 times the first pause is beyond the longest already.
            n => (self.first * 2u32.pow((n - 2).min(10))).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_nothing_and_quick_ones_cost_more_and_more() {
        let mut restarts = Restarts::new(PAUSE_FIRST);
        let pauses: Vec<u64> =
            (0..10).map(|_| restarts.after(137, Span::millis(5)).as_millis() as u64).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(restarts.after(137, Span::seconds(10)), Duration::ZERO, "after a long life");
    }

    #[test]
    fn a_wish_to_start_again_is_granted_at_once_but_not_for_ever() {
        let mut restarts = Restarts::new(PAUSE_FIRST);
        for _ in 0..AGAIN_MAX {
            assert_eq!(restarts.after(EXIT_AGAIN, Span::millis(5)), Duration::ZERO);
        }
        restarts.after(EXIT_AGAIN, Span::millis(5));
        assert!(restarts.after(EXIT_AGAIN, Span::millis(5)) > Duration::ZERO);
    }
}
