//! Definitions: what CREATE, ALTER, DROP and TRUNCATE come to, bound but not yet done.

use std::sync::Arc;
use understudy_store::{
    ColumnDef, ForeignKeyDef, Identity, IndexDef, IndexId, SequenceDef, TableDef, TableId,
};

use crate::{expr::Expr, plan::Computed};

/// A change of the catalog, or of whole tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Definition {
    CreateTable {
        table: TableDef,
        /// Those of its serial and identity columns.
        sequences: Vec<NewSequence>,
    },
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
        /// RESTART IDENTITY.
        restart: bool,
        notices: Vec<String>,
    },
    CreateSequence(TableDef),
    AlterSequence {
        old: Arc<TableDef>,
        new: TableDef,
        restart: Option<i64>,
    },
    DropSequences {
        sequences: Vec<Arc<TableDef>>,
        /// Columns that lose their DEFAULT with them.
        defaults: Vec<(Arc<TableDef>, usize)>,
        notices: Vec<String>,
    },
    CreateIndex {
        /// With the columns that the index needs.
        table: Arc<TableDef>,
        index: IndexDef,
        /// Those of them that are filled in first.
        computed: Vec<Computed>,
        notices: Vec<String>,
    },
    AlterTable {
        table: Arc<TableDef>,
        steps: Vec<AlterStep>,
    },
}

/// A foreign key of a table, by name.
pub(crate) type KeyOf = (TableId, String);

/// The sequence of a serial or identity column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewSequence {
    pub(crate) name: String,
    /// Without owner, which is `column` of the table.
    pub(crate) def: SequenceDef,
    pub(crate) column: u16,
}

/// One clause of ALTER TABLE.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AlterStep {
    /// With what older rows show, evaluated once.
    AddColumn {
        column: ColumnDef,
        fill: Option<Expr>,
    },
    /// A generated column, with what it holds.
    AddGenerated {
        column: ColumnDef,
        expr: Expr,
    },
    /// A serial or identity column, with its sequence.
    AddNumbered {
        column: ColumnDef,
        sequence: NewSequence,
    },
    AddIdentity {
        kind: Identity,
        sequence: NewSequence,
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
    /// The table with other names, in its texts too; nothing else of it counts.
    Rename(Box<TableDef>),
    /// Accepted without effect (owner, storage parameters).
    Nothing,
}
