//! Memory that is used up: the statement that asked for more is refused with 53200, all else goes on, and
//! deleting makes room.

use crate::{COMES, LOOK, code, runtime};
use std::{sync::Arc, time::Instant};
use tokio::time::sleep;
use tokio_postgres::Client;
use understudy_tests::alone::Place;

/// Sessions that fill the memory.
const WRITERS: i64 = 4;
/// Bytes of a row.
const ROW: i64 = 20_000;
/// Far more rows than fit.
const ROWS_MAX: i64 = 20_000;

/// Inserts until it is refused; how many rows were acknowledged.
async fn until_refused(place: Arc<Place>, from: i64) -> i64 {
    let client = place.connect().await.unwrap();
    for n in 0..ROWS_MAX {
        let sql = format!("INSERT INTO t VALUES ({}, repeat('x', {ROW}))", from + n);
        if let Err(error) = client.batch_execute(&sql).await {
            assert_eq!(code(&error), Some("53200"), "{error}: {:?}", error.as_db_error());
            return n;
        }
    }
    panic!("the memory does not fill up");
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[test]
fn full_memory_refuses_the_statement_alone_and_deleting_makes_room() {
    let place = Arc::new(Place::new(&["--memory", "64Mi", "--log-size", "256Mi"]).unwrap());
    let mut alone = place.start().unwrap();
    runtime().block_on(async {
        let client = place.connect().await.unwrap();
        let make = "CREATE TABLE t (k bigint PRIMARY KEY, v text NOT NULL);
                    CREATE TABLE small (k integer PRIMARY KEY, n integer NOT NULL);
                    INSERT INTO small VALUES (1, 0)";
        client.batch_execute(make).await.unwrap();
        let writer = |n| tokio::spawn(until_refused(Arc::clone(&place), n * ROWS_MAX));
        let writers: Vec<_> = (0..WRITERS).map(writer).collect();
        let mut told = 0;
        for writer in writers {
            told += writer.await.unwrap();
        }
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, told);
        let whole = format!("SELECT count(*) FROM t WHERE length(v) = {ROW}");
        assert_eq!(number(&client, &whole).await, told);
        // A refused statement of a transaction leaves what a savepoint keeps.
        let sql = "BEGIN; SAVEPOINT s; INSERT INTO t SELECT -i, repeat('z', 20000)
                   FROM generate_series(1, 4000) AS g (i)";
        let refused = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&refused), Some("53200"), "{refused}");
        client.batch_execute("ROLLBACK TO s; COMMIT").await.unwrap();
        // What fits in a new process before fits again.
        alone.kill().unwrap();
        alone = place.start().unwrap();
        let client = place.connect().await.unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, told);
        client.batch_execute("DELETE FROM t WHERE k % 2 = 0").await.unwrap();
        let left = number(&client, "SELECT count(*) FROM t").await;
        let again = format!("INSERT INTO t VALUES (-1, repeat('x', {ROW} * 100))");
        let until = Instant::now() + COMES;
        while let Err(error) = client.batch_execute(&again).await {
            assert_eq!(code(&error), Some("53200"), "{error}");
            assert!(Instant::now() < until, "deleting made no room");
            sleep(LOOK).await;
        }
        client.batch_execute("UPDATE small SET n = n + 1").await.unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, left + 1);
    });
}

#[test]
fn a_statement_that_needs_too_much_while_it_runs_is_refused_alone() {
    let options = ["--memory", "128Mi", "--temporary", "2Mi", "--log-size", "256Mi"];
    let place = Place::new(&options).unwrap();
    let _alone = place.start().unwrap();
    runtime().block_on(async {
        let (client, other) = (place.connect().await.unwrap(), place.connect().await.unwrap());
        let make = "CREATE TABLE t (k bigint PRIMARY KEY, v text NOT NULL);
                    CREATE TABLE c (k bigint, v text)";
        client.batch_execute(make).await.unwrap();
        for from in (1..20_000).step_by(2_000) {
            let rows = format!(
                "INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series({from}, {from} + 1999) AS g (i)"
            );
            client.batch_execute(&rows).await.unwrap();
        }
        let greedy = [
            "SELECT v FROM t ORDER BY k % 7",
            "SELECT DISTINCT k, v FROM t",
            "SELECT k, v, count(*) FROM t GROUP BY k, v",
            "SELECT count(*) FROM t AS a JOIN t AS b ON a.v || a.k = b.v || b.k",
            "SELECT k, v FROM t EXCEPT SELECT 0, ''",
            "SELECT count(*) FROM t WHERE v NOT IN (SELECT v || k FROM t)",
            "SELECT length(ARRAY(SELECT v FROM t))",
            "SELECT length(string_agg(v, ',')) FROM t",
            "SELECT * FROM t FOR UPDATE",
            "INSERT INTO c SELECT k, v FROM t",
            "UPDATE t SET v = v || 'y'",
            "UPDATE t SET v = (SELECT 'y')",
            "ALTER TABLE t ADD COLUMN s serial",
        ];
        for sql in greedy {
            let refused = client.simple_query(sql).await.unwrap_err();
            assert_eq!(code(&refused), Some("53200"), "{sql}: {refused}");
            let hint = refused.as_db_error().and_then(|error| error.hint());
            assert!(hint.is_some_and(|hint| hint.contains("raise memory.temporary")), "{hint:?}");
            other.batch_execute("UPDATE t SET v = 'z' WHERE k = 1").await.unwrap();
        }
        // It was given back each time.
        assert_eq!(number(&client, "SELECT count(*) FROM t WHERE v = 'z'").await, 1);
        client.simple_query("SELECT v FROM t WHERE k < 1000 ORDER BY k % 7").await.unwrap();
        client.batch_execute("UPDATE t SET v = v || 'y' WHERE k <= 10000").await.unwrap();
        // A DELETE keeps little of its rows.
        client.batch_execute("DELETE FROM t").await.unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
    });
}
