//! A database of its own: no Lease, no other voter, authority by the person who started it.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use understudy_authority::{ControlState, Holder, Timing};
use understudy_replication::{FollowerKind, Input, Member, Policy, Start};
use understudy_types::{
    Durability, EpochId, FailoverPolicy, Incarnation, Lsn, MemberName, Moment, ReturnService,
    StoreId, WhenStandbyLost,
};
use uuid::Uuid;

const LATER: Moment = Moment(u64::MAX / 2);

/// A process whose control file promised it `author`'s next epoch; it has opened nothing yet.
fn process(durability: Durability, author: Uuid) -> Member {
    let me = Holder {
        member: MemberName::new("standalone").unwrap(),
        store: StoreId(Uuid::from_u128(1)),
        incarnation: Incarnation { start: 1, id: Uuid::from_u128(2) },
    };
    let mut control = ControlState::fresh(me.member.clone(), me.store);
    control.promised = EpochId { number: control.promised.number.next(), author };
    let timing = Timing::new(4_000).unwrap();
    let start = Start {
        me,
        kind: FollowerKind::Standby,
        timing,
        control,
        end: Lsn(10),
        proven_dead: Vec::new(),
    };
    let mut member = Member::new(start, Moment(1));
    let policy = Policy {
        return_service: ReturnService::NoReturn,
        durability,
        when_standby_lost: WhenStandbyLost::Continue,
        automatic: false,
        failover: FailoverPolicy::Manual,
        max_loss: None,
        timing,
        return_wait_ms: 0,
    };
    let _ = member.step(Input::Policy(policy), Moment(1));
    member
}

fn opened(durability: Durability) -> Member {
    let mut member = process(durability, Uuid::from_u128(2));
    let out = member.step(Input::Standalone, Moment(2));
    assert_eq!(out.begin_epoch.unwrap().epoch, member.control().promised);
    let out = member.step(Input::Appended(Lsn(11)), Moment(3));
    assert_eq!(out.acknowledged, None, "its first record is not durable yet");
    assert!(!member.has_authority(Moment(3)));
    let out = member.step(Input::Durable(Lsn(11)), Moment(4));
    assert_eq!(out.acknowledged, Some(Lsn(11)));
    member
}

#[test]
fn it_serves_from_its_first_durable_record_on_and_for_ever() {
    let mut member = opened(Durability::LocalDisk);
    assert!(member.takes_commits(LATER));
    let out = member.step(Input::Tick { data_path_ok: true }, LATER);
    assert_eq!((out.lease_write, out.lease_read), (None, false), "there is no Lease");
    assert!(member.takes_commits(LATER));
}

#[test]
fn a_commit_is_acknowledged_when_the_disk_has_it() {
    let mut member = opened(Durability::LocalDisk);
    assert_eq!(member.step(Input::Appended(Lsn(12)), LATER).acknowledged, None);
    assert_eq!(member.step(Input::Durable(Lsn(12)), LATER).acknowledged, Some(Lsn(12)));
}

#[test]
fn with_durability_memory_it_is_acknowledged_at_once() {
    let mut member = opened(Durability::Memory);
    assert_eq!(member.step(Input::Appended(Lsn(12)), LATER).acknowledged, Some(Lsn(12)));
}

#[test]
#[should_panic(expected = "it opens its own promise")]
fn it_never_opens_an_epoch_that_another_process_promised_itself() {
    let mut member = process(Durability::LocalDisk, Uuid::from_u128(3));
    let _ = member.step(Input::Standalone, Moment(2));
}
