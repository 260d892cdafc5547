//! Which part of the log a source keeps for the members that build a duplicate: from the checkpoint
//! on, until they have attached and the link's own hold takes over.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use understudy_types::{Lsn, MemberName};

/// How long the log is kept for a member whose stream ended, whole or broken: time to verify and
/// load a large checkpoint, or to come back. After it the member needs a newer checkpoint.
pub(super) const LINGER: Duration = Duration::from_secs(900);

/// Holds, one per member.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: Mutex<BTreeMap<MemberName, Hold>>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Records above it are kept.
    lsn: Lsn,
    /// When it ends by itself; `None` while a stream runs.
    until: Option<Instant>,
}

impl Holds {
    /// Keeps everything above `lsn` for a member, in place of its earlier hold.
    pub(super) fn hold(&self, member: &MemberName, lsn: Lsn) {
        self.held.lock().insert(member.clone(), Hold { lsn, until: None });
    }

    /// The stream ended: keeps the log for a while longer.
    pub(super) fn linger(&self, member: &MemberName, now: Instant) {
        if let Some(hold) = self.held.lock().get_mut(member) {
            hold.until = Some(now + LINGER);
        }
    }

    pub(super) fn release(&self, member: &MemberName) {
        self.held.lock().remove(member);
    }

    /// Every member with the LSN above which records are kept for it.
    pub(super) fn all(&self, now: Instant) -> Vec<(MemberName, Lsn)> {
        let mut held = self.held.lock();
        held.retain(|_, hold| hold.until.is_none_or(|until| now < until));
        held.iter().map(|(member, hold)| (member.clone(), hold.lsn)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::name;

    #[test]
    fn a_hold_counts_until_it_is_released_or_runs_out() {
        let (holds, now) = (Holds::default(), Instant::now());
        assert_eq!(holds.all(now), []);
        holds.hold(&name("orders-2"), Lsn(50));
        holds.hold(&name("orders-s1"), Lsn(30));
        holds.linger(&name("orders-s1"), now);
        let second = (name("orders-2"), Lsn(50));
        assert_eq!(holds.all(now), [second.clone(), (name("orders-s1"), Lsn(30))]);
        assert_eq!(holds.all(now + LINGER), [second]);
        holds.release(&name("orders-2"));
        assert_eq!(holds.all(now), []);
    }
}
