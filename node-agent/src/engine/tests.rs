//! What a follower owes its feeder.

use super::{Frame, Published, testing::Lone};
use crate::metrics::ROLES;
use std::{sync::mpsc, time::Duration};
use understudy_authority::Timing;
use understudy_replication::{Input, Policy};
use understudy_txlog::{
    LogOptions, RecordKind,
    record::{encode_into, epoch_begin_payload},
};
use understudy_types::{
    Durability, Epoch, EpochBegin, EpochId, FailoverPolicy, Incarnation, Lsn, Position,
    ReturnService, RunningHash, WhenStandbyLost,
};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);

/// Found by the campaign: commits that waited for both disks came 40 a second, for the standby's disk
/// was asked for nothing and went by the log's own interval.
#[test]
fn where_both_disks_are_promised_a_follower_asks_its_own_for_every_frame() {
    let place = tempfile::tempdir().unwrap();
    let options = LogOptions { sync_interval: HOUR, probe_interval: HOUR, ..LogOptions::default() };
    let lone = Lone::new(place.path(), options);
    lone.engine.step(Input::Policy(Policy {
        return_service: ReturnService::Twosafe,
        durability: Durability::BothDisks,
        when_standby_lost: WhenStandbyLost::Continue,
        automatic: true,
        failover: FailoverPolicy::Automatic,
        max_loss: None,
        timing: Timing::new(4_000).unwrap(),
        return_wait_ms: 10_000,
    }));
    let (durable, told) = mpsc::channel();
    lone.engine.log.on_durable(Box::new(move |lsn| durable.send(lsn).unwrap_or(())));
    let mut records = Vec::new();
    let epoch = EpochId { number: Epoch(1), author: Uuid::from_u128(9) };
    let begin = EpochBegin {
        epoch,
        author: Incarnation { start: 1, id: epoch.author },
        previous: Position::default(),
        hash: RunningHash::default(),
        lossy: false,
    };
    encode_into(
        &mut records,
        Lsn(1),
        Epoch(1),
        RecordKind::EpochBegin,
        &epoch_begin_payload(&begin),
    );
    let frame = Frame { epoch: Epoch(1), records: &records, acknowledged: Lsn::ZERO };
    assert_eq!(lone.engine.follow(frame).unwrap(), Lsn(1));
    // Far less than an hour, and far more than a disk takes.
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Lsn(1)));
}

#[test]
fn every_role_is_told_as_it_was_published() {
    for role in ROLES {
        assert_eq!(Published::new(role).role(), role);
    }
}
