//! The join of store, log and member: the commit section, and the lawful order of effects.
//!
//! ```text
//!  session: redo ─► [section: LSN, log buffer, versions stamped, Member::step] ─► reply waits at the gate
//!                                                                      │
//!  log writer: durable ──► Member::step ──┐                            ▼
//!  standby: ack ─────────► Member::step ──┴─► acknowledged_lsn ─► visible, gate opens, followers told
//! ```
//! Every event enters [`Engine::step`]; what comes out is done in the order that
//! `understudy_replication::Output` prescribes (law 3).
//!
//! **Invariants.** 1. The section's mutex is never held over I/O. 2. An epoch's first record is
//! appended in the same critical section that opened the epoch, so no commit slips in before it.
//! 3. The control file on disk is never older than what a message or a Lease write relies on.
//!
//! Deliberately absent: sockets, the Lease's requests, time-outs (`node/`), SQL (`pg/`).

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod turn;

use crate::{
    clock,
    datadir::ControlFile,
    feed::Feeds,
    gate::Gate,
    metrics::{Metrics, ROLES},
    pg::{
        AckWait, CheckpointWait, CommitRefused, Database, LogHold, Noted, OutcomeUnknown,
        ReadRefused, RoleWait, ServerIdentity, SessionRegistry, Standing,
        tokens::{self, Known, OpenToken, OpenTokens, Outcome},
    },
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::{mpsc, watch};
use understudy_replication::{
    EndReason, Event, Input, LeaseWrite, LogEnd, Member, Message, NotSettable, Opening, Output,
    Pledge, PledgeRefused, PledgeRequest,
};
use understudy_store::{ApplyError, Store, Txn};
use understudy_txlog::{
    Appender, Log,
    record::{PAYLOAD_BYTES_MAX, RecordKind},
};
use understudy_types::{
    CommitToken, Durability, Epoch, EpochBegin, EpochId, Lsn, Moment, Position, Role,
};

/// What must be done about the world, by the tasks of `node/`.
#[derive(Debug)]
pub enum Effect {
    /// Write the Lease.
    WriteLease(Box<LeaseWrite>),
    /// Read the Lease consistently.
    ReadLease,
    /// Bring the whole log to disk and answer.
    SyncLog,
    /// Set the pod's role label.
    Label(Role),
    /// End client sessions.
    EndSessions(EndReason),
    /// Initialise the directory (R20).
    Initialise,
    /// Leave the process.
    Restart(&'static str),
    /// A new epoch of this process: followers must attach again.
    EpochOpened(EpochId),
    /// Ask the other voter for its word.
    AskPledge(Box<PledgeRequest>),
    /// For the log and the decision's record.
    Event(Event),
}

/// Longest queue of effects that wait for their task. Each is the answer to one event off the commit
/// path; a queue this long means that the task is dead, and the process ends.
pub const EFFECTS_MAX: usize = 1024;

/// What the section guards.
pub struct Section {
    /// The roles and rules.
    pub member: Member,
    /// The log's one appender; `None` while the log is being cut.
    pub appender: Option<Appender>,
}

/// See the module.
pub struct Engine {
    /// The rows.
    pub store: Arc<Store>,
    /// The log.
    pub log: Log,
    /// Followers that this member feeds.
    pub feeds: Feeds,
    /// Replies that wait.
    pub gate: Arc<Gate>,
    /// What is counted.
    pub metrics: Metrics,
    section: Mutex<Section>,
    control: Mutex<ControlFile>,
    published: Published,
    effects: mpsc::Sender<Effect>,
    role: watch::Sender<(Role, Epoch)>,
    /// Messages of the follower half for its feeder; the link's task drains it.
    to_feeder: Mutex<Vec<Message>>,
    identity: ServerIdentity,
    sessions: Arc<SessionRegistry>,
    tokens: Arc<OpenTokens>,
    keeper: OnceLock<Weak<dyn LogKeeper>>,
    own: Weak<Self>,
}

/// What every statement reads without the section's lock, apart from what every commit counts.
#[repr(align(128))]
struct Published {
    /// Until when this member may answer as current, by `clock::now`.
    authority_end: AtomicU64,
    /// The role, by its number: its place in [`ROLES`].
    role: AtomicU8,
}

impl Published {
    fn new(role: Role) -> Self {
        Self { authority_end: AtomicU64::new(0), role: AtomicU8::new(role as u8) }
    }

    fn role(&self) -> Role {
        let at = usize::from(self.role.load(Ordering::Acquire));
        ROLES.get(at).copied().unwrap_or(Role::Failed)
    }
}

/// Who takes this store's checkpoints, and knows what the log is kept for.
pub trait LogKeeper: Send + Sync {
    /// See [`Database::checkpoint`]. Blocks on files.
    ///
    /// # Errors
    /// Why no checkpoint was taken.
    fn checkpoint(&self) -> Result<Lsn, String>;

    /// See [`Database::log_holds`].
    ///
    /// # Errors
    /// Why that is not known.
    fn holds(&self) -> Result<Vec<LogHold>, String>;
}

/// What an engine is made from, after recovery.
pub struct Parts {
    /// Recovered rows.
    pub store: Arc<Store>,
    /// Recovered log.
    pub log: Log,
    /// The member, at the log's end.
    pub member: Member,
    /// The control file.
    pub control: ControlFile,
    /// What clients are told this server is.
    pub identity: ServerIdentity,
    /// Client sessions.
    pub sessions: Arc<SessionRegistry>,
}

impl Engine {
    /// Joins the parts. The receiver's task must outlive every step.
    #[must_use]
    pub fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<Effect>) {
        let (effects, receiver) = mpsc::channel(EFFECTS_MAX);
        let appender = parts.log.appender();
        let metrics = Metrics::default();
        let engine = Arc::new_cyclic(|own| Self {
            store: parts.store,
            feeds: Feeds::new(parts.log.clone(), metrics.clone()),
            log: parts.log,
            gate: Arc::new(Gate::default()),
            metrics,
            section: Mutex::new(Section { member: parts.member, appender: Some(appender) }),
            control: Mutex::new(parts.control),
            published: Published::new(Role::Recovering),
            effects,
            role: watch::channel((Role::Recovering, Epoch::ZERO)).0,
            to_feeder: Mutex::new(Vec::new()),
            identity: parts.identity,
            sessions: parts.sessions,
            tokens: Arc::default(),
            keeper: OnceLock::new(),
            own: Weak::clone(own),
        });
        let weak = Arc::downgrade(&engine);
        engine.log.on_durable(Box::new(move |lsn| {
            if let Some(engine) = weak.upgrade() {
                engine.step(Input::Durable(lsn));
                engine.feeds.pump(&engine.progress());
            }
        }));
        // R2, A2.15: what was not synced may be gone although it can still be read. The log has noted it
        // for its next start; this process must not answer from it any more.
        engine.log.on_failure(Box::new(|error| {
            tracing::error!(error = %error, "the log cannot be written; the process ends");
            std::process::abort();
        }));
        (engine, receiver)
    }

    /// Runs `look` under the section's lock. No I/O in it.
    pub fn with_section<T>(&self, look: impl FnOnce(&mut Section) -> T) -> T {
        look(&mut self.section.lock())
    }

    /// Names who takes the checkpoints; a second one is not heard.
    pub fn kept_by(&self, keeper: Weak<dyn LogKeeper>) {
        let _ = self.keeper.set(keeper);
    }

    fn keeper(&self) -> Result<Arc<dyn LogKeeper>, String> {
        let keeper = self.keeper.get().and_then(Weak::upgrade);
        keeper.ok_or_else(|| "this member has no store of its own on disk yet".to_owned())
    }

    /// The control file; a duplicate makes it go over to the new store's.
    #[must_use]
    pub fn control_file(&self) -> ControlFile {
        self.control.lock().clone()
    }

    /// One event; effects are done or queued when it returns.
    pub fn step(&self, input: Input) {
        let now = clock::now();
        self.step_within(self.section.lock(), input, now);
    }

    /// The same, for who has looked at the section before.
    fn step_within(&self, mut section: MutexGuard<'_, Section>, input: Input, now: Moment) {
        let out = section.member.step(input, now);
        let out = self.begin_epoch(&mut section, out, now);
        self.publish(&section);
        drop(section);
        self.perform(out);
    }

    /// Another voter asks for this one's word (R11, R13c): judged, and persisted before it is returned.
    pub fn pledge(&self, request: PledgeRequest) -> Result<Pledge, PledgeRefused> {
        let now = clock::now();
        let mut section = self.section.lock();
        let end = self.log_end();
        let mut out = section.member.step(Input::PledgeAsked { request, end }, now);
        let promised = section.member.control().promised.number;
        drop(section);
        let answer = out.pledge.take();
        self.perform(out);
        let leaving = || PledgeRefused { why: "it is about to restart".to_owned(), promised };
        answer.unwrap_or_else(|| Err(leaving()))
    }

    /// The other voter answered, or did not.
    pub fn pledge_answered(&self, epoch: EpochId, answer: Result<Pledge, PledgeRefused>) {
        self.step(Input::PledgeAnswered { epoch, answer, end: self.log_end() });
    }

    /// The log is on disk up to `lsn` (R8); frames were stopped before, so nothing lies above it.
    pub fn synced(&self, lsn: Lsn) {
        self.step(Input::Synced(LogEnd { lsn, ..self.log_end() }));
    }

    fn log_end(&self) -> LogEnd {
        LogEnd { epoch: self.log.history().last_epoch().number, lsn: self.log.end() }
    }

    /// Opens the epoch that `out` demands, within the same critical section.
    fn begin_epoch(&self, section: &mut Section, mut out: Output, now: Moment) -> Output {
        let Some(Opening { epoch, is_lossy }) = out.begin_epoch else { return out };
        let author = section.member.me().incarnation;
        let Some(appender) = section.appender.as_mut() else {
            out.restart = Some("an epoch opened while the log was being cut");
            return out;
        };
        let previous = Position { epoch: self.log.history().last_epoch(), lsn: appender.end() };
        let begin = EpochBegin { epoch, author, previous, hash: appender.hash(), lossy: is_lossy };
        let Ok(lsn) = appender.begin_epoch(&begin) else {
            out.restart = Some("the epoch to open does not continue the log");
            return out;
        };
        self.store.begin_epoch(lsn, epoch.number, is_lossy);
        self.log.request_durable(lsn);
        let next = section.member.step(Input::Appended(lsn), now);
        merge(&mut out, next);
        out
    }

    /// Publishes what is read without the lock.
    fn publish(&self, section: &Section) {
        self.published.authority_end.store(section.member.authority_end().0, Ordering::Release);
    }

    fn perform(&self, out: Output) {
        if out.persist {
            self.persist();
        }
        if let Some(opening) = out.begin_epoch {
            self.send(Effect::EpochOpened(opening.epoch));
        }
        if out.sync_log {
            self.send(Effect::SyncLog);
        }
        if let Some(request) = out.ask {
            self.send(Effect::AskPledge(Box::new(request)));
        }
        if let Some(write) = out.lease_write {
            self.send(Effect::WriteLease(Box::new(write)));
        }
        if out.lease_read {
            self.send(Effect::ReadLease);
        }
        if !out.messages.is_empty() {
            self.route(out.messages);
        }
        if let Some(lsn) = out.acknowledged {
            self.show(lsn);
        }
        if out.overdue {
            self.gate
                .interrupt("no standby answers; the commit is kept, and counts once one has it");
        }
        if let Some(role) = out.role {
            let epoch = self.section.lock().member.view().epoch();
            // Under the channel's lock, so that both tell the same of two changes at a time.
            self.role.send_modify(|told| {
                *told = (role, epoch);
                self.published.role.store(role as u8, Ordering::Release);
            });
            self.send(Effect::Label(role));
        }
        if let Some(reason) = out.end_sessions {
            match reason {
                EndReason::Promoted => {}
                // The same process may serve again, by a grant or a new epoch.
                EndReason::Lapsed => self.gate.interrupt("this member has no authority now"),
                EndReason::Deposed | EndReason::HandedOver => {
                    self.gate.close("this member is no longer the active");
                }
            }
            self.send(Effect::EndSessions(reason));
        }
        if out.initialise {
            self.send(Effect::Initialise);
        }
        for event in out.events {
            self.send(Effect::Event(event));
        }
        if let Some(why) = out.restart {
            self.send(Effect::Restart(why));
        }
    }

    /// Makes everything up to `lsn` visible and lets its replies go (R17).
    fn show(&self, lsn: Lsn) {
        self.store.set_visible(lsn);
        self.gate.open_to(lsn);
    }

    fn persist(&self) {
        let control = self.control.lock();
        let state = self.section.lock().member.control().clone();
        if let Err(error) = control.persist(&state) {
            tracing::error!(error = %error, "the control file cannot be written; the process ends");
            std::process::abort();
        }
    }

    fn send(&self, effect: Effect) {
        if let Err(error) = self.effects.try_send(effect) {
            tracing::error!(error = %error, "effects are not taken any more; the process ends");
            std::process::abort();
        }
    }

    /// An active talks to its standby, a follower to its feeder.
    fn route(&self, messages: Vec<Message>) {
        for message in messages {
            let down = matches!(message, Message::Heartbeat { .. });
            if down {
                self.feeds.to_standby(message);
            } else {
                self.to_feeder.lock().push(message);
            }
        }
        self.feeds.pump(&self.progress());
    }

    /// Messages that the follower half wants sent to its feeder.
    #[must_use]
    pub fn take_messages_for_feeder(&self) -> Vec<Message> {
        std::mem::take(&mut *self.to_feeder.lock())
    }

    /// How far this member is, for its followers.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let section = self.section.lock();
        let followed = section.member.standing(Moment::ZERO).epoch;
        let epoch = section.member.active_epoch().map_or(followed, |e| e.number);
        Progress { epoch, end: self.log.end(), acknowledged: section.member.acknowledged() }
    }

    /// The commit section: gives the transaction its LSN, logs it, stamps its versions, releases its
    /// locks. Not acknowledged yet: the reply waits at the gate. A transaction without changes gets
    /// the LSN that its answer depends on.
    ///
    /// # Errors
    /// When this member may not take it; the transaction is rolled back.
    fn take_commit(&self, txn: Txn) -> Result<Lsn, CommitRefused> {
        let redo = self.store.redo(&txn);
        if redo.is_empty() {
            let depends = txn.depends_lsn();
            self.store.rollback(txn);
            return Ok(depends);
        }
        if redo.len() > PAYLOAD_BYTES_MAX {
            self.store.rollback(txn);
            return Err(CommitRefused::TooLarge { bytes: redo.len() });
        }
        let now = clock::now();
        let token = txn.token();
        let mut section = self.section.lock();
        if let Err(refused) = self.may_commit(&section, &txn, now) {
            drop(section);
            self.store.rollback(txn);
            return Err(refused);
        }
        let Section { member, appender } = &mut *section;
        let (Some(epoch), Some(appender)) = (member.active_epoch(), appender.as_mut()) else {
            drop(section);
            self.store.rollback(txn);
            return Err(CommitRefused::ReadOnly { active: None });
        };
        if token.is_some_and(|token| token.epoch != epoch.number) {
            drop(section);
            self.store.rollback(txn);
            return Err(CommitRefused::TokenOutdated);
        }
        let lsn = appender.append(epoch.number, RecordKind::Transaction, &redo);
        self.store.commit(txn, lsn);
        let out = member.step(Input::Appended(lsn), now);
        let waits_for_disk = member.policy().is_none_or(|p| p.durability != Durability::Memory);
        drop(section);
        if waits_for_disk {
            self.log.request_durable(lsn);
        }
        self.perform(out);
        self.metrics.commits.inc();
        if !self.feeds.are_none() {
            turn::ring(&self.own);
        }
        Ok(lsn)
    }

    fn may_commit(&self, section: &Section, txn: &Txn, now: Moment) -> Result<(), CommitRefused> {
        if section.member.active_epoch().is_none() {
            let active = section.member.feeder_target();
            return Err(CommitRefused::ReadOnly { active });
        }
        if !section.member.takes_commits(now) {
            return Err(CommitRefused::NoAuthority);
        }
        if self.log.is_full() {
            return Err(CommitRefused::LogFull);
        }
        self.store.validate(txn).map_err(|_| CommitRefused::Serialization)
    }

    /// R6a for reads: whether an answer may claim to be current, by the clock at this moment.
    #[must_use]
    pub fn may_answer_current(&self) -> bool {
        clock::now().0 < self.published.authority_end.load(Ordering::Acquire)
    }

    /// Role and epoch, and their changes.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<(Role, Epoch)> {
        self.role.subscribe()
    }

    /// A follower received whole encoded records: logs and applies them in one critical section, so
    /// that whoever becomes active has applied all it logged.
    ///
    /// # Errors
    /// When the records do not continue the log, or cannot be applied; the link is of no use then.
    pub fn follow(&self, frame: Frame<'_>) -> Result<Lsn, FollowError> {
        let mut section = self.section.lock();
        if !section.member.accepts_frames(frame.epoch) {
            return Err(FollowError::Epoch(section.member.control().promised.number));
        }
        let Some(appender) = section.appender.as_mut() else { return Err(FollowError::Cutting) };
        if !frame.records.is_empty() {
            appender.append_encoded(frame.records)?;
            self.apply(frame.records)?;
        }
        let end = appender.end();
        let visible = section.member.follow_acknowledged(end, frame.acknowledged);
        let both = section.member.policy().is_some_and(|p| p.durability == Durability::BothDisks);
        drop(section);
        if both {
            self.log.request_durable(end);
        }
        self.show(visible);
        Ok(end)
    }

    fn apply(&self, records: &[u8]) -> Result<(), FollowError> {
        for record in understudy_txlog::record::records(records) {
            let record = record.map_err(|e| FollowError::Record(e.to_string()))?;
            match record.kind {
                RecordKind::Transaction => self
                    .store
                    .apply(record.lsn, record.payload)
                    .map_err(|e| FollowError::Apply(record.lsn, e))?,
                RecordKind::EpochBegin => begin_epoch(&self.store, record.lsn, record.payload)
                    .map_err(FollowError::Record)?,
                RecordKind::Feeder => self.store.advance(record.lsn),
            }
        }
        Ok(())
    }
}

