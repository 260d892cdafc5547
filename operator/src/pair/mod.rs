//! One pair: observe → validate → plan → build → execute → status.
//!
//! ```text
//!   caches, Secrets, agents ──observe──▶ Observation ──plan──▶ Plan ──execute──▶ Outcome ──status──▶ status
//!                 spec ──validate──▶ PairView ─┘   └──build──▶ objects ──apply──┘
//! ```
//!
//! `validate`, `plan`, `build` and `status` are pure; `gather`, `secrets`, `apply`, `execute` and
//! `deletion` are the effects around them.

pub mod action;
pub mod apply;
pub mod build;
mod deletion;
pub mod execute;
mod gather;
pub mod names;
pub mod observation;
mod observe;
pub mod plan;
mod report;
pub mod secrets;
pub mod status;
pub mod validate;

use crate::{agents::PairKey, context::Context};
use action::Action;
use apply::{amend, apply};
use execute::{ExecuteError, Executor};
use gather::Gathered;
use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller};
use plan::{Picture, Plan};
use status::Outcome;
use std::{sync::Arc, time::Duration};
use understudy_crds::{ActiveStandbyPair, Mode, Phase};
use validate::validate;

/// How soon to look again after a step failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How soon to look again while a voter does not answer: its silence grows without any event.
const WHILE_SILENT: Duration = Duration::from_secs(1);

