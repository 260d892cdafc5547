//! Checkpoint files: written, decayed, cut short, streamed to a duplicate.

use crate::support::*;
use proptest::prelude::*;
use std::{
    io::{self, Read},
    sync::Arc,
};
use understudy_txlog::{
    CheckpointFile, CheckpointMeta, CheckpointSink,
    checkpoint::{CheckpointError, OpenError, SinkError},
    disk::{Disk, Fault, FaultyDisk, MemDisk, Operation},
    write_checkpoint,
};
use understudy_types::{Dbid, EpochHistory, Lsn, RunningHash};
use uuid::Uuid;

fn meta(lsn: u64) -> CheckpointMeta {
    CheckpointMeta {
        lsn: Lsn(lsn),
        history: EpochHistory::default(),
        hash: RunningHash(lsn.into()),
        dbid: Dbid(Uuid::from_u128(5)),
    }
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

fn write(disk: &Arc<dyn Disk>, lsn: u64, body: &[u8]) -> Result<CheckpointFile, CheckpointError> {
    write_checkpoint(disk, meta(lsn), &mut |out| out.write_all(body))
}

fn read(file: &CheckpointFile) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    file.read()?.read_to_end(&mut out)?;
    Ok(out)
}

fn names(disk: &dyn Disk) -> Vec<String> {
    disk.list().unwrap().into_iter().map(|f| f.name).collect()
}

#[test]
fn a_checkpoint_gives_its_body_back_and_two_are_kept() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    for (lsn, length) in [(1, 0), (2, 1), (3, 65_536), (4, 65_537), (5, 1_000_000)] {
        let file = write(&disk, lsn, &body(length)).unwrap();
        assert_eq!(read(&file).unwrap(), body(length));
        let again = CheckpointFile::open(&disk, Lsn(lsn)).unwrap();
        assert_eq!((again.meta(), again.raw_len()), (&meta(lsn), file.raw_len()));
    }
    assert_eq!(
        names(&*disk),
        ["checkpoint-0000000000000004.ckp", "checkpoint-0000000000000005.ckp"]
    );
}

#[test]
fn the_bytes_of_a_checkpoint_never_change() {
    let mem = MemDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(mem.clone());
    let file = write(&disk, 258, b"rows").unwrap();
    let content = mem.content(file.name()).unwrap();
    let hex: String = content.iter().map(|b| format!("{b:02x}")).collect();
    let golden = concat!(
        "554e444552434b500100000016000000", // magic, version, length of the description
        "82020082021000000000000000000000000000000005", // LSN, history, hash, dbid
        "2f14d8cb",                         // checksum
        "040000000d5a9184726f7773",         // block
        "0000000077d768b6",                 // end of blocks
        "01000000000000000400000000000000", // blocks, bytes
        "876a65405d8eb979ebf1a97eb627b0a655454e44", // hash, magic
    );
    assert_eq!(hex, golden);
}

#[test]
fn a_checkpoint_that_fails_leaves_the_ones_before() {
    for (operation, skip, fault) in [
        (Operation::Create, 0, Fault::NoSpace),
        (Operation::Write, 0, Fault::IoError),
        (Operation::Write, 3, Fault::NoSpace),
        (Operation::Write, 3, Fault::BitFlip(9)),
        (Operation::Sync, 0, Fault::IoError),
        (Operation::Read, 1, Fault::BitFlip(9)),
        (Operation::Rename, 0, Fault::IoError),
    ] {
        let faulty = FaultyDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        write(&disk, 1, &body(1000)).unwrap();
        write(&disk, 2, &body(1000)).unwrap();
        faulty.arm(operation, "checkpoint", skip, fault);
        assert!(write(&disk, 3, &body(200_000)).is_err(), "{operation:?} {fault:?}");
        assert_eq!(faulty.struck(), 1);
        for lsn in [1, 2] {
            let file = CheckpointFile::open(&disk, Lsn(lsn)).unwrap();
            assert_eq!(read(&file).unwrap(), body(1000));
        }
        write(&disk, 3, &body(10)).unwrap();
    }
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let two_at_once = write_checkpoint(&disk, meta(1), &mut |_| match write(&disk, 2, b"x") {
        Err(CheckpointError::Disk { operation: "begin", source, .. }) => Err(source),
        other => panic!("{other:?}"),
    });
    assert!(two_at_once.is_err());
    let failed = write_checkpoint(&disk, meta(1), &mut |_| Err(io::Error::other("no rows")));
    assert!(matches!(failed, Err(CheckpointError::Disk { operation: "write", .. })));
    assert!(names(&*disk).is_empty());
}

#[test]
fn recovery_passes_over_a_damaged_checkpoint_and_says_so() {
    let disk = MemDisk::new();
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    let recovered = open(&disk).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, 99);
    recovered.log.sync_all().unwrap();
    checkpoint(&data, &recovered.log, Lsn(50));
    checkpoint(&data, &recovered.log, Lsn(80));
    drop((appender, recovered));
    disk.invert_bits("checkpoint-0000000000000050.ckp", 40, 1);
    let again = open(&disk).unwrap();
    assert_eq!(again.report.checkpoint_lsn, Some(Lsn(50)));
    assert_eq!(again.report.damaged_checkpoints.len(), 1);
    assert!(again.report.damaged_checkpoints[0].contains("checkpoint-0000000000000050.ckp"));
    assert_eq!(again.end.lsn, Lsn(100));
}

