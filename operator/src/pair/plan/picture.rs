//! The observation read as a story: who is the active, and what is known of it; where the standby is.
//! Every rule judges this picture, so that no two rules read the same fact differently. Pure.

use crate::pair::{
    names,
    observation::{ContainerSight, LeaseSight, Observation, PodSight, Seen, VolumesSight},
    validate::{PairView, ValidatedSpec},
};
use jiff::Timestamp;
use understudy_agent_api::{AgentStatus, DeathEvidence, DeathReport, LinkStatus, MemberState};
use understudy_authority::{Holder, LeaseRecord, LeaseState, Timing};
use understudy_types::{MemberName, ReturnService, Role, Span, WhenStandbyLost};

/// How long an agent may be unreachable before the Lease's word for it is doubted. A stream that
/// breaks is opened again within a second; three of those are no hiccup.
const PATIENCE_SECONDS: i64 = 3;

/// How long a new pod may be without an answer before it counts as down rather than starting.
pub(crate) const START_SECONDS: i64 = 120;

/// A pod's container has ended and is to start again.
const TERMINATED: &str = "Terminated";

/// What is known of the active.
#[derive(Debug, Clone, PartialEq)]
pub enum ActiveSight {
    /// No member ever held the Lease.
    NeverHeld,
    /// It serves: by its own word, or by its renewals while it cannot be asked for a moment.
    Serving,
    /// It holds the Lease and has no authority at this moment: it acknowledges nothing.
    Lapsed,
    /// It took the Lease and does not serve yet.
    TakingOver,
    /// It let the Lease go by its own write.
    LetGo,
    /// It hands over to this member by its own write.
    HandingOver(MemberName),
    /// Its process is proven dead.
    Dead(DeathEvidence),
    /// Another process of the same member answers: the holder's own is gone, unproven.
    Restarted,
    /// It cannot be asked, but somebody else still hears it.
    Unreachable,
    /// Nobody has heard it for longer than a lease lasts.
    Silent,
}

/// Where the standby is.
#[derive(Debug, Clone, PartialEq)]
pub enum StandbySight {
    /// There is no pod.
    Missing,
    /// The pod is new and does not answer yet.
    Starting,
    /// It replays its own log.
    Recovering,
    /// It builds its store from a feeder.
    Duplicating,
    /// It follows.
    CatchingUp,
    /// It answers, and so does the active, but not one to the other.
    LinkCut,
    /// It follows, and the Lease names its living process.
    InSync,
    /// It runs for active.
    Candidate,
    /// It does not run, and why: reason, message.
    Down(&'static str, String),
    /// Its volume is gone.
    VolumeLost,
}

/// A voter as it is known.
#[derive(Debug, Clone)]
pub struct VoterSight<'a> {
    /// Its name.
    pub member: MemberName,
    /// Its pod, when there is one of this pair.
    pub pod: Option<&'a PodSight>,
    /// Its volumes.
    pub volumes: VolumesSight,
    /// Its agent, when it answers.
    pub agent: Option<&'a AgentStatus>,
    /// Seconds since it stopped answering; `None` when it answers or was never asked.
    pub silent_seconds: Option<i64>,
}

/// The whole picture.
pub struct Picture<'a> {
    /// The pair.
    pub pair: &'a PairView,
    /// What it was read from.
    pub seen: &'a Observation,
    /// The moment of judgement.
    pub now: Timestamp,
    /// The voters, at most two, the lower number first.
    pub voters: Vec<VoterSight<'a>>,
    /// Highest number ever given to a voter.
    pub last_member: u32,
}

impl<'a> Picture<'a> {
    /// Reads the observation.
    #[must_use]
    pub fn of(pair: &'a PairView, seen: &'a Observation, now: Timestamp) -> Self {
        let (names, last_member) = current_voters(pair, seen);
        let voters = names.into_iter().map(|member| voter_sight(seen, member, now)).collect();
        Self { pair, seen, now, voters, last_member }
    }

