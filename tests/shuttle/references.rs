//! Foreign keys: a child that comes while its parent goes, and children that follow.

use crate::{Database, in_many_orders, row, statement, threads};
use std::sync::Arc;
use understudy_store_shuttle::{
    ColumnDef, Consequences, DataType, ForeignKeyDef, ReferentialAction, Row, TableDef, TableId,
    Txn, Value, View, WriteError,
};

/// Every default is 0, every row is accepted.
struct Plain;

impl Consequences for Plain {
    type Error = WriteError;

    fn default(&mut self, _: &Txn, _: &Arc<TableDef>, _: usize) -> Result<Value, WriteError> {
        Ok(Value::Int(0))
    }

    fn accept(&mut self, _: &Txn, _: &Arc<TableDef>, row: Row) -> Result<Row, WriteError> {
        Ok(row)
    }
}

/// The pairs as parents, and children `(id bigint primary key, k bigint)` that reference them.
fn family(on_delete: ReferentialAction) -> (Arc<Database>, TableId) {
    let db = Database::filled(2);
    let mut txn = db.begin();
    let columns = ["id", "k"].map(|name| ColumnDef::new(name, DataType::Int8));
    let mut def = TableDef::new("children", columns.to_vec()).with_primary_key(&[0]);
    let key = ForeignKeyDef::new("children_k", &[1], (db.table, &[0]));
    def.foreign_keys.push(key.with_actions(on_delete, ReferentialAction::NoAction));
    let children = db.store.create_table(&mut txn, def).unwrap();
    db.commit(txn).unwrap();
    db.acknowledge();
    (db, children)
}

/// Ends a transaction of one statement: committed unless it was refused for the other's sake.
fn end(db: &Database, txn: Txn, done: Result<(), WriteError>) {
    match done {
        Ok(()) => {
            db.commit(txn).unwrap();
        }
        Err(WriteError::ForeignKeyViolation { .. } | WriteError::Serialization) => {
            db.store.rollback(txn);
        }
        Err(other) => panic!("{other}"),
    }
    db.acknowledge();
}

fn remove_parent(db: &Database, k: i64) {
    let mut txn = db.begin();
    let done = statement(db, &mut txn, |txn| {
        let key = [Value::Int(k)];
        if let Some((id, _)) = db.store.lookup_one(txn, View::ForUpdate, db.by_k, &key) {
            db.store.delete(txn, db.table, id)?;
        }
        db.store.settle(txn, &mut Plain)
    });
    end(db, txn, done);
}

fn add_child(db: &Database, children: TableId, id: i64, k: i64) {
    let mut txn = db.begin();
    let done = statement(db, &mut txn, |txn| {
        db.store.insert(txn, children, row(id, k))?;
        db.store.settle(txn, &mut Plain)
    });
    end(db, txn, done);
}

/// Every child has its parent, for whoever reads both in one snapshot.
fn is_whole(db: &Database, children: TableId) {
    let reader = db.begin();
    let parents = db.pairs(&reader);
    for (_, child) in db.store.scan(&reader, View::Committed, children) {
        let k = child.int(1).unwrap();
        assert!(parents.iter().any(|(parent, _)| *parent == k), "child of {k} in {parents:?}");
    }
}

#[test]
fn a_child_and_the_end_of_its_parent_do_not_miss_each_other() {
    in_many_orders(|| {
        let (db, children) = family(ReferentialAction::NoAction);
        threads(3, &db, move |db, i| match i {
            0 => remove_parent(db, 1),
            _ => add_child(db, children, i, 1),
        });
        is_whole(&db, children);
    });
}

#[test]
fn children_that_come_meanwhile_follow_their_parent_or_keep_it() {
    in_many_orders(|| {
        let (db, children) = family(ReferentialAction::Cascade);
        add_child(&db, children, 7, 1);
        threads(3, &db, move |db, i| match i {
            0 => remove_parent(db, 1),
            1 => add_child(db, children, 1, 1),
            // An older child changes hands.
            _ => {
                let mut txn = db.begin();
                let done = statement(db, &mut txn, |txn| {
                    let mut found = db.store.scan(txn, View::ForUpdate, children);
                    let older = found.find(|(_, child)| child.int(0) == Some(7));
                    if let Some((id, _)) = older {
                        db.store.update(txn, children, id, row(7, 2))?;
                    }
                    db.store.settle(txn, &mut Plain)
                });
                end(db, txn, done);
            }
        });
        is_whole(&db, children);
    });
}
