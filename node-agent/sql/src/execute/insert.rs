//! INSERT, ON CONFLICT, and the rows of COPY FROM.

use super::{CommandTag, ExecError, Executor, Run, constants, query, refused, room::Room};
use crate::{
    error::{SqlError, state},
    eval::{Env, Pair, Values, eval, eval_all, is_true},
    plan::{Check, Computed, ConflictUpdate, InsertPlan, InsertSource},
};
use std::collections::BTreeSet;
use understudy_store::{Row, RowId, TableDef, Value, View};

/// Rows that an INSERT … ON CONFLICT has inserted or updated, with their memory.
#[derive(Default)]
pub(crate) struct Touched {
    rows: BTreeSet<RowId>,
    room: Room,
}

impl Touched {
    fn note(&mut self, run: &Run<'_>, id: RowId) -> Result<(), SqlError> {
        self.room.keep_id(run)?;
        self.rows.insert(id);
        Ok(())
    }
}

impl Executor<'_, '_> {
    /// Runs an INSERT.
    pub(super) fn insert(&mut self, plan: &InsertPlan) -> Result<CommandTag, ExecError> {
        let mut touched = Touched::default();
        let mut count = 0;
        match &plan.source {
            InsertSource::Rows(rows) => {
                for exprs in rows {
                    self.run.goes_on()?;
                    let values = constants(exprs, &Env::new(self.run, self.txn))?;
                    count += u64::from(self.insert_row(plan, values, &mut touched)?);
                }
            }
            InsertSource::Query { node, exprs } => {
                // The query is read to its end first: it must not see the rows it inserts.
                let (mut rows, mut room) = (Vec::new(), Room::default());
                let env = Env::new(self.run, self.txn);
                query::run(node, &env, &mut |tuple| {
                    let row = Row::encode(&eval_all(exprs, tuple, &env)?);
                    room.keep_encoded(self.run, &row)?;
                    room.push(self.run, &mut rows, row)?;
                    Ok(query::Flow::More)
                })?;
                for row in rows {
                    self.run.may_go_on()?;
                    count += u64::from(self.insert_encoded(plan, row, &mut touched)?);
                }
            }
        }
        self.settle()?;
        Ok(CommandTag::counted("INSERT", count))
    }

    /// Inserts a row that is encoded already; its values are looked at only where somebody asks for them.
    fn insert_encoded(
        &mut self,
        plan: &InsertPlan,
        row: Row,
        touched: &mut Touched,
    ) -> Result<bool, ExecError> {
        let is_plain = plan.computed.is_empty()
            && plan.checks.is_empty()
            && plan.on_conflict.is_none()
            && plan.returning.is_empty()
            && row.refused_null(&plan.table).is_none();
        if !is_plain {
            return self.insert_row(plan, row.values(&plan.table), touched);
        }
        self.run.context.store.insert(self.txn, plan.table.id, row).map_err(refused)?;
        Ok(true)
    }

    /// Inserts one row, or does what ON CONFLICT says; whether a row was inserted or updated.
    pub(crate) fn insert_row(
        &mut self,
        plan: &InsertPlan,
        mut values: Vec<Value>,
        touched: &mut Touched,
    ) -> Result<bool, ExecError> {
        compute(&plan.computed, &mut values, &Env::new(self.run, self.txn))?;
        check_row(&Env::new(self.run, self.txn), (&plan.table, &plan.checks), &values)?;
        if let Some(on_conflict) = &plan.on_conflict
            && let Some((id, existing)) = self.conflicting(plan, &values)
        {
            return match &on_conflict.update {
                None => Ok(false),
                Some(update) => {
                    if touched.rows.contains(&id) {
                        return Err(SqlError::new(
                            state::CARDINALITY_VIOLATION,
                            "ON CONFLICT DO UPDATE command cannot affect row a second time",
                        )
                        .with_hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values.")
                        .into());
                    }
                    touched.note(self.run, id)?;
                    self.update_conflicting(plan, update, (id, &existing), &values)
                }
            };
        }
        let row = Row::encode(&values);
        let id = self.run.context.store.insert(self.txn, plan.table.id, row).map_err(refused)?;
        if plan.on_conflict.is_some() {
            touched.note(self.run, id)?;
        }
        self.return_row(&plan.returning, &values)?;
        Ok(true)
    }

