//! A table scan while others write: no writer waits for it, also on the loop that it began on, and it can
//! be ended at any time.

use crate::histories::{code, runtime};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use understudy_tests::alone::Place;

/// Longest wait for anything here.
const COMES: Duration = Duration::from_secs(60);
/// Rows of the table.
const ROWS: i32 = 20_000;
/// For longer than anybody waits.
const FOREVER: &str = "SELECT count(*) FROM t AS a, t AS b, t AS c WHERE a.n + b.n + c.n < 0";

async fn with_table(place: &Place) {
    let client = place.connect().await.unwrap();
    let make = format!(
        "CREATE TABLE t (k integer PRIMARY KEY, n bigint NOT NULL);
         INSERT INTO t SELECT i, 1 FROM generate_series(1, {ROWS}) AS g (i)"
    );
    client.batch_execute(&make).await.unwrap();
}

#[test]
fn no_writer_waits_for_a_scan_and_a_scan_can_be_cancelled() {
    // All sessions on one thread: what runs there runs for all of them.
    let place = Arc::new(Place::new(&["--memory", "128Mi", "--loops", "1"]).unwrap());
    let _alone = place.start().unwrap();
    runtime().block_on(async {
        with_table(&place).await;
        let reader = place.connect().await.unwrap();
        let cancel = reader.cancel_token();
        let scan = tokio::spawn(async move { reader.query(FOREVER, &[]).await.map(|_| reader) });
        let writer = place.connect().await.unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%AS b%' \
                       AND state = 'active' AND pid <> pg_backend_pid()";
        let writes = async {
            while writer.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                assert!(!scan.is_finished());
            }
            let update = writer.prepare("UPDATE t SET n = n + 1 WHERE k = $1").await.unwrap();
            for k in 1..=500 {
                assert_eq!(writer.execute(&update, &[&k]).await.unwrap(), 1);
            }
            writer.batch_execute("DELETE FROM t WHERE k > 10000").await.unwrap();
        };
        timeout(COMES, writes).await.expect("a writer waits for a scan");
        assert!(!scan.is_finished(), "the scan was over before the writes");
        cancel.cancel_query(NoTls).await.unwrap();
        let ended = timeout(COMES, scan).await.expect("the scan cannot be cancelled").unwrap();
        assert_eq!(ended.err().as_ref().map(code), Some("57014"));
    });
}

#[test]
fn a_scan_ends_by_its_timeout_and_with_its_session() {
    let place = Arc::new(Place::new(&["--memory", "128Mi"]).unwrap());
    let mut alone = place.start().unwrap();
    runtime().block_on(async {
        with_table(&place).await;
        let client = place.connect().await.unwrap();
        client.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
        let ended = timeout(COMES, client.query(FOREVER, &[])).await.expect("it goes on");
        let error = ended.expect_err("it ended before its time");
        assert_eq!(code(&error), "57014");
        assert!(
            error.to_string().contains("statement timeout")
                || error.as_db_error().is_some_and(|db| db.message().contains("statement timeout")),
            "{error}"
        );
        // The session is as good as before.
        client.batch_execute("SET statement_timeout = 0").await.unwrap();
        let sum = client.query_one("SELECT sum(n)::bigint FROM t", &[]).await.unwrap();
        assert_eq!(sum.get::<_, i64>(0), i64::from(ROWS));
        let scan = tokio::spawn(async move { client.query(FOREVER, &[]).await.map(|_| ()) });
        let watcher = place.connect().await.unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%AS b%' \
                       AND state = 'active' AND pid <> pg_backend_pid()";
        while watcher.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(!scan.is_finished());
        }
        alone.stop().unwrap();
        assert!(timeout(COMES, scan).await.expect("it goes on").unwrap().is_err());
    });
}

/// Whoever began before a change sees none of it, however long it reads.
#[test]
fn a_scan_sees_one_state_while_every_row_of_it_is_changed() {
    let place = Arc::new(Place::new(&["--memory", "256Mi"]).unwrap());
    let _alone = place.start().unwrap();
    runtime().block_on(async {
        with_table(&place).await;
        let (reader, writer) = (place.connect().await.unwrap(), place.connect().await.unwrap());
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let look = "SELECT count(*), sum(n)::bigint FROM t";
        let first = reader.query_one(look, &[]).await.unwrap();
        assert_eq!((first.get(0), first.get(1)), (i64::from(ROWS), i64::from(ROWS)));
        for _ in 0..3 {
            let changes = async {
                writer.batch_execute("UPDATE t SET n = n + 1").await.unwrap();
                writer.batch_execute("DELETE FROM t WHERE k % 3 = 0").await.unwrap();
            };
            let (again, ()) = tokio::join!(reader.query_one(look, &[]), changes);
            let again = again.unwrap();
            assert_eq!((again.get(0), again.get(1)), (i64::from(ROWS), i64::from(ROWS)));
        }
        reader.batch_execute("COMMIT").await.unwrap();
    });
}
