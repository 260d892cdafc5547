//! Small words for the tests: a log with small segments, epochs, records with known content.

use std::{sync::Arc, time::Duration};
use understudy_txlog::{
    Appender, CheckpointMeta, Disks, Log, LogOptions, RecordKind, Recovered, RecoveryError,
    disk::{Disk, MemDisk},
    record, recover, write_checkpoint,
};
use understudy_types::{Dbid, Epoch, EpochBegin, EpochId, Incarnation, Lsn};
use uuid::Uuid;

/// Segments of 4 KiB, so that a hundred records fill several.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        memory_tail_bytes: 0,
        drain_interval: Duration::from_millis(1),
        ..LogOptions::default()
    }
}

pub(crate) fn disks(disk: &(impl Disk + Clone + 'static)) -> Disks {
    Disks::one(Arc::new(disk.clone()))
}

pub(crate) fn open(disk: &MemDisk) -> Result<Recovered, RecoveryError> {
    recover(disks(disk), small())
}

/// The `EpochBegin` that continues this log.
pub(crate) fn begin(appender: &Appender, number: u64) -> EpochBegin {
    let author = Uuid::from_u128(u128::from(number));
    EpochBegin {
        epoch: EpochId { number: Epoch(number), author },
        author: Incarnation { start: number, id: author },
        previous: appender.position(),
        hash: appender.hash(),
        lossy: false,
    }
}

/// Opens an epoch.
pub(crate) fn open_epoch(appender: &mut Appender, number: u64) {
    let begin = begin(appender, number);
    appender.begin_epoch(&begin).unwrap();
}

/// What the record at an LSN holds in these tests.
pub(crate) fn payload(lsn: Lsn) -> Vec<u8> {
    let length = (lsn.0 * 37 % 190) as usize;
    (0..length).map(|i| (lsn.0 as u8).wrapping_add(i as u8)).collect()
}

/// Appends `count` records in the open epoch.
pub(crate) fn append(appender: &mut Appender, count: u64) {
    let epoch = appender.position().epoch.number;
    for _ in 0..count {
        let bytes = payload(appender.end().next());
        appender.append(epoch, RecordKind::Transaction, &bytes);
    }
}

/// Writes a checkpoint at an LSN that the log holds.
pub(crate) fn checkpoint(disk: &Arc<dyn Disk>, log: &Log, lsn: Lsn) {
    let meta = checkpoint_meta(log, lsn);
    write_checkpoint(disk, meta, &mut |out| out.write_all(b"rows")).unwrap();
}

pub(crate) fn checkpoint_meta(log: &Log, lsn: Lsn) -> CheckpointMeta {
    let mut history = log.history();
    history.cut_above(lsn);
    let hash = log.hash_at(lsn).unwrap();
    CheckpointMeta { lsn, history, hash, dbid: Dbid(Uuid::nil()) }
}

/// Reads everything from `from` on and checks each record's place and content; returns how many.
pub(crate) fn check(log: &Log, from: Lsn, max_bytes: usize) -> u64 {
    let mut next = from;
    loop {
        let bytes = log.read_from(next, max_bytes).unwrap();
        if bytes.is_empty() {
            return next.since(from);
        }
        for record in record::records(&bytes) {
            let record = record.unwrap();
            assert_eq!(record.lsn, next);
            if record.kind == RecordKind::Transaction {
                assert_eq!(record.payload, payload(next), "content of {next}");
            }
            next = next.next();
        }
    }
}
