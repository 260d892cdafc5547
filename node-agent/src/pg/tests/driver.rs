//! The front end through a driver that knows nothing of it: start-up, SCRAM, types in binary, pipelines.

use crate::pg::{
    ClientTls, Database, Listener, PlainConnections,
    testing::{MemoryDatabase, PASSWORD, USER},
};
use std::{sync::Arc, time::SystemTime};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, error::SqlState};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(listener: &Listener) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(listener.address().unwrap().port());
    config.user(USER).password(PASSWORD).dbname("orders");
    config
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", SqlState::code)
}

#[test]
fn the_right_password_opens_a_session_and_no_other_does() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        assert_eq!(client.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        let wrong = connect(config(&listener).password("battery staple")).await.unwrap_err();
        assert_eq!(code(&wrong), "28P01");
        let unknown = connect(config(&listener).user("nobody")).await.unwrap_err();
        assert_eq!(code(&unknown), "28P01", "an unknown user is told the same");
    });
}

#[test]
fn a_plain_connection_is_refused_where_encryption_is_required() {
    runtime().block_on(async {
        let tls = ClientTls { source: Arc::new(|| None), plain: PlainConnections::Refuse };
        let listener = MemoryDatabase::active().listen(tls);
        let refused = connect(&config(&listener)).await.unwrap_err();
        assert_eq!(code(&refused), "28000");
        let hint = refused.as_db_error().and_then(|error| error.hint()).unwrap();
        assert!(hint.contains("sslmode=require"), "{hint}");
    });
}

#[test]
fn the_session_after_the_last_place_is_refused() {
    runtime().block_on(async {
        let listener = MemoryDatabase::with_sessions(1).listen(ClientTls::none());
        let first = connect(&config(&listener)).await.unwrap();
        assert_eq!(code(&connect(&config(&listener)).await.unwrap_err()), "53300");
        drop(first);
    });
}

#[test]
fn values_of_every_type_travel_in_binary_both_ways() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        client
            .batch_execute(
                "create table v (k int primary key, b bool, i2 smallint, i4 int, i8 bigint,
                 f4 real, f8 double precision, t text, c varchar(10), y bytea, w timestamptz)",
            )
            .await
            .unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        client
            .execute(
                "insert into v values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                &[
                    &1_i32,
                    &true,
                    &-2_i16,
                    &3_i32,
                    &i64::MIN,
                    &1.5_f32,
                    &-0.1_f64,
                    &"täxt",
                    &"short",
                    &&b"\x00\xff"[..],
                    &at,
                ],
            )
            .await
            .unwrap();
        let row = client.query_one("select * from v where k = $1", &[&1_i32]).await.unwrap();
        assert!(row.get::<_, bool>("b"));
        assert_eq!(row.get::<_, i16>("i2"), -2);
        assert_eq!(row.get::<_, i32>("i4"), 3);
        assert_eq!(row.get::<_, i64>("i8"), i64::MIN);
        assert_eq!(row.get::<_, f32>("f4"), 1.5);
        assert_eq!(row.get::<_, f64>("f8"), -0.1);
        assert_eq!(row.get::<_, &str>("t"), "täxt");
        assert_eq!(row.get::<_, &str>("c"), "short");
        assert_eq!(row.get::<_, &[u8]>("y"), b"\x00\xff");
        assert_eq!(row.get::<_, SystemTime>("w"), at);
        let none = client.query_one("select $1::text", &[&Option::<&str>::None]).await.unwrap();
        assert_eq!(none.get::<_, Option<&str>>(0), None);
    });
}

#[test]
fn a_prepared_statement_outlives_a_change_of_its_table() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        client.batch_execute("create table p (k int primary key, v int)").await.unwrap();
        let insert = client.prepare("insert into p values ($1, $2)").await.unwrap();
        client.execute(&insert, &[&1_i32, &10_i32]).await.unwrap();
        client.batch_execute("create index on p (v)").await.unwrap();
        client.execute(&insert, &[&2_i32, &20_i32]).await.unwrap();
        let rows = client.query("select v from p order by k", &[]).await.unwrap();
        let values: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(values, [10, 20]);
    });
}

