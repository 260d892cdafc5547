//! Volumes on a real file system: locks, crashes between steps, and what becomes of replaced stores.

use super::*;
use understudy_agent_api::Scheme;
use understudy_txlog::{
    CheckpointMeta, Export, Log, LogOptions, RecordKind, Recovered, recover, write_checkpoint,
};
use understudy_types::{Dbid, Epoch, EpochBegin, EpochId, EpochStart, Lsn, RunningHash, Span};

fn id(n: u128) -> StoreId {
    StoreId(Uuid::from_u128(n))
}

fn member() -> MemberName {
    MemberName::new("orders-2").unwrap()
}

fn epoch(number: u64) -> EpochId {
    EpochId { number: Epoch(number), author: Uuid::from_u128(u128::from(number)) }
}

const DBID: Dbid = Dbid(Uuid::from_u128(99));

/// Two volumes.
struct Volumes(tempfile::TempDir);

impl Volumes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn lock(&self) -> DataDir {
        DataDir::lock(&self.data(), &self.log(), member()).unwrap()
    }
}

fn present(directory: &DataDir) -> StoreDir {
    match directory.open().unwrap() {
        Contents::Present(store) => store,
        Contents::Empty => panic!("the volumes are empty"),
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 * 1024, ..LogOptions::default() }
}

fn running(store: &StoreDir) -> Recovered {
    recover(store.disks(), options()).unwrap()
}

/// Opens an epoch and appends `count` transactions.
fn write(log: &Log, number: u64, count: usize) {
    let mut appender = log.appender();
    let begin = EpochBegin {
        epoch: epoch(number),
        author: Incarnation { start: 1, id: epoch(number).author },
        previous: log.position(),
        hash: appender.hash(),
        lossy: false,
    };
    appender.begin_epoch(&begin).unwrap();
    for at in 0..count {
        appender.append(Epoch(number), RecordKind::Transaction, &[at as u8; 40]);
    }
    log.sync_all().unwrap();
}

/// A checkpoint of nothing at the end of `log`, as a duplicate would have brought it.
fn checkpoint(disks: &Disks, of: &Log, at: Lsn) {
    let mut history = of.history();
    history.cut_above(at);
    let meta = CheckpointMeta { lsn: at, history, hash: of.hash_at(at).unwrap(), dbid: DBID };
    write_checkpoint(&disks.data, meta, &mut |out| out.write_all(b"rows")).unwrap();
}

#[test]
fn empty_volumes_get_one_store_that_every_start_counts() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    assert!(matches!(directory.open().unwrap(), Contents::Empty));
    let store = directory.create(id(1)).unwrap();
    assert_eq!(store.start(Uuid::from_u128(7)).unwrap().start, 1);
    drop(store);
    let store = present(&directory);
    assert_eq!((store.id, store.control.get().starts), (id(1), 1));
    assert_eq!(store.start(Uuid::from_u128(8)).unwrap().start, 2);
    assert!(matches!(directory.create(id(2)), Err(DataDirError::NotEmpty { .. })));
}

#[test]
fn what_was_persisted_is_there_after_a_restart() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let mut state = store.control.get();
    state.raise_promise(epoch(4));
    state.lease_longest = Span::seconds(9);
    store.control.persist(&state).unwrap();
    assert_eq!(store.control.get(), state);
    drop((store, directory));
    assert_eq!(present(&volumes.lock()).control.get(), state);
}

#[test]
fn a_second_process_is_refused_by_name() {
    let volumes = Volumes::new();
    let first = volumes.lock();
    // A second open of the file is a second owner of the lock, as another process would be.
    let error = DataDir::lock(&volumes.data(), &volumes.log(), member()).unwrap_err();
    assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("/data/lock"), "{error}");
    // The log volume alone is enough to refuse.
    let elsewhere = volumes.0.path().join("other");
    let error = DataDir::lock(&elsewhere, &volumes.log(), member()).unwrap_err();
    assert!(error.to_string().contains("/log/lock"), "{error}");
    drop(first);
    volumes.lock();
}

#[test]
fn another_process_is_refused() {
    let volumes = Volumes::new();
    let _held = volumes.lock();
    let lock = volumes.data().join(LOCK);
    let status = std::process::Command::new("flock")
        .args(["--nonblock", "--conflict-exit-code", "75"])
        .arg(&lock)
        .arg("true")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(75));
}

