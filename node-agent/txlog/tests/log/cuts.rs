//! The fork cut: records above an LSN leave the log, and can be read in the export.

use crate::support::*;
use proptest::prelude::*;
use std::sync::Arc;
use understudy_txlog::{
    CutError, CutReport, Export, ExportError, Log, ReadError, Recovered,
    disk::{Disk, Fault, FaultyDisk, MemDisk, Operation},
    record, recover,
};
use understudy_types::Lsn;

/// A log with 1 + `count` records in two epochs, all durable.
fn filled(disk: &(impl Disk + Clone + 'static), count: u64) -> Recovered {
    let recovered = recover(disks(disk), small()).unwrap();
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 1);
    append(&mut appender, count / 2);
    open_epoch(&mut appender, 2);
    append(&mut appender, count - count / 2 - 1);
    recovered.log.sync_all().unwrap();
    recovered
}

fn cut(log: &Log, lsn: u64) -> CutReport {
    log.cut_above(Lsn(lsn), Some("trapped")).unwrap()
}

#[test]
fn a_cut_log_ends_at_the_fork_and_goes_on_from_there() {
    let disk = MemDisk::new();
    let recovered = filled(&disk, 300);
    let log = &recovered.log;
    let hash = log.hash_at(Lsn(100)).unwrap();
    let all = log.read_from(Lsn(101), usize::MAX).unwrap();
    let report = cut(log, 100);
    assert_eq!((report.records, report.exported.as_deref()), (201, Some("trapped")));
    assert_eq!((log.end(), log.durable_lsn()), (Lsn(100), Lsn(100)));
    assert_eq!(log.hash_at(Lsn(100)), Some(hash));
    assert_eq!(log.history().starts().len(), 1, "the epoch above the fork is forgotten");
    assert!(matches!(log.read_from(Lsn(102), 10), Err(ReadError::Ahead { .. })));

    let mut trapped = Vec::new();
    let export =
        Export::read(&disk, "trapped", &mut |r| trapped.extend_from_slice(r.encoded)).unwrap();
    assert_eq!((export.first_lsn, export.end), (Lsn(101), Lsn(301)));
    assert_eq!(export.hash_before, hash);
    assert!(trapped.starts_with(&all));
    assert_eq!(record::records(&trapped).count(), 201);
    assert_eq!((export.bytes, trapped.len() as u64), (report.bytes, report.bytes));
    disk.invert_bits("trapped", 500, 1);
    assert!(matches!(Export::open(&disk, "trapped"), Err(ExportError::Damaged { .. })));

    let mut appender = log.appender();
    open_epoch(&mut appender, 3);
    append(&mut appender, 150);
    log.sync_all().unwrap();
    let hash = appender.hash();
    drop((appender, recovered));
    let again = open(&disk).unwrap();
    assert_eq!((again.end.lsn, again.hash), (Lsn(251), hash));
    assert_eq!(check(&again.log, Lsn(1), 2000), 251);
}

#[test]
fn nothing_is_cut_while_somebody_may_append() {
    let recovered = filled(&MemDisk::new(), 20);
    let appender = recovered.log.appender();
    let refused = recovered.log.cut_above(Lsn(5), None).unwrap_err();
    assert!(matches!(refused, CutError::AppenderInUse));
    drop(appender);
    assert_eq!(recovered.log.cut_above(Lsn(5), None).unwrap().exported, None);
    assert_eq!(recovered.log.end(), Lsn(5));
    assert!(matches!(
        recovered.log.cut_above(Lsn(6), None),
        Err(CutError::OutOfRange { end: Lsn(5), .. })
    ));
    assert_eq!(recovered.log.cut_above(Lsn(5), Some("x")).unwrap(), CutReport::default());
}

#[test]
fn a_cut_to_nothing_leaves_an_empty_log() {
    let disk = MemDisk::new();
    let recovered = filled(&disk, 100);
    cut(&recovered.log, 0);
    assert_eq!(recovered.log.end(), Lsn::ZERO);
    drop(recovered);
    assert_eq!(open(&disk).unwrap().end.lsn, Lsn::ZERO);
}

