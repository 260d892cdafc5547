//! The engine in the caller's own process, beside SQLite there.
//!
//! What is measured is what a user in process calls: a prepared statement of the SQL crate with its
//! parameters, in a transaction of its own. An update's record goes to the log of a real directory, and
//! nobody waits for it. The store without SQL is told beside it.

use crate::{
    bare::Bare,
    machine,
    measure::{Bench, Side, Verdict, nanos_each},
};
use anyhow::{Context, ensure};
use rusqlite::Connection;
use std::{
    hint::black_box,
    path::Path,
    process,
    sync::Arc,
    time::{Duration, Instant},
};
use understudy_sql::{
    ExecContext, Prepared, RowSink, SessionInfo, SqlError, execute, execute_into, parse, prepare,
};
use understudy_store::{IndexId, Isolation, MemoryLimits, Store, Txn, Value, View};
use understudy_txlog::{Appender, Disks, Log, LogOptions, RecordKind, disk::FsDisk, recover};
use understudy_types::{Epoch, EpochBegin, EpochId, Incarnation, Lsn};

/// Rows of the table, as pgbench's at scale 10.
const ROWS: u64 = 1_000_000;
/// Rows that fit into the processor's caches.
const FEW_ROWS: u64 = 1_000;
/// Operations between two looks at the clock.
const BATCH: u32 = 1_000;
/// Updates between two calls of reclamation, which the agent makes in the background.
const RECLAIM_EVERY: u32 = 256;
const TABLE: &str = "CREATE TABLE accounts (aid INTEGER PRIMARY KEY, bid INTEGER, abalance INTEGER, filler CHAR(84))";
const READ: &str = "SELECT abalance FROM accounts WHERE aid = $1";
const UPDATE: &str = "UPDATE accounts SET abalance = abalance + 1 WHERE aid = $1";
/// TPC-B's other tables, as large as pgbench's at scale 10.
const BANK: [&str; 5] = [
    "CREATE TABLE tellers (tid INTEGER PRIMARY KEY, bid INTEGER, tbalance INTEGER, filler CHAR(84))",
    "CREATE TABLE branches (bid INTEGER PRIMARY KEY, bbalance INTEGER, filler CHAR(88))",
    "CREATE TABLE history (tid INTEGER, bid INTEGER, aid INTEGER, delta INTEGER, mtime TIMESTAMP, filler CHAR(22))",
    "INSERT INTO tellers SELECT g, 1, 0, NULL FROM generate_series(1, 100) g",
    "INSERT INTO branches SELECT g, 0, NULL FROM generate_series(1, 10) g",
];
/// Its transaction, with the parameters that each statement takes: account, teller, branch, amount.
const TPCB: [(&str, &[usize]); 5] = [
    ("UPDATE accounts SET abalance = abalance + $1 WHERE aid = $2", &[3, 0]),
    ("SELECT abalance FROM accounts WHERE aid = $1", &[0]),
    ("UPDATE tellers SET tbalance = tbalance + $1 WHERE tid = $2", &[3, 1]),
    ("UPDATE branches SET bbalance = bbalance + $1 WHERE bid = $2", &[3, 2]),
    (
        "INSERT INTO history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)",
        &[1, 2, 0, 3],
    ),
];
/// SQLite's documented best for this: no file at all.
const IN_MEMORY: &[(&str, &str)] = &[("journal_mode", "OFF"), ("synchronous", "OFF")];
/// And with a log that survives the process: no fsync, no shared memory, all pages cached.
const IN_FILE: &[(&str, &str)] = &[
    ("locking_mode", "EXCLUSIVE"),
    ("journal_mode", "WAL"),
    ("synchronous", "OFF"),
    ("cache_size", "-1048576"),
    ("temp_store", "MEMORY"),
];

