//! UPDATE, DELETE and SELECT … FOR UPDATE.

use super::{CommandTag, ExecError, Executor, query, query::Flow, refused, rows};
use crate::{
    error::SqlError,
    eval::{Env, RowTuple, Tuple, Values, eval},
    expr::Expr,
    plan::{ChangePlan, LockWaitPolicy, LockingPlan, Node},
};
use std::collections::BTreeSet;
use understudy_store::{Row, RowId, Value, View};

/// A row to change: its identity, what it is now, its new values, and the rest of the tuple.
struct Target {
    id: RowId,
    old: Row,
    changes: Vec<(usize, Value)>,
    /// The columns after the target's own and its row id, when RETURNING may need them.
    rest: Vec<Value>,
}

impl Executor<'_, '_> {
    /// Runs an UPDATE or DELETE: first everything is read, then everything is written, so that no
    /// row is met twice.
    pub(super) fn change(&mut self, plan: &ChangePlan) -> Result<CommandTag, ExecError> {
        let targets = self.targets(plan)?;
        let count = targets.len() as u64;
        for target in targets {
            self.change_row(plan, target)?;
        }
        let command = if plan.assignments.is_some() { "UPDATE" } else { "DELETE" };
        Ok(CommandTag::counted(command, count))
    }

    fn targets(&self, plan: &ChangePlan) -> Result<Vec<Target>, SqlError> {
        let env = Env::new(self.run, self.txn);
        let assignments = plan.assignments.as_deref().unwrap_or_default();
        let mut targets = Vec::new();
        if let Node::Table(table) = &plan.source {
            rows::table(table, &env, &mut |tuple: &RowTuple<'_>| {
                let changes = changes(assignments, tuple, &env)?;
                targets.push(Target {
                    id: tuple.id,
                    old: tuple.row.clone(),
                    changes,
                    rest: Vec::new(),
                });
                Ok(Flow::More)
            })?;
            return Ok(targets);
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
                let changes = changes(assignments, tuple, &env)?;
                let rest = (id_column + 1..width).map(|c| tuple.column(c).to_value()).collect();
                targets.push(Target { id, old, changes, rest });
            }
            Ok(Flow::More)
        })?;
        Ok(targets)
    }

    fn change_row(&mut self, plan: &ChangePlan, target: Target) -> Result<(), ExecError> {
        let Target { id, old, changes, rest } = target;
        let store = self.run.context.store;
        let row = if plan.assignments.is_some() {
            let new = old.replace(&plan.table, &changes);
            let not_null = changes
                .iter()
                .any(|(column, value)| value.is_null() && plan.table.columns[*column].not_null);
            if not_null || !plan.checks.is_empty() {
                self.check_row(&plan.table, &plan.checks, &new.values(&plan.table))?;
            }
            store.update(self.txn, plan.table.id, id, new.clone()).map_err(refused)?;
            new
        } else {
            store.delete(self.txn, plan.table.id, id).map_err(refused)?;
            old
        };
        if plan.returning.is_empty() {
            return Ok(());
        }
        let mut values = row.values(&plan.table);
        values.push(Value::Int(id.0 as i64));
        values.extend(rest);
        self.return_row(&plan.returning, &values)
    }

    /// Runs a locking read.
    pub(super) fn lock(&mut self, plan: &LockingPlan) -> Result<CommandTag, ExecError> {
        let (rows, limit, mut skip) = {
            let env = Env::new(self.run, self.txn);
            let (limit, offset) = query::counts((plan.limit.as_ref(), plan.offset.as_ref()), &env)?;
            // Without SKIP LOCKED no row is passed over: what is cut off is not even read.
            let most = match plan.policy {
                LockWaitPolicy::SkipLocked => u64::MAX,
                LockWaitPolicy::Wait | LockWaitPolicy::NoWait => {
                    limit.map_or(u64::MAX, |limit| limit.saturating_add(offset))
                }
            };
            (query::collect_some(&plan.input, &env, most)?, limit.unwrap_or(u64::MAX), offset)
        };
        let mut count = 0;
        for row in rows {
            if count == limit {
                break;
            }
            if skip > 0 && plan.policy != LockWaitPolicy::SkipLocked {
                skip -= 1;
                continue;
            }
            if !self.lock_tables(plan, &row)? {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            count += 1;
            let env = Env::new(self.run, self.txn);
            let values: Result<Vec<Value>, SqlError> =
                plan.exprs.iter().map(|expr| eval(expr, &Values(&row), &env)).collect();
            self.sink.row(&values?);
        }
        Ok(CommandTag::counted("SELECT", count))
    }

    /// Locks a tuple's rows; whether the tuple is wanted.
    fn lock_tables(&mut self, plan: &LockingPlan, row: &[Value]) -> Result<bool, ExecError> {
        for (table, column) in &plan.locks {
            let Value::Int(id) = row[*column] else { continue };
            let locked = self.run.context.store.lock_row(self.txn, table.id, RowId(id as u64));
            match (locked.map_err(refused), plan.policy) {
                (Ok(_), _) => {}
                (Err(ExecError::Blocked { on }), LockWaitPolicy::NoWait) if on.0 != 0 => {
                    return Err(SqlError::new(
                        "55P03",
                        format!("could not obtain lock on row in relation \"{}\"", table.name),
                    )
                    .into());
                }
                (Err(ExecError::Blocked { on }), LockWaitPolicy::SkipLocked) if on.0 != 0 => {
                    return Ok(false);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn changes(
    assignments: &[(usize, Expr)],
    tuple: &dyn Tuple,
    env: &Env<'_>,
) -> Result<Vec<(usize, Value)>, SqlError> {
    let mut changes = Vec::with_capacity(assignments.len());
    for (column, expr) in assignments {
        changes.push((*column, eval(expr, tuple, env)?));
    }
    Ok(changes)
}
