//! What a process, a disk or memory that ends does to one database: `understudy standalone`, the real
//! program, against the record of its clients.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

mod damage;
mod disk_failed;
mod disk_full;
mod kills;
mod load;
mod memory_full;
mod verdict;

use std::time::Duration;
use tokio_postgres::Error;

/// Longest wait for something that comes by itself.
const COMES: Duration = Duration::from_secs(60);
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The SQLSTATE of an answer; none: the connection broke.
fn code(error: &Error) -> Option<&str> {
    error.code().map(|code| code.code())
}