/// A read by primary key.
pub(crate) fn point_read(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    bench.alone();
    let mut own = Own::new(None, ROWS)?;
    let sqlite = sqlite(None, IN_MEMORY)?;
    let mut theirs = sqlite.prepare(READ)?;
    let read = own.prepare(READ)?;
    let (bare, mut last) = (Bare::new(ROWS), 0);
    let mut peer = |aid| {
        black_box(theirs.query_row([aid], |row| row.get::<_, i64>(0))?);
        Ok(())
    };
    let mut few = Own::new(None, FEW_ROWS)?;
    let few_read = few.prepare(READ)?;
    let seconds = bench.arguments.seconds;
    let mut sides = <[Rounds; 3]>::default();
    let mut beneath = <[Rounds; 3]>::default();
    for round in 0..=bench.arguments.rounds {
        let keys = &mut Keys::new(round);
        let own = [
            timed(seconds, keys, |aid| own.run(&read, &[Value::Int(aid)]))?,
            timed(seconds, keys, &mut peer)?,
            timed(seconds, keys, |aid| own.read_raw(aid))?,
        ];
        let floors = [
            // All rows hold 0, which the processor does not know: the next key waits for the row.
            timed(seconds, keys, |aid| bare.read(aid + last).map(|row| last = row))?,
            timed(seconds, keys, |aid| bare.read(aid).map(|row| assert!(row == 0)))?,
            timed(seconds, keys, |aid| {
                few.run(&few_read, &[Value::Int(aid % FEW_ROWS as i64 + 1)])
            })?,
        ];
        // The first does not count.
        if round > 0 {
            sides.iter_mut().zip(own).for_each(|(side, round)| side.add(round));
            beneath.iter_mut().zip(floors).for_each(|(side, round)| side.add(round));
        }
    }
    let mut verdict = verdict(sides, "a :memory: database", IN_MEMORY);
    let [floor, together, few] = beneath.map(Rounds::side);
    verdict.notes.push(format!(
        "floor: each read waits for the one before, {:.0} ns; when they need not wait, {:.0} ns",
        nanos_each(floor.figure),
        nanos_each(together.figure)
    ));
    let few = nanos_each(few.figure);
    verdict
        .notes
        .push(format!("ours with {FEW_ROWS} rows, all of them in the caches: {few:.0} ns"));
    verdict.floor = Some(floor);
    Ok(verdict)
}

/// A one-row update; its record is appended to the log and not awaited.
pub(crate) fn update(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    bench.alone();
    let directory = bench.directory()?;
    let log = directory.path().join("log");
    let mut own = Own::with_bank(&log)?;
    let sqlite = sqlite(Some(&directory.path().join("sqlite.db")), IN_FILE)?;
    let mut theirs = sqlite.prepare(UPDATE)?;
    let update = own.prepare(UPDATE)?;
    let mut peer = |aid| {
        ensure!(theirs.execute([aid])? == 1, "SQLite has no row {aid}");
        Ok(())
    };
    let seconds = bench.arguments.seconds;
    let bank = TPCB.map(|(text, takes)| own.prepare(text).map(|prepared| (prepared, takes)));
    let bank = bank.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut banks = Rounds::default();
    let mut sides = [Rounds::default(), Rounds::default(), Rounds::default()];
    for round in 0..=bench.arguments.rounds {
        let keys = &mut Keys::new(round);
        let ours = timed(seconds, keys, |aid| own.run(&update, &[Value::Int(aid)]))?;
        own.settle()?;
        let theirs = timed(seconds, keys, &mut peer)?;
        let store = timed(seconds, keys, |aid| own.update_raw(aid))?;
        own.settle()?;
        let transactions = timed(seconds, keys, |aid| own.transact(&bank, aid))?;
        own.settle()?;
        own.once("DELETE FROM history")?;
        own.store.reclaim(usize::MAX);
        own.settle()?;
        if round > 0 {
            banks.add(transactions);
            sides.iter_mut().zip([ours, theirs, store]).for_each(|(side, round)| side.add(round));
        }
    }
    let mut verdict = verdict(sides, "a file", IN_FILE);
    let each = nanos_each(banks.side().figure);
    verdict.notes.push(format!("a transaction of TPC-B: {each:.0} ns"));
    Ok(verdict)
}

fn verdict(sides: [Rounds; 3], place: &str, settings: &[(&str, &str)]) -> Verdict {
    let [ours, peer, store] = sides.map(Rounds::side);
    let each = |side: &Side| nanos_each(side.figure);
    let notes = vec![format!(
        "each: prepared SQL {:.0} ns, the store without SQL {:.0} ns, SQLite {:.0} ns",
        each(&ours),
        each(&store),
        each(&peer)
    )];
    let settings: Vec<String> = settings.iter().map(|(name, to)| format!("{name}={to}")).collect();
    let settings = format!(
        "one thread, {ROWS} rows; SQLite {}: {place}, prepared, {}",
        rusqlite::version(),
        settings.join(" ")
    );
    Verdict { ours, peer, floor: None, notes, settings }
}

/// Figures of one side's rounds.
#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, (rate, cpu_us): (f64, f64)) {
        self.rates.push(rate);
        self.cpu_us.push(cpu_us);
    }

    fn side(self) -> Side {
        Side::of(self.rates, self.cpu_us)
    }
}

