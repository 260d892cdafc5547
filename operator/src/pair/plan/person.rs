//! Situations that only a person ends: what the status says, and what the person's word does. Pure.

use super::{Picture, Verdict, VoterSight, WaitingOn, exit, failover::request, stalled, waiting};
use crate::pair::action::{Action, PersonsWord};
use understudy_agent_api::{AgentStatus, MemberState};
use understudy_authority::{Holder, LeaseRecord};
use understudy_crds::Phase;
use understudy_types::{FailoverPolicy, MemberName};

/// What goes when an active that was alone never returns.
pub(crate) const LOST_WITH_THE_ACTIVE: &str =
    "every commit acknowledged since the standby was last in sync";

/// Whether a promotion waits for a person's word that was not given for this epoch.
pub(super) fn must_say(picture: &Picture<'_>, record: &LeaseRecord) -> bool {
    picture.spec().is_some_and(|spec| spec.failover == FailoverPolicy::Manual)
        && word(picture, record) == PersonsWord::None
}

/// What a person said of the epoch on the Lease.
pub(super) fn word(picture: &Picture<'_>, record: &LeaseRecord) -> PersonsWord {
    match (picture.pair.loss_accepted, picture.pair.failover_asked) {
        (Some(epoch), _) if epoch == record.epoch => PersonsWord::AcceptsLoss,
        (_, Some(epoch)) if epoch == record.epoch => PersonsWord::Asks,
        (_, _) => PersonsWord::None,
    }
}

