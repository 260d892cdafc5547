//! UPDATE, DELETE and SELECT … FOR UPDATE.

use super::{
    CommandTag, ExecError, Executor,
    insert::{check_row, computed_changes},
    query,
    query::Flow,
    refused,
    rejudge::TargetRow,
    rows,
};
use crate::{
    error::SqlError,
    eval::{Env, RowTuple, Tuple, Values, eval, eval_all},
    plan::{ChangePlan, LockWaitPolicy, LockingPlan, Node},
};
use std::collections::BTreeSet;
use understudy_store::{Row, RowId, TableId, TxnId, Value, View, WriteError};

/// A row to change: its identity, what it is now, what it shall be, and the rest of the tuple.
pub(super) struct Target {
    pub(super) id: RowId,
    pub(super) old: Row,
    pub(super) new: New,
    /// The columns after the target's own and its row id, when RETURNING may need them.
    pub(super) rest: Vec<Value>,
}

/// What a row shall be, without what is computed from its columns.
pub(super) enum New {
    /// It is deleted.
    Gone,
    /// A whole row. Nobody has charged it: one statement has one of them at a time.
    Row(Row),
    /// What is assigned to the old one.
    Changes(Vec<(usize, Value)>),
}

/// Rows to change. Most statements have one, which needs no list.
#[derive(Default)]
struct Found {
    first: Option<Target>,
    others: Vec<Target>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn push(&mut self, target: Target) {
        if self.first.is_none() {
            self.first = Some(target);
        } else {
            self.others.push(target);
        }
    }
}

impl Executor<'_, '_> {
    /// Runs an UPDATE or DELETE: first everything is read, then everything is written, so that no
    /// row is met twice.
    pub(super) fn change(&mut self, plan: &ChangePlan) -> Result<CommandTag, ExecError> {
        let mut count = 0;
        let mut targets = Found::default();
        self.find(plan, &mut targets)?;
        for target in targets.first.iter().chain(&targets.others) {
            self.run.goes_on()?;
            if self.change_wanted(plan, target)? {
                count += 1;
            }
        }
        self.settle()?;
        let command = if plan.assignments.is_some() { "UPDATE" } else { "DELETE" };
        Ok(CommandTag::counted(command, count))
    }