#[test]
fn one_directory_serves_as_both_volumes() {
    let volumes = Volumes::new();
    let directory = DataDir::lock(&volumes.data(), &volumes.data(), member()).unwrap();
    let store = directory.create(id(1)).unwrap();
    write(&running(&store).log, 1, 3);
    drop(store);
    assert_eq!(running(&present(&directory)).end.lsn, Lsn(4));
}

#[test]
fn anothers_volume_and_a_missing_pointer_are_refused_with_the_way_out() {
    let volumes = Volumes::new();
    drop(volumes.lock().create(id(1)).unwrap());
    let other = MemberName::new("orders-9").unwrap();
    let directory = DataDir::lock(&volumes.data(), &volumes.log(), other).unwrap();
    let error = directory.open().unwrap_err();
    assert!(error.to_string().contains("belongs to member orders-2"), "{error}");
    drop(directory);
    std::fs::remove_file(volumes.data().join("CURRENT")).unwrap();
    let error = volumes.lock().open().unwrap_err();
    assert!(error.to_string().contains(&store_name(id(1))), "{error}");
    // What the message says helps.
    std::fs::write(volumes.data().join("CURRENT"), id(1).to_string()).unwrap();
    assert_eq!(present(&volumes.lock()).id, id(1));
    std::fs::write(volumes.data().join("CURRENT"), "what").unwrap();
    assert!(matches!(volumes.lock().open(), Err(DataDirError::Current { .. })));
}

#[test]
fn a_damaged_control_file_is_refused_and_nothing_is_removed() {
    let volumes = Volumes::new();
    drop(volumes.lock().create(id(1)).unwrap());
    let control = volumes.data().join(store_name(id(1))).join("control");
    std::fs::write(&control, vec![0xaa; 16384]).unwrap();
    let error = volumes.lock().open().unwrap_err();
    assert!(matches!(error, DataDirError::Control { .. }), "{error}");
    assert!(control.exists());
    std::fs::remove_file(&control).unwrap();
    let error = volumes.lock().open().unwrap_err();
    assert!(matches!(error, DataDirError::StoreMissing { .. }), "{error}");
}

#[test]
fn a_lost_log_volume_poisons_the_store_but_keeps_its_promise() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let mut state = store.control.get();
    state.dbid = Some(DBID);
    state.raise_promise(epoch(6));
    store.control.persist(&state).unwrap();
    drop((store, directory));
    std::fs::remove_dir_all(volumes.log()).unwrap();
    for _ in 0..2 {
        let state = present(&volumes.lock()).control.get();
        assert!(state.poisoned);
        assert_eq!(state.promised, epoch(6));
    }
}

/// A store with 11 records of epoch 1, of which a duplicate is taken at record 8.
fn with_duplicate(volumes: &Volumes) -> (DataDir, StoreDir, NewStore) {
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let mut state = store.control.get();
    state.dbid = Some(DBID);
    state.raise_promise(epoch(3));
    state.starts = 5;
    store.control.persist(&state).unwrap();
    let old = running(&store);
    write(&old.log, 1, 10);
    let new = directory.prepare(id(2)).unwrap();
    checkpoint(&new.disks(), &old.log, Lsn(8));
    (directory, store, new)
}

const ADOPTION: Adoption =
    Adoption { dbid: DBID, epoch: EpochId { number: Epoch(2), author: Uuid::from_u128(2) } };

#[test]
fn after_a_crash_between_any_two_steps_one_whole_store_is_in_use() {
    for steps in 0..=4 {
        let volumes = Volumes::new();
        let (directory, store, new) = with_duplicate(&volumes);
        new.adopt_partly(&store.control.get(), ADOPTION, steps);
        drop((new, store, directory));
        let directory = volumes.lock();
        let store = present(&directory);
        let recovered = running(&store);
        let state = store.control.get();
        assert_eq!((state.promised, state.starts, state.dbid), (epoch(3), 5, Some(DBID)));
        if steps < 3 {
            assert_eq!((store.id, recovered.end.lsn), (id(1), Lsn(11)), "after {steps} steps");
            assert!(store.replaces.is_empty());
            drop((recovered, store));
            // The half-built one is gone on with, whatever fresh identity is offered.
            let again = directory.prepare(id(3)).unwrap();
            assert_eq!(again.id(), id(2));
            drop(again);
            directory.discard_unfinished().unwrap();
            assert!(!volumes.data().join(store_name(id(2))).exists());
            assert!(!volumes.log().join(store_name(id(2))).exists());
            assert_eq!(present(&directory).id, id(1));
        } else {
            assert_eq!((store.id, recovered.end.lsn), (id(2), Lsn(8)), "after {steps} steps");
            assert_eq!(store.replaces, [id(1)]);
            // The old one is whole until it is retired.
            directory.discard_unfinished().unwrap();
            assert!(volumes.log().join(store_name(id(1))).is_dir());
        }
    }
}

