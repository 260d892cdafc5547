//! What a healthy log does.

use crate::support::*;
use std::sync::{Arc, mpsc};
use understudy_txlog::{
    AppendError, LogOptions, ReadError, RecordKind,
    disk::{Disk, FsDisk, MemDisk},
    record, recover, write_checkpoint,
};
use understudy_types::{Epoch, Lsn};

#[test]
fn records_survive_a_restart_with_their_hash_and_history() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    assert_eq!(recovered.end.lsn, Lsn::ZERO);
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 300);
    open_epoch(&mut appender, 4);
    append(&mut appender, 50);
    assert_eq!(recovered.log.sync_all().unwrap(), Lsn(352));
    let (hash, history) = (appender.hash(), appender.history().clone());
    assert_eq!(check(&recovered.log, Lsn(1), 1000), 352);
    drop((appender, recovered));

    let again = open(&disk).unwrap();
    assert_eq!(again.end.lsn, Lsn(352));
    assert_eq!(again.end.epoch.number, Epoch(4));
    assert_eq!((again.hash, &again.history), (hash, &history));
    assert_eq!(again.log.durable_lsn(), Lsn(352));
    assert_eq!((again.report.records, again.report.tail_cut_bytes), (352, 0));
    assert!(again.report.segments_read > 5);
    assert_eq!(check(&again.log, Lsn(1), 1000), 352);
    assert_eq!(again.log.hash_at(Lsn(352)), Some(hash));
}

#[test]
fn a_real_directory_holds_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(FsDisk::open(directory.path().join("log")).unwrap());
        recover(understudy_txlog::Disks::one(disk), small()).unwrap()
    };
    let recovered = open();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 200);
    recovered.log.sync_all().unwrap();
    drop((appender, recovered));
    assert_eq!(check(&open().log, Lsn(1), 10_000), 201);
}

#[test]
fn only_a_wait_for_durability_moves_durable_lsn_at_once_and_listeners_hear_it() {
    let disk = MemDisk::new();
    let options = LogOptions { sync_interval: std::time::Duration::MAX, ..small() };
    let recovered = recover(disks(&disk), options).unwrap();
    let (tell, heard) = mpsc::channel();
    recovered.log.on_durable(Box::new(move |lsn| tell.send(lsn).unwrap()));
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 9);
    recovered.log.request_durable(Lsn(10));
    let mut durable = Lsn::ZERO;
    while durable < Lsn(10) {
        durable = heard.recv().unwrap();
        assert!(recovered.log.durable_lsn() >= durable);
    }
    let after = disk.crash(&mut || false);
    assert_eq!(open(&after).unwrap().end.lsn, Lsn(10));
}

#[test]
fn what_nobody_waits_for_becomes_durable_by_itself() {
    let recovered = open(&MemDisk::new()).unwrap();
    let (tell, heard) = mpsc::channel();
    recovered.log.on_durable(Box::new(move |lsn| tell.send(lsn).unwrap()));
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 5);
    while heard.recv().unwrap() < Lsn(6) {}
}

#[test]
fn received_records_make_the_same_log() {
    let active = open(&MemDisk::new()).unwrap();
    let mut appender = active.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 40);
    open_epoch(&mut appender, 2);
    append(&mut appender, 40);
    let standby = open(&MemDisk::new()).unwrap();
    let mut follower = standby.log.appender();
    let mut next = Lsn(1);
    while next <= appender.end() {
        let bytes = active.log.read_from(next, 500).unwrap();
        next = follower.append_encoded(&bytes).unwrap().next();
    }
    assert_eq!(follower.hash(), appender.hash());
    assert_eq!(follower.history(), appender.history());
    assert_eq!(check(&standby.log, Lsn(1), 700), 82);
    for lsn in 0..=82 {
        assert_eq!(standby.log.hash_at(Lsn(lsn)), active.log.hash_at(Lsn(lsn)), "hash at {lsn}");
    }
    assert_eq!(standby.log.hash_at(Lsn(83)), None);
}