    /// The spec, unless it cannot be carried out.
    #[must_use]
    pub fn spec(&self) -> Option<&'a ValidatedSpec> {
        self.pair.spec.as_ref().ok()
    }

    /// The record on the Lease.
    #[must_use]
    pub fn record(&self) -> Option<&'a LeaseRecord> {
        self.seen.record()
    }

    /// The last holder.
    #[must_use]
    pub fn holder(&self) -> Option<&'a Holder> {
        self.record()?.holder.as_ref()
    }

    /// The voter of this name.
    #[must_use]
    pub fn voter(&self, member: &MemberName) -> Option<&VoterSight<'a>> {
        self.voters.iter().find(|v| &v.member == member)
    }

    /// The voter that is not the last holder; the first when nobody held the Lease yet.
    #[must_use]
    pub fn other(&self) -> Option<&VoterSight<'a>> {
        let holder = self.holder().map(|h| &h.member);
        self.voters.iter().find(|v| Some(&v.member) != holder)
    }

    /// Whether nothing is known to be on the standby: no commit waits for it, and no loss is bounded.
    #[must_use]
    pub fn is_unpromised(&self) -> bool {
        self.spec()
            .is_some_and(|s| s.return_service == ReturnService::NoReturn && s.max_loss.is_none())
    }

    /// Whether commits wait while there is no standby in sync.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.spec().is_some_and(|s| {
            s.when_standby_lost == WhenStandbyLost::Block
                && s.return_service != ReturnService::NoReturn
        })
    }

    /// The proof that the holder's process is dead, when there is one (R10).
    #[must_use]
    pub fn proof_of_death(&self) -> Option<DeathReport> {
        self.proof_that_died(self.holder()?)
    }

    /// The same of the recorded standby: a dead one has no precedence over the last holder (R13b).
    #[must_use]
    pub fn proof_of_standbys_death(&self) -> Option<DeathReport> {
        self.proof_that_died(&self.record()?.sync.as_ref()?.standby)
    }

    fn proof_that_died(&self, one: &Holder) -> Option<DeathReport> {
        let pod = self.seen.pods.get(&one.member)?;
        let death = pod.deaths.iter().find(|death| death.proves(one.incarnation))?;
        let evidence = DeathEvidence::ContainerTerminated { exit_code: death.exit_code };
        Some(DeathReport { member: one.member.clone(), incarnation: one.incarnation, evidence })
    }

    /// What is known of the active.
    #[must_use]
    pub fn active(&self) -> ActiveSight {
        let (Some(record), Some(holder)) = (self.record(), self.holder()) else {
            return ActiveSight::NeverHeld;
        };
        match &record.state {
            LeaseState::Uninitialised | LeaseState::Initialising { .. } => ActiveSight::NeverHeld,
            LeaseState::Released => ActiveSight::LetGo,
            LeaseState::Transferring { to, .. } => ActiveSight::HandingOver(to.clone()),
            LeaseState::Held => self.held_by(record, holder),
        }
    }

    fn held_by(&self, record: &LeaseRecord, holder: &Holder) -> ActiveSight {
        let agent = self.seen.agent(&holder.member);
        if let Some(agent) = agent.filter(|a| a.incarnation == holder.incarnation) {
            let serves = agent.role == Role::Active && agent.epoch == record.epoch;
            return match agent.state {
                MemberState::Serving | MemberState::Transferring if serves => ActiveSight::Serving,
                MemberState::Lapsed => ActiveSight::Lapsed,
                MemberState::Failed => ActiveSight::Silent,
                MemberState::Serving
                | MemberState::Transferring
                | MemberState::Starting
                | MemberState::Recovering
                | MemberState::Duplicating
                | MemberState::Waiting
                | MemberState::CatchingUp
                | MemberState::InSync
                | MemberState::Candidate => ActiveSight::TakingOver,
            };
        }
        if let Some(report) = self.proof_of_death() {
            return ActiveSight::Dead(report.evidence);
        }
        if agent.is_some() {
            return ActiveSight::Restarted;
        }
        let patient = self
            .voter(&holder.member)
            .and_then(|v| v.silent_seconds)
            .is_none_or(|s| s < PATIENCE_SECONDS);
        if self.is_lost_by_standby(record, holder) {
            return ActiveSight::Silent;
        }
        match (self.is_lease_fresh(record), patient) {
            (true, true) if self.is_ready(&holder.member) => ActiveSight::Serving,
            // A pair made again finds the last renewal of the one that it succeeds.
            (true, true) => ActiveSight::TakingOver,
            (true, false) => ActiveSight::Unreachable,
            (false, _) if self.is_heard_by_peer(holder) => ActiveSight::Unreachable,
            (false, _) => ActiveSight::Silent,
        }
    }

    /// Whether the recorded standby, still the same process, says that its link to the holder is down.
    fn is_lost_by_standby(&self, record: &LeaseRecord, holder: &Holder) -> bool {
        let Some(standby) = record.sync.as_ref().map(|sync| &sync.standby) else { return false };
        self.seen.agent(&standby.member).is_some_and(|agent| {
            agent.incarnation == standby.incarnation
                && agent.links.iter().any(|link| link.peer == holder.member && !link.up)
        })
    }

    fn is_ready(&self, member: &MemberName) -> bool {
        self.seen.pods.get(member).is_some_and(|pod| pod.is_ours && pod.is_ready)
    }

    /// Whether the holder wrote to the Lease within what R4 lets an observer wait.
    fn is_lease_fresh(&self, record: &LeaseRecord) -> bool {
        let Some(LeaseSight::Present { unchanged_ms, .. }) = self.seen.lease.known() else {
            return false;
        };
        Timing::new(record.lease_duration_ms).is_ok_and(|timing| {
            let wait = Timing::stretched(timing.lease()) + timing.guard();
            Span::millis(*unchanged_ms) < wait
        })
    }

    fn is_heard_by_peer(&self, holder: &Holder) -> bool {
        self.voters.iter().filter_map(|v| v.agent).any(|agent| {
            agent.links.iter().any(|link| {
                link.peer == holder.member && link.up && link.silent_ms.is_some_and(|ms| ms < 1_000)
            })
        })
    }

    /// Where the standby is, while this voter is not the active.
    #[must_use]
    pub fn standby(&self, voter: &VoterSight<'_>) -> StandbySight {
        if self.is_volume_lost(voter) {
            return StandbySight::VolumeLost;
        }
        let recorded = self.record().and_then(|r| r.sync.as_ref());
        let named = recorded.filter(|sync| sync.standby.member == voter.member);
        let Some(agent) = voter.agent else {
            return self.silent_standby(voter, named.is_some());
        };
        if named.is_some_and(|sync| sync.standby.incarnation == agent.incarnation)
            && agent.role == Role::Standby
            && agent.state != MemberState::Candidate
        {
            return StandbySight::InSync;
        }
        match agent.state {
            MemberState::Waiting if self.is_link_cut(agent) => StandbySight::LinkCut,
            MemberState::Starting | MemberState::Waiting => StandbySight::Starting,
            MemberState::Recovering => StandbySight::Recovering,
            MemberState::Duplicating => StandbySight::Duplicating,
            MemberState::CatchingUp | MemberState::InSync if self.is_link_cut(agent) => {
                StandbySight::LinkCut
            }
            MemberState::CatchingUp | MemberState::InSync => StandbySight::CatchingUp,
            MemberState::Candidate => StandbySight::Candidate,
            MemberState::Serving | MemberState::Lapsed | MemberState::Transferring => {
                // It still believes in an older epoch; the Lease's word will end that.
                StandbySight::Recovering
            }
            MemberState::Failed => StandbySight::Down(
                "StandbyFailed",
                agent.problem.clone().unwrap_or_else(|| "the agent gives no reason".to_owned()),
            ),
        }
    }

    /// Whether this member has not reached the active for a while, although the operator reaches both.
    fn is_link_cut(&self, agent: &AgentStatus) -> bool {
        let Some(holder) = self.holder() else { return false };
        self.seen.agent(&holder.member).is_some()
            && agent.links.iter().any(|link| link.peer == holder.member && is_cut(link))
    }

    fn silent_standby(&self, voter: &VoterSight<'_>, is_recorded: bool) -> StandbySight {
        let Some(pod) = voter.pod else { return StandbySight::Missing };
        let name = &voter.member;
        if let Some((reason, message)) = pod_problem(pod) {
            let reason = if reason == TERMINATED { "StandbyTerminated" } else { reason };
            return StandbySight::Down(reason, format!("{name}: {message}"));
        }
        let silent = voter.silent_seconds.unwrap_or(0);
        if is_recorded && silent < PATIENCE_SECONDS {
            // The active takes it off the Lease before it acknowledges alone, so the Lease is right.
            return StandbySight::InSync;
        }
        let is_new = pod.deaths.is_empty() && !pod.is_ready;
        if silent < PATIENCE_SECONDS || (is_new && silent < START_SECONDS) {
            return StandbySight::Starting;
        }
        let message = format!("{name} has not answered for {}", rounded(silent));
        StandbySight::Down("StandbySilent", message)
    }

    /// Whether a store that had a vote has lost one of its volumes.
    #[must_use]
    pub fn is_volume_lost(&self, voter: &VoterSight<'_>) -> bool {
        let had_store =
            self.record().is_some_and(|r| r.voters.iter().any(|v| v.member == voter.member));
        let gone = |volume: &Option<crate::pair::observation::VolumeSight>| {
            volume.as_ref().is_none_or(|v| v.is_lost)
        };
        had_store && voter.pod.is_none() && (gone(&voter.volumes.data) || gone(&voter.volumes.log))
    }
}

