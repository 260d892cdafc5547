//! What many sessions did at once at each level, judged by what the level promises: lists that are
//! appended to, with circles of dependencies looked for; a bank; one key wanted by all.
//!
//! The forced interleavings show that the same checks find what a level lets through: each is run at the
//! level that allows it, and at the one above.

use std::{
    collections::BTreeMap,
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::sync::Barrier;
use tokio_postgres::{Client, Error};
use understudy_tests::{
    alone::{Alone, Place},
    history::{self, Key, Kind, Level, Operation, Order, Outcome, Transaction, Value},
};

/// Sessions that append to lists.
const SESSIONS: u32 = 24;
/// Fewest committed transactions that say anything.
const COMMITTED_MIN: u64 = 100;
/// The bank.
const ACCOUNTS: i32 = 8;
const BALANCE: i64 = 100;
const TELLERS: i32 = 6;

/// SQL's levels, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

use Isolation::{ReadCommitted, RepeatableRead, Serializable};

impl Isolation {
    const ALL: [Self; 3] = [ReadCommitted, RepeatableRead, Serializable];

    fn sql(self) -> &'static str {
        match self {
            ReadCommitted => "READ COMMITTED",
            RepeatableRead => "REPEATABLE READ",
            Serializable => "SERIALIZABLE",
        }
    }

    fn option(self) -> &'static str {
        match self {
            ReadCommitted => "read-committed",
            RepeatableRead => "repeatable-read",
            Serializable => "serializable",
        }
    }
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Seconds that each level is written at; two in the slice that runs with all tests.
fn seconds() -> u64 {
    asked("UNDERSTUDY_HISTORY_SECONDS").unwrap_or(2)
}