#[test]
fn a_transaction_of_a_driver_commits_and_rolls_back() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let mut client = connect(&config(&listener)).await.unwrap();
        client.batch_execute("create table x (k int primary key)").await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("insert into x values (1)", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("insert into x values (2)", &[]).await.unwrap();
        transaction.rollback().await.unwrap();
        let count = client.query_one("select count(*) from x", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 1);
    });
}

#[test]
fn a_standby_reads_and_names_the_active_to_writers() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        client.batch_execute("create table s (k int); insert into s values (1)").await.unwrap();
        database.demote("orders-2");
        let client = connect(&config(&listener)).await.unwrap();
        let read = client.query_one("select k from s", &[]).await.unwrap();
        assert_eq!(read.get::<_, i32>(0), 1);
        let refused = client.execute("insert into s values (2)", &[]).await.unwrap_err();
        assert_eq!(code(&refused), "25006");
        let hint = refused.as_db_error().and_then(|error| error.hint()).unwrap();
        assert!(hint.contains("orders-2"), "{hint}");
        let shown = client.simple_query("show transaction_read_only").await.unwrap();
        let value = shown.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(value, Some("on"));
        let wants_writes = config(&listener)
            .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite)
            .clone();
        assert!(connect(&wants_writes).await.is_err(), "a driver that wants to write goes on");
    });
}

#[test]
fn a_member_that_follows_nobody_lets_administrators_in_and_nobody_else() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let admin = connect(&config(&listener)).await.unwrap();
        admin.simple_query("CREATE USER clerk PASSWORD 'quill'").await.unwrap();
        database.idle();
        let refused = connect(config(&listener).user("clerk").password("quill")).await.unwrap_err();
        assert_eq!(code(&refused), "57P03", "a client with several hosts goes on to the next");
        let wrong = connect(config(&listener).user("clerk").password("pen")).await.unwrap_err();
        assert_eq!(code(&wrong), "28P01", "strangers are not told who may");
        let admin = connect(&config(&listener)).await.unwrap();
        let state = admin.simple_query("CALL ttRepStateGet()").await.unwrap();
        let state = state.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(state, Some("IDLE"));
    });
}

#[test]
fn a_user_changes_the_password_and_only_an_administrator_makes_users() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let admin = connect(&config(&listener)).await.unwrap();
        admin.batch_execute("create user app password 'one'").await.unwrap();
        let mut as_app = config(&listener);
        let app = connect(as_app.user("app").password("one")).await.unwrap();
        let refused = app.batch_execute("create user other password 'x'").await.unwrap_err();
        assert_eq!(code(&refused), "42501");
        app.batch_execute("alter user app password 'two'").await.unwrap();
        assert_eq!(code(&connect(&as_app).await.unwrap_err()), "28P01");
        connect(as_app.password("two")).await.unwrap();
    });
}

#[test]
fn a_driver_cancels_a_statement_that_waits() {
    runtime().block_on(async {
        let listener = MemoryDatabase::active().listen(ClientTls::none());
        let holder = connect(&config(&listener)).await.unwrap();
        let waiter = connect(&config(&listener)).await.unwrap();
        holder.batch_execute("create table c (k int); insert into c values (1)").await.unwrap();
        holder.batch_execute("begin; update c set k = 2").await.unwrap();
        let token = waiter.cancel_token();
        // A request that comes before its statement has no effect, so they are repeated.
        let cancels = async {
            loop {
                token.cancel_query(NoTls).await.unwrap();
            }
        };
        let result = tokio::select! {
            result = waiter.batch_execute("update c set k = 3") => result,
            () = cancels => Ok(()),
        };
        assert_eq!(code(&result.unwrap_err()), "57014");
    });
}

