//! The clients of a run: what they do, and what they remember of the answers.
//!
//! ```text
//!   transfer    two accounts, a row of the ledger, a list     one transaction, a number of its own
//!   move        the session's one row of the queue goes, and comes again under another number
//!   count       one statement that adds 1 to a row             the prepared, implicit way
//!   batch       one statement that adds 1 to 1000 rows         the log grows, segments end
//! ```
//! **Invariant.** A number is *kept* only after the server acknowledged it, and *gone* only when COMMIT
//! was never sent or was refused for certain. Whatever lies between is *open*.

use crate::COMES;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_postgres::{Client, Error};
use understudy_cli::demo::is_rolled_back;
use understudy_tests::alone::Place;

/// Accounts, numbered from 0.
pub(crate) const ACCOUNTS: i32 = 24;
/// What each has at the beginning.
pub(crate) const BALANCE: i64 = 1_000;
/// Numbers of the ledger in one list.
pub(crate) const LIST: i64 = 48;
/// Sessions that transfer, move and count.
pub(crate) const SESSIONS: i32 = 6;
/// Rows of one batch, and batches.
pub(crate) const BATCH: i32 = 1_000;
pub(crate) const BATCHES: i32 = 12;

/// What is known of a number or of an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Gone,
    Open,
}

/// What all clients of one directory were told, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Each transfer by its number.
    pub(crate) transfers: BTreeMap<i64, Fate>,
    /// The numbers under which each session's row of the queue may be; the first is acknowledged.
    pub(crate) queue: BTreeMap<i32, Vec<i64>>,
    /// Additions to each session's counter: acknowledged ones, and those that may have been.
    pub(crate) counts: BTreeMap<i32, (i64, i64)>,
    /// Additions to each batch, the same way.
    pub(crate) batches: BTreeMap<i32, (i64, i64)>,
}

impl Record {
    /// How many answers said yes.
    pub(crate) fn kept(&self) -> usize {
        let counted: i64 = self.counts.values().chain(self.batches.values()).map(|c| c.0).sum();
        let transfers = self.transfers.values().filter(|fate| **fate == Fate::Kept).count();
        transfers + usize::try_from(counted).unwrap_or_default()
    }

    pub(crate) fn open(&self) -> usize {
        self.transfers.values().filter(|fate| **fate == Fate::Open).count()
    }

    fn add(&mut self, mine: Self) {
        self.transfers.extend(mine.transfers);
        self.queue.extend(mine.queue);
        for (all, mine) in [(&mut self.counts, mine.counts), (&mut self.batches, mine.batches)] {
            for (of, (kept, open)) in mine {
                let sum = all.entry(of).or_default();
                *sum = (sum.0 + kept, sum.1 + open);
            }
        }
    }
}

/// Makes the tables.
pub(crate) async fn prepare(place: &Place) -> anyhow::Result<Record> {
    let client = place.connect().await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
             CREATE TABLE ledger (n bigint PRIMARY KEY, source integer NOT NULL,
                                  target integer NOT NULL, amount bigint NOT NULL);
             CREATE INDEX ledger_source ON ledger (source);
             CREATE TABLE lists (k bigint PRIMARY KEY, v text NOT NULL);
             CREATE TABLE queue (n bigint PRIMARY KEY, tag text NOT NULL UNIQUE);
             CREATE TABLE counters (k integer PRIMARY KEY, hits bigint NOT NULL);
             CREATE TABLE filler (k integer PRIMARY KEY, n bigint NOT NULL, v text NOT NULL);
             INSERT INTO accounts SELECT i, {BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) AS g (i);
             INSERT INTO counters SELECT i, 0 FROM generate_series(0, {SESSIONS} - 1) AS g (i);
             INSERT INTO queue SELECT -1 - i, 's' || i FROM generate_series(0, {SESSIONS} - 1) AS g (i);
             INSERT INTO filler SELECT i, 0, repeat('x', 100)
               FROM generate_series(0, {BATCH} * {BATCHES} - 1) AS g (i);"
        ))
        .await?;
    let queue = (0..SESSIONS).map(|session| (session, vec![-1 - i64::from(session)])).collect();
    Ok(Record { queue, ..Record::default() })
}

/// What the sessions of a life share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The next number; never used twice in a directory.
    pub(crate) number: AtomicI64,
    pub(crate) ends: AtomicBool,
    /// Answers that said yes, for who waits until there is load.
    pub(crate) acknowledged: AtomicU64,
    /// Checkpoints that were taken.
    pub(crate) checkpoints: AtomicU64,
    /// Whether one is taken after the other.
    takes_checkpoints: bool,
}

impl Shared {
    /// Of a life that begins with this number.
    pub(crate) fn new(number: i64, takes_checkpoints: bool) -> Arc<Self> {
        Arc::new(Self {
            number: number.into(),
            ends: false.into(),
            acknowledged: 0.into(),
            checkpoints: 0.into(),
            takes_checkpoints,
        })
    }

    /// Waits until so many answers said yes; not for ever.
    pub(crate) async fn is_busy(&self, acknowledged: u64) -> bool {
        let until = Instant::now() + COMES;
        while self.acknowledged.load(Ordering::Relaxed) < acknowledged && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        self.acknowledged.load(Ordering::Relaxed) >= acknowledged
    }
}