/// Why a reconciliation ended early. The next one observes afresh.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server could not be asked.
    #[error("failed to {step}")]
    Api {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The Secrets are not as they should be.
    #[error("failed to secure the pair")]
    Secrets(#[source] secrets::SecretError),
    /// The Lease could not be removed.
    #[error("failed to remove the Lease: {0}")]
    Lease(String),
    /// The plan breaks a law of planning: nothing of it was done.
    #[error("the plan breaks a law: {0}")]
    Unlawful(String),
}

/// Looks at one pair once.
///
/// # Errors
/// When the API server cannot be asked, or a plan breaks a law.
pub async fn reconcile(
    pair: Arc<ActiveStandbyPair>,
    context: Arc<Context>,
) -> Result<controller::Action, ReconcileError> {
    let now = Timestamp::now();
    if let Some(next) = deletion::tend(&context, &pair).await? {
        return Ok(next);
    }
    let references = gather::references(&context, &pair).await?;
    let view = validate(&pair, &context.default_image, &references);
    let Gathered { seen, judged, not_after, failure } =
        gather::gather(&context, &pair, &view, now).await?;
    let picture = Picture::of(&view, &seen, now);
    let plan = plan::plan(&view, &seen, now);
    plan::check::check(&picture, &plan).map_err(ReconcileError::Unlawful)?;

    let mut outcome = Outcome {
        failure,
        certificates_not_after: not_after,
        retired: plan.actions.iter().filter_map(retired).collect(),
        storage_problem: None,
    };
    let executor = Executor { context: &context, picture: &picture, judged };
    // What may end a gap in service comes before everything that only keeps order.
    let (urgent, others): (Vec<&Action>, Vec<&Action>) =
        plan.actions.iter().partition(|action| action.is_urgent());
    perform(&executor, &urgent, &mut outcome).await;
    lay_foundation(&context, &picture, &plan, &mut outcome).await?;
    let performed = perform(&executor, &others, &mut outcome).await;
    let next = status::status(&picture, &plan, &outcome);
    report::report(&context, &pair, &seen.status, &next, &performed).await?;
    context.metrics.note_phase(&key_of(&pair), plan.phase);
    Ok(controller::Action::requeue(requeue(&picture, &plan, &outcome)))
}

fn retired(action: &Action) -> Option<understudy_types::MemberName> {
    match action {
        Action::RetireMember { member } => Some(member.clone()),
        Action::CreateLease { .. }
        | Action::NameInitialiser { .. }
        | Action::ReinstateLease { .. }
        | Action::CreateMember { .. }
        | Action::DeletePod { .. }
        | Action::DeleteSubscriberVolumes { .. }
        | Action::SendScheme { .. }
        | Action::OfferDeath { .. }
        | Action::RequestCandidacy { .. }
        | Action::RequestTransfer { .. }
        | Action::NoteDatabase { .. } => None,
    }
}

/// Namespace and name.
pub(crate) fn key_of(pair: &ActiveStandbyPair) -> PairKey {
    (pair.namespace().unwrap_or_default(), pair.name_any())
}

/// Services, access, budget, and the sizes of volumes that exist.
async fn lay_foundation(
    context: &Context,
    picture: &Picture<'_>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<(), ReconcileError> {
    let Some(spec) = picture.spec().filter(|spec| spec.mode == Mode::Automatic) else {
        return Ok(());
    };
    let namespace = &picture.pair.identity.namespace;
    let voters: Vec<_> = picture.voters.iter().map(|voter| voter.member.clone()).collect();
    let blueprint = build::Blueprint {
        pair: picture.pair,
        spec,
        voters: &voters,
        last_member: picture.last_member,
        phase: plan.phase,
    };
    for object in build::foundation(&blueprint) {
        apply(&context.client, namespace, &context.applied, &object)
            .await
            .map_err(|source| ReconcileError::Api { step: "apply the pair's objects", source })?;
    }
    for (member, found) in &picture.seen.volumes {
        let kind = match names::subscriber_number(&picture.pair.identity.name, member.as_str()) {
            Some(_) => action::Kind::Subscriber,
            None if voters.contains(member) => action::Kind::Voter,
            None => continue,
        };
        let both = [&found.data, &found.log];
        if both.into_iter().any(|v| v.as_ref().is_none_or(|volume| volume.is_being_deleted)) {
            continue;
        }
        for object in execute::claims(picture, spec, (member, kind), None) {
            let grown = amend(&context.client, namespace, &context.applied, &object).await;
            match grown {
                Ok(_) => {}
                Err(kube::Error::Api(refused))
                    if refused.is_forbidden() || refused.is_invalid() =>
                {
                    outcome.storage_problem = Some(format!("{}: {}", object.name, refused.message));
                }
                Err(source) => {
                    return Err(ReconcileError::Api { step: "apply a volume claim", source });
                }
            }
        }
    }
    Ok(())
}

/// In order, each once, until the first failure.
async fn perform<'p>(
    executor: &Executor<'_>,
    actions: &[&'p Action],
    outcome: &mut Outcome,
) -> Vec<&'p Action> {
    let mut performed = Vec::new();
    for &action in actions {
        match executor.perform(action).await {
            Ok(()) => performed.push(action),
            // An agent that does not answer is no reason to leave the others alone.
            Err(error @ ExecuteError::Agent { .. }) => {
                tracing::info!(error = chain(&error), "an agent did not do what it was asked");
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "a step failed");
                if error.is_refusal() {
                    outcome.failure = Some(error.words());
                }
                break;
            }
        }
    }
    performed
}

fn requeue(picture: &Picture<'_>, plan: &Plan, outcome: &Outcome) -> Duration {
    let is_silent = picture.voters.iter().any(|voter| voter.silent_seconds.is_some());
    let mut after = plan.requeue_after;
    if is_silent || (plan.phase != Phase::Normal && !plan.actions.is_empty()) {
        after = after.min(WHILE_SILENT);
    }
    if outcome.failure.is_some() || picture.spec().is_none() {
        after = after.min(AFTER_FAILURE * 5);
    }
    after
}

/// What to do after a reconciliation that ended early.
pub fn after_error(
    pair: Arc<ActiveStandbyPair>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> controller::Action {
    let (namespace, name) = key_of(&pair);
    tracing::warn!(namespace, pair = name, error = chain(error), "a reconciliation ended early");
    context.metrics.count_reconciliation("error");
    controller::Action::requeue(AFTER_FAILURE)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
