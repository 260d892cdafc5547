//! Rules while no active serves. The operator adds proofs of death and asks for candidacies; whether a
//! member may become active is judged by its own agent on the Lease (R7–R13). Pure.

use super::person::{self, lives_in_another_store};
use super::{
    ActiveSight, Exit, Picture, StandbySight, Verdict, exit, pod_problem, stalled, waiting,
};
use crate::pair::action::{Action, PersonsWord};
use understudy_agent_api::{AgentStatus, MemberState};
use understudy_authority::{Holder, LeaseRecord, SyncClass, Timing};
use understudy_crds::Phase;
use understudy_types::{MemberName, Role};

/// How long a proof of death may be on its way: the kubelet tells within seconds.
const PROOF_SECONDS_MAX: i64 = 30;

/// Who can become active by itself.
enum Heir {
    /// The standby of S, by its living process (R13a).
    Standby(MemberName),
    /// The last holder, which alone holds everything (R13b).
    LastHolder(MemberName),
    /// Nobody until the last holder is back: all others lack commits.
    NobodyBefore,
}

/// The active hands over by its own write (R22).
pub(super) fn hand_over(picture: &Picture<'_>) -> Option<Verdict> {
    let ActiveSight::HandingOver(to) = picture.active() else { return None };
    let record = picture.record()?;
    let from = &picture.holder()?.member;
    Some(Verdict {
        rule: "hand-over",
        phase: Phase::Switchover,
        actions: request(picture, record, &to, "the active hands over"),
        waiting: waiting("HandingOver", format!("{from} hands over to {to}")),
        exit: Some(exit(format!("{to} becomes active"), "none", "none").within(
            picture,
            Phase::Switchover,
            30,
        )),
        is_frozen: false,
    })
}

/// Somebody is on the way to serve.
pub(super) fn take_over(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    let active = picture.active();
    let candidate = picture
        .voters
        .iter()
        .filter(|_| active != ActiveSight::Serving)
        .find(|voter| picture.standby(voter) == StandbySight::Candidate);
    let taking = match (&active, candidate) {
        (ActiveSight::TakingOver, _) => picture.holder()?.member.clone(),
        (_, Some(candidate)) => candidate.member.clone(),
        (_, None) => return None,
    };
    let mut actions = offer_proof(picture);
    if active != ActiveSight::TakingOver {
        actions.extend(request(picture, record, &taking, "its candidacy is under way"));
    }
    Some(Verdict {
        rule: "takeover",
        phase: Phase::ActiveTakeover,
        actions,
        waiting: waiting("TakingOver", format!("{taking} takes over")),
        exit: Some(exit(format!("{taking} serves"), "none", "none").within(
            picture,
            Phase::ActiveTakeover,
            30,
        )),
        is_frozen: false,
    })
}

/// Neither voter answers, and nobody hears the active.
pub(super) fn both_down(picture: &Picture<'_>) -> Option<Verdict> {
    picture.record()?;
    let is_hopeless = picture.voters.iter().all(|voter| picture.is_volume_lost(voter));
    if is_hopeless || picture.voters.iter().any(|voter| voter.agent.is_some()) {
        return None;
    }
    match picture.active() {
        ActiveSight::Dead(_) | ActiveSight::Silent | ActiveSight::LetGo => {}
        ActiveSight::NeverHeld
        | ActiveSight::Serving
        | ActiveSight::Lapsed
        | ActiveSight::TakingOver
        | ActiveSight::HandingOver(_)
        | ActiveSight::Restarted
        | ActiveSight::Unreachable => return None,
    }
    let first_time = picture.seen.status.phase.is_none_or(|p| p == Phase::Initializing);
    let phase = if first_time { Phase::Initializing } else { Phase::BothDown };
    let problem = picture.voters.iter().find_map(|voter| {
        let (reason, message) = pod_problem(voter.pod?)?;
        Some((reason, format!("{}: {message}", voter.member)))
    });
    let (reason, message) = problem.unwrap_or(("BothDown", "neither member answers".to_owned()));
    let wait = if super::members::is_persistent(reason) {
        stalled(reason, message)
    } else {
        waiting(reason, message)
    };
    Some(Verdict {
        rule: "both-down",
        phase,
        actions: Vec::new(),
        waiting: wait,
        exit: Some(
            exit(
                "start both members; the one that holds every acknowledged commit becomes active",
                "none while their nodes and volumes come back",
                both_down_risk(picture),
            )
            .within(picture, phase, super::picture::START_SECONDS),
        ),
        is_frozen: false,
    })
}

