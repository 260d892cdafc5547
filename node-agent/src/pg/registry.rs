//! The sessions of a member: who they are, how to cancel one, how to end all of them.
//!
//! A session registers once at start-up and is forgotten when its guard drops. Cancelling and ending
//! only raise a flag and wake the session's task; the session itself answers the client.

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicI32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    time::Instant,
};
use understudy_sql::{EndedTransactions, HeldActivity, SessionActivity, SessionState, SessionWait};
use understudy_types::{CommitToken, Lsn};

/// Why sessions are ended, as their clients read it (57P01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReason {
    /// The message, PostgreSQL's style: lower case, no full stop.
    pub message: String,
    /// What to do now: normally where the new active is.
    pub hint: Option<String>,
}

/// All slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sorry, too many clients already: {limit} sessions are open")]
pub struct TooManySessions {
    /// The limit.
    pub limit: usize,
}

/// A commit that is in the log and not acknowledged, and nobody was told that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// Its place in the log.
    pub lsn: Lsn,
    /// Its token, when it has one.
    pub token: Option<CommitToken>,
    /// The session that sent it.
    pub pid: i32,
    /// That session's user.
    pub user: String,
    /// Since when it waits.
    pub since: Instant,
    /// Whether its session waits no longer: it was cancelled or ended.
    pub is_left: bool,
}

/// Most commits that are remembered after their sessions left them; the oldest is forgotten first.
const LEFT_MAX: usize = 1_000;

/// What others may do to a session.
#[derive(Debug, Default)]
pub(super) struct SessionControl {
    secret: i32,
    user: OnceLock<String>,
    /// What `pg_stat_activity` shows, but for who it is; nobody else but the view takes its lock.
    doing: Mutex<SessionActivity>,
    /// The commit that its replies wait for.
    waits_for: Mutex<Option<(Lsn, Option<CommitToken>, Instant)>>,
    cancelled: AtomicBool,
    /// Transactions that committed and that were rolled back. Only the session writes them.
    committed: AtomicU64,
    rolled_back: AtomicU64,
    ended: OnceLock<EndReason>,
    has_ended: AtomicBool,
    waker: AtomicWaker,
}

/// What interrupts a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The client asked to cancel the present statement.
    Cancelled,
    /// The session has to end.
    Ended(EndReason),
}

impl SessionControl {
    /// Whether something has come up; a pending answer wakes this task when it does.
    pub(super) fn poll_interrupt(&self, context: &Context<'_>) -> Poll<Interrupt> {
        self.waker.register(context.waker());
        match self.interrupt() {
            Some(interrupt) => Poll::Ready(interrupt),
            None => Poll::Pending,
        }
    }

