//! Positions in the log and the running hash over its bytes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Log sequence number: a dense count of log records, the same on every member (law 10).
/// It is also the commit timestamp of a transaction. Zero is "before the first record".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);
    /// Above every record; used as "no limit".
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position of the record after this one.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// The position of the record before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }

    /// How many records lie in `(earlier, self]`; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    /// `hi/lo` in hexadecimal, the form PostgreSQL users read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Running 128-bit hash over the encoded bytes of all records up to a position (R2). Two logs with
/// equal hashes at an LSN hold the same records below it. Not a defence against an adversary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunningHash(pub u128);

impl RunningHash {
    /// The hash after one more record, given its encoded bytes.
    #[must_use]
    pub fn extend(self, record: &[u8]) -> RunningHash {
        let seed = (self.0 >> 64) as u64 ^ self.0 as u64;
        let own = xxhash_rust::xxh3::xxh3_128_with_seed(record, seed);
        RunningHash(own ^ self.0.rotate_left(1))
    }
}

impl fmt::Display for RunningHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
