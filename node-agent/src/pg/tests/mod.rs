//! The front end as its clients meet it: byte by byte (`wire`), through a driver (`driver`), and through
//! PostgreSQL's own programs (`programs`).

mod driver;
mod programs;
mod wire;
