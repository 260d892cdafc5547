//! The catalog: every table, index and user by name and id, as one immutable value.
//!
//! A change makes a new catalog (see `ddl`); a plan knows which one it was made for ([`Planned`]) and is good for
//! no other. Invariants: names of tables, sequences and indexes share one namespace per schema; `version` grows
//! with every change and is the same on every member at the same LSN, but a change that is undone takes it back;
//! an id is given once, also where what had it is undone. Privileges other than `admin` are deliberately absent.

use crate::table::{IndexDef, IndexId, TableDef, TableId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ptr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// One user who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDef {
    /// Name, as folded by the binder.
    pub name: String,
    /// SCRAM verifier `SCRAM-SHA-256$iterations:salt$stored:server`, never the password; None
    /// means that no password matches.
    pub scram: Option<String>,
    /// Whether the user may create and drop everything.
    pub admin: bool,
}

/// Everything that has a name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Catalog {
    /// Counts changes.
    pub version: u64,
    /// Tables and sequences by id.
    tables: BTreeMap<TableId, Arc<TableDef>>,
    /// Users by name.
    users: BTreeMap<String, Arc<UserDef>>,
    /// Ids by (schema, name); derived.
    #[serde(skip)]
    names: BTreeMap<(String, String), TableId>,
    /// Next table id to give.
    next_table: u32,
    /// Next index id to give.
    next_index: u32,
}

/// The lowest ids that were never given since the store was opened. A catalog that is undone takes its own back,
/// but its transaction and its session may remember what had them. Changed by one transaction at a time, the one
/// that changes definitions.
#[derive(Debug, Default)]
pub(crate) struct FreshIds {
    table: AtomicU32,
    index: AtomicU32,
}

impl FreshIds {
    fn give(fresh: &AtomicU32, next: &mut u32) -> u32 {
        let id = fresh.load(Relaxed).max(*next).max(1);
        *next = id + 1;
        fresh.store(*next, Relaxed);
        id
    }
}

/// Which catalog a plan was made for. Versions come again after a ROLLBACK; this does not, for the memory of a
/// catalog is given to no other while somebody holds this.
#[derive(Debug, Clone)]
pub struct Planned(Weak<Catalog>);

impl Planned {
    /// For this one.
    #[must_use]
    pub fn on(catalog: &Arc<Catalog>) -> Planned {
        Planned(Arc::downgrade(catalog))
    }

    /// Whether it was for this one.
    #[must_use]
    pub fn is_on(&self, catalog: &Arc<Catalog>) -> bool {
        ptr::eq(self.0.as_ptr(), Arc::as_ptr(catalog))
    }
}

impl Catalog {
    /// Finds a table by schema and name.
    #[must_use]
    pub fn table(&self, schema: &str, name: &str) -> Option<&Arc<TableDef>> {
        self.relation(schema, name).filter(|table| table.sequence.is_none())
    }

    /// Finds a sequence by schema and name.
    #[must_use]
    pub fn sequence(&self, schema: &str, name: &str) -> Option<&Arc<TableDef>> {
        self.relation(schema, name).filter(|table| table.sequence.is_some())
    }

    fn relation(&self, schema: &str, name: &str) -> Option<&Arc<TableDef>> {
        let from = (schema.to_owned(), name.to_owned());
        self.names.get(&from).and_then(|id| self.tables.get(id))
    }

    /// Finds a table or a sequence by id.
    #[must_use]
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<TableDef>> {
        self.tables.get(&id)
    }

    /// Every table, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        self.relations().filter(|table| table.sequence.is_none())
    }

    /// Every sequence, by id.
    pub fn sequences(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        self.relations().filter(|table| table.sequence.is_some())
    }

    /// The sequences that a table's columns own.
    pub fn sequences_of(&self, table: TableId) -> impl Iterator<Item = &Arc<TableDef>> {
        let owner = |s: &TableDef| s.sequence.as_ref().and_then(|s| s.owner);
        self.relations().filter(move |s| owner(s).is_some_and(|owner| owner.table == table))
    }

    /// The sequence that a column owns.
    #[must_use]
    pub fn sequence_of(&self, table: TableId, column: usize) -> Option<&Arc<TableDef>> {
        let owner = |s: &TableDef| s.sequence.as_ref().and_then(|s| s.owner);
        let owned = |s: &TableDef| owner(s).is_some_and(|o| usize::from(o.column) == column);
        self.sequences_of(table).find(|s| owned(s))
    }

    /// Every table and every sequence, by id.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        self.tables.values()
    }

    /// Finds an index and its table by the index's name.
    #[must_use]
    pub fn index(&self, schema: &str, name: &str) -> Option<(&Arc<TableDef>, &IndexDef)> {
        self.tables.values().filter(|t| t.schema == schema).find_map(|table| {
            table.indexes.iter().find(|i| i.name == name).map(|index| (table, index))
        })
    }

    /// Finds a user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&Arc<UserDef>> {
        self.users.get(name)
    }

    /// Every user, by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<UserDef>> {
        self.users.values()
    }

    /// Whether a table, a sequence or an index of the schema has this name.
    #[must_use]
    pub fn has_relation(&self, schema: &str, name: &str) -> bool {
        self.relation(schema, name).is_some() || self.index(schema, name).is_some()
    }

    /// Id for a new table.
    pub(crate) fn give_table_id(&mut self, fresh: &FreshIds) -> TableId {
        TableId(FreshIds::give(&fresh.table, &mut self.next_table))
    }

    /// Id for a new index.
    pub(crate) fn give_index_id(&mut self, fresh: &FreshIds) -> IndexId {
        IndexId(FreshIds::give(&fresh.index, &mut self.next_index))
    }

    /// Whether this catalog might give these ids to a new table and its indexes, or to a new index.
    pub(crate) fn may_give(&self, table: Option<TableId>, indexes: &[IndexDef]) -> bool {
        let mut next = self.next_index.max(1);
        table.is_none_or(|id| (self.next_table.max(1)..u32::MAX).contains(&id.0))
            && indexes.iter().all(|index| {
                let is_new = (next..u32::MAX).contains(&index.id.0);
                next = index.id.0.saturating_add(1);
                is_new
            })
    }

    /// Puts a new or changed table in; its ids are never given again.
    pub(crate) fn put_table(&mut self, table: Arc<TableDef>) {
        if let Some(old) = self.tables.get(&table.id) {
            self.names.remove(&(old.schema.clone(), old.name.clone()));
        }
        self.next_table = self.next_table.max(table.id.0 + 1);
        let highest = table.indexes.iter().map(|i| i.id.0).max();
        self.next_index = self.next_index.max(highest.map_or(0, |id| id + 1));
        self.names.insert((table.schema.clone(), table.name.clone()), table.id);
        self.tables.insert(table.id, table);
        self.version += 1;
    }

    /// Takes a table out.
    pub(crate) fn remove_table(&mut self, id: TableId) {
        if let Some(old) = self.tables.remove(&id) {
            self.names.remove(&(old.schema.clone(), old.name.clone()));
        }
        self.version += 1;
    }

    /// Puts a new or changed user in.
    pub(crate) fn put_user(&mut self, user: UserDef) {
        self.users.insert(user.name.clone(), Arc::new(user));
        self.version += 1;
    }

    /// Takes a user out.
    pub(crate) fn remove_user(&mut self, name: &str) {
        self.users.remove(name);
        self.version += 1;
    }

    /// Fills in what is derived, after decoding.
    pub(crate) fn index_names(&mut self) {
        let tables = self.tables.values();
        self.names = tables.map(|t| ((t.schema.clone(), t.name.clone()), t.id)).collect();
    }
}
