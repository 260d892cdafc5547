//! Disks that fail, lie, fill up, hang and decay.

use crate::support::*;
use proptest::prelude::*;
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};
use understudy_txlog::{
    LogError, LogOptions, ReadError, Recovered, RecoveryError,
    disk::{Disk, Fault, FaultyDisk, MemDisk, Operation},
    forget_failure, recover,
};
use understudy_types::Lsn;

fn filled(disk: &(impl Disk + Clone + 'static), count: u64) -> Recovered {
    let recovered = recover(disks(disk), small()).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, count - 1);
    recovered.log.sync_all().unwrap();
    recovered
}

/// Hands over the first failure.
fn listen(recovered: &Recovered) -> mpsc::Receiver<LogError> {
    let (tell, heard) = mpsc::channel();
    recovered.log.on_failure(Box::new(move |error| tell.send(error).unwrap()));
    heard
}

#[test]
fn the_first_failed_fsync_is_the_end_and_is_marked() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    let failure = listen(&recovered);
    disk.arm(Operation::Sync, "log-", 0, Fault::IoError);
    let mut appender = recovered.log.appender();
    append(&mut appender, 5);
    assert!(recovered.log.sync_all().is_err());
    let LogError::Disk { operation, file, .. } = failure.recv().unwrap() else {
        panic!("the log was closed, not failed");
    };
    assert_eq!((operation, file.as_str()), ("sync", "log-0000000000000001.seg"));
    assert_eq!(recovered.log.durable_lsn(), Lsn(10));
    // No retry: a second fsync would lie.
    assert!(recovered.log.sync_all().is_err());
    assert!(recovered.log.cut_above(Lsn(5), None).is_err());
    assert_eq!(disk.struck(), 1);
    // A listener that comes late is told at once.
    listen(&recovered).try_recv().unwrap();
    drop((appender, recovered));
    let error = recover(disks(&disk), small()).unwrap_err();
    let RecoveryError::Poisoned { reason } = error else { panic!("{error}") };
    assert!(reason.contains("log-0000000000000001.seg"), "{reason}");
}

#[test]
fn after_a_failed_fsync_a_person_lets_it_begin_with_all_that_was_durable() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    let failure = listen(&recovered);
    disk.arm(Operation::Sync, "log-", 0, Fault::IoError);
    let mut appender = recovered.log.appender();
    append(&mut appender, 5);
    recovered.log.request_durable(Lsn(15));
    failure.recv().unwrap();
    // Also when the machine lost power meanwhile.
    for after in [disk.mem().after_kill(), disk.mem().crash(&mut || true)] {
        let refused = matches!(open(&after), Err(RecoveryError::Poisoned { .. }));
        assert_eq!(forget_failure(&disks(&after)).unwrap(), refused);
        assert!(open(&after).unwrap().end.lsn >= Lsn(10));
        assert!(!forget_failure(&disks(&after)).unwrap(), "the marker is still there");
    }
}

#[test]
fn a_failed_fsync_without_a_marker_is_repaired_or_admitted_never_hidden() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    let failure = listen(&recovered);
    disk.arm(Operation::Sync, "log-", 0, Fault::IoError);
    disk.arm(Operation::Create, "poisoned", 0, Fault::IoError);
    let mut appender = recovered.log.appender();
    append(&mut appender, 5);
    recovered.log.request_durable(Lsn(15));
    failure.recv().unwrap();
    let killed = disk.mem().after_kill();
    if killed.open("poisoned").is_ok() {
        // The marker on the second disk is the same file here, made after the first attempt failed.
        killed.remove("poisoned").unwrap();
    }
    // The pages that the kernel calls clean are read, written anew, and only then durable.
    let again = open(&killed).unwrap();
    assert_eq!(again.log.durable_lsn(), Lsn(15));
    assert_eq!(open(&killed.crash(&mut || false)).unwrap().end.lsn, Lsn(15));
    // After a power cut they are gone, and nobody was told otherwise.
    let cut = disk.mem().crash(&mut || true);
    if cut.open("poisoned").is_ok() {
        cut.remove("poisoned").unwrap();
    }
    assert_eq!(open(&cut).unwrap().end.lsn, Lsn(10));
}

#[test]
fn a_failed_or_torn_write_is_the_end_too() {
    for fault in [Fault::IoError, Fault::TornWrite(40), Fault::NoSpace] {
        let disk = FaultyDisk::new();
        let recovered = filled(&disk, 10);
        let failure = listen(&recovered);
        disk.arm(Operation::Write, "log-", 0, fault);
        let mut appender = recovered.log.appender();
        append(&mut appender, 5);
        assert!(recovered.log.sync_all().is_err(), "{fault:?}");
        failure.recv().unwrap();
        assert_eq!(recovered.log.durable_lsn(), Lsn(10));
    }
}

