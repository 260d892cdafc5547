//! Whether followers keep up: their distances, sampled, and judged once a minute. Pure.

use understudy_agent_api::Notice;
use understudy_types::{MemberName, Moment, Span};

/// Time between two samples.
const SAMPLE_EVERY: Span = Span::seconds(10);
/// Samples of a minute, its first moment included.
const SAMPLES: usize = 7;
/// Records that are on their way to any follower under load.
const USUAL: u64 = 1_000;

/// How far each follower is behind, over the last minute.
#[derive(Debug, Default)]
pub(super) struct Distances {
    sampled: Option<Moment>,
    followers: Vec<Distance>,
}

#[derive(Debug)]
struct Distance {
    follower: MemberName,
    /// Growing from each to the next.
    samples: Vec<u64>,
    notice: Option<Notice>,
}

impl Distances {
    /// Takes a sample of all followers when one is due: names, and how many records each is behind.
    pub(super) fn look(&mut self, now: Moment, places: &[(MemberName, u64)]) {
        if self.sampled.is_some_and(|at| now.since(at) < SAMPLE_EVERY) {
            return;
        }
        self.sampled = Some(now);
        self.followers.retain(|known| places.iter().any(|(name, _)| *name == known.follower));
        for (follower, records) in places {
            match self.followers.iter_mut().find(|known| known.follower == *follower) {
                Some(known) => known.take(*records),
                None => self.followers.push(Distance {
                    follower: follower.clone(),
                    samples: vec![*records],
                    notice: None,
                }),
            }
        }
    }

    /// Who has fallen behind for a whole minute.
    pub(super) fn notices(&self) -> Vec<Notice> {
        self.followers.iter().filter_map(|known| known.notice.clone()).collect()
    }
}

impl Distance {
    fn take(&mut self, records: u64) {
        let grows = self.samples.last().is_some_and(|last| records > *last);
        if !grows || records <= USUAL {
            self.samples = vec![records];
            self.notice = None;
            return;
        }
        self.samples.push(records);
        if self.samples.len() == SAMPLES {
            let follower = self.follower.clone();
            let grown = records - self.samples[0];
            self.notice = Some(Notice::FallingBehind { follower, records, grown });
            self.samples = vec![records];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby() -> MemberName {
        MemberName::new("orders-2").expect("a name")
    }

    fn watched(distances: &[u64]) -> Distances {
        let mut watched = Distances::default();
        for (n, records) in distances.iter().enumerate() {
            let now = Moment::ZERO + Span::seconds(10 * n as u64);
            watched.look(now, &[(standby(), *records)]);
        }
        watched
    }

    #[test]
    fn a_follower_that_falls_back_for_a_minute_is_told_with_its_figures() {
        let told = watched(&[2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 9_000]).notices();
        let follower = standby();
        assert_eq!(told, [Notice::FallingBehind { follower, records: 9_000, grown: 7_000 }]);
    }

    #[test]
    fn a_burst_that_ends_within_the_minute_is_not_told() {
        let told = watched(&[2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 6_999]).notices();
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn what_is_on_its_way_under_load_is_not_told() {
        let told = watched(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 1_000]).notices();
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn a_follower_that_gains_again_or_leaves_is_told_no_more() {
        let mut falling = vec![2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 9_000];
        falling.push(8_999);
        assert!(watched(&falling).notices().is_empty());
        let mut left = watched(&falling[..7]);
        left.look(Moment::ZERO + Span::seconds(100), &[]);
        assert!(left.notices().is_empty());
    }

    #[test]
    fn samples_that_come_too_early_are_not_taken() {
        let mut watched = Distances::default();
        for second in 0..20 {
            let now = Moment::ZERO + Span::seconds(second);
            watched.look(now, &[(standby(), 2_000 + second)]);
        }
        assert!(watched.notices().is_empty());
    }
}
