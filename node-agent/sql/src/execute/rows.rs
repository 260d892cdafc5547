//! Reading a table by its access path.

use super::{constants, query::Flow, rejudge::TargetRow};
use crate::{
    aggregate::Sortable,
    error::SqlError,
    eval::{Env, NoColumns, RowTuple, Tuple as _, eval, is_true, ordering},
    expr::Expr,
    plan::{Access, Reading, TableNode},
};
use std::{cmp::Ordering, collections::BTreeSet, ops::Bound};
use understudy_store::{
    Batch, Direction, IndexId, KeyBounds, Row, RowId, Scan, Store, TableDef, Txn, Value, View,
};

/// Takes rows.
type RowConsumer<'a> = dyn FnMut(&RowTuple<'_>) -> Result<Flow, SqlError> + 'a;

/// Reads the rows that the node's access finds and its filter keeps.
pub(crate) fn table(
    node: &TableNode,
    env: &Env<'_>,
    consume: &mut RowConsumer<'_>,
) -> Result<Flow, SqlError> {
    let txn = env.txn;
    let store = env.run.context.store;
    let view = match node.reading {
        Reading::Snapshot => View::Committed,
        Reading::Target => View::ForUpdate,
    };
    let mut reader = Reader { node, env, consume };
    if node.reading == Reading::Target
        && let Some(only) = &*env.run.only.borrow()
    {
        return reader.only(only);
    }
    match &node.access {
        Access::Scan => reader.all(store.scan(txn, view, node.table.id)),
        Access::Key { index, key } => {
            // One column's value stays on the stack.
            let (one, several);
            let key: &[Value] = if let [expr] = &key[..] {
                one = [eval(expr, &NoColumns, env)?];
                &one
            } else {
                several = constants(key, env)?;
                &several
            };
            if key.iter().any(Value::is_null) {
                return Ok(Flow::More);
            }
            reader.by_key((store, txn, view), *index, key)
        }
        Access::KeyList { index, keys: list } => {
            let wanted: BTreeSet<Sortable> = constants(list, env)?
                .into_iter()
                .filter(|key| !key.is_null())
                .map(|key| Sortable(vec![key]))
                .collect();
            for Sortable(key) in wanted {
                if reader.by_key((store, txn, view), *index, &key)? == Flow::Enough {
                    return Ok(Flow::Enough);
                }
            }
            Ok(Flow::More)
        }
        Access::Range { index, equal, lower, upper, direction } => {
            match bounds(equal, (lower, upper), env)? {
                Some(bounds) => reader.all(store.range(txn, view, *index, &bounds, *direction)),
                None => Ok(Flow::More),
            }
        }
    }
}

struct Reader<'a, 'b> {
    node: &'a TableNode,
    env: &'a Env<'a>,
    consume: &'a mut RowConsumer<'b>,
}

impl Reader<'_, '_> {
    fn by_key(
        &mut self,
        (store, txn, view): (&Store, &Txn, View),
        index: IndexId,
        key: &[Value],
    ) -> Result<Flow, SqlError> {
        let def = self.node.table.indexes.iter().find(|candidate| candidate.id == index);
        if def.is_some_and(|def| def.unique && def.columns.len() == key.len()) {
            return match store.lookup_one(txn, view, index, key) {
                Some((id, row)) => self.row(id, &row),
                None => Ok(Flow::More),
            };
        }
        let bounds = KeyBounds::equal(key.to_vec());
        self.all(store.range(txn, view, index, &bounds, Direction::Ascending))
    }

    /// The rows at hand that the access would find.
    fn only(&mut self, rows: &[TargetRow]) -> Result<Flow, SqlError> {
        for target in rows.iter().filter(|target| target.table == self.node.table.id) {
            let tuple = RowTuple { table: &self.node.table, id: target.id, row: &target.row };
            if finds(&self.node.access, &self.node.table, &tuple, self.env)?
                && self.row(target.id, &target.row)? == Flow::Enough
            {
                return Ok(Flow::Enough);
            }
        }
        Ok(Flow::More)
    }

