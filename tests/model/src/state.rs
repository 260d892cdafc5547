//! The state of the modelled pair: two members, one Lease, the frames between them, the faults so far.
//!
//! Time is counted in ticks, and every deadline is a countdown: authority and its observation by others
//! therefore keep the order that the margins of R4–R6 buy. The state is kept in a normal form
//! (`normal_form.rs`), so that states that cannot be told apart are equal.

use crate::{
    log::{CommitSet, Log},
    messages::Inbox,
};
use std::ops::{Index, IndexMut};

/// The members of the pair. A is active at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The first active.
    A,
    /// The first standby.
    B,
}

impl Name {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other voter.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One of something for each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Both<T>(pub [T; 2]);

impl<T> Both<T> {
    /// A's, then B's.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// A's, then B's.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }
}

impl<T> Index<Name> for Both<T> {
    type Output = T;

    fn index(&self, name: Name) -> &T {
        &self.0[name as usize]
    }
}

impl<T> IndexMut<Name> for Both<T> {
    fn index_mut(&mut self, name: Name) -> &mut T {
        &mut self.0[name as usize]
    }
}

/// What a process takes itself for. Never durable (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows whoever is active; may grant (R5).
    Following,
    /// Wants to be active; grants no more (R7).
    Candidate,
    /// Opened an epoch and has not let go of it. Serves only with authority (R6a).
    Active,
}

/// What the active of an epoch knows of the other member's log, from its answers (R15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerPosition {
    /// The incarnation that answered last.
    pub incarnation: u8,
    /// How many records it has received.
    pub received: u8,
}

/// How far an active is with handing its role over (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandOver {
    /// It does not.
    No,
    /// It takes no commits any more, and may still go back.
    Preparing,
    /// The write was sent. Then a member steps down; it stays active, without serving, only without R22.
    Sent,
}

/// A write to the Lease whose fate the sender does not learn. It lands only on the version it was
/// decided on, so the next write by anybody ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The standby of this incarnation is in sync (R16).
    SetSync(u8),
    /// The sender opens this epoch (R9, R12).
    Acquire(u8),
    /// The sender lets go (R10).
    Release,
    /// The sender hands over to the other member (R22).
    Transfer {
        /// The other's incarnation.
        incarnation: u8,
        /// How many records the sender's log has.
        len: u8,
    },
    /// The sender's parent process says that the holder's incarnation is dead (R10, R10a).
    ReleaseDead,
}

/// A write on its way to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DelayedWrite {
    /// What it says.
    pub write: Write,
    /// The incarnation that sent it, which may have died since.
    pub incarnation: u8,
}

/// The confirmation of an Acquire on its way to the candidate (R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AcquireAnswer {
    /// The epoch it opened.
    pub epoch: u8,
    /// Ticks of Lease authority left, counted from sending the request (R4).
    pub ticks: u8,
}

/// One member: its durable part, its memory, its countdowns, what it has in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What it takes itself for.
    pub role: Role,
    /// Starts of the process so far (R1).
    pub incarnation: u8,
    /// Durable: it refuses everything of lower epochs (R8). Never falls.
    pub promised: u8,
    /// The epoch an active serves; 0 for others.
    pub epoch: u8,
    /// Its log, memory included.
    pub log: Log,
    /// How many of its records are on its disk.
    pub durable: u8,
    /// Ticks of authority left by the Lease (R4).
    pub lease_ticks: u8,
    /// Ticks of authority left by the other's grant (R5).
    pub grant_ticks: u8,
    /// Ticks until its own last grant has run out (R5, R8).
    pub granted_ticks: u8,
    /// Ticks of blackout left after its start (R6).
    pub blackout_ticks: u8,
    /// Ticks for which the last serving heartbeat of the holder keeps it from candidating (R7).
    pub heard_ticks: u8,
    /// Ticks for which it yields after losing authority (R4).
    pub yield_ticks: u8,
    /// As active: what the other member has received.
    pub peer: PeerPosition,
    /// As active: acknowledges alone, because the Lease is confirmed to name no standby (R15).
    pub solo: bool,
    /// As active: the Lease is confirmed to name the standby, and no write of S was sent since (R15).
    pub sync_confirmed: bool,
    /// As active: the highest promise it was refused with, 0 for none (R12).
    pub refused_with: u8,
    /// As candidate: the comparison with the other member found it complete (R13c).
    pub compared: bool,
    /// As active: a write of S has an unknown outcome (R15).
    pub in_doubt: bool,
    /// As active: hands its role over (R22).
    pub hand_over: HandOver,
    /// Durable: the other's incarnations that were given grants, a bit each (R6). Kept only where a proof
    /// of death takes one out.
    pub granted_to: u8,
    /// A write that may still land.
    pub delayed: Option<DelayedWrite>,
    /// An Acquire that landed, its answer still under way.
    pub acquire_answer: Option<AcquireAnswer>,
}

