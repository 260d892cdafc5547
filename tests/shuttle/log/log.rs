//! The log under many interleavings (`understudy_shuttle_locks`): the appender, the writer, those who wait for
//! it, readers, cuts, and a disk that fails. Intervals at which the writer would look by itself are an hour
//! long, so that a wake-up that is missing leaves everybody waiting, which fails the scene.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{sync::Arc, time::Duration};
use understudy_shuttle_locks::{
    AtomicU64, Condvar, Mutex, Ordering, in_many_orders,
    rand::{Rng, thread_rng},
    thread,
};
use understudy_txlog_shuttle::{
    Appender, Disks, Log, LogError, LogOptions, ReadError, RecordKind,
    disk::{Disk, Fault, FaultyDisk, MemDisk, Operation},
    record, recover,
};
use understudy_types::{Epoch, EpochBegin, EpochId, Incarnation, Lsn, RunningHash};

const NEVER: Duration = Duration::from_secs(3600);
/// Two of them fill a chunk of memory, six a segment.
const PAYLOAD: [u8; 600] = [7; 600];

fn opened(disk: &(impl Disk + Clone + 'static)) -> Log {
    let options = LogOptions {
        segment_bytes: 4096,
        memory_tail_bytes: 0,
        drain_interval: Duration::from_millis(1),
        sync_interval: NEVER,
        probe_interval: NEVER,
        ..LogOptions::default()
    };
    recover(Disks::one(Arc::new(disk.clone())), options).unwrap().log
}

fn begin(appender: &mut Appender, number: u64) {
    let number = Epoch(number);
    let id = EpochId { number, ..EpochId::default() };
    let begin = EpochBegin {
        epoch: id,
        author: Incarnation { start: number.0, id: id.author },
        previous: appender.position(),
        hash: appender.hash(),
        lossy: false,
    };
    appender.begin_epoch(&begin).unwrap();
}

/// A log with its first epoch begun, and so with one record.
fn begun(disk: &(impl Disk + Clone + 'static)) -> (Log, Appender) {
    let log = opened(disk);
    let mut appender = log.appender();
    begin(&mut appender, 1);
    (log, appender)
}

fn append(appender: &mut Appender, count: u64) -> Lsn {
    let records = (0..count).map(|_| appender.append(Epoch(1), RecordKind::Transaction, &PAYLOAD));
    records.last().unwrap()
}

/// The end of what a disk holds after a power cut that no unsynced write survived.
fn end_after_power_cut(disk: &MemDisk) -> Lsn {
    opened(&disk.crash(&mut || false)).end()
}

#[test]
fn who_waits_for_durability_is_woken() {
    in_many_orders(|| {
        let disk = MemDisk::default();
        let (log, appender) = begun(&disk);
        let durable = Arc::new((Mutex::new(Lsn::ZERO), Condvar::new()));
        let told = Arc::clone(&durable);
        log.on_durable(Box::new(move |lsn| {
            let mut last = told.0.lock();
            assert!(lsn > *last, "{lsn} is told after {}", *last);
            *last = lsn;
            told.1.notify_all();
        }));
        let section = Arc::new(Mutex::new(appender));
        let commits = [(); 2].map(|()| {
            let (log, section, durable) = (log.clone(), Arc::clone(&section), Arc::clone(&durable));
            thread::spawn(move || {
                for _ in 0..2 {
                    let lsn = append(&mut section.lock(), 1);
                    log.request_durable(lsn);
                    let mut last = durable.0.lock();
                    while *last < lsn {
                        durable.1.wait(&mut last);
                    }
                    drop(last);
                    assert!(log.durable_lsn() >= lsn);
                }
            })
        });
        commits.into_iter().for_each(|commit| commit.join().unwrap());
        assert_eq!(end_after_power_cut(&disk), Lsn(5));
    });
}

#[test]
fn a_reader_sees_every_record_once_while_it_is_written_and_leaves_memory() {
    in_many_orders(|| {
        let (log, mut appender) = begun(&MemDisk::default());
        let reader = {
            let log = log.clone();
            thread::spawn(move || {
                let (mut next, mut hash) = (Lsn(1), RunningHash::default());
                while next <= Lsn(10) {
                    let mut bytes = Vec::new();
                    let after = log.read_into(next, 1500, &mut bytes).unwrap();
                    for record in record::records(&bytes) {
                        let record = record.unwrap();
                        assert_eq!(record.lsn, next);
                        (hash, next) = (hash.extend(record.encoded), next.next());
                    }
                    assert_eq!(after, next);
                    // In this order, for each of them only rises.
                    let (durable, written) = (log.durable_lsn(), log.written_lsn());
                    assert!(durable <= written && written <= log.end());
                    if bytes.is_empty() {
                        thread::yield_now();
                    }
                }
                hash
            })
        };
        for _ in 0..3 {
            let lsn = append(&mut appender, 3);
            log.request_durable(lsn);
        }
        assert_eq!(reader.join().unwrap(), appender.hash());
    });
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    in_many_orders(|| {
        let (log, mut appender) = begun(&MemDisk::default());
        for _ in 0..2 {
            let lsn = append(&mut appender, 1);
            while log.written_lsn() < lsn {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn a_position_is_that_of_a_record() {
    in_many_orders(|| {
        let (log, mut appender) = begun(&MemDisk::default());
        append(&mut appender, 1);
        let looks = {
            let log = log.clone();
            thread::spawn(move || [(); 3].map(|()| (log.position(), log.history())))
        };
        begin(&mut appender, 2);
        for (position, history) in looks.join().unwrap() {
            let expected = if position.epoch.number == Epoch(2) { Lsn(3) } else { Lsn(2) };
            assert_eq!(position.lsn, expected);
            assert!(history.starts().last().unwrap().first_lsn <= log.end());
        }
    });
}

#[test]
fn the_last_handle_leaves_everything_durable() {
    in_many_orders(|| {
        let disk = MemDisk::default();
        let (log, mut appender) = begun(&disk);
        let writes = thread::spawn(move || append(&mut appender, 8));
        let waits = thread::spawn(move || log.sync_all().unwrap());
        let end = writes.join().unwrap();
        waits.join().unwrap();
        assert_eq!(end_after_power_cut(&disk), end);
    });
}

#[test]
fn of_a_disk_that_fails_everybody_hears_once() {
    in_many_orders(|| {
        let disk = FaultyDisk::new();
        let (log, mut appender) = begun(&disk);
        log.sync_all().unwrap();
        disk.arm(Operation::Sync, "log-", 0, Fault::IoError);
        let told = Arc::new(AtomicU64::new(0));
        let waits = [0, 1].map(|way| {
            let log = log.clone();
            thread::spawn(move || {
                let before = log.end();
                if way == 0 { log.sync_all() } else { log.sync_to(before).map(|_| before) }
            })
        });
        let listens = {
            let (log, told) = (log.clone(), Arc::clone(&told));
            thread::spawn(move || {
                log.on_failure(Box::new(move |error| {
                    assert!(matches!(error, LogError::Disk { .. }));
                    told.fetch_add(1, Ordering::SeqCst);
                }));
            })
        };
        append(&mut appender, 1);
        assert!(log.sync_all().is_err());
        listens.join().unwrap();
        for wait in waits {
            // Well only when what was durable had been appended, and no more.
            let waited = wait.join().unwrap();
            assert!(matches!(waited, Ok(Lsn(1)) | Err(LogError::Disk { .. })), "{waited:?}");
        }
        assert_eq!(log.durable_lsn(), Lsn(1));
        drop((log, appender));
        assert_eq!((told.load(Ordering::SeqCst), disk.struck()), (1, 1));
    });
}

#[test]
fn a_cut_is_answered_whatever_becomes_of_the_disk() {
    in_many_orders(|| {
        let disk = FaultyDisk::new();
        let (log, mut appender) = begun(&disk);
        append(&mut appender, 7);
        drop(appender);
        let skipped = thread_rng().gen_range(0..6);
        disk.arm(Operation::Sync, "log-", skipped, Fault::IoError);
        let waits = {
            let log = log.clone();
            thread::spawn(move || log.sync_all().is_ok())
        };
        let cut = log.cut_above(Lsn(3), None);
        waits.join().unwrap();
        match cut {
            Ok(report) => {
                assert_eq!((report.records, log.end(), log.durable_lsn()), (5, Lsn(3), Lsn(3)));
                assert!(matches!(log.read_from(Lsn(5), 1), Err(ReadError::Ahead { .. })));
                assert_eq!(log.appender().end(), Lsn(3));
            }
            Err(_) => assert_eq!(disk.struck(), 1),
        }
    });
}
