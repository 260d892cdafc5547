//! The driver of one engine process: tasks around the engine that do what it decided.
//!
//! ```text
//!   control runtime                        first session loop
//!   effects ─ Lease, labels, restart       feeder: accept → serve each follower
//!   tick    ─ 20 ms, status                follower: dial → append, apply, acknowledge
//!   watch of the Lease, checkpoints, users, control API, signals
//! ```
//! **Invariants.** 1. Tasks hold no role of their own: they ask the engine. 2. Whatever must not be
//! survived (a dead effects task, an unwritable control file) ends the process; the supervisor starts
//! its successor, which recovers.
//!
//! Deliberately absent: decisions (crate `replication`), SQL sessions (`pg`).

pub(crate) mod checkpoints;
mod control;
mod duplicates;
mod feed_link;
mod follow_link;
mod hand_over;
pub mod lease_link;
mod lives;
mod pledges;
pub(crate) mod recover;
mod start;
pub(crate) mod status;
pub(crate) mod users;

pub use start::run;

use crate::{
    clock,
    config::Config,
    datadir::{DataDir, DiskFailure, trapped_name},
    duplicate::Duplicates,
    engine::{Effect, Engine},
    metrics::Metrics,
    peer::{LinkTls, Target},
    pg::{self, SessionRegistry},
    pod::RoleLabels,
    supervisor::Lifeline,
    tls::Tls,
};
use lease_link::{LeaseLink, chain};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use understudy_agent_api::{AgentStatus, Progress, Scheme, TrappedStatus};
use understudy_authority::Timing;
use understudy_replication::{EndReason, FollowerKind, Input, Policy};
use understudy_store::Store;
use understudy_types::{Lsn, MemberName, Moment, Role, Span};

/// Exit code that asks the supervisor for a successor at once.
pub const EXIT_RESTART: i32 = 75;
/// Time between two ticks of the member.
const TICK: Duration = Duration::from_millis(20);
/// Time between two looks for rows to free.
const RECLAIM_EVERY: Duration = Duration::from_millis(100);
/// Rows freed at a time, well below a millisecond.
const RECLAIM_ROWS: usize = 1_000;
/// Longest time that a leaving process gives its log to reach the disk.
const LAST_SYNC: Duration = Duration::from_secs(1);
/// Longest time that a commit waits for the standby before the active goes on alone (seed 003).
const RETURN_WAIT_MS: u64 = 10_000;
/// Time between two attempts to write a role label.
const LABEL_AGAIN: Duration = Duration::from_millis(300);

/// What the link to the feeder says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeederNote {
    pub(crate) peer: Option<MemberName>,
    pub(crate) up: bool,
    pub(crate) heard: Option<Moment>,
    pub(crate) error: Option<String>,
    /// The error is about certificates.
    pub(crate) is_untrusted: bool,
}

/// One engine process.
pub struct Node {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Standby or subscriber.
    pub kind: FollowerKind,
    /// Certificates for the replication port.
    pub tls: Arc<dyn LinkTls>,
    /// The environment.
    pub config: Config,
    /// The Lease's requests.
    pub lease: Arc<LeaseLink>,
    /// Client sessions.
    pub sessions: Arc<SessionRegistry>,
    labels: RoleLabels,
    scheme: Mutex<Scheme>,
    status: watch::Sender<Arc<AgentStatus>>,
    feeder: Mutex<FeederNote>,
    takeover: Mutex<status::Takeover>,
    progress: Mutex<Option<Progress>>,
    problem: Mutex<Option<recover::Unfit>>,
    trapped: Mutex<Vec<TrappedStatus>>,
    certificate_end: Box<dyn Fn() -> Option<String> + Send + Sync>,
    label: watch::Sender<Option<Role>>,
    /// Certificates for calls to other agents.
    agent_tls: Arc<Tls>,
    stopping: AtomicBool,
    volumes: Arc<DataDir>,
    /// What the disk did to an earlier process, or to this one.
    disk_failure: Option<DiskFailure>,
    /// The files could not be used: only a duplicate helps.
    needs_duplicate: bool,
    line: Mutex<Option<Lifeline>>,
    /// Streams of this store to others.
    pub duplicates: Duplicates,
}

