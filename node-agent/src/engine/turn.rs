//! The end of a loop's turn: one pump of the feeds for all commits that the turn made.
//!
//! A task per runtime thread waits for its bell; a commit rings it. The task runs after the tasks that
//! were ready before it, so what a turn commits leaves in one send. On a thread without a runtime the
//! commit pumps by itself.

use super::Engine;
use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};
use tokio::{runtime::Handle, sync::Notify};

thread_local! {
    /// Whose bell hangs on this thread, and the bell.
    static BELL: RefCell<Option<(Weak<Engine>, Arc<Notify>)>> = const { RefCell::new(None) };
}

/// A commit got its LSN on this thread.
pub(super) fn ring(engine: &Weak<Engine>) {
    let rung = BELL.with(|bell| match bell.borrow().as_ref() {
        Some((owner, notify)) if owner.ptr_eq(engine) => {
            notify.notify_one();
            true
        }
        Some(_) | None => false,
    });
    if rung {
        return;
    }
    let Some(strong) = engine.upgrade() else { return };
    let Ok(runtime) = Handle::try_current() else {
        strong.feeds.pump(&strong.progress());
        return;
    };
    let notify = Arc::new(Notify::new());
    notify.notify_one();
    runtime.spawn(pump(Weak::clone(engine), Arc::clone(&notify)));
    BELL.with(|bell| bell.replace(Some((Weak::clone(engine), notify))));
}

async fn pump(engine: Weak<Engine>, bell: Arc<Notify>) {
    loop {
        bell.notified().await;
        let Some(engine) = engine.upgrade() else { return };
        engine.feeds.pump(&engine.progress());
    }
}
