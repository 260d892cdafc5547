//! Foreign keys as they are written: resolved against the table they reference, named, and looked for
//! when something that they need is to go.

use super::{Binder, draft::TableDraft, split_check};
use crate::{
    definition::{Definition, KeyOf},
    error::{SqlError, state},
    names,
    types::Type,
};
use sqlparser::ast;
use std::sync::Arc;
use understudy_store::{
    Catalog, DataType, ForeignKeyDef, IndexDef, ReferentialAction, TableDef, TableId,
};

/// Longest name of PostgreSQL.
const NAME_MAX: usize = 63;
/// What the name of an unnamed foreign key ends with.
const SUFFIX: &str = "_fkey";

/// A foreign key of a table that is being read.
pub(super) struct WrittenKey {
    pub(super) name: Option<String>,
    pub(super) columns: Vec<u16>,
    pub(super) clause: ast::ForeignKeyConstraint,
}

/// A foreign key and its table.
pub(super) type Referrer<'a> = (&'a Arc<TableDef>, &'a ForeignKeyDef);

impl TableDraft {
    /// `FOREIGN KEY (…) REFERENCES …` of a table.
    pub(super) fn reference(&mut self, clause: &ast::ForeignKeyConstraint) -> Result<(), SqlError> {
        let name = clause.name.as_ref().map(names::folded);
        let columns = key_columns(&self.table, &clause.columns)?;
        self.references.push(WrittenKey { name, columns, clause: clause.clone() });
        Ok(())
    }

    /// Resolves the foreign keys; the columns and indexes of the table are complete.
    pub(super) fn resolve_references(&mut self, binder: &Binder<'_>) -> Result<(), SqlError> {
        for written in std::mem::take(&mut self.references) {
            let key = binder.foreign_key(&self.table, written)?;
            self.table.foreign_keys.push(key);
        }
        Ok(())
    }
}

impl Binder<'_> {
    fn foreign_key(
        &self,
        table: &TableDef,
        written: WrittenKey,
    ) -> Result<ForeignKeyDef, SqlError> {
        let WrittenKey { name, columns, clause } = written;
        refuse_characteristics(clause.characteristics.as_ref())?;
        let is_itself = names::last_part(&clause.foreign_table) == table.name;
        let other =
            if is_itself { None } else { Some(self.referenced_table(&clause.foreign_table)?) };
        let referenced_table = other.as_deref().unwrap_or(table);
        let referenced = referenced_columns(referenced_table, &clause.referred_columns)?;
        let match_full = match clause.match_kind {
            None | Some(ast::ConstraintReferenceMatchKind::Simple) => false,
            Some(ast::ConstraintReferenceMatchKind::Full) => true,
            Some(ast::ConstraintReferenceMatchKind::Partial) => {
                return Err(SqlError::unsupported("MATCH PARTIAL"));
            }
        };
        let key = ForeignKeyDef {
            name: self.key_name(table, (name, &columns))?,
            columns,
            references: referenced_table.id,
            referenced,
            match_full,
            on_delete: action(clause.on_delete),
            on_update: action(clause.on_update),
        };
        if key.index(referenced_table).is_none() {
            return Err(SqlError::new(
                state::BAD_FOREIGN_KEY,
                format!(
                    "there is no unique constraint matching given keys for referenced table \"{}\"",
                    referenced_table.name
                ),
            ));
        }
        if key.referenced.len() != key.columns.len() {
            return Err(SqlError::new(
                state::BAD_FOREIGN_KEY,
                "number of referencing and referenced columns for foreign key disagree",
            ));
        }
        check_types(&key, (table, referenced_table))?;
        check_actions(&key, table)?;
        Ok(key)
    }

    /// The table a clause references; PostgreSQL names no place when it is missing.
    fn referenced_table(&self, name: &ast::ObjectName) -> Result<Arc<TableDef>, SqlError> {
        names::find_table(self.catalog, name)?.ok_or_else(|| {
            let shown = names::parts(name).join(".");
            let message = format!("relation \"{shown}\" does not exist");
            SqlError::new(state::UNKNOWN_TABLE, message)
        })
    }

    /// The name written, which must be free in the table, or the first free one made of its columns.
    fn key_name(
        &self,
        table: &TableDef,
        (written, columns): (Option<String>, &[u16]),
    ) -> Result<String, SqlError> {
        if let Some(name) = written {
            if has_constraint(table, &name)? {
                return Err(SqlError::new(
                    state::DUPLICATE_OBJECT,
                    format!("constraint \"{name}\" for relation \"{}\" already exists", table.name),
                ));
            }
            return Ok(name);
        }
        let parts: Vec<&str> =
            columns.iter().map(|c| table.columns[usize::from(*c)].name.as_str()).collect();
        let stem = format!("{}_{}", table.name, parts.join("_"));
        let stem: String = stem.chars().take(NAME_MAX - SUFFIX.len() - 2).collect();
        for number in 0.. {
            let number = if number == 0 { String::new() } else { number.to_string() };
            let name = format!("{stem}{SUFFIX}{number}");
            let mut tables = self.catalog.tables().map(|table| &**table).chain([table]);
            if !tables
                .try_fold(false, |taken, t| Ok::<_, SqlError>(taken || has_constraint(t, &name)?))?
            {
                return Ok(name);
            }
        }
        Err(SqlError::internal("some number is free"))
    }
}

