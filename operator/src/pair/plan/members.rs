//! Which members must exist, and the one disturbance that may happen now: creation, scheme, notes on
//! volumes, subscribers, rollout of changed pods. Added to what the ladder says. Pure.

use super::{ActiveSight, Picture, StandbySight, VoterSight};
use crate::pair::{
    action::{Action, Kind},
    build, names,
    observation::{ContainerSight, PodSight},
    validate::{PairView, ValidatedSpec},
};
use understudy_agent_api::{MemberAddress, MemberState, Scheme, names as shared};
use understudy_crds::{MemberStanding, Mode, Phase};
use understudy_types::MemberName;

/// Reasons that no waiting cures.
pub(super) fn is_persistent(reason: &str) -> bool {
    matches!(reason, "ImageUnavailable" | "Unschedulable" | "ContainerNotCreated" | "StandbyFailed")
}

/// The voter that would be made next, and its number.
pub(super) fn next_voter(picture: &Picture<'_>) -> (MemberName, u32) {
    let number = picture.last_member + 1;
    (names::voter(&picture.pair.identity.name, number), number)
}

/// What every agent is to know of the pair.
#[must_use]
pub fn scheme(pair: &PairView, spec: &ValidatedSpec, voters: &[MemberName], last: u32) -> Scheme {
    let identity = &pair.identity;
    let address = |member: MemberName| MemberAddress {
        host: shared::member_host(&identity.namespace, &identity.name, member.as_str()),
        member,
    };
    let subscribers = (1..=spec.subscribers).map(|n| names::subscriber(&identity.name, n));
    Scheme {
        version: scheme_version(pair, last),
        voters: voters.iter().cloned().map(address).collect(),
        subscribers: subscribers.map(address).collect(),
        return_service: spec.return_service,
        durability: spec.durability,
        when_standby_lost: spec.when_standby_lost,
        lease_duration_ms: spec.lease_duration_ms,
        replication_port: spec.replication_port,
        automatic: spec.mode == Mode::Automatic,
        failover: spec.failover,
        max_loss: spec.max_loss,
    }
}

/// Rises with every change of the spec and every new voter, and is higher for a pair that was made
/// again than for the one whose volumes it adopts.
#[must_use]
pub fn scheme_version(pair: &PairView, last_member: u32) -> u64 {
    let created = u64::try_from(pair.identity.created_unix).unwrap_or(0);
    let generation = u64::try_from(pair.identity.generation).unwrap_or(0);
    (created << 24) + (generation << 8) + u64::from(last_member)
}

/// All actions beside those of the ladder, in order.
pub(super) fn actions(picture: &Picture<'_>, phase: Phase) -> Vec<Action> {
    let Some(spec) = picture.spec() else { return Vec::new() };
    let mut actions = Vec::new();
    actions.extend(replaced_voters(picture));
    actions.extend(absent_voters(picture));
    actions.extend(subscribers(picture, spec));
    actions.extend(schemes(picture));
    actions.extend(notes(picture));
    if actions.iter().all(|action| matches!(action, Action::NoteDatabase { .. })) {
        actions.extend(disturbance(picture, spec, phase));
    }
    actions
}

/// A voter that was replaced may come back with its node; its pod goes, its volumes stay.
fn replaced_voters(picture: &Picture<'_>) -> Vec<Action> {
    if picture.active() != ActiveSight::Serving {
        return Vec::new();
    }
    let is_retired =
        |member: &MemberName| {
            picture.seen.status.members.iter().any(|known| {
                known.name == member.as_str() && known.standing == MemberStanding::Retired
            })
        };
    let pods = picture.seen.pods.iter().filter(|(member, pod)| {
        pod.is_ours
            && !pod.is_being_deleted
            && picture.voter(member).is_none()
            && is_retired(member)
    });
    pods.map(|(member, pod)| delete(member, pod, "its member was replaced")).collect()
}

fn absent_voters(picture: &Picture<'_>) -> Vec<Action> {
    let absent = picture.voters.iter().filter(|voter| voter.pod.is_none());
    let makeable = absent.filter(|voter| {
        let volumes = [&voter.volumes.data, &voter.volumes.log];
        let is_going = volumes.into_iter().flatten().any(|volume| volume.is_being_deleted);
        let is_foreign = picture.seen.pods.contains_key(&voter.member);
        !is_going && !is_foreign && !picture.is_volume_lost(voter)
    });
    makeable.map(|v| Action::CreateMember { member: v.member.clone(), kind: Kind::Voter }).collect()
}

fn subscribers(picture: &Picture<'_>, spec: &ValidatedSpec) -> Vec<Action> {
    let pair = &picture.pair.identity.name;
    let mut actions = Vec::new();
    for number in 1..=spec.subscribers {
        let member = names::subscriber(pair, number);
        let volumes = picture.seen.volumes.get(&member).cloned().unwrap_or_default();
        let is_going = [&volumes.data, &volumes.log]
            .into_iter()
            .flatten()
            .any(|volume| volume.is_being_deleted);
        let failed =
            picture.seen.agent(&member).is_some_and(|agent| agent.state == MemberState::Failed);
        match picture.seen.pods.get(&member) {
            None if !is_going => {
                actions.push(Action::CreateMember { member, kind: Kind::Subscriber });
            }
            Some(pod) if failed && !pod.is_being_deleted => {
                // Its volumes hold nothing that the pair does not: they are made anew by duplicate.
                actions.push(Action::DeleteSubscriberVolumes { member: member.clone() });
                actions.push(delete(&member, pod, "the subscriber cannot go on from its volume"));
            }
            Some(_) | None => {}
        }
    }
    let beyond = |member: &MemberName| {
        names::subscriber_number(pair, member.as_str()).is_some_and(|n| n > spec.subscribers)
    };
    for (member, pod) in picture.seen.pods.iter().filter(|(member, _)| beyond(member)) {
        if !pod.is_being_deleted {
            actions.push(delete(member, pod, "fewer subscribers are asked for"));
        }
    }
    for (member, volumes) in picture.seen.volumes.iter().filter(|(member, _)| beyond(member)) {
        let left = [&volumes.data, &volumes.log].into_iter().flatten();
        if left.clone().any(|volume| !volume.is_being_deleted) {
            actions.push(Action::DeleteSubscriberVolumes { member: member.clone() });
        }
    }
    actions
}

