//! What waits to be written, what it waits for, and what becomes of it where the wait is cut short.
//!
//! Invariants:
//! 1. `bytes[held.from..]` is not written before `held.lsn` is acknowledged (law 3).
//! 2. A wait that is cut short takes back all that was held, and an open block fails with it, as with any
//!    error. Each answer of them that was whole becomes an error: 40003 from the session's own commit on, for
//!    nobody knows what becomes of that; 57014 before it, and for the answer in hand where the commit belongs to
//!    one before. What a session keeps beside its data (settings, prepared statements) stays as it is.

use super::{
    Failure, KEPT_BYTES, READ_BYTES, Report, Session, SessionEnd, TransactionStatus, apart::Cut,
    execute::now_micros, reply, sqlstate, waiting,
};
use crate::pg::{
    database::{OutcomeUnknown, active_hint},
    frame::first_frame,
    listener::end_report,
    registry::EndReason,
};
use futures::FutureExt;
use std::io;
use tokio::io::AsyncWriteExt;
use understudy_sql::{Room, SessionWait};
use understudy_types::{CommitToken, Lsn};

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// `bytes[answered..]` belongs to an answer whose ReadyForQuery is still to come.
    answered: usize,
    /// Where what the statement in hand says begins.
    pub(super) start: usize,
    held: Held,
    /// The client expects an answer now.
    pub(super) is_asked_for: bool,
    /// The memory of `bytes`, as far as it is charged.
    rooms: Vec<Room>,
}

/// What may not be written yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// `bytes[from..]` waits for this LSN; zero when nothing waits.
    lsn: Lsn,
    from: usize,
    /// `bytes[..free]` are the whole answers before it.
    free: usize,
    /// ReadyForQuery messages among them: so many answers a client expects.
    ready: usize,
    commit: Option<HeldCommit>,
}

/// The session's own commit among what is held. There is one at most: whatever might lead to the next waits
/// until this one is let go ([`Session::owes_a_commit`]).
#[derive(Debug, Clone, Copy)]
struct HeldCommit {
    lsn: Lsn,
    token: Option<CommitToken>,
    /// ReadyForQuery messages held before it.
    ready_before: usize,
}

/// What a commit came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Its record, or what it depends on where it left none.
    pub(super) lsn: Lsn,
    /// The newest that it had read.
    pub(super) depends: Lsn,
    pub(super) token: Option<CommitToken>,
}

impl Output {
    /// The first bytes of a session.
    pub(super) fn new(greeting: Vec<u8>) -> Output {
        Output {
            bytes: greeting,
            answered: 0,
            start: 0,
            held: Held::default(),
            is_asked_for: true,
            rooms: Vec::new(),
        }
    }

    /// Holds the memory of rows for as long as they are here.
    pub(super) fn keep(&mut self, room: Room) {
        if room.is_charged() {
            self.rooms.push(room);
        }
    }

    /// An answer has got its ReadyForQuery.
    pub(super) fn ends_answer(&mut self) {
        self.answered = self.bytes.len();
        if self.held.lsn != Lsn::ZERO {
            self.held.ready += 1;
        }
        self.is_asked_for = true;
    }

    /// So many of the first bytes are gone.
    fn is_shorter_by(&mut self, bytes: usize) {
        let Held { from, free, .. } = &mut self.held;
        for place in [&mut self.answered, &mut self.start, from, free] {
            *place = place.saturating_sub(bytes);
        }
    }

    /// Takes back what the answer in hand has from there on. What comes in its place is held as it was.
    pub(super) fn cut_to(&mut self, start: usize) {
        self.bytes.truncate(start.max(self.answered));
        self.held.from = self.held.from.min(self.bytes.len());
    }

    /// Takes back what is held, but for what it says of settings, which stay as they are.
    fn drop_held(&mut self) -> Held {
        let held = std::mem::take(&mut self.held);
        if held.lsn != Lsn::ZERO {
            let taken = self.bytes.split_off(held.from.min(self.bytes.len()));
            self.answered = self.answered.min(held.from);
            let mut rest = &taken[..];
            while let Ok(Some(message)) = first_frame(rest, taken.len()) {
                let (bytes, behind) = rest.split_at(message.total());
                if message.tag == reply::PARAMETER_STATUS {
                    self.bytes.extend_from_slice(bytes);
                }
                rest = behind;
            }
        }
        held
    }
}

