//! Checkpoints: consistent at their LSN while writers run, and refused when damaged.

use crate::database::{Database, LIMITS, checkpoint_of};
use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};
use understudy_store::{
    CheckpointError, ColumnDef, DataType, IndexDef, Isolation, Load, MemoryLimits, Row, Store,
    TableDef, Value, View, WriteError,
};
use understudy_types::Lsn;

fn load(lsn: Lsn, bytes: &[u8]) -> Result<Store, CheckpointError> {
    Store::load_checkpoint(LIMITS, lsn, &mut &*bytes)
}

#[test]
fn a_checkpoint_gives_the_store_back() {
    let db = Database::filled(1000);
    db.run(|txn| {
        db.remove(txn, 10).unwrap();
        db.set(txn, 11, 0).unwrap();
    });
    let at = db.store.visible();
    let mut bytes = Vec::new();
    let report = db.store.write_checkpoint(at, &mut bytes).unwrap();
    assert_eq!((report.rows, report.bytes), (999, bytes.len() as u64));
    let loaded = load(at, &bytes).unwrap();
    assert_eq!((loaded.visible(), loaded.committed()), (at, at));
    assert_eq!(loaded.catalog(), db.store.catalog());
    assert_eq!(loaded.content_hash(db.table, at), db.store.content_hash(db.table, at));
    assert_eq!(loaded.running_hash(db.table), db.store.running_hash(db.table));
    let reader = loaded.begin(Isolation::ReadCommitted);
    let found = loaded.lookup_one(&reader, View::Committed, db.by_k, &[Value::Int(11)]).unwrap();
    assert_eq!(found.1.int(1), Some(0));
    // Row ids go on above those that were ever given.
    let mut txn = loaded.begin(Isolation::ReadCommitted);
    let id = loaded.insert(&mut txn, db.table, crate::database::row(5000, 0)).unwrap();
    assert_eq!(id.0, 1001);
}

#[test]
fn many_threads_put_blocks_in_as_they_come() {
    let db = Database::new();
    let rows = 40_000;
    // Neighbours in a page are in two blocks here and there.
    for from in (0..rows).step_by(1_000) {
        db.run(|txn| {
            for k in from..from + 1_000 {
                db.insert(txn, k, -k).unwrap();
            }
        });
    }
    let at = db.store.visible();
    let bytes = checkpoint_of(&db.store, at);
    let alone = load(at, &bytes).unwrap();
    for _ in 0..10 {
        let mut input = &*bytes;
        let mut loading = Load::begin(LIMITS, at, &mut input).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = loading.next_block().unwrap() {
            blocks.push(block);
        }
        assert!(blocks.len() > 3, "{} blocks", blocks.len());
        let start = Barrier::new(blocks.len());
        thread::scope(|scope| {
            for block in blocks {
                scope.spawn(|| {
                    start.wait();
                    block.put().unwrap();
                });
            }
        });
        let loaded = loading.finish().unwrap();
        assert_eq!(loaded.running_hash(db.table), db.store.running_hash(db.table));
        assert_eq!(loaded.content_hash(db.table, at), db.store.content_hash(db.table, at));
        assert_eq!(loaded.memory(), alone.memory());
        let reader = loaded.begin(Isolation::ReadCommitted);
        for k in (0..rows).step_by(97) {
            let by = |index, value| loaded.lookup(&reader, View::Committed, index, &[value]).len();
            assert_eq!((by(db.by_k, Value::Int(k)), by(db.by_v, Value::Int(-k))), (1, 1));
        }
    }
}

#[test]
fn a_load_without_one_of_its_blocks_is_refused() {
    let db = Database::filled(10);
    let at = db.store.visible();
    let bytes = checkpoint_of(&db.store, at);
    let begun = |input: &mut &[u8]| -> Result<Store, CheckpointError> {
        let mut loading = Load::begin(LIMITS, at, input).unwrap();
        assert!(loading.next_block().unwrap().is_some());
        assert!(loading.next_block().unwrap().is_none());
        loading.finish()
    };
    let refused = begun(&mut &*bytes).unwrap_err().to_string();
    assert!(refused.contains("the rows of table 1 are not those written"), "{refused}");
    let mut input = &*bytes;
    let unread = Load::begin(LIMITS, at, &mut input).unwrap().finish().unwrap_err();
    assert!(unread.to_string().contains("not read to its end"), "{unread}");
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let db = Database::filled(10);
    let at = db.store.visible();
    let bytes = checkpoint_of(&db.store, at);
    assert!(matches!(load(at.next(), &bytes), Err(CheckpointError::Malformed { .. })));
    for cut in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        assert!(load(at, &bytes[..cut]).is_err(), "cut at {cut}");
    }
    for bit in (0..bytes.len() * 8).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(load(at, &damaged).is_err(), "bit {bit}");
    }
}