/// `failover.policy: Manual`: the standby could go on, and a person says whether it does.
pub(super) fn decides(
    picture: &Picture<'_>,
    standby: &MemberName,
    (rule, message): (&'static str, &str),
    (risk, actions): (String, Vec<Action>),
) -> Verdict {
    let what = format!("{message}; {standby} is in sync, and failover.policy is Manual");
    Verdict {
        rule,
        phase: Phase::ActiveDown,
        actions,
        waiting: stalled("FailoverIsManual", what),
        exit: Some(exit(
            "wait for the last active, or for the command",
            command(picture, ""),
            risk,
        )),
        is_frozen: false,
    }
}

/// Why the last holder, which answers, can never serve what it held.
fn unusable(
    picture: &Picture<'_>,
    record: &LeaseRecord,
    holder: Option<&Holder>,
) -> Option<WaitingOn> {
    let holder = holder?;
    let name = &holder.member;
    if picture.voters.iter().all(|voter| holds_nothing(picture, record, voter)) {
        let message = "no member has a volume of this database any more".to_owned();
        return stalled("EveryLogLost", message);
    }
    let is_gone = picture.voter(name).is_some_and(|voter| picture.is_volume_lost(voter));
    if is_gone || lives_in_another_store(picture, holder) {
        let message = format!(
            "the log of {name}, last active with epoch {}, is gone, and no other member holds every commit",
            record.epoch
        );
        return stalled("OneLogLost", message);
    }
    let agent = picture.seen.agent(name).filter(|agent| agent.state == MemberState::Failed)?;
    let problem = agent.problem.as_deref().unwrap_or("it gives no reason");
    let message = format!(
        "{name}, last active with epoch {}, cannot serve ({problem}), and no other member holds every commit",
        record.epoch
    );
    stalled("ActiveFailed", message)
}

/// Whether nothing of the database is on this voter: its volume is gone, or it answers with a store that
/// never had a vote.
fn holds_nothing(picture: &Picture<'_>, record: &LeaseRecord, voter: &VoterSight<'_>) -> bool {
    let store = voter.agent.and_then(|agent| agent.store);
    picture.is_volume_lost(voter)
        || store.is_some_and(|own| !record.is_voter(&voter.member, own.store))
}

/// What is left to a person when no member could go on even with a loss.
fn left(picture: &Picture<'_>, record: &LeaseRecord) -> String {
    if picture.voters.iter().any(|voter| !holds_nothing(picture, record, voter)) {
        return "bring the other voter back".to_owned();
    }
    "bring back a volume of either member, from a snapshot or a backup; or, if the data may go, delete this pair and its Lease and make it again".to_owned()
}

fn command(picture: &Picture<'_>, flag: &str) -> String {
    let identity = &picture.pair.identity;
    format!("understudy failover -n {} {}{flag}", identity.namespace, identity.name)
}

/// Only the last holder has every acknowledged commit, and it is not here. Without a person nobody is
/// promoted (R13); with a person's word for this epoch the other voter is (R13d).
pub(super) fn nobody_has_everything(
    picture: &Picture<'_>,
    record: &LeaseRecord,
    (rule, message): (&'static str, &str),
    mut actions: Vec<Action>,
) -> Verdict {
    let holder = record.holder.as_ref();
    let name = holder.map_or(&picture.voters[0].member, |h| &h.member);
    let other = holder.and_then(|holder| stand_in(picture, record, holder));
    let risk = LOST_WITH_THE_ACTIVE;
    if let Some(other) = other.filter(|_| picture.pair.loss_accepted == Some(record.epoch)) {
        actions.extend(request(picture, record, other, "a person accepts the loss"));
        let what = format!("{message}; a person accepts what {other} lacks");
        return Verdict {
            rule: "loss-accepted",
            phase: Phase::ActiveTakeover,
            actions,
            waiting: waiting("LossAccepted", what),
            exit: Some(
                exit(
                    format!("{other} becomes active when Lease and grants have run out"),
                    "none",
                    risk,
                )
                .within(picture, Phase::ActiveTakeover, 30),
            ),
            is_frozen: false,
        };
    }
    let command = other.map(|_| command(picture, " --accept-loss"));
    let (phase, wait, way_out) = if let Some(problem) = unusable(picture, record, holder) {
        (
            Phase::ManualInterventionRequired,
            Some(problem),
            exit("look again", command.unwrap_or_else(|| left(picture, record)), risk),
        )
    } else {
        let node = node_of(picture, name);
        let back = format!("bring {name}{node} back: that loses nothing");
        (
            Phase::ActiveDown,
            stalled(
                "StandbyNotInSync",
                format!("{message}, and no other member holds every commit"),
            ),
            exit(
                format!("wait for {name}{node}, however long"),
                command.map_or(back.clone(), |command| {
                    format!("{back}; or, if it never returns: {command}")
                }),
                format!("{risk}, if that member never returns"),
            ),
        )
    };
    Verdict { rule, phase, actions, waiting: wait, exit: Some(way_out), is_frozen: false }
}

fn node_of(picture: &Picture<'_>, member: &MemberName) -> String {
    let node = picture.voter(member).and_then(|v| v.pod).and_then(|pod| pod.node.clone());
    node.map_or_else(String::new, |node| format!(" (node {node})"))
}

/// The voter that could serve with what it has: another store than the last holder's, with a vote.
fn stand_in<'a>(
    picture: &Picture<'a>,
    record: &LeaseRecord,
    holder: &Holder,
) -> Option<&'a MemberName> {
    let can_serve = |agent: &AgentStatus| {
        agent.state != MemberState::Failed
            && agent.store.is_none_or(|own| {
                own.store != holder.store && record.is_voter(&agent.member, own.store)
            })
    };
    picture
        .voters
        .iter()
        .filter_map(|voter| voter.agent)
        .find(|agent| agent.member != holder.member && can_serve(agent))
        .map(|agent| &agent.member)
}

/// The holder's member answers, and its directory is not the one that held the role.
pub(super) fn lives_in_another_store(picture: &Picture<'_>, holder: &Holder) -> bool {
    let agent = picture.seen.agent(&holder.member);
    agent.and_then(|agent| agent.store).is_some_and(|own| own.store != holder.store)
}
