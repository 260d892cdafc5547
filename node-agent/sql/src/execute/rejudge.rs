//! READ COMMITTED: a row that changed after the statement's snapshot is judged anew, alone.
//!
//! The statement found the row by an older version. It takes the newest one and asks whether that is still
//! wanted, by running its source once more with this row in the place of its table and with the partners
//! that the older version had (PostgreSQL's EvalPlanQual). What has come to match meanwhile is not looked
//! for, and what was judged before is not judged again.

use super::{
    ExecError, Executor,
    change::{Target, assigned},
    query::{self, Flow},
    refused,
    room::Kept,
};
use crate::{
    error::SqlError,
    eval::{Env, Tuple},
    plan::{ChangePlan, LockingPlan},
};
use understudy_store::{Row, RowId, TableId, Value};

/// A row that stands for its table.
#[derive(Debug, Clone)]
pub(crate) struct TargetRow {
    pub(crate) table: TableId,
    pub(crate) id: RowId,
    pub(crate) row: Row,
}

impl Executor<'_, '_> {
    /// Takes the newest version of a row to change; None when that is gone, or not wanted.
    pub(super) fn newest_target(
        &mut self,
        plan: &ChangePlan,
        target: &Target,
    ) -> Result<Option<Target>, ExecError> {
        let (store, table) = (self.run.context.store, plan.table.id);
        let newest = store.lock_newest(self.txn, table, target.id).map_err(refused)?;
        let Some(newest) = newest else { return Ok(None) };
        let mut partners = Kept::default();
        self.tuples_from(plan, (target.id, &target.old), |_, rest| {
            partners.push(self.run, &rest)?;
            Ok(Flow::More)
        })?;
        let mut wanted = None;
        self.tuples_from(plan, (target.id, &newest), |tuple, rest| {
            if !partners.rows.contains(&rest) {
                return Ok(Flow::More);
            }
            let new = assigned(plan, (&newest, tuple), &Env::new(self.run, self.txn), true)?;
            wanted = Some(Target { id: target.id, old: newest.clone(), new, rest });
            Ok(Flow::Enough)
        })?;
        Ok(wanted)
    }

    /// What the source makes of one row: tuples, and what stands in them beside the row.
    fn tuples_from(
        &self,
        plan: &ChangePlan,
        (id, row): (RowId, &Row),
        mut take: impl FnMut(&dyn Tuple, Vec<Value>) -> Result<Flow, SqlError>,
    ) -> Result<(), SqlError> {
        let (first, width) = (plan.table.columns.len() + 1, query::width(&plan.source));
        let only = vec![TargetRow { table: plan.table.id, id, row: row.clone() }];
        self.with_only(only, || {
            query::run(&plan.source, &Env::new(self.run, self.txn), &mut |tuple| {
                take(tuple, (first..width).map(|c| tuple.column(c).to_value()).collect())
            })
        })?;
        Ok(())
    }

    /// The tuple that a locking read makes of its newest, locked rows, with the partners that `before` had
    /// from other tables; None when it is not wanted any more.
    pub(super) fn newest_tuple(
        &self,
        plan: &LockingPlan,
        before: &[Value],
        locked: Vec<TargetRow>,
    ) -> Result<Option<Vec<Value>>, SqlError> {
        // A table's columns stand before its row id.
        let is_locked = |column: usize| {
            plan.locks.iter().any(|(table, id)| (*id - table.columns.len()..*id).contains(&column))
        };
        let is_same = |tuple: &[Value]| {
            let pairs = tuple.iter().zip(before).enumerate();
            pairs.filter(|(column, _)| !is_locked(*column)).all(|(_, (new, old))| new == old)
        };
        let kept =
            self.with_only(locked, || query::collect(&plan.input, &Env::new(self.run, self.txn)))?;
        Ok(kept.rows.into_iter().find(|tuple| is_same(tuple)))
    }

    fn with_only<T>(&self, rows: Vec<TargetRow>, work: impl FnOnce() -> T) -> T {
        self.run.only.replace(Some(rows));
        let done = work();
        self.run.only.replace(None);
        done
    }
}
