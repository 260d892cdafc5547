//! The log of slow statements as whoever reads it meets it: what is told of which statement.
//!
//! Each test reads what its own thread logs, where its sessions run too, through a subscriber of its own
//! in the program's form. Statements are never made slow: zero logs all of them, and an hour none.

use super::wire::{
    Wire, batch, field, parse, query, rows, runtime, send_and_hold, sync, tags, with_table,
};
use crate::pg::testing::{MemoryDatabase, USER};
use std::{
    io,
    sync::{Arc, Mutex},
};
use tracing::subscriber::DefaultGuard;

/// What this thread logs as long as it is held.
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

/// The end of the log that is written to.
struct Pen(Arc<Mutex<Vec<u8>>>);

impl io::Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> Log {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let pen = Arc::clone(&bytes);
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        let lines = lines.with_writer(move || Pen(Arc::clone(&pen))).finish();
        Log { bytes, _guard: tracing::subscriber::set_default(lines) }
    }

    /// What was logged of slow statements since the last look.
    fn slow(&self) -> Vec<serde_json::Value> {
        let bytes = std::mem::take(&mut *self.bytes.lock().unwrap());
        let lines = String::from_utf8(bytes).unwrap();
        let told = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        told.filter(|line: &serde_json::Value| line["message"] == "slow statement").collect()
    }

    /// Their texts.
    fn texts(&self) -> Vec<String> {
        let text = |line: &serde_json::Value| line["statement"].as_str().unwrap().to_owned();
        self.slow().iter().map(text).collect()
    }
}

/// A session with a table and this bound, whose log is read from here on.
///
/// The log begins first: whether anybody wants a kind of line is remembered by the whole process, and who
/// logs the first one must not be a thread that nobody listens to.
async fn with_bound(database: &Arc<MemoryDatabase>, bound: &str) -> (Wire, Log) {
    let log = Log::begin();
    let mut wire = with_table(database).await;
    let set = wire.query(&format!("set log_min_duration_statement = {bound}")).await;
    assert_eq!(tags(&set), "CZ", "{set:?}");
    log.slow();
    (wire, log)
}

#[test]
fn zero_logs_each_statement_once_and_says_whose_it_was() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        wire.query("select v from t").await;
        let lines = log.slow();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["statement"], "select v from t");
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
        assert_eq!((&line["user"], &line["database"]), (&USER.into(), &"orders".into()));
        assert_eq!(line["pid"], wire.pid);
        wire.query("select nosuch from t").await;
        wire.query("select 1; select 2").await;
        assert_eq!(log.texts(), ["select nosuch from t", "select 1; select 2"]);
    });
}

#[test]
fn a_statement_with_parameters_is_logged_without_their_values() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        let text = "select v from t where id = $1 + 0";
        wire.send(&[parse("", text), batch("", &["2"])].concat()).await;
        assert_eq!(rows(&wire.until_ready().await), ["20"]);
        let lines = log.slow();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["statement"], text);
    });
}

#[test]
fn a_statement_that_is_only_parsed_is_logged_by_its_own_text() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        for text in ["select v from t", "select nosuch from t"] {
            wire.send(&[parse("", text), sync()].concat()).await;
            wire.until_ready().await;
            assert_eq!(log.texts(), [text]);
        }
    });
}

#[test]
fn an_empty_text_is_not_logged_by_the_one_before() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        wire.query("select 1").await;
        assert_eq!(tags(&wire.query("").await), "IZ");
        wire.send(&[parse("", ""), batch("", &[])].concat()).await;
        assert_eq!(tags(&wire.until_ready().await), "12nIZ");
        assert_eq!(log.texts(), ["select 1", "", ""]);
    });
}

#[test]
fn a_known_batch_is_logged_by_its_own_text() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        let text = "select v from t where id = $1";
        wire.send(&[parse("s", text), sync()].concat()).await;
        wire.until_ready().await;
        wire.query("select 1").await;
        log.slow();
        wire.send(&batch("s", &["2"])).await;
        assert_eq!(rows(&wire.until_ready().await), ["20"]);
        assert_eq!(log.texts(), [text]);
    });
}

#[test]
fn a_commit_that_waits_is_logged_once() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut wire, log) = with_bound(&database, "0").await;
        let text = "update t set v = v + 1";
        send_and_hold(&database, &mut wire, &query(text)).await;
        database.acknowledge();
        assert_eq!(tags(&wire.until_ready().await), "CZ");
        assert_eq!(log.texts(), [text]);
    });
}

#[test]
fn a_bound_that_nothing_reaches_logs_nothing() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let (mut wire, log) = with_bound(&database, "'1h'").await;
        wire.query("select v from t").await;
        send_and_hold(&database, &mut wire, &query("update t set v = v + 1")).await;
        database.acknowledge();
        wire.until_ready().await;
        assert_eq!(log.texts(), [""; 0]);
    });
}

#[test]
fn minus_one_logs_nothing_from_the_statement_on_that_sets_it() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        let off = "set log_min_duration_statement = -1";
        for text in ["select 1", off, "select 2"] {
            wire.query(text).await;
        }
        assert_eq!(log.texts(), ["select 1"]);
        let on = "set local log_min_duration_statement = 0";
        for text in ["begin", on, "select 3", "commit", "select 4"] {
            wire.query(text).await;
        }
        assert_eq!(log.texts(), [on, "select 3"], "SET LOCAL ends with its transaction");
    });
}

#[test]
fn a_long_text_is_cut_and_one_with_a_password_is_not_shown() {
    runtime().block_on(async {
        let (mut wire, log) = with_bound(&MemoryDatabase::active(), "0").await;
        let long = format!("select '{}'", "x".repeat(10_000));
        wire.query(&long).await;
        wire.query("create user clerk password 'quill'").await;
        let texts = log.texts();
        assert_eq!(texts, [&long[..8192], "(not shown: it names a password)"]);
    });
}

#[test]
fn who_is_no_administrator_sets_no_bound() {
    runtime().block_on(async {
        let log = Log::begin();
        let database = MemoryDatabase::active();
        let mut admin = with_table(&database).await;
        admin.query("create user clerk password 'quill'").await;
        let mut clerk = Wire::open_as(&database, "clerk").await;
        for set in ["set", "set session", "begin; set local"] {
            let refused = clerk.query(&format!("{set} log_min_duration_statement = 0")).await;
            assert_eq!(field(&refused, 'C').as_deref(), Some("42501"), "{set}");
        }
        assert_eq!(tags(&clerk.query("rollback").await), "CZ");
        clerk.query("select v from t").await;
        assert_eq!(log.texts(), [""; 0]);
        admin.query("set log_min_duration_statement = 0").await;
        clerk.query("select v from t").await;
        assert_eq!(log.texts(), ["set log_min_duration_statement = 0"], "of that session alone");
    });
}
