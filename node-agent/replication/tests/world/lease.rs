//! The simulated API server: one Lease with versions, answers that are late or lost, and an operator that
//! makes the Lease again when it went back in time (R21).

use super::{ApiAnswer, Node, World, name};
use understudy_authority::{Holder, LeaseRecord, LeaseState, Sight, Versioned};
use understudy_replication::{Input, LeaseWrite, WriteOutcome};
use understudy_types::{Moment, Span};

impl World {
    /// The Lease goes back to the backup.
    pub(super) fn restore_lease(&mut self) {
        if self.backup.order() < self.lease.order() {
            self.lease = self.backup.clone();
            self.version += 1;
            self.delayed.clear();
            self.regressed = Some(self.now);
        }
    }

    /// What the operator does once nobody can act by the old Lease any more and both members answer.
    pub(super) fn reinstate(&mut self) {
        let is_time = self.regressed.is_some_and(|at| self.now >= at + Span::millis(5_100));
        if !is_time || self.api_until > self.now || self.nodes.iter().any(|n| n.member.is_none()) {
            return;
        }
        self.regressed = None;
        let known = |n: &Node| n.disk.promised.number.max(n.disk.lease_seen.epoch);
        let epoch = self.nodes.iter().map(known).max().expect("two members");
        let ends = [self.log_end(0), self.log_end(1)];
        let is_active = |n: &Node| n.member.as_ref().is_some_and(|m| m.active_epoch().is_some());
        let rank = |i: &usize| (ends[*i].epoch, is_active(&self.nodes[*i]), ends[*i].lsn);
        let last = (0..2).max_by_key(rank).expect("two members");
        let (store, incarnation) = (self.nodes[last].disk.store, self.nodes[last].inc);
        self.lease.epoch = epoch.max(self.lease.epoch).next();
        self.lease.seq += 1;
        self.lease.state = LeaseState::Released;
        self.lease.holder = Some(Holder { member: name(last), store, incarnation });
        self.lease.sync = None;
        self.version += 1;
    }

    pub(super) fn write_lease(&mut self, i: usize, write: LeaseWrite) {
        let at = self.now + Span::millis(2 + self.random(20));
        let away = self.api_until > self.now;
        let mut outcome = if away {
            WriteOutcome::Refused("not connected".into())
        } else if self.faults.doubt && self.random(6) == 0 {
            match self.random(3) {
                0 => {}
                1 => {
                    self.apply_lease(&write.base, &write.record);
                }
                _ => {
                    let later = self.now + Span::millis(self.random(6_000));
                    self.delayed.push((later, write.base.clone(), write.record.clone()));
                }
            }
            WriteOutcome::Unknown("no answer".into())
        } else if self.apply_lease(&write.base, &write.record) {
            WriteOutcome::Confirmed(Box::new(self.versioned()))
        } else {
            WriteOutcome::Conflict
        };
        let slow = matches!(outcome, WriteOutcome::Unknown(_));
        let at = if slow { self.now + Span::millis(1_500) } else { at };
        if let WriteOutcome::Confirmed(v) = &mut outcome {
            assert_eq!(v.record, write.record);
        }
        self.nodes[i].api_inbox.push_back((at, ApiAnswer::Written(write.ticket, outcome)));
    }

    fn apply_lease(&mut self, base: &str, record: &LeaseRecord) -> bool {
        if base != self.version.to_string() {
            return false;
        }
        assert_eq!(record.seq, self.lease.seq + 1, "seq rises by one");
        self.lease = record.clone();
        self.version += 1;
        true
    }

    pub(super) fn land_delayed(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.delayed).into_iter().partition(|d| d.0 <= now);
        self.delayed = later;
        let due: Vec<(Moment, String, LeaseRecord)> = due;
        for (_, base, record) in due {
            self.apply_lease(&base, &record);
        }
    }

    fn versioned(&self) -> Versioned {
        Versioned { version: self.version.to_string(), record: self.lease.clone() }
    }

    pub(super) fn look(&mut self, i: usize) {
        if self.nodes[i].member.is_none() || self.nodes[i].next_read > self.now {
            return;
        }
        self.nodes[i].next_read = self.now + Span::millis(100);
        if self.api_until <= self.now {
            let at = self.now + Span::millis(2 + self.random(10));
            let seen = ApiAnswer::Seen(Box::new(self.versioned()), self.now);
            self.nodes[i].api_inbox.push_back((at, seen));
        }
    }

    pub(super) fn api(&mut self, i: usize) {
        let now = self.now;
        let ready: Vec<_> = {
            let inbox = &mut self.nodes[i].api_inbox;
            let (ready, later): (Vec<_>, Vec<_>) = inbox.drain(..).partition(|(at, _)| *at <= now);
            inbox.extend(later);
            ready
        };
        for (_, answer) in ready {
            match answer {
                ApiAnswer::Seen(versioned, asked) => {
                    let sight = Sight { versioned: *versioned, asked: Some(asked) };
                    self.input(i, Input::Lease(Box::new(sight)));
                }
                ApiAnswer::Written(ticket, outcome) => {
                    self.input(i, Input::LeaseWritten { ticket, outcome });
                }
            }
        }
    }
}
