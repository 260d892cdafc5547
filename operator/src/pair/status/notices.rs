//! What the agents have noticed, in the words of the conditions (contract §4): one row for each notice. Pure.

use crate::pair::plan::Picture;
use understudy_agent_api::Notice;
use understudy_crds::conditions as types;
use understudy_types::MemberName;

/// What a condition says of a notice.
pub(super) struct Told<'a> {
    /// Who has noticed it.
    pub(super) member: &'a MemberName,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What the notices of all voters tell in this condition.
pub(super) fn told<'a>(
    picture: &'a Picture<'a>,
    condition: &'a str,
) -> impl Iterator<Item = Told<'a>> {
    let agents = picture.voters.iter().filter_map(|voter| Some((&voter.member, voter.agent?)));
    agents.flat_map(move |(member, agent)| {
        agent.notices.iter().filter_map(move |notice| {
            let (type_, reason, message) = words(picture, member, notice)?;
            (type_ == condition).then_some(Told { member, reason, message })
        })
    })
}

/// Type of the condition, its reason and its message; `None` when nobody needs to know.
fn words(
    picture: &Picture<'_>,
    member: &MemberName,
    notice: &Notice,
) -> Option<(&'static str, &'static str, String)> {
    let problem = || {
        let said = picture.seen.agent(member).and_then(|agent| agent.problem.as_deref());
        format!("{member}: {}", said.unwrap_or("it does not say what"))
    };
    let (type_, reason, message) = match notice {
        Notice::DiskFailed => (types::STORAGE_HEALTHY, "FsyncFailed", problem()),
        Notice::DiskFailedBefore { at, why } => (
            types::STORAGE_HEALTHY,
            "FsyncFailed",
            format!(
                "{member}: {why} at {at}; its store was built anew on the same volume. Check the disk below it; to leave it, delete the member's claims and its pod, and another one is built"
            ),
        ),
        Notice::LogDamaged => (types::STORAGE_HEALTHY, "LogDamaged", problem()),
        Notice::ApplyBlocked => (types::MEMORY_HEALTHY, "ApplyBlocked", problem()),
        Notice::PeerUntrusted { peer } => (
            types::CERTIFICATES_VALID,
            "PeerUntrusted",
            format!(
                "{member} and {peer} refuse each other's certificates; with an own authority (tls.caSecretName), check its Secret"
            ),
        ),
        // A subscriber that falls behind is no step of the pair.
        Notice::FallingBehind { follower, .. }
            if picture.other().is_none_or(|standby| standby.member != *follower) =>
        {
            return None;
        }
        Notice::FallingBehind { follower, records, grown } => (
            types::RECONCILING,
            "FallingBehind",
            format!(
                "{follower} is {records} records behind, {grown} more than a minute before: it cannot take as many as are written; write less, or give it more CPU or network"
            ),
        ),
        Notice::HoldingLog { follower, tenths } => (
            types::CONFIGURATION_WARNING,
            "HoldingLog",
            format!(
                "{member} keeps {tenths}0 % of its log volume for {follower}, which is let go and built anew from 70 % on; delete or mend {follower}, or grow storage.log.size"
            ),
        ),
    };
    Some((type_, reason, message))
}
