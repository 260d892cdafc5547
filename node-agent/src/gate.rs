//! The gate behind which replies wait for their acknowledgement (R15): tasks queue by LSN and are
//! woken in LSN order, each once, when `acknowledged_lsn` covers them.
//!
//! **Invariants.** 1. A task that saw the gate closed is woken by the advance that opens it: the LSN
//! is published before the queue is looked at, and checked again under the queue's lock. 2. After
//! [`Gate::close`] every wait ends as *unknown*: the outcome is in the log and may be kept (law 2). After
//! [`Gate::interrupt`] only those do that wait already: authority may come back.
//!
//! Deliberately absent: time-outs (the session's) and the decision to acknowledge (`Member`).

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};
use understudy_types::Lsn;

/// Why a wait ended without an acknowledgement. The commit may be kept or not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the outcome of the commit is unknown: {reason}")]
pub struct Unknown {
    /// What happened to this member.
    pub reason: &'static str,
}

#[derive(Default)]
struct Queue {
    /// By (LSN, arrival): who waits.
    waiting: BTreeMap<(Lsn, u64), Waker>,
    arrivals: u64,
    closed: Option<&'static str>,
    /// Waits that arrived up to here have ended, and why.
    interrupted: (u64, &'static str),
}

/// See the module.
#[derive(Default)]
pub struct Gate {
    acknowledged: AtomicU64,
    queue: Mutex<Queue>,
}

impl Gate {
    /// Everything at or below is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        Lsn(self.acknowledged.load(Ordering::Acquire))
    }

    /// Opens the gate up to `lsn` and wakes those who waited for it. Never closes it again.
    pub fn open_to(&self, lsn: Lsn) {
        if self.acknowledged.fetch_max(lsn.0, Ordering::AcqRel) >= lsn.0 {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            return;
        }
        let later = queue.waiting.split_off(&(lsn.next(), 0));
        let ready = std::mem::replace(&mut queue.waiting, later);
        drop(queue);
        for waker in ready.into_values() {
            waker.wake();
        }
    }

    /// Ends all waits, now and later, as unknown.
    pub fn close(&self, reason: &'static str) {
        let mut queue = self.queue.lock();
        queue.closed.get_or_insert(reason);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    /// Ends the waits that are there as unknown; later ones wait for their acknowledgement.
    pub fn interrupt(&self, reason: &'static str) {
        let mut queue = self.queue.lock();
        queue.interrupted = (queue.arrivals, reason);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    /// How many tasks wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// A future that ends when `lsn` is acknowledged, or when the gate is closed.
    pub fn wait(self: &Arc<Self>, lsn: Lsn) -> Wait {
        Wait { gate: Arc::clone(self), lsn, place: None }
    }
}

/// See [`Gate::wait`]. Dropping it leaves the queue and changes nothing else.
#[must_use]
pub struct Wait {
    gate: Arc<Gate>,
    lsn: Lsn,
    place: Option<u64>,
}

impl Future for Wait {
    type Output = Result<(), Unknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.gate.acknowledged() >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        let gate = Arc::clone(&self.gate);
        let mut queue = gate.queue.lock();
        if gate.acknowledged() >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = queue.closed {
            return Poll::Ready(Err(Unknown { reason }));
        }
        let (ended, reason) = queue.interrupted;
        if self.place.is_some_and(|place| place <= ended) {
            return Poll::Ready(Err(Unknown { reason }));
        }
        let place = *self.place.get_or_insert_with(|| {
            queue.arrivals += 1;
            queue.arrivals
        });
        queue.waiting.insert((self.lsn, place), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.gate.queue.lock().waiting.remove(&(self.lsn, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_wait_ends_when_its_lsn_is_covered_and_not_before() {
        let gate = Arc::new(Gate::default());
        let mut wait = gate.wait(Lsn(5));
        assert!((&mut wait).now_or_never().is_none());
        gate.open_to(Lsn(4));
        assert!((&mut wait).now_or_never().is_none());
        gate.open_to(Lsn(5));
        assert_eq!(wait.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_closed_gate_tells_unknown_but_not_of_what_is_acknowledged() {
        let gate = Arc::new(Gate::default());
        gate.open_to(Lsn(5));
        gate.close("deposed");
        assert_eq!(gate.wait(Lsn(5)).now_or_never(), Some(Ok(())));
        assert_eq!(gate.wait(Lsn(6)).now_or_never(), Some(Err(Unknown { reason: "deposed" })));
    }

    #[test]
    fn an_interruption_ends_the_waits_that_are_there_and_no_later_one() {
        let gate = Arc::new(Gate::default());
        let mut early = gate.wait(Lsn(5));
        assert!((&mut early).now_or_never().is_none());
        gate.interrupt("lapsed");
        assert_eq!(early.now_or_never(), Some(Err(Unknown { reason: "lapsed" })));
        let mut late = gate.wait(Lsn(6));
        assert!((&mut late).now_or_never().is_none());
        gate.open_to(Lsn(6));
        assert_eq!(late.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_dropped_wait_leaves_the_queue() {
        let gate = Arc::new(Gate::default());
        let mut wait = gate.wait(Lsn(9));
        assert!((&mut wait).now_or_never().is_none());
        assert_eq!(gate.waiting(), 1);
        drop(wait);
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn threads_that_wait_are_all_woken_by_threads_that_open() {
        let gate = Arc::new(Gate::default());
        let waiters: Vec<_> = (1..=64)
            .map(|n| {
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || futures::executor::block_on(gate.wait(Lsn(n))))
            })
            .collect();
        for n in 1..=64 {
            gate.open_to(Lsn(n));
        }
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
    }
}