/// What `pg_stat_activity` says of one application: state, wait event, statement.
async fn doing(client: &Client, application: &str) -> (String, Option<String>, String) {
    let query = "SELECT state, wait_event, query FROM pg_stat_activity WHERE application_name = $1";
    let row = client.query_one(query, &[&application]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn a_forgotten_snapshot_is_named_and_ended_by_a_timeout() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let watcher = connect(&config(&listener)).await.unwrap();
        watcher.batch_execute("CREATE TABLE t (a int)").await.unwrap();
        let mut forgetful = config(&listener);
        let forgetful = connect(forgetful.application_name("forgets")).await.unwrap();
        forgetful.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        forgetful.query("SELECT a FROM t", &[]).await.unwrap();
        let taken = database.acknowledged_lsn();
        let holders = "SELECT application_name, backend_xmin FROM pg_stat_activity \
                       WHERE backend_xmin IS NOT NULL";
        for _ in 0..3 {
            watcher.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
            let held = watcher.query(holders, &[]).await.unwrap();
            let held: Vec<(String, String)> = held.iter().map(|r| (r.get(0), r.get(1))).collect();
            assert_eq!(held, [("forgets".to_owned(), taken.to_string())]);
        }
        let limit = "SET LOCAL idle_in_transaction_session_timeout = '20ms'";
        forgetful.batch_execute(limit).await.unwrap();
        while !watcher.query(holders, &[]).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let ended = forgetful.query("SELECT a FROM t", &[]).await.unwrap_err();
        assert!(ended.is_closed() || code(&ended) == "25P03", "{ended}");
        assert_eq!(watcher.query("SELECT a FROM t", &[]).await.unwrap().len(), 3);
    });
}

#[test]
fn sessions_say_what_they_do_and_what_they_wait_for() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let open = async |name: &str| {
            let mut config = config(&listener);
            connect(config.application_name(name)).await.unwrap()
        };
        let (watcher, holder, waiter) = (open("watch").await, open("hold").await, open("").await);
        waiter.batch_execute("SET application_name = wait").await.unwrap();
        holder.batch_execute("CREATE TABLE t (a int PRIMARY KEY)").await.unwrap();
        holder.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        holder.batch_execute("BEGIN").await.unwrap();
        holder.execute("UPDATE t SET a = a", &[]).await.unwrap();
        let held = ("idle in transaction".to_owned(), None, "UPDATE t SET a = a".to_owned());
        assert_eq!(doing(&watcher, "hold").await, held);
        let blocked = tokio::spawn(async move { waiter.batch_execute("DELETE FROM t").await });
        let waits = ("active".to_owned(), Some("transactionid".to_owned()), "DELETE FROM t".into());
        while doing(&watcher, "wait").await != waits {
            assert!(!blocked.is_finished(), "it waited for nobody");
            tokio::task::yield_now().await;
        }
        let failed = holder.batch_execute("SELECT 1/0").await.unwrap_err();
        assert_eq!(code(&failed), "22012");
        assert_eq!(doing(&watcher, "hold").await.0, "idle in transaction (aborted)");
        holder.batch_execute("ROLLBACK").await.unwrap();
        blocked.await.unwrap().unwrap();
        assert_eq!(doing(&watcher, "hold").await.0, "idle");
        assert_eq!(doing(&watcher, "watch").await.0, "active");
        watcher.batch_execute("CREATE USER clerk PASSWORD 'quill'").await.unwrap();
        let clerk = connect(config(&listener).user("clerk").password("quill")).await.unwrap();
        assert_eq!(doing(&clerk, "hold").await.2, "<insufficient privilege>");
    });
}