#[test]
fn records_that_do_not_continue_the_log_are_refused_whole() {
    let active = open(&MemDisk::new()).unwrap();
    let mut appender = active.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 5);
    let all = active.log.read_from(Lsn(1), usize::MAX).unwrap();
    let tail = active.log.read_from(Lsn(3), usize::MAX).unwrap();

    let standby = open(&MemDisk::new()).unwrap();
    let mut follower = standby.log.appender();
    let gap = follower.append_encoded(&tail).unwrap_err();
    assert_eq!(gap, AppendError::NotContiguous { end: Lsn::ZERO, found: Lsn(3) });
    let mut damaged = all.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(follower.append_encoded(&damaged), Err(AppendError::Record { .. })));
    assert!(matches!(
        follower.append_encoded(&all[..all.len() - 1]),
        Err(AppendError::Record { .. })
    ));
    assert_eq!(standby.log.end(), Lsn::ZERO);
    follower.append_encoded(&all).unwrap();
    assert!(matches!(follower.append_encoded(&all), Err(AppendError::NotContiguous { .. })));

    // Another history: the EpochBegin names a hash that this log does not have.
    open_epoch(&mut appender, 2);
    let begin = active.log.read_from(Lsn(7), usize::MAX).unwrap();
    let stranger = open(&MemDisk::new()).unwrap();
    let mut other = stranger.log.appender();
    open_epoch(&mut other, 1);
    append(&mut other, 4);
    other.append(Epoch(1), RecordKind::Transaction, b"something else");
    assert!(matches!(other.append_encoded(&begin), Err(AppendError::EpochBegin { .. })));
}

#[test]
fn an_epoch_is_opened_by_either_call_and_only_where_the_log_ends() {
    let recovered = open(&MemDisk::new()).unwrap();
    let mut appender = recovered.log.appender();
    let first = begin(&appender, 1);
    let payload = record::epoch_begin_payload(&first);
    assert_eq!(appender.append(Epoch(1), RecordKind::EpochBegin, &payload), Lsn(1));
    assert_eq!(appender.history().last_epoch(), first.epoch);
    assert!(matches!(appender.begin_epoch(&first), Err(AppendError::EpochBegin { .. })));
    let mut lower = begin(&appender, 1);
    lower.epoch.number = Epoch(1);
    assert!(matches!(appender.begin_epoch(&lower), Err(AppendError::EpochBegin { .. })));
    open_epoch(&mut appender, 2);
    assert_eq!(recovered.log.history(), *appender.history());
    assert_eq!(appender.end(), Lsn(2));
}

#[test]
fn a_record_longer_than_a_segment_gets_its_own() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 3);
    let long = vec![7; 300_000];
    appender.append(Epoch(1), RecordKind::Feeder, &long);
    append(&mut appender, 3);
    recovered.log.sync_all().unwrap();
    assert_eq!(check(&recovered.log, Lsn(1), 64), 8);
    drop((appender, recovered));
    let again = open(&disk).unwrap();
    assert_eq!(check(&again.log, Lsn(1), 64), 8);
    let bytes = again.log.read_from(Lsn(5), 1).unwrap();
    assert_eq!(understudy_txlog::record::decode(&bytes).unwrap().0.payload, long);
}

#[test]
fn readers_learn_what_is_gone_and_what_is_not_there_yet() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    let log = &recovered.log;
    let mut appender = log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 299);
    log.sync_all().unwrap();
    assert!(log.read_from(Lsn(301), 100).unwrap().is_empty());
    assert!(matches!(log.read_from(Lsn(302), 100), Err(ReadError::Ahead { .. })));
    assert_eq!(log.reclaim_below(Lsn(200)).unwrap().segments, 0, "no checkpoint: all is needed");
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    checkpoint(&data, log, Lsn(250));
    checkpoint(&data, log, Lsn(280));
    let report = log.reclaim_below(Lsn(200)).unwrap();
    assert!(report.segments > 0);
    assert_eq!(report.first_lsn, log.first_lsn());
    assert!(log.first_lsn() > Lsn(1) && log.first_lsn() <= Lsn(200));
    let Err(ReadError::Gone { first_available, .. }) = log.read_from(Lsn(1), 100) else {
        panic!("reclaimed records were read");
    };
    assert_eq!(check(log, first_available, 1000), 300 - first_available.0 + 1);
    let report = log.reclaim_below(Lsn::MAX).unwrap();
    assert!(report.first_lsn <= Lsn(251), "the older checkpoint needs the log from 251 on");
}

