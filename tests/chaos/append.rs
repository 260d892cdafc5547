//! `append`: clients that append to lists and read them while something breaks, and the verdict on what
//! they were told (`understudy_tests::history`).
//!
//! The server is named by `UNDERSTUDY_URI`, as for the recorder. Every list takes a bounded number of
//! values and then gives way to a new one, so the cost of a read stays the same however long the run is.
//! Half of the sessions prepare their statements, the other half send text.
//!
//! **Invariants.** 1. A transaction is noted as committed only after the server said so, and as aborted
//! only if COMMIT was never sent or was refused for certain. 2. A value is sent once. 3. The final read
//! begins after every session has ended. 4. A run uses no list of an earlier one; two runs at once on
//! one database would share their lists, which the verdict calls garbage.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufReader, BufWriter},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement, types::Type};
use understudy_cli::demo::{Direct, is_rolled_back, recover};
use understudy_tests::history::{
    self, Anomaly, Key, Kind, Level, Lost, Operation, Order, Outcome, Transaction, Value, Verdict,
};

/// Pause before a session connects again.
const AGAIN: Duration = Duration::from_millis(20);
/// Longest wait for one answer, as the recorder's.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Longest wait for the answer that holds all lists.
const ALL_MAX: Duration = Duration::from_secs(20);
/// How long to try to reach the database before the run and after it.
const REACH_MAX: Duration = Duration::from_secs(60);
/// Appends that are tried on a list before a new one takes its place.
const APPENDS_MAX: u64 = 96;
/// Most operations of a transaction.
const OPERATIONS_MAX: u32 = 4;
/// Most different errors that are counted apart.
const ERRORS_MAX: usize = 32;
/// Most lost appends that are reported one by one.
const LOST_MAX: usize = 100;
/// What stands for text that is no number: nobody appends it.
const UNREADABLE: Value = Value::MAX;

/// Appends to lists over several sessions, and checks what they read. Ends with status 1 when something
/// is found, and with 2 when nothing could be checked.
#[derive(Debug, Parser)]
#[command(name = "append")]
struct Arguments {
    /// How long to write
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Sessions at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    sessions: u32,
    /// Lists in use at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keys: u32,
    /// Level of the transactions
    #[arg(long, value_enum, default_value_t = Isolation::Serializable)]
    isolation: Isolation,
    /// Level that the history is checked for [default: that of the transactions]
    #[arg(long, value_enum)]
    level: Option<Isolation>,
    /// What was acknowledged must also come before what began later
    #[arg(long)]
    strict: bool,
    /// Let a transaction append to its lists in any order: there will be deadlocks, and the server's
    /// way of finding them is part of the longest gap
    #[arg(long)]
    any_order: bool,
    /// Chooses what the sessions do
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the history to this file, a transaction a line
    #[arg(long)]
    history: Option<PathBuf>,
    /// Run nothing: check the history in the file
    #[arg(long, requires = "history")]
    verify: bool,
    /// Certificate authority of the server, PEM
    #[arg(long)]
    ca: Option<PathBuf>,
    /// One line of JSON instead of the report
    #[arg(long)]
    json: bool,
}

/// SQL's levels.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Isolation {
    Serializable,
    RepeatableRead,
    ReadCommitted,
}