fn database() -> (Arc<Place>, Alone) {
    let place = Place::new(&["--memory", "256Mi", "--log-size", "1Gi"]).unwrap();
    let alone = place.start().unwrap();
    (Arc::new(place), alone)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn code(error: &Error) -> &str {
    error.code().map_or("", |code| code.code())
}

async fn begin(client: &Client, isolation: Isolation) {
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", isolation.sql())).await.unwrap();
}

/// Ends a transaction: COMMIT when all went well. Whether it stays; a failure that a level may answer
/// with is none.
async fn end(client: &Client, done: Result<(), Error>) -> bool {
    let ended = match done {
        Ok(()) => client.batch_execute("COMMIT").await,
        Err(error) => {
            client.batch_execute("ROLLBACK").await.unwrap();
            Err(error)
        }
    };
    match ended {
        Ok(()) => true,
        Err(error) if ["40001", "40P01"].contains(&code(&error)) => false,
        Err(error) => panic!("{error}: {:?}", error.as_db_error()),
    }
}

#[test]
fn lists_that_many_sessions_append_to_have_only_the_circles_that_the_level_allows() {
    let seed = asked("UNDERSTUDY_HISTORY_SEED").unwrap_or_else(rand::random);
    for isolation in Isolation::ALL {
        let (place, _alone) = database();
        let mut append = Command::new(env!("CARGO_BIN_EXE_append"));
        append.args(["--isolation", isolation.option(), "--any-order", "--strict", "--json"]);
        append.args(["--seconds", &seconds().to_string(), "--seed", &seed.to_string()]);
        append.args(["--sessions", &SESSIONS.to_string(), "--keys", "5"]);
        let output = append.env("UNDERSTUDY_URI", place.uri()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{isolation:?}, seed {seed}: {told}{errors}");
        let report: serde_json::Value = serde_json::from_str(&told).unwrap();
        println!("{isolation:?}, seed {seed}: {report}");
        assert!(report["committed"].as_u64() > Some(COMMITTED_MIN), "{report}");
    }
}

/// A step of a forced interleaving: of which session, and what.
#[derive(Debug, Clone, Copy)]
enum Step {
    Read(Key),
    Append(Key, Value),
    Commit,
}

/// Runs the steps one after the other, and reads all lists at the end.
async fn interleave(
    place: &Place,
    isolation: Isolation,
    steps: &[(usize, Step)],
) -> Vec<Transaction> {
    let reset = "DROP TABLE IF EXISTS lists;
                 CREATE TABLE lists (k integer PRIMARY KEY, v text NOT NULL);
                 INSERT INTO lists VALUES (1, ''), (2, '')";
    place.connect().await.unwrap().batch_execute(reset).await.unwrap();
    let begun = Instant::now();
    let now = || u64::try_from(begun.elapsed().as_nanos()).unwrap();
    let (mut clients, mut history) = (Vec::new(), Vec::new());
    for process in 0..2 {
        let client = place.connect().await.unwrap();
        let begun_ns = now();
        begin(&client, isolation).await;
        clients.push(client);
        history.push(Transaction {
            process,
            begun_ns,
            ended_ns: u64::MAX,
            operations: Vec::new(),
            outcome: Outcome::Aborted,
            is_final: false,
        });
    }
    let mut failed = [false; 2];
    for &(session, step) in steps {
        let (client, transaction) = (&clients[session], &mut history[session]);
        if failed[session] {
            // A COMMIT would be answered with ROLLBACK.
            continue;
        }
        let done = match step {
            Step::Read(key) => {
                let values = read(client, key).await;
                values.map(|values| transaction.operations.push(Operation::Read { key, values }))
            }
            Step::Append(key, value) => {
                transaction.operations.push(Operation::Append { key, value });
                let sql = format!("UPDATE lists SET v = v || ',{value}' WHERE k = {key}");
                client.batch_execute(&sql).await
            }
            Step::Commit => client.batch_execute("COMMIT").await.map(|()| {
                transaction.outcome = Outcome::Committed;
                transaction.ended_ns = now();
            }),
        };
        if let Err(error) = done {
            assert_eq!(code(&error), "40001", "{error}");
            failed[session] = true;
        }
    }
    let client = place.connect().await.unwrap();
    let begun_ns = now();
    let mut operations = Vec::new();
    for key in [1, 2] {
        let values = read(&client, key).await.unwrap();
        operations.push(Operation::Read { key, values });
    }
    history.push(Transaction {
        process: 2,
        begun_ns,
        ended_ns: now(),
        operations,
        outcome: Outcome::Committed,
        is_final: true,
    });
    history
}

async fn read(client: &Client, key: Key) -> Result<Vec<Value>, Error> {
    let row = client.query_one("SELECT v FROM lists WHERE k = $1", &[&key.cast_signed()]).await?;
    let text: &str = row.get(0);
    Ok(text.split(',').filter(|v| !v.is_empty()).map(|v| v.parse().unwrap()).collect())
}

/// What a history contains that `level` forbids.
fn found(history: &[Transaction], level: Level) -> Vec<Kind> {
    history::check(history, level, Order::Any).counts.into_keys().collect()
}

#[test]
fn the_checks_find_a_lost_update_and_a_write_skew_where_a_level_lets_them_through() {
    let (place, _alone) = database();
    let lost_update = [
        (0, Step::Read(1)),
        (1, Step::Read(1)),
        (0, Step::Append(1, 10)),
        (0, Step::Commit),
        (1, Step::Append(1, 20)),
        (1, Step::Commit),
    ];
    let write_skew = [
        (0, Step::Read(1)),
        (1, Step::Read(2)),
        (0, Step::Append(2, 10)),
        (1, Step::Append(1, 20)),
        (0, Step::Commit),
        (1, Step::Commit),
    ];
    runtime().block_on(async {
        let history = interleave(&place, ReadCommitted, &lost_update).await;
        assert_eq!(found(&history, Level::ReadCommitted), []);
        assert!(found(&history, Level::Snapshot).contains(&Kind::LostUpdate), "{history:?}");
        let history = interleave(&place, RepeatableRead, &lost_update).await;
        assert_eq!(history[1].outcome, Outcome::Aborted);
        assert_eq!(found(&history, Level::Snapshot), []);
        let history = interleave(&place, RepeatableRead, &write_skew).await;
        assert_eq!(found(&history, Level::Snapshot), []);
        assert_eq!(found(&history, Level::Serializable), [Kind::G2Item]);
        let history = interleave(&place, Serializable, &write_skew).await;
        assert_eq!(history[1].outcome, Outcome::Aborted);
        assert_eq!(found(&history, Level::Serializable), []);
    });
}

/// Transfers until `ends`; what each account got from those that were committed.
async fn teller(
    place: Arc<Place>,
    isolation: Isolation,
    number: i32,
    ends: Arc<AtomicBool>,
) -> BTreeMap<i32, i64> {
    let client = place.connect().await.unwrap();
    let mut sums = BTreeMap::new();
    let mut turn = number;
    while !ends.load(SeqCst) {
        turn += 1;
        let (source, target) = (turn % ACCOUNTS, (turn * 3 + number + 1) % ACCOUNTS);
        if source == target {
            continue;
        }
        begin(&client, isolation).await;
        let done = transfer(&client, isolation, source, target).await;
        if end(&client, done).await {
            *sums.entry(source).or_default() -= 1;
            *sums.entry(target).or_default() += 1;
        }
    }
    sums
}

/// From READ COMMITTED on a statement adds to what is there; above it, to what was read before.
async fn transfer(
    client: &Client,
    isolation: Isolation,
    source: i32,
    target: i32,
) -> Result<(), Error> {
    for (id, amount) in [(source, -1), (target, 1)] {
        if isolation == ReadCommitted {
            let sql = format!("UPDATE bank SET balance = balance + {amount} WHERE id = {id}");
            client.batch_execute(&sql).await?;
            continue;
        }
        let row = client.query_one("SELECT balance FROM bank WHERE id = $1", &[&id]).await?;
        let balance = row.get::<_, i64>(0) + amount;
        let sql = format!("UPDATE bank SET balance = {balance} WHERE id = {id}");
        client.batch_execute(&sql).await?;
    }
    Ok(())
}

/// Looks at the bank's sum until `ends`: one statement at READ COMMITTED, two of one snapshot above it.
async fn auditor(place: Arc<Place>, isolation: Isolation, ends: Arc<AtomicBool>) -> u64 {
    let client = place.connect().await.unwrap();
    let mut looks = 0;
    while !ends.load(SeqCst) {
        begin(&client, isolation).await;
        let parts: &[&str] = match isolation {
            ReadCommitted => &["id >= 0"],
            RepeatableRead | Serializable => &["id < 4", "id >= 4"],
        };
        let mut sum = 0;
        for part in parts {
            let sql = format!("SELECT sum(balance)::bigint FROM bank WHERE {part}");
            let row = client.query_one(&sql, &[]).await.unwrap();
            sum += row.get::<_, i64>(0);
        }
        if end(&client, Ok(())).await {
            assert_eq!(sum, i64::from(ACCOUNTS) * BALANCE, "{isolation:?}, look {looks}");
            looks += 1;
        }
    }
    looks
}

#[test]
fn a_banks_sum_is_the_same_in_every_snapshot_and_no_transfer_is_lost_at_any_level() {
    let (place, _alone) = database();
    runtime().block_on(async {
        for isolation in Isolation::ALL {
            let client = place.connect().await.unwrap();
            let reset = format!(
                "DROP TABLE IF EXISTS bank;
                 CREATE TABLE bank (id integer PRIMARY KEY, balance bigint NOT NULL);
                 INSERT INTO bank SELECT i, {BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) AS g (i)"
            );
            client.batch_execute(&reset).await.unwrap();
            let ends = Arc::new(AtomicBool::new(false));
            let auditor = tokio::spawn(auditor(Arc::clone(&place), isolation, Arc::clone(&ends)));
            let teller =
                |n| tokio::spawn(teller(Arc::clone(&place), isolation, n, Arc::clone(&ends)));
            let tellers: Vec<_> = (0..TELLERS).map(teller).collect();
            // How long to write, not a condition that is waited for.
            tokio::time::sleep(Duration::from_millis(500 * seconds())).await;
            ends.store(true, SeqCst);
            let mut expected: BTreeMap<i32, i64> = (0..ACCOUNTS).map(|id| (id, BALANCE)).collect();
            for teller in tellers {
                for (id, sum) in teller.await.unwrap() {
                    *expected.entry(id).or_default() += sum;
                }
            }
            assert!(auditor.await.unwrap() > 0, "nobody looked at {isolation:?}");
            let rows = client.query("SELECT id, balance FROM bank", &[]).await.unwrap();
            let found: BTreeMap<i32, i64> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
            assert_eq!(found, expected, "{isolation:?}");
        }
    });
}

/// Runs a turn of every session at once, `rounds` times; which sessions' turns stay.
async fn at_once<F>(
    place: &Arc<Place>,
    sessions: i32,
    rounds: i32,
    turn: impl Fn(Arc<Client>, i32, i32) -> F + Clone + Send + 'static,
) -> Vec<Vec<i32>>
where
    F: Future<Output = bool> + Send,
{
    let barrier = Arc::new(Barrier::new(usize::try_from(sessions).unwrap()));
    let mut tasks = Vec::new();
    for session in 0..sessions {
        let (place, barrier, turn) = (Arc::clone(place), Arc::clone(&barrier), turn.clone());
        tasks.push(tokio::spawn(async move {
            let client = Arc::new(place.connect().await.unwrap());
            let mut stay = Vec::new();
            for round in 0..rounds {
                barrier.wait().await;
                stay.push(turn(Arc::clone(&client), session, round).await);
            }
            stay
        }));
    }
    let mut winners = vec![Vec::new(); usize::try_from(rounds).unwrap()];
    for (session, task) in (0..).zip(tasks) {
        for (round, stays) in task.await.unwrap().into_iter().enumerate() {
            if stays {
                winners[round].push(session);
            }
        }
    }
    winners
}

#[test]
fn of_all_who_insert_one_key_at_once_exactly_one_wins_at_each_level() {
    let (place, _alone) = database();
    runtime().block_on(async {
        for isolation in Isolation::ALL {
            let client = place.connect().await.unwrap();
            let reset = "DROP TABLE IF EXISTS wanted;
                         CREATE TABLE wanted (k integer PRIMARY KEY, tag integer UNIQUE, who integer)";
            client.batch_execute(reset).await.unwrap();
            let winners = at_once(&place, 8, 60, move |client, session, round| async move {
                begin(&client, isolation).await;
                // In every second round by the other index.
                let (k, tag) = match round % 2 {
                    0 => (round, session * 1_000 + round),
                    _ => (100_000 + session * 1_000 + round, -round),
                };
                let sql = format!("INSERT INTO wanted VALUES ({k}, {tag}, {session})");
                match client.batch_execute(&sql).await {
                    Err(error) if code(&error) == "23505" => {
                        client.batch_execute("ROLLBACK").await.unwrap();
                        false
                    }
                    done => end(&client, done).await,
                }
            });
            let winners = winners.await;
            assert!(winners.iter().all(|won| won.len() == 1), "{isolation:?}: {winners:?}");
            let rows = client.query("SELECT who FROM wanted", &[]).await.unwrap();
            assert_eq!(rows.len(), winners.len(), "{isolation:?}");
        }
    });
}

#[test]
fn two_who_rely_on_each_other_never_both_leave_under_serializable() {
    let (place, _alone) = database();
    runtime().block_on(async {
        let client = place.connect().await.unwrap();
        let make = "CREATE TABLE duty (round integer, who integer, is_there boolean NOT NULL,
                                       PRIMARY KEY (round, who));
                    INSERT INTO duty SELECT r, w, true
                      FROM generate_series(0, 99) AS a (r), generate_series(0, 1) AS b (w)";
        client.batch_execute(make).await.unwrap();
        let left = at_once(&place, 2, 100, |client, who, round| async move {
            begin(&client, Serializable).await;
            let sql = "SELECT count(*) FROM duty WHERE round = $1 AND is_there";
            let done = match client.query_one(sql, &[&round]).await {
                Ok(row) if row.get::<_, i64>(0) < 2 => {
                    client.batch_execute("ROLLBACK").await.unwrap();
                    return false;
                }
                Ok(_) => {
                    let sql = "UPDATE duty SET is_there = false WHERE round = $1 AND who = $2";
                    client.execute(sql, &[&round, &who]).await.map(|_| ())
                }
                Err(error) => Err(error),
            };
            end(&client, done).await
        });
        let left = left.await;
        assert!(left.iter().all(|who| who.len() <= 1), "{left:?}");
        assert!(left.iter().any(|who| who.len() == 1), "nobody ever left: {left:?}");
    });
}
