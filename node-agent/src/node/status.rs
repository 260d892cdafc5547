//! What this agent says of itself (agent-api `AgentStatus`), and the story of its last takeover.

use crate::{
    clock,
    config::Config,
    engine::Engine,
    node::{Node, recover::Unfit},
    pg::Database as _,
};
use jiff::SignedDuration;
use understudy_agent_api::{
    AgentStatus, AuthorityStatus, LeaseStatus, LinkStatus, MemberState, Notice, PositionStatus,
    StoreStatus, SyncState, TakeoverTimes,
};
use understudy_authority::{Claim, ControlState, Ground, Holder, LeaseRecord, Loss};
use understudy_replication::{Event, FollowerKind, Standing};
use understudy_types::{Epoch, Moment, Role};

/// How long a failure of the disk is told after the store was built anew on it.
const DISK_FAILURE_TOLD: SignedDuration = SignedDuration::from_hours(1);

/// Collects the times of one takeover (contract §3, `explain`).
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    because: String,
    saw: Vec<String>,
    detected_at: Option<jiff::Timestamp>,
    suspected: Option<Moment>,
    began: Option<Moment>,
    promised: Option<Moment>,
    done: Option<TakeoverTimes>,
}

impl Takeover {
    /// An event of the member.
    pub(crate) fn note(&mut self, event: &Event, now: Moment, engine: &Engine) {
        match event {
            Event::CandidacyBegan(claim) => self.begin(rule(claim).to_owned(), now, engine),
            Event::SetByPerson => self.begin("set-by-person".to_owned(), now, engine),
            Event::CandidacyEnded(_) => self.began = None,
            Event::Serving(epoch) => self.serve(epoch.number, now),
            Event::Lapsed
            | Event::Alone(_)
            | Event::InSync(_)
            | Event::TransferUndone
            | Event::HandedOver => {}
        }
    }

    fn begin(&mut self, because: String, now: Moment, engine: &Engine) {
        let (suspected, record, end) = engine.with_section(|s| {
            let standing = s.member.standing(now);
            (standing.suspected, s.member.view().record().cloned(), engine.log.end())
        });
        let suspected = suspected.unwrap_or(now);
        let wall = clock::wall();
        let since = jiff::SignedDuration::from_millis(now.since(suspected).as_millis() as i64);
        self.detected_at = wall.checked_sub(since).ok().or(Some(wall));
        self.suspected = Some(suspected);
        self.began = Some(now);
        self.promised = None;
        self.because = because;
        self.saw = record.map(|r| facts(&r, end)).unwrap_or_default();
    }

    /// The log is on disk and the promise is given: fencing is over.
    pub(crate) fn promised(&mut self, now: Moment) {
        if self.began.is_some() {
            self.promised = Some(now);
        }
    }

    fn serve(&mut self, epoch: Epoch, now: Moment) {
        let Some(began) = self.began.take() else { return };
        let suspected = self.suspected.unwrap_or(began);
        let promised = self.promised.unwrap_or(began);
        self.done = Some(TakeoverTimes {
            epoch,
            because: self.because.clone(),
            saw: self.saw.clone(),
            detected_at: self.detected_at.unwrap_or_else(clock::wall).to_string(),
            decide_ms: began.since(suspected).as_millis(),
            fence_ms: promised.since(began).as_millis(),
            promote_ms: now.since(promised).as_millis(),
        });
    }
}

/// The ground of a candidacy as the name of a rule.
const fn rule(claim: &Claim) -> &'static str {
    match claim.ground {
        _ if matches!(claim.loss, Loss::Accepted) => "loss-accepted",
        Ground::Expired => "active-silent",
        Ground::ProvenDead => "active-dead",
        Ground::Released => "active-let-go",
        Ground::Transferred => "hand-over",
        Ground::Own => "authority-regained",
        Ground::Replaced => "active-replaced",
    }
}

