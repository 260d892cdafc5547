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
pub(crate) use self::scheduled::{Mutex, RwLock, fence};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{MutexGuard, atomic::AtomicU64};

/// Shuttle's locks as parking_lot's are called.
#[cfg(shuttle)]
mod scheduled {
    use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a thread that panics ends the whole run")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> RwLock<T> {
            RwLock(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("a thread that panics ends the whole run")
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("a thread that panics ends the whole run")
        }
    }

    /// Every atomic operation is a fence here.
    pub(crate) fn fence(_: Ordering) {}
}
