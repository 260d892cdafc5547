//! The one clock that authority is counted on. Only lengths of time on this machine are ever compared,
//! never two clocks (R4); the wall clock in `renewTime` is for people.

use rustix::time::{ClockId, clock_gettime};
use understudy_types::Moment;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// CLOCK_BOOTTIME of this machine: goes on while the machine sleeps, never jumps when the wall clock is
/// set.
#[must_use]
pub fn boot_time() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    Moment(seconds * NANOS_PER_SECOND + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut last = boot_time();
        for _ in 0..10_000 {
            let now = boot_time();
            assert!(now >= last);
            last = now;
        }
        assert!(last > Moment::ZERO);
    }
}