/// The numbers of the sessions that a query lists.
async fn pids(client: &Client, query: &str) -> Vec<i32> {
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn locks_say_who_waits_for_whom_and_transactions_what_they_hold() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let open = async || connect(&config(&listener)).await.unwrap();
        let (watcher, holder, waiter) = (open().await, open().await, open().await);
        let own = async |client: &Client| pids(client, "SELECT pg_backend_pid()").await[0];
        let (holds, waits) = (own(&holder).await, own(&waiter).await);
        holder.batch_execute("CREATE TABLE t (a int PRIMARY KEY)").await.unwrap();
        holder.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        holder.execute("UPDATE t SET a = a", &[]).await.unwrap();
        let blocked = tokio::spawn(async move { waiter.batch_execute("DELETE FROM t").await });
        let waiting = "SELECT pid FROM pg_locks WHERE NOT granted";
        while pids(&watcher, waiting).await != [waits] {
            assert!(!blocked.is_finished(), "it waited for nobody");
            tokio::task::yield_now().await;
        }
        let blocker = "SELECT held.pid FROM pg_locks held JOIN pg_locks wanted \
             ON held.transactionid = wanted.transactionid WHERE held.granted AND NOT wanted.granted";
        assert_eq!(pids(&watcher, blocker).await, [holds]);
        let query = format!("SELECT pg_blocking_pids({waits})::text, pg_blocking_pids({holds})::text");
        let row = watcher.query_one(&query, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (format!("{{{holds}}}"), "{}".to_owned()));
        let tables = "SELECT pid FROM pg_locks WHERE relation = 't'::regclass \
             AND mode = 'RowExclusiveLock' ORDER BY pid";
        assert!(pids(&watcher, tables).await.contains(&holds));
        let query = "SELECT isolation, operations, snapshot_lsn > 0, waits_for \
             FROM understudy_transactions WHERE pid = $1";
        let row = watcher.query_one(query, &[&holds]).await.unwrap();
        let seen: (String, i64, bool, Option<i32>) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(seen, ("repeatable read".to_owned(), 1, true, None));
        let row = watcher.query_one(query, &[&waits]).await.unwrap();
        assert_eq!(row.get::<_, Option<i32>>(3), Some(holds));
        holder.batch_execute("ROLLBACK").await.unwrap();
        blocked.await.unwrap().unwrap();
        assert!(pids(&watcher, waiting).await.is_empty());
    });
}

#[test]
fn tables_indexes_and_transactions_are_counted() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        client.batch_execute("CREATE TABLE t (a int PRIMARY KEY, b int)").await.unwrap();
        let ended = "SELECT xact_commit, xact_rollback, tup_inserted FROM pg_stat_database";
        let before = client.query_one(ended, &[]).await.unwrap();
        client
            .batch_execute("INSERT INTO t SELECT g, g FROM generate_series(1, 10) g")
            .await
            .unwrap();
        client.batch_execute("UPDATE t SET b = 0 WHERE a = 3").await.unwrap();
        client.batch_execute("BEGIN; DELETE FROM t; ROLLBACK").await.unwrap();
        client.batch_execute("DELETE FROM t WHERE a = 4").await.unwrap();
        let query = "SELECT n_tup_ins, n_tup_upd, n_tup_del, n_live_tup, seq_scan > 0, \
             (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_pkey') \
             FROM pg_stat_user_tables WHERE relname = 't'";
        let row = client.query_one(query, &[]).await.unwrap();
        let counts: Vec<i64> = [0, 1, 2, 3, 5].map(|at| row.get(at)).to_vec();
        assert_eq!((counts, row.get(4)), (vec![10, 1, 1, 9, 2], true));
        let after = client.query_one(ended, &[]).await.unwrap();
        let more = |at| after.get::<_, i64>(at) - before.get::<_, i64>(at);
        // The look before, the INSERT, the UPDATE, the DELETE, and the look at the tables.
        assert_eq!((more(0), more(1), more(2)), (5, 1, 10));
        let query = "SELECT pg_relation_size('t') > 0, pg_indexes_size('t'::regclass) > 0, \
             pg_total_relation_size('t') = pg_table_size('t') + pg_indexes_size('t'), \
             pg_relation_size('t_pkey') = pg_indexes_size('t'), pg_relation_size(1) IS NULL";
        let row = client.query_one(query, &[]).await.unwrap();
        assert!((0..5).all(|at| row.get::<_, bool>(at)), "{row:?}");
    });
}

#[test]
fn only_an_administrator_sets_what_is_logged() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let listener = database.listen(ClientTls::none());
        let client = connect(&config(&listener)).await.unwrap();
        client.batch_execute("SET log_min_duration_statement = '250ms'").await.unwrap();
        client.batch_execute("CREATE USER clerk PASSWORD 'quill'").await.unwrap();
        let clerk = connect(config(&listener).user("clerk").password("quill")).await.unwrap();
        let refused = clerk.batch_execute("SET log_min_duration_statement = 0").await;
        assert_eq!(code(&refused.unwrap_err()), "42501");
        let shown = clerk.query_one("SHOW log_min_duration_statement", &[]).await.unwrap();
        assert_eq!(shown.get::<_, String>(0), "-1");
    });
}