impl Database for Engine {
    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    fn identity(&self) -> ServerIdentity {
        self.identity.clone()
    }

    fn standing(&self) -> Standing {
        let (role, epoch) = *self.role.borrow();
        let active = self.section.lock().member.feeder_target();
        Standing { role, epoch, active }
    }

    fn role(&self) -> Role {
        self.published.role()
    }

    fn commit(&self, txn: Txn) -> Result<Lsn, CommitRefused> {
        self.take_commit(txn)
    }

    fn log_is_behind(&self) -> bool {
        self.log.is_behind()
    }

    fn acknowledged_lsn(&self) -> Lsn {
        self.gate.acknowledged()
    }

    fn acknowledged(&self, lsn: Lsn) -> AckWait {
        let wait = self.gate.wait(lsn);
        let metrics = self.metrics.clone();
        let asked = Instant::now();
        Box::pin(async move {
            let answer = wait.await;
            match &answer {
                Ok(()) => metrics.answer_wait_seconds.observe(asked.elapsed().as_secs_f64()),
                Err(_) => drop(metrics.answers_unknown.inc()),
            }
            answer.map_err(|unknown| OutcomeUnknown { reason: unknown.reason.to_owned() })
        })
    }

    fn confirms_reads(&self) -> Result<(), ReadRefused> {
        // A standby and a subscriber never claim to be current.
        if Database::role(self) != Role::Active || self.may_answer_current() {
            return Ok(());
        }
        Err(ReadRefused { reason: "neither the Lease nor the standby confirms it".into() })
    }

