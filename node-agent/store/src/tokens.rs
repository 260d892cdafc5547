//! Which named transactions committed (A2.24): so many of the newest, the same on every member, because
//! tokens travel in the records of their transactions and in checkpoints.
//!
//! Invariant: a token that is neither known nor at most `forgotten` names no commit of this history.

use crate::sync::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use understudy_types::{CommitToken, Epoch, Lsn};

/// How many committed tokens are remembered: some megabytes.
const REMEMBERED_MAX: usize = 65_536;

/// What the history says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFate {
    /// Its transaction has this LSN.
    Committed(Lsn),
    /// No record of this history carries it.
    Absent,
    /// It may be one that was forgotten: too many came after it.
    Forgotten,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Book>);

/// What is remembered, as a checkpoint holds it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    known: BTreeMap<CommitToken, Lsn>,
    /// In the order of their commits.
    order: VecDeque<CommitToken>,
    /// The highest that was dropped from `known`.
    forgotten: Option<CommitToken>,
    /// The newest epoch that began without commits which had been acknowledged (R13d, A2.12).
    lossy: Option<Epoch>,
}

impl Tokens {
    /// Knows what a checkpoint does.
    pub(crate) fn load(&self, book: Book) {
        *self.0.lock() = book;
    }

    /// What was known when everything up to `at` was committed.
    pub(crate) fn as_of(&self, at: Lsn) -> Book {
        let mut book = self.0.lock().clone();
        book.known.retain(|_, lsn| *lsn <= at);
        let Book { known, order, .. } = &mut book;
        order.retain(|token| known.contains_key(token));
        book
    }

    /// The transaction of this token has this LSN.
    pub(crate) fn note(&self, token: CommitToken, lsn: Lsn) {
        let mut book = self.0.lock();
        if book.known.insert(token, lsn).is_none() {
            book.order.push_back(token);
        }
        if book.order.len() > REMEMBERED_MAX
            && let Some(oldest) = book.order.pop_front()
        {
            book.known.remove(&oldest);
            book.forgotten = book.forgotten.max(Some(oldest));
        }
    }

    pub(crate) fn note_lossy(&self, epoch: Epoch) {
        let mut book = self.0.lock();
        book.lossy = book.lossy.max(Some(epoch));
    }

    pub(crate) fn fate(&self, token: CommitToken) -> TokenFate {
        let book = self.0.lock();
        match book.known.get(&token) {
            Some(lsn) => TokenFate::Committed(*lsn),
            None if book.forgotten.is_some_and(|highest| token <= highest) => TokenFate::Forgotten,
            None => TokenFate::Absent,
        }
    }

    pub(crate) fn lossy(&self) -> Option<Epoch> {
        self.0.lock().lossy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> CommitToken {
        CommitToken { epoch: Epoch(3), number }
    }

    #[test]
    fn what_is_forgotten_is_not_called_absent() {
        let tokens = Tokens::default();
        let last = REMEMBERED_MAX as u64 + 2;
        for number in 1..=last {
            tokens.note(token(number), Lsn(number));
        }
        assert_eq!(tokens.fate(token(1)), TokenFate::Forgotten);
        assert_eq!(tokens.fate(token(2)), TokenFate::Forgotten);
        assert_eq!(tokens.fate(token(3)), TokenFate::Committed(Lsn(3)));
        assert_eq!(tokens.fate(token(last + 1)), TokenFate::Absent);
    }

    #[test]
    fn a_checkpoint_holds_what_was_committed_by_then() {
        let tokens = Tokens::default();
        tokens.note(token(1), Lsn(5));
        tokens.note(token(2), Lsn(9));
        let book = tokens.as_of(Lsn(5));
        let later = Tokens::default();
        later.load(book);
        assert_eq!(later.fate(token(1)), TokenFate::Committed(Lsn(5)));
        assert_eq!(later.fate(token(2)), TokenFate::Absent);
    }
}
