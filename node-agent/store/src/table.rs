//! What a table is: columns, indexes, checks. Plain data, carried in the log and in checkpoints.
//!
//! Invariants: [`TableId`] and [`IndexId`] are given by the store and never used again; a column's
//! type never changes; columns are only added at the end. Deliberately absent: expressions (defaults
//! and checks are SQL text that only the SQL crate understands), views, sequences.

use crate::{
    foreign_key::ForeignKeyDef,
    row,
    value::{DataType, Value},
};
use serde::{Deserialize, Serialize};

/// Identity of a table, never used again after a drop.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TableId(pub u32);

/// Identity of an index, over all tables; never used again after a drop.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct IndexId(pub u32);

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDef {
    /// Given by the store at creation; what a caller puts here is replaced.
    pub id: TableId,
    /// Schema, usually `public`.
    pub schema: String,
    /// Name, as folded by the binder.
    pub name: String,
    /// Columns in order; only ever appended to.
    pub columns: Vec<ColumnDef>,
    /// Indexes; at most one is the primary key.
    pub indexes: Vec<IndexDef>,
    /// CHECK constraints as SQL text, evaluated by the SQL crate.
    pub checks: Vec<String>,
    /// Foreign keys: what columns of this table reference elsewhere.
    pub foreign_keys: Vec<ForeignKeyDef>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// Name, as folded by the binder.
    pub name: String,
    /// Type; never changes.
    pub data_type: DataType,
    /// Whether the store refuses a null here.
    pub not_null: bool,
    /// DEFAULT as SQL text; None means null.
    pub default: Option<String>,
    /// Encoded value that rows older than the column show; None means null.
    pub fill: Option<Vec<u8>>,
}

/// One index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDef {
    /// Given by the store; what a caller puts here is replaced.
    pub id: IndexId,
    /// Name, unique within the schema.
    pub name: String,
    /// Positions of the key columns, most significant first.
    pub columns: Vec<u16>,
    /// Whether two rows may not share a key without nulls.
    pub unique: bool,
    /// Whether it is the table's primary key (then unique, and its columns are not null).
    pub is_primary_key: bool,
}

impl TableDef {
    /// A table in schema `public`, without indexes.
    #[must_use]
    pub fn new(name: impl Into<String>, columns: Vec<ColumnDef>) -> TableDef {
        TableDef {
            id: TableId(0),
            schema: "public".to_owned(),
            name: name.into(),
            columns,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
        }
    }

    /// The same table with a primary key over these columns, which become not null.
    #[must_use]
    pub fn with_primary_key(mut self, columns: &[u16]) -> TableDef {
        for column in columns {
            self.columns[usize::from(*column)].not_null = true;
        }
        let name = format!("{}_pkey", self.name);
        self.indexes.push(IndexDef {
            id: IndexId(0),
            name,
            columns: columns.to_vec(),
            unique: true,
            is_primary_key: true,
        });
        self
    }

    /// The same table with one more index.
    #[must_use]
    pub fn with_index(mut self, index: IndexDef) -> TableDef {
        self.indexes.push(index);
        self
    }

    /// The same table with one more foreign key.
    #[must_use]
    pub fn with_foreign_key(mut self, key: ForeignKeyDef) -> TableDef {
        self.foreign_keys.push(key);
        self
    }

    /// Position of a column by name.
    #[must_use]
    pub fn column_position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The primary key, when there is one.
    #[must_use]
    pub fn primary_key(&self) -> Option<&IndexDef> {
        self.indexes.iter().find(|i| i.is_primary_key)
    }
}

impl ColumnDef {
    /// A nullable column without default.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType) -> ColumnDef {
        ColumnDef { name: name.into(), data_type, not_null: false, default: None, fill: None }
    }

    /// The same column, refusing nulls.
    #[must_use]
    pub fn required(mut self) -> ColumnDef {
        self.not_null = true;
        self
    }

    /// The same column with the value that rows older than it show.
    #[must_use]
    pub fn filled_with(mut self, value: &Value) -> ColumnDef {
        self.fill = (!value.is_null()).then(|| {
            let mut bytes = Vec::new();
            row::encode(value.as_ref(), &mut bytes);
            bytes
        });
        self
    }
}

impl IndexDef {
    /// A non-unique index.
    #[must_use]
    pub fn new(name: impl Into<String>, columns: &[u16]) -> IndexDef {
        IndexDef {
            id: IndexId(0),
            name: name.into(),
            columns: columns.to_vec(),
            unique: false,
            is_primary_key: false,
        }
    }

    /// The same index, unique.
    #[must_use]
    pub fn unique(mut self) -> IndexDef {
        self.unique = true;
        self
    }
}