/// Operations a second, and this process's microseconds for each, its log's thread included.
fn timed(
    seconds: u32,
    keys: &mut Keys,
    mut operation: impl FnMut(i64) -> anyhow::Result<()>,
) -> anyhow::Result<(f64, f64)> {
    let length = Duration::from_secs(u64::from(seconds));
    let used = machine::used_micros(process::id())?;
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < length {
        for _ in 0..BATCH {
            operation(keys.next())?;
        }
        done += BATCH;
    }
    let rate = f64::from(done) / begun.elapsed().as_secs_f64();
    Ok((rate, (machine::used_micros(process::id())? - used) / f64::from(done)))
}

/// Keys in no order, the same for both sides of a round.
struct Keys(u64);

impl Keys {
    fn new(round: u32) -> Self {
        Self(u64::from(round + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % ROWS + 1) as i64
    }
}

fn sqlite(file: Option<&Path>, settings: &[(&str, &str)]) -> anyhow::Result<Connection> {
    let mut sqlite = match file {
        Some(file) => Connection::open(file)?,
        None => Connection::open_in_memory()?,
    };
    for (name, to) in settings {
        sqlite.pragma_update(None, name, to)?;
    }
    sqlite.execute(TABLE, [])?;
    let txn = sqlite.transaction()?;
    {
        let mut insert = txn.prepare("INSERT INTO accounts VALUES ($1, 1, 0, $2)")?;
        let filler = " ".repeat(84);
        for aid in 1..=ROWS {
            insert.execute((aid as i64, &filler))?;
        }
    }
    txn.commit()?;
    Ok(sqlite)
}

/// The engine, as the agent joins it: store, SQL, log.
pub(crate) struct Own {
    store: Store,
    session: SessionInfo,
    log: Option<(Log, Appender)>,
    lsn: Lsn,
    key: IndexId,
    updates: u32,
}

/// Takes rows and keeps none.
struct Taken(u64);

impl RowSink for Taken {
    fn row(&mut self, values: &[Value], _: Lsn) -> Result<(), SqlError> {
        black_box(values);
        self.0 += 1;
        Ok(())
    }

    fn notice(&mut self, _: String) {}
}

/// The epoch of this process's records.
const EPOCH: Epoch = Epoch(1);

impl Own {
    /// With the table filled. The log begins after that.
    fn new(log: Option<&Path>, rows: u64) -> anyhow::Result<Self> {
        let limits = MemoryLimits { permanent_bytes: 4 << 30, temporary_bytes: 1 << 30 };
        let store = Store::new(limits);
        let (session, lsn) = (SessionInfo::default(), Lsn::ZERO);
        let mut own = Self { store, session, log: None, lsn, key: IndexId(0), updates: 0 };
        own.once(TABLE)?;
        own.once(&format!(
            "INSERT INTO accounts SELECT g, 1, 0, '' FROM generate_series(1, {rows}) g"
        ))?;
        let catalog = own.store.catalog();
        let table = catalog.table("public", "accounts").context("it was made")?;
        own.key = table.indexes[0].id;
        if let Some(directory) = log {
            own.log = Some(begun(directory)?);
        }
        Ok(own)
    }

    /// With all of TPC-B's tables, and a log in this directory, which is made.
    pub(crate) fn with_bank(log: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(log)?;
        let mut own = Self::new(Some(log), ROWS)?;
        for statement in BANK {
            own.once(statement)?;
        }
        Ok(own)
    }

    fn once(&mut self, sql: &str) -> anyhow::Result<()> {
        let prepared = self.prepare(sql)?;
        let mut txn = self.store.begin(Isolation::ReadCommitted);
        execute(&prepared, &self.context(&[]), &mut txn)?;
        self.commit(txn)
    }

    pub(crate) fn prepare(&self, sql: &str) -> anyhow::Result<Prepared> {
        let statements = parse(sql)?;
        Ok(prepare(&self.store.catalog(), &statements[0], &[])?)
    }

    fn context<'a>(&'a self, params: &'a [Value]) -> ExecContext<'a> {
        ExecContext {
            store: &self.store,
            params,
            transaction_micros: 0,
            statement_micros: 0,
            seed: 1,
            session: &self.session,
            is_apart: true,
        }
    }

    pub(crate) fn begin(&self) -> Txn {
        self.store.begin(Isolation::ReadCommitted)
    }