#[test]
fn a_promise_made_while_and_after_the_store_changes_is_kept() {
    let volumes = Volumes::new();
    let (directory, store, new) = with_duplicate(&volumes);
    let mut state = store.control.get();
    state.raise_promise(epoch(7));
    store.control.persist(&state).unwrap();
    let adopted = new.adopt(&store.control, ADOPTION).unwrap();
    assert_eq!((adopted.promised, adopted.store), (epoch(7), id(2)));
    // The old process goes on for a moment and still speaks of its old store.
    state.raise_promise(epoch(8));
    state.poisoned = true;
    store.control.persist(&state).unwrap();
    drop((store, directory));
    let store = present(&volumes.lock());
    let state = store.control.get();
    assert_eq!((store.id, state.store, state.promised), (id(2), id(2), epoch(8)));
    assert!(!state.poisoned);
}

#[test]
fn the_feeders_epoch_is_promised_when_it_is_higher() {
    let volumes = Volumes::new();
    let (_directory, store, new) = with_duplicate(&volumes);
    let higher = Adoption { dbid: DBID, epoch: epoch(12) };
    assert_eq!(new.adopt(&store.control, higher).unwrap().promised, epoch(12));
}

#[test]
fn a_replaced_store_is_retired_and_its_tail_is_kept() {
    let volumes = Volumes::new();
    let (directory, store, new) = with_duplicate(&volumes);
    new.adopt(&store.control, ADOPTION).unwrap();
    drop(store);
    let store = present(&directory);
    let new = running(&store);
    // The new active forked at record 8: records 9 to 11 of the old store are nowhere else.
    write(&new.log, 2, 2);
    let expected = Trapped {
        file: format!("trapped/{}_{}", id(1), trapped_name(Epoch(1), Lsn(8), 3)),
        epoch: Epoch(1),
        above_lsn: Lsn(8),
        records: 3,
    };
    let retired = directory.retire(id(1), &new.log).unwrap();
    assert_eq!(retired, Retired::Tail(expected.clone()));
    assert_eq!(directory.trapped().unwrap(), std::slice::from_ref(&expected));
    let disk = FsDisk::open(volumes.data().join(TRAPPED)).unwrap();
    let name = expected.file.strip_prefix("trapped/").unwrap();
    let export = Export::open(&disk, name).unwrap();
    assert_eq!((export.first_lsn, export.end), (Lsn(9), Lsn(11)));
    assert!(!volumes.data().join(store_name(id(1))).exists());
    assert!(!volumes.log().join(store_name(id(1))).exists());
    drop((store, new));
    assert!(present(&directory).replaces.is_empty());
}

#[test]
fn a_store_whose_records_are_all_elsewhere_leaves_nothing() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let old = running(&store);
    write(&old.log, 1, 10);
    let new = directory.prepare(id(2)).unwrap();
    checkpoint(&new.disks(), &old.log, Lsn(11));
    new.adopt(&store.control, ADOPTION).unwrap();
    drop((store, old));
    let store = present(&directory);
    let log = running(&store).log;
    assert_eq!(directory.retire(id(1), &log).unwrap(), Retired::Nothing);
    // A crash after the removal and before CURRENT was written makes the call come again.
    assert_eq!(directory.retire(id(1), &log).unwrap(), Retired::Nothing);
    assert!(directory.trapped().unwrap().is_empty());
}

