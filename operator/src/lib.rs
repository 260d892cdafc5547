//! The operator of active standby pairs: it makes the pair's objects, watches the members, offers
//! proofs of death, asks for candidacies, rolls out changes and says what is going on. It never decides
//! who is active (A1.1), and a pair serves without it (law 11). Bird's-eye view: `ARCHITECTURE.md`.

pub mod access;
pub mod agents;
pub mod args;
pub mod certificates;
pub mod context;
pub mod health;
pub mod metrics;
pub mod pair;
pub mod runtime;
