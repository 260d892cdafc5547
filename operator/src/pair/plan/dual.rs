//! Two actives, which only a person makes, under `mode: Paused` (contract §4, row 13). The members settle
//! it between them; the pair says so. Pure.

use super::{ActiveSight, Picture, Verdict, VoterSight, exit, stalled};
use understudy_agent_api::MemberState;
use understudy_authority::LeaseRecord;
use understudy_crds::{Mode, Phase};
use understudy_types::Role;

/// Its next step is the members' own, so that `mode: Paused` does not take it away.
pub(super) const RULE: &str = "dual-active";

/// A voter serves that is not on the Lease, beside the one that is.
pub(super) fn dual_active(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    let by_lease = &picture.holder()?.member;
    // One that cannot be asked serves if it renews.
    if !matches!(picture.active(), ActiveSight::Serving | ActiveSight::Unreachable) {
        return None;
    }
    let mut others = picture.voters.iter().filter(|voter| voter.member != *by_lease);
    let by_person = &others.find(|voter| is_set(picture, record, voter))?.member;
    let message = format!(
        "{by_lease} is active with epoch {} by the Lease, and {by_person} by a person's word: {by_person} was set later and stays",
        record.epoch
    );
    let human = format!(
        "mend the network between {by_lease} and {by_person}; then read what is trapped: understudy trapped show -n {} {by_lease}-e{}; then write spec.mode: Automatic",
        picture.pair.identity.namespace, record.epoch
    );
    Some(Verdict {
        rule: RULE,
        phase: Phase::Reexamine,
        actions: Vec::new(),
        waiting: stalled("DualActive", message),
        exit: Some(exit(
            format!("{by_lease} ends its sessions and steps down when {by_person} reaches it"),
            human,
            format!("commits on {by_lease} since the cut: they are trapped when it steps down"),
        )),
        is_frozen: false,
    })
}

/// By its own word; or, where it cannot be asked, by the label that it gave itself, which under
/// `mode: Automatic` may be a late one.
fn is_set(picture: &Picture<'_>, record: &LeaseRecord, voter: &VoterSight<'_>) -> bool {
    if let Some(agent) = voter.agent {
        let serves = agent.role == Role::Active && agent.state == MemberState::Serving;
        return serves && agent.epoch >= record.epoch;
    }
    let is_paused = picture.spec().is_some_and(|spec| spec.mode == Mode::Paused);
    let label = voter.pod.and_then(|pod| pod.role_label.as_deref());
    is_paused && label == Some(Role::Active.as_label())
}
