//! The clocks of this process. Authority is counted on [`now`] alone (R4–R6a); the wall clock is for
//! people and for noticing that time itself was tampered with (A1.6).

use rustix::time::{ClockId, clock_gettime};
use understudy_types::{Moment, Span};

/// CLOCK_BOOTTIME: the only clock that deadlines are counted on. One system call without a lock.
#[must_use]
pub fn now() -> Moment {
    understudy_lease::boot_time()
}

/// The wall clock, for logs, status and the Lease's `renewTime`; nothing is decided by it.
#[must_use]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A jump of the wall clock against [`now`] larger than this ends authority until one fresh renewal
/// or grant: the machine may have been stopped, moved or restored (A1.6).
pub const JUMP_MAX: Span = Span::millis(100);

/// Notices jumps between the two clocks. A set wall clock looks the same as a stopped machine: both
/// cost one renewal, and neither is worth telling apart.
#[derive(Debug, Clone, Copy)]
pub struct JumpWatch {
    difference: i128,
}

/// A jump, in nanoseconds; positive when the wall clock went ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump(pub i128);

impl JumpWatch {
    /// Begins with the clocks as they are.
    #[must_use]
    pub fn start() -> Self {
        Self { difference: difference(now(), wall_nanos()) }
    }

    /// Looks again; `Some` once per jump.
    pub fn look(&mut self) -> Option<Jump> {
        self.judge(now(), wall_nanos())
    }

    fn judge(&mut self, now: Moment, wall: i128) -> Option<Jump> {
        let next = difference(now, wall);
        let jump = next - self.difference;
        self.difference = next;
        (jump.unsigned_abs() > u128::from(JUMP_MAX.0)).then_some(Jump(jump))
    }
}

fn difference(now: Moment, wall: i128) -> i128 {
    wall - i128::from(now.0)
}

fn wall_nanos() -> i128 {
    let time = clock_gettime(ClockId::Realtime);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_once_and_drift_is_not_a_jump() {
        let ms = |count: i128| count * 1_000_000;
        let mut watch = JumpWatch { difference: 0 };
        assert_eq!(watch.judge(Moment(0), ms(99)), None);
        // One look later, the rest of a slow drift: judged from the last look, not from the start.
        assert_eq!(watch.judge(Moment(0), ms(198)), None);
        assert_eq!(watch.judge(Moment(0), ms(400)), Some(Jump(ms(202))));
        assert_eq!(watch.judge(Moment(0), ms(400)), None);
        assert_eq!(watch.judge(Moment(ms(500) as u64), ms(400)), Some(Jump(-ms(500))));
    }

    #[test]
    fn clocks_left_alone_do_not_jump() {
        let mut watch = JumpWatch::start();
        assert_eq!(watch.look(), None);
    }
}
