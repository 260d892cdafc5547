//! How long the store's small operations take in one process:
//! `cargo run -p understudy-store --example point_operations [rows]`, by default with a million rows.
//! Prints nanoseconds per operation, once on one thread and once on two: time on the processor (which
//! other load on the machine hardly changes), then elapsed time.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Instant,
};
use understudy_store::{
    ColumnDef, DataType, IndexId, Isolation, MemoryLimits, Row, Store, TableDef, TableId, Value,
    View,
};
use understudy_types::Lsn;

const ROUNDS: u64 = 1_000_000;

struct Bench {
    store: Store,
    table: TableId,
    key: IndexId,
    lsn: parking_lot::Mutex<u64>,
    rows: u64,
}

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let limits = MemoryLimits { permanent_bytes: 8 << 30, temporary_bytes: 1 << 30 };
    let store = Store::new(limits);
    let columns = vec![
        ColumnDef::new("aid", DataType::Int4),
        ColumnDef::new("bid", DataType::Int4),
        ColumnDef::new("abalance", DataType::Int4),
        ColumnDef::new("filler", DataType::Char(84)),
    ];
    let mut txn = store.begin(Isolation::ReadCommitted);
    let def = TableDef::new("accounts", columns).with_primary_key(&[0]);
    let table = store.create_table(&mut txn, def).expect("an empty store takes a table");
    let key = txn.catalog().table_by_id(table).expect("just made").indexes[0].id;
    store.commit(txn, Lsn(1));
    store.set_visible(Lsn(1));
    let bench = Bench { store, table, key, lsn: parking_lot::Mutex::new(1), rows };
    let start = Stopwatch::start();
    bench.load();
    report("insert in batches of 1000", start, rows);
    let used = bench.store.memory().permanent_used / rows;
    println!("bytes per row: {used} accounted, {} resident", resident() / rows);
    for threads in [1, 2] {
        println!("-- {threads} thread(s)");
        bench.run(threads, "begin and end", Bench::begin_and_end);
        bench.run(threads, "point read in one transaction", Bench::read_only);
        bench.run(threads, "point read, own transaction", Bench::read);
        bench.run(threads, "one-row update, own transaction, reclaimed", Bench::update);
    }
    let start = Stopwatch::start();
    let txn = bench.store.begin(Isolation::ReadCommitted);
    let scanned = bench.store.scan(&txn, View::Committed, table).count();
    report("scan a row", start, scanned as u64);
}

fn report(what: &str, start: Stopwatch, count: u64) {
    let (cpu, elapsed) = start.stop();
    println!("{what}: {} ns cpu, {} ns elapsed", cpu / count, elapsed / count);
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Measures this thread's time on the processor and the elapsed time.
struct Stopwatch {
    cpu: u64,
    start: Instant,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { cpu: Stopwatch::cpu(), start: Instant::now() }
    }

    fn stop(self) -> (u64, u64) {
        (Stopwatch::cpu() - self.cpu, self.start.elapsed().as_nanos() as u64)
    }

    /// Nanoseconds that this thread has run, as the scheduler counts them.
    fn cpu() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    }
}

fn account(aid: i64, balance: i64) -> Row {
    let filler = Value::text(" ".repeat(84));
    Row::encode(&[Value::Int(aid), Value::Int(1), Value::Int(balance), filler])
}

impl Bench {
    fn load(&self) {
        for batch in 0..self.rows as i64 / 1000 {
            let mut txn = self.store.begin(Isolation::ReadCommitted);
            for aid in batch * 1000..(batch + 1) * 1000 {
                let row = account(aid, 0);
                self.store.insert(&mut txn, self.table, row).expect("memory for all rows");
            }
            self.commit(txn);
        }
    }

    /// The commit section with an empty log.
    fn commit(&self, txn: understudy_store::Txn) {
        let payload = self.store.redo(&txn);
        let mut lsn = self.lsn.lock();
        *lsn += 1;
        std::hint::black_box(&payload);
        self.store.commit(txn, Lsn(*lsn));
        self.store.set_visible(Lsn(*lsn));
    }

    fn run(&self, threads: u64, what: &str, work: impl Fn(&Bench, u64) + Sync) {
        let (cpu, elapsed) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for i in 0..threads {
                let (work, cpu, elapsed) = (&work, &cpu, &elapsed);
                scope.spawn(move || {
                    let start = Stopwatch::start();
                    work(self, i + 1);
                    let (on_cpu, wall) = start.stop();
                    cpu.fetch_add(on_cpu, SeqCst);
                    elapsed.fetch_add(wall, SeqCst);
                });
            }
        });
        let each = |sum: AtomicU64| sum.load(SeqCst) / threads / ROUNDS;
        println!("{what}: {} ns cpu, {} ns elapsed", each(cpu), each(elapsed));
    }

    fn begin_and_end(&self, _: u64) {
        for _ in 0..ROUNDS {
            drop(self.store.begin(Isolation::ReadCommitted));
        }
    }

    fn read_only(&self, seed: u64) {
        let txn = self.store.begin(Isolation::ReadCommitted);
        for aid in self.keys(seed) {
            let found = self.store.lookup_one(&txn, View::Committed, self.key, &[Value::Int(aid)]);
            std::hint::black_box(found.expect("all keys exist"));
        }
    }

    fn read(&self, seed: u64) {
        for aid in self.keys(seed) {
            let txn = self.store.begin(Isolation::ReadCommitted);
            let found = self.store.lookup_one(&txn, View::Committed, self.key, &[Value::Int(aid)]);
            std::hint::black_box(found.expect("all keys exist"));
        }
    }

    fn update(&self, seed: u64) {
        let def = self.store.catalog().table_by_id(self.table).expect("it exists").clone();
        for (i, aid) in self.keys(seed).enumerate() {
            loop {
                let mut txn = self.store.begin(Isolation::ReadCommitted);
                let key = [Value::Int(aid)];
                let found = self.store.lookup_one(&txn, View::ForUpdate, self.key, &key);
                let (id, old) = found.expect("all keys exist");
                let new = old.replace(&def, &[(2, Value::Int(i as i64))]);
                if self.store.update(&mut txn, self.table, id, new).is_ok() {
                    self.commit(txn);
                    break;
                }
            }
            // As the agent does in the background, so that memory stands still.
            if i % 256 == 0 {
                self.store.reclaim(256);
            }
        }
    }

    fn keys(&self, seed: u64) -> impl Iterator<Item = i64> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let rows = self.rows;
        (0..ROUNDS).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % rows) as i64
        })
    }
}