fn has_constraint(table: &TableDef, name: &str) -> Result<bool, SqlError> {
    let mut checks = table.checks.iter().map(|text| split_check(text));
    Ok(table.foreign_keys.iter().any(|key| key.name == name)
        || table.indexes.iter().any(|index| index.unique && index.name == name)
        || checks.try_fold(false, |taken, check| Ok::<_, SqlError>(taken || check?.0 == name))?)
}

fn refuse_characteristics(
    written: Option<&ast::ConstraintCharacteristics>,
) -> Result<(), SqlError> {
    let Some(written) = written else { return Ok(()) };
    let deferred = written.initially == Some(ast::DeferrableInitial::Deferred);
    if written.deferrable == Some(true) || deferred {
        return Err(SqlError::unsupported("a DEFERRABLE foreign key").with_hint(
            "Leave DEFERRABLE out: foreign keys are checked when each statement ends.",
        ));
    }
    if written.enforced == Some(false) {
        return Err(SqlError::unsupported("a foreign key that is NOT ENFORCED"));
    }
    Ok(())
}

fn action(written: Option<ast::ReferentialAction>) -> ReferentialAction {
    match written {
        None | Some(ast::ReferentialAction::NoAction) => ReferentialAction::NoAction,
        Some(ast::ReferentialAction::Restrict) => ReferentialAction::Restrict,
        Some(ast::ReferentialAction::Cascade) => ReferentialAction::Cascade,
        Some(ast::ReferentialAction::SetNull) => ReferentialAction::SetNull,
        Some(ast::ReferentialAction::SetDefault) => ReferentialAction::SetDefault,
    }
}

fn key_columns(table: &TableDef, written: &[ast::Ident]) -> Result<Vec<u16>, SqlError> {
    let position = |ident: &ast::Ident| {
        let name = names::folded(ident);
        let position = table.column_position(&name).ok_or_else(|| {
            let message =
                format!("column \"{name}\" referenced in foreign key constraint does not exist");
            SqlError::new(state::UNKNOWN_COLUMN, message)
        })?;
        Ok(u16::try_from(position).unwrap_or(u16::MAX))
    };
    written.iter().map(position).collect()
}

/// The columns written, or those of the primary key.
fn referenced_columns(table: &TableDef, written: &[ast::Ident]) -> Result<Vec<u16>, SqlError> {
    if written.is_empty() {
        return table.primary_key().map(|key| key.columns.clone()).ok_or_else(|| {
            let message =
                format!("there is no primary key for referenced table \"{}\"", table.name);
            SqlError::new(state::UNKNOWN_OBJECT, message)
        });
    }
    let columns = key_columns(table, written)?;
    let is_twice = |(at, column): (usize, &u16)| columns[..at].contains(column);
    if columns.iter().enumerate().any(is_twice) {
        return Err(SqlError::new(
            state::BAD_FOREIGN_KEY,
            "foreign key referenced-columns list must not contain duplicates",
        ));
    }
    Ok(columns)
}

/// Types whose values compare with each other without a conversion.
fn is_same_kind(a: DataType, b: DataType) -> bool {
    let (a, b) = (Type::of(a), Type::of(b));
    let is_float = |ty: Type| matches!(ty, Type::Float4 | Type::Float8);
    let is_text = |ty: Type| matches!(ty, Type::Text | Type::Varchar);
    a == b
        || (a.is_integer() && b.is_integer())
        || (is_float(a) && is_float(b))
        || (is_text(a) && is_text(b))
}

/// 42601 when an action would write a generated column.
fn check_actions(key: &ForeignKeyDef, table: &TableDef) -> Result<(), SqlError> {
    use ReferentialAction::{Cascade, SetDefault, SetNull};
    let mut own = key.columns.iter().map(|column| &table.columns[usize::from(*column)]);
    if !own.any(|column| column.generated.is_some()) {
        return Ok(());
    }
    let clause = if matches!(key.on_update, Cascade | SetNull | SetDefault) {
        "ON UPDATE"
    } else if matches!(key.on_delete, SetNull | SetDefault) {
        "ON DELETE"
    } else {
        return Ok(());
    };
    let message =
        format!("invalid {clause} action for foreign key constraint containing generated column");
    Err(SqlError::new(state::SYNTAX, message))
}

