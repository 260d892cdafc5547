//! Foreign keys as definitions, and what they mean for the writers of the tables they connect.
//!
//! A [`ForeignKeyDef`] belongs to the referencing table and travels with it, in the log and in
//! checkpoints. The [`Links`] of a table are derived from all definitions whenever one changes; they
//! tell a writer in one look whether foreign keys concern it. Invariants: a foreign key references
//! columns that some unique index of the other table has, in any order; the first such index serves
//! it, and is not dropped before the foreign key.

use crate::{
    error::WriteError,
    heap::{State, Table},
    index::IndexData,
    row::Row,
    table::{IndexDef, TableDef, TableId},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// What becomes of referencing rows when the referenced row goes or changes its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ReferentialAction {
    /// The statement fails if a referencing row is left at its end.
    #[default]
    NoAction,
    /// The statement fails if there is a referencing row, even if the key comes back.
    Restrict,
    /// They are deleted, or take the new key.
    Cascade,
    /// Their referencing columns become null.
    SetNull,
    /// Their referencing columns take their defaults.
    SetDefault,
}

/// One foreign key of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKeyDef {
    /// Name of the constraint, unique within the table.
    pub name: String,
    /// Positions of the referencing columns.
    pub columns: Vec<u16>,
    /// The referenced table. In a table that is being created, `TableId(0)` is the table itself.
    pub references: TableId,
    /// Positions of the referenced columns, one for each of `columns`.
    pub referenced: Vec<u16>,
    /// Whether nulls may not be mixed with values (MATCH FULL).
    pub match_full: bool,
    /// ON DELETE.
    pub on_delete: ReferentialAction,
    /// ON UPDATE.
    pub on_update: ReferentialAction,
}

impl ForeignKeyDef {
    /// A foreign key with NO ACTION; see the fields.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        columns: &[u16],
        (references, referenced): (TableId, &[u16]),
    ) -> ForeignKeyDef {
        ForeignKeyDef {
            name: name.into(),
            columns: columns.to_vec(),
            references,
            referenced: referenced.to_vec(),
            match_full: false,
            on_delete: ReferentialAction::NoAction,
            on_update: ReferentialAction::NoAction,
        }
    }

    /// The same foreign key with these actions.
    #[must_use]
    pub fn with_actions(
        mut self,
        on_delete: ReferentialAction,
        on_update: ReferentialAction,
    ) -> ForeignKeyDef {
        (self.on_delete, self.on_update) = (on_delete, on_update);
        self
    }

    /// The unique index of the referenced table that serves this foreign key.
    #[must_use]
    pub fn index<'a>(&self, referenced: &'a TableDef) -> Option<&'a IndexDef> {
        referenced.indexes.iter().find(|index| self.is_served_by(index))
    }

    fn is_served_by(&self, index: &IndexDef) -> bool {
        index.unique
            && index.only.is_none()
            && index.columns.len() == self.referenced.len()
            && self.referenced.iter().all(|column| index.columns.contains(column))
    }

    /// The index that serves this foreign key, and its columns' counterparts in the referencing table.
    pub(crate) fn served_by(&self, referenced: &Table) -> Option<(Arc<IndexData>, Vec<u16>)> {
        let index = referenced.indexes.iter().find(|index| self.is_served_by(&index.def))?;
        let counterpart = |column: &u16| {
            let at = self.referenced.iter().position(|referenced| referenced == column)?;
            self.columns.get(at).copied()
        };
        let columns: Option<Vec<u16>> = index.def.columns.iter().map(counterpart).collect();
        Some((Arc::clone(index), columns?))
    }
}

/// Which foreign keys concern the writers of a table; a table that no foreign key touches has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    /// Whether the table has foreign keys of its own.
    pub(crate) references: bool,
    /// Foreign keys that reference the table: whose, and which of its `foreign_keys`.
    pub(crate) referrers: Vec<(TableId, usize)>,
    /// Columns that they reference, ascending.
    pub(crate) key_columns: Vec<u16>,
}

