//! Rules for a pair without a database yet (R20), and for a Lease that cannot be judged: not read, not
//! readable, or of another database. Pure.

use super::{Picture, Verdict, exit, picture::START_SECONDS, stalled, waiting};
use crate::pair::{
    action::Action,
    names,
    observation::{LeaseSight, Seen},
};
use understudy_authority::{Holder, LeaseRecord, LeaseState};
use understudy_crds::Phase;
use understudy_types::{Dbid, MemberName};

/// The API server could not be asked: nothing new is decided, and nothing is taken for absent.
pub(super) fn lease_unknown(picture: &Picture<'_>) -> Option<Verdict> {
    let Seen::Unknown { why, .. } = &picture.seen.lease else { return None };
    Some(Verdict {
        rule: "lease-unknown",
        phase: Phase::Reexamine,
        actions: Vec::new(),
        waiting: waiting("LeaseUnknown", format!("the Lease could not be read: {why}")),
        exit: Some(exit("read the Lease again", "none", "none")),
        is_frozen: true,
    })
}

/// Somebody wrote something else over the record, or a newer version did.
pub(super) fn lease_unreadable(picture: &Picture<'_>) -> Option<Verdict> {
    let Some(LeaseSight::Unreadable(why)) = picture.seen.lease.known() else { return None };
    let lease = names::lease(&picture.pair.identity.name);
    Some(Verdict {
        rule: "lease-unreadable",
        phase: Phase::ManualInterventionRequired,
        actions: Vec::new(),
        waiting: stalled("LeaseUnreadable", format!("Lease {lease}: {why}")),
        exit: Some(exit(
            "none; a serving active goes on by the standby's grants",
            format!("put back the annotation of Lease {lease} (audit log, backup)"),
            "none while the active lives; no failover is possible",
        )),
        is_frozen: true,
    })
}

/// A volume holds another database than the Lease: it was taken from another pair, or made before.
pub(super) fn foreign_volume(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    let is_initialiser = |member: &MemberName| match &record.state {
        LeaseState::Initialising { by } => &by.member == member,
        LeaseState::Uninitialised
        | LeaseState::Held
        | LeaseState::Released
        | LeaseState::Transferring { .. } => false,
    };
    let (place, found) = databases(picture).find(|(member, dbid)| match record.dbid {
        Some(ours) => *dbid != ours.to_string(),
        None => !is_initialiser(member),
    })?;
    let ours = record.dbid.map_or_else(|| "none yet".to_owned(), |dbid| dbid.to_string());
    Some(Verdict {
        rule: "foreign-volume",
        phase: Phase::ManualInterventionRequired,
        actions: Vec::new(),
        waiting: stalled(
            "ForeignVolume",
            format!("the volumes of {place} hold database {found}, and the Lease names {ours}"),
        ),
        exit: Some(exit(
            "none",
            format!(
                "delete the volumes of {place} if its data may go, or use it under another pair"
            ),
            format!("none by itself; the data on {place} is not touched"),
        )),
        is_frozen: true,
    })
}

/// Nothing was ever made: the Lease is (R20).
pub(super) fn create_lease(picture: &Picture<'_>) -> Option<Verdict> {
    let Some(LeaseSight::Absent { .. }) = picture.seen.lease.known() else { return None };
    let spec = picture.spec();
    let actions = spec
        .map(|spec| Action::CreateLease {
            record: LeaseRecord::uninitialised(spec.lease_duration_ms),
        })
        .into_iter()
        .collect();
    Some(Verdict {
        rule: "create-lease",
        phase: Phase::Initializing,
        actions,
        waiting: waiting(
            "CreatingObjects",
            "the pair's Lease, Services, Secrets and pods are made",
        ),
        exit: Some(
            exit("make the pair's objects", fix_spec(picture), "none: there is no data yet")
                .within(picture, Phase::Initializing, START_SECONDS),
        ),
        is_frozen: false,
    })
}

