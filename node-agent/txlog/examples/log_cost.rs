//! What the log costs, for the benchmark's report: `cargo run -p understudy-txlog --example log_cost DIR`.
//!
//! It appends records of three sizes in a loop, with the writer draining beside it, then follows them as a
//! sender does, then commits durably from one and from eight threads. DIR is a directory on the disk to
//! measure; a second run on it shows what recovery costs. Without it, a directory in memory is used and the durable part is left out.

use parking_lot::{Condvar, Mutex};
use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};
use understudy_txlog::{
    Appender, Disks, Log, LogOptions, RecordKind,
    disk::{FsDisk, MemDisk},
    recover,
};
use understudy_types::{Epoch, EpochBegin, EpochId, Incarnation};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let directory = std::env::args().nth(1);
    let disks = match &directory {
        Some(path) => Disks::one(Arc::new(FsDisk::open(path)?)),
        None => Disks::one(Arc::new(MemDisk::new())),
    };
    let recovered = recover(disks, LogOptions::default())?;
    let report = &recovered.report;
    println!(
        "recovery: {} records, {} MiB of records, {} ms",
        report.records,
        report.bytes >> 20,
        report.elapsed.as_millis(),
    );
    let log = recovered.log;
    let mut appender = log.appender();
    let number = appender.position().epoch.number.next();
    appender.begin_epoch(&EpochBegin {
        epoch: EpochId { number, ..EpochId::default() },
        author: Incarnation { start: number.0, id: EpochId::default().author },
        previous: appender.position(),
        hash: appender.hash(),
        lossy: false,
    })?;
    for payload_bytes in [32, 200, 1000] {
        appends(&log, &mut appender, number, &vec![7; payload_bytes])?;
    }
    follow(&log, &mut appender, number)?;
    if directory.is_some() {
        drop(appender);
        for sessions in [1, 8] {
            commits(&log, number, sessions);
        }
    }
    Ok(())
}

/// The cost of one append, rounds of a thousand, and what a record takes beside its payload.
fn appends(log: &Log, appender: &mut Appender, epoch: Epoch, payload: &[u8]) -> Outcome<()> {
    let mut rounds = Vec::new();
    let begun = appender.end();
    for _ in 0..300 {
        let start = Instant::now();
        for _ in 0..1000 {
            appender.append(epoch, RecordKind::Transaction, payload);
        }
        rounds.push(start.elapsed() / 1000);
        if log.is_full() {
            log.sync_all()?;
        }
    }
    let one = log.read_from(begun.next(), 1)?;
    rounds.sort();
    println!(
        "append, payload {} B: p50 {} ns, p99 of rounds {} ns, overhead {} B per record",
        payload.len(),
        rounds[rounds.len() / 2].as_nanos(),
        rounds[rounds.len() * 99 / 100].as_nanos(),
        one.len() - payload.len(),
    );
    log.sync_all()?;
    Ok(())
}

/// The cost of a sender's turn: ten records appended, then read from memory.
fn follow(log: &Log, appender: &mut Appender, epoch: Epoch) -> Outcome<()> {
    let mut buf = Vec::new();
    let mut spent = Duration::ZERO;
    let turns = 20_000;
    for _ in 0..turns {
        let from = appender.end().next();
        for _ in 0..10 {
            appender.append(epoch, RecordKind::Transaction, &[7; 200]);
        }
        let start = Instant::now();
        buf.clear();
        log.read_into(from, 1 << 20, &mut buf)?;
        spent += start.elapsed();
    }
    println!("read_into of 10 new records: {} ns", (spent / turns).as_nanos());
    log.sync_all()?;
    Ok(())
}

/// Durable commits: each session appends, asks, and waits.
fn commits(log: &Log, epoch: Epoch, sessions: u32) {
    let moved = Arc::new((Mutex::new(()), Condvar::new()));
    let told = Arc::clone(&moved);
    log.on_durable(Box::new(move |_| {
        drop(told.0.lock());
        told.1.notify_all();
    }));
    let appender = Mutex::new(log.appender());
    let mut waits = Vec::new();
    let begun = Instant::now();
    std::thread::scope(|threads| {
        let session = || {
            let mut waits = Vec::new();
            while begun.elapsed() < Duration::from_secs(2) {
                let start = Instant::now();
                let lsn = appender.lock().append(epoch, RecordKind::Transaction, &[7; 200]);
                log.request_durable(lsn);
                let mut waiting = moved.0.lock();
                while log.durable_lsn() < lsn {
                    moved.1.wait(&mut waiting);
                }
                drop(waiting);
                waits.push(start.elapsed());
            }
            waits
        };
        let running: Vec<_> = (0..sessions).map(|_| threads.spawn(session)).collect();
        for session in running {
            waits.extend(session.join().unwrap_or_default());
        }
    });
    waits.sort();
    let rate = waits.len() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "durable commits, {sessions} sessions: {rate:.0}/s, p50 {} µs, p99 {} µs",
        waits[waits.len() / 2].as_micros(),
        waits[waits.len() * 99 / 100].as_micros(),
    );
}
