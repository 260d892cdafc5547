//! Two volumes, the Lease, what two operators decided, and the faults so far.

use crate::state::{Both, Name};

/// A process of a member, with the volume it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The member.
    pub name: Name,
    /// Its volume: 0 the first.
    pub store: u8,
    /// Its starts.
    pub incarnation: u8,
}

/// Who may make the database, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    /// Uninitialised.
    Nobody,
    /// This process alone may.
    Initialising(Process),
    /// This one did.
    Held(Process),
}

/// The Lease, as far as R20 is about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Its state.
    pub naming: Naming,
    /// The database.
    pub dbid: Option<u8>,
}

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// To create the Lease.
    Create,
    /// To name this process.
    Name(Process),
}

/// A decision that is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decided {
    /// It.
    pub decision: Decision,
    /// The Lease is still as it was judged.
    pub is_current: bool,
}

/// A member and its volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its volume: 0 the first.
    pub store: u8,
    /// Durable: the database of the volume.
    pub dbid: Option<u8>,
    /// Starts so far.
    pub incarnation: u8,
    /// The operator cannot reach it.
    pub is_silent: bool,
    /// It read that it is named.
    pub was_named: bool,
    /// It initialised its directory since.
    pub is_ready: bool,
    /// The write that takes the Lease for this database, sent and not answered.
    pub delayed: Option<(Process, u8)>,
}

/// The whole world of a beginning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The Lease, if there is one.
    pub lease: Option<Lease>,
    /// The database in the pair's status.
    pub noted: Option<u8>,
    /// The members.
    pub members: Both<Member>,
    /// What each operator has decided and not written.
    pub operators: [Option<Decided>; 2],
    /// Databases that were ever on the Lease, a bit each.
    pub held: u8,
    /// The next database's number.
    pub next_dbid: u8,
    /// Namings that landed.
    pub namings: u8,
    /// Crashes so far.
    pub crashes: u8,
    /// Volumes lost so far.
    pub volumes: u8,
    /// Silences so far.
    pub silences: u8,
    /// Deletions so far.
    pub deletions: u8,
}

impl Member {
    /// The operator can reach it.
    pub fn answers(&self) -> bool {
        !self.is_silent
    }

    /// Its present process.
    pub fn process(&self, name: Name) -> Process {
        Process { name, store: self.store, incarnation: self.incarnation }
    }

    /// The process ends and starts again. What it has sent may still land.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        self.was_named = false;
        self.is_ready = false;
    }
}

impl State {
    /// The Lease names this very process initialiser.
    pub fn names(&self, process: Process) -> bool {
        self.lease.is_some_and(|lease| lease.naming == Naming::Initialising(process))
    }

    /// The database that the Lease names.
    pub fn held_now(&self) -> Option<u8> {
        self.lease.and_then(|lease| lease.dbid)
    }
}

impl Default for State {
    /// Nothing was ever made.
    fn default() -> Self {
        Self {
            lease: None,
            noted: None,
            members: Both([Member::default(); 2]),
            operators: [None; 2],
            held: 0,
            next_dbid: 1,
            namings: 0,
            crashes: 0,
            volumes: 0,
            silences: 0,
            deletions: 0,
        }
    }
}