impl Session {
    /// From here on replies wait for this LSN, `from` being where those that depend on it begin.
    pub(super) fn hold(&mut self, lsn: Lsn, from: usize) {
        if lsn == Lsn::ZERO {
            return;
        }
        let acknowledged = self.database.acknowledged_lsn();
        let held = &mut self.output.held;
        if held.lsn <= acknowledged {
            *held = Held { from, free: self.output.answered, ..Held::default() };
        }
        if lsn > acknowledged {
            held.lsn = held.lsn.max(lsn);
            held.from = held.from.min(from);
            held.free = held.free.min(from);
        }
    }

    /// As [`Session::hold`], for what a commit came to; later snapshots have to see it.
    pub(super) fn hold_commit(&mut self, done: Done, from: usize) {
        let Done { lsn, depends, token } = done;
        self.hold(lsn, from);
        if lsn <= depends {
            // Changes that undo each other leave no record.
            return;
        }
        self.last_commit = lsn;
        let held = &mut self.output.held;
        if held.lsn != Lsn::ZERO {
            held.commit = Some(HeldCommit { lsn, token, ready_before: held.ready });
        }
    }

    /// Whether a commit of the session's own is not visible to it yet, or its reply not free yet.
    pub(super) fn owes_a_commit(&self) -> bool {
        self.last_commit > self.store.visible()
            || (self.output.held.commit.is_some() && self.is_held())
    }

    /// Whether something may not be written yet.
    pub(super) fn is_held(&self) -> bool {
        self.output.held.lsn > self.database.acknowledged_lsn()
    }

    /// Writes the answers that are whole and free, as far as the client takes them now; the rest leaves with the answer in
    /// hand. For before a wait: who sent more behind them may have to read them first.
    pub(super) fn write_answered(&mut self) -> Result<(), SessionEnd> {
        let free = if self.is_held() { self.output.held.free } else { self.output.answered };
        if free == 0 {
            return Ok(());
        }
        let mut left = &self.output.bytes[..free];
        let stream = &mut self.stream;
        let written = async {
            stream.write_all_buf(&mut left).await?;
            stream.flush().await
        };
        if let Some(Err(broken)) = written.now_or_never() {
            return Err(broken.into());
        }
        let gone = free - left.len();
        self.output.bytes.drain(..gone);
        self.output.is_shorter_by(gone);
        self.transaction.output_is_shorter_by(gone);
        Ok(())
    }

    /// Writes what has gathered, once everything it depends on is acknowledged.
    pub(super) async fn write(&mut self) -> Result<(), SessionEnd> {
        let is_answered = self.output.answered == self.output.bytes.len();
        let is_judged = self.limits.slow_micros.is_some() && self.is_held();
        let settled = self.settle().await;
        if is_judged {
            self.judge_duration(now_micros());
        }
        match settled {
            Ok(()) => {}
            // Every answer that was held has become an error.
            Err(Failure::Report(_)) if is_answered => {
                self.fail_transaction();
                self.undone().await;
                self.rests(now_micros());
            }
            Err(failure) => self.fail_message(failure, false).await?,
        }
        self.output.is_asked_for = false;
        let written = async {
            self.stream.write_all(&self.output.bytes).await?;
            self.stream.flush().await
        };
        // Cut off in the middle of a message: there is no last word.
        let cut_off = |_| SessionEnd::Broken(io::ErrorKind::TimedOut.into());
        waiting::unless_ended(&self.control, written).await.map_err(cut_off)??;
        if self.output.bytes.capacity() > KEPT_BYTES {
            self.output.bytes = Vec::with_capacity(READ_BYTES);
        }
        self.output.bytes.clear();
        self.output.rooms.clear();
        self.output.is_shorter_by(usize::MAX);
        self.transaction.output_is_shorter_by(usize::MAX);
        Ok(())
    }

