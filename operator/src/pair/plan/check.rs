//! Checks of any plan against the laws of planning, written apart from the rules: each is one sentence.
//! Used by every golden script, and by the operator itself before it acts.

use super::{Picture, Plan};
use crate::pair::{
    action::Action,
    observation::{LeaseSight, Seen},
};
use understudy_authority::LeaseState;
use understudy_crds::{Mode, Phase};
use understudy_types::MemberName;

/// The first law that the plan breaks, as a sentence; a plan that breaks one must not be carried out.
///
/// # Errors
/// When the plan breaks a law.
pub fn check(picture: &Picture<'_>, plan: &Plan) -> Result<(), String> {
    names_its_exit(plan)?;
    disturbs_one_voter_at_most(picture, plan)?;
    hands_over_to_who_stays(picture, plan)?;
    writes_the_lease_only_at_the_beginning(picture, plan)?;
    asks_nobody_while_the_active_serves(picture, plan)?;
    keeps_still_when_paused(picture, plan)
}

fn names_its_exit(plan: &Plan) -> Result<(), String> {
    let is_normal = plan.phase == Phase::Normal;
    match (&plan.exit, &plan.waiting) {
        (None, None) if is_normal => Ok(()),
        (Some(exit), Some(_)) if !is_normal => {
            let words = [&exit.next, &exit.human, &exit.risk];
            if words.iter().any(|word| word.is_empty()) {
                return Err(format!("phase {} has an exit with an empty word", plan.phase));
            }
            Ok(())
        }
        (_, _) => Err(format!("phase {} and its exit do not fit", plan.phase)),
    }
}

fn disturbs_one_voter_at_most(picture: &Picture<'_>, plan: &Plan) -> Result<(), String> {
    let voters = plan.actions.iter().filter(|action| match action {
        Action::DeletePod { member, .. } | Action::DeleteSubscriberVolumes { member } => {
            picture.voter(member).is_some()
        }
        Action::RequestTransfer { .. } => true,
        Action::CreateLease { .. }
        | Action::NameInitialiser { .. }
        | Action::ReinstateLease { .. }
        | Action::CreateMember { .. }
        | Action::RetireMember { .. }
        | Action::SendScheme { .. }
        | Action::OfferDeath { .. }
        | Action::RequestCandidacy { .. }
        | Action::NoteDatabase { .. } => false,
    });
    if voters.count() > 1 {
        return Err("more than one voter would be disturbed".to_owned());
    }
    let deletes_voter_volume = plan.actions.iter().any(|action| {
        matches!(action, Action::DeleteSubscriberVolumes { member }
            if crate::pair::names::subscriber_number(&picture.pair.identity.name, member.as_str())
                .is_none())
    });
    if deletes_voter_volume {
        return Err("a voter's volume would be deleted".to_owned());
    }
    Ok(())
}

fn hands_over_to_who_stays(picture: &Picture<'_>, plan: &Plan) -> Result<(), String> {
    let stays = |member: &MemberName| {
        picture.seen.pods.get(member).is_some_and(|pod| !pod.is_being_deleted && !pod.has_ended)
    };
    let leaves =
        |action: &&Action| matches!(action, Action::RequestTransfer { to, .. } if !stays(to));
    match plan.actions.iter().find(leaves) {
        Some(action) => Err(format!("{action}: its pod is on its way out")),
        None => Ok(()),
    }
}

fn writes_the_lease_only_at_the_beginning(
    picture: &Picture<'_>,
    plan: &Plan,
) -> Result<(), String> {
    for action in &plan.actions {
        let is_lawful = match action {
            Action::CreateLease { record } => {
                record.state == LeaseState::Uninitialised
                    && picture.seen.status.dbid.is_none()
                    && picture
                        .seen
                        .lease
                        .known()
                        .is_some_and(|sight| matches!(sight, LeaseSight::Absent { .. }))
            }
            Action::NameInitialiser { record, .. } => picture.record().is_some_and(|base| {
                record.seq == base.seq + 1
                    && base.dbid.is_none()
                    && matches!(
                        base.state,
                        LeaseState::Uninitialised | LeaseState::Initialising { .. }
                    )
            }),
            Action::ReinstateLease { record } => {
                let answer = picture.voters.iter().all(|voter| voter.agent.is_some());
                let knows_less =
                    picture.seen.agents.values().filter_map(Seen::known).all(|agent| {
                        let promised = agent.store.map_or(0, |store| store.promised.0);
                        promised.max(agent.positions.epoch.0) < record.epoch.0
                    });
                answer
                    && knows_less
                    && record.state == LeaseState::Released
                    && record.sync.is_none()
            }
            Action::CreateMember { .. }
            | Action::DeletePod { .. }
            | Action::DeleteSubscriberVolumes { .. }
            | Action::RetireMember { .. }
            | Action::SendScheme { .. }
            | Action::OfferDeath { .. }
            | Action::RequestCandidacy { .. }
            | Action::RequestTransfer { .. }
            | Action::NoteDatabase { .. } => true,
        };
        if !is_lawful {
            return Err(format!("`{action}` would write the Lease outside R20 and R21"));
        }
    }
    Ok(())
}

fn asks_nobody_while_the_active_serves(picture: &Picture<'_>, plan: &Plan) -> Result<(), String> {
    let asks = plan.actions.iter().any(|a| matches!(a, Action::RequestCandidacy { .. }));
    if asks && picture.active() == super::ActiveSight::Serving {
        return Err("a candidacy would be asked for while the active serves".to_owned());
    }
    Ok(())
}

fn keeps_still_when_paused(picture: &Picture<'_>, plan: &Plan) -> Result<(), String> {
    let is_paused = picture.spec().is_some_and(|spec| spec.mode == Mode::Paused);
    let acts = plan.actions.iter().any(|a| !matches!(a, Action::SendScheme { .. }));
    if is_paused && acts {
        return Err("something would be done under mode: Paused".to_owned());
    }
    Ok(())
}
