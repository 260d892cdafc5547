//! What the pair's status says: from the picture, the plan and what became of it. Pure.
//!
//! **Invariants**
//! 1. Nothing in it changes with load or with time alone: the same situation gives the same bytes, and
//!    equal bytes are not written again.
//! 2. Moments (`since`, `lastTransitionTime`) change only with what they belong to.
//! 3. `exit` is set in every phase but Normal.

mod conditions;
mod decisions;
mod notices;
mod words;

use crate::pair::{
    names,
    observation::{Observation, Seen},
    plan::{ActiveSight, Picture, Plan, StandbySight, VoterSight, pod_problem},
    validate::PairView,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use understudy_agent_api::{AgentStatus, names as shared};
use understudy_crds::{
    ActiveStandbyPairStatus, CertificatesStatus, ExitStatus, MemberStanding, MemberStatus, Phase,
    SubscribersStatus, SyncStatus, SyncWord, TrappedTail,
};
use understudy_types::{MemberName, Role};

pub use decisions::DECISIONS_MAX;

/// What became of a plan, and what else was found on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The first failure: what was tried, and why it failed.
    pub failure: Option<String>,
    /// Volumes that could not grow, in words.
    pub storage_problem: Option<String>,
    /// Earliest end of a certificate.
    pub certificates_not_after: Option<Timestamp>,
    /// Voters that this plan retires.
    pub retired: Vec<MemberName>,
}

/// The next status.
#[must_use]
pub fn status(picture: &Picture<'_>, plan: &Plan, outcome: &Outcome) -> ActiveStandbyPairStatus {
    let before = &picture.seen.status;
    let record = picture.record();
    let active = (picture.active() == ActiveSight::Serving)
        .then(|| picture.holder().map(|holder| holder.member.to_string()))
        .flatten();
    let mut next = ActiveStandbyPairStatus {
        observed_generation: Some(picture.pair.identity.generation),
        phase: Some(plan.phase),
        phase_since: Some(kept(
            before.phase_since.as_ref(),
            before.phase == Some(plan.phase),
            picture.now,
        )),
        epoch: record.and_then(|r| i64::try_from(r.epoch.0).ok()).or(before.epoch),
        dbid: record.and_then(|r| r.dbid).map(|d| d.to_string()).or_else(|| before.dbid.clone()),
        standby: active.as_ref().and_then(|_| following_standby(picture)),
        active,
        selector: Some(selector(picture.pair)),
        sync: Some(sync(picture)),
        promise: words::promise(picture),
        exit: plan.exit.as_ref().map(|exit| ExitStatus {
            next_automatic_step: exit.next.clone(),
            deadline: exit.deadline.map(Time),
            human_action: exit.human.clone(),
            data_at_risk: exit.risk.clone(),
        }),
        members: members(picture, outcome),
        last_member: i32::try_from(picture.last_member).ok(),
        trapped: trapped(picture),
        subscribers: Some(subscribers(picture)),
        certificates: outcome
            .certificates_not_after
            .map(|end| CertificatesStatus { not_after: Time(end) })
            .or_else(|| before.certificates.clone()),
        effective: picture
            .spec()
            .map(|spec| words::effective(picture, spec))
            .or_else(|| before.effective.clone()),
        decisions: decisions::decisions(picture),
        conditions: Vec::new(),
    };
    next.conditions = conditions::conditions(picture, plan, outcome, &next);
    next
}

fn kept(before: Option<&Time>, is_same: bool, now: Timestamp) -> Time {
    match before {
        Some(since) if is_same => since.clone(),
        _ => Time(whole_seconds(now)),
    }
}

/// The API server keeps whole seconds; anything finer would differ from what it returns.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn selector(pair: &PairView) -> String {
    format!(
        "{}={},{}={}",
        shared::LABEL_PAIR,
        pair.identity.name,
        shared::LABEL_KIND,
        names::KIND_SUBSCRIBER
    )
}

fn following_standby(picture: &Picture<'_>) -> Option<String> {
    let other = picture.other()?;
    match picture.standby(other) {
        StandbySight::InSync | StandbySight::CatchingUp => Some(other.member.to_string()),
        StandbySight::Missing
        | StandbySight::Starting
        | StandbySight::Recovering
        | StandbySight::Duplicating
        | StandbySight::Candidate
        | StandbySight::LinkCut
        | StandbySight::Down(..)
        | StandbySight::VolumeLost => None,
    }
}

pub(super) fn sync_word(picture: &Picture<'_>) -> SyncWord {
    let Some(record) = picture.record() else { return SyncWord::Unknown };
    if record.holder.is_none() {
        return SyncWord::Unknown;
    }
    if record.sync.is_some() {
        return SyncWord::InSync;
    }
    match following_standby(picture) {
        Some(_) => SyncWord::CatchingUp,
        None => SyncWord::Alone,
    }
}

fn sync(picture: &Picture<'_>) -> SyncStatus {
    let state = sync_word(picture);
    let before = picture.seen.status.sync.as_ref();
    let is_same = before.is_some_and(|s| s.state == state);
    SyncStatus { state, since: kept(before.map(|s| &s.since), is_same, picture.now) }
}

