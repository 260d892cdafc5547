//! The node-agent: what runs in a member's pod. The supervisor starts the engine; the engine joins
//! store, log and member, and drives them. See `ARCHITECTURE.md` beside this crate.
//!
//! The only place under `node-agent/` with sockets, tasks and clocks; the nested crates have none.

pub mod clock;
pub mod config;
pub mod control_api;
pub mod control_client;
pub mod datadir;
pub mod duplicate;
pub mod engine;
pub mod feed;
pub mod gate;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod pg;
pub mod pod;
pub mod standalone;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod trapped;