    fn all(&mut self, mut scan: Scan<'_>) -> Result<Flow, SqlError> {
        while let Some(Batch { rows, unseen }) = scan.next_batch() {
            if unseen > 0 {
                self.env.run.goes_on_by(unseen)?;
            }
            for (id, row) in rows {
                if self.row(id, &row)? == Flow::Enough {
                    return Ok(Flow::Enough);
                }
            }
        }
        Ok(Flow::More)
    }

    fn row(&mut self, id: RowId, row: &Row) -> Result<Flow, SqlError> {
        self.env.run.goes_on()?;
        let tuple = RowTuple { table: &self.node.table, id, row };
        if let Some(filter) = &self.node.filter
            && !is_true(filter, &tuple, self.env)?
        {
            if let Some(measures) = self.env.run.measures {
                measures.remove(self.node);
            }
            return Ok(Flow::More);
        }
        (self.consume)(&tuple)
    }
}

/// Whether an access finds a row.
fn finds(
    access: &Access,
    table: &TableDef,
    tuple: &RowTuple<'_>,
    env: &Env<'_>,
) -> Result<bool, SqlError> {
    let columns = |index: &IndexId| -> &[u16] {
        table.indexes.iter().find(|def| def.id == *index).map_or(&[], |def| &def.columns)
    };
    let column = |position: u16| tuple.column(usize::from(position));
    let agree = |columns: &[u16], key: &[Value]| {
        columns
            .iter()
            .zip(key)
            .all(|(at, value)| ordering(column(*at), value.as_ref()) == Some(Ordering::Equal))
    };
    Ok(match access {
        Access::Scan => true,
        Access::Key { index, key } => agree(columns(index), &constants(key, env)?),
        Access::KeyList { index, keys: list } => {
            constants(list, env)?.into_iter().any(|key| agree(columns(index), &[key]))
        }
        Access::Range { index, equal, lower, upper, direction: _ } => {
            let columns = columns(index);
            let Some(next) = columns.get(equal.len()) else {
                return Ok(agree(columns, &constants(equal, env)?));
            };
            let within = |bound: &Bound<Expr>, beyond: Ordering| -> Result<bool, SqlError> {
                let (Bound::Included(expr) | Bound::Excluded(expr)) = bound else {
                    return Ok(true);
                };
                let limit = eval(expr, &NoColumns, env)?;
                Ok(match ordering(column(*next), limit.as_ref()) {
                    None => false,
                    Some(Ordering::Equal) => matches!(bound, Bound::Included(_)),
                    Some(ordering) => ordering != beyond,
                })
            };
            agree(columns, &constants(equal, env)?)
                && within(lower, Ordering::Less)?
                && within(upper, Ordering::Greater)?
        }
    })
}

/// The bounds of a range; None when a null makes it empty.
fn bounds(
    equal: &[Expr],
    (lower, upper): (&Bound<Expr>, &Bound<Expr>),
    env: &Env<'_>,
) -> Result<Option<KeyBounds>, SqlError> {
    let prefix = constants(equal, env)?;
    let mut null = prefix.iter().any(Value::is_null);
    let mut bound = |bound: &Bound<Expr>| -> Result<Bound<Vec<Value>>, SqlError> {
        let (expr, included) = match bound {
            Bound::Included(expr) => (expr, true),
            Bound::Excluded(expr) => (expr, false),
            Bound::Unbounded if prefix.is_empty() => return Ok(Bound::Unbounded),
            Bound::Unbounded => return Ok(Bound::Included(prefix.clone())),
        };
        let value = eval(expr, &NoColumns, env)?;
        null |= value.is_null();
        let mut key = prefix.clone();
        key.push(value);
        Ok(if included { Bound::Included(key) } else { Bound::Excluded(key) })
    };
    let (lower, mut upper_key) = (bound(lower)?, bound(upper)?);
    // An open end after a lower bound must not reach the nulls, which sort last.
    if matches!(upper, Bound::Unbounded) && prefix.is_empty() && !matches!(lower, Bound::Unbounded)
    {
        upper_key = Bound::Excluded(vec![Value::Null]);
    }
    Ok((!null).then_some(KeyBounds { lower, upper: upper_key }))
}
