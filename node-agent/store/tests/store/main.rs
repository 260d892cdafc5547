//! The store's behaviour as its users see it, one file per theme, in one binary.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod anomalies;
mod checkpoint;
mod counts;
mod database;
mod definitions;
mod locking;
mod memory;
mod model;
mod reclaim;
mod references;
mod references_model;
mod replay;
mod sequences;
mod story;
mod threads;