    /// As [`SessionControl::poll_interrupt`], without waiting. A cancellation is taken by this call.
    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        if let Some(reason) = self.end_reason() {
            return Some(Interrupt::Ended(reason));
        }
        (self.cancelled.load(SeqCst) && self.cancelled.fetch_and(false, SeqCst))
            .then_some(Interrupt::Cancelled)
    }

    /// Waits for the end of the session only; a cancellation stays for the next statement to forget.
    pub(super) fn poll_end(&self, context: &Context<'_>) -> Poll<EndReason> {
        self.waker.register(context.waker());
        match self.end_reason() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    /// The session begins to wait for a commit, or ends to.
    pub(super) fn waits_for(&self, commit: Option<(Lsn, Option<CommitToken>)>) {
        *self.waits_for.lock() = commit.map(|(lsn, token)| (lsn, token, Instant::now()));
    }

    /// The session began.
    pub(super) fn begins(&self, application: &str, at_micros: i64) {
        let mut doing = self.doing.lock();
        doing.application = application.into();
        (doing.started_micros, doing.changed_micros) = (at_micros, at_micros);
    }

    /// The application gave itself another name.
    pub(super) fn is_named(&self, application: &str) {
        let mut doing = self.doing.lock();
        if doing.application != application {
            doing.application = application.into();
        }
    }

    /// A statement begins.
    pub(super) fn works(&self, at_micros: i64) {
        let mut doing = self.doing.lock();
        (doing.state, doing.changed_micros) = (SessionState::Active, at_micros);
        doing.statement_micros = Some(at_micros);
        if doing.transaction_micros.is_none() {
            doing.transaction_micros = Some(at_micros);
            doing.held = HeldActivity::default();
        }
        // A statement may take another one.
        doing.snapshot = None;
    }

    /// What the open transaction holds now.
    pub(super) fn holds(&self, held: HeldActivity) {
        self.doing.lock().held = held;
    }

    /// A transaction has ended.
    pub(super) fn counts(&self, has_committed: bool) {
        let counter = if has_committed { &self.committed } else { &self.rolled_back };
        // No other thread writes it.
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    fn ended_transactions(&self) -> (u64, u64) {
        (self.committed.load(Relaxed), self.rolled_back.load(Relaxed))
    }

    /// What the statement says.
    pub(super) fn runs(&self, text: &Arc<str>) {
        self.doing.lock().text = Arc::clone(text);
    }

    /// The session waits for something within its statement, or no longer.
    pub(super) fn awaits(&self, wait: Option<SessionWait>) {
        self.doing.lock().wait = wait;
    }

    /// The session waits for its client; an open transaction began then, and reads that snapshot.
    pub(super) fn rests(
        &self,
        state: SessionState,
        transaction: Option<i64>,
        snapshot: Option<Lsn>,
        at_micros: i64,
    ) {
        let mut doing = self.doing.lock();
        (doing.state, doing.changed_micros) = (state, at_micros);
        (doing.transaction_micros, doing.snapshot) = (transaction, snapshot);
    }

    fn activity(&self, pid: i32) -> SessionActivity {
        let user = self.user.get().cloned().unwrap_or_default();
        SessionActivity { pid, user, ..self.doing.lock().clone() }
    }

    fn in_doubt(&self, pid: i32) -> Option<InDoubt> {
        let (lsn, token, since) = (*self.waits_for.lock())?;
        let user = self.user.get().cloned().unwrap_or_default();
        Some(InDoubt { lsn, token, pid, user, since, is_left: false })
    }

    /// A statement begins: what was asked of an earlier one is moot.
    pub(super) fn forget_cancel(&self) {
        if self.cancelled.load(SeqCst) {
            self.cancelled.store(false, SeqCst);
        }
    }

    pub(super) fn end_reason(&self) -> Option<EndReason> {
        self.has_ended.load(SeqCst).then(|| self.ended.get().cloned()).flatten()
    }

    fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
        self.waker.wake();
    }

    fn end(&self, reason: &EndReason) {
        let _ = self.ended.set(reason.clone());
        self.has_ended.store(true, SeqCst);
        self.waker.wake();
    }
}

/// The sessions of a member.
#[derive(Debug)]
pub struct SessionRegistry {
    limit: usize,
    next_pid: AtomicI32,
    sessions: Mutex<HashMap<i32, Arc<SessionControl>>>,
    /// Commits in doubt whose sessions wait no longer, in the order of their leaving.
    left: Mutex<VecDeque<InDoubt>>,
    /// Committed and rolled back by sessions that are over.
    committed: AtomicU64,
    rolled_back: AtomicU64,
    deadlocks: AtomicU64,
}

impl SessionRegistry {
    /// A registry that admits so many sessions at a time.
    #[must_use]
    pub fn new(limit: usize) -> SessionRegistry {
        let next_pid = AtomicI32::new(1);
        SessionRegistry {
            limit,
            next_pid,
            sessions: Mutex::default(),
            left: Mutex::default(),
            committed: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
        }
    }

