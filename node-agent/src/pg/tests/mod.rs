//! The front end as its clients meet it: byte by byte (`wire`; `results` that are large; what statements
//! wait for, `waits`; replies that are `held`; `definitions` that change; what goes too `far` to be run in
//! place), through a driver (`driver`), and through PostgreSQL's own programs (`programs`); and as whoever reads
//! its log meets it (`slow_log`).

mod definitions;
mod driver;
mod far;
mod held;
mod programs;
mod results;
mod slow_log;
mod waits;
pub(super) mod wire;
