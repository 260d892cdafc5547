//! Definitions: what CREATE, ALTER, DROP and TRUNCATE come to, bound but not yet done.

use std::sync::Arc;
use understudy_store::{ColumnDef, ForeignKeyDef, IndexDef, IndexId, TableDef, TableId};

use crate::expr::Expr;

/// A change of the catalog, or of whole tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Definition {
    CreateTable(TableDef),
    /// Nothing to do, for IF (NOT) EXISTS; with the notices that say why.
    Skip(Vec<String>),
    DropTables {
        tables: Vec<Arc<TableDef>>,
        /// Foreign keys that go first.
        keys: Vec<KeyOf>,
        notices: Vec<String>,
    },
    DropIndexes {
        indexes: Vec<IndexId>,
        /// Foreign keys that go first.
        keys: Vec<KeyOf>,
        notices: Vec<String>,
    },
    Truncate {
        tables: Vec<Arc<TableDef>>,
        notices: Vec<String>,
    },
    CreateIndex {
        table: Arc<TableDef>,
        index: IndexDef,
    },
    AlterTable {
        table: Arc<TableDef>,
        steps: Vec<AlterStep>,
    },
}

/// A foreign key of a table, by name.
pub(crate) type KeyOf = (TableId, String);

/// One clause of ALTER TABLE.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterStep {
    /// With what older rows show, evaluated once.
    AddColumn {
        column: ColumnDef,
        fill: Option<Expr>,
    },
    AddIndex(IndexDef),
    /// The catalog's text and the bound predicate, checked against the rows there are.
    AddCheck {
        text: String,
        name: String,
        predicate: Expr,
    },
    DropCheck(String),
    /// Checked against the rows there are.
    AddForeignKey(ForeignKeyDef),
    /// Of this table or, before an index that it needs, of another; with what to tell of it.
    DropForeignKey(KeyOf, Option<String>),
    DropIndex(IndexId),
    SetNotNull(usize),
    DropNotNull(usize),
    SetDefault(usize, Option<String>),
    RenameColumn(usize, String),
    RenameTable(String),
    /// Accepted without effect (owner, storage parameters).
    Nothing,
}