    fn give_token(&self) -> Result<OpenToken, CommitRefused> {
        let section = self.section.lock();
        match section.member.active_epoch() {
            Some(epoch) => Ok(self.tokens.give(epoch.number)),
            None => Err(CommitRefused::ReadOnly { active: section.member.feeder_target() }),
        }
    }

    fn outcome(&self, token: CommitToken) -> Outcome {
        let serving = self.section.lock().member.active_epoch().map(|epoch| epoch.number);
        let known = Known {
            serving: serving.filter(|_| self.may_answer_current()),
            open: &self.tokens,
            acknowledged: self.store.acknowledged(),
            lossy: self.store.lossy_epoch(),
        };
        tokens::outcome(token, &known, |token| self.store.fate_of(token))
    }

    fn set_active(&self) -> Result<RoleWait, NotSettable> {
        let (now, at_ms) = (clock::now(), clock::wall().as_millisecond().unsigned_abs());
        let section = self.section.lock();
        section.member.may_be_set_active(now)?;
        self.step_within(section, Input::SetActive { at_ms }, now);
        let mut role = self.role.subscribe();
        Ok(Box::pin(async move {
            // The engine outlives its sessions.
            let _ = role.wait_for(|(role, _)| *role == Role::Active).await;
        }))
    }

    fn checkpoint(&self) -> CheckpointWait {
        let keeper = self.keeper();
        Box::pin(async move {
            let keeper = keeper?;
            let taken = tokio::task::spawn_blocking(move || keeper.checkpoint());
            taken.await.map_err(|ended| ended.to_string())?
        })
    }