#[test]
fn a_log_that_cannot_be_read_is_kept_whole() {
    let volumes = Volumes::new();
    let (directory, store, new) = with_duplicate(&volumes);
    new.adopt(&store.control, ADOPTION).unwrap();
    drop(store);
    std::fs::write(volumes.log().join(store_name(id(1))).join("poisoned"), "EIO").unwrap();
    let store = present(&directory);
    let log = running(&store).log;
    let kept = volumes.log().join(TRAPPED).join(store_name(id(1)));
    match directory.retire(id(1), &log).unwrap() {
        Retired::WholeLog(path, _) => assert_eq!(path, kept),
        other => panic!("{other:?}"),
    }
    assert!(kept.is_dir());
    assert!(!volumes.log().join(store_name(id(1))).exists());
}

#[test]
fn a_log_that_differs_below_the_fork_is_kept_whole() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let old = running(&store);
    write(&old.log, 1, 10);
    let new = directory.prepare(id(2)).unwrap();
    let mut history = understudy_types::EpochHistory::default();
    history.push(EpochStart { epoch: epoch(1), first_lsn: Lsn(1) }).unwrap();
    let hash = RunningHash(4711);
    let meta = CheckpointMeta { lsn: Lsn(11), history, hash, dbid: DBID };
    write_checkpoint(&new.disks().data, meta, &mut |out| out.write_all(b"rows")).unwrap();
    new.adopt(&store.control, ADOPTION).unwrap();
    drop((store, old));
    let log = running(&present(&directory)).log;
    let retired = directory.retire(id(1), &log).unwrap();
    assert!(matches!(retired, Retired::WholeLog(..)), "{retired:?}");
}

#[test]
fn an_exported_tail_of_the_store_in_use_is_brought_to_safety_at_the_next_open() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    let store = directory.create(id(1)).unwrap();
    let old = running(&store);
    write(&old.log, 1, 10);
    let name = trapped_name(Epoch(1), Lsn(9), 2);
    old.log.cut_above(Lsn(9), Some(&name)).unwrap();
    drop((store, old));
    let store = present(&directory);
    assert_eq!(running(&store).end.lsn, Lsn(9));
    let trapped = directory.trapped().unwrap();
    assert_eq!((trapped[0].above_lsn, trapped[0].records), (Lsn(9), 2));
}

#[test]
fn a_crash_while_the_first_store_is_made_leaves_empty_volumes() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    drop(directory.prepare(id(1)).unwrap());
    assert!(matches!(directory.open().unwrap(), Contents::Empty));
    directory.create(id(2)).unwrap();
    assert!(!volumes.data().join(store_name(id(1))).exists());
    assert_eq!(present(&directory).id, id(2));
}

#[test]
fn a_store_that_nothing_names_is_left_alone() {
    let volumes = Volumes::new();
    drop(volumes.lock().create(id(1)).unwrap());
    std::fs::remove_file(volumes.data().join("CURRENT")).unwrap();
    std::fs::write(volumes.data().join("CURRENT"), id(1).to_string()).unwrap();
    let stray = volumes.data().join(store_name(id(9)));
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("control"), "something").unwrap();
    let directory = volumes.lock();
    present(&directory);
    directory.discard_unfinished().unwrap();
    assert!(stray.join("control").exists());
}

#[test]
fn a_failure_of_the_disk_is_known_to_those_that_come_after_it() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    assert_eq!(directory.disk_failure(), None);
    let failure = |second, why: &str| DiskFailure {
        at: jiff::Timestamp::from_second(second).unwrap(),
        why: why.to_owned(),
    };
    directory.note_disk_failure(&failure(1, "fsync: no"));
    directory.note_disk_failure(&failure(2, "fsync: no\nnever"));
    drop(directory);
    assert_eq!(volumes.lock().disk_failure(), Some(failure(2, "fsync: no\nnever")));
    std::fs::write(volumes.data().join("disk-failed"), "of another version").unwrap();
    assert_eq!(volumes.lock().disk_failure(), None, "a note that cannot be read is none");
}

#[test]
fn the_scheme_that_was_said_last_is_known_to_the_next_process() {
    let volumes = Volumes::new();
    let directory = volumes.lock();
    assert_eq!(directory.kept_scheme(), None);
    let said = |version| Scheme { version, ..crate::config::tests::usual_scheme() };
    directory.keep_scheme(&said(7)).unwrap();
    directory.keep_scheme(&said(8)).unwrap();
    drop(directory);
    assert_eq!(volumes.lock().kept_scheme(), Some(said(8)));
    std::fs::write(volumes.data().join("scheme"), "{").unwrap();
    assert_eq!(volumes.lock().kept_scheme(), None, "what cannot be read is none");
}