impl Node {
    /// Does what the engine decided, one effect after the other; requests run beside.
    async fn effects(self: Arc<Self>, mut effects: mpsc::Receiver<Effect>) {
        while let Some(effect) = effects.recv().await {
            match effect {
                Effect::WriteLease(write) => {
                    self.takeover.lock().promised(clock::now());
                    let lease = Arc::clone(&self.lease);
                    tokio::spawn(async move { lease.write(*write).await });
                }
                Effect::ReadLease => self.read_lease_soon(),
                Effect::SyncLog => self.sync_log(),
                Effect::Label(role) => {
                    self.label.send_replace(Some(role));
                }
                Effect::EndSessions(reason) => self.end_sessions(reason),
                Effect::Initialise => {
                    let node = Arc::clone(&self);
                    tokio::spawn(async move { node.initialise() });
                }
                Effect::Restart(why) => self.restart(why),
                Effect::EpochOpened(epoch) => {
                    tracing::info!(epoch = %epoch.number, "an epoch was opened");
                    self.engine.metrics.epochs_opened.inc();
                    self.engine.feeds.detach_all();
                }
                Effect::AskPledge(request) => {
                    let node = Arc::clone(&self);
                    tokio::spawn(async move { node.ask_pledge(*request).await });
                }
                Effect::Event(event) => {
                    tracing::info!(event = ?event, "decided");
                    self.takeover.lock().note(&event, clock::now(), &self.engine);
                }
            }
            self.publish_status();
        }
    }

    /// Time passes: every [`TICK`].
    async fn ticks(self: Arc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut beat = 0_u32;
        let mut jumps = clock::JumpWatch::start();
        loop {
            interval.tick().await;
            let oldest = self.engine.with_section(|s| {
                s.member.policy().map_or(Span::seconds(2), |p| p.timing.probe_age_max())
            });
            let data_path_ok = self.engine.log.probe_age() < Duration::from(oldest);
            if let Some(jump) = jumps.look() {
                tracing::warn!(
                    nanoseconds = jump.0,
                    "the clocks jumped; authority is asked for afresh"
                );
                self.engine.step(Input::ClockJumped);
            }
            self.engine.step(Input::Tick { data_path_ok });
            self.engine.feeds.pump(&self.engine.progress());
            beat = beat.wrapping_add(1);
            if beat.is_multiple_of(10) {
                self.engine.feeds.watch(clock::now());
                self.publish_status();
            }
        }
    }

    /// Keeps the pod's label at the newest role; the active also relabels the other voter, whose own
    /// agent may be unable to (an old active on a lost node would stay an endpoint for 41 s).
    async fn label_pods(self: Arc<Self>) {
        let mut wanted = self.label.subscribe();
        while wanted.changed().await.is_ok() {
            loop {
                let role = *wanted.borrow_and_update();
                let Some(role) = role else { break };
                let mut done = self.label_own(role).await;
                if role == Role::Active {
                    done &= self.unlabel_other_actives().await;
                }
                if done && !wanted.has_changed().unwrap_or(false) {
                    break;
                }
                tokio::time::sleep(LABEL_AGAIN).await;
            }
        }
    }

