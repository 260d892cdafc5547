//! Rules for a third voter without its memory: a Lease that is gone, or older than what a member has seen
//! (A1.13, A1.14). Nobody runs for active by it; a serving active goes on by the standby's grants; the
//! operator makes it again by what both stores know (R21). Pure.

use super::{Exit, Picture, Verdict, beginnings::databases, exit, stalled};
use crate::pair::{
    action::Action,
    names,
    observation::{LeaseSight, Seen},
};
use understudy_agent_api::AgentStatus;
use understudy_authority::{Holder, LeaseRecord, LeaseState, Timing, Voter};
use understudy_crds::Phase;
use understudy_types::{Dbid, Epoch, Incarnation, MemberName, Role, Span};

/// A database of this pair is known, and its Lease is gone.
pub(super) fn lease_lost(picture: &Picture<'_>) -> Option<Verdict> {
    let Some(LeaseSight::Absent { since_ms }) = picture.seen.lease.known() else { return None };
    let (place, dbid) = known_database(picture)?;
    let lease = names::lease(&picture.pair.identity.name);
    let message = format!("Lease {lease} is gone, and {place} knows database {dbid}");
    Some(verdict(picture, ("lease-lost", "LeaseLost"), message, (*since_ms, None)))
}

/// The Lease says less than a member has seen: it was restored from an older copy.
pub(super) fn lease_regressed(picture: &Picture<'_>) -> Option<Verdict> {
    let Some(LeaseSight::Present { record, unchanged_ms, .. }) = picture.seen.lease.known() else {
        return None;
    };
    // A promise rises before its epoch is on the Lease, so it says nothing here.
    let opened = agents(picture).map(|agent| {
        agent.positions.epoch.max(agent.lease.as_ref().map_or(Epoch::ZERO, |lease| lease.epoch))
    });
    let known = opened.max().unwrap_or(Epoch::ZERO).max(written_epoch(picture));
    let is_judged = agents(picture).any(|agent| agent.calls_regressed(record.order()));
    if known <= record.epoch && !is_judged {
        return None;
    }
    let message = format!(
        "the Lease says epoch {}, write {}, and epoch {known} or a later write is known: it was restored from an older copy",
        record.epoch, record.seq
    );
    let base = (*unchanged_ms, Some(record));
    Some(verdict(picture, ("lease-regressed", "LeaseRegressed"), message, base))
}

/// What both have in common; `since_ms` is how long the operator has seen the Lease like this.
fn verdict(
    picture: &Picture<'_>,
    (rule, reason): (&'static str, &'static str),
    message: String,
    (since_ms, base): (u64, Option<&LeaseRecord>),
) -> Verdict {
    let actions = match reinstated(picture, base) {
        Ok(record) if Span::millis(since_ms) >= wait(picture) => {
            vec![Action::ReinstateLease { record }]
        }
        Ok(_) | Err(_) => Vec::new(),
    };
    Verdict {
        rule,
        phase: Phase::SuspectPartition,
        actions,
        waiting: stalled(reason, message),
        exit: Some(way_out(picture, base)),
        // A member that does not run cannot say what its store knows.
        is_frozen: picture.voters.iter().all(|voter| voter.pod.is_some()),
    }
}

fn way_out(picture: &Picture<'_>, base: Option<&LeaseRecord>) -> Exit {
    let risk = "none while the active lives; no failover is possible";
    match reinstated(picture, base) {
        Ok(record) => {
            let holder = record.holder.map_or_else(String::new, |h| h.member.to_string());
            let next = format!(
                "make the Lease again, above every known epoch, with {holder} as the last holder; a serving active goes on by the standby's grants until then"
            );
            let human = "none; find who deleted or replaced it (audit log)";
            let seconds = i64::try_from(wait(picture).as_millis() / 1_000 + 2).unwrap_or(i64::MAX);
            exit(next, human, risk).within(picture, Phase::SuspectPartition, seconds)
        }
        Err(missing) => exit(
            "make the Lease again once both members answer; a serving active goes on by the standby's grants",
            format!("bring {missing} back: what it knows of the last epoch is needed"),
            risk,
        ),
    }
}