fn facts(record: &LeaseRecord, end: understudy_types::Lsn) -> Vec<String> {
    let holder = record.holder.as_ref().map_or_else(
        || "lease: no holder".to_owned(),
        |h| format!("lease: epoch {}, last held by {}", record.epoch, h.member),
    );
    let sync = record.sync.as_ref().map_or_else(
        || "in sync: no standby recorded".to_owned(),
        |s| format!("in sync: {} recorded", s.standby.member),
    );
    vec![holder, sync, format!("own log ends at {end}")]
}

/// The status before the first look.
pub(crate) fn starting(config: &Config, engine: &Engine) -> AgentStatus {
    let me = engine.with_section(|s| s.member.me().clone());
    AgentStatus {
        scheme_version: config.scheme.version,
        memory_limit_bytes: config.sizes.permanent_bytes,
        ..AgentStatus::starting(config.member.clone(), me.incarnation)
    }
}

/// What every engine has to say, in a pair or alone.
pub(crate) fn of_engine(
    engine: &Engine,
    (me, standing, control): (&Holder, &Standing, &ControlState),
) -> AgentStatus {
    let memory = engine.store.memory();
    AgentStatus {
        store: Some(StoreStatus {
            store: me.store,
            dbid: control.dbid,
            promised: control.promised.number,
            lease_longest_ms: control.lease_longest.as_millis(),
        }),
        role: standing.role,
        epoch: standing.epoch,
        positions: positions(engine),
        pending_commits: engine.log.end().since(engine.gate.acknowledged()),
        sessions: engine.sessions().count() as u64,
        memory_used_bytes: memory.permanent_used,
        memory_limit_bytes: memory.permanent_limit,
        log_full: engine.log.is_full(),
        ..AgentStatus::starting(me.member.clone(), me.incarnation)
    }
}

fn positions(engine: &Engine) -> PositionStatus {
    let log = &engine.log;
    PositionStatus {
        epoch: log.position().epoch.number,
        end_lsn: log.end(),
        durable_lsn: log.durable_lsn(),
        applied_lsn: log.end(),
        acknowledged_lsn: engine.gate.acknowledged(),
    }
}

impl Node {
    /// The whole status at `now`.
    pub(crate) fn describe(&self, now: Moment) -> AgentStatus {
        let engine = &self.engine;
        let (standing, me, control, record, regressed, standby, policy) =
            engine.with_section(|s| {
                (
                    s.member.standing(now),
                    s.member.me().clone(),
                    s.member.control().clone(),
                    s.member.view().record().cloned(),
                    s.member.view().is_regressed(),
                    s.member.standby(),
                    s.member.policy(),
                )
            });
        let problem = self.problem.lock().clone();
        let in_sync =
            record.as_ref().and_then(|r| r.sync.as_ref()).is_some_and(|s| s.standby == me);
        let progress = self.progress.lock().clone();
        AgentStatus {
            state: if progress.is_some() {
                MemberState::Duplicating
            } else {
                state(&standing, in_sync, problem.is_some())
            },
            authority: AuthorityStatus {
                lease_left_ms: standing.lease_left.map(|s| s.as_millis()),
                grant_left_ms: standing.grant_left.map(|s| s.as_millis()),
                solo: standing.solo,
            },
            links: self.links(now, standby.as_ref().map(|(m, r, up)| (m, r, *up))),
            sync: sync(&standing, record.as_ref(), in_sync),
            lease: record.as_ref().map(|r| LeaseStatus {
                epoch: r.epoch,
                seq: r.seq,
                holder: r.holder.as_ref().map(|h| h.member.clone()),
                regressed,
                silent_ms: Self::ago(now, self.lease.contact()).unwrap_or(u64::MAX),
            }),
            progress,
            notices: self.notices(problem.as_ref()),
            problem: problem.map(|p| p.why).or_else(|| stuck(&standing, policy.is_some())),
            takeover: self.takeover.lock().done.clone(),
            trapped: self.trapped.lock().clone(),
            scheme_version: self.scheme.lock().version,
            certificate_not_after: (self.certificate_end)(),
            ..of_engine(engine, (&me, &standing, &control))
        }
    }

