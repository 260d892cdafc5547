//! Effect: writes the status when it changed, and tells what happened as events.

use crate::{
    context::Context,
    pair::{ReconcileError, action::Action, key_of, names, status},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use understudy_crds::{ActiveStandbyPair, ActiveStandbyPairStatus, Phase, conditions as types};

/// Manager of the status' fields: another one than of the objects, so that neither takes the other's.
const STATUS_MANAGER: &str = "understudy-operator-status";
/// Longest note of an event.
const NOTE_MAX: usize = 1000;

/// Status first: whoever reads an event finds the status that belongs to it.
pub(super) async fn report(
    context: &Context,
    pair: &ActiveStandbyPair,
    before: &ActiveStandbyPairStatus,
    next: &ActiveStandbyPairStatus,
    performed: &[&Action],
) -> Result<(), ReconcileError> {
    if !status::is_same(before, next) {
        let namespace = pair.namespace().unwrap_or_default();
        let api: Api<ActiveStandbyPair> = Api::namespaced(context.client.clone(), &namespace);
        let body = json!({
            "apiVersion": ActiveStandbyPair::api_version(&()),
            "kind": ActiveStandbyPair::kind(&()),
            "metadata": {"name": pair.name_any(), "uid": pair.uid()},
            "status": next,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let written = api
            .patch_status(&pair.name_any(), &params, &Patch::Apply(&body))
            .await
            .map_err(|source| ReconcileError::Api { step: "write the status", source })?;
        context.written.note(&key_of(pair), &written);
    }
    for event in events(before, next, performed) {
        let reference = pair.object_ref(&());
        if let Err(error) = context.recorder.publish(&event, &reference).await {
            tracing::info!(%error, reason = event.reason, "an event was not published");
        }
    }
    context.metrics.count_reconciliation("ok");
    Ok(())
}

fn events(
    before: &ActiveStandbyPairStatus,
    next: &ActiveStandbyPairStatus,
    performed: &[&Action],
) -> Vec<Event> {
    let mut events: Vec<Event> = performed.iter().filter_map(|action| told(action)).collect();
    if let Some(phase) = status::phase_change(before, next) {
        let ready = next.conditions.iter().find(|c| c.type_ == types::READY);
        let note = ready.map_or_else(String::new, |ready| ready.message.clone());
        let type_ = if is_trouble(phase) { EventType::Warning } else { EventType::Normal };
        events.push(event(type_, &format!("Phase{phase}"), "Observe", note));
    }
    let decided = next
        .decisions
        .first()
        .filter(|newest| before.decisions.first().is_none_or(|known| known.epoch < newest.epoch));
    if let Some(decision) = decided {
        let note = format!("{} {}: {}", decision.id, decision.rule, decision.did);
        events.push(event(EventType::Normal, "Decided", "Decide", note));
    }
    let stalled = |status: &ActiveStandbyPairStatus| {
        let found = status.conditions.iter().find(|c| c.type_ == types::STALLED);
        found.filter(|c| c.status == "True").map(|c| (c.reason.clone(), c.message.clone()))
    };
    if let Some((reason, message)) =
        stalled(next).filter(|now| stalled(before).as_ref() != Some(now))
    {
        events.push(event(EventType::Warning, &reason, "Wait", message));
    }
    events
}

fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    let end = note.char_indices().nth(NOTE_MAX).map_or(note.len(), |(at, _)| at);
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note[..end].to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// Requests to agents are repeated while a situation lasts, so they are not events.
fn told(action: &Action) -> Option<Event> {
    let reason = match action {
        Action::CreateLease { .. } => "LeaseCreated",
        Action::NameInitialiser { .. } => "InitialiserNamed",
        Action::ReinstateLease { .. } => "LeaseReinstated",
        Action::CreateMember { .. } => "MemberCreated",
        Action::DeletePod { .. } => "PodDeleted",
        Action::DeleteSubscriberVolumes { .. } => "VolumesDeleted",
        Action::RetireMember { .. } => "MemberRetired",
        Action::RequestTransfer { .. } => "TransferRequested",
        Action::SendScheme { .. }
        | Action::OfferDeath { .. }
        | Action::RequestCandidacy { .. }
        | Action::NoteDatabase { .. } => return None,
    };
    Some(event(EventType::Normal, reason, names::MANAGER, action.to_string()))
}

fn is_trouble(phase: Phase) -> bool {
    match phase {
        Phase::ActiveDown
        | Phase::StandbyDown
        | Phase::BothDown
        | Phase::SuspectPartition
        | Phase::Reexamine
        | Phase::ManualInterventionRequired => true,
        Phase::Initializing
        | Phase::ConfiguringActive
        | Phase::StandbyStarting
        | Phase::StandbyCatchup
        | Phase::Normal
        | Phase::ActiveTakeover
        | Phase::WaitingForActive
        | Phase::Switchover => false,
    }
}