fn schemes(picture: &Picture<'_>) -> Vec<Action> {
    let version = scheme_version(picture.pair, picture.last_member);
    let old = picture.seen.agents.iter().filter_map(|(member, seen)| {
        let agent = seen.known()?;
        (agent.scheme_version < version).then(|| member.clone())
    });
    old.map(|member| Action::SendScheme { member, version }).collect()
}

fn notes(picture: &Picture<'_>) -> Vec<Action> {
    let Some(dbid) = picture.record().and_then(|record| record.dbid) else { return Vec::new() };
    let dbid = dbid.to_string();
    let unmarked = picture.seen.agents.iter().filter_map(|(member, seen)| {
        let holds = seen.known()?.store?.dbid.is_some_and(|own| own.to_string() == dbid);
        let volumes = picture.seen.volumes.get(member)?;
        // Each is noted by a write of its own: the operator may have died between the two.
        let mut both = [&volumes.data, &volumes.log].into_iter().flatten();
        let lacks = both.any(|volume| volume.dbid.as_deref() != Some(&dbid));
        (holds && lacks).then(|| member.clone())
    });
    unmarked.map(|member| Action::NoteDatabase { member, dbid: dbid.clone() }).collect()
}

/// At most one pod that runs is disturbed, and only when the pair can spare it.
fn disturbance(picture: &Picture<'_>, spec: &ValidatedSpec, phase: Phase) -> Vec<Action> {
    if let Some(action) = ended_pod(picture) {
        return vec![action];
    }
    let wanted = |member: &MemberName| {
        build::template_hash(picture.pair, spec, member, kind_of(picture, member))
    };
    let is_old = |member: &MemberName, pod: &PodSight| {
        pod.is_ours && !pod.is_being_deleted && pod.template.as_deref() != Some(&wanted(member))
    };
    // A changed pod that does not run serves nobody: it is replaced in any phase, so that a spec
    // that did not work can be corrected.
    let broken = picture.seen.pods.iter().find(|(member, pod)| {
        is_old(member, pod) && pod.container != ContainerSight::Running && !pod.is_ready
    });
    if let Some((member, pod)) = broken {
        return vec![delete(member, pod, "its spec changed, and it does not run")];
    }
    if phase != Phase::Normal || picture.active() != ActiveSight::Serving {
        return Vec::new();
    }
    let Some(active) = picture.holder().map(|holder| &holder.member) else { return Vec::new() };
    // A pod on its way out answers and follows until it is gone: it is no standby to count on.
    let stays = |voter: &&VoterSight<'_>| voter.pod.is_some_and(|pod| !pod.is_being_deleted);
    let in_sync = |voter: &&VoterSight<'_>| picture.standby(voter) == StandbySight::InSync;
    let Some(standby) = picture.other().filter(stays).filter(in_sync) else { return Vec::new() };
    roll(picture, active, standby, &is_old)
}

fn roll(
    picture: &Picture<'_>,
    active: &MemberName,
    standby: &VoterSight<'_>,
    is_old: &dyn Fn(&MemberName, &PodSight) -> bool,
) -> Vec<Action> {
    if let Some(pod) = standby.pod.filter(|pod| is_old(&standby.member, pod)) {
        return vec![delete(&standby.member, pod, "its spec changed")];
    }
    let is_subscriber = |member: &MemberName| kind_of(picture, member) == Kind::Subscriber;
    let subscribers = || picture.seen.pods.iter().filter(|(member, _)| is_subscriber(member));
    if subscribers().all(|(_, pod)| pod.is_ready && !pod.is_being_deleted)
        && let Some((member, pod)) = subscribers().find(|(member, pod)| is_old(member, pod))
    {
        return vec![delete(member, pod, "its spec changed")];
    }
    let active_pod = picture.seen.pods.get(active).filter(|pod| is_old(active, pod));
    match (active_pod, picture.record()) {
        (Some(_), Some(record)) => vec![Action::RequestTransfer {
            from: active.clone(),
            to: standby.member.clone(),
            epoch: record.epoch,
        }],
        (_, _) => Vec::new(),
    }
}

/// A pod that was evicted never runs again; its name is free only when it is gone.
fn ended_pod(picture: &Picture<'_>) -> Option<Action> {
    let mut pods = picture.seen.pods.iter();
    let (member, pod) =
        pods.find(|(_, pod)| pod.has_ended && pod.is_ours && !pod.is_being_deleted)?;
    Some(delete(member, pod, "it ended and will not run again"))
}

fn kind_of(picture: &Picture<'_>, member: &MemberName) -> Kind {
    match names::subscriber_number(&picture.pair.identity.name, member.as_str()) {
        Some(_) => Kind::Subscriber,
        None => Kind::Voter,
    }
}

fn delete(member: &MemberName, pod: &PodSight, why: &'static str) -> Action {
    Action::DeletePod { member: member.clone(), uid: pod.uid.clone(), why }
}
