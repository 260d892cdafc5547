//! The disturbances, by the names that the command line uses.

use std::{fmt, str::FromStr};

/// What is done to the operator while the scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Nothing: the run that the others are compared with.
    Reference,
    /// It is killed after every one of its writes.
    EveryWrite,
    /// It is killed after this write, counted from 1.
    Write(usize),
    /// It begins again and again with lists from before the last change, and hears nothing for a while.
    Stale,
    /// Events of its watches are lost, until the watch expires.
    Dropped,
    /// Of all events of an object within a while it hears the last.
    Merged,
}

/// A name that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownCase(String);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference => f.write_str("reference"),
            Self::EveryWrite => f.write_str("every-write"),
            Self::Write(n) => write!(f, "write-{n}"),
            Self::Stale => f.write_str("stale"),
            Self::Dropped => f.write_str("dropped"),
            Self::Merged => f.write_str("merged"),
        }
    }
}

impl FromStr for Case {
    type Err = UnknownCase;

    fn from_str(name: &str) -> Result<Self, UnknownCase> {
        let fixed = [Self::Reference, Self::EveryWrite, Self::Stale, Self::Dropped, Self::Merged];
        let numbered = || name.strip_prefix("write-")?.parse().ok().map(Self::Write);
        let found = fixed.into_iter().find(|case| case.to_string() == name);
        found.or_else(numbered).ok_or_else(|| UnknownCase(name.to_owned()))
    }
}

impl fmt::Display for UnknownCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no case is called {}", self.0)
    }
}

impl std::error::Error for UnknownCase {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for case in [Case::Reference, Case::EveryWrite, Case::Write(17), Case::Stale, Case::Merged]
        {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("write-x".parse::<Case>().is_err());
    }
}
