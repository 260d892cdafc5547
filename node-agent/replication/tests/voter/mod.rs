//! One voter of a pair of two, without the other.

use understudy_authority::{
    ControlState, Holder, LeaseRecord, LeaseState, Sight, StandbySync, SyncClass, Timing,
    Versioned, Voter,
};
use understudy_replication::{FollowerKind, Input, LogEnd, Member, Policy, Start};
use understudy_types::{
    Dbid, Durability, Epoch, FailoverPolicy, Incarnation, Lsn, MemberName, Moment, ReturnService,
    Span, StoreId, WhenStandbyLost,
};
use uuid::Uuid;

/// T and D of the pair.
pub(crate) const D: Span = Span::millis(4_000);
/// Where the log of every voter ends.
pub(crate) const END: LogEnd = LogEnd { epoch: Epoch(3), lsn: Lsn(50) };

/// Milliseconds after the voter's start.
pub(crate) fn at(ms: u64) -> Moment {
    Moment(1_000_000_000 + ms * 1_000_000)
}

/// A process of the member x-`number`.
pub(crate) fn process(number: u128, start: u64) -> Holder {
    Holder {
        member: MemberName::new(format!("x-{number}")).unwrap(),
        store: StoreId(Uuid::from_u128(number)),
        incarnation: Incarnation { start, id: Uuid::from_u128(number * 100 + u128::from(start)) },
    }
}

/// x-1 held the Lease with its first process; x-2 was recorded in sync with its first.
pub(crate) fn lease() -> LeaseRecord {
    let (a, b) = (process(1, 1), process(2, 1));
    let mut record = LeaseRecord::uninitialised(4_000);
    record.dbid = Some(Dbid(Uuid::from_u128(5)));
    record.epoch = Epoch(3);
    record.state = LeaseState::Held;
    record.voters = [&a, &b].map(|h| Voter { member: h.member.clone(), store: h.store }).to_vec();
    record.sync = Some(StandbySync { standby: b, class: SyncClass::Twosafe });
    record.holder = Some(a);
    record
}

/// The same as it is read.
pub(crate) fn versioned() -> Versioned {
    Versioned { version: "7".into(), record: lease() }
}

/// A voter that started at time 0 with this control file, and has read the Lease.
pub(crate) fn voter(me: Holder, change: impl FnOnce(&mut ControlState)) -> Member {
    let mut control = ControlState::fresh(me.member.clone(), me.store);
    control.dbid = lease().dbid;
    change(&mut control);
    let start = Start {
        me,
        kind: FollowerKind::Standby,
        timing: Timing::new(4_000).unwrap(),
        control,
        end: END.lsn,
        proven_dead: Vec::new(),
    };
    let mut member = Member::new(start, at(0));
    let _ = member.step(Input::Policy(policy(true)), at(0));
    let sight = Sight { versioned: versioned(), asked: Some(at(0)) };
    let _ = member.step(Input::Lease(Box::new(sight)), at(0));
    member
}

/// The pair's promise, under `mode: Automatic` or `Paused`.
pub(crate) fn policy(automatic: bool) -> Policy {
    Policy {
        failover: FailoverPolicy::Automatic,
        max_loss: None,
        return_service: ReturnService::Twosafe,
        durability: Durability::LocalDisk,
        when_standby_lost: WhenStandbyLost::Continue,
        automatic,
        timing: Timing::new(4_000).unwrap(),
        return_wait_ms: 10_000,
    }
}
