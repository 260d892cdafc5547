//! The record of who became active, when, why, and how long each part took. Pure.

use crate::pair::plan::{ActiveSight, LOST_WITH_THE_ACTIVE, Picture, StandbySight};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use understudy_agent_api::{AgentStatus, TakeoverTimes};
use understudy_crds::Decision;
use understudy_types::{ReturnService, Role};

/// How many decisions a status keeps.
pub const DECISIONS_MAX: usize = 10;
/// Longest text of one fact, so that a decision stays near 1 KiB.
const FACT_MAX: usize = 160;
/// Most facts of one decision.
const FACTS_MAX: usize = 5;

/// Those of before, and a new one when a new epoch serves and is routed to.
pub(super) fn decisions(picture: &Picture<'_>) -> Vec<Decision> {
    let before = &picture.seen.status.decisions;
    let mut decisions: Vec<Decision> = new(picture, before.first()).into_iter().collect();
    decisions.extend(before.iter().cloned());
    decisions.truncate(DECISIONS_MAX);
    measure_loss(picture, &mut decisions);
    decisions
}

/// What the newest promotion lost, once the other voter has come back and left what only it had (R19).
fn measure_loss(picture: &Picture<'_>, decisions: &mut [Decision]) {
    let before = decisions.get(1).map_or(0, |decision| decision.epoch);
    let Some(newest) = decisions.first_mut() else { return };
    let is_open = newest.predicted_loss.is_some() && newest.measured_loss.is_none();
    let has_rejoined = picture.active() == ActiveSight::Serving
        && picture.other().is_some_and(|voter| picture.standby(voter) == StandbySight::InSync);
    if !is_open || !has_rejoined {
        return;
    }
    let tails: Vec<String> = super::trapped(picture)
        .iter()
        .filter(|tail| (before..newest.epoch).contains(&tail.epoch))
        .map(|tail| format!("{} transactions, trapped as {}", tail.transactions, tail.file))
        .collect();
    newest.measured_loss = Some(match tails.as_slice() {
        [] => "none: the old active had nothing more".to_owned(),
        some => cut(&some.join("; ")),
    });
}

fn new(picture: &Picture<'_>, newest: Option<&Decision>) -> Option<Decision> {
    if picture.active() != ActiveSight::Serving {
        return None;
    }
    let record = picture.record()?;
    let epoch = i64::try_from(record.epoch.0).ok()?;
    if newest.is_some_and(|decision| decision.epoch >= epoch) {
        return None;
    }
    let member = &record.holder.as_ref()?.member;
    let agent = picture.seen.agent(member)?;
    let is_routed = picture
        .seen
        .pods
        .get(member)
        .is_some_and(|pod| pod.role_label.as_deref() == Some(Role::Active.as_label()));
    if !is_routed {
        return None;
    }
    let times = agent.takeover.as_ref().filter(|takeover| takeover.epoch == record.epoch);
    Some(decision(picture, agent, times, epoch))
}

fn decision(
    picture: &Picture<'_>,
    agent: &AgentStatus,
    times: Option<&TakeoverTimes>,
    epoch: i64,
) -> Decision {
    let member = &agent.member;
    let began: Option<Timestamp> = times.and_then(|t| t.detected_at.parse().ok());
    let spent = times.map(|t| t.decide_ms + t.fence_ms + t.promote_ms);
    let serving = began.zip(spent).and_then(|(began, ms)| {
        began.checked_add(SignedDuration::from_millis(i64::try_from(ms).ok()?)).ok()
    });
    let route = serving
        .map(|at| picture.now.as_millisecond() - at.as_millisecond())
        .filter(|ms| (0..60_000).contains(ms));
    let millis = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let before = picture.seen.status.decisions.first().map(|d| d.epoch);
    let (rule, did) = match (times, epoch) {
        (Some(times), _) => (
            times.because.clone(),
            format!("{member} took the Lease with epoch {epoch} and serves"),
        ),
        (None, 1) => ("bootstrap".to_owned(), format!("{member} made the database")),
        (None, _) => ("epoch raised".to_owned(), format!("{member} serves epoch {epoch}")),
    };
    let rejected = match (before, rule.as_str()) {
        (None, _) => "none: nobody served before",
        (Some(_), "active-dead") => "waiting for the Lease to expire: the death is proven",
        (Some(_), "active-silent") => "promoting at once: nothing proved the old active dead",
        (Some(_), "loss-accepted") => "waiting for the last active: a person accepted what is lost",
        (Some(_), "active-let-go" | "hand-over") => "none: the old active let go by itself",
        (Some(_), _) => "none: the same member goes on",
    };
    let predicted = match (before, rule.as_str()) {
        (None, _) => None,
        (Some(_), "active-dead" | "active-silent" | "active-let-go" | "active-replaced") => {
            Some(predicted_loss(picture))
        }
        (Some(_), "loss-accepted") => Some(LOST_WITH_THE_ACTIVE.to_owned()),
        (Some(_), _) => None,
    };
    Decision {
        predicted_loss: predicted,
        measured_loss: None,
        id: format!("D-{epoch:04}"),
        rule: cut(&rule),
        at: Time(began.unwrap_or(picture.now)),
        epoch,
        saw: times
            .map_or_else(Vec::new, |t| t.saw.iter().take(FACTS_MAX).map(|f| cut(f)).collect()),
        did,
        rejected: rejected.to_owned(),
        detect_millis: None,
        decide_millis: times.map(|t| millis(t.decide_ms)),
        fence_millis: times.map(|t| millis(t.fence_ms)),
        promote_millis: times.map(|t| millis(t.promote_ms)),
        route_millis: route,
    }
}

fn predicted_loss(picture: &Picture<'_>) -> String {
    let spec = picture.spec().filter(|spec| spec.return_service == ReturnService::NoReturn);
    match spec.and_then(|spec| spec.max_loss) {
        Some(most) => most.to_string(),
        None => "none".to_owned(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(FACT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