    fn find(&self, plan: &ChangePlan, targets: &mut Found) -> Result<(), SqlError> {
        let env = Env::new(self.run, self.txn);
        if let Node::Table(table) = &plan.source
            && self.run.measures.is_none()
        {
            rows::table(table, &env, &mut |tuple: &RowTuple<'_>| {
                let new = assigned(plan, (tuple.row, tuple), &env, targets.is_empty())?;
                let (id, old) = (tuple.id, tuple.row.clone());
                targets.push(Target { id, old, new, rest: Vec::new() });
                Ok(Flow::More)
            })?;
            return Ok(());
        }
        let id_column = plan.table.columns.len();
        let width = query::width(&plan.source);
        let mut seen = BTreeSet::new();
        query::run(&plan.source, &env, &mut |tuple| {
            let understudy_store::ValueRef::Int(id) = tuple.column(id_column) else {
                return Ok(Flow::More);
            };
            let id = RowId(id as u64);
            // A target joined to several rows is changed once, by the first.
            if seen.insert(id)
                && let Some(old) =
                    self.run.context.store.get(self.txn, View::ForUpdate, plan.table.id, id)
            {
                let new = assigned(plan, (&old, tuple), &env, targets.is_empty())?;
                let rest = (id_column + 1..width).map(|c| tuple.column(c).to_value()).collect();
                targets.push(Target { id, old, new, rest });
            }
            Ok(Flow::More)
        })?;
        Ok(())
    }

    /// Changes a row as it was read; one that changed since, as it is now, if it is still wanted.
    fn change_wanted(&mut self, plan: &ChangePlan, target: &Target) -> Result<bool, ExecError> {
        match self.change_row(plan, target) {
            Err(ExecError::Blocked { on: TxnId::ENDED }) => {
                let newest = self.newest_target(plan, target)?;
                newest.map_or(Ok(false), |target| self.change_row(plan, &target).map(|()| true))
            }
            done => done.map(|()| true),
        }
    }

    fn change_row(&mut self, plan: &ChangePlan, target: &Target) -> Result<(), ExecError> {
        let Target { id, old, new, rest } = target;
        let (id, store) = (*id, self.run.context.store);
        let new = match new {
            New::Gone => None,
            New::Row(new) => Some(new.clone()),
            New::Changes(changes) => Some(old.replace(&plan.table, changes)),
        };
        let row = match new {
            Some(new) => {
                let new = self.completed(plan, new)?;
                store.update(self.txn, plan.table.id, id, new.clone()).map_err(refused)?;
                new
            }
            None => {
                store.delete(self.txn, plan.table.id, id).map_err(refused)?;
                old.clone()
            }
        };
        if plan.returning.is_empty() {
            return Ok(());
        }
        let mut values = row.values(&plan.table);
        values.push(Value::Int(id.0 as i64));
        values.extend_from_slice(rest);
        self.return_row(&plan.returning, &values)
    }

    /// A row with what is computed from what was assigned, which may be written.
    fn completed(&self, plan: &ChangePlan, mut new: Row) -> Result<Row, SqlError> {
        let (table, env) = (&plan.table, Env::new(self.run, self.txn));
        if !plan.computed.is_empty() {
            new = new.replace(table, &computed_changes(&plan.computed, (table, &new), &env)?);
        }
        if !plan.checks.is_empty() || new.refused_null(table).is_some() {
            check_row(&env, (table, &plan.checks), &new.values(table))?;
        }
        Ok(new)
    }

    /// Runs a locking read.
    pub(super) fn lock(&mut self, plan: &LockingPlan) -> Result<CommandTag, ExecError> {
        let (mut rows, most, limit, mut skip) = {
            let env = Env::new(self.run, self.txn);
            let (limit, offset) = query::counts((plan.limit.as_ref(), plan.offset.as_ref()), &env)?;
            // Without SKIP LOCKED a row is passed over only when it changes meanwhile: what is cut off is
            // not even read, until then.
            let most = match plan.policy {
                LockWaitPolicy::SkipLocked => u64::MAX,
                LockWaitPolicy::Wait | LockWaitPolicy::NoWait => {
                    limit.map_or(u64::MAX, |limit| limit.saturating_add(offset))
                }
            };
            let rows = query::collect_some(&plan.input, &env, most)?;
            (rows, most, limit.unwrap_or(u64::MAX), offset)
        };
        let (mut count, mut at) = (0, 0);
        let mut changed = BTreeSet::new();
        let mut is_cut = rows.len() as u64 == most;
        while count < limit {
            let Some(row) = rows.get(at) else { break };
            at += 1;
            if skip > 0 && plan.policy != LockWaitPolicy::SkipLocked {
                skip -= 1;
                continue;
            }
            let Some(row) = self.lock_tables(plan, row, &mut changed)? else {
                if std::mem::take(&mut is_cut) {
                    rows = query::collect(&plan.input, &Env::new(self.run, self.txn))?;
                }
                continue;
            };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            count += 1;
            let env = Env::new(self.run, self.txn);
            self.sink.row(&eval_all(&plan.exprs, &Values(&row), &env)?);
        }
        Ok(CommandTag::counted("SELECT", count))
    }

    /// Locks a tuple's rows. Returns the tuple, made of the newest rows where some have changed, now or when
    /// an earlier tuple was locked; None when it is not wanted.
    fn lock_tables(
        &mut self,
        plan: &LockingPlan,
        tuple: &[Value],
        changed: &mut BTreeSet<(TableId, RowId)>,
    ) -> Result<Option<Vec<Value>>, ExecError> {
        let mut locked = Vec::with_capacity(plan.locks.len());
        let mut has_changed = false;
        for (table, column) in &plan.locks {
            let Value::Int(id) = tuple[*column] else { continue };
            let (table_id, id) = (table.id, RowId(id as u64));
            let store = self.run.context.store;
            let mut newest = store.lock_row(self.txn, table_id, id).map(Some);
            if newest == Err(WriteError::Blocked { on: TxnId::ENDED }) {
                newest = store.lock_newest(self.txn, table_id, id);
                changed.insert((table_id, id));
            }
            has_changed |= changed.contains(&(table_id, id));
            match (newest.map_err(refused), plan.policy) {
                (Ok(Some(row)), _) => locked.push(TargetRow { table: table_id, id, row }),
                (Ok(None), _) => return Ok(None),
                (Err(ExecError::Blocked { on }), LockWaitPolicy::NoWait) if on.0 != 0 => {
                    return Err(SqlError::new(
                        "55P03",
                        format!("could not obtain lock on row in relation \"{}\"", table.name),
                    )
                    .into());
                }
                (Err(ExecError::Blocked { on }), LockWaitPolicy::SkipLocked) if on.0 != 0 => {
                    return Ok(None);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(if has_changed { self.newest_tuple(plan, tuple, locked)? } else { Some(tuple.to_vec()) })
    }
}

/// What a row shall be; where it is wanted at once, the whole row.
pub(super) fn assigned(
    plan: &ChangePlan,
    (row, tuple): (&Row, &dyn Tuple),
    env: &Env<'_>,
    at_once: bool,
) -> Result<New, SqlError> {
    let Some(assignments) = plan.assignments.as_deref() else { return Ok(New::Gone) };
    if let ([(column, expr)], true) = (assignments, at_once) {
        // One column's value stays on the stack.
        let change = [(*column, eval(expr, tuple, env)?)];
        return Ok(New::Row(row.replace(&plan.table, &change)));
    }
    let mut changes = Vec::with_capacity(assignments.len());
    for (column, expr) in assignments {
        changes.push((*column, eval(expr, tuple, env)?));
    }
    Ok(if at_once { New::Row(row.replace(&plan.table, &changes)) } else { New::Changes(changes) })
}
