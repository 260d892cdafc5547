//! The PostgreSQL front end: what an application connects to.
//!
//! Place in the flow: [`Listener`] takes connections and spreads them over a few session loops (one
//! thread and one `current_thread` runtime each); `startup` brings a connection to "ready for query";
//! `session` answers it until it ends. Everything a session needs from the member is the trait
//! [`Database`], which the engine implements.
//!
//! Invariants:
//! 1. A reply that depends on a commit leaves after that commit is acknowledged (law 3). Waiting is
//!    "do not write yet": the loop goes on with its other sessions.
//! 2. A read that claims to be current is confirmed after it was executed and before its rows are put
//!    into the reply (R6a).
//! 3. Bytes from the network never panic and never make the server reserve memory for what has not
//!    arrived. A length is checked against [`ListenerOptions::message_bytes_max`] first.
//! 4. No byte that arrived before TLS is taken as having come inside it.
//!
//! From `pgwire` come the parts with cryptography (the SCRAM exchange and its verifiers). Its message
//! loop and its decoder are deliberately absent: the loop writes four times for one select, and the
//! decoder trusts lengths inside a message.

pub mod auth;
pub mod database;
pub mod registry;

mod binary;
mod frame;
mod listener;
mod reply;
mod session;
mod socket;
mod sqlstate;
mod startup;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tokens;

pub use database::{
    AckWait, CheckpointWait, CommitRefused, Database, HoldKind, LogHold, Noted, OutcomeUnknown,
    ReadRefused, RoleWait, ServerIdentity, Standing,
};
pub use listener::{
    ClientTls, Listener, ListenerError, ListenerOptions, PlainConnections, TlsSource,
};
pub use registry::{EndReason, SessionGuard, SessionRegistry};
