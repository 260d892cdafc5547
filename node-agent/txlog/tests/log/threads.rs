//! One appender, the writer, readers and waiters at once, on a real directory and real threads.

use crate::support::*;
use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use understudy_txlog::{
    Disks, LogOptions, RecordKind,
    disk::{Disk, FsDisk},
    record, recover,
};
use understudy_types::{Epoch, Lsn, RunningHash};

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        memory_tail_bytes: 64 * 1024,
        drain_bytes: 16 * 1024,
        ..LogOptions::default()
    }
}

/// Follows the log to `end` and returns the running hash over what it read.
fn follow(log: &understudy_txlog::Log, end: Lsn, max_bytes: usize) -> RunningHash {
    let (mut next, mut hash) = (Lsn(1), RunningHash::default());
    let mut bytes = Vec::new();
    while next <= end {
        bytes.clear();
        let after = log.read_into(next, max_bytes, &mut bytes).unwrap();
        let written = log.written_lsn();
        assert!(log.durable_lsn() <= log.end() && written <= log.end());
        for record in record::records(&bytes) {
            let record = record.unwrap();
            assert_eq!(record.lsn, next);
            hash = hash.extend(record.encoded);
            next = next.next();
        }
        assert_eq!(next, after);
        if bytes.is_empty() {
            std::thread::yield_now();
        }
    }
    hash
}

#[test]
fn readers_see_every_record_once_while_it_is_appended_written_and_evicted() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FsDisk::open(directory.path()).unwrap());
    let recovered = recover(Disks::one(disk), options()).unwrap();
    let end = Lsn(20_000);
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    let hash = std::thread::scope(|threads| {
        let readers: Vec<_> = [100, 3000, 50_000, usize::MAX]
            .into_iter()
            .map(|max_bytes| {
                let log = &recovered.log;
                threads.spawn(move || follow(log, end, max_bytes))
            })
            .collect();
        while appender.end() < end {
            append(&mut appender, 1);
            if appender.end().0.is_multiple_of(500) {
                recovered.log.request_durable(appender.end());
            }
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), appender.hash());
        }
        appender.hash()
    });
    assert_eq!(recovered.log.sync_all().unwrap(), end);
    // Late readers find it all in the segments.
    assert!(recovered.log.usage().segments > 20);
    assert_eq!(follow(&recovered.log, end, 10_000), hash);
    assert_eq!(recovered.log.hash_at(end), Some(hash));
}

#[test]
fn every_waiter_is_woken_and_group_commit_shares_fsyncs() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FsDisk::open(directory.path()).unwrap());
    let recovered = recover(Disks::one(disk), options()).unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let moved = Arc::new((Mutex::new(()), Condvar::new()));
    {
        let (syncs, moved) = (Arc::clone(&syncs), Arc::clone(&moved));
        recovered.log.on_durable(Box::new(move |_| {
            syncs.fetch_add(1, Ordering::Relaxed);
            drop(moved.0.lock().unwrap());
            moved.1.notify_all();
        }));
    }
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    let appender = Mutex::new(appender);
    let (sessions, commits) = (8, 40);
    std::thread::scope(|threads| {
        for _ in 0..sessions {
            threads.spawn(|| {
                for _ in 0..commits {
                    let lsn = appender.lock().unwrap().append(
                        Epoch(1),
                        RecordKind::Transaction,
                        b"one row",
                    );
                    recovered.log.request_durable(lsn);
                    let mut waiting = moved.0.lock().unwrap();
                    while recovered.log.durable_lsn() < lsn {
                        waiting = moved.1.wait(waiting).unwrap();
                    }
                }
            });
        }
    });
    let syncs = syncs.load(Ordering::Relaxed);
    assert!(syncs < sessions * commits, "{syncs} fsyncs for {} commits", sessions * commits);
    assert_eq!(recovered.log.durable_lsn(), Lsn(sessions * commits + 1));
}

#[test]
fn checkpoints_and_reclaim_go_on_beside_commits_and_the_directory_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(FsDisk::open(directory.path()).unwrap());
    let end = Lsn(8000);
    {
        let disk = disk();
        let data: Arc<dyn Disk> = disk.clone();
        let recovered = recover(Disks::one(disk), options()).unwrap();
        let mut appender = recovered.log.appender();
        open_epoch(&mut appender, 1);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while appender.end() < end {
                    append(&mut appender, 1);
                    if appender.end().0.is_multiple_of(1000) {
                        recovered.log.sync_all().unwrap();
                    }
                }
            });
            let mut last = Lsn::ZERO;
            while last < Lsn(6000) {
                let lsn = recovered.log.durable_lsn();
                if lsn < Lsn(last.0 + 1000) {
                    std::thread::yield_now();
                    continue;
                }
                checkpoint(&data, &recovered.log, lsn);
                recovered.log.reclaim_below(last).unwrap();
                last = lsn;
            }
        });
        recovered.log.sync_all().unwrap();
        assert!(recovered.log.first_lsn() > Lsn(1));
    }
    let again = recover(Disks::one(disk()), options()).unwrap();
    assert_eq!(again.end.lsn, end);
    assert!(again.report.segments_read < again.report.segments);
    let from = again.report.checkpoint_lsn.unwrap().next();
    assert_eq!(check(&again.log, from, 10_000), end.next().since(from));
}

#[test]
fn dropping_the_last_handle_makes_everything_durable_and_ends_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let slow = LogOptions {
        drain_interval: Duration::from_secs(3600),
        sync_interval: Duration::from_secs(3600),
        ..options()
    };
    let disk = Arc::new(FsDisk::open(directory.path()).unwrap());
    let recovered = recover(Disks::one(disk), slow).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 10);
    drop(recovered);
    drop(appender);
    // The lock of the directory is free: nothing holds the disk any more.
    let disk = Arc::new(FsDisk::open(directory.path()).unwrap());
    assert_eq!(recover(Disks::one(disk), options()).unwrap().end.lsn, Lsn(11));
}
