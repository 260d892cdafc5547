//! Locks and atomics under one name: the real ones, or shuttle's, which lets one thread run at a time and
//! tries many interleavings of one test (`tests/shuttle`, where the store's sources are built with them).
//!
//! Caveats: shuttle takes every atomic operation for sequentially consistent, and sees no interleaving
//! inside `artmap` and `arc_swap`.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicU64, fence};
#[cfg(shuttle)]
pub(crate) use understudy_shuttle_locks::{AtomicU64, Mutex, MutexGuard, RwLock, fence};
