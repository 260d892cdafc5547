//! What a transaction did, as bytes for the log: one payload per transaction.
//!
//! ```text
//! | format 3 | change | change | …
//! change = 1 table row length bytes   the row was inserted
//!        | 2 table row length bytes   the row was replaced
//!        | 3 table row                the row was deleted
//!        | 4 length bytes             a definition was changed (postcard)
//!        | 5 epoch number             the token that names the transaction
//! ```
//! Numbers are LEB128. Invariants: each row occurs once, with its state at commit; changes stand in the
//! order in which the transaction first touched each row, definitions in between where they were
//! changed; a row that was inserted and deleted again does not occur. Decoding never panics.

use crate::{
    catalog::UserDef,
    row::{ROW_ID_MAX, RowId},
    table::{IndexDef, IndexId, TableDef, TableId},
    txn::{Kind, Operation, Txn},
    version::UNCOMMITTED,
};
use serde::{Deserialize, Serialize};
use understudy_types::{CommitToken, Epoch};

/// First byte of every payload.
const FORMAT: u8 = 3;
const INSERT: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;
const DDL: u8 = 4;
const TOKEN: u8 = 5;

/// A change of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Ddl {
    /// With its indexes.
    CreateTable(TableDef),
    /// Everything but the indexes.
    AlterTable(TableDef),
    DropTable(TableId),
    Truncate(TableId),
    AddIndex(TableId, IndexDef),
    DropIndex(IndexId),
    PutUser(UserDef),
    DropUser(String),
}

/// One change of a payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change<'a> {
    Insert { table: TableId, row: RowId, bytes: &'a [u8] },
    Update { table: TableId, row: RowId, bytes: &'a [u8] },
    Delete { table: TableId, row: RowId },
    Ddl(Ddl),
    Token(CommitToken),
}

/// Where and why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) offset: usize,
    pub(crate) reason: String,
}

/// Encodes everything that the transaction changed; nothing gives no bytes.
pub(crate) fn encode(txn: &Txn) -> Vec<u8> {
    let mut out = Vec::new();
    for operation in &txn.operations {
        match operation {
            Operation::Row { cell, table, kind, first: true } => {
                let inserted = *kind == Kind::Insert;
                let truncated = *kind == Kind::Truncate;
                let chain = cell.chain.lock();
                let Some(newest) = chain.newest.as_ref() else { continue };
                if newest.stamp != UNCOMMITTED {
                    continue;
                }
                begin(&mut out);
                let table = txn.tables[*table as usize].heap.id;
                match &newest.row {
                    Some(row) => {
                        let tag = if inserted { INSERT } else { UPDATE };
                        put_row(&mut out, tag, (table, cell.id), row.as_bytes());
                    }
                    None if inserted || truncated => {}
                    None => put_head(&mut out, DELETE, (table, cell.id)),
                }
            }
            Operation::Row { first: false, .. } | Operation::Share(..) => {}
            Operation::Ddl(ddl) => {
                begin(&mut out);
                let bytes = postcard::to_allocvec(&**ddl)
                    .expect("definitions are plain data and serialize into memory");
                out.push(DDL);
                put_number(&mut out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
            Operation::Token(token) => {
                begin(&mut out);
                out.push(TOKEN);
                put_number(&mut out, token.epoch.0);
                put_number(&mut out, token.number);
            }
            Operation::IndexAdded(..) | Operation::IndexDropped(..) => {}
            Operation::TableDropped(_) => {}
        }
    }
    out
}

fn begin(out: &mut Vec<u8>) {
    if out.is_empty() {
        // Room for a row or two, so that the common record is one allocation.
        *out = Vec::with_capacity(256);
        out.push(FORMAT);
    }
}

fn put_head(out: &mut Vec<u8>, tag: u8, (table, row): (TableId, RowId)) {
    out.push(tag);
    put_number(out, u64::from(table.0));
    put_number(out, row.0);
}

fn put_row(out: &mut Vec<u8>, tag: u8, at: (TableId, RowId), bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    put_head(out, tag, at);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number in LEB128.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a payload change by change.
#[derive(Debug, Clone)]
pub(crate) struct Changes<'a> {
    payload: &'a [u8],
    offset: usize,
}

impl<'a> Changes<'a> {
    /// Checks the format.
    pub(crate) fn new(payload: &'a [u8]) -> Result<Changes<'a>, Malformed> {
        match payload.first() {
            None => Ok(Changes { payload, offset: 0 }),
            Some(&FORMAT) => Ok(Changes { payload, offset: 1 }),
            Some(other) => {
                let reason = format!("format {other}, this version reads format {FORMAT}");
                Err(Malformed { offset: 0, reason })
            }
        }
    }

    /// The next change; None at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Change<'a>>, Malformed> {
        let Some(&tag) = self.payload.get(self.offset) else { return Ok(None) };
        self.offset += 1;
        let change = match tag {
            INSERT | UPDATE => {
                let (table, row) = self.head()?;
                let bytes = self.bytes()?;
                if tag == INSERT {
                    Change::Insert { table, row, bytes }
                } else {
                    Change::Update { table, row, bytes }
                }
            }
            DELETE => {
                let (table, row) = self.head()?;
                Change::Delete { table, row }
            }
            DDL => {
                let at = self.offset;
                let ddl = postcard::from_bytes(self.bytes()?).map_err(|error| Malformed {
                    offset: at,
                    reason: format!("definition: {error}"),
                })?;
                Change::Ddl(ddl)
            }
            TOKEN => {
                let epoch = Epoch(self.number()?);
                Change::Token(CommitToken { epoch, number: self.number()? })
            }
            other => return Err(self.malformed(format!("unknown change {other}"))),
        };
        Ok(Some(change))
    }

    fn head(&mut self) -> Result<(TableId, RowId), Malformed> {
        let table = self.number()?;
        let table = u32::try_from(table).map_err(|_| self.malformed("table number".to_owned()))?;
        let row = self.number()?;
        if row > ROW_ID_MAX {
            return Err(self.malformed(format!("row number {row} is beyond belief")));
        }
        Ok((TableId(table), RowId(row)))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        let rest = &self.payload[self.offset..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let Some(length) = length else {
            return Err(self.malformed("length behind the end".to_owned()));
        };
        self.offset += length;
        Ok(&rest[..length])
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        take_number(self.payload, &mut self.offset)
            .ok_or_else(|| self.malformed("number cut short".to_owned()))
    }

    fn malformed(&self, reason: String) -> Malformed {
        Malformed { offset: self.offset, reason }
    }
}

/// Reads a LEB128 number; None when it is cut short or too large.
pub(crate) fn take_number(bytes: &[u8], offset: &mut usize) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*offset)?;
        *offset += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(number in any::<u64>()) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            let mut offset = 0;
            prop_assert_eq!(take_number(&out, &mut offset), Some(number));
            prop_assert_eq!(offset, out.len());
        }

        #[test]
        fn foreign_payloads_are_refused_or_read_to_the_end(
            mut payload in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(first) = payload.first_mut() {
                *first = FORMAT;
            }
            let mut changes = Changes::new(&payload).unwrap();
            while let Ok(Some(_)) = changes.next() {}
        }
    }
}
