//! A person sets a member active under `mode: Paused` (design §3, contract §4 row 13): when it may be, what
//! it serves by, who of two actives stays, and how the survivor takes the Lease.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

mod voter;

use understudy_authority::{LeaseRecord, LeaseState, Sight, Versioned};
use understudy_replication::{
    Input, LogEnd, Member, NotSettable, Output, PledgeRefused, PledgeRequest, WriteOutcome,
};
use understudy_types::{Epoch, EpochId, Lsn, Moment, Role};
use voter::{D, END, at, lease, policy, process, voter};

const SET_AT_MS: u64 = 1_700_000_000_000;
/// EpochBegin of the new epoch.
const BEGIN: Lsn = END.lsn.next();

fn tick(member: &mut Member, now: Moment) -> Output {
    member.step(Input::Tick { data_path_ok: true }, now)
}

fn paused_standby() -> Member {
    let mut standby = voter(process(2, 1), |_| {});
    let _ = standby.step(Input::Policy(policy(false)), at(1));
    standby
}

/// x-2, which a person set active although x-1 holds the Lease.
fn set_active() -> Member {
    let mut member = paused_standby();
    member.may_be_set_active(at(10)).unwrap();
    let out = member.step(Input::SetActive { at_ms: SET_AT_MS }, at(10));
    assert!(out.sync_log && !member.accepts_frames(Epoch(3)), "its log is fixed, and synced");
    let out = member.step(Input::Synced(END), at(11));
    let opening = out.begin_epoch.unwrap();
    assert!(out.persist && opening.epoch.number == Epoch(4), "it promised above the Lease");
    assert_eq!(out.end_sessions, None, "the person's own session goes on");
    let _ = member.step(Input::Appended(BEGIN), at(11));
    let _ = member.step(Input::Durable(BEGIN), at(12));
    member
}

/// x-1, active by the Lease with epoch 4.
fn active() -> Member {
    let mut member = voter(process(1, 1), |_| {});
    let mut record = lease();
    record.seq += 1;
    record.state = LeaseState::Released;
    record.sync = None;
    let _ = member.step(look("8", record, 5), at(5));
    let write = member.step(Input::Synced(END), at(6)).lease_write.unwrap();
    let versioned = Versioned { version: "9".into(), record: write.record };
    let outcome = WriteOutcome::Confirmed(Box::new(versioned));
    let out = member.step(Input::LeaseWritten { ticket: write.ticket, outcome }, at(7));
    assert_eq!(out.begin_epoch.unwrap().epoch.number, Epoch(4));
    let _ = member.step(Input::Appended(BEGIN), at(7));
    let _ = member.step(Input::Durable(BEGIN), at(8));
    assert!(member.has_authority(at(9)));
    member
}

fn look(version: &str, record: LeaseRecord, ms: u64) -> Input {
    let versioned = Versioned { version: version.into(), record };
    Input::Lease(Box::new(Sight { versioned, asked: Some(at(ms)) }))
}

fn question(epoch: u64, set_at_ms: Option<u64>) -> Input {
    let candidate = process(2, 1);
    let epoch = EpochId { number: Epoch(epoch), author: candidate.incarnation.id };
    let dbid = lease().dbid;
    let request = PledgeRequest { dbid, epoch, candidate, compare: None, set_at_ms };
    Input::PledgeAsked { request, end: END }
}

#[test]
fn it_serves_without_the_lease_for_as_long_as_the_mode_stays() {
    let mut member = set_active();
    let years = at(1_000_000_000_000);
    assert!(member.takes_commits(years));
    assert_eq!(member.standing(at(20)).role, Role::Active);
    let _ = member.step(Input::Appended(BEGIN.next()), at(20));
    let out = member.step(Input::Durable(BEGIN.next()), at(21));
    assert_eq!(out.acknowledged, Some(BEGIN.next()), "nobody else is waited for");
    let out = member.step(Input::Policy(policy(true)), at(30));
    assert!(out.restart.is_some(), "under Automatic authority is the Lease's");
}