impl Isolation {
    fn sql(self) -> &'static str {
        match self {
            Self::Serializable => "SERIALIZABLE",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::ReadCommitted => "READ COMMITTED",
        }
    }

    fn level(self) -> Level {
        match self {
            Self::Serializable => Level::Serializable,
            Self::RepeatableRead => Level::Snapshot,
            Self::ReadCommitted => Level::ReadCommitted,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) => {
            print(&report, arguments.json);
            if report.is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("append: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let run = if arguments.verify {
        let path = arguments.history.as_deref().context("--verify needs --history")?;
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Run { history: history::read(BufReader::new(file))?, ..Run::default() }
    } else {
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(record(arguments))?
    };
    let level = arguments.level.unwrap_or(arguments.isolation);
    let order = if arguments.strict { Order::RealTime } else { Order::Any };
    let verdict = history::check(&run.history, level.level(), order);
    Ok(Report::new(run, verdict, level, arguments.strict))
}

/// What all sessions share.
struct Shared {
    server: Direct,
    isolation: Isolation,
    any_order: bool,
    begun: Instant,
    end: Instant,
    /// The run's first list.
    first: Key,
    /// Appends tried so far on each of the places for lists.
    places: Vec<AtomicU64>,
    /// The last value sent.
    value: AtomicU64,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a run takes no 500 years")
    }

    /// The list at a place, after so many appends.
    fn key(&self, place: usize, appends: u64) -> Key {
        let generation = u32::try_from(appends / APPENDS_MAX).expect("a run is finite");
        let places = u32::try_from(self.places.len()).expect("--keys is u32");
        self.first + generation * places + u32::try_from(place).expect("--keys is u32")
    }

    /// A list and a new value for it.
    fn append(&self, place: usize) -> (Key, Value) {
        let key = self.key(place, self.places[place].fetch_add(1, Ordering::Relaxed));
        (key, self.value.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn list_to_read(&self, place: usize) -> Key {
        self.key(place, self.places[place].load(Ordering::Relaxed))
    }
}

/// What a run left behind.
#[derive(Default)]
struct Run {
    history: Vec<Transaction>,
    reconnects: u64,
    errors: BTreeMap<String, u64>,
    elapsed_ns: u64,
}

impl Run {
    fn note(&mut self, error: &str) {
        let error = error.replace('\n', " ");
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    fn add(&mut self, other: Run) {
        self.history.extend(other.history);
        self.reconnects += other.reconnects;
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }
}

/// Runs the sessions and reads everything at the end.
async fn record(arguments: &Arguments) -> anyhow::Result<Run> {
    let uri = std::env::var("UNDERSTUDY_URI").context("UNDERSTUDY_URI names no server")?;
    let server = Direct::by_uri(&uri, arguments.ca.as_deref())?;
    let first = persist("cannot make the table", || prepare(&server)).await?;
    let begun = Instant::now();
    let shared = Arc::new(Shared {
        server,
        isolation: arguments.isolation,
        any_order: arguments.any_order,
        begun,
        end: begun + Duration::from_secs(arguments.seconds),
        first,
        places: (0..arguments.keys).map(|_| AtomicU64::new(0)).collect(),
        value: AtomicU64::new(0),
    });
    let sessions: Vec<_> = (0..arguments.sessions)
        .map(|number| {
            let random = StdRng::seed_from_u64(arguments.seed << 8 | u64::from(number));
            let shared = Arc::clone(&shared);
            tokio::spawn(Session { number, random, shared, run: Run::default() }.run())
        })
        .collect();
    let mut run = Run::default();
    for session in sessions {
        run.add(session.await?);
    }
    run.elapsed_ns = shared.now_ns();
    run.history.sort_by_key(|transaction| transaction.begun_ns);
    let keys: BTreeSet<Key> = run.history.iter().flat_map(|t| &t.operations).map(key_of).collect();
    let last = persist("no final read", || read_all(&shared, &keys, arguments.sessions)).await;
    // Without a final read the history may still be worth a look.
    run.history.extend(last.as_ref().ok().cloned());
    if let Some(path) = &arguments.history {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        history::write(&run.history, BufWriter::new(file))?;
    }
    last.map(|_| run)
}

fn key_of(operation: &Operation) -> Key {
    match operation {
        Operation::Append { key, .. } | Operation::Read { key, .. } => *key,
    }
}

/// Tries again until it succeeds or the time is up.
async fn persist<T, F>(what: &'static str, mut work: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + REACH_MAX;
    loop {
        let tried = timeout(ALL_MAX, work()).await;
        match tried.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer"))) {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= end => return Err(error.context(what)),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Makes the table; the first list that no earlier run has used.
async fn prepare(server: &Direct) -> anyhow::Result<Key> {
    let client = server.connect().await?;
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS lists (k integer PRIMARY KEY, v text NOT NULL)")
        .await?;
    let used: Option<i32> = client.query_one("SELECT max(k) FROM lists", &[]).await?.get(0);
    Ok(used.map_or(Ok(0), |used| Key::try_from(used + 1))?)
}

/// One read of all lists of the run.
async fn read_all(
    shared: &Shared,
    keys: &BTreeSet<Key>,
    process: u32,
) -> anyhow::Result<Transaction> {
    let begun_ns = shared.now_ns();
    let client = shared.server.connect().await?;
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", shared.isolation.sql())).await?;
    let first = i32::try_from(shared.first)?;
    let rows = client.query("SELECT k, v FROM lists WHERE k >= $1", &[&first]).await?;
    client.batch_execute("COMMIT").await?;
    let mut lists: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for row in rows {
        lists.entry(Key::try_from(row.get::<_, i32>(0))?).or_default().extend(parse(row.get(1)));
    }
    let read =
        |key: &Key| Operation::Read { key: *key, values: lists.remove(key).unwrap_or_default() };
    Ok(Transaction {
        process,
        begun_ns,
        ended_ns: shared.now_ns(),
        operations: keys.iter().map(read).collect(),
        outcome: Outcome::Committed,
        is_final: true,
    })
}

fn parse(list: &str) -> Vec<Value> {
    list.split(',').map(|value| value.parse().unwrap_or(UNREADABLE)).collect()
}

/// Why a statement has no answer.
enum Trouble {
    Server(Error),
    Silence,
}

impl Trouble {
    fn words(&self) -> String {
        match self {
            Self::Server(error) => match error.as_db_error() {
                Some(db) => format!("{} {}", db.code().code(), db.message()),
                None => error.to_string(),
            },
            Self::Silence => "no answer within 3 s".to_owned(),
        }
    }

    /// Whether the session can go on.
    async fn is_mended(&self, client: &Client) -> bool {
        match self {
            Self::Server(error) => recover(client, error).await,
            Self::Silence => false,
        }
    }
}

/// Waits for an answer, but not for ever.
async fn answer<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
    timeout(ANSWER_MAX, work).await.map_err(|_| Trouble::Silence)?.map_err(Trouble::Server)
}

/// A connection; its statements, when they are prepared.
struct Link {
    client: Client,
    prepared: Option<Prepared>,
}

struct Prepared {
    read: Statement,
    update: Statement,
    insert: Statement,
}

impl Link {
    async fn prepare(client: Client) -> Result<Self, Error> {
        let typed = [Type::INT4, Type::TEXT];
        let read = client.prepare_typed("SELECT v FROM lists WHERE k = $1", &typed[..1]);
        let read = read.await?;
        let update = "UPDATE lists SET v = v || ',' || $2 WHERE k = $1";
        let update = client.prepare_typed(update, &typed).await?;
        let insert = "INSERT INTO lists (k, v) VALUES ($1, $2) \
            ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v";
        let insert = client.prepare_typed(insert, &typed).await?;
        Ok(Self { client, prepared: Some(Prepared { read, update, insert }) })
    }

    async fn read(&self, key: Key) -> Result<Vec<Value>, Error> {
        if let Some(prepared) = &self.prepared {
            let row = self.client.query_opt(&prepared.read, &[&key.cast_signed()]).await?;
            return Ok(row.map_or_else(Vec::new, |row| parse(row.get(0))));
        }
        let sql = format!("SELECT v FROM lists WHERE k = {key}");
        for message in self.client.simple_query(&sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                return Ok(row.get(0).map_or_else(Vec::new, parse));
            }
        }
        Ok(Vec::new())
    }

    /// Appends to a list; makes it, if it is not there.
    async fn append(&self, key: Key, value: Value) -> Result<(), Error> {
        let text = value.to_string();
        if let Some(prepared) = &self.prepared {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                [&key.cast_signed(), &text];
            if self.client.execute(&prepared.update, &parameters).await? == 0 {
                self.client.execute(&prepared.insert, &parameters).await?;
            }
            return Ok(());
        }
        self.client
            .batch_execute(&format!(
                "INSERT INTO lists (k, v) VALUES ({key}, '{text}') \
                 ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v"
            ))
            .await
    }
}

/// One client: a transaction after the other, and a new connection when one ends.
struct Session {
    number: u32,
    random: StdRng,
    shared: Arc<Shared>,
    run: Run,
}

impl Session {
    async fn run(mut self) -> Run {
        let mut connections: u64 = 0;
        while Instant::now() < self.shared.end {
            match timeout(ANSWER_MAX, self.connect()).await {
                Ok(Ok(link)) => {
                    connections += 1;
                    while Instant::now() < self.shared.end && self.transact(&link).await {}
                }
                Ok(Err(error)) => self.run.note(&format!("{error:#}")),
                Err(_) => self.run.note("no connection within 3 s"),
            }
            sleep(AGAIN).await;
        }
        self.run.reconnects = connections.saturating_sub(1);
        self.run
    }

    async fn connect(&self) -> anyhow::Result<Link> {
        let client = self.shared.server.connect().await?;
        if self.number.is_multiple_of(2) {
            return Ok(Link { client, prepared: None });
        }
        Ok(Link::prepare(client).await?)
    }

    /// One transaction; whether the session is still good.
    async fn transact(&mut self, link: &Link) -> bool {
        let begun_ns = self.shared.now_ns();
        let mut operations = Vec::new();
        let (outcome, trouble) = match self.work(link, &mut operations).await {
            Err(trouble) => (Outcome::Aborted, Some(trouble)),
            Ok(()) => match answer(link.client.batch_execute("COMMIT")).await {
                Ok(()) => (Outcome::Committed, None),
                Err(Trouble::Server(error)) if is_rolled_back(&error) => {
                    (Outcome::Aborted, Some(Trouble::Server(error)))
                }
                Err(trouble) => (Outcome::Unknown, Some(trouble)),
            },
        };
        let ended_ns = self.shared.now_ns();
        self.run.history.push(Transaction {
            process: self.number,
            begun_ns,
            ended_ns,
            operations,
            outcome,
            is_final: false,
        });
        let Some(trouble) = trouble else { return true };
        self.run.note(&trouble.words());
        outcome == Outcome::Aborted && trouble.is_mended(&link.client).await
    }

    /// What a transaction does: whether it appends, and at which place.
    fn choose(&mut self) -> Vec<(bool, usize)> {
        let places = self.shared.places.len();
        let count = self.random.random_range(1..=OPERATIONS_MAX);
        let mut chosen: Vec<(bool, usize)> = (0..count)
            .map(|_| (self.random.random(), self.random.random_range(0..places)))
            .collect();
        if !self.shared.any_order {
            let mut appends: Vec<usize> =
                chosen.iter().filter(|(is_append, _)| *is_append).map(|(_, at)| *at).collect();
            appends.sort_unstable_by(|a, b| b.cmp(a));
            for (_, place) in chosen.iter_mut().filter(|(is_append, _)| *is_append) {
                *place = appends.pop().expect("as many as there are");
            }
        }
        chosen
    }

    /// Everything before COMMIT. An append is noted before it is sent, a read when it is there.
    async fn work(&mut self, link: &Link, done: &mut Vec<Operation>) -> Result<(), Trouble> {
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.shared.isolation.sql());
        answer(link.client.batch_execute(&begin)).await?;
        for (is_append, place) in self.choose() {
            if is_append {
                let (key, value) = self.shared.append(place);
                done.push(Operation::Append { key, value });
                answer(link.append(key, value)).await?;
            } else {
                let key = self.shared.list_to_read(place);
                let values = answer(link.read(key)).await?;
                done.push(Operation::Read { key, values });
            }
        }
        Ok(())
    }
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
struct Report {
    /// Transactions, the final read among them.
    transactions: usize,
    committed: usize,
    aborted: usize,
    unknown: usize,
    /// Of the unknown ones, those of which something was seen.
    unknown_committed: usize,
    /// Longest time of the run without an acknowledgement.
    longest_gap_ms: u64,
    reconnects: u64,
    /// Level of the check.
    level: Isolation,
    strict: bool,
    is_clean: bool,
    /// At most eight of each kind.
    anomalies: Vec<Anomaly>,
    /// All of each kind.
    counts: BTreeMap<Kind, u64>,
    /// At most a hundred.
    lost: Vec<Lost>,
    lost_count: usize,
    /// Errors by SQLSTATE and message.
    errors: BTreeMap<String, u64>,
}

impl Report {
    fn new(run: Run, mut verdict: Verdict, level: Isolation, strict: bool) -> Self {
        let count = |outcome| run.history.iter().filter(|t| t.outcome == outcome).count();
        let (is_clean, lost_count) = (verdict.is_clean(), verdict.lost.len());
        verdict.lost.truncate(LOST_MAX);
        Self {
            transactions: run.history.len(),
            committed: count(Outcome::Committed),
            aborted: count(Outcome::Aborted),
            unknown: count(Outcome::Unknown),
            unknown_committed: verdict.unknown_committed,
            longest_gap_ms: longest_gap_ms(&run),
            reconnects: run.reconnects,
            level,
            strict,
            is_clean,
            anomalies: verdict.anomalies,
            counts: verdict.counts,
            lost: verdict.lost,
            lost_count,
            errors: run.errors,
        }
    }
}

/// Silence at the beginning and at the end of the run counts too.
fn longest_gap_ms(run: &Run) -> u64 {
    let committed = |t: &&Transaction| t.outcome == Outcome::Committed && !t.is_final;
    let mut ends: Vec<u64> = run.history.iter().filter(committed).map(|t| t.ended_ns).collect();
    ends.extend([0, run.elapsed_ns]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1_000_000
}

fn print(report: &Report, json: bool) {
    if json {
        println!("{}", serde_json::to_string(report).expect("a report is plain data"));
        return;
    }
    let Report { transactions, committed, aborted, unknown, unknown_committed, .. } = report;
    println!(
        "{transactions} transactions: {committed} committed, {aborted} aborted, {unknown} unknown \
         ({unknown_committed} of them committed)"
    );
    let Report { longest_gap_ms, reconnects, lost_count, .. } = report;
    println!("longest gap {longest_gap_ms} ms, {reconnects} reconnects, {lost_count} appends lost");
    for (kind, count) in &report.counts {
        println!("{count} × {kind}");
    }
    for anomaly in &report.anomalies {
        println!("{}: {}", anomaly.kind, anomaly.told);
    }
    for Lost { key, value, transaction, .. } in &report.lost {
        println!("lost: {value} in list {key}, appended by T{transaction}");
    }
    for (error, count) in &report.errors {
        println!("{count} × {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let begun = Instant::now();
        Shared {
            server: Direct::by_uri("postgresql://somebody@localhost/db", None).unwrap(),
            isolation: Isolation::Serializable,
            any_order: false,
            begun,
            end: begun,
            first: 100,
            places: [0, 0, 0].map(AtomicU64::new).into(),
            value: AtomicU64::new(0),
        }
    }

    #[test]
    fn a_full_list_gives_way_to_one_that_no_other_place_uses() {
        let shared = shared();
        let keys: Vec<Key> = (0..APPENDS_MAX + 1).map(|_| shared.append(1).0).collect();
        assert!(keys[..keys.len() - 1].iter().all(|key| *key == 101));
        assert_eq!((keys[keys.len() - 1], shared.list_to_read(1)), (104, 104));
        assert_eq!(shared.append(2), (102, APPENDS_MAX + 2));
    }

    #[test]
    fn appends_go_through_the_places_in_order() {
        let random = StdRng::seed_from_u64(7);
        let mut session =
            Session { number: 0, random, shared: Arc::new(shared()), run: Run::default() };
        for _ in 0..200 {
            let chosen = session.choose();
            let appends = chosen.iter().filter(|(is_append, _)| *is_append);
            assert!(appends.map(|(_, place)| place).is_sorted(), "{chosen:?}");
        }
    }

    #[test]
    fn text_that_is_no_list_is_a_value_of_nobody() {
        assert_eq!(parse("1,20,3"), [1, 20, 3]);
        assert_eq!(parse("1,,x"), [1, UNREADABLE, UNREADABLE]);
    }

    #[test]
    fn silence_counts_up_to_the_end_of_the_run() {
        let at = |ms: u64, outcome| Transaction {
            process: 0,
            begun_ns: 0,
            ended_ns: ms * 1_000_000,
            operations: Vec::new(),
            outcome,
            is_final: false,
        };
        let mut history = vec![at(300, Outcome::Committed), at(500, Outcome::Unknown)];
        history.push(Transaction { is_final: true, ..at(700, Outcome::Committed) });
        let run = Run { history, elapsed_ns: 900_000_000, ..Run::default() };
        assert_eq!(longest_gap_ms(&run), 600);
    }
}