    fn notices(&self, problem: Option<&Unfit>) -> Vec<Notice> {
        let mut all = self.engine.feeds.notices();
        let problem = problem.and_then(|unfit| unfit.notice.clone());
        if problem != Some(Notice::DiskFailed) {
            all.extend(self.disk_failed_before());
        }
        all.extend(problem);
        let feeder = self.feeder.lock();
        let untrusted = feeder.peer.clone().filter(|_| feeder.is_untrusted);
        all.extend(untrusted.map(|peer| Notice::PeerUntrusted { peer }));
        all
    }

    fn disk_failed_before(&self) -> Option<Notice> {
        let failure = self.disk_failure.as_ref()?;
        let is_told = clock::wall().duration_since(failure.at) < DISK_FAILURE_TOLD;
        let (at, why) = (failure.at.to_string(), failure.why.clone());
        is_told.then_some(Notice::DiskFailedBefore { at, why })
    }

    fn links(
        &self,
        now: Moment,
        standby: Option<(&understudy_types::MemberName, &understudy_replication::Report, bool)>,
    ) -> Vec<LinkStatus> {
        let mut links = Vec::new();
        let feeds = self.engine.feeds.status();
        let feeder = self.feeder.lock().clone();
        if let Some(peer) = feeder.peer {
            let end = self.engine.log.end();
            links.push(LinkStatus {
                peer,
                up: feeder.up,
                silent_ms: Self::ago(now, feeder.heard),
                peer_received: end,
                peer_applied: end,
                error: feeder.error,
            });
        }
        if let Some((peer, report, up)) = standby {
            let heard = feeds.iter().find(|f| f.follower.member == *peer).map(|f| f.heard);
            links.push(LinkStatus {
                peer: peer.clone(),
                up,
                silent_ms: Self::ago(now, heard),
                peer_received: report.received,
                peer_applied: report.applied,
                error: None,
            });
        }
        for feed in feeds {
            if feed.kind == FollowerKind::Subscriber {
                links.push(LinkStatus {
                    peer: feed.follower.member,
                    up: true,
                    silent_ms: Self::ago(now, Some(feed.heard)),
                    peer_received: feed.received,
                    peer_applied: feed.applied,
                    error: None,
                });
            }
        }
        links
    }
}

fn state(standing: &Standing, in_sync: bool, failed: bool) -> MemberState {
    match standing.role {
        Role::Active if standing.transferring => MemberState::Transferring,
        Role::Active if standing.lapsed => MemberState::Lapsed,
        Role::Active => MemberState::Serving,
        _ if standing.candidate => MemberState::Candidate,
        Role::Standby if in_sync => MemberState::InSync,
        Role::Standby | Role::Subscriber => MemberState::CatchingUp,
        Role::Idle | Role::Recovering | Role::Failed if failed => MemberState::Failed,
        Role::Idle | Role::Recovering | Role::Failed => MemberState::Waiting,
    }
}

fn sync(standing: &Standing, record: Option<&LeaseRecord>, in_sync: bool) -> SyncState {
    match standing.role {
        Role::Active if standing.solo => SyncState::Alone,
        Role::Active if record.is_some_and(|r| r.sync.is_some()) => SyncState::InSync,
        Role::Active => SyncState::CatchingUp,
        Role::Standby if in_sync => SyncState::InSync,
        Role::Standby => SyncState::CatchingUp,
        Role::Subscriber | Role::Idle | Role::Recovering | Role::Failed => SyncState::Unknown,
    }
}

/// Why an idle voter does not go on, in the words of its veto.
fn stuck(standing: &Standing, has_policy: bool) -> Option<String> {
    if !has_policy {
        return Some("the scheme is not known yet".into());
    }
    if standing.role == Role::Idle { standing.veto.clone() } else { None }
}
