//! What a controller must stand (Sieve, OSDI 2022): its end after any write, old lists, lost and merged
//! events. Here is the part without effects; `tests/sieve` puts it between an operator and an API server.

pub mod call;
pub mod case;
pub mod sift;
pub mod state;
