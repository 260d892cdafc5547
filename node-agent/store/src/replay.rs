//! Recovery: the records of a member's own log, many at a time, into a store that nobody else has.
//!
//! Every record is applied as a follower applies it (`apply`). Where it is known that the log stands, what a
//! record replaces goes at once unless a key has changed, so that a long log needs little more memory than the
//! rows do. Elsewhere it is kept while memory lasts: the last acknowledged state can be read at once. A member
//! that has no room for it gives it up, and answers reads when the end of its log is acknowledged.
//! Invariant: what was replaced in place cannot be asked for: `visible` and the oldest LSN that can be pinned
//! have moved up before anybody else gets the store.

use crate::{
    apply::{Ahead, Replaced},
    error::ApplyError,
    heap::State,
    redo::{Change, Changes},
    row::RowId,
    rows::cells_at,
    store::Store,
    table::TableId,
};
use std::{iter, sync::Arc};
use understudy_types::Lsn;

/// Records whose rows are looked for together, and rows.
const NEAR: usize = 32;

/// What is known of the records that a recovery finds in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// They stand: nobody else could have decided otherwise. They are visible at once.
    Stands,
    /// Some may be taken back (R17): none of them is visible yet, and what they replace is kept until then.
    /// Where it does not fit into memory it goes: their end is visible then, and `Txn::depends_lsn` holds
    /// answers back until that is acknowledged.
    MayGo,
}

impl Store {
    /// Applies records of transactions, in LSN order. While somebody else has the store, or a transaction or
    /// a pin of it, versions are kept for them.
    ///
    /// # Errors
    /// As for `apply`, with the LSN of the record; those before it are applied.
    pub fn replay(&mut self, records: &[(Lsn, &[u8])], tail: Tail) -> Result<(), ApplyError> {
        // Transactions and pins have a handle each.
        let is_alone = Arc::get_mut(&mut self.inner).is_some();
        let mut replaced = match tail {
            _ if !is_alone => Replaced::Waits,
            Tail::MayGo if !self.inner.visibility.has_base() => Replaced::WaitsWithinLimit,
            Tail::MayGo | Tail::Stands => Replaced::Goes,
        };
        let mut ahead = Ahead::default();
        let done = records.chunks(NEAR).try_for_each(|near| {
            look_ahead(&self.inner.state.load(), near, &mut ahead);
            near.iter().try_for_each(|record| {
                match self.inner.apply(*record, replaced, &mut ahead) {
                    Err(ApplyError::OutOfMemory { .. }) if is_alone => {
                        replaced = Replaced::Goes;
                        self.give_up_older(tail);
                        self.reclaim(usize::MAX);
                        self.inner.apply(*record, replaced, &mut ahead)
                    }
                    done => done,
                }
            })
        });
        if replaced == Replaced::Goes {
            self.give_up_older(tail);
        } else if tail == Tail::Stands {
            self.inner.visibility.acknowledge(self.inner.visibility.committed());
        }
        done
    }

    /// From here on there is no older state than the newest one.
    fn give_up_older(&mut self, tail: Tail) {
        let inner = Arc::get_mut(&mut self.inner).expect("called where nobody else has the store");
        let committed = inner.visibility.committed();
        inner.reclamation.pass(committed);
        inner.forget_states(committed);
        match tail {
            Tail::Stands => inner.visibility.acknowledge(committed),
            Tail::MayGo => inner.visibility.begin_at(committed),
        }
    }
}

/// Looks for the rows that records are about to change, all at once (see `cells_at`). What is found was true
/// at some moment: a row keeps its cell until it is gone, and is never there again.
fn look_ahead(state: &State, records: &[(Lsn, &[u8])], ahead: &mut Ahead) {
    ahead.rows.clear();
    let Some(pin) = state.tables().next().map(|table| table.heap.rows.pin()) else { return };
    let (mut rows, mut places) = (Vec::with_capacity(NEAR), Vec::with_capacity(NEAR));
    for (table, row) in records.iter().flat_map(|(_, payload)| changed_rows(payload)).take(NEAR) {
        let Some(found) = state.table(table) else { continue };
        rows.push((table, row));
        places.push(found.heap.rows.place(row, &pin));
    }
    let found = rows.into_iter().zip(cells_at(&places));
    ahead.rows.extend(found.filter_map(|((table, row), cell)| Some((table, row, cell?))));
}

/// The rows that a record changes and that are there before it. What is malformed is told when it is applied.
fn changed_rows(payload: &[u8]) -> impl Iterator<Item = (TableId, RowId)> {
    let mut changes = Changes::new(payload).ok();
    let all = iter::from_fn(move || changes.as_mut()?.next().ok()?);
    all.filter_map(|change| match change {
        Change::Update { table, row, .. } | Change::Delete { table, row } => Some((table, row)),
        Change::Insert { .. } | Change::Ddl(_) | Change::Token(_) => None,
    })
}