    /// Admits a session under a new number. `secret` is what a cancel request has to know; draw it at
    /// random.
    ///
    /// # Errors
    /// When the limit is reached (53300).
    pub fn register(self: &Arc<Self>, secret: i32) -> Result<SessionGuard, TooManySessions> {
        let control = Arc::new(SessionControl { secret, ..SessionControl::default() });
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.limit {
            return Err(TooManySessions { limit: self.limit });
        }
        let pid = loop {
            let pid = self.next_pid.fetch_add(1, SeqCst) & i32::MAX;
            if pid != 0 && !sessions.contains_key(&pid) {
                break pid;
            }
        };
        sessions.insert(pid, Arc::clone(&control));
        Ok(SessionGuard { pid, control, registry: Arc::clone(self) })
    }

    /// Cancels the present statement of a session. A wrong number or secret does nothing and is not
    /// answered, as in PostgreSQL.
    pub fn cancel(&self, pid: i32, secret: i32) {
        let control = self.sessions.lock().get(&pid).cloned();
        if let Some(control) = control.filter(|control| control.secret == secret) {
            control.cancel();
        }
    }

    /// Ends every session that is open now with 57P01. Returns how many there were. Sessions that
    /// come later are judged by the member's standing, not by this.
    pub fn end_all(&self, reason: &EndReason) -> usize {
        let controls: Vec<_> = self.sessions.lock().values().cloned().collect();
        for control in &controls {
            control.end(reason);
        }
        controls.len()
    }

    /// Every commit in doubt, in the order of the log: what is acknowledged up to here is settled, and is
    /// forgotten by this call.
    #[must_use]
    pub fn in_doubt(&self, acknowledged: Lsn) -> Vec<InDoubt> {
        let mut left = self.left.lock();
        left.retain(|commit| commit.lsn > acknowledged);
        let mut all: Vec<InDoubt> = left.iter().cloned().collect();
        drop(left);
        let sessions = self.sessions.lock();
        all.extend(sessions.iter().filter_map(|(pid, control)| control.in_doubt(*pid)));
        drop(sessions);
        all.retain(|commit| commit.lsn > acknowledged);
        all.sort_by_key(|commit| (commit.lsn, commit.pid));
        all
    }

    /// What each session does.
    #[must_use]
    pub fn activity(&self) -> Vec<SessionActivity> {
        let sessions = self.sessions.lock();
        sessions.iter().map(|(pid, control)| control.activity(*pid)).collect()
    }

    /// Transactions that ended since the process began.
    #[must_use]
    pub fn ended_transactions(&self) -> EndedTransactions {
        // Held while a session leaves, so that none is counted twice or not at all.
        let sessions = self.sessions.lock();
        let mut ended = EndedTransactions {
            committed: self.committed.load(Relaxed),
            rolled_back: self.rolled_back.load(Relaxed),
            deadlocks: self.deadlocks.load(Relaxed),
        };
        for control in sessions.values() {
            let (committed, rolled_back) = control.ended_transactions();
            ended.committed += committed;
            ended.rolled_back += rolled_back;
        }
        ended
    }

    /// A session's wait would have closed a circle.
    pub(super) fn count_deadlock(&self) {
        self.deadlocks.fetch_add(1, Relaxed);
    }

    /// Sessions open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Sessions admitted at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// One admitted session; dropping it gives the place back.
#[derive(Debug)]
pub struct SessionGuard {
    pid: i32,
    control: Arc<SessionControl>,
    registry: Arc<SessionRegistry>,
}

impl SessionGuard {
    /// The number that a cancel request names.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The secret that a cancel request has to show.
    #[must_use]
    pub fn secret(&self) -> i32 {
        self.control.secret
    }

    /// The user who was let in.
    pub(super) fn belongs_to(&self, user: &str) {
        let _ = self.control.user.set(user.to_owned());
    }

    /// The session waits for its commit no longer, and that is not acknowledged: it stays listed.
    pub(super) fn leave_in_doubt(&self, lsn: Lsn, token: Option<CommitToken>) {
        let since = self.control.waits_for.lock().map_or_else(Instant::now, |(.., since)| since);
        let user = self.control.user.get().cloned().unwrap_or_default();
        let mut left = self.registry.left.lock();
        left.push_back(InDoubt { lsn, token, pid: self.pid, user, since, is_left: true });
        if left.len() > LEFT_MAX {
            left.pop_front();
        }
        drop(left);
        self.control.waits_for(None);
    }