#[test]
fn it_is_refused_when_the_mode_is_automatic_or_an_active_answers() {
    let standby = voter(process(2, 1), |_| {});
    assert_eq!(standby.may_be_set_active(at(10)), Err(NotSettable::Managed));
    let stranger = {
        let mut stranger = voter(process(9, 1), |_| {});
        let _ = stranger.step(Input::Policy(policy(false)), at(1));
        stranger
    };
    assert_eq!(stranger.may_be_set_active(at(10)), Err(NotSettable::NoVote));
    let mut fed = paused_standby();
    let epoch = EpochId { number: Epoch(3), author: process(1, 1).incarnation.id };
    let _ = fed.step(Input::FeederAttached(epoch), at(10));
    let active = process(1, 1).incarnation;
    let beat = Input::Heartbeat { epoch, active, nonce: 1, serving: true, grant: D };
    let _ = fed.step(beat, at(20));
    let hears = Err(NotSettable::HearsActive(process(1, 1).member));
    assert_eq!(fed.may_be_set_active(at(30)), hears);
    let _ = fed.step(Input::FeederLost, at(40));
    assert_eq!(fed.may_be_set_active(at(50)), Ok(()), "nobody answers");
    assert_eq!(set_active().may_be_set_active(at(50)), Err(NotSettable::IsActive));
}

#[test]
fn of_two_actives_the_one_set_later_stays() {
    let paused = || {
        let mut a = active();
        let _ = a.step(Input::Policy(policy(false)), at(10));
        a
    };
    let later = [(5, Some(SET_AT_MS)), (4, Some(SET_AT_MS))];
    for (epoch, set_at_ms) in later {
        let out = paused().step(question(epoch, set_at_ms), at(20));
        assert!(out.restart.is_some() && out.end_sessions.is_some(), "epoch {epoch} is later");
    }
    for (epoch, set_at_ms) in [(3, Some(SET_AT_MS)), (4, None), (9, None)] {
        let out = paused().step(question(epoch, set_at_ms), at(20));
        assert!(out.restart.is_none() && out.pledge.is_some_and(|answer| answer.is_err()));
    }
    let out = active().step(question(9, Some(SET_AT_MS)), at(20));
    assert!(out.restart.is_none(), "under Automatic no person's word ends an active");
    let own = |set_at_ms| set_active().step(question(4, Some(set_at_ms)), at(20)).restart;
    assert!(own(SET_AT_MS + 1).is_none(), "it does not ask itself");
}

#[test]
fn it_asks_the_other_again_and_again_one_question_at_a_time() {
    let mut member = set_active();
    let asked = tick(&mut member, at(20)).ask.unwrap();
    assert_eq!((asked.epoch.number, asked.set_at_ms), (Epoch(4), Some(SET_AT_MS)));
    assert!(tick(&mut member, at(9_000)).ask.is_none(), "the first is not answered yet");
    let answer = Err(PledgeRefused { why: "no route".into(), promised: Epoch::ZERO });
    let answered = Input::PledgeAnswered { epoch: asked.epoch, answer, end: END };
    let _ = member.step(answered, at(9_000));
    assert!(tick(&mut member, at(9_900)).ask.is_none(), "not at once");
    assert!(tick(&mut member, at(10_001)).ask.is_some());
}

#[test]
fn it_takes_the_lease_when_that_is_free() {
    let mut member = set_active();
    let out = tick(&mut member, at(20));
    assert!(out.lease_write.is_none() && !out.sync_log, "x-1 holds it");
    let mut record = lease();
    record.seq += 1;
    record.state = LeaseState::Released;
    record.sync = None;
    let _ = member.step(look("8", record, 30), at(30));
    assert!(tick(&mut member, at(31)).sync_log, "what it acknowledged is on disk before");
    let write = member.step(Input::Synced(LogEnd { lsn: BEGIN, ..END }), at(32)).lease_write;
    let write = write.or_else(|| tick(&mut member, at(33)).lease_write).unwrap();
    let record = &write.record;
    assert_eq!(record.holder.as_ref(), Some(&process(2, 1)));
    assert_eq!((record.epoch, &record.state), (Epoch(5), &LeaseState::Held));
    let versioned = Versioned { version: "9".into(), record: write.record };
    let outcome = WriteOutcome::Confirmed(Box::new(versioned));
    let out = member.step(Input::LeaseWritten { ticket: write.ticket, outcome }, at(40));
    assert_eq!(out.begin_epoch.unwrap().epoch.number, Epoch(5));
    let _ = member.step(Input::Appended(BEGIN.next()), at(41));
    let _ = member.step(Input::Durable(BEGIN.next()), at(42));
    assert!(member.has_authority(at(43)));
    assert!(!member.has_authority(at(43) + D), "from here on by the Lease alone");
    let out = member.step(Input::Policy(policy(true)), at(44));
    assert!(out.restart.is_none(), "Automatic finds it on the Lease");
}