#[test]
fn a_short_write_is_gone_on_with() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    disk.arm(Operation::Write, "log-", 0, Fault::ShortWrite(11));
    let mut appender = recovered.log.appender();
    append(&mut appender, 30);
    recovered.log.sync_all().unwrap();
    assert_eq!(disk.struck(), 1);
    assert_eq!(open(&disk.mem().crash(&mut || false)).unwrap().end.lsn, Lsn(40));
}

#[test]
fn a_disk_that_lies_about_an_fsync_is_found_out() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    let mut appender = recovered.log.appender();
    disk.arm(Operation::Sync, "log-", 0, Fault::LostSync);
    append(&mut appender, 5);
    assert_eq!(recovered.log.sync_all().unwrap(), Lsn(15));
    let lost = disk.mem().crash(&mut || false);
    // Nothing says yet that the records were durable: they look like a torn tail.
    assert_eq!(open(&lost).unwrap().end.lsn, Lsn(10));
    // The probe says it as soon as the log is idle or closed; then they are missed.
    drop((appender, recovered));
    let lost = MemDisk::new();
    for entry in disk.mem().list().unwrap() {
        let file = lost.create(&entry.name).unwrap();
        let mut content = disk.mem().content(&entry.name).unwrap();
        if entry.name.starts_with("log-") {
            let torn = disk.mem().content(&entry.name).unwrap().len() / 4;
            content[torn..].fill(0);
        }
        file.write_at(&content, 0).unwrap();
    }
    let error = open(&lost).unwrap_err();
    assert!(matches!(error, RecoveryError::Damaged { .. }), "{error}");
}

#[test]
fn a_full_volume_is_told_before_anything_is_lost_and_ends_by_itself() {
    let disk = MemDisk::new();
    disk.set_total_bytes(64 * 1024);
    let recovered = recover(disks(&disk), small()).unwrap();
    let log = &recovered.log;
    let mut appender = log.appender();
    open_epoch(&mut appender, 1);
    let mut told_at = Lsn::ZERO;
    while !log.is_full() {
        append(&mut appender, 1);
        log.sync_all().unwrap();
        told_at = appender.end();
    }
    // What is under way when it is told still fits: about one segment.
    append(&mut appender, 5);
    assert_eq!(log.sync_all().unwrap(), appender.end());
    // More waits in memory, is readable, and is not called durable.
    append(&mut appender, 100);
    log.request_durable(appender.end());
    assert_eq!(check(log, Lsn(1), 1000), appender.end().0);
    assert!(log.durable_lsn() < appender.end() && log.is_full());
    disk.set_total_bytes(1 << 20);
    assert_eq!(log.sync_all().unwrap(), appender.end());
    while log.is_full() {
        std::thread::yield_now();
    }
    assert!(told_at > Lsn(50));
    drop((appender, recovered));
    assert_eq!(open(&disk).unwrap().end.lsn, Lsn(told_at.0 + 105));
}

#[test]
fn the_limit_of_the_log_is_kept_and_reclaim_makes_room() {
    let disk = MemDisk::new();
    let options = LogOptions { size_max_bytes: 40_000, ..small() };
    let recovered = recover(disks(&disk), options.clone()).unwrap();
    let log = &recovered.log;
    let mut appender = log.appender();
    open_epoch(&mut appender, 1);
    while !log.is_full() {
        append(&mut appender, 1);
        log.sync_all().unwrap();
        assert!(log.usage().segment_bytes <= options.size_max_bytes);
    }
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    checkpoint(&data, log, log.durable_lsn());
    assert!(log.reclaim_below(log.durable_lsn()).unwrap().bytes > 20_000);
    while log.is_full() {
        std::thread::yield_now();
    }
    append(&mut appender, 100);
    log.sync_all().unwrap();
}

#[test]
fn a_full_volume_does_not_stop_a_restart() {
    let disk = MemDisk::new();
    let recovered = filled(&disk, 100);
    drop(recovered);
    let used: u64 = disk.list().unwrap().iter().map(|f| f.bytes).sum();
    disk.set_total_bytes(used);
    // Recovery gives a reserved segment back; somebody else takes that space.
    if disk.remove("spare.tmp").is_ok() {
        disk.create("ballast").unwrap().allocate(4096).unwrap();
    }
    let again = open(&disk).unwrap();
    assert_eq!(check(&again.log, Lsn(1), 1000), 100);
    while !again.log.is_full() {
        std::thread::yield_now();
    }
    assert_eq!(open(&disk.crash(&mut || false)).unwrap().end.lsn, Lsn(100));
}

