//! What each step of a plan did, for EXPLAIN ANALYZE.
//!
//! A step hands its tuples on by calling its consumer, so the time of its call is that of the step, of those
//! below it, and of those above. The last is taken off: a step's time is, as in PostgreSQL, its own with those
//! below. Steps are known by their place in memory, for a plan stands still while it runs.

use super::query::{Consumer, Flow, produce};
use crate::{
    error::SqlError,
    eval::Env,
    parse::Analyze,
    plan::{Node, TableNode},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    time::Duration,
};

/// A clock that the session hands in. By default there is none, no time is told, and `pg_sleep` is refused.
#[derive(Clone, Copy, Default)]
pub struct Clock(Option<Hands>);

#[derive(Clone, Copy)]
struct Hands {
    nanos: fn() -> u64,
    wait: fn(Duration),
}

impl Clock {
    /// A clock of the caller's: nanoseconds since any moment, never going back, and how its thread waits.
    #[must_use]
    pub fn of(nanos: fn() -> u64, wait: fn(Duration)) -> Clock {
        Clock(Some(Hands { nanos, wait }))
    }

    /// The time now; None without a clock.
    pub(crate) fn nanos(self) -> Option<u64> {
        self.0.map(|hands| (hands.nanos)())
    }

    /// Lets time pass.
    pub(crate) fn wait(self, time: Duration) {
        if let Some(hands) = self.0 {
            (hands.wait)(time);
        }
    }

    fn now(self) -> u64 {
        self.nanos().unwrap_or(0)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// What EXPLAIN ANALYZE tells of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Did {
    /// How often it was run; what follows is each one's share.
    pub(crate) loops: u64,
    /// Rows that it yielded.
    pub(crate) rows: u64,
    /// Milliseconds to its first row and to its end; None when times are not told.
    pub(crate) ms: Option<(f64, f64)>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    loops: u64,
    rows: u64,
    /// Until the first row, of all loops together.
    first_nanos: u64,
    nanos: u64,
}

/// What all steps of a plan did.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    clock: Clock,
    steps: RefCell<BTreeMap<usize, Measure>>,
    /// Rows that a table's filter did not keep.
    removed: RefCell<BTreeMap<usize, u64>>,
    /// Whether the times of steps are told.
    has_times: bool,
    /// Whether the time of the whole is told.
    has_summary: bool,
    /// Nanoseconds of the whole, when there is a clock, and rows that it returned.
    whole: Cell<(Option<u64>, u64)>,
}

impl Measures {
    /// Times are told when there is a clock and they are wanted.
    pub(crate) fn new(clock: Clock, Analyze { timing, summary }: Analyze) -> Measures {
        let has_times = timing && clock.0.is_some();
        let clock = if timing { clock } else { Clock::default() };
        Measures { clock, has_times, has_summary: summary, ..Measures::default() }
    }

    /// Notes what the whole statement took and returned.
    pub(super) fn end(&self, nanos: Option<u64>, rows: u64) {
        self.whole.set((nanos, rows));
    }

    /// Runs a step and remembers what it did.
    pub(super) fn run(
        &self,
        node: &Node,
        env: &Env<'_>,
        consume: &mut Consumer<'_>,
    ) -> Result<Flow, SqlError> {
        let begun = self.clock.now();
        let (mut rows, mut above, mut first) = (0, 0, None);
        let result = produce(node, env, &mut |tuple| {
            let handed = self.clock.now();
            first.get_or_insert((handed - begun).saturating_sub(above));
            rows += 1;
            let flow = consume(tuple);
            above += self.clock.now() - handed;
            flow
        });
        let nanos = (self.clock.now() - begun).saturating_sub(above);
        let mut steps = self.steps.borrow_mut();
        let measure = steps.entry(place(node)).or_default();
        measure.loops += 1;
        measure.rows += rows;
        measure.first_nanos += first.unwrap_or(nanos);
        measure.nanos += nanos;
        result
    }

    /// Notes a row that a table's filter did not keep.
    pub(super) fn remove(&self, table: &TableNode) {
        *self.removed.borrow_mut().entry(place(table)).or_default() += 1;
    }

    /// What a step did; no loops when it was never run.
    pub(crate) fn of(&self, node: &Node) -> Did {
        self.told(self.steps.borrow().get(&place(node)).copied().unwrap_or_default())
    }

    /// The same for the step on top of a change, which hands on only what it returns.
    pub(crate) fn of_change(&self) -> Did {
        let (nanos, rows) = self.whole.get();
        let nanos = nanos.unwrap_or(0);
        self.told(Measure { loops: 1, rows, first_nanos: nanos, nanos })
    }

    /// Milliseconds that the whole statement took; None when that is not told.
    pub(crate) fn execution_ms(&self) -> Option<f64> {
        let (nanos, _) = self.whole.get();
        nanos.filter(|_| self.has_summary).map(|nanos| nanos as f64 / 1e6)
    }

    /// How many rows a table's filter did not keep, in each loop; None when it kept all.
    pub(crate) fn removed(&self, node: &Node, table: &TableNode) -> Option<u64> {
        let removed = *self.removed.borrow().get(&place(table))?;
        let loops = self.steps.borrow().get(&place(node)).map_or(1, |measure| measure.loops);
        Some(each(removed, loops))
    }

    fn told(&self, Measure { loops, rows, first_nanos, nanos }: Measure) -> Did {
        let ms = |nanos: u64| nanos as f64 / loops.max(1) as f64 / 1e6;
        let ms = self.has_times.then(|| (ms(first_nanos), ms(nanos)));
        Did { loops, rows: each(rows, loops), ms }
    }
}

/// The share of one loop, rounded.
fn each(count: u64, loops: u64) -> u64 {
    (count + loops / 2) / loops.max(1)
}

fn place<T>(step: &T) -> usize {
    std::ptr::from_ref(step) as usize
}