    /// The row that has one of the proposed row's arbiter keys.
    fn conflicting(&self, plan: &InsertPlan, values: &[Value]) -> Option<(RowId, Row)> {
        let arbiters = plan.on_conflict.iter().flat_map(|conflict| &conflict.arbiters);
        arbiters.into_iter().find_map(|arbiter| {
            let index = plan.table.indexes.iter().find(|index| index.id == *arbiter)?;
            let has_entry = |only: u16| values[usize::from(only)] == Value::Bool(true);
            if !index.only.is_none_or(has_entry) {
                return None;
            }
            let key: Vec<Value> =
                index.columns.iter().map(|column| values[usize::from(*column)].clone()).collect();
            if key.iter().any(Value::is_null) {
                return None;
            }
            self.run.context.store.lookup_one(self.txn, View::ForUpdate, *arbiter, &key)
        })
    }

    fn update_conflicting(
        &mut self,
        plan: &InsertPlan,
        update: &ConflictUpdate,
        (id, existing): (RowId, &Row),
        proposed: &[Value],
    ) -> Result<bool, ExecError> {
        let old = existing.values(&plan.table);
        let changes = {
            let env = Env::new(self.run, self.txn);
            let (left, right) = (Values(&old), Values(proposed));
            let pair = Pair {
                left: Some(&left),
                right: Some(&right),
                left_width: plan.table.columns.len(),
            };
            if let Some(predicate) = &update.predicate
                && !is_true(predicate, &pair, &env)?
            {
                return Ok(false);
            }
            let mut changes = Vec::with_capacity(update.assignments.len());
            for (column, expr) in &update.assignments {
                changes.push((*column, eval(expr, &pair, &env)?));
            }
            changes
        };
        let mut values = old;
        for (column, value) in changes {
            values[column] = value;
        }
        compute(&update.computed, &mut values, &Env::new(self.run, self.txn))?;
        let new = Row::encode(&values);
        check_row(&Env::new(self.run, self.txn), (&plan.table, &plan.checks), &values)?;
        self.run.context.store.update(self.txn, plan.table.id, id, new).map_err(refused)?;
        self.return_row(&plan.returning, &values)?;
        Ok(true)
    }
}

/// Fills in what is computed from the rest of a row.
pub(super) fn compute(
    computed: &[Computed],
    values: &mut [Value],
    env: &Env<'_>,
) -> Result<(), SqlError> {
    for (column, expr) in computed {
        let value = eval(expr, &Values(values), env)?;
        values[*column] = value;
    }
    Ok(())
}

/// The same as changes of a stored row; none when nothing is computed.
pub(super) fn computed_changes(
    computed: &[Computed],
    (table, row): (&TableDef, &Row),
    env: &Env<'_>,
) -> Result<Vec<(usize, Value)>, SqlError> {
    if computed.is_empty() {
        return Ok(Vec::new());
    }
    let mut values = row.values(table);
    compute(computed, &mut values, env)?;
    Ok(computed.iter().map(|(column, _)| (*column, values[*column].clone())).collect())
}

/// NOT NULL and CHECK.
pub(super) fn check_row(
    env: &Env<'_>,
    (table, checks): (&TableDef, &[Check]),
    values: &[Value],
) -> Result<(), SqlError> {
    let missing =
        table.columns.iter().zip(values).find(|(column, value)| column.not_null && value.is_null());
    if let Some((column, _)) = missing {
        return Err(SqlError::new(
            state::NOT_NULL,
            format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                column.name, table.name
            ),
        )
        .with_detail(failing_row(env, table, values)));
    }
    for check in checks {
        // A check that is unknown is not violated.
        if crate::eval::truth(&check.predicate, &Values(values), env)? == Some(false) {
            return Err(SqlError::new(
                state::CHECK,
                format!(
                    "new row for relation \"{}\" violates check constraint \"{}\"",
                    table.name, check.name
                ),
            )
            .with_detail(failing_row(env, table, values)));
        }
    }
    Ok(())
}

fn failing_row(env: &Env<'_>, table: &TableDef, values: &[Value]) -> String {
    let zone = env.run.context.session.settings.zone_offset();
    let shown: Vec<String> = table
        .shown_columns()
        .map(|(position, _)| {
            let value = &values[position];
            if value.is_null() {
                "null".to_owned()
            } else {
                crate::text::shown(value.as_ref(), crate::types::Type::Float8, zone).into_owned()
            }
        })
        .collect();
    format!("Failing row contains ({}).", shown.join(", "))
}
