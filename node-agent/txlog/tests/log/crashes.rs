//! Power cuts and killed processes at arbitrary moments, and what recovery makes of them.
//!
//! The property is the same everywhere: recovery succeeds, everything that was called durable is there,
//! and what is there is a prefix of what was appended, byte by byte (by the running hash).

use crate::support::*;
use proptest::prelude::*;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use understudy_txlog::{
    Appender, LogOptions, Recovered,
    disk::{Disk, MemDisk},
    recover,
};
use understudy_types::{Lsn, RunningHash};

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Sync,
    Request,
    Epoch,
    Checkpoint(u64),
    Reclaim,
    /// Goes on with a power cut; each answer says whether the next unsynced piece arrived.
    PowerCut(Vec<bool>),
    /// Goes on as a new process on the same machine.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..40).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => Just(Step::Request),
        1 => Just(Step::Epoch),
        1 => (0u64..30).prop_map(Step::Checkpoint),
        1 => Just(Step::Reclaim),
        2 => proptest::collection::vec(any::<bool>(), 1..60).prop_map(Step::PowerCut),
        1 => Just(Step::Kill),
    ]
}

/// Running hash after every record that was appended.
#[derive(Default)]
struct Expected {
    hashes: Vec<RunningHash>,
    epoch: u64,
}

impl Expected {
    fn agrees(&self, recovered: &Recovered, durable: Lsn) {
        let end = recovered.end.lsn;
        assert!(end >= durable, "{durable} was durable, the log ends at {end}");
        assert!(end.0 <= self.hashes.len() as u64, "the log ends at {end}, beyond the last record");
        let expected = end.0.checked_sub(1).map(|at| self.hashes[at as usize]);
        assert_eq!(recovered.hash, expected.unwrap_or_default(), "hash at {end}");
        assert_eq!(recovered.log.durable_lsn(), end);
        let first = recovered.log.first_lsn();
        assert_eq!(check(&recovered.log, first, 3000), end.next().since(first));
    }
}

struct Member {
    disk: MemDisk,
    recovered: Recovered,
    appender: Appender,
    expected: Expected,
}

impl Member {
    fn start() -> Member {
        let disk = MemDisk::new();
        let recovered = open(&disk).unwrap();
        let appender = recovered.log.appender();
        Member { disk, recovered, appender, expected: Expected::default() }
    }

    fn open_epoch(&mut self) {
        self.expected.epoch += 1;
        open_epoch(&mut self.appender, self.expected.epoch);
        self.expected.hashes.push(self.appender.hash());
    }

    fn append(&mut self, count: u64) {
        if self.expected.epoch == 0 {
            self.open_epoch();
        }
        for _ in 0..count {
            append(&mut self.appender, 1);
            self.expected.hashes.push(self.appender.hash());
        }
    }

    fn checkpoint(&self, behind: u64) {
        let log = &self.recovered.log;
        let lsn = Lsn(log.durable_lsn().0.saturating_sub(behind));
        let newest = self.recovered.checkpoint.as_ref().map_or(Lsn::ZERO, |c| c.meta().lsn);
        if lsn > newest && lsn >= log.first_lsn() {
            let data: Arc<dyn Disk> = Arc::new(self.disk.clone());
            checkpoint(&data, log, lsn);
        }
    }

    /// Goes on with what another moment or fate left of the disk.
    fn restart(&mut self, durable: Lsn, disk: MemDisk) {
        self.recovered = open(&disk).unwrap();
        self.disk = disk;
        self.expected.agrees(&self.recovered, durable);
        self.expected.hashes.truncate(self.recovered.end.lsn.0 as usize);
        self.appender = self.recovered.log.appender();
        // A member that restarts never goes on in its old epoch (law 4).
        self.open_epoch();
    }