/// The first voter that answers with an empty directory becomes the one initialiser (R20).
pub(super) fn name_initialiser(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    if record.state != LeaseState::Uninitialised {
        return None;
    }
    let candidate = picture.voters.iter().find_map(|voter| empty_store(picture, &voter.member));
    let candidate_or_problem = match &candidate {
        Some(holder) => super::WaitingOn {
            reason: "Initialising",
            message: format!("{} is named initialiser", holder.member),
            is_stalled: false,
        },
        None => first_pods(picture),
    };
    let actions = candidate.map(|holder| name(record, holder)).into_iter().collect();
    Some(Verdict {
        rule: "name-initialiser",
        phase: Phase::Initializing,
        actions,
        waiting: Some(candidate_or_problem),
        exit: Some(
            exit(
                "name the first member that answers, which makes the database",
                fix_spec(picture),
                "none: there is no data yet",
            )
            .within(picture, Phase::Initializing, START_SECONDS),
        ),
        is_frozen: false,
    })
}

/// The named initialiser works; only its proven death lets another one be named.
pub(super) fn await_initialiser(picture: &Picture<'_>) -> Option<Verdict> {
    let record = picture.record()?;
    let LeaseState::Initialising { by } = &record.state else { return None };
    // It may have died with its database's name on disk and nothing on the Lease.
    let answering = store_of(picture, &by.member);
    let is_proven_dead = picture
        .seen
        .pods
        .get(&by.member)
        .is_some_and(|pod| pod.deaths.iter().any(|death| death.proves(by.incarnation)));
    let is_later = answering
        .as_ref()
        .is_some_and(|now| now.store == by.store && now.incarnation.is_later_than(by.incarnation));
    // A store has one process at a time (the directory is locked), so a later life of the same store
    // proves that the named one ended.
    let again = answering.filter(|_| is_later);
    let elsewhere = || {
        let others = picture.voters.iter().filter(|v| v.member != by.member);
        others.filter_map(|v| empty_store(picture, &v.member)).next()
    };
    let is_absent = picture.seen.agent(&by.member).is_none();
    let next = again.or_else(|| (is_proven_dead && is_absent).then(elsewhere).flatten());
    let actions = next.map(|holder| name(record, holder)).into_iter().collect();
    Some(Verdict {
        rule: "await-initialiser",
        phase: Phase::ConfiguringActive,
        actions,
        waiting: waiting("Initialising", format!("{} makes the database", by.member)),
        exit: Some(
            exit(
                format!("{} makes the database and takes the Lease", by.member),
                format!("none; if {} never comes back, delete its pod", by.member),
                "none: there is no data yet",
            )
            .within(picture, Phase::ConfiguringActive, START_SECONDS),
        ),
        is_frozen: false,
    })
}

fn name(record: &LeaseRecord, initialiser: Holder) -> Action {
    let state = LeaseState::Initialising { by: initialiser.clone() };
    Action::NameInitialiser { record: LeaseRecord { state, ..record.successor() }, initialiser }
}

fn empty_store(picture: &Picture<'_>, member: &MemberName) -> Option<Holder> {
    let is_empty = picture.seen.agent(member)?.store?.dbid.is_none();
    store_of(picture, member).filter(|_| is_empty)
}

fn store_of(picture: &Picture<'_>, member: &MemberName) -> Option<Holder> {
    let agent = picture.seen.agent(member)?;
    let store = agent.store?;
    Some(Holder { member: member.clone(), store: store.store, incarnation: agent.incarnation })
}

/// Databases that members' agents and volumes know.
pub(super) fn databases<'p>(
    picture: &'p Picture<'_>,
) -> impl Iterator<Item = (MemberName, String)> + 'p {
    let said = picture.voters.iter().filter_map(|voter| {
        let dbid: Dbid = voter.agent?.store?.dbid?;
        Some((voter.member.clone(), dbid.to_string()))
    });
    let noted = picture.voters.iter().filter_map(|voter| {
        let dbid = voter.volumes.data.as_ref()?.dbid.clone()?;
        Some((voter.member.clone(), dbid))
    });
    said.chain(noted)
}

fn first_pods(picture: &Picture<'_>) -> super::WaitingOn {
    let problem = picture.voters.iter().find_map(|voter| {
        let (reason, message) = super::pod_problem(voter.pod?)?;
        Some((reason, format!("{}: {message}", voter.member)))
    });
    let (reason, message) = problem.unwrap_or(("PodsStarting", "no member answers yet".to_owned()));
    super::WaitingOn { reason, message, is_stalled: super::members::is_persistent(reason) }
}

fn fix_spec(picture: &Picture<'_>) -> &'static str {
    match picture.pair.spec {
        Ok(_) => "none",
        Err(_) => "correct the spec; the Stalled condition says how",
    }
}
