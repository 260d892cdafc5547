//! Shuttle's locks as parking_lot's are called, and its scenes: each runs its threads thousands of times, one
//! thread at a time, each time in another order of their steps at locks and atomics. A failing order is
//! printed and can be repeated (`shuttle::replay`); a run in which nobody can go on fails.
//!
//! A thread that panics ends the whole run; its locks are opened for those that clean up.
//!
//! Caveats: every atomic operation is taken for sequentially consistent, and no interleaving is seen
//! inside other libraries.

pub use shuttle::{
    future, rand,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};
use shuttle::{
    rand::Rng,
    scheduler::{PctScheduler, RandomScheduler},
};
use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Orders tried at random, and as many with few changes between threads, which finds other mistakes.
const ORDERS: usize = 2_000;
/// Changes between threads at places that the scheduler chooses.
const CHANGES: usize = 3;
/// Of each thread.
const STACK_BYTES: usize = 256 << 10;
/// A wait of this time or longer is one that somebody must end; a shorter one may end by itself.
const LONG: Duration = Duration::from_secs(60);

/// Runs a scene in many orders.
pub fn in_many_orders(scene: impl Fn() + Send + Sync + 'static) {
    let scene = Arc::new(scene);
    let again = Arc::clone(&scene);
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    config.stack_size = STACK_BYTES;
    let random = RandomScheduler::new(ORDERS);
    shuttle::Runner::new(random, config.clone()).run(move || scene());
    shuttle::Runner::new(PctScheduler::new(CHANGES, ORDERS), config).run(move || again());
}

/// Every atomic operation is a fence here.
pub fn fence(_: Ordering) {}

/// As `parking_lot::Mutex`.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// As `parking_lot::MutexGuard`.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Some but inside a wait.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// An open lock.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, guard: Some(guard) }
    }

    /// Takes the lock when it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|guard| MutexGuard { mutex: self, guard: Some(guard) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect("no wait lends its guard out")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("no wait lends its guard out")
    }
}

/// As `parking_lot::RwLock`.
#[derive(Debug, Default)]
pub struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// An open lock.
    pub fn new(value: T) -> RwLock<T> {
        RwLock(shuttle::sync::RwLock::new(value))
    }

    /// Waits for a shared lock.
    pub fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a shared lock when it is to be had.
    pub fn try_read(&self) -> Option<shuttle::sync::RwLockReadGuard<'_, T>> {
        self.0.try_read().ok()
    }

    /// Nothing is scheduled by a look that nobody relies on.
    pub fn is_locked(&self) -> bool {
        false
    }

    /// Waits for the lock alone.
    pub fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `parking_lot::Condvar`.
#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

/// How a wait with a limit ended.
#[derive(Debug, Clone, Copy)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether by its limit.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// With nobody waiting.
    pub fn new() -> Condvar {
        Condvar::default()
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits to be woken.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("a guard waits once");
        let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
        guard.guard = Some(held);
    }

    /// Waits to be woken or for the time, which passes when the scheduler likes; a long one never does, so
    /// that who forgets to wake is found.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        if time >= LONG {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        drop(guard.guard.take());
        thread::yield_now();
        *guard = guard.mutex.lock();
        WaitTimeoutResult(rand::thread_rng().gen_bool(0.5))
    }
}
