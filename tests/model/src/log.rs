//! The log of a member: records of commits, and the `EpochBegin` that opens each epoch (R2).

use std::hash::{Hash, Hasher};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The epoch in which it was written.
    pub epoch: u8,
    /// The number of the commit, from 1; 0 for `EpochBegin`.
    pub commit: u8,
}

impl Record {
    const COMMIT_BITS: u8 = 4;

    fn pack(self) -> u8 {
        self.epoch << Self::COMMIT_BITS | self.commit
    }

    fn unpack(byte: u8) -> Self {
        Self { epoch: byte >> Self::COMMIT_BITS, commit: byte & ((1 << Self::COMMIT_BITS) - 1) }
    }
}

/// A log. A record is one byte and unused places are zero, so that equal logs are equal bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    bytes: [u8; Log::CAPACITY],
    len: u8,
}

impl Hash for Log {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        u64::from_le_bytes(self.bytes).hash(hasher);
        self.len.hash(hasher);
    }
}

impl Log {
    /// More than `EPOCHS_MAX` beginnings and the commits of any row.
    pub const CAPACITY: usize = 8;

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record> {
        self.bytes[..usize::from(self.len)].iter().map(|byte| Record::unpack(*byte))
    }

    /// Appends a record.
    pub fn append(&mut self, record: Record) {
        self.bytes[usize::from(self.len)] = record.pack();
        self.len += 1;
    }

    /// Cuts everything from this length on.
    pub fn truncate(&mut self, len: u8) {
        self.bytes[usize::from(len)..].fill(0);
        self.len = self.len.min(len);
    }

    /// The first records, up to this length.
    #[must_use]
    pub fn prefix(mut self, len: u8) -> Self {
        self.truncate(len);
        self
    }

    /// How many records at the beginning are the same in both.
    #[must_use]
    pub fn common_prefix(&self, other: &Self) -> u8 {
        let same = self.records().zip(other.records()).take_while(|(mine, theirs)| mine == theirs);
        u8::try_from(same.count()).expect("a log is shorter than 256 records")
    }

    /// Whether this commit is in it.
    #[must_use]
    pub fn holds(&self, commit: u8) -> bool {
        self.records().any(|record| record.commit == commit)
    }

    /// Whether all these commits are in it.
    #[must_use]
    pub fn holds_all(&self, commits: CommitSet) -> bool {
        commits.iter().all(|commit| self.holds(commit))
    }

    /// The epoch of its last record; an empty log is as good as one of epoch 1 (R13c).
    #[must_use]
    pub fn last_epoch(&self) -> u8 {
        self.records().next_back().map_or(1, |record| record.epoch)
    }
}

/// A set of commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitSet(u8);

impl CommitSet {
    /// Adds one.
    pub fn insert(&mut self, commit: u8) {
        self.0 |= 1 << commit;
    }

    /// Takes one out.
    pub fn remove(&mut self, commit: u8) {
        self.0 &= !(1 << commit);
    }

    /// Whether it is in.
    #[must_use]
    pub fn contains(self, commit: u8) -> bool {
        self.0 & (1 << commit) != 0
    }

    /// Whether none is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All that are in.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..8).filter(move |commit| self.contains(*commit))
    }
}