fn members(picture: &Picture<'_>, outcome: &Outcome) -> Vec<MemberStatus> {
    let mut members: Vec<MemberStatus> = Vec::new();
    for voter in &picture.voters {
        let standing = if outcome.retired.contains(&voter.member) {
            MemberStanding::Retired
        } else {
            MemberStanding::Voter
        };
        members.push(member(picture, &voter.member, standing, voter_state(picture, voter)));
    }
    let pair = &picture.pair.identity.name;
    for name in picture.seen.pods.keys() {
        if names::subscriber_number(pair, name.as_str()).is_some() {
            let state = subscriber_state(picture.seen, name);
            members.push(member(picture, name, MemberStanding::Subscriber, state));
        }
    }
    let retired = picture.seen.status.members.iter().filter(|m| {
        let is_kept = MemberName::new(m.name.clone())
            .is_ok_and(|name| picture.seen.volumes.contains_key(&name));
        m.standing == MemberStanding::Retired && is_kept
    });
    for old in retired {
        if members.iter().all(|m| m.name != old.name) {
            members.push(old.clone());
        }
    }
    members
}

fn member(
    picture: &Picture<'_>,
    name: &MemberName,
    standing: MemberStanding,
    state: String,
) -> MemberStatus {
    let agent = picture.seen.agent(name);
    let before = picture.seen.status.members.iter().find(|m| m.name == name.as_str());
    let is_not_asked = picture.seen.agents.get(name).is_some_and(Seen::is_not_asked);
    if let Some(known) = before.filter(|known| is_not_asked && known.standing == standing) {
        // An operator that begins knows nothing yet, and nothing has changed by that.
        let node = picture.seen.pods.get(name).and_then(|pod| pod.node.clone());
        return MemberStatus { node, ..known.clone() };
    }
    let role = match standing {
        MemberStanding::Retired => "None".to_owned(),
        MemberStanding::Voter | MemberStanding::Subscriber => {
            agent.map_or_else(|| "Unknown".to_owned(), |agent| role_word(agent.role).to_owned())
        }
    };
    let is_same = before.is_some_and(|m| m.role == role && m.state == state);
    MemberStatus {
        name: name.to_string(),
        node: picture.seen.pods.get(name).and_then(|pod| pod.node.clone()),
        role,
        standing,
        state,
        volume: names::data_volume(name),
        version: agent.map(|agent| agent.version.clone()),
        since: kept(before.map(|m| &m.since), is_same, picture.now),
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Active => "Active",
        Role::Standby => "Standby",
        Role::Subscriber => "Subscriber",
        Role::Idle => "Idle",
        Role::Recovering => "Recovering",
        Role::Failed => "Failed",
    }
}

fn voter_state(picture: &Picture<'_>, voter: &VoterSight<'_>) -> String {
    if picture.is_volume_lost(voter) {
        return "VolumeLost".to_owned();
    }
    state_word(voter.agent, voter.pod.and_then(pod_problem).map(|(reason, _)| reason))
}

fn subscriber_state(seen: &Observation, name: &MemberName) -> String {
    let problem = seen.pods.get(name).and_then(pod_problem).map(|(reason, _)| reason);
    state_word(seen.agent(name), problem)
}

fn state_word(agent: Option<&AgentStatus>, problem: Option<&'static str>) -> String {
    match (agent, problem) {
        (Some(agent), _) => format!("{:?}", agent.state),
        (None, Some(problem)) => problem.to_owned(),
        (None, None) => "Unknown".to_owned(),
    }
}

fn trapped(picture: &Picture<'_>) -> Vec<TrappedTail> {
    let known =
        picture.seen.agents.iter().filter_map(|(member, seen)| Some((member, seen.known()?)));
    let said: Vec<TrappedTail> = known
        .clone()
        .flat_map(|(member, agent)| {
            agent.trapped.iter().map(|tail| TrappedTail {
                member: member.to_string(),
                epoch: i64::try_from(tail.epoch.0).unwrap_or(i64::MAX),
                transactions: i64::try_from(tail.transactions).unwrap_or(i64::MAX),
                file: tail.file.clone(),
            })
        })
        .collect();
    // What a silent member kept is still kept.
    let silent = picture
        .seen
        .status
        .trapped
        .iter()
        .filter(|tail| known.clone().all(|(member, _)| member.as_str() != tail.member));
    said.iter().chain(silent).cloned().collect()
}

fn subscribers(picture: &Picture<'_>) -> SubscribersStatus {
    let pair = &picture.pair.identity.name;
    let pods = || {
        picture.seen.pods.iter().filter(|(name, pod)| {
            pod.is_ours && names::subscriber_number(pair, name.as_str()).is_some()
        })
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let ready = count(pods().filter(|(_, pod)| pod.is_ready && !pod.is_being_deleted).count());
    let before = picture.seen.status.subscribers.as_ref().map_or(0, |s| s.desired);
    let desired =
        picture.spec().map_or(before, |spec| i32::try_from(spec.subscribers).unwrap_or(127));
    let feeder = following_standby(picture).or_else(|| {
        (picture.active() == ActiveSight::Serving)
            .then(|| picture.holder().map(|h| h.member.to_string()))
            .flatten()
    });
    SubscribersStatus {
        desired,
        replicas: count(pods().count()),
        ready,
        summary: format!("{ready}/{desired}"),
        fed_by: feeder.filter(|_| desired > 0),
    }
}

/// Whether two statuses say the same, so that nothing needs to be written.
#[must_use]
pub fn is_same(before: &ActiveStandbyPairStatus, next: &ActiveStandbyPairStatus) -> bool {
    let text = |status: &ActiveStandbyPairStatus| serde_json::to_value(status).ok();
    text(before) == text(next)
}

/// The word of the phase for an event, when it changed.
#[must_use]
pub fn phase_change(
    before: &ActiveStandbyPairStatus,
    next: &ActiveStandbyPairStatus,
) -> Option<Phase> {
    next.phase.filter(|phase| before.phase != Some(*phase))
}