/// How long whoever acted by the old Lease may still do so: F·D_max + g.
fn wait(picture: &Picture<'_>) -> Span {
    let of_spec = picture.spec().map_or(0, |spec| spec.lease_duration_ms);
    let seen = agents(picture).filter_map(|a| a.store.map(|store| store.lease_longest_ms));
    let longest = Span::millis(seen.max().unwrap_or(0).max(of_spec));
    let guard = Timing::new(longest.as_millis()).map_or(Span::ZERO, |timing| timing.guard());
    Timing::stretched(longest) + guard
}

/// The record by what both stores know: the last holder is the one that serves, else the one whose log
/// ends last.
///
/// # Errors
/// The voter whose word is missing.
fn reinstated(
    picture: &Picture<'_>,
    base: Option<&LeaseRecord>,
) -> Result<LeaseRecord, MemberName> {
    let mut voices: Vec<(&AgentStatus, Holder, Dbid)> = Vec::new();
    for voter in &picture.voters {
        let voice = voter.agent.and_then(|agent| {
            let store = agent.store?;
            let holder = Holder {
                member: voter.member.clone(),
                store: store.store,
                incarnation: agent.incarnation,
            };
            Some((agent, holder, store.dbid?))
        });
        voices.push(voice.ok_or_else(|| voter.member.clone())?);
    }
    let last = voices.iter().max_by_key(|(agent, _, _)| {
        let is_active = agent.role == Role::Active;
        (agent.positions.epoch, is_active, agent.positions.end_lsn)
    });
    let Some((_, holder, dbid)) = last else {
        return Err(names::voter(&picture.pair.identity.name, 1));
    };
    let duration = base.map(|b| b.lease_duration_ms);
    let duration = duration.or(picture.spec().map(|spec| spec.lease_duration_ms)).unwrap_or(4_000);
    let fresh = LeaseRecord::uninitialised(duration);
    Ok(LeaseRecord {
        dbid: Some(*dbid),
        epoch: known_epoch(picture).max(base.map_or(Epoch::ZERO, |b| b.epoch)).next(),
        seq: base.map_or(1, |b| b.seq + 1),
        state: LeaseState::Released,
        // No process let go: a grant given to the one that serves counts until it has run out (R8).
        holder: Some(Holder { incarnation: Incarnation::NOBODY, ..holder.clone() }),
        voters: voices
            .iter()
            .map(|(_, h, _)| Voter { member: h.member.clone(), store: h.store })
            .collect(),
        sync: None,
        ..fresh
    })
}

/// The highest epoch that a status, a log or a promise knows.
fn known_epoch(picture: &Picture<'_>) -> Epoch {
    let heard = agents(picture).map(|agent| {
        let promised = agent.store.map_or(Epoch::ZERO, |store| store.promised);
        let read = agent.lease.as_ref().map_or(Epoch::ZERO, |lease| lease.epoch);
        agent.positions.epoch.max(agent.epoch).max(promised).max(read)
    });
    heard.max().unwrap_or(Epoch::ZERO).max(written_epoch(picture))
}

fn written_epoch(picture: &Picture<'_>) -> Epoch {
    Epoch(picture.seen.status.epoch.and_then(|e| u64::try_from(e).ok()).unwrap_or(0))
}

fn agents<'p>(picture: &'p Picture<'_>) -> impl Iterator<Item = &'p AgentStatus> + 'p {
    picture.seen.agents.values().filter_map(Seen::known)
}

fn known_database(picture: &Picture<'_>) -> Option<(String, String)> {
    let written = picture.seen.status.dbid.clone().map(|dbid| ("the status".to_owned(), dbid));
    let anywhere = databases(picture).map(|(member, dbid)| (member.to_string(), dbid)).next();
    let volumes = picture.seen.volumes.iter().find_map(|(member, volumes)| {
        Some((member.to_string(), volumes.data.as_ref()?.dbid.clone()?))
    });
    written.or(anywhere).or(volumes)
}