impl Links {
    /// The links of a table among all definitions.
    pub(crate) fn of(table: &TableDef, state: &State) -> Option<Arc<Links>> {
        let mut referrers = Vec::new();
        let mut key_columns = BTreeSet::new();
        for child in state.catalog.tables() {
            for (position, key) in child.foreign_keys.iter().enumerate() {
                if key.references == table.id {
                    referrers.push((child.id, position));
                    key_columns.extend(key.referenced.iter().copied());
                }
            }
        }
        let references = !table.foreign_keys.is_empty();
        let key_columns: Vec<u16> = key_columns.into_iter().collect();
        (references || !referrers.is_empty())
            .then(|| Arc::new(Links { references, referrers, key_columns }))
    }

    /// Whether a change takes a referenced key away.
    pub(crate) fn takes_key(&self, def: &TableDef, old: &Row, new: Option<&Row>) -> bool {
        !self.referrers.is_empty()
            && new.is_none_or(|new| !same_columns(def, &self.key_columns, (old, new)))
    }

    /// Whether a change is to be looked at when its statement ends.
    pub(crate) fn concerns(&self, def: &TableDef, old: &Row, new: Option<&Row>) -> bool {
        let moves = |new: &Row| {
            def.foreign_keys.iter().any(|key| !same_columns(def, &key.columns, (old, new)))
        };
        self.takes_key(def, old, new) || (self.references && new.is_some_and(moves))
    }
}

/// Whether two rows of a table show the same in these columns; rows may be older than a column.
pub(crate) fn same_columns(def: &TableDef, columns: &[u16], (a, b): (&Row, &Row)) -> bool {
    columns.iter().all(|&column| {
        let column = usize::from(column);
        let stored = column < a.stored_columns() && column < b.stored_columns();
        if stored {
            a.raw(column) == b.raw(column)
        } else {
            a.column_ref(def, column) == b.column_ref(def, column)
        }
    })
}

/// The tables that foreign keys of a definition reference, itself left out.
pub(crate) fn referenced_tables(def: &TableDef) -> BTreeSet<TableId> {
    def.foreign_keys.iter().map(|key| key.references).filter(|id| *id != def.id).collect()
}

/// Whether the foreign keys of a definition make sense by themselves.
pub(crate) fn check_shape(def: &TableDef) -> Result<(), WriteError> {
    let mut names = BTreeSet::new();
    for key in &def.foreign_keys {
        let exists = |column: &u16| usize::from(*column) < def.columns.len();
        let sound = !key.columns.is_empty()
            && key.columns.len() == key.referenced.len()
            && key.columns.iter().all(exists);
        if !sound {
            let reason = format!("foreign key \"{}\" pairs no columns of the tables", key.name);
            return Err(WriteError::InvalidDefinition { reason });
        }
        if !names.insert(key.name.as_str()) {
            let reason = format!("foreign key \"{}\" is defined twice", key.name);
            return Err(WriteError::InvalidDefinition { reason });
        }
    }
    Ok(())
}

/// Whether every foreign key of a table in these definitions has an index to serve it.
pub(crate) fn check_served(state: &State, def: &TableDef) -> Result<(), WriteError> {
    for key in &def.foreign_keys {
        let referenced = state.table(key.references);
        if referenced.and_then(|table| key.index(&table.def)).is_none() {
            let reason = format!("foreign key \"{}\" references no unique index", key.name);
            return Err(WriteError::InvalidDefinition { reason });
        }
    }
    Ok(())
}

/// Refuses definitions in which a foreign key of another table has lost what it references.
pub(crate) fn check_referrers(state: &State, table: &Table) -> Result<(), WriteError> {
    let Some(links) = &table.links else { return Ok(()) };
    for (child, _) in &links.referrers {
        if let Some(child) = state.table(*child) {
            check_served(state, &child.def)?;
        }
    }
    Ok(())
}
