//! A store with the rest of a member around it: a log that numbers commits and a table to work on.

use parking_lot::Mutex;
use understudy_store::{
    ColumnDef, DataType, IndexDef, IndexId, Isolation, MemoryLimits, Row, RowId,
    SerializationFailure, Store, TableDef, TableId, Txn, Value, View, WriteError,
};
use understudy_types::Lsn;

pub(crate) const LIMITS: MemoryLimits =
    MemoryLimits { permanent_bytes: 1 << 30, temporary_bytes: 1 << 28 };

/// A store, its log, and the table `pairs (k bigint primary key, v bigint, note text)` with an index
/// on `v`.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) table: TableId,
    pub(crate) by_k: IndexId,
    pub(crate) by_v: IndexId,
    /// Payloads by LSN; the lock is the commit section.
    pub(crate) log: Mutex<Vec<(Lsn, Vec<u8>)>>,
}

/// A checkpoint of a store.
pub(crate) fn checkpoint_of(store: &Store, at: Lsn) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.write_checkpoint(at, &mut bytes).unwrap();
    bytes
}

/// A store that is loaded from a checkpoint of another.
pub(crate) fn reloaded(store: &Store, at: Lsn) -> Store {
    Store::load_checkpoint(LIMITS, at, &mut &*checkpoint_of(store, at)).unwrap()
}

pub(crate) fn pairs() -> TableDef {
    let columns = vec![
        ColumnDef::new("k", DataType::Int8),
        ColumnDef::new("v", DataType::Int8),
        ColumnDef::new("note", DataType::Text),
    ];
    let by_v = IndexDef::new("pairs_v", &[1]);
    TableDef::new("pairs", columns).with_primary_key(&[0]).with_index(by_v)
}

pub(crate) fn row(k: i64, v: i64) -> Row {
    Row::encode(&[Value::Int(k), Value::Int(v), Value::text(format!("note {v}"))])
}

pub(crate) fn pair(row: &Row) -> (i64, i64) {
    (row.int(0).unwrap(), row.int(1).unwrap())
}

impl Database {
    pub(crate) fn new() -> Database {
        Database::with_limits(LIMITS)
    }

    pub(crate) fn with_limits(limits: MemoryLimits) -> Database {
        let store = Store::new(limits);
        let mut txn = store.begin(Isolation::ReadCommitted);
        let table = store.create_table(&mut txn, pairs()).unwrap();
        let indexes = &txn.catalog().table_by_id(table).unwrap().indexes;
        let (by_k, by_v) = (indexes[0].id, indexes[1].id);
        let database = Database { store, table, by_k, by_v, log: Mutex::default() };
        database.commit(txn).unwrap();
        database.acknowledge();
        database
    }

    /// A table with rows whose `v` is a hundred times `k`.
    pub(crate) fn filled(count: i64) -> Database {
        let database = Database::new();
        let mut txn = database.begin();
        for k in 1..=count {
            database.insert(&mut txn, k, k * 100).unwrap();
        }
        database.commit(txn).unwrap();
        database.acknowledge();
        database
    }

    pub(crate) fn begin(&self) -> Txn {
        self.store.begin(Isolation::ReadCommitted)
    }

    pub(crate) fn insert(&self, txn: &mut Txn, k: i64, v: i64) -> Result<RowId, WriteError> {
        self.store.insert(txn, self.table, row(k, v))
    }

    /// Sets `v` of the row with key `k`, as UPDATE does.
    pub(crate) fn set(&self, txn: &mut Txn, k: i64, v: i64) -> Result<(), WriteError> {
        let found = self.store.lookup_one(txn, View::ForUpdate, self.by_k, &[Value::Int(k)]);
        let (id, _) = found.expect("the key exists");
        self.store.update(txn, self.table, id, row(k, v))
    }

    pub(crate) fn remove(&self, txn: &mut Txn, k: i64) -> Result<(), WriteError> {
        let found = self.store.lookup_one(txn, View::ForUpdate, self.by_k, &[Value::Int(k)]);
        let (id, _) = found.expect("the key exists");
        self.store.delete(txn, self.table, id)
    }

    /// `v` of the row with key `k`, as a plain SELECT sees it.
    pub(crate) fn value(&self, txn: &Txn, k: i64) -> Option<i64> {
        let found = self.store.lookup_one(txn, View::Committed, self.by_k, &[Value::Int(k)]);
        found.map(|(_, row)| pair(&row).1)
    }

    /// Sum of all `v`, as a plain SELECT sees them.
    pub(crate) fn total(&self, txn: &Txn) -> i64 {
        self.store.scan(txn, View::Committed, self.table).map(|(_, row)| pair(&row).1).sum()
    }

    /// The commit section; not acknowledged yet. A transaction without changes gets no LSN.
    pub(crate) fn commit(&self, txn: Txn) -> Result<Lsn, SerializationFailure> {
        let mut log = self.log.lock();
        if let Err(failure) = self.store.validate(&txn) {
            self.store.rollback(txn);
            return Err(failure);
        }
        let payload = self.store.redo(&txn);
        let lsn = Lsn(log.len() as u64 + 1);
        if payload.is_empty() {
            self.store.commit(txn, Lsn::ZERO);
            return Ok(Lsn::ZERO);
        }
        log.push((lsn, payload));
        self.store.commit(txn, lsn);
        Ok(lsn)
    }

    /// Everything committed so far becomes visible.
    pub(crate) fn acknowledge(&self) {
        let end = Lsn(self.log.lock().len() as u64);
        self.store.set_visible(end);
    }

    /// Runs a READ COMMITTED transaction to its visible end.
    pub(crate) fn run<T>(&self, work: impl FnOnce(&mut Txn) -> T) -> T {
        let mut txn = self.begin();
        let result = work(&mut txn);
        self.commit(txn).unwrap();
        self.acknowledge();
        result
    }
}