    /// The next statement of a transaction.
    pub(crate) fn execute(
        &self,
        prepared: &Prepared,
        params: &[Value],
        txn: &mut Txn,
    ) -> anyhow::Result<()> {
        self.store.statement(txn);
        self.take(prepared, params, txn)
    }

    /// A prepared statement in its own transaction.
    pub(crate) fn run(&mut self, prepared: &Prepared, params: &[Value]) -> anyhow::Result<()> {
        let mut txn = self.begin();
        self.take(prepared, params, &mut txn)?;
        self.commit(txn)
    }

    /// Executes on the snapshot that the transaction has, and takes the rows.
    fn take(&self, prepared: &Prepared, params: &[Value], txn: &mut Txn) -> anyhow::Result<()> {
        let mut taken = Taken(0);
        execute_into(prepared, &self.context(params), txn, &mut taken)?;
        black_box(taken.0);
        Ok(())
    }

    /// Prepared statements in one transaction, each with what it takes of account, teller, branch and amount.
    fn transact(&mut self, statements: &[(Prepared, &[usize])], aid: i64) -> anyhow::Result<()> {
        let given = [aid, aid % 100 + 1, aid % 10 + 1, aid % 1_000];
        let mut txn = self.begin();
        for (prepared, takes) in statements {
            let params: Vec<_> = takes.iter().map(|at| Value::Int(given[*at])).collect();
            self.execute(prepared, &params, &mut txn)?;
        }
        self.commit(txn)
    }

    /// The same read without SQL.
    fn read_raw(&mut self, aid: i64) -> anyhow::Result<()> {
        let txn = self.store.begin(Isolation::ReadCommitted);
        let found = self.store.lookup_one(&txn, View::Committed, self.key, &[Value::Int(aid)]);
        black_box(found.context("every key is there")?.1.int(2));
        Ok(())
    }

    /// The same update without SQL.
    fn update_raw(&mut self, aid: i64) -> anyhow::Result<()> {
        let mut txn = self.store.begin(Isolation::ReadCommitted);
        let catalog = Arc::clone(txn.catalog());
        let table = catalog.table("public", "accounts").context("it was made")?;
        let found = self.store.lookup_one(&txn, View::ForUpdate, self.key, &[Value::Int(aid)]);
        let (row, old) = found.context("every key is there")?;
        let new = old.int(2).unwrap_or(0) + 1;
        let new = old.replace(table, &[(2, Value::Int(new))]);
        self.store.update(&mut txn, table.id, row, new)?;
        self.commit(txn)
    }

    /// What the agent does in its commit section, and its reclamation.
    pub(crate) fn commit(&mut self, txn: Txn) -> anyhow::Result<()> {
        if txn.is_read_only() {
            self.store.commit(txn, Lsn::ZERO);
            return Ok(());
        }
        let redo = self.store.redo(&txn);
        let lsn = match &mut self.log {
            Some((log, appender)) => {
                if log.is_full() {
                    // The writer is behind; waiting for it is part of the cost.
                    log.sync_all()?;
                }
                appender.append(EPOCH, RecordKind::Transaction, &redo)
            }
            None => self.lsn.next(),
        };
        self.lsn = lsn;
        self.store.commit(txn, lsn);
        self.store.set_visible(lsn);
        self.updates += 1;
        if self.updates.is_multiple_of(RECLAIM_EVERY) {
            self.store.reclaim(RECLAIM_EVERY as usize);
        }
        Ok(())
    }

    /// Between rounds: the log is written, and what nobody needs goes.
    fn settle(&mut self) -> anyhow::Result<()> {
        if let Some((log, _)) = &self.log {
            log.sync_all()?;
            log.reclaim_below(log.durable_lsn())?;
        }
        Ok(())
    }
}

/// A new log in a directory, with its epoch begun. It begins above the LSNs of the filling.
fn begun(directory: &Path) -> anyhow::Result<(Log, Appender)> {
    let disk = FsDisk::open(directory)?;
    let log = recover(Disks::one(Arc::new(disk)), LogOptions::default())?.log;
    let mut appender = log.appender();
    appender.begin_epoch(&EpochBegin {
        epoch: EpochId { number: EPOCH, ..EpochId::default() },
        author: Incarnation { start: 1, id: EpochId::default().author },
        previous: appender.position(),
        hash: appender.hash(),
        lossy: false,
    })?;
    while appender.end() < Lsn(2) {
        appender.append(EPOCH, RecordKind::Feeder, &[]);
    }
    Ok((log, appender))
}