    fn log_holds(&self) -> Result<Vec<LogHold>, String> {
        self.keeper()?.holds()
    }

    fn sessions(&self) -> &Arc<SessionRegistry> {
        &self.sessions
    }

    fn note(&self, what: Noted) {
        let counter = match what {
            Noted::LockWait => &self.metrics.lock_waits,
            Noted::Deadlock => &self.metrics.deadlocks,
            Noted::SlowStatement => &self.metrics.slow_statements,
        };
        counter.inc();
    }
}

/// The store passes over an epoch's first record, and keeps whether commits are missing before it.
pub(crate) fn begin_epoch(store: &Store, lsn: Lsn, payload: &[u8]) -> Result<(), String> {
    let begin = understudy_txlog::record::read_epoch_begin(payload).map_err(|e| e.to_string())?;
    store.begin_epoch(lsn, begin.epoch.number, begin.lossy);
    Ok(())
}

/// How far a feeder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Epoch that it serves or follows.
    pub epoch: Epoch,
    /// Last record.
    pub end: Lsn,
    /// Everything at or below is acknowledged.
    pub acknowledged: Lsn,
}

/// What came from the feeder.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Epoch of the feeder.
    pub epoch: Epoch,
    /// Whole encoded records; may be empty.
    pub records: &'a [u8],
    /// What the feeder says is acknowledged.
    pub acknowledged: Lsn,
}

/// Why received records were not taken.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A higher epoch is promised.
    #[error("epoch {0} is promised here")]
    Epoch(Epoch),
    /// The log is being cut; the process is about to restart.
    #[error("the log is being cut at a fork")]
    Cutting,
    /// They do not continue the log.
    #[error("the records do not continue the log")]
    Append(#[from] understudy_txlog::AppendError),
    /// They are damaged.
    #[error("a record is damaged: {0}")]
    Record(String),
    /// The store does not take one.
    #[error("record {0} cannot be applied: {1}")]
    Apply(Lsn, #[source] ApplyError),
}

fn merge(out: &mut Output, next: Output) {
    out.persist |= next.persist;
    out.sync_log |= next.sync_log;
    out.lease_read |= next.lease_read;
    out.messages.extend(next.messages);
    out.acknowledged = out.acknowledged.max(next.acknowledged);
    out.role = next.role.or(out.role);
    out.events.extend(next.events);
}
