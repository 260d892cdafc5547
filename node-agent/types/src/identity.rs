//! Who is who: databases, stores, processes and members.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Identity of the database that a pair serves: made once, by the one initialiser (R20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dbid(pub Uuid);

/// Identity of one data directory. A duplicate makes a new one; a restart keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub Uuid);

/// One life of one agent process (R1): ordered by `start` within one store, equal only if both
/// parts are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// Start counter of the store, fsynced one higher at each process start.
    pub start: u64,
    /// Fresh at each process start.
    pub id: Uuid,
}

impl Incarnation {
    /// No process: equal to none that ever ran.
    pub const NOBODY: Incarnation = Incarnation { start: 0, id: Uuid::nil() };

    /// Whether this life of a store is a later one than `other` of the same store.
    #[must_use]
    pub fn is_later_than(self, other: Incarnation) -> bool {
        self.start > other.start
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.start, self.id)
    }
}

impl fmt::Display for Dbid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a member: the name of its pod and of its Service, `<pair>-N` or `<pair>-sN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberName(String);

/// Why a text is not a member's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a member name: write 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"
)]
pub struct MemberNameError(String);

impl MemberName {
    /// Longest name, the limit of a DNS label in bytes.
    pub const LENGTH_MAX: usize = 63;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// When the text is not a DNS label.
    pub fn new(text: impl Into<String>) -> Result<Self, MemberNameError> {
        let text = text.into();
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if bytes.len() <= Self::LENGTH_MAX
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(inner)
        {
            Ok(Self(text))
        } else {
            Err(MemberNameError(text))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MemberName {
    type Error = MemberNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<MemberName> for String {
    fn from(name: MemberName) -> String {
        name.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_names_are_dns_labels() {
        for good in ["orders-1", "a", "orders-s12"] {
            assert_eq!(MemberName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(MemberName::new(bad).is_err(), "{bad} was taken");
        }
    }
}