#[test]
fn any_record_of_a_long_segment_is_found_whatever_was_read_before() {
    let options = LogOptions { segment_bytes: 640 << 10, ..small() };
    let disk = MemDisk::new();
    let end = Lsn(7000);
    let recovered = recover(disks(&disk), options.clone()).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    while appender.end() < end {
        // Several batches in a segment, each of which the writer notes.
        let left = end.since(appender.end());
        append(&mut appender, left.min(500));
        recovered.log.sync_all().unwrap();
    }
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    checkpoint(&data, &recovered.log, Lsn(6000));
    // Backwards: each read begins where no earlier one has been.
    let find_each = |log: &understudy_txlog::Log| {
        for lsn in (1..=end.0).rev() {
            let bytes = log.read_from(Lsn(lsn), 1).unwrap();
            let (found, rest) = record::decode(&bytes).unwrap();
            assert_eq!((found.lsn, rest.len()), (Lsn(lsn), 0));
        }
    };
    find_each(&recovered.log);
    assert_eq!(check(&recovered.log, Lsn(1), 100_000), end.0);
    drop((appender, recovered));
    // After a restart the index of the segments below the checkpoint is learned by reading.
    let again = recover(disks(&disk), options).unwrap();
    assert!(again.report.segments_read < again.report.segments);
    assert_eq!(check(&again.log, Lsn(1), 50_000), end.0);
    find_each(&again.log);
}

#[test]
fn recovery_begins_at_the_checkpoint_and_knows_a_foreign_one() {
    let disk = MemDisk::new();
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    let recovered = open(&disk).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 299);
    recovered.log.sync_all().unwrap();
    checkpoint(&data, &recovered.log, Lsn(250));
    let hash = appender.hash();
    drop((appender, recovered));

    let again = open(&disk).unwrap();
    assert_eq!(again.report.checkpoint_lsn, Some(Lsn(250)));
    assert!(again.report.segments_read < again.report.segments);
    assert_eq!((again.end.lsn, again.hash), (Lsn(300), hash));
    assert_eq!(again.history.starts().len(), 1);
    assert_eq!(check(&again.log, Lsn(251), 1000), 50);
    assert_eq!(check(&again.log, Lsn(1), 1000), 300);
    let mut meta = again.checkpoint.as_ref().unwrap().meta().clone();
    drop(again);

    meta.hash = meta.hash.extend(b"foreign");
    write_checkpoint(&data, meta, &mut |out| out.write_all(b"rows")).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, understudy_txlog::RecoveryError::Mismatch { lsn: Lsn(250), .. }));
}

#[test]
fn a_duplicate_begins_its_log_behind_the_checkpoint() {
    let source = open(&MemDisk::new()).unwrap();
    let mut appender = source.log.appender();
    open_epoch(&mut appender, 3);
    append(&mut appender, 99);
    let disk = MemDisk::new();
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    checkpoint(&data, &source.log, Lsn(60));
    let duplicate = open(&disk).unwrap();
    assert_eq!((duplicate.end.lsn, duplicate.end.epoch.number), (Lsn(60), Epoch(3)));
    let mut follower = duplicate.log.appender();
    while follower.end() < appender.end() {
        // One read ends where a segment does.
        let rest = source.log.read_from(follower.end().next(), usize::MAX).unwrap();
        follower.append_encoded(&rest).unwrap();
    }
    assert_eq!(follower.hash(), appender.hash());
    duplicate.log.sync_all().unwrap();
    drop((follower, duplicate));
    assert_eq!(open(&disk).unwrap().end.lsn, Lsn(100));
}

#[test]
fn the_appender_is_one_and_comes_back_when_it_is_dropped() {
    let recovered = open(&MemDisk::new()).unwrap();
    let appender = recovered.log.appender();
    let log = recovered.log.clone();
    let second = std::thread::spawn(move || drop(log.appender()));
    assert!(second.join().is_err(), "a second appender was handed out");
    drop(appender);
    assert_eq!(recovered.log.appender().end(), Lsn::ZERO);
}

#[test]
fn an_idle_log_proves_that_its_disk_answers() {
    let options = LogOptions { probe_interval: std::time::Duration::from_millis(20), ..small() };
    let disk = MemDisk::new();
    let recovered = recover(disks(&disk), options).unwrap();
    let first = disk.content("probe").unwrap();
    while disk.content("probe").unwrap() == first {
        std::thread::yield_now();
    }
    assert!(recovered.log.probe_age() < std::time::Duration::from_secs(60));
}