/// Found by a database on a full disk that was killed: recovery gave back the room that was reserved behind
/// its last record, and the record that opens the next epoch found none.
#[test]
fn a_restart_on_a_full_volume_keeps_the_room_that_its_last_segment_had() {
    let disk = MemDisk::new();
    drop(filled(&disk, 3));
    if disk.remove("spare.tmp").is_ok() {
        disk.create("ballast").unwrap().allocate(4096).unwrap();
    }
    disk.set_total_bytes(disk.list().unwrap().iter().map(|f| f.bytes).sum());
    let again = open(&disk).unwrap();
    let (durable, told) = mpsc::channel();
    again.log.on_durable(Box::new(move |lsn| durable.send(lsn).unwrap_or(())));
    append(&mut again.log.appender(), 1);
    again.log.request_durable(Lsn(4));
    // Far more than a disk in memory takes.
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Lsn(4)));
    assert!(again.log.is_full());
}

#[test]
fn a_hanging_fsync_shows_in_the_age_of_the_probe() {
    let disk = FaultyDisk::new();
    let recovered = filled(&disk, 10);
    disk.stall(Some(Operation::Sync));
    disk.wait_until_stalled();
    let before = recovered.log.probe_age();
    while recovered.log.probe_age() < before + Duration::from_millis(30) {
        std::thread::yield_now();
    }
    // Appending and reading go on meanwhile.
    let mut appender = recovered.log.appender();
    append(&mut appender, 20);
    assert_eq!(check(&recovered.log, Lsn(1), 100), 30);
    disk.stall(None);
    recovered.log.sync_all().unwrap();
    assert!(recovered.log.probe_age() < before + Duration::from_secs(60));
}

#[test]
fn a_log_that_is_behind_is_told_long_before_it_is_full() {
    let disk = FaultyDisk::new();
    let options = LogOptions { backlog_max_bytes: 4096, ..small() };
    let recovered = recover(disks(&disk), options).unwrap();
    let log = &recovered.log;
    let mut appender = log.appender();
    open_epoch(&mut appender, 1);
    disk.stall(Some(Operation::Sync));
    disk.wait_until_stalled();
    let mut appended = 0;
    while !log.is_behind() {
        append(&mut appender, 1);
        appended += 1;
    }
    assert!(!log.is_full());
    append(&mut appender, 2 * appended);
    assert!(log.is_behind() && !log.is_full());
    append(&mut appender, 2 * appended);
    assert!(log.is_full());
    disk.stall(None);
    log.sync_all().unwrap();
    assert!(!log.is_behind() && !log.is_full());
}

#[test]
fn damage_in_the_middle_is_refused_with_file_and_offset() {
    let disk = MemDisk::new();
    drop(filled(&disk, 200));
    let names: Vec<String> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
    let second = names.iter().filter(|n| n.ends_with(".seg")).nth(1).unwrap();
    disk.invert_bits(second, 200, 4);
    let RecoveryError::Damaged { file, offset, .. } = open(&disk).unwrap_err() else {
        panic!("the damage was not named");
    };
    assert_eq!(&file, second);
    assert!((64..=200).contains(&offset), "{offset}");
}

#[test]
fn a_missing_segment_is_missed() {
    let disk = MemDisk::new();
    drop(filled(&disk, 200));
    let segments: Vec<String> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
    let segments: Vec<_> = segments.into_iter().filter(|n| n.ends_with(".seg")).collect();
    for (at, name) in segments.iter().enumerate() {
        let without = disk.copy();
        without.remove(name).unwrap();
        let error = open(&without).unwrap_err();
        let newest = at == segments.len() - 1;
        match error {
            RecoveryError::Gap { .. } => assert_eq!(at, 0),
            RecoveryError::Chain { .. } => assert!(at > 0 && !newest),
            RecoveryError::Damaged { .. } => assert!(newest),
            other => panic!("{other}"),
        }
    }
    for name in &segments {
        disk.remove(name).unwrap();
    }
    assert!(matches!(open(&disk), Err(RecoveryError::Missing { proven: Lsn(200), .. })));
}

