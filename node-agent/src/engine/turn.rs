//! The end of a loop's turn: one pump of the feeds for all commits that the turn made.
//!
//! A task per runtime thread waits for its bell; a commit rings it. The task runs after the tasks that
//! were ready before it, so what a turn commits leaves in one send. On a thread without a runtime the
//! commit pumps by itself.

use super::Engine;
use std::{
    cell::RefCell,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};
use tokio::{runtime, sync::Notify};

thread_local! {
    static BELL: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// A thread's hold of its bell; the task ends with it.
struct Handle {
    /// Whose it is.
    owner: Weak<Engine>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: Notify,
    is_down: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.bell.is_down.store(true, Release);
        self.bell.rung.notify_one();
    }
}

/// A commit got its LSN on this thread.
pub(super) fn ring(engine: &Weak<Engine>) {
    let rung = BELL.with(|bell| match bell.borrow().as_ref() {
        Some(handle) if handle.owner.ptr_eq(engine) => {
            handle.bell.rung.notify_one();
            true
        }
        Some(_) | None => false,
    });
    if rung {
        return;
    }
    let Some(strong) = engine.upgrade() else { return };
    let Ok(runtime) = runtime::Handle::try_current() else {
        strong.feeds.pump(&strong.progress());
        return;
    };
    let bell = Arc::new(Bell::default());
    bell.rung.notify_one();
    runtime.spawn(pump(Weak::clone(engine), Arc::clone(&bell)));
    let handle = Handle { owner: Weak::clone(engine), bell };
    BELL.with(|bell| bell.replace(Some(handle)));
}

async fn pump(engine: Weak<Engine>, bell: Arc<Bell>) {
    loop {
        bell.rung.notified().await;
        let is_down = bell.is_down.load(Acquire);
        let Some(engine) = engine.upgrade() else { return };
        engine.feeds.pump(&engine.progress());
        if is_down {
            return;
        }
    }
}
