//! UPDATE, DELETE and SELECT … FOR UPDATE.
//!
//! An UPDATE or DELETE reads everything before it writes anything. What it keeps of each row meanwhile is
//! temporary memory, so it is as little as the change needs: of a row to delete its id, of a row that is
//! updated by itself the row, which the store has anyway, and only else what it shall be.

use super::{
    CommandTag, ExecError, Executor, Run,
    insert::{check_row, computed_changes},
    query,
    query::Flow,
    refused,
    rejudge::TargetRow,
    room::{Room, bytes_of, pointed_to},
    rows,
};
use crate::{
    error::SqlError,
    eval::{Env, RowTuple, Tuple, Values, eval, eval_all},
    expr::Expr,
    function,
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

/// Rows that changed after a locking read's snapshot, with their memory.
#[derive(Default)]
struct Changed {
    rows: BTreeSet<(TableId, RowId)>,
    room: Room,
}

/// Rows to change. Most statements have one, which needs no list.
#[derive(Default)]
struct Found {
    first: Option<Target>,
    others: Others,
    room: Room,
}

/// The rows after the first, with as much of each as its change needs.
#[derive(Default)]
enum Others {
    #[default]
    None,
    /// To delete; nobody wants to see them.
    Ids(Vec<RowId>),
    /// What each shall be is computed of it alone, when its turn comes.
    Rows(Vec<(RowId, Row)>),
    /// What each shall be was computed of its tuple.
    Whole(Vec<Target>),
}

impl New {
    /// What it takes beside itself.
    fn bytes(&self) -> u64 {
        match self {
            New::Gone | New::Row(_) => 0,
            New::Changes(changes) => changes
                .iter()
                .map(|(column, value)| {
                    (size_of_val(column) + size_of_val(value)) as u64 + pointed_to(value)
                })
                .sum(),
        }
    }
}

impl Others {
    /// The list for rows that stand alone in their tuples.
    fn of_table(plan: &ChangePlan) -> Others {
        match &plan.assignments {
            None if plan.returning.is_empty() => Others::Ids(Vec::new()),
            // A subquery must not see what the statement has changed already, and a sequence is asked row by
            // row, by the condition and by what is assigned.
            Some(assigned) if assigned.iter().any(|(_, expr)| is_of_its_moment(expr)) => {
                Others::Whole(Vec::new())
            }
            None | Some(_) => Others::Rows(Vec::new()),
        }
    }
}

/// Whether an expression may give something else once all rows were read.
fn is_of_its_moment(expr: &Expr) -> bool {
    let asks =
        |part: &Expr| matches!(part, Expr::Call(called, _) if function::asks_sequence(called));
    expr.has_subquery() || expr.any(&asks)
}

impl Found {
    /// Adds a row that stands alone in its tuple; not the first one.
    #[inline(never)]
    fn add(
        &mut self,
        plan: &ChangePlan,
        tuple: &RowTuple<'_>,
        env: &Env<'_>,
    ) -> Result<(), SqlError> {
        if matches!(self.others, Others::None) {
            self.others = Others::of_table(plan);
        }
        let (run, room, id) = (env.run, &mut self.room, tuple.id);
        match &mut self.others {
            Others::None => Err(SqlError::internal("a list of no rows")),
            Others::Ids(ids) => room.push(run, ids, id),
            Others::Rows(rows) => room.push(run, rows, (id, tuple.row.clone())),
            Others::Whole(targets) => {
                let new = assigned(plan, (tuple.row, tuple), env, false)?;
                room.take(run, new.bytes())?;
                room.push(run, targets, Target { id, old: tuple.row.clone(), new, rest: vec![] })
            }
        }
    }

    /// Adds a row with what its tuple made of it.
    fn add_whole(&mut self, run: &Run<'_>, target: Target) -> Result<(), SqlError> {
        if self.first.is_none() {
            self.first = Some(target);
            return Ok(());
        }
        if matches!(self.others, Others::None) {
            self.others = Others::Whole(Vec::new());
        }
        let Others::Whole(targets) = &mut self.others else {
            return Err(SqlError::internal("a list of other rows"));
        };
        self.room.take(run, target.new.bytes() + bytes_of(&target.rest))?;
        self.room.push(run, targets, target)
    }
}

impl Executor<'_, '_> {
    /// Runs an UPDATE or DELETE: first everything is read, then everything is written, so that no
    /// row is met twice.
    pub(super) fn change(&mut self, plan: &ChangePlan) -> Result<CommandTag, ExecError> {
        let mut count = 0;
        let mut found = Found::default();
        self.find(plan, &mut found)?;
        if let Some(first) = &found.first {
            count += self.change_wanted(plan, first)?;
        }
        match found.others {
            Others::None => {}
            Others::Ids(ids) => {
                for id in ids {
                    count += self.delete(plan, id)?;
                }
            }
            Others::Rows(rows) => {
                for (id, old) in rows {
                    let new = {
                        let tuple = RowTuple { table: &plan.table, id, row: &old };
                        assigned(plan, (&old, &tuple), &Env::new(self.run, self.txn), true)?
                    };
                    count += self.change_wanted(plan, &Target { id, old, new, rest: vec![] })?;
                }
            }
            Others::Whole(targets) => {
                for target in targets {
                    count += self.change_wanted(plan, &target)?;
                }
            }
        }
        self.settle()?;
        let command = if plan.assignments.is_some() { "UPDATE" } else { "DELETE" };
        Ok(CommandTag::counted(command, count))
    }

    fn find(&self, plan: &ChangePlan, found: &mut Found) -> Result<(), SqlError> {
        let env = Env::new(self.run, self.txn);
        if let Node::Table(table) = &plan.source
            && self.run.measures.is_none()
        {
            rows::table(table, &env, &mut |tuple: &RowTuple<'_>| {
                if found.first.is_some() {
                    found.add(plan, tuple, &env)?;
                } else {
                    let new = assigned(plan, (tuple.row, tuple), &env, true)?;
                    let (id, old) = (tuple.id, tuple.row.clone());
                    found.first = Some(Target { id, old, new, rest: Vec::new() });
                }
                Ok(Flow::More)
            })?;
            return Ok(());
        }
        let id_column = plan.table.columns.len();
        let width = query::width(&plan.source);
        let mut seen = BTreeSet::new();
        let mut room = Room::default();
        query::run(&plan.source, &env, &mut |tuple| {
            let understudy_store::ValueRef::Int(id) = tuple.column(id_column) else {
                return Ok(Flow::More);
            };
            let id = RowId(id as u64);
            // A target joined to several rows is changed once, by the first.
            if !seen.insert(id) {
                return Ok(Flow::More);
            }
            room.keep_id(self.run)?;
            let old = self.run.context.store.get(self.txn, View::ForUpdate, plan.table.id, id);
            if let Some(old) = old {
                let new = assigned(plan, (&old, tuple), &env, found.first.is_none())?;
                let rest = (id_column + 1..width).map(|c| tuple.column(c).to_value()).collect();
                found.add_whole(self.run, Target { id, old, new, rest })?;
            }
            Ok(Flow::More)
        })?;
        Ok(())
    }

    /// Deletes a row that stands alone in its tuple and that nobody wants to see.
    fn delete(&mut self, plan: &ChangePlan, id: RowId) -> Result<u64, ExecError> {
        self.run.may_go_on()?;
        let (store, table) = (self.run.context.store, plan.table.id);
        match store.delete(self.txn, table, id) {
            Err(WriteError::Blocked { on: TxnId::ENDED }) => {
                let old = store.get(self.txn, View::ForUpdate, table, id);
                let Some(old) = old else { return Ok(0) };
                self.change_wanted(plan, &Target { id, old, new: New::Gone, rest: Vec::new() })
            }
            done => done.map(|()| 1).map_err(refused),
        }
    }

    /// Changes a row as it was read; one that changed since, as it is now, if it is still wanted. How many
    /// rows were changed.
    fn change_wanted(&mut self, plan: &ChangePlan, target: &Target) -> Result<u64, ExecError> {
        self.run.may_go_on()?;
        match self.change_row(plan, target) {
            Err(ExecError::Blocked { on: TxnId::ENDED }) => {
                let newest = self.newest_target(plan, target)?;
                newest.map_or(Ok(0), |target| self.change_row(plan, &target).map(|()| 1))
            }
            done => done.map(|()| 1),
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
        let (mut kept, most, limit, mut skip) = {
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
            let kept = query::collect_some(&plan.input, &env, most)?;
            (kept, most, limit.unwrap_or(u64::MAX), offset)
        };
        let (mut count, mut at) = (0, 0);
        let mut changed = Changed::default();
        let mut is_cut = kept.rows.len() as u64 == most;
        while count < limit {
            let Some(row) = kept.rows.get(at) else { break };
            at += 1;
            if skip > 0 && plan.policy != LockWaitPolicy::SkipLocked {
                skip -= 1;
                continue;
            }
            let Some(row) = self.lock_tables(plan, row, &mut changed)? else {
                if std::mem::take(&mut is_cut) {
                    drop(kept);
                    kept = query::collect(&plan.input, &Env::new(self.run, self.txn))?;
                }
                continue;
            };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            count += 1;
            let env = Env::new(self.run, self.txn);
            let row = eval_all(&plan.exprs, &Values(&row), &env)?;
            self.show_row(&row)?;
        }
        Ok(CommandTag::counted("SELECT", count))
    }

    /// Locks a tuple's rows. Returns the tuple, made of the newest rows where some have changed, now or when
    /// an earlier tuple was locked; None when it is not wanted.
    fn lock_tables(
        &mut self,
        plan: &LockingPlan,
        tuple: &[Value],
        changed: &mut Changed,
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
                changed.room.keep_id(self.run)?;
                changed.rows.insert((table_id, id));
            }
            has_changed |= changed.rows.contains(&(table_id, id));
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