    async fn label_own(&self, role: Role) -> bool {
        match self.labels.set(&self.config.member, Some(role)).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the role label was not written");
                false
            }
        }
    }

    async fn unlabel_other_actives(&self) -> bool {
        let voters: Vec<_> = self.scheme.lock().voters.iter().map(|v| v.member.clone()).collect();
        let mut done = true;
        for voter in voters.iter().filter(|v| **v != self.config.member) {
            if let Err(error) = self.labels.clear_role(voter, Role::Active).await {
                tracing::warn!(error = %chain(&error), "the other voter's label was not written");
                done = false;
            }
        }
        done
    }

    fn sync_log(self: &Arc<Self>) {
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || match engine.log.sync_all() {
            Ok(lsn) => engine.synced(lsn),
            Err(error) => tracing::error!(error = %chain(&error), "the log was not synced"),
        });
    }

    /// Asks for a consistent read of the Lease.
    pub(crate) fn read_lease_soon(&self) {
        let lease = Arc::clone(&self.lease);
        self.control_runtime(async move { lease.read().await });
    }

    /// Runs on the control runtime from whatever thread this is.
    fn control_runtime(&self, task: impl Future<Output = ()> + Send + 'static) {
        start::control_handle().spawn(task);
    }

    fn end_sessions(&self, reason: EndReason) {
        let active = self.engine.with_section(|s| s.member.feeder_target());
        let words = match reason {
            EndReason::Deposed => "another member is active now",
            EndReason::Lapsed => "this member may not decide at this time",
            EndReason::HandedOver => "the role was handed over",
            EndReason::Promoted => "this member became active",
        };
        let hint = active
            .map(|a| format!("The active is {a}; reconnect with target_session_attrs=read-write."));
        let ended = self.sessions.end_all(&pg::EndReason { message: words.to_owned(), hint });
        self.engine.metrics.sessions_ended.inc_by(ended as u64);
        tracing::info!(ended, words, "client sessions were ended");
    }

    /// R20: this process alone was named initialiser. The directory gets its dbid; everything else is
    /// the first epoch's log. A second attempt keeps the dbid of the first, whose write may still land.
    fn initialise(&self) {
        let fresh = || understudy_types::Dbid(uuid::Uuid::new_v4());
        let dbid = self.engine.with_section(|s| s.member.control().dbid).unwrap_or_else(fresh);
        tracing::info!(dbid = %dbid, "initialising the database");
        self.engine.step(Input::Initialised(dbid));
    }

    /// Leaves the process for its successor.
    pub(crate) fn restart(&self, why: &str) {
        tracing::warn!(why, "the process ends for its successor");
        self.label.send_replace(Some(Role::Idle));
        let log = self.engine.log.clone();
        let (done, synced) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(log.sync_all().is_ok()));
        // A disk that does not answer in time is the successor's problem: it recovers from it.
        let _ = synced.recv_timeout(LAST_SYNC);
        std::process::exit(hand_over::exit_code(self.stopping.load(Ordering::Acquire)));
    }

    /// The process was asked to stop: whatever ends it now ends it for good.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// R19: exports the records above the fork, cuts them off, and leaves the process.
    pub(crate) async fn cut_and_restart(self: &Arc<Self>, fork: Lsn) -> Result<(), String> {
        let history = self.engine.log.history();
        let epoch = history.epoch_at(self.engine.log.end()).number;
        let records = self.engine.log.end().since(fork);
        let export = trapped_name(epoch, fork, records);
        tracing::warn!(fork = %fork, end = %self.engine.log.end(), export, "cutting the log");
        self.engine.with_section(|s| s.appender.take());
        let log = self.engine.log.clone();
        let cut = tokio::task::spawn_blocking(move || log.cut_above(fork, Some(&export)));
        match cut.await {
            Ok(Ok(report)) => {
                tracing::warn!(report = ?report, "trapped transactions were exported");
                self.restart("the log was cut at the fork");
                Ok(())
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whom to follow now.
    pub(crate) fn feeder(&self) -> Option<MemberName> {
        self.engine.with_section(|s| {
            if s.member.active_epoch().is_some() {
                return None;
            }
            let record = s.member.view().record()?;
            let standby = record.sync.as_ref().map(|y| y.standby.member.clone());
            let standby = standby.filter(|m| *m != self.config.member);
            follow_link::preferred(self.kind, s.member.feeder_target(), standby)
        })
    }

    /// Whether the feeder that is followed is no longer the one to follow.
    pub(crate) fn feeder_changed(&self) -> bool {
        self.kind == FollowerKind::Standby && self.feeder() != self.feeder.lock().peer
    }

    /// Where a member is reached.
    pub(crate) fn target(&self, member: &MemberName) -> Result<Target, String> {
        let scheme = self.scheme.lock();
        let known = scheme.voters.iter().chain(&scheme.subscribers).find(|m| &m.member == member);
        let host = known.map_or_else(
            || {
                understudy_agent_api::names::member_host(
                    &self.config.namespace,
                    &self.config.pair,
                    member.as_str(),
                )
            },
            |m| m.host.clone(),
        );
        Ok(Target { member: member.clone(), host, port: scheme.replication_port })
    }

    pub(crate) fn replication_port(&self) -> u16 {
        self.scheme.lock().replication_port
    }

    pub(crate) fn link_is_up(&self, feeder: &MemberName) {
        let heard = Some(clock::now());
        *self.feeder.lock() =
            FeederNote { peer: Some(feeder.clone()), up: true, heard, ..FeederNote::default() };
    }

    pub(crate) fn hears_feeder(&self) {
        self.feeder.lock().heard = Some(clock::now());
    }

    /// Whether the member may follow as standby: a voter of the scheme, or of the Lease.
    pub(crate) fn is_voter(&self, member: &MemberName) -> bool {
        let listed = self.scheme.lock().voters.iter().any(|v| v.member == *member);
        listed
            || self.engine.with_section(|s| {
                s.member
                    .view()
                    .record()
                    .is_some_and(|r| r.voters.iter().any(|v| v.member == *member))
            })
    }

    pub(crate) fn note_link_error(&self, feeder: &MemberName, parting: &follow_link::Parting) {
        let mut note = self.feeder.lock();
        let known = note.heard.filter(|_| note.peer.as_ref() == Some(feeder));
        *note = FeederNote {
            peer: Some(feeder.clone()),
            up: false,
            heard: known.or_else(|| Some(clock::now())),
            error: Some(parting.why.clone()),
            is_untrusted: parting.is_untrusted,
        };
    }

    pub(crate) fn set_unfit(&self, unfit: recover::Unfit) {
        self.engine.step(Input::Unfit(Some(unfit.why.clone())));
        *self.problem.lock() = Some(unfit);
    }

    pub(crate) fn set_progress(&self, progress: Option<Progress>) {
        *self.progress.lock() = progress;
        self.publish_status();
    }

    /// Takes a scheme of a version not lower than the one in force.
    ///
    /// # Errors
    /// When its lease duration is out of range.
    pub(crate) fn take_scheme(&self, scheme: Scheme) -> Result<(), String> {
        let timing = Timing::new(scheme.lease_duration_ms).map_err(|e| e.to_string())?;
        let policy = Policy {
            return_service: scheme.return_service,
            durability: scheme.durability,
            when_standby_lost: scheme.when_standby_lost,
            automatic: scheme.automatic,
            failover: scheme.failover,
            max_loss: scheme.max_loss,
            timing,
            return_wait_ms: RETURN_WAIT_MS,
        };
        if let Some(line) = self.line.lock().as_mut()
            && let Err(error) = line.name_voters(&scheme.voters)
        {
            tracing::error!(error = %chain(&error), "the supervisor does not listen");
        }
        *self.scheme.lock() = scheme;
        self.engine.step(Input::Policy(policy));
        self.publish_status();
        Ok(())
    }

    fn publish_status(&self) {
        let status = Arc::new(self.describe(clock::now()));
        self.status.send_if_modified(|held| {
            let changed = **held != *status;
            if changed {
                *held = status;
            }
            changed
        });
    }

    /// How long ago something was, in milliseconds.
    fn ago(now: Moment, at: Option<Moment>) -> Option<u64> {
        at.map(|at| now.since(at).as_millis())
    }
}

/// Frees versions of rows that nobody can see any more, also while nobody writes.
pub(crate) async fn reclaim_rows(store: Arc<Store>, metrics: Metrics) {
    let mut interval = tokio::time::interval(RECLAIM_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        loop {
            let report = store.reclaim(RECLAIM_ROWS);
            metrics.reclaimable_items.set(i64::try_from(report.waiting).unwrap_or(i64::MAX));
            if !report.has_more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