    pub(super) fn control(&self) -> &Arc<SessionControl> {
        &self.control
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let registry = &self.registry;
        let mut sessions = registry.sessions.lock();
        sessions.remove(&self.pid);
        let (committed, rolled_back) = self.control.ended_transactions();
        registry.committed.fetch_add(committed, Relaxed);
        registry.rolled_back.fetch_add(rolled_back, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_types::Epoch;

    #[test]
    fn a_place_is_given_back_when_the_session_ends() {
        let registry = Arc::new(SessionRegistry::new(1));
        let first = registry.register(7).unwrap();
        assert_eq!(registry.register(8).unwrap_err(), TooManySessions { limit: 1 });
        drop(first);
        assert_eq!(registry.count(), 0);
        assert!(registry.register(8).is_ok());
    }

    #[test]
    fn only_the_right_secret_cancels() {
        let registry = Arc::new(SessionRegistry::new(2));
        let session = registry.register(7).unwrap();
        registry.cancel(session.pid(), 8);
        assert_eq!(session.control().interrupt(), None);
        registry.cancel(session.pid(), 7);
        assert_eq!(session.control().interrupt(), Some(Interrupt::Cancelled));
        assert_eq!(session.control().interrupt(), None, "a cancellation is taken once");
    }

    #[test]
    fn commits_in_doubt_are_listed_until_they_are_acknowledged() {
        let registry = Arc::new(SessionRegistry::new(2));
        let (a, b) = (registry.register(1).unwrap(), registry.register(2).unwrap());
        a.belongs_to("ann");
        let token = CommitToken { epoch: Epoch(7), number: 42 };
        a.control().waits_for(Some((Lsn(9), Some(token))));
        b.control().waits_for(Some((Lsn(8), None)));
        a.leave_in_doubt(Lsn(9), Some(token));
        let pid = a.pid();
        drop(a);
        let listed = registry.in_doubt(Lsn(7));
        assert_eq!(
            listed.iter().map(|c| (c.lsn, c.is_left)).collect::<Vec<_>>(),
            [(Lsn(8), false), (Lsn(9), true)]
        );
        assert_eq!((listed[1].token, listed[1].pid, &*listed[1].user), (Some(token), pid, "ann"));
        assert_eq!(registry.in_doubt(Lsn(8)).len(), 1, "the one of 8 is settled");
        assert!(registry.in_doubt(Lsn(9)).is_empty());
        assert!(registry.in_doubt(Lsn(0)).iter().all(|c| !c.is_left), "settled ones are forgotten");
    }

    #[test]
    fn transactions_are_counted_beyond_their_session() {
        let registry = Arc::new(SessionRegistry::new(2));
        let (a, b) = (registry.register(1).unwrap(), registry.register(2).unwrap());
        a.control().counts(true);
        a.control().counts(true);
        b.control().counts(false);
        drop(a);
        registry.count_deadlock();
        let ended = EndedTransactions { committed: 2, rolled_back: 1, deadlocks: 1 };
        assert_eq!(registry.ended_transactions(), ended);
    }

    #[test]
    fn ending_all_reaches_every_open_session_and_no_later_one() {
        let registry = Arc::new(SessionRegistry::new(3));
        let reason = EndReason { message: "demoted".to_owned(), hint: None };
        let (a, b) = (registry.register(1).unwrap(), registry.register(2).unwrap());
        assert_eq!(registry.end_all(&reason), 2);
        let later = registry.register(3).unwrap();
        assert_eq!(a.control().end_reason(), Some(reason.clone()));
        assert_eq!(b.control().end_reason(), Some(reason));
        assert_eq!(later.control().end_reason(), None);
    }
}
