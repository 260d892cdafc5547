//! Locks, atomics and threads under one name: the real ones, or shuttle's, which lets one thread run at a
//! time and tries many interleavings of one test (`tests/shuttle/log`, where these sources are built with them).
//!
//! Deliberately absent: the clock, which is the real one in both.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64},
        mpsc,
    },
    thread,
};
#[cfg(shuttle)]
pub(crate) use understudy_shuttle_locks::{
    AtomicBool, AtomicU64, Condvar, Mutex, RwLock, mpsc, thread,
};