impl Member {
    /// A follower that just started for the first time, with an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            role: Role::Following,
            incarnation: 0,
            promised: 1,
            epoch: 0,
            log: Log::default(),
            durable: 0,
            lease_ticks: 0,
            grant_ticks: 0,
            granted_ticks: 0,
            blackout_ticks: 0,
            heard_ticks: 0,
            yield_ticks: 0,
            peer: PeerPosition::default(),
            solo: false,
            sync_confirmed: false,
            refused_with: 0,
            compared: false,
            in_doubt: false,
            hand_over: HandOver::No,
            granted_to: 0,
            delayed: None,
            acquire_answer: None,
        }
    }

    /// R6a: may acknowledge and answer current reads.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        let serves = self.role == Role::Active && self.hand_over != HandOver::Sent;
        serves && (self.lease_ticks > 0 || self.grant_ticks > 0)
    }

    /// Its whole log is on its disk from now on.
    pub fn fsync(&mut self) {
        self.durable = self.log.len();
    }

    /// Whether its whole log is on its disk.
    #[must_use]
    pub fn is_fsynced(&self) -> bool {
        self.durable == self.log.len()
    }

    /// How many of the first records' commits the other member is not known to have.
    #[must_use]
    pub fn commits_not_received(&self, len: u8) -> usize {
        let missing = usize::from(len.saturating_sub(self.peer.received));
        let records = self.log.records().skip(usize::from(self.peer.received));
        records.take(missing).filter(|record| record.commit > 0).count()
    }

    /// Whether the other member is known to have the whole, non-empty log.
    #[must_use]
    pub fn peer_has_all(&self) -> bool {
        self.peer.received == self.log.len() && self.peer.received > 0
    }

    /// Forgets everything that belongs to the epoch it served or wanted to serve.
    pub fn step_down(&mut self) {
        self.role = Role::Following;
        self.lease_ticks = 0;
        self.grant_ticks = 0;
        self.peer = PeerPosition::default();
        self.solo = false;
        self.sync_confirmed = false;
        self.refused_with = 0;
        self.in_doubt = false;
        self.hand_over = HandOver::No;
    }

    /// Ends the process and starts its successor: memory and the unsynced tail are lost, the promise
    /// stays. What it has in flight to the API server may still land.
    pub fn restart(&mut self, blackout_ticks: u8) {
        self.log.truncate(self.durable);
        self.step_down();
        self.granted_ticks = 0;
        self.blackout_ticks = blackout_ticks;
        self.compared = false;
        self.acquire_answer = None;
        self.epoch = 0;
        self.heard_ticks = 0;
        self.yield_ticks = 0;
        self.incarnation += 1;
    }
}

impl Default for Member {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the Lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// By the holder.
    Held,
    /// The holder, or its parent process, let go: it serves no more.
    Released,
    /// The holder let go for the other member (R22).
    Transferring {
        /// How many records the holder's log has.
        len: u8,
    },
    /// Created anew by the operator: the last holder may still serve by grants (R21).
    Recreated,
}

/// The Lease record (R3). S = the holder and, if there is one, the standby named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The last holder.
    pub holder: Name,
    /// The holder's incarnation.
    pub incarnation: u8,
    /// The holder's epoch.
    pub epoch: u8,
    /// Whether somebody holds it.
    pub hold: Hold,
    /// The incarnation of the other member that is recorded in sync; `None`: S is the holder alone.
    pub standby: Option<u8>,
    /// Ticks until an observer calls this version expired (R4).
    pub ticks: u8,
}

/// A persistent fault of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Not begun.
    Ahead,
    /// Present.
    Present,
    /// Ended.
    Over,
}

impl Lease {
    /// What it says, without how long ago it was written.
    #[must_use]
    pub fn content(self) -> Self {
        Self { ticks: 0, ..self }
    }
}