    /// Waits until the held replies may go.
    ///
    /// # Errors
    /// Where that is cut short: what becomes of the answer in hand, if there is one.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        if self.is_held() {
            self.write_answered()?;
            let held = &self.output.held;
            let wait = self.database.acknowledged(held.lsn);
            // A commit is done, whatever time its acknowledgement takes. What depends on others' is not.
            let deadline = if held.commit.is_some() { None } else { self.deadline() };
            self.control.waits_for(held.commit.map(|commit| (commit.lsn, commit.token)));
            self.control.awaits(Some(SessionWait::Commit));
            let waited = self.unless_cut(deadline, wait).await;
            self.control.awaits(None);
            match waited {
                Ok(Ok(())) => self.control.waits_for(None),
                Ok(Err(unknown)) => return Err(self.end_unknown(&unknown).into()),
                Err(cut) => return Err(self.take_back(cut)),
            }
        }
        self.output.held = Held::default();
        Ok(())
    }

    /// Answers with errors what is held and will not be waited for any more. Returns what becomes of the answer
    /// in hand; the caller fails the block with it.
    fn take_back(&mut self, cut: Cut) -> Failure {
        let undone = match self.cut_off(cut) {
            Failure::Report(report) => report,
            end @ Failure::End(_) => return end,
        };
        let Held { ready, commit, .. } = self.give_up();
        // Their next rows might depend on what is given up.
        self.portals.clear();
        let status = match self.transaction.status() {
            TransactionStatus::Open => TransactionStatus::Failed,
            status => status,
        };
        let reason = "the wait for its acknowledgement was cancelled by the client";
        let unknown = commit.map(|commit| in_doubt(reason, commit.token));
        for answer in 0..ready {
            let is_before = commit.is_none_or(|commit| answer < commit.ready_before);
            let told = unknown.as_ref().filter(|_| !is_before).unwrap_or(&undone);
            reply::report(&mut self.output.bytes, told);
            reply::ready(&mut self.output.bytes, status);
            self.output.answered = self.output.bytes.len();
        }
        let commits_in_hand = commit.is_some_and(|commit| commit.ready_before == ready);
        unknown.filter(|_| commits_in_hand).unwrap_or(undone).into()
    }

    /// Takes back what is held; an own commit among it is one in doubt from here on.
    pub(super) fn give_up(&mut self) -> Held {
        let held = self.output.drop_held();
        if let Some(commit) = held.commit {
            self.guard.leave_in_doubt(commit.lsn, commit.token);
        }
        held
    }

    /// The member cannot say any more what becomes of what is waited for: the session is over.
    pub(super) fn end_unknown(&mut self, unknown: &OutcomeUnknown) -> SessionEnd {
        let reason = self.control.end_reason().unwrap_or_else(|| EndReason {
            message: unknown.reason.clone(),
            hint: Some(active_hint(self.database.standing().active.as_ref())),
        });
        self.tell_unknown(&unknown.reason);
        self.end(&unknown.reason, &end_report(&reason))
    }

    /// The session has to end.
    pub(super) fn end_for(&mut self, reason: &EndReason) -> SessionEnd {
        self.end(&reason.message, &end_report(reason))
    }

    /// As [`Session::end_for`], with a report in its own words.
    pub(super) fn last_words(&mut self, report: &Report) -> SessionEnd {
        self.end(&report.message, report)
    }

    /// Puts a FATAL error at the end of what may be written.
    fn end(&mut self, why: &str, report: &Report) -> SessionEnd {
        if self.is_held() {
            self.tell_unknown(why);
        }
        reply::report(&mut self.output.bytes, report);
        SessionEnd::Told
    }

    /// Takes back what is held, and says so where an own commit is among it.
    fn tell_unknown(&mut self, why: &str) {
        if let Some(commit) = self.give_up().commit {
            reply::report(&mut self.output.bytes, &in_doubt(why, commit.token));
        }
    }
}

/// 40003 in the words of the promise.
fn in_doubt(reason: &str, token: Option<CommitToken>) -> Report {
    let message = format!("the outcome of the commit is unknown: {reason}");
    let report = Report::error(sqlstate::OUTCOME_UNKNOWN, message);
    match token {
        None => report.hint(
            "It may or may not survive. Reconnect to the active and look before you repeat it.",
        ),
        Some(token) => report.hint(format!(
            "It may or may not survive. Reconnect to the active and ask: CALL ttRepXactStatus('{token}');"
        )),
    }
}
