//! The heartbeats of an active and the grants that answer them (R5).

use understudy_types::Moment;

/// Heartbeats sent and not too old, by nonce: a grant counts from before its heartbeat was sent.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats {
    next: u64,
    sent: [Option<(u64, Moment)>; Heartbeats::KEPT],
}

impl Heartbeats {
    /// How many are remembered. At 200 ms apart that is 6.4 s; a grant for an older one is too late
    /// to be worth anything under a default lease, and a loss of liveness only under a longer one.
    pub const KEPT: usize = 32;

    /// Notes a heartbeat that is about to be sent; returns its nonce.
    pub fn send(&mut self, now: Moment) -> u64 {
        self.next += 1;
        let slot = (self.next as usize) % Self::KEPT;
        self.sent[slot] = Some((self.next, now));
        self.next
    }

    /// When the heartbeat of this nonce was sent; `None` when it is unknown or too old.
    #[must_use]
    pub fn sent_at(&self, nonce: u64) -> Option<Moment> {
        let slot = (nonce as usize) % Self::KEPT;
        self.sent[slot].filter(|(n, _)| *n == nonce).map(|(_, at)| at)
    }

    /// Forgets all: the epoch changed, and grants of the old one are void.
    pub fn forget(&mut self) {
        self.sent = [None; Self::KEPT];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_recent_nonce_has_a_time() {
        let mut beats = Heartbeats::default();
        let first = beats.send(Moment(1));
        assert_eq!(beats.sent_at(first), Some(Moment(1)));
        assert_eq!(beats.sent_at(first + 1), None);
        for n in 0..Heartbeats::KEPT as u64 {
            beats.send(Moment(10 + n));
        }
        assert_eq!(beats.sent_at(first), None, "too old");
        beats.forget();
        assert_eq!(beats.sent_at(first + 1), None);
    }
}