#[test]
fn a_checkpoint_above_the_fork_goes_only_when_recovery_can_do_without() {
    let disk = MemDisk::new();
    let data: Arc<dyn Disk> = Arc::new(disk.clone());
    let recovered = filled(&disk, 300);
    checkpoint(&data, &recovered.log, Lsn(120));
    checkpoint(&data, &recovered.log, Lsn(250));
    recovered.log.reclaim_below(Lsn(120)).unwrap();
    let first = recovered.log.first_lsn();
    assert!(first > Lsn(1));
    assert!(matches!(
        recovered.log.cut_above(Lsn(110), Some("a")),
        Err(CutError::CheckpointAbove { .. })
    ));
    assert_eq!(recovered.log.end(), Lsn(301), "a refused cut changes nothing");
    assert_eq!(cut(&recovered.log, 200).checkpoints_removed, [Lsn(250)]);
    drop(recovered);
    let again = open(&disk).unwrap();
    assert_eq!(again.report.checkpoint_lsn, Some(Lsn(120)));
    assert_eq!(again.end.lsn, Lsn(200));
}

#[test]
fn an_export_that_fails_leaves_the_log_as_it_was() {
    for (operation, fault) in [
        (Operation::Create, Fault::NoSpace),
        (Operation::Write, Fault::NoSpace),
        (Operation::Write, Fault::TornWrite(100)),
        (Operation::Write, Fault::BitFlip(700)),
        (Operation::Sync, Fault::IoError),
    ] {
        let disk = FaultyDisk::new();
        let recovered = filled(&disk, 100);
        disk.arm(operation, "export", u32::from(fault == Fault::BitFlip(700)), fault);
        let refused = recovered.log.cut_above(Lsn(50), Some("trapped"));
        assert!(refused.is_err(), "{operation:?} {fault:?}");
        assert_eq!(disk.struck(), 1, "{operation:?} {fault:?}");
        assert_eq!(check(&recovered.log, Lsn(1), 500), 101);
        // The next attempt begins anew.
        assert_eq!(cut(&recovered.log, 50).records, 51);
    }
}

#[test]
fn an_export_stands_for_its_own_records_only() {
    let disk = MemDisk::new();
    let recovered = filled(&disk, 100);
    cut(&recovered.log, 50);
    let mut appender = recovered.log.appender();
    open_epoch(&mut appender, 7);
    append(&mut appender, 50);
    drop(appender);
    let refused = recovered.log.cut_above(Lsn(50), Some("trapped")).unwrap_err();
    assert!(matches!(refused, CutError::Disk { operation: "create", .. }), "{refused:?}");
    assert_eq!(recovered.log.end(), Lsn(101));
}

#[test]
fn what_was_cut_is_not_missed_afterwards() {
    let disk = MemDisk::new();
    drop(filled(&disk, 200));
    // The closed log has left evidence that its records up to 201 were durable.
    let recovered = open(&disk).unwrap();
    cut(&recovered.log, 100);
    for arrived in [false, true] {
        let after = disk.crash(&mut || arrived);
        assert_eq!(open(&after).unwrap().end.lsn, Lsn(100));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_power_cut_during_a_cut_leaves_a_log_that_can_be_cut_again(
        lsn in 0u64..200,
        fails in 0u32..14,
        kind in 0usize..4,
        arrivals in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        let disk = FaultyDisk::new();
        let recovered = filled(&disk, 200);
        let hash = recovered.log.hash_at(Lsn(lsn)).unwrap();
        let kinds =
            [Operation::Remove, Operation::SyncDirectory, Operation::Sync, Operation::Rename];
        disk.arm(kinds[kind], "", fails, Fault::IoError);
        // Whether the fault strikes or not, the power goes now.
        let _ = recovered.log.cut_above(Lsn(lsn), Some("trapped"));
        let mut arrivals = arrivals.into_iter().cycle();
        let after = disk.mem().crash(&mut || arrivals.next().unwrap_or(false));
        // The marker of the failure says "duplicate"; here the directory itself is looked at.
        if after.open("poisoned").is_ok() {
            after.remove("poisoned").unwrap();
        }
        let again = open(&after).unwrap();
        prop_assert!(again.end.lsn >= Lsn(lsn), "{:?}", again.end);
        prop_assert_eq!(again.log.hash_at(Lsn(lsn)), Some(hash));
        again.log.cut_above(Lsn(lsn), Some("trapped-again")).unwrap();
        prop_assert_eq!(again.log.end(), Lsn(lsn));
        prop_assert_eq!(check(&again.log, Lsn(1), 4000), lsn);
    }
}