#[test]
fn a_reader_that_meets_damage_names_it() {
    let disk = MemDisk::new();
    let recovered = filled(&disk, 200);
    disk.invert_bits("log-0000000000000001.seg", 300, 1);
    let error = loop {
        // The memory tail may still hold the records; the file is read when they have left.
        match recovered.log.read_from(Lsn(1), 4000) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    let ReadError::Damaged { file, offset, .. } = error else { panic!("{error}") };
    assert_eq!(file, "log-0000000000000001.seg");
    assert!((64..=300).contains(&offset));
    assert_eq!(recovered.log.hash_at(Lsn(5)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_changed_bit_of_a_closed_log_goes_unnoticed(at: usize, bit in 0u8..8, which: usize) {
        let disk = MemDisk::new();
        let hash = {
            let recovered = filled(&disk, 120);
            recovered.log.hash_at(Lsn(120)).unwrap()
        };
        let files = disk.list().unwrap();
        let segments: Vec<_> = files.iter().filter(|f| f.name.ends_with(".seg")).collect();
        let segment = segments[which % segments.len()];
        disk.invert_bits(&segment.name, at % segment.bytes as usize, 1 << bit);
        match open(&disk) {
            // Only the empty space behind the last record may change without harm.
            Ok(again) => {
                prop_assert_eq!((again.end.lsn, again.hash), (Lsn(120), hash));
                prop_assert!(again.report.tail_cut_bytes > 0);
            }
            Err(
                RecoveryError::Damaged { file, .. }
                | RecoveryError::Disorder { file, .. }
                | RecoveryError::Header { file, .. },
            ) => prop_assert_eq!(&file, &segment.name),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }

    #[test]
    fn garbage_in_any_file_is_an_answer_and_not_a_panic(
        which: usize,
        at: usize,
        garbage in proptest::collection::vec(any::<u8>(), 1..600),
        truncate: bool,
    ) {
        let disk = MemDisk::new();
        let recovered = filled(&disk, 120);
        let data: Arc<dyn Disk> = Arc::new(disk.clone());
        checkpoint(&data, &recovered.log, Lsn(60));
        let hash_at: Vec<_> = (0..=120).map(|l| recovered.log.hash_at(Lsn(l)).unwrap()).collect();
        drop(recovered);
        let files: Vec<_> = disk.list().unwrap().into_iter().filter(|f| f.bytes > 0).collect();
        let entry = &files[which % files.len()];
        let file = disk.open(&entry.name).unwrap();
        let at = at as u64 % entry.bytes;
        if truncate {
            file.truncate(at).unwrap();
        } else {
            let room = (entry.bytes - at) as usize;
            file.write_at(&garbage[..garbage.len().min(room)], at).unwrap();
        }
        if let Ok(again) = open(&disk) {
            let end = again.end.lsn.0 as usize;
            prop_assert!(end >= 60 && hash_at[end] == again.hash, "{}: end {end}", entry.name);
        }
    }

    #[test]
    fn one_fault_anywhere_loses_nothing_durable(
        operation in 0usize..7,
        skip in 0u32..25,
        fault in prop_oneof![
            Just(Fault::IoError),
            Just(Fault::NoSpace),
            (0usize..300).prop_map(Fault::TornWrite),
            (0usize..300).prop_map(Fault::ShortWrite),
        ],
        arrivals in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        let operations = [
            Operation::Create,
            Operation::Write,
            Operation::Allocate,
            Operation::Sync,
            Operation::Rename,
            Operation::Remove,
            Operation::SyncDirectory,
        ];
        let disk = FaultyDisk::new();
        let recovered = filled(&disk, 5);
        let log = &recovered.log;
        disk.arm(operations[operation], "", skip, fault);
        let data: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut appender = log.appender();
        let mut durable = Lsn(5);
        for round in 1..12u64 {
            append(&mut appender, 10);
            match log.sync_all() {
                Ok(lsn) => durable = lsn,
                Err(_) => break,
            }
            if round.is_multiple_of(4) {
                let meta = checkpoint_meta(log, Lsn(durable.0 - 3));
                // It may fail; then the ones before must still be good.
                let _ = understudy_txlog::write_checkpoint(&data, meta, &mut |out| {
                    out.write_all(&[7; 3000])
                });
                let _ = log.reclaim_below(Lsn(durable.0 - 20));
            }
        }
        let mut arrivals = arrivals.into_iter().cycle();
        for after in
            [disk.mem().crash(&mut || arrivals.next().unwrap_or(false)), disk.mem().after_kill()]
        {
            if after.open("poisoned").is_ok() {
                let refused = matches!(open(&after), Err(RecoveryError::Poisoned { .. }));
                prop_assert!(refused, "a poisoned log was opened");
                after.remove("poisoned").unwrap();
            }
            let again = open(&after).unwrap();
            prop_assert!(again.end.lsn >= durable, "{:?} < {durable}", again.end);
            let first = again.log.first_lsn();
            prop_assert_eq!(check(&again.log, first, 900), again.end.lsn.next().since(first));
        }
    }
}