#[test]
fn a_duplicate_receives_the_same_file_even_in_two_attempts() {
    let source: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let file = write(&source, 7, &body(500_000)).unwrap();
    let target: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let mut sink = CheckpointSink::begin(&target).unwrap();
    let mut buf = vec![0; 10_001];
    while sink.offset() < 300_000 {
        let n = file.read_raw(sink.offset(), &mut buf).unwrap();
        sink.write(&buf[..n]).unwrap();
    }
    assert_eq!(sink.meta(), Some(&meta(7)));
    // The stream breaks; the next process goes on at the last whole block.
    drop(sink);
    let mut sink = CheckpointSink::resume(&target).unwrap();
    assert!(sink.offset() > 200_000 && sink.offset() <= 310_001, "{}", sink.offset());
    loop {
        let n = file.read_raw(sink.offset(), &mut buf).unwrap();
        if n == 0 {
            break;
        }
        sink.write(&buf[..n]).unwrap();
    }
    assert_eq!(sink.offset(), file.raw_len());
    let received = sink.finish().unwrap();
    assert_eq!((received.meta(), received.raw_len()), (&meta(7), file.raw_len()));
    assert_eq!(read(&received).unwrap(), body(500_000));
}

#[test]
fn a_damaged_or_short_stream_never_becomes_a_checkpoint() {
    let source: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let file = write(&source, 7, &body(200_000)).unwrap();
    let mut raw = vec![0; file.raw_len() as usize];
    file.read_raw(0, &mut raw).unwrap();
    let target: Arc<dyn Disk> = Arc::new(MemDisk::new());

    let mut sink = CheckpointSink::begin(&target).unwrap();
    sink.write(&raw[..raw.len() - 1]).unwrap();
    assert!(matches!(sink.finish(), Err(SinkError::Unfinished(_))));

    let mut damaged = raw.clone();
    damaged[100_000] ^= 1;
    let mut sink = CheckpointSink::begin(&target).unwrap();
    assert!(matches!(sink.write(&damaged), Err(SinkError::Damaged(_))));
    let mut sink = CheckpointSink::begin(&target).unwrap();
    assert!(matches!(sink.write(b"GET / HTTP/1.1\r\n\r\n.."), Err(SinkError::Damaged(_))));
    let mut sink = CheckpointSink::begin(&target).unwrap();
    sink.write(&raw).unwrap();
    assert!(matches!(sink.write(b"x"), Err(SinkError::Damaged(_))));

    assert_eq!(names(&*target), ["checkpoint.tmp"]);
    let mut sink = CheckpointSink::begin(&target).unwrap();
    sink.write(&raw).unwrap();
    sink.finish().unwrap();
    assert_eq!(names(&*target), ["checkpoint-0000000000000007.ckp"]);
}

proptest! {
    #[test]
    fn every_changed_bit_and_every_cut_is_seen(at: usize, bit in 0u8..8, length in 0usize..200_000) {
        let mem = MemDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(mem.clone());
        let file = write(&disk, 7, &body(length)).unwrap();
        let at = at % file.raw_len() as usize;
        mem.invert_bits(file.name(), at, 1 << bit);
        let opened = CheckpointFile::open(&disk, Lsn(7));
        let is_damaged = matches!(opened, Err(OpenError::Damaged { .. }));
        prop_assert!(is_damaged, "byte {at} of {}", file.raw_len());
        prop_assert!(read(&file).is_err());
        mem.invert_bits(file.name(), at, 1 << bit);
        prop_assert!(CheckpointFile::open(&disk, Lsn(7)).is_ok());
        disk.open(file.name()).unwrap().truncate(at as u64).unwrap();
        prop_assert!(CheckpointFile::open(&disk, Lsn(7)).is_err());
    }

    #[test]
    fn a_stream_is_taken_in_pieces_of_any_size(
        length in 0usize..150_000, sizes in proptest::collection::vec(1usize..70_000, 1..8),
    ) {
        let source: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let file = write(&source, 9, &body(length)).unwrap();
        let target: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut sink = CheckpointSink::begin(&target).unwrap();
        let mut sizes = sizes.into_iter().cycle();
        while sink.offset() < file.raw_len() {
            let mut buf = vec![0; sizes.next().unwrap()];
            let n = file.read_raw(sink.offset(), &mut buf).unwrap();
            sink.write(&buf[..n]).unwrap();
        }
        prop_assert_eq!(read(&sink.finish().unwrap()).unwrap(), body(length));
    }

    #[test]
    fn a_power_cut_while_a_checkpoint_is_written_leaves_good_ones(
        fails in 0u32..6, kind in 0usize..3, arrivals in proptest::collection::vec(any::<bool>(), 1..50),
    ) {
        let faulty = FaultyDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        write(&disk, 1, &body(70_000)).unwrap();
        let kinds = [Operation::Write, Operation::Sync, Operation::SyncDirectory];
        faulty.arm(kinds[kind], "", fails, Fault::IoError);
        let written = write(&disk, 2, &body(140_000)).is_ok();
        let mut arrivals = arrivals.into_iter().cycle();
        let after: Arc<dyn Disk> =
            Arc::new(faulty.mem().crash(&mut || arrivals.next().unwrap_or(false)));
        prop_assert!(CheckpointFile::open(&after, Lsn(1)).is_ok());
        let second = CheckpointFile::open(&after, Lsn(2));
        // A file with a checkpoint's name is whole, also when its rename came before its fsync's answer.
        let is_good = match second {
            Ok(_) => true,
            Err(OpenError::Disk { source, .. }) => {
                !written && source.kind() == io::ErrorKind::NotFound
            }
            Err(OpenError::Damaged { .. }) => false,
        };
        prop_assert!(is_good);
    }
}
