//! The conditions: one sentence each, with a reason to search for. Pure.

use super::{
    Outcome, kept,
    notices::{Told, told},
};
use crate::pair::{
    observation::LeaseSight,
    plan::{ActiveSight, Picture, Plan, VoterSight},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use understudy_agent_api::MemberState;
use understudy_crds::{ActiveStandbyPairStatus, Phase, SyncWord, conditions as types};
use understudy_types::Role;

/// Certificates are warned about when less than this is left: renewal should have come long before.
const CERTIFICATE_HOURS_MIN: i64 = 7 * 24;
/// Share of permanent memory, in percent, from which it counts as full.
const MEMORY_FULL_PERCENT: u64 = 95;
/// Share below which it does not count as full any more: apart, so that it does not flutter.
const MEMORY_CALM_PERCENT: u64 = 90;

/// A tail of an old epoch was exported and waits for a person.
const TRAPPED: &str = "TrappedTransactions";

/// `True`, `False` or `Unknown`, a reason and a message.
struct Finding {
    status: &'static str,
    reason: String,
    message: String,
}

fn holds(reason: &str, message: impl Into<String>) -> Finding {
    Finding { status: "True", reason: reason.to_owned(), message: message.into() }
}

fn fails(reason: &str, message: impl Into<String>) -> Finding {
    Finding { status: "False", reason: reason.to_owned(), message: message.into() }
}

fn unknown(reason: &str, message: impl Into<String>) -> Finding {
    Finding { status: "Unknown", reason: reason.to_owned(), message: message.into() }
}

/// Every condition, in the order of the contract.
pub(super) fn conditions(
    picture: &Picture<'_>,
    plan: &Plan,
    outcome: &Outcome,
    next: &ActiveStandbyPairStatus,
) -> Vec<Condition> {
    let available = available(picture, plan, next);
    let redundant = redundant(picture, plan, next);
    let stalled = stalled(picture, plan, outcome);
    let ready = ready(picture, &available, &redundant, &stalled);
    let reconciling = reconciling(picture, plan, &stalled);
    let findings = [
        (types::AVAILABLE, available),
        (types::REDUNDANT, redundant),
        (types::READY, ready),
        (types::RECONCILING, reconciling),
        (types::STALLED, stalled),
        (types::FENCING_HEALTHY, fencing(picture, plan)),
        (types::STORAGE_HEALTHY, storage(picture, outcome)),
        (types::MEMORY_HEALTHY, memory(picture)),
        (types::CERTIFICATES_VALID, certificates(picture, next)),
        (types::CONFIGURATION_WARNING, warning(picture)),
    ];
    findings.into_iter().map(|(type_, finding)| condition(picture, type_, finding)).collect()
}

fn condition(picture: &Picture<'_>, type_: &str, finding: Finding) -> Condition {
    let before = picture.seen.status.conditions.iter().find(|c| c.type_ == type_);
    let is_same = before.is_some_and(|c| c.status == finding.status);
    Condition {
        type_: type_.to_owned(),
        status: finding.status.to_owned(),
        reason: finding.reason,
        message: finding.message,
        last_transition_time: kept(before.map(|c| &c.last_transition_time), is_same, picture.now),
        observed_generation: Some(picture.pair.identity.generation),
    }
}

fn why(plan: &Plan) -> (&'static str, String) {
    match &plan.waiting {
        Some(waiting) => (waiting.reason, waiting.message.clone()),
        None => ("Normal", "nothing is awaited".to_owned()),
    }
}

fn available(picture: &Picture<'_>, plan: &Plan, next: &ActiveStandbyPairStatus) -> Finding {
    let (reason, message) = why(plan);
    if let Some(full) = log_full(picture).filter(|_| picture.active() == ActiveSight::Serving) {
        return full;
    }
    match picture.active() {
        // The Lease goes on naming a lost standby as long as nobody commits without it.
        ActiveSight::Serving if picture.is_blocked() && plan.phase != Phase::Normal => fails(
            "WaitingForStandby",
            "whenStandbyLost: Block holds commits back until a standby is in sync; reads go on",
        ),
        ActiveSight::Serving if picture.is_unpromised() || is_in_sync(next) => {
            holds("Serving", "commits are acknowledged under the promise of the spec")
        }
        ActiveSight::Serving => holds(
            "ServingAlone",
            "commits are acknowledged without a standby in sync, and the Lease says so",
        ),
        ActiveSight::Unreachable => unknown(reason, message),
        ActiveSight::NeverHeld
        | ActiveSight::Lapsed
        | ActiveSight::TakingOver
        | ActiveSight::LetGo
        | ActiveSight::HandingOver(_)
        | ActiveSight::Dead(_)
        | ActiveSight::Restarted
        | ActiveSight::Silent => fails(reason, message),
    }
}

/// Writes are refused because the active's log has no room.
fn log_full(picture: &Picture<'_>) -> Option<Finding> {
    let active = &picture.holder()?.member;
    let is_full = picture.seen.agent(active).is_some_and(|agent| agent.log_full);
    is_full.then(|| {
        fails(
            "LogFull",
            format!(
                "the log volume of {active} is full: writes are refused (53100) and reads go on; writes resume by themselves when there is room: grow storage.log.size, or free what holds the log"
            ),
        )
    })
}

fn is_in_sync(next: &ActiveStandbyPairStatus) -> bool {
    next.sync.as_ref().is_some_and(|sync| sync.state == SyncWord::InSync)
}

fn redundant(picture: &Picture<'_>, plan: &Plan, next: &ActiveStandbyPairStatus) -> Finding {
    let standby = next.standby.clone().unwrap_or_default();
    match plan.phase {
        Phase::Normal if picture.is_unpromised() => holds(
            "FollowingUnpromised",
            format!("{standby} follows, and is never promoted automatically under NoReturn"),
        ),
        Phase::Normal => holds("InSync", format!("{standby} is in sync")),
        Phase::Initializing
        | Phase::ConfiguringActive
        | Phase::StandbyStarting
        | Phase::StandbyCatchup
        | Phase::ActiveDown
        | Phase::ActiveTakeover
        | Phase::StandbyDown
        | Phase::BothDown
        | Phase::WaitingForActive
        | Phase::SuspectPartition
        | Phase::Switchover
        | Phase::Reexamine
        | Phase::ManualInterventionRequired => {
            let on_its_way = matches!(plan.phase, Phase::StandbyStarting | Phase::StandbyCatchup);
            if let Some(all) = trapped(picture.other()).filter(|_| on_its_way) {
                return fails(TRAPPED, all);
            }
            let (reason, message) = why(plan);
            fails(reason, message)
        }
    }
}

/// What these members have exported of epochs that ended without it (R19).
fn trapped<'a>(voters: impl IntoIterator<Item = &'a VoterSight<'a>>) -> Option<String> {
    let tails = voters.into_iter().filter_map(|voter| Some((voter, voter.agent?)));
    let told: Vec<String> = tails
        .flat_map(|(voter, agent)| {
            let member = &voter.member;
            agent.trapped.iter().map(move |tail| {
                format!(
                    "{} of epoch {} beyond LSN {} are exported on {member}, and in no other log: `understudy trapped show`, then `replay` or `discard`",
                    counted(tail.transactions, "transaction"), tail.epoch, tail.above_lsn
                )
            })
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn ready(
    picture: &Picture<'_>,
    available: &Finding,
    redundant: &Finding,
    stalled: &Finding,
) -> Finding {
    if picture.pair.spec.is_err() {
        return fails(&stalled.reason, stalled.message.clone());
    }
    if available.status != "True" {
        return fails(&available.reason, available.message.clone());
    }
    if redundant.status != "True" {
        return fails(&redundant.reason, redundant.message.clone());
    }
    if stalled.status == "True" {
        return fails(&stalled.reason, stalled.message.clone());
    }
    match unrouted(picture) {
        Some(message) => fails("NotRouted", message),
        None => holds("Ready", "the active serves and the standby follows"),
    }
}

/// What keeps the Service of the active from leading to it: `Ready` promises that clients get through.
fn unrouted(picture: &Picture<'_>) -> Option<String> {
    let active = &picture.holder()?.member;
    let pod = picture.seen.pods.get(active)?;
    if pod.role_label.as_deref() != Some(Role::Active.as_label()) {
        return Some(format!("the pod of {active} is not labelled as active yet"));
    }
    (!pod.is_ready).then(|| format!("the pod of {active} is not Ready yet"))
}

fn stalled(picture: &Picture<'_>, plan: &Plan, outcome: &Outcome) -> Finding {
    if let Err(problems) = &picture.pair.spec {
        let reason = problems.first().map_or("InvalidSpec", |problem| problem.reason());
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return holds(reason, all.join("; "));
    }
    if let Some(waiting) = plan.waiting.as_ref().filter(|waiting| waiting.is_stalled) {
        return holds(waiting.reason, waiting.message.clone());
    }
    if let Some(failure) = &outcome.failure {
        return holds("ActionRefused", failure.clone());
    }
    fails("NotStalled", "nothing is stuck")
}

fn reconciling(picture: &Picture<'_>, plan: &Plan, stalled: &Finding) -> Finding {
    if stalled.status == "True" {
        return fails("Stalled", "see the Stalled condition");
    }
    if plan.phase != Phase::Normal {
        let told = told(picture, types::RECONCILING).next();
        if let Some(told) = told.filter(|_| plan.phase == Phase::StandbyCatchup) {
            return holds(told.reason, told.message);
        }
        let (reason, message) = why(plan);
        return holds(reason, message);
    }
    match plan.actions.first() {
        Some(action) => holds("Changing", format!("next: {action}")),
        None => fails("Settled", "nothing is being changed"),
    }
}

fn fencing(picture: &Picture<'_>, plan: &Plan) -> Finding {
    let (reason, message) = why(plan);
    match picture.seen.lease.known() {
        None => return unknown("LeaseUnknown", "the Lease could not be read"),
        Some(LeaseSight::Unreadable(_)) => return fails(reason, message),
        Some(LeaseSight::Absent { .. }) if reason == "LeaseLost" => return fails(reason, message),
        Some(LeaseSight::Absent { .. }) => {
            return unknown("NoLeaseYet", "the Lease is not made yet");
        }
        Some(LeaseSight::Present { is_being_deleted: true, .. }) => {
            return fails(
                "LeaseDeleted",
                "somebody deleted the Lease; its finalizer keeps it: delete the pair, or remove the mark",
            );
        }
        Some(LeaseSight::Present { .. }) => {}
    }
    match (reason, picture.active()) {
        ("LeaseRegressed" | "DualActive", _) => fails(reason, message),
        (_, ActiveSight::Unreachable) => unknown(reason, message),
        (_, _) => holds("LeaseKept", "the Lease, the active and the standby decide who serves"),
    }
}

fn storage(picture: &Picture<'_>, outcome: &Outcome) -> Finding {
    if let Some(problem) = &outcome.storage_problem {
        return fails("VolumeCannotGrow", problem.clone());
    }
    if let Some(voter) = picture.voters.iter().find(|voter| picture.is_volume_lost(voter)) {
        return fails("VolumeLost", format!("a volume of {} is gone", voter.member));
    }
    let full = picture.voters.iter().filter(|v| v.agent.is_some_and(|agent| agent.log_full));
    let full: Vec<&str> = full.map(|voter| voter.member.as_str()).collect();
    if !full.is_empty() {
        let message =
            format!("the log volume of {} is full; grow storage.log.size", full.join(", "));
        return fails("LogFull", message);
    }
    let noticed: Vec<Told<'_>> = told(picture, types::STORAGE_HEALTHY).collect();
    let reports = picture.voters.iter().filter_map(|voter| {
        let is_told = noticed.iter().any(|told| *told.member == voter.member);
        let failed = voter.agent.filter(|agent| agent.state == MemberState::Failed && !is_told)?;
        Some(format!("{}: {}", voter.member, failed.problem.as_deref()?))
    });
    let reason = noticed.first().map_or("MemberReports", |told| told.reason);
    let noticed = noticed.iter().map(|told| told.message.clone());
    match noticed.chain(reports).reduce(|all, next| format!("{all}; {next}")) {
        Some(all) => fails(reason, all),
        None => holds("Bound", "no member reports a problem with its volumes"),
    }
}

fn memory(picture: &Picture<'_>) -> Finding {
    let blocked = told(picture, types::MEMORY_HEALTHY).map(|told| (told.reason, told.message));
    if let Some((reason, all)) =
        blocked.reduce(|(reason, all), (_, next)| (reason, format!("{all}; {next}")))
    {
        return fails(reason, all);
    }
    let was_full = picture
        .seen
        .status
        .conditions
        .iter()
        .any(|c| c.type_ == types::MEMORY_HEALTHY && c.status == "False");
    let bound = if was_full { MEMORY_CALM_PERCENT } else { MEMORY_FULL_PERCENT };
    let full: Vec<&str> = picture
        .voters
        .iter()
        .filter(|voter| {
            voter.agent.is_some_and(|agent| {
                agent.memory_limit_bytes > 0
                    && agent.memory_used_bytes / (agent.memory_limit_bytes / 100).max(1) >= bound
            })
        })
        .map(|voter| voter.member.as_str())
        .collect();
    if full.is_empty() {
        return holds("Room", "every member has room in permanent memory");
    }
    let message =
        format!("permanent memory of {} is nearly full; raise memory.permanent", full.join(", "));
    fails("PermanentFull", message)
}

fn certificates(picture: &Picture<'_>, next: &ActiveStandbyPairStatus) -> Finding {
    let distrusted = told(picture, types::CERTIFICATES_VALID).next();
    let distrusted = distrusted.map(|told| fails(told.reason, told.message));
    let Some(certificates) = &next.certificates else {
        return distrusted.unwrap_or_else(|| unknown("NotIssued", "no certificate was issued yet"));
    };
    let end = certificates.not_after.0;
    let left = end.duration_since(picture.now);
    if left <= SignedDuration::ZERO {
        return fails("Expired", format!("a certificate ended at {end}"));
    }
    if let Some(distrusted) = distrusted {
        return distrusted;
    }
    if left < SignedDuration::from_hours(CERTIFICATE_HOURS_MIN) {
        return fails("ExpiresSoon", format!("a certificate ends at {end} and was not renewed"));
    }
    holds("Valid", format!("the first certificate ends at {end}; it is renewed before"))
}

fn warning(picture: &Picture<'_>) -> Finding {
    let of_spec = picture.spec().map(|spec| spec.warnings.as_slice()).unwrap_or_default();
    let mut warnings: Vec<(&str, String)> =
        of_spec.iter().map(|(reason, message)| (*reason, message.clone())).collect();
    let told = told(picture, types::CONFIGURATION_WARNING);
    warnings.extend(told.map(|told| (told.reason, told.message)));
    warnings.extend(trapped(&picture.voters).map(|all| (TRAPPED, all)));
    match warnings.first() {
        Some((reason, _)) => {
            let all: Vec<&str> = warnings.iter().map(|(_, message)| message.as_str()).collect();
            holds(reason, all.join("; "))
        }
        None => fails("NoWarning", "nothing is worth a warning"),
    }
}
