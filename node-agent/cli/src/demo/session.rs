//! One session of the recorder: transactions one after the other, and a new connection when one ends.

use super::{record::Shared, target::Target};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_postgres::{Client, Error};

/// Pause before a session connects again.
const AGAIN: Duration = Duration::from_millis(20);
/// Longest wait for one answer. A link that is dead without saying so is found out by this.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What one session does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) run: i64,
    pub(crate) session: u16,
    pub(crate) accounts: u32,
    pub(crate) end: Instant,
}

/// A number for this run: the wall clock in milliseconds.
pub(crate) fn run_id() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Writes until the end of the run.
pub(crate) async fn run(target: Arc<Target>, settings: Settings, record: Arc<Shared>) {
    let mut number = 0;
    let mut first = true;
    while Instant::now() < settings.end {
        let connected = tokio::time::timeout(ANSWER_MAX, target.connect()).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                record.failed(&format!("{error:#}"));
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(_) => {
                record.failed("no connection within 3 s");
                continue;
            }
        };
        if !std::mem::take(&mut first) {
            record.reconnected();
        }
        while Instant::now() < settings.end {
            number += 1;
            if !transact(&client, &settings, number, &record).await {
                break;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One transaction; whether the session is still good.
async fn transact(client: &Client, settings: &Settings, number: u64, record: &Shared) -> bool {
    let begun = Instant::now();
    match tokio::time::timeout(ANSWER_MAX, work(client, settings, number)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            record.failed(&words(&error));
            return recover(client, &error).await;
        }
        Err(_) => {
            record.failed("no answer within 3 s");
            return false;
        }
    }
    match tokio::time::timeout(ANSWER_MAX, client.batch_execute("COMMIT")).await {
        Ok(Ok(())) => {
            record.acknowledged(settings.session, number, begun.elapsed());
            true
        }
        Ok(Err(error)) if is_rolled_back(&error) => {
            record.failed(&words(&error));
            recover(client, &error).await
        }
        Ok(Err(error)) => {
            record.unknown(settings.session, number, &words(&error));
            false
        }
        Err(_) => {
            record.unknown(settings.session, number, "no answer to COMMIT within 3 s");
            false
        }
    }
}

async fn work(client: &Client, settings: &Settings, number: u64) -> Result<(), Error> {
    let mixed = (u64::from(settings.session) << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let account = (mixed >> 33) as i64 % i64::from(settings.accounts) + 1;
    let delta = (mixed & 0x3ff) as i64 - 512;
    let (run, session) = (settings.run, settings.session);
    client
        .batch_execute(&format!(
            "BEGIN; \
             UPDATE understudy_demo_accounts SET balance = balance + {delta} WHERE id = {account}; \
             INSERT INTO understudy_demo_history (run, session, number, account, delta) \
             VALUES ({run}, {session}, {number}, {account}, {delta})"
        ))
        .await
}

/// Whether an error of COMMIT says for certain that nothing happened.
#[must_use]
pub fn is_rolled_back(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        // Serialization failures, deadlocks, refusals of a read-only or fenced member before logging,
        // a full log and too large a transaction; 40003 and 57P01 say nothing about the outcome.
        matches!(
            code.code(),
            "40001" | "40P01" | "25006" | "53100" | "25P02" | "55000" | "57P03" | "54000"
        )
    })
}

/// After an error: whether the session can go on.
pub async fn recover(client: &Client, error: &Error) -> bool {
    error.code().is_some()
        && !client.is_closed()
        && matches!(
            tokio::time::timeout(ANSWER_MAX, client.batch_execute("ROLLBACK")).await,
            Ok(Ok(()))
        )
        && error.code().is_none_or(|c| c.code() != "25006")
}

fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => error.to_string(),
    }
}
