//! What a transaction of the log did to rows, told apart from applying it: for transactions that a store
//! has not, and may never have (trapped ones, protocol R19).

use crate::{
    redo::{Change, Changes, Ddl},
    row::{Row, RowId},
    store::Store,
    table::{TableDef, TableId},
    txn::Isolation,
    visibility::View,
};
use std::{collections::HashMap, sync::Arc};

/// One change, with the row before it as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A row came.
    Inserted {
        /// Where.
        table: Arc<TableDef>,
        /// The row.
        row: Row,
    },
    /// A row was replaced.
    Updated {
        /// Where.
        table: Arc<TableDef>,
        /// Before, if the story or the store knows it.
        old: Option<Row>,
        /// After.
        new: Row,
    },
    /// A row went.
    Deleted {
        /// Where.
        table: Arc<TableDef>,
        /// The row, if the story or the store knows it.
        old: Option<Row>,
    },
    /// A definition changed; in words.
    Defined(String),
    /// A row of a table that is not known here.
    Unknown,
}

/// Tells transactions that follow on each other, oldest first.
pub struct Story<'a> {
    store: &'a Store,
    tables: HashMap<TableId, Arc<TableDef>>,
    rows: HashMap<(TableId, RowId), Option<Row>>,
}

/// A payload that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct StoryError {
    /// Where.
    pub offset: usize,
    /// Why.
    pub reason: String,
}

impl<'a> Story<'a> {
    /// Told beside this store: what the transactions do not say themselves is looked up there, as it is
    /// now.
    #[must_use]
    pub fn beside(store: &'a Store) -> Self {
        Self { store, tables: HashMap::new(), rows: HashMap::new() }
    }

    /// What the next transaction did.
    ///
    /// # Errors
    /// When the payload cannot be read.
    pub fn tell(&mut self, payload: &[u8]) -> Result<Vec<Told>, StoryError> {
        let failed = |m: crate::redo::Malformed| StoryError { offset: m.offset, reason: m.reason };
        let mut changes = Changes::new(payload).map_err(failed)?;
        let mut told = Vec::new();
        while let Some(change) = changes.next().map_err(failed)? {
            told.push(match change {
                Change::Token(_) => continue,
                Change::Ddl(ddl) => self.define(ddl),
                Change::Insert { table, row, bytes } => match (self.table(table), read(bytes)) {
                    (Some(def), Some(new)) => {
                        self.rows.insert((table, row), Some(new.clone()));
                        Told::Inserted { table: def, row: new }
                    }
                    _ => Told::Unknown,
                },
                Change::Update { table, row, bytes } => match (self.table(table), read(bytes)) {
                    (Some(def), Some(new)) => {
                        let old = self.replace(table, row, Some(new.clone()));
                        Told::Updated { table: def, old, new }
                    }
                    _ => Told::Unknown,
                },
                Change::Delete { table, row } => match self.table(table) {
                    Some(def) => Told::Deleted { table: def, old: self.replace(table, row, None) },
                    None => Told::Unknown,
                },
            });
        }
        Ok(told)
    }

    fn table(&self, id: TableId) -> Option<Arc<TableDef>> {
        let own = self.tables.get(&id).cloned();
        own.or_else(|| self.store.catalog().table_by_id(id).cloned())
    }

    /// The row as it was: as the story left it, else as the store has it.
    fn replace(&mut self, table: TableId, id: RowId, new: Option<Row>) -> Option<Row> {
        if let Some(old) = self.rows.insert((table, id), new) {
            return old;
        }
        let txn = self.store.begin(Isolation::ReadCommitted);
        let old = self.store.get(&txn, View::Committed, table, id);
        self.store.rollback(txn);
        old
    }

    fn define(&mut self, ddl: Ddl) -> Told {
        Told::Defined(match ddl {
            Ddl::CreateTable(table) => {
                let text = format!("CREATE TABLE {}.{}", table.schema, table.name);
                self.tables.insert(table.id, Arc::new(table));
                text
            }
            Ddl::AlterTable(table) => {
                let text = format!("ALTER TABLE {}.{}", table.schema, table.name);
                self.tables.insert(table.id, Arc::new(table));
                text
            }
            Ddl::DropTable(id) => format!("DROP TABLE {}", self.name(id)),
            Ddl::Truncate(id) => format!("TRUNCATE {}", self.name(id)),
            Ddl::AddIndex(id, index) => format!("CREATE INDEX {} ON {}", index.name, self.name(id)),
            Ddl::DropIndex(id) => format!("DROP INDEX number {}", id.0),
            // Its verifier is nobody's to read.
            Ddl::PutUser(user) => format!("CREATE or ALTER USER {}", user.name),
            Ddl::DropUser(name) => format!("DROP USER {name}"),
        })
    }

    fn name(&self, id: TableId) -> String {
        self.table(id)
            .map_or_else(|| format!("number {}", id.0), |t| format!("{}.{}", t.schema, t.name))
    }
}

fn read(bytes: &[u8]) -> Option<Row> {
    Row::from_bytes(bytes).ok()
}
