//! See the crate's own files; this root only declares them.

pub mod clock;
pub mod config;
pub mod control_api;
pub mod control_client;
pub mod datadir;
pub mod duplicate;
pub mod metrics;
pub mod peer;
pub mod pod;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
