//! What NO RETURN may lose, and the check that no promotion lost more (A2.12).

use super::{World, number};
use std::collections::{BTreeMap, BTreeSet};
use understudy_types::{MaxLoss, Moment, ReturnService, Span};

/// What may be lost, and what was.
#[derive(Default)]
pub(crate) struct Losses {
    /// With it commits wait for nothing; without it they wait for the standby.
    pub(crate) allowed: Option<MaxLoss>,
    pub(crate) lost: BTreeSet<u64>,
    /// How many promotions were marked as lossy.
    pub(crate) promotions: usize,
    acknowledged_at: BTreeMap<u64, Moment>,
}

impl Losses {
    pub(crate) fn return_service(&self) -> ReturnService {
        match self.allowed {
            Some(_) => ReturnService::NoReturn,
            None => ReturnService::Twosafe,
        }
    }

    pub(crate) fn note(&mut self, commits: &[u64], now: Moment) {
        self.acknowledged_at.extend(commits.iter().map(|n| (*n, now)));
    }
}

impl World {
    /// Takes what this promotion loses off the books, after both bounds were checked.
    pub(crate) fn count_losses(&mut self, i: usize) {
        let most = self.losses.allowed.expect("only NO RETURN loses");
        let held: BTreeSet<u64> = self.nodes[i].log.iter().filter_map(number).collect();
        let lost: Vec<u64> = self.acknowledged.difference(&held).copied().collect();
        assert!(lost.len() as u64 <= most.commits, "lost {lost:?}\n{}", self.describe());
        let at = |n: &u64| self.losses.acknowledged_at[n];
        let (first, last) = (lost.iter().map(at).min(), lost.iter().map(at).max());
        if let (Some(first), Some(last)) = (first, last) {
            let age = last.since(first);
            assert!(age <= Span::millis(most.millis), "lost {age:?}\n{}", self.describe());
        }
        for n in lost {
            self.acknowledged.remove(&n);
            self.losses.lost.insert(n);
        }
        self.losses.promotions += 1;
    }
}