/// The old process of A, which lives on although its pod was replaced (R11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OldProcess {
    /// Which it is.
    pub incarnation: u8,
    /// The epoch it serves.
    pub epoch: u8,
    /// Ticks of authority left by the Lease.
    pub lease_ticks: u8,
    /// Ticks of authority left by B's grant.
    pub grant_ticks: u8,
}

impl OldProcess {
    /// R6a.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.lease_ticks > 0 || self.grant_ticks > 0
    }
}

/// An operator that writes the Lease itself: only when R9 is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operator {
    /// It decided to promote B.
    pub decided: bool,
    /// No write came since it decided.
    pub version_is_current: bool,
    /// The epoch of a promotion that B has not heard of yet, 0 for none.
    pub promotes_to: u8,
}

/// What happened once and is judged by a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// A member outside S acquired, without comparison (P4).
    pub acquired_outside_sync: bool,
    /// Somebody acquired under a loss waiver (R13d).
    pub acquired_with_loss: bool,
    /// B acquired while A's incarnation still held the Lease, in the scenario of N1.
    pub acquired_from_living: bool,
    /// Somebody acquired what was handed over to it (R22).
    pub acquired_by_transfer: bool,
    /// Somebody acquired without more acknowledged commits than the record of S allows (A2.12).
    pub lost_beyond_lag: bool,
}

/// Highest epoch a row may use; the log of each epoch has its own place.
pub const EPOCHS_MAX: usize = 3;

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The members.
    pub members: Both<Member>,
    /// The third vote.
    pub lease: Lease,
    /// What is under way to each member.
    pub inboxes: Both<Inbox>,
    /// What the active of each epoch has written: a frame carries a prefix of it. Index: epoch − 1.
    pub written: [Log; EPOCHS_MAX],
    /// Commits that were acknowledged to a client.
    pub acknowledged: CommitSet,
    /// Commits that a reader of a standby saw.
    pub read_on_standby: CommitSet,
    /// The number of the next commit, from 1.
    pub next_commit: u8,
    /// Crashes so far.
    pub crashes: u8,
    /// Ticks for which a clock stood still so far.
    pub frozen_ticks: u8,
    /// Replacements of A's process by a second one so far.
    pub replacements: u8,
    /// A's process from before its replacement, while it lives.
    pub old_process: Option<OldProcess>,
    /// The operator that the protocol does not have.
    pub operator: Operator,
    /// The scenario's fault.
    pub fault: Fault,
    /// In a scenario: B received a heartbeat since the last tick.
    pub heartbeat_arrived: bool,
    /// In a scenario: A wrote the Lease since the last tick.
    pub lease_written: bool,
    /// A backup of the Lease, if one was taken that may still be restored.
    pub backup: Option<Lease>,
    /// Restores of the Lease so far.
    pub restores: u8,
    /// The Lease says less than what the members durably remember of it (R1, R21).
    pub lease_is_older: bool,
    /// What happened once.
    pub marks: Marks,
}

impl State {
    /// The normal pair: A holds the Lease of epoch 1, B is recorded in sync, nothing is committed.
    #[must_use]
    pub fn normal(ticks: u8) -> Self {
        let active = Member {
            role: Role::Active,
            epoch: 1,
            lease_ticks: ticks,
            sync_confirmed: true,
            ..Member::new()
        };
        Self {
            members: Both([active, Member::new()]),
            lease: Lease {
                holder: Name::A,
                incarnation: 0,
                epoch: 1,
                hold: Hold::Held,
                standby: Some(0),
                ticks,
            },
            inboxes: Both([Inbox::default(); 2]),
            written: [Log::default(); EPOCHS_MAX],
            acknowledged: CommitSet::default(),
            read_on_standby: CommitSet::default(),
            next_commit: 1,
            crashes: 0,
            frozen_ticks: 0,
            replacements: 0,
            old_process: None,
            operator: Operator::default(),
            fault: Fault::Ahead,
            heartbeat_arrived: false,
            lease_written: false,
            backup: None,
            restores: 0,
            lease_is_older: false,
            marks: Marks::default(),
        }
    }

    /// What the active of this epoch has written.
    pub fn written_mut(&mut self, epoch: u8) -> &mut Log {
        &mut self.written[usize::from(epoch) - 1]
    }

    /// Counts down one tick of a countdown.
    pub fn count_down(ticks: &mut u8) {
        *ticks = ticks.saturating_sub(1);
    }
}