/// Writes until the server is gone, or `shared` says that it is enough; what was told is added to `record`.
pub(crate) async fn run(place: &Arc<Place>, shared: &Arc<Shared>, seed: u64, record: &mut Record) {
    let mut clients = Vec::new();
    for number in 0..=SESSIONS {
        let random = StdRng::seed_from_u64(seed << 8 | u64::from(number.unsigned_abs()));
        let queue = record.queue.get(&number).cloned().unwrap_or_default();
        let mine = Record { queue: [(number, queue)].into(), ..Record::default() };
        let (place, shared) = (Arc::clone(place), Arc::clone(shared));
        let session = Session { number, random, shared, record: mine };
        clients.push(tokio::spawn(session.run(place)));
    }
    if shared.takes_checkpoints {
        tokio::spawn(checkpoints(Arc::clone(place), Arc::clone(shared)));
    }
    for client in clients {
        let mut told = client.await.unwrap();
        told.queue.remove(&SESSIONS);
        record.add(told);
    }
}

/// One checkpoint after the other.
async fn checkpoints(place: Arc<Place>, shared: Arc<Shared>) {
    let Ok(client) = place.connect().await else { return };
    while !shared.ends.load(Ordering::Relaxed)
        && client.batch_execute("CALL ttCkpt()").await.is_ok()
    {
        shared.checkpoints.fetch_add(1, Ordering::Relaxed);
    }
}

struct Session {
    number: i32,
    random: StdRng,
    shared: Arc<Shared>,
    record: Record,
}

impl Session {
    async fn run(mut self, place: Arc<Place>) -> Record {
        let Ok(client) = place.connect().await else { return self.record };
        let count = "UPDATE counters SET hits = hits + 1 WHERE k = $1";
        let Ok(count) = client.prepare(count).await else { return self.record };
        while !self.shared.ends.load(Ordering::Relaxed) && !client.is_closed() {
            if self.number == SESSIONS {
                self.batch(&client).await;
                continue;
            }
            match self.random.random_range(0..4) {
                0 | 1 => self.transfer(&client).await,
                2 => self.change_place(&client).await,
                _ => {
                    let done = client.execute(&count, &[&self.number]).await;
                    let fate = self.fate(done.as_ref().err(), true);
                    note(self.record.counts.entry(self.number).or_default(), fate);
                }
            }
        }
        self.record
    }

    /// What an answer says; `may_be` when a COMMIT was sent.
    fn fate(&self, error: Option<&Error>, may_be: bool) -> Fate {
        match error {
            None => {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Fate::Kept
            }
            Some(error) if !may_be || is_rolled_back(error) => Fate::Gone,
            Some(_) => Fate::Open,
        }
    }

    /// A transaction; its last statement is COMMIT.
    async fn transact(&self, client: &Client, statements: &[String]) -> Fate {
        for statement in statements {
            if let Err(error) = client.batch_execute(statement).await {
                // It may be that nobody is there to roll back.
                let _ = client.batch_execute("ROLLBACK").await;
                return self.fate(Some(&error), false);
            }
        }
        let done = client.batch_execute("COMMIT").await;
        self.fate(done.as_ref().err(), true)
    }

    async fn transfer(&mut self, client: &Client) {
        let n = self.shared.number.fetch_add(1, Ordering::Relaxed);
        let source = self.random.random_range(0..ACCOUNTS);
        let target = (source + self.random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = self.random.random_range(1..10);
        // In the order of their numbers: no deadlocks.
        let mut halves = [(source, -amount), (target, amount)];
        halves.sort_unstable();
        let half = |(id, amount): (i32, i64)| {
            format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {id}")
        };
        let statements = [
            "BEGIN".to_owned(),
            half(halves[0]),
            half(halves[1]),
            format!("INSERT INTO ledger VALUES ({n}, {source}, {target}, {amount})"),
            format!(
                "INSERT INTO lists VALUES ({}, '{n}') \
                 ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v",
                n / LIST
            ),
        ];
        let fate = self.transact(client, &statements).await;
        self.record.transfers.insert(n, fate);
    }

    /// The unique tag goes and comes in one transaction.
    async fn change_place(&mut self, client: &Client) {
        let n = self.shared.number.fetch_add(1, Ordering::Relaxed);
        let session = self.number;
        let statements = [
            "BEGIN".to_owned(),
            format!("DELETE FROM queue WHERE tag = 's{session}'"),
            format!("INSERT INTO queue VALUES ({n}, 's{session}')"),
        ];
        let fate = self.transact(client, &statements).await;
        let places = self.record.queue.entry(session).or_default();
        match fate {
            Fate::Kept => *places = vec![n],
            Fate::Open => places.push(n),
            Fate::Gone => {}
        }
    }

    async fn batch(&mut self, client: &Client) {
        let batch = self.random.random_range(0..BATCHES);
        let from = batch * BATCH;
        let sql = format!("UPDATE filler SET n = n + 1 WHERE k >= {from} AND k < {}", from + BATCH);
        let done = client.batch_execute(&sql).await;
        let fate = self.fate(done.as_ref().err(), true);
        note(self.record.batches.entry(batch).or_default(), fate);
    }
}

fn note((kept, open): &mut (i64, i64), fate: Fate) {
    match fate {
        Fate::Kept => *kept += 1,
        Fate::Open => *open += 1,
        Fate::Gone => {}
    }
}
