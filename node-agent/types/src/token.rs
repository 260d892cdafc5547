//! The name of a commit that its client has before it commits (A2.24).

use crate::Epoch;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Names one transaction: the epoch in which it was asked for, and a number of that epoch. Written as
/// `7.1042`. A transaction with a token commits in that epoch or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitToken {
    /// The epoch.
    pub epoch: Epoch,
    /// Rises with every token of the epoch.
    pub number: u64,
}

/// The text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no commit token; write it as it was given, like 7.1042")]
pub struct TokenError(String);

impl fmt::Display for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.number)
    }
}

impl FromStr for CommitToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = || TokenError(text.chars().take(64).collect());
        let number = |part: &str| part.parse().map_err(|_| wrong());
        let (epoch, rest) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self { epoch: Epoch(number(epoch)?), number: number(rest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token = CommitToken { epoch: Epoch(7), number: 1042 };
        assert_eq!(token.to_string(), "7.1042");
        assert_eq!("7.1042".parse(), Ok(token));
    }

    #[test]
    fn other_text_is_refused_with_an_example() {
        for text in ["", "7", "7.", ".7", "7.x", "7.1.2", "-1.2"] {
            let error = text.parse::<CommitToken>().unwrap_err();
            assert!(error.to_string().contains("like 7.1042"), "{error}");
        }
    }
}