    fn step(&mut self, step: Step) {
        let log = self.recovered.log.clone();
        let durable = log.durable_lsn();
        match step {
            Step::Append(count) => self.append(count),
            Step::Epoch => self.open_epoch(),
            Step::Sync => assert_eq!(log.sync_all().unwrap(), self.appender.end()),
            Step::Request => log.request_durable(self.appender.end()),
            Step::Checkpoint(behind) => self.checkpoint(behind),
            Step::Reclaim => {
                log.reclaim_below(durable).unwrap();
            }
            Step::PowerCut(answers) => {
                let mut answers = answers.into_iter().cycle();
                let after = self.disk.crash(&mut || answers.next().unwrap_or(false));
                self.restart(durable, after);
            }
            Step::Kill => self.restart(durable, self.disk.after_kill()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_durable_is_lost_and_no_power_cut_stops_recovery(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut member = Member::start();
        for step in steps {
            member.step(step);
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let disk = MemDisk::new();
    // Only the test asks for an fsync.
    let options = LogOptions { sync_interval: std::time::Duration::MAX, ..small() };
    let recovered = recover(disks(&disk), options).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 9);
    recovered.log.sync_all().unwrap();
    append(&mut appender, 10);
    while recovered.log.written_lsn() < appender.end() {
        std::thread::yield_now();
    }
    let mut torn = 0;
    for arrived in 0..20 {
        let mut pieces = 0..arrived;
        let after = disk.crash(&mut || pieces.next().is_some());
        let again = open(&after).unwrap();
        assert!(again.end.lsn >= Lsn(10) && again.end.lsn <= Lsn(20), "{:?}", again.end);
        if again.report.tail_cut_bytes > 0 {
            torn += 1;
            assert!(again.end.lsn < Lsn(20));
            let (file, offset) = again.report.tail_cut_at.clone().unwrap();
            assert_eq!(file, "log-0000000000000001.seg");
            assert!(offset > 64);
        }
        // The same directory again: what was cut stays cut.
        let end = again.end;
        drop(again);
        let third = open(&after).unwrap();
        assert_eq!((third.end, third.report.tail_cut_bytes), (end, 0));
    }
    assert!(torn > 0, "no power cut tore the tail");
}

#[test]
fn a_killed_process_loses_only_what_it_had_not_written() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 99);
    while recovered.log.written_lsn() < appender.end() {
        std::thread::yield_now();
    }
    let again = open(&disk.after_kill()).unwrap();
    assert_eq!(again.end.lsn, Lsn(100));
    assert_eq!(again.log.durable_lsn(), Lsn(100), "recovery wrote it again and synced it");
}

#[test]
fn what_recovery_calls_durable_survives_a_power_cut_at_once() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 99);
    while recovered.log.written_lsn() < appender.end() {
        std::thread::yield_now();
    }
    // The process dies with unsynced pages; the new one claims them only after its own fsync.
    let killed = disk.after_kill();
    let second = open(&killed).unwrap();
    assert_eq!(second.log.durable_lsn(), Lsn(100));
    assert_eq!(open(&killed.crash(&mut || false)).unwrap().end.lsn, Lsn(100));
}

#[test]
fn a_copy_taken_at_any_moment_recovers_to_what_was_durable_then() {
    let disk = MemDisk::new();
    let recovered = open(&disk).unwrap();
    let log = recovered.log.clone();
    // How far the appender may go: about a hundred records ahead of each copy.
    let allowed = Arc::new(AtomicU64::new(100));
    let writing = {
        let allowed = Arc::clone(&allowed);
        let mut appender = recovered.log.appender();
        let log = recovered.log.clone();
        std::thread::spawn(move || {
            open_epoch(&mut appender, 1);
            loop {
                let limit = allowed.load(Ordering::Relaxed);
                if limit == u64::MAX {
                    return;
                }
                if appender.end().0 >= limit {
                    std::thread::yield_now();
                    continue;
                }
                append(&mut appender, 7);
                log.request_durable(appender.end());
                if appender.end().0.is_multiple_of(3) {
                    log.sync_all().unwrap();
                }
            }
        })
    };
    for round in 0..60u64 {
        // Moments spread by progress, not by time.
        allowed.store(round * 40 + 100, Ordering::Relaxed);
        while log.durable_lsn() < Lsn(round * 40) {
            std::thread::yield_now();
        }
        let durable = log.durable_lsn();
        let copied = disk.copy();
        let mut bits = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let cut = disk.crash(&mut || {
            bits = bits.rotate_left(7).wrapping_mul(5).wrapping_add(3);
            bits & 64 == 0
        });
        for survivor in [copied, cut] {
            let again = open(&survivor).unwrap();
            assert!(again.end.lsn >= durable, "{:?} < {durable}", again.end);
            assert_eq!(check(&again.log, Lsn(1), 5000), again.end.lsn.0);
            assert_eq!(log.hash_at(again.end.lsn), Some(again.hash));
        }
    }
    allowed.store(u64::MAX, Ordering::Relaxed);
    writing.join().unwrap();
}