/// The active does not serve and nobody is taking over yet.
pub(super) fn active_down(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    let holder = &picture.holder()?.member;
    let heir = heir(picture, record);
    if picture.active() == ActiveSight::Unreachable {
        return Some(unreachable_active(holder));
    }
    let (rule, reason, message) = what_happened(picture, record, &heir)?;
    let mut actions = offer_proof(picture);
    // By themselves the members look at a silent Lease; a person's word they hear from here alone.
    let lets_ask = matches!(picture.active(), ActiveSight::Dead(_) | ActiveSight::LetGo)
        || person::word(picture, record) != PersonsWord::None;
    let (phase, way_out) = match &heir {
        Heir::Standby(member) if person::must_say(picture, record) => {
            let risk = standby_risk(record);
            return Some(person::decides(picture, member, (rule, &message), (risk, actions)));
        }
        Heir::Standby(member) => (Phase::ActiveDown, promotion(picture, record, member)),
        Heir::LastHolder(member) => (
            Phase::WaitingForActive,
            exit(format!("{member} goes on as active"), "none", "none: it holds every commit"),
        ),
        Heir::NobodyBefore => {
            let why = (rule, message.as_str());
            return Some(person::nobody_has_everything(picture, record, why, actions));
        }
    };
    if let (true, Heir::Standby(member) | Heir::LastHolder(member)) = (lets_ask, &heir) {
        actions.extend(request(picture, record, member, &message));
    }
    let is_unproven = is_unproven_too_long(picture, phase);
    let way_out = if is_unproven {
        exit(
            format!(
                "{holder} goes on when the other voter promises, or its earlier process is proven dead"
            ),
            "bring the other voter back".to_owned(),
            "none: it holds every commit",
        )
    } else {
        way_out.within(picture, phase, 30)
    };
    let wait = if is_unproven {
        let why = picture.seen.agent(holder).and_then(|agent| agent.problem.clone());
        stalled("DeathUnproven", why.unwrap_or(message))
    } else {
        waiting(reason, message)
    };
    Some(Verdict { rule, phase, actions, waiting: wait, exit: Some(way_out), is_frozen: false })
}

/// The rule, the reason and the words for an active that does not serve.
fn what_happened(
    picture: &Picture<'_>,
    record: &LeaseRecord,
    heir: &Heir,
) -> Option<(&'static str, &'static str, String)> {
    let holder = &record.holder.as_ref()?.member;
    let compared = comparison(picture, record).filter(|_| matches!(heir, Heir::LastHolder(_)));
    if let Some(compared) = compared {
        return Some(("both-restarted", "ComparingLogs", compared));
    }
    Some(match picture.active() {
        ActiveSight::Dead(_) => {
            ("active-dead", "ActiveTerminated", format!("the process of {holder} ended, proven"))
        }
        ActiveSight::LetGo => {
            ("active-let-go", "ActiveReleased", format!("{holder} let the Lease go"))
        }
        ActiveSight::Restarted => {
            ("active-restarted", "ActiveRestarted", format!("{holder} runs again, not as active"))
        }
        ActiveSight::Silent => ("active-silent", "ActiveSilent", format!("nobody hears {holder}")),
        ActiveSight::Lapsed => (
            "active-lapsed",
            "AuthorityLost",
            format!("{holder} has neither the Lease nor a grant: it acknowledges nothing"),
        ),
        ActiveSight::Unreachable
        | ActiveSight::NeverHeld
        | ActiveSight::Serving
        | ActiveSight::TakingOver
        | ActiveSight::HandingOver(_) => return None,
    })
}

/// The last rung: no rule knew the situation.
pub(super) fn reexamine() -> Verdict {
    Verdict {
        rule: "reexamine",
        phase: Phase::Reexamine,
        actions: Vec::new(),
        waiting: waiting("Reexamine", "the observations fit no rule; they are taken again"),
        exit: Some(exit("look again", "none; if it stays, report the status", "unknown")),
        is_frozen: false,
    }
}

/// The holder's own later process waits: neither a proof of the earlier one's death nor the other voter's
/// promise came (R11).
fn is_unproven_too_long(picture: &Picture<'_>, phase: Phase) -> bool {
    let status = &picture.seen.status;
    let since = status.phase_since.as_ref().filter(|_| status.phase == Some(phase));
    picture.active() == ActiveSight::Restarted
        && since.is_some_and(|at| picture.now.as_second() - at.0.as_second() > PROOF_SECONDS_MAX)
}

fn unreachable_active(holder: &MemberName) -> Verdict {
    Verdict {
        rule: "active-unreachable",
        phase: Phase::SuspectPartition,
        actions: Vec::new(),
        waiting: waiting(
            "ActiveUnreachable",
            format!("{holder} cannot be asked, others still hear it: nothing proves its death"),
        ),
        exit: Some(exit(
            format!("{holder} goes on serving; promotion only after its authority ran out"),
            "check the network between the operator and the member",
            "none",
        )),
        is_frozen: false,
    }
}