/// Whether a link has been down for longer than it takes to dial again.
pub(crate) fn is_cut(link: &LinkStatus) -> bool {
    let patience = PATIENCE_SECONDS.unsigned_abs() * 1_000;
    !link.up && link.silent_ms.is_some_and(|ms| ms >= patience)
}

/// Why a pod does not run, with a reason for the condition; `None` when it runs or only begins.
#[must_use]
pub fn pod_problem(pod: &PodSight) -> Option<(&'static str, String)> {
    if pod.is_being_deleted {
        return Some(("PodDeleted", "its pod is being deleted".to_owned()));
    }
    if pod.has_ended {
        return Some(("PodEnded", "its pod was evicted or ended".to_owned()));
    }
    if let Some(message) = &pod.unschedulable {
        return Some(("Unschedulable", message.clone()));
    }
    match &pod.container {
        ContainerSight::Waiting { reason, message } => waiting_problem(pod, reason, message),
        ContainerSight::Terminated => {
            let exit = pod.deaths.first().map_or(0, |death| death.exit_code);
            Some((TERMINATED, format!("its container ended with exit code {exit}")))
        }
        ContainerSight::Absent | ContainerSight::Running => None,
    }
}

/// The kubelet's words change with every attempt; these do not.
fn waiting_problem(pod: &PodSight, reason: &str, message: &str) -> Option<(&'static str, String)> {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable" => {
            let text = "its image cannot be had; `kubectl describe pod` has the registry's words";
            Some(("ImageUnavailable", text.to_owned()))
        }
        "CrashLoopBackOff" => {
            let exit = pod.deaths.first().map_or(0, |death| death.exit_code);
            let text = format!(
                "its container ends again and again, last with exit code {exit}; `kubectl logs` has its last words"
            );
            Some(("CrashLoop", text))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(("ContainerNotCreated", first_line(reason, message)))
        }
        _ => None,
    }
}

