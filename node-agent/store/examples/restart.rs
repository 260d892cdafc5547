//! What a start after a crash costs the store: loading a checkpoint, and applying the records after it.
//! `cargo run -p understudy-store --example restart [rows] [updates]`, by default a million of each.
//! Prints nanoseconds per row and per record; under callgrind, look at `load_checkpoint` and `replay`.

use std::time::Instant;
use understudy_store::{
    ColumnDef, DataType, Isolation, MemoryLimits, Row, Store, TableDef, Tail, Value, View,
};
use understudy_types::Lsn;

const LIMITS: MemoryLimits = MemoryLimits { permanent_bytes: 8 << 30, temporary_bytes: 1 << 30 };

/// How often each is measured.
const ROUNDS: u32 = 5;
/// Records applied at once.
const BATCH: usize = 16_384;

/// A record and its LSN.
type Record = (Lsn, Vec<u8>);

fn argument(at: usize) -> u64 {
    std::env::args().nth(at).and_then(|number| number.parse().ok()).unwrap_or(1_000_000)
}

fn main() {
    let (rows, updates) = (argument(1), argument(2));
    let (checkpoint, at, records) = made(rows, updates);
    let payloads: Vec<_> = records.iter().map(|(lsn, record)| (*lsn, &record[..])).collect();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut input = &checkpoint[..];
        let mut store = Store::load_checkpoint(LIMITS, at, &mut input).expect("just written");
        let (elapsed, bytes) = (start.elapsed().as_nanos() as u64, checkpoint.len() as u64);
        println!("load: {} ns a row, {} MB/s", elapsed / rows, bytes * 1000 / elapsed);
        let start = Instant::now();
        for batch in payloads.chunks(BATCH) {
            store.replay(batch, Tail::Stands).expect("just made");
        }
        println!("replay: {} ns a record", start.elapsed().as_nanos() as u64 / updates.max(1));
    }
}

/// A checkpoint of pgbench's accounts, its LSN, and records of updates of them.
fn made(rows: u64, updates: u64) -> (Vec<u8>, Lsn, Vec<Record>) {
    let store = Store::new(LIMITS);
    let columns = ["aid", "bid", "abalance"].map(|name| ColumnDef::new(name, DataType::Int4));
    let filler = ColumnDef::new("filler", DataType::Char(84));
    let columns = columns.into_iter().chain([filler]).collect();
    let mut lsn = Lsn(1);
    let mut txn = store.begin(Isolation::ReadCommitted);
    let def = TableDef::new("accounts", columns).with_primary_key(&[0]);
    let table = store.create_table(&mut txn, def).expect("an empty store takes a table");
    let key = txn.catalog().table_by_id(table).expect("just made").indexes[0].id;
    for aid in 1..=rows as i64 {
        let row = [Value::Int(aid), Value::Int(1), Value::Int(0), Value::text("")];
        store.insert(&mut txn, table, Row::encode(&row)).expect("memory for all rows");
    }
    store.commit(txn, lsn);
    store.set_visible(lsn);
    let mut checkpoint = Vec::new();
    store.write_checkpoint(lsn, &mut checkpoint).expect("memory takes all bytes");
    let (at, mut records) = (lsn, Vec::new());
    let def = store.catalog().table_by_id(table).expect("just made").clone();
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    for balance in 1..=updates as i64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let aid = (random % rows) as i64 + 1;
        let mut txn = store.begin(Isolation::ReadCommitted);
        let found = store.lookup_one(&txn, View::ForUpdate, key, &[Value::Int(aid)]);
        let (id, old) = found.expect("all keys exist");
        let new = old.replace(&def, &[(2, Value::Int(balance))]);
        store.update(&mut txn, table, id, new).expect("nobody else is here");
        let record = store.redo(&txn);
        lsn = lsn.next();
        store.commit(txn, lsn);
        store.set_visible(lsn);
        records.push((lsn, record));
    }
    (checkpoint, at, records)
}