fn heir(picture: &Picture<'_>, record: &LeaseRecord) -> Heir {
    let can_serve = |agent: &&AgentStatus| agent.state != MemberState::Failed;
    if let Some(sync) = &record.sync {
        let agent = picture.seen.agent(&sync.standby.member).filter(can_serve);
        if agent.is_some_and(|agent| agent.incarnation == sync.standby.incarnation) {
            return Heir::Standby(sync.standby.member.clone());
        }
    }
    let goes_on = |holder: &&Holder| {
        picture.seen.agent(&holder.member).is_some_and(|agent| can_serve(&agent))
            && !lives_in_another_store(picture, holder)
    };
    match record.holder.as_ref().filter(goes_on) {
        Some(holder) => Heir::LastHolder(holder.member.clone()),
        None => Heir::NobodyBefore,
    }
}

/// Where the logs of both end, when both processes are new ones: the Lease says which one is complete.
fn comparison(picture: &Picture<'_>, record: &LeaseRecord) -> Option<String> {
    let holder = &record.holder.as_ref()?.member;
    let in_sync = record.sync.as_ref().map(|sync| &sync.standby.member);
    let told = picture.voters.iter().map(|voter| {
        let agent = voter.agent?;
        let is_down = !matches!(agent.role, Role::Active | Role::Standby);
        let ends = is_down.then_some(agent.positions)?;
        let member = &voter.member;
        let what = if member == holder {
            "last active"
        } else if Some(member) == in_sync {
            "recorded in sync"
        } else {
            "not in sync"
        };
        Some(format!("{member} ends at epoch {} LSN {} ({what})", ends.epoch, ends.end_lsn))
    });
    let told: Vec<String> = told.collect::<Option<_>>()?;
    Some(told.join("; "))
}

/// What the promotion of the recorded standby may lose.
fn standby_risk(record: &LeaseRecord) -> String {
    match record.sync.as_ref().map(|sync| sync.class) {
        Some(SyncClass::Async(most)) => format!("acknowledged commits that it lacks: {most}"),
        Some(SyncClass::Receipt | SyncClass::Twosafe) | None => {
            "none: it holds every acknowledged commit".to_owned()
        }
    }
}

fn promotion(picture: &Picture<'_>, record: &LeaseRecord, member: &MemberName) -> Exit {
    let timing = Timing::new(record.lease_duration_ms).ok();
    let wait = timing.map_or(5_000, |t| Timing::stretched(t.lease()).as_millis());
    let (next, human) = match picture.active() {
        ActiveSight::Dead(_) | ActiveSight::LetGo => (format!("promote {member} at once"), "none"),
        ActiveSight::NeverHeld
        | ActiveSight::Serving
        | ActiveSight::Lapsed
        | ActiveSight::TakingOver
        | ActiveSight::HandingOver(_)
        | ActiveSight::Restarted
        | ActiveSight::Unreachable
        | ActiveSight::Silent => (
            format!(
                "promote {member} when Lease and grants have run out, {} s at most",
                wait.div_ceil(1000)
            ),
            "none",
        ),
    };
    exit(next, human, standby_risk(record))
}

fn both_down_risk(picture: &Picture<'_>) -> &'static str {
    match picture.record().and_then(|record| record.sync.as_ref()) {
        Some(_) => "none if either volume is readable",
        None => "commits acknowledged while alone, if the last active's volume is lost",
    }
}

/// Every voter that answers is told of the proven deaths, a later process of the same member too.
fn offer_proof(picture: &Picture<'_>) -> Vec<Action> {
    let Some(of_holder) = picture.proof_of_death() else { return Vec::new() };
    let reports = [Some(of_holder), picture.proof_of_standbys_death()];
    let offers = reports.into_iter().flatten().flat_map(|report| {
        let living = picture.voters.iter().filter(move |voter| {
            voter.agent.is_some_and(|agent| agent.incarnation != report.incarnation)
        });
        living.map(move |voter| Action::OfferDeath {
            to: voter.member.clone(),
            report: report.clone(),
        })
    });
    offers.collect()
}

pub(super) fn request(
    picture: &Picture<'_>,
    record: &LeaseRecord,
    member: &MemberName,
    reason: &str,
) -> Vec<Action> {
    if picture.seen.agent(member).is_none() {
        return Vec::new();
    }
    vec![Action::RequestCandidacy {
        member: member.clone(),
        epoch: record.epoch,
        reason: reason.to_owned(),
        word: person::word(picture, record),
    }]
}
