//! What each step of a plan did, for EXPLAIN ANALYZE.
//!
//! A step hands its tuples on by calling its consumer, so the time of its call is that of the step, of those
//! below it, and of those above. The last is taken off: a step's time is, as in PostgreSQL, its own with those
//! below. Steps are known by their place in memory, for a plan stands still while it runs.

use super::query::{Consumer, Flow, produce};
use crate::{
    error::SqlError,
    eval::Env,
    plan::{Node, TableNode},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
};

/// A clock that the session hands in: nanoseconds since any moment, never going back. By default there is
/// none, and no time is told.
#[derive(Clone, Copy, Default)]
pub struct Clock(Option<fn() -> u64>);

impl Clock {
    /// A clock of the caller's.
    #[must_use]
    pub fn of(nanos: fn() -> u64) -> Clock {
        Clock(Some(nanos))
    }

    /// The time now; None without a clock.
    pub(crate) fn nanos(self) -> Option<u64> {
        self.0.map(|nanos| nanos())
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
    /// Whether times are told.
    has_times: bool,
    /// Time of the whole, and rows that it returned.
    whole: Cell<(u64, u64)>,
}

impl Measures {
    /// Times are told when there is a clock and they are wanted.
    pub(crate) fn new(clock: Clock, timing: bool) -> Measures {
        let has_times = timing && clock.0.is_some();
        let clock = if timing { clock } else { Clock::default() };
        Measures { clock, has_times, ..Measures::default() }
    }

    /// Notes what the whole statement took and returned.
    pub(super) fn end(&self, nanos: u64, rows: u64) {
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

    /// PostgreSQL's words behind a step's name.
    pub(crate) fn words(&self, node: &Node) -> String {
        match self.steps.borrow().get(&place(node)) {
            Some(measure) => self.told(*measure),
            None => " (never executed)".to_owned(),
        }
    }

    /// The same for the step on top of a change, which hands on only what it returns.
    pub(crate) fn words_of_change(&self) -> String {
        let (nanos, rows) = self.whole.get();
        self.told(Measure { loops: 1, rows, first_nanos: nanos, nanos })
    }

    /// How many rows a table's filter did not keep, in each loop; None when it kept all.
    pub(crate) fn removed(&self, node: &Node, table: &TableNode) -> Option<u64> {
        let removed = *self.removed.borrow().get(&place(table))?;
        let loops = self.steps.borrow().get(&place(node)).map_or(1, |measure| measure.loops);
        Some(each(removed, loops))
    }

    fn told(&self, Measure { loops, rows, first_nanos, nanos }: Measure) -> String {
        let rows = each(rows, loops);
        let ms = |nanos: u64| nanos as f64 / loops as f64 / 1e6;
        if self.has_times {
            let (first, last) = (ms(first_nanos), ms(nanos));
            format!(" (actual time={first:.3}..{last:.3} rows={rows} loops={loops})")
        } else {
            format!(" (actual rows={rows} loops={loops})")
        }
    }
}

/// The share of one loop, rounded.
fn each(count: u64, loops: u64) -> u64 {
    (count + loops / 2) / loops.max(1)
}

fn place<T>(step: &T) -> usize {
    std::ptr::from_ref(step) as usize
}