fn check_types(
    key: &ForeignKeyDef,
    (table, referenced): (&TableDef, &TableDef),
) -> Result<(), SqlError> {
    for (own, other) in key.columns.iter().zip(&key.referenced) {
        let own = &table.columns[usize::from(*own)];
        let other = &referenced.columns[usize::from(*other)];
        if is_same_kind(own.data_type, other.data_type) {
            continue;
        }
        let (from, to) = (Type::of(own.data_type), Type::of(other.data_type));
        if from.converts_implicitly(to) {
            return Err(SqlError::unsupported(format!("a foreign key from {from} to {to}"))
                .with_hint(format!("Give the column \"{}\" the type {to}.", own.name)));
        }
        return Err(SqlError::new(
            state::DATATYPE_MISMATCH,
            format!("foreign key constraint \"{}\" cannot be implemented", key.name),
        )
        .with_detail(format!(
            "Key columns \"{}\" and \"{}\" are of incompatible types: {from} and {to}.",
            own.name, other.name
        )));
    }
    Ok(())
}

impl Binder<'_> {
    /// TRUNCATE, unless a table that is left alone references one that is emptied.
    pub(super) fn truncate(
        &self,
        mut tables: Vec<Arc<TableDef>>,
        cascade: bool,
        restart: bool,
    ) -> Result<Definition, SqlError> {
        let mut notices = Vec::new();
        let mut at = 0;
        while let Some(table) = tables.get(at).cloned() {
            at += 1;
            for (other, _) in referrers(self.catalog, table.id) {
                if tables.iter().any(|known| known.id == other.id) {
                    continue;
                }
                if !cascade {
                    let message = "cannot truncate a table referenced in a foreign key constraint";
                    let (child, parent) = (&other.name, &table.name);
                    return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
                        .with_detail(format!("Table \"{child}\" references \"{parent}\"."))
                        .with_hint(format!(
                            "Truncate table \"{child}\" at the same time, or use TRUNCATE ... CASCADE."
                        )));
                }
                notices.push(format!("truncate cascades to table \"{}\"", other.name));
                tables.push(Arc::clone(other));
            }
        }
        Ok(Definition::Truncate { tables, restart, notices })
    }

    /// The foreign keys that go before these tables do.
    pub(super) fn keys_of_dropped(
        &self,
        tables: &[Arc<TableDef>],
        cascade: bool,
        notices: &mut Vec<String>,
    ) -> Result<Vec<KeyOf>, SqlError> {
        let is_dropped = |id: TableId| tables.iter().any(|table| table.id == id);
        let (mut keys, mut left) = (Vec::new(), Vec::new());
        for table in tables {
            for (owner, key) in referrers(self.catalog, table.id) {
                if owner.id != table.id {
                    keys.push((owner.id, key.name.clone()));
                }
                if !is_dropped(owner.id) {
                    left.push(((owner, key), format!("table {}", table.name)));
                }
            }
        }
        if !cascade && !left.is_empty() {
            let what = match tables {
                [table] => format!("table {}", table.name),
                _ => String::new(),
            };
            return Err(still_needed(&what, &left));
        }
        notices.extend(left.iter().map(|(key, _)| cascade_notice(*key)));
        Ok(keys)
    }
}

/// The foreign keys that reference a table.
pub(super) fn referrers(catalog: &Catalog, table: TableId) -> Vec<Referrer<'_>> {
    let keys = catalog.tables().flat_map(|t| t.foreign_keys.iter().map(move |key| (t, key)));
    keys.filter(|(_, key)| key.references == table).collect()
}

/// The foreign keys that an index of a table serves.
pub(super) fn served<'a>(
    catalog: &'a Catalog,
    (table, index): (&TableDef, &IndexDef),
) -> Vec<Referrer<'a>> {
    let mut keys = referrers(catalog, table.id);
    keys.retain(|(_, key)| key.index(table).is_some_and(|serving| serving.id == index.id));
    keys
}

/// 2BP01: `what` cannot go while foreign keys depend on `on`.
pub(super) fn still_needed(what: &str, dependents: &[(Referrer<'_>, String)]) -> SqlError {
    let lines: Vec<String> = dependents
        .iter()
        .map(|((table, key), on)| {
            format!("constraint {} on table {} depends on {on}", key.name, table.name)
        })
        .collect();
    let message = if what.is_empty() {
        "cannot drop desired object(s) because other objects depend on them".to_owned()
    } else {
        format!("cannot drop {what} because other objects depend on it")
    };
    SqlError::new(state::DEPENDENTS, message)
        .with_detail(lines.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// What a foreign key's end is told as when it goes with what it references.
pub(super) fn cascade_notice((table, key): Referrer<'_>) -> String {
    format!("drop cascades to constraint {} on table {}", key.name, table.name)
}