/// A checkpoint of one table `t (c text)` with the rows `aaaa` and `bbbb`, with an index on it or without,
/// and where the bytes of `bbbb` stand.
fn two_texts(unique: bool) -> (Lsn, Vec<u8>, usize) {
    let store = Store::new(LIMITS);
    let mut txn = store.begin(Isolation::ReadCommitted);
    let mut def = TableDef::new("t", vec![ColumnDef::new("c", DataType::Text)]);
    if unique {
        def = def.with_primary_key(&[0]);
    }
    let table = store.create_table(&mut txn, def).unwrap();
    for text in ["aaaa", "bbbb"] {
        store.insert(&mut txn, table, Row::encode(&[Value::text(text)])).unwrap();
    }
    store.commit(txn, Lsn(1));
    store.set_visible(Lsn(1));
    let bytes = checkpoint_of(&store, Lsn(1));
    let at = bytes.windows(4).position(|text| text == b"bbbb").unwrap();
    (Lsn(1), bytes, at)
}

fn reason(at: Lsn, bytes: &[u8]) -> String {
    match load(at, bytes) {
        Err(CheckpointError::Malformed { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn two_rows_of_one_key_are_refused_by_name() {
    let (lsn, mut bytes, at) = two_texts(true);
    bytes[at..at + 4].copy_from_slice(b"aaaa");
    assert_eq!(reason(lsn, &bytes), "row 2 of table 1 has the key of another row");
}

#[test]
fn a_row_that_is_there_twice_is_refused_by_name() {
    let (lsn, mut bytes, at) = two_texts(false);
    // Behind the row's id: its length, and the five bytes before its only column.
    let id = at - 7;
    assert_eq!(bytes[id..at], [2, 9, 1, 0, 0, 4, 0]);
    bytes[id] = 1;
    assert_eq!(reason(lsn, &bytes), "row 1 of table 1 is there twice");
}

#[test]
fn row_numbers_that_leave_no_room_above_them_are_refused() {
    let (lsn, bytes, at) = two_texts(true);
    // The id of the second row as the greatest number there is, and the block as much longer.
    let (block, first) = (at - 7 - 11, at - 7);
    let length = u32::from_le_bytes(bytes[block - 4..block].try_into().unwrap());
    assert_eq!(length, 22);
    let mut great = bytes.clone();
    great.splice(first..=first, [[0xff; 9].as_slice(), &[1]].concat());
    great[block - 4..block].copy_from_slice(&(length + 9).to_le_bytes());
    assert_eq!(reason(lsn, &great), format!("row number {} is beyond belief", u64::MAX));
    let next = block - 4 - 8;
    assert_eq!(bytes[next..next + 8], 3u64.to_le_bytes());
    let mut great = bytes;
    great[next..next + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let expected = format!("the next row number {} of table 1 is beyond belief", u64::MAX);
    assert_eq!(reason(lsn, &great), expected);
}

/// Counts the bytes that are taken from it.
struct Source<'a>(&'a [u8], usize);

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(into)?;
        self.1 += count;
        Ok(count)
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_before_they_are_made() {
    let store = Store::new(LIMITS);
    let mut txn = store.begin(Isolation::ReadCommitted);
    let def = TableDef::new("t", vec![ColumnDef::new("c", DataType::Text)]);
    let table = store.create_table(&mut txn, def).unwrap();
    let long = Value::text("x".repeat(3 << 20));
    store.insert(&mut txn, table, Row::encode(&[long])).unwrap();
    store.commit(txn, Lsn(1));
    store.set_visible(Lsn(1));
    let bytes = checkpoint_of(&store, Lsn(1));
    // Less than the row, and as much as the row but not its page.
    let used = store.memory().permanent_used;
    for (limit, taken) in [(1 << 20, 1_000), ((used - 500) * 8 / 9, bytes.len())] {
        let limits = MemoryLimits { permanent_bytes: limit, ..LIMITS };
        let mut source = Source(&bytes, 0);
        let refused = Store::load_checkpoint(limits, Lsn(1), &mut source);
        let Err(CheckpointError::Memory { source: error, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(error, WriteError::OutOfMemory { .. }), "{error}");
        assert!(source.1 <= taken, "{} bytes were taken", source.1);
    }
    let limits = MemoryLimits { permanent_bytes: used * 8 / 9 + 9, ..LIMITS };
    let loaded = Store::load_checkpoint(limits, Lsn(1), &mut &*bytes).unwrap();
    assert_eq!(loaded.memory().permanent_used, used);
}

#[test]
fn a_position_that_is_not_kept_or_not_visible_is_refused() {
    let db = Database::filled(1);
    let early = db.store.visible();
    db.run(|txn| db.set(txn, 1, 1).unwrap());
    assert!(db.store.write_checkpoint(early, &mut Vec::new()).is_ok());
    db.store.reclaim(usize::MAX);
    let refused = db.store.write_checkpoint(early, &mut Vec::new());
    assert!(matches!(refused, Err(CheckpointError::Position { .. })));
    assert_eq!(db.store.content_hash(db.table, early), None);
    let mut pending = db.begin();
    db.set(&mut pending, 1, 2).unwrap();
    let lsn = db.commit(pending).unwrap();
    assert!(db.store.write_checkpoint(lsn, &mut Vec::new()).is_err());
}

/// Lets the writers make progress between blocks.
struct Slow<'a>(&'a mut Vec<u8>, &'a Database);

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.1.store.committed();
        while self.1.store.committed() < Lsn(before.0 + 5) {
            thread::yield_now();
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Its rows are from before the column, so they say nothing of how long its keys are.
#[test]
fn an_index_on_a_column_with_a_long_fill_is_loaded() {
    let db = Database::filled(10);
    let fill = Value::text("a note that is longer than the rows ".repeat(20));
    let note = ColumnDef::new("filled", DataType::Text).filled_with(&fill);
    db.run(|txn| {
        let mut def = (**db.store.catalog().table_by_id(db.table).unwrap()).clone();
        def.columns.push(note.clone());
        db.store.alter_table(txn, def).unwrap();
        db.store.add_index(txn, db.table, IndexDef::new("by_fill", &[3])).unwrap();
    });
    let at = db.store.visible();
    let bytes = checkpoint_of(&db.store, at);
    let loaded = load(at, &bytes).unwrap();
    assert_eq!(loaded.content_hash(db.table, at), db.store.content_hash(db.table, at));
    assert_eq!(loaded.memory().permanent_used, db.store.memory().permanent_used);
}

#[test]
fn a_checkpoint_beside_writers_holds_exactly_its_lsn() {
    let db = Arc::new(Database::filled(100));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
        thread::spawn(move || {
            let mut round = 0i64;
            while !stop.load(SeqCst) {
                round += 1;
                // The total stays 505,000: one row gives to another, one comes and one goes.
                db.run(|txn| {
                    let (from, to) = (round % 99 + 1, round % 99 + 2);
                    let (a, b) = (db.value(txn, from).unwrap(), db.value(txn, to).unwrap());
                    db.set(txn, from, a - 7).unwrap();
                    db.set(txn, to, b + 7).unwrap();
                    db.insert(txn, 1000 + round, 0).unwrap();
                    if round > 5 {
                        db.remove(txn, 1000 + round - 5).unwrap();
                    }
                });
                db.store.reclaim(64);
            }
        })
    };
    let mut taken = 0;
    while taken < 5 {
        let at = db.store.visible();
        let mut bytes = Vec::new();
        match db.store.write_checkpoint(at, &mut Slow(&mut bytes, &db)) {
            Err(CheckpointError::Position { .. }) => continue,
            Err(other) => panic!("{other}"),
            Ok(_) => taken += 1,
        }
        let loaded = load(at, &bytes).unwrap();
        let reader = loaded.begin(Isolation::RepeatableRead);
        let total: i64 =
            loaded.scan(&reader, View::Committed, db.table).map(|(_, r)| r.int(1).unwrap()).sum();
        assert_eq!(total, 505_000);
        // The log above it leads to the same content as the writer's.
        let log = db.log.lock();
        for (lsn, payload) in log.iter().filter(|(lsn, _)| *lsn > at) {
            loaded.apply(*lsn, payload).unwrap();
        }
        let end = Lsn(log.len() as u64);
        assert_eq!(loaded.content_hash(db.table, end), db.store.content_hash(db.table, end));
    }
    stop.store(true, SeqCst);
    writer.join().unwrap();
}