fn first_line(reason: &str, message: &str) -> String {
    match message.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => format!("{reason}: {line}"),
        None => reason.to_owned(),
    }
}

/// A length of time that changes seldom enough for a status.
fn rounded(seconds: i64) -> &'static str {
    match seconds {
        ..10 => "some seconds",
        10..60 => "more than ten seconds",
        60..600 => "more than a minute",
        600.. => "more than ten minutes",
    }
}

/// The voters: those of the status, else of the Lease, else the first two. A missing one gets the
/// next number, so that no name is used twice.
fn current_voters(pair: &PairView, seen: &Observation) -> (Vec<MemberName>, u32) {
    let name = &pair.identity.name;
    let status = &seen.status;
    let number = |member: &MemberName| names::voter_number(name, member.as_str());
    let mut voters: Vec<MemberName> = status
        .members
        .iter()
        .filter(|m| m.standing == understudy_crds::MemberStanding::Voter)
        .filter_map(|m| MemberName::new(m.name.clone()).ok())
        .collect();
    let on_lease = seen.record().map(|r| r.voters.as_slice()).unwrap_or_default();
    if voters.is_empty() {
        voters = on_lease.iter().map(|v| v.member.clone()).collect();
        if status.last_member.is_none() {
            // A new object over kept volumes: numbers that were used once are found on them.
            let kept = seen.volumes.keys().filter_map(number).max();
            let fresh_start = on_lease.is_empty();
            if let Some(kept) = kept.filter(|_| !fresh_start) {
                voters.retain(|v| number(v).is_some());
                let last = kept.max(voters.iter().filter_map(number).max().unwrap_or(0));
                return filled(name, voters, last);
            }
        }
    }
    let used = voters.iter().filter_map(number).max().unwrap_or(0);
    let last = status.last_member.and_then(|n| u32::try_from(n).ok()).unwrap_or(0).max(used);
    filled(name, voters, last)
}

fn filled(pair: &str, mut voters: Vec<MemberName>, mut last: u32) -> (Vec<MemberName>, u32) {
    while voters.len() < LeaseRecord::VOTERS_MAX {
        last += 1;
        voters.push(names::voter(pair, last));
    }
    voters.truncate(LeaseRecord::VOTERS_MAX);
    voters.sort_by_key(|v| names::voter_number(pair, v.as_str()));
    (voters, last)
}

fn voter_sight(seen: &Observation, member: MemberName, now: Timestamp) -> VoterSight<'_> {
    let silent_seconds = match seen.agents.get(&member) {
        None | Some(Seen::Known(_)) => None,
        Some(Seen::Unknown { since, .. }) => Some((now.as_second() - since.as_second()).max(0)),
    };
    VoterSight {
        pod: seen.pods.get(&member).filter(|pod| pod.is_ours),
        volumes: seen.volumes.get(&member).cloned().unwrap_or_default(),
        agent: seen.agent(&member),
        silent_seconds,
        member,
    }
}
