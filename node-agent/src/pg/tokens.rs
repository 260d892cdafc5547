//! Commits that can be asked about afterwards, on any survivor (A2.24): `CALL ttRepXactTokenGet()` in a
//! transaction names it, `CALL ttRepXactStatus('7.1042')` tells what became of it.
//!
//! **Invariant**: a token is open from before it is told until its transaction's record is noted in the
//! store or its transaction is undone, so that "neither open nor recorded" means that it did not commit.

use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use understudy_store::TokenFate;
use understudy_types::{CommitToken, Epoch, Lsn};

/// The tokens of transactions that have not ended; at most one a session.
#[derive(Debug, Default)]
pub struct OpenTokens {
    given: AtomicU64,
    open: Mutex<BTreeSet<CommitToken>>,
}

/// A transaction's token, open until this is dropped.
#[derive(Debug)]
pub struct OpenToken {
    token: CommitToken,
    all: Arc<OpenTokens>,
}

impl OpenTokens {
    /// A new token of this epoch.
    #[must_use]
    pub fn give(self: &Arc<Self>, epoch: Epoch) -> OpenToken {
        let mut open = self.open.lock();
        let token = CommitToken { epoch, number: self.given.fetch_add(1, SeqCst) + 1 };
        open.insert(token);
        OpenToken { token, all: Arc::clone(self) }
    }

    fn standing(&self, token: CommitToken) -> Standing {
        match self.open.lock().contains(&token) {
            true => Standing::Open,
            false if token.number > self.given.load(SeqCst) => Standing::NotGiven,
            false => Standing::Ended,
        }
    }
}

impl OpenToken {
    /// The token.
    #[must_use]
    pub fn token(&self) -> CommitToken {
        self.token
    }
}

impl Drop for OpenToken {
    fn drop(&mut self) {
        self.all.open.lock().remove(&self.token);
    }
}

/// A token of the present epoch, on its active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    NotGiven,
    Ended,
}

/// What became of a named transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the history, and acknowledged.
    Committed,
    /// It is not, and never will be.
    NotCommitted,
    /// This member cannot tell, or not yet; why.
    Unknown(String),
}

impl Outcome {
    /// Why it is unknown; empty otherwise.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Outcome::Unknown(why) => why,
            Outcome::Committed | Outcome::NotCommitted => "",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Committed => "committed",
            Outcome::NotCommitted => "not committed",
            Outcome::Unknown(_) => "unknown",
        })
    }
}

/// What a member knows when it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The epoch in which this member serves with authority; `None` for every other one.
    pub serving: Option<Epoch>,
    /// Its open tokens.
    pub open: &'a OpenTokens,
    /// Everything up to here is acknowledged.
    pub acknowledged: Lsn,
    /// The newest epoch that began without commits which had been acknowledged.
    pub lossy: Option<Epoch>,
}

/// The answer. `fate` looks the token up in the store: after it was found not to be open, for a
/// transaction that ends meanwhile is recorded first.
pub fn outcome(
    token: CommitToken,
    known: &Known<'_>,
    fate: impl FnOnce(CommitToken) -> TokenFate,
) -> Outcome {
    let unknown = |why: &str| Outcome::Unknown(why.to_owned());
    let standing = known.open.standing(token);
    let fate = fate(token);
    match (fate, known.serving) {
        (TokenFate::Committed(lsn), _) if lsn <= known.acknowledged => Outcome::Committed,
        (TokenFate::Committed(_), Some(_)) => {
            unknown("it is in the log, and its acknowledgement is awaited")
        }
        (TokenFate::Committed(_), None) => {
            unknown("its record is here, and only the active knows whether it is acknowledged")
        }
        (TokenFate::Forgotten, _) => {
            unknown("too many named transactions came after it to remember this one")
        }
        (TokenFate::Absent, None) => {
            unknown("it is not here, and only an active can tell that it did not happen")
        }
        (TokenFate::Absent, Some(now)) if token.epoch > now => {
            unknown("the epoch in which it was given is not known here")
        }
        (TokenFate::Absent, Some(now)) if token.epoch == now => match standing {
            Standing::Open => unknown("its transaction is still open"),
            Standing::NotGiven => unknown("no such token was given in this epoch so far"),
            Standing::Ended => Outcome::NotCommitted,
        },
        (TokenFate::Absent, Some(_)) => match known.lossy.filter(|lossy| *lossy > token.epoch) {
            Some(lossy) => Outcome::Unknown(format!(
                "epoch {lossy} began without commits that had been acknowledged; what the old active kept of them stands in the pair's status under trapped"
            )),
            None => Outcome::NotCommitted,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(epoch: u64, number: u64) -> CommitToken {
        CommitToken { epoch: Epoch(epoch), number }
    }

    fn active(open: &OpenTokens) -> Known<'_> {
        Known { serving: Some(Epoch(7)), open, acknowledged: Lsn(100), lossy: None }
    }

    fn why(outcome: Outcome) -> String {
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        outcome.why().to_owned()
    }

    #[test]
    fn what_is_acknowledged_is_committed_and_what_waits_is_unknown() {
        let open = OpenTokens::default();
        let known = active(&open);
        let at = |lsn| outcome(token(7, 1), &known, |_| TokenFate::Committed(Lsn(lsn)));
        assert_eq!(at(100), Outcome::Committed);
        assert!(why(at(101)).contains("awaited"));
        let standby = Known { serving: None, ..known };
        let there = outcome(token(7, 1), &standby, |_| TokenFate::Committed(Lsn(101)));
        assert!(why(there).contains("only the active"));
    }

    #[test]
    fn an_open_transaction_is_unknown_until_it_ends() {
        let open = Arc::new(OpenTokens::default());
        let given = open.give(Epoch(7));
        let ask = |t| outcome(t, &active(&open), |_| TokenFate::Absent);
        let its = given.token();
        assert!(why(ask(its)).contains("still open"));
        drop(given);
        assert_eq!(ask(its), Outcome::NotCommitted);
        assert!(why(ask(token(7, 99))).contains("no such token"));
        assert!(why(ask(token(8, 1))).contains("not known here"));
    }

    #[test]
    fn a_transaction_that_ends_while_it_is_asked_about_is_not_called_absent() {
        let open = Arc::new(OpenTokens::default());
        let given = open.give(Epoch(7));
        let its = given.token();
        // It is recorded, then closed, between the two looks.
        let answer = outcome(its, &active(&open), |_| {
            drop(given);
            TokenFate::Committed(Lsn(5))
        });
        assert_eq!(answer, Outcome::Committed);
    }

    #[test]
    fn only_an_active_of_a_later_epoch_says_that_it_did_not_commit() {
        let open = OpenTokens::default();
        let known = active(&open);
        assert_eq!(outcome(token(6, 9), &known, |_| TokenFate::Absent), Outcome::NotCommitted);
        let standby = Known { serving: None, ..known };
        assert!(why(outcome(token(6, 9), &standby, |_| TokenFate::Absent)).contains("active"));
        assert!(why(outcome(token(6, 9), &known, |_| TokenFate::Forgotten)).contains("remember"));
    }

    #[test]
    fn an_epoch_that_began_with_a_loss_leaves_older_tokens_unknown() {
        let open = OpenTokens::default();
        let known = Known { lossy: Some(Epoch(7)), ..active(&open) };
        assert!(why(outcome(token(6, 9), &known, |_| TokenFate::Absent)).contains("epoch 7"));
        let before = Known { lossy: Some(Epoch(6)), ..known };
        assert_eq!(outcome(token(6, 9), &before, |_| TokenFate::Absent), Outcome::NotCommitted);
    }
}
