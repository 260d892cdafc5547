//! Where the rows of an execution go: into the reply, into lines of COPY, or into a portal.
//!
//! The rows of a query that runs apart leave in pieces while it goes on, as fast as the client takes them.
//! All others gather until their statement has ended, in temporary memory: a result that is too large for
//! it is refused (53200).

use super::{WRITE_BYTES, binary, portal::PreparedStatement, reply};
use crate::pg::frame::Formats;
use std::{collections::VecDeque, mem};
use tokio::sync::mpsc;
use understudy_sql::{
    CopyOptions, ResultColumn, Room, RowSink, SqlError, append_copy_line, append_text, state,
};
use understudy_store::{Store, Value};
use understudy_types::Lsn;

/// A piece leaves, or a reply is charged, when it is longer than this. Its buffer, as vectors grow, is twice
/// as large: an allocator that keeps a few for each thread keeps little.
const FREE_BYTES: usize = WRITE_BYTES / 2;

/// Pieces of a result at a time: one is made, one waits, one is written.
const PIECES: u64 = 3;

/// Where the rows of an execution go.
pub(super) enum Rows<'a> {
    /// Into the reply, in these formats; what columns they have has been told.
    Reply(Formats<'a>),
    /// Into the reply in text, behind the description of their columns. These may change with the table where
    /// nobody has been told of them.
    Described { may_change: bool },
    /// Into the reply, as data of COPY.
    Copy(&'a CopyOptions),
    /// Into a portal that is read in pieces.
    Kept(&'a mut Kept),
}

/// Rows that are kept, with the memory that they take.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rows: VecDeque<Vec<Value>>,
    room: Room,
}

impl Kept {
    fn push(&mut self, row: &[Value], store: &Store) -> Result<(), SqlError> {
        self.room.keep_row(store, row)?;
        self.rows.push_back(row.to_vec());
        Ok(())
    }

    /// Takes the next row away. The memory of all is given back with the last.
    pub(super) fn next(&mut self) -> Option<Vec<Value>> {
        self.rows.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Kept::default();
    }
}

impl Rows<'_> {
    /// Puts the description of the columns where the rows will follow, if it belongs there.
    pub(super) fn describe(&self, statement: &PreparedStatement, output: &mut Vec<u8>) {
        if matches!(self, Rows::Described { .. }) && !statement.columns().is_empty() {
            output.extend_from_slice(&statement.description);
        }
    }

    /// The same place, for one attempt.
    pub(super) fn again(&mut self) -> Rows<'_> {
        match self {
            Rows::Reply(formats) => Rows::Reply(*formats),
            Rows::Described { .. } => Rows::Reply(Formats::default()),
            Rows::Copy(options) => Rows::Copy(options),
            Rows::Kept(kept) => Rows::Kept(kept),
        }
    }
}

/// The same as [`Rows`], for a thread: nothing is borrowed.
#[derive(Debug)]
pub(super) enum LentRows {
    Reply(Vec<u8>),
    Copy(CopyOptions),
    Kept(Kept),
}

impl LentRows {
    pub(super) fn lend(rows: &mut Rows<'_>) -> LentRows {
        match rows {
            Rows::Reply(formats) => LentRows::Reply(formats.raw().to_vec()),
            Rows::Described { .. } => LentRows::Reply(Vec::new()),
            Rows::Copy(options) => LentRows::Copy(options.clone()),
            Rows::Kept(kept) => LentRows::Kept(mem::take(*kept)),
        }
    }

    pub(super) fn give_back(self, rows: &mut Rows<'_>) {
        if let (Rows::Kept(into), LentRows::Kept(kept)) = (rows, self) {
            **into = kept;
        }
    }

    pub(super) fn again(&mut self) -> Rows<'_> {
        match self {
            LentRows::Reply(formats) => Rows::Reply(Formats::from_raw(formats)),
            LentRows::Copy(options) => Rows::Copy(options),
            LentRows::Kept(kept) => Rows::Kept(kept),
        }
    }
}

/// Rows of a query that goes on.
#[derive(Debug)]
pub(super) struct Piece {
    /// Whole messages.
    pub(super) bytes: Vec<u8>,
    /// They may leave once this is acknowledged (A2.9).
    pub(super) depends: Lsn,
}

/// The way out of an execution on a thread of its own. It has room for one piece.
#[derive(Debug)]
pub(super) struct Outlet(mpsc::Sender<Piece>);

impl Outlet {
    pub(super) fn new() -> (Outlet, mpsc::Receiver<Piece>) {
        let (sender, pieces) = mpsc::channel(1);
        (Outlet(sender), pieces)
    }

    /// Waits until the piece before has been taken.
    fn send(&self, piece: Piece) -> Result<(), SqlError> {
        self.0.blocking_send(piece).map_err(|_| {
            SqlError::new(state::CANCELED, "canceling statement: nobody takes its rows")
        })
    }
}

/// Puts rows where they belong while the executor yields them.
pub(super) struct RowReceiver<'a, 'b> {
    output: &'a mut Vec<u8>,
    columns: &'a [ResultColumn],
    zone_offset: i32,
    rows: Rows<'b>,
    store: &'a Store,
    /// How rows leave before the end.
    outlet: Option<&'a Outlet>,
    /// The length from which on `output` leaves, or is charged.
    free: usize,
    room: Room,
    notices: Vec<String>,
}

impl<'a, 'b> RowReceiver<'a, 'b> {
    pub(super) fn new(
        (output, columns, zone_offset): (&'a mut Vec<u8>, &'a [ResultColumn], i32),
        rows: Rows<'b>,
        store: &'a Store,
        outlet: Option<&'a Outlet>,
    ) -> RowReceiver<'a, 'b> {
        let free = output.len() + FREE_BYTES;
        let (room, notices) = (Room::default(), Vec::new());
        RowReceiver { output, columns, zone_offset, rows, store, outlet, free, room, notices }
    }

    /// The notices, and the memory of the rows that are in the reply now.
    pub(super) fn end(self) -> (Vec<String>, Room) {
        (self.notices, self.room)
    }

    /// Lets the rows go, or takes memory for the whole reply.
    #[cold]
    fn make_room(&mut self, depends: Lsn) -> Result<(), SqlError> {
        let taken = self.output.capacity();
        let Some(outlet) = self.outlet else {
            // Before it grows, and while half of it is empty: its old block goes only after that.
            self.room.reach(self.store, 2 * taken as u64)?;
            self.output.reserve_exact(2 * taken - self.output.len());
            self.free = taken;
            return Ok(());
        };
        self.room.reach(self.store, PIECES * taken as u64)?;
        let next = Vec::with_capacity(taken.min(2 * FREE_BYTES));
        let bytes = mem::replace(self.output, next);
        outlet.send(Piece { bytes, depends })
    }
}

impl RowSink for RowReceiver<'_, '_> {
    fn row(&mut self, values: &[Value], depends: Lsn) -> Result<(), SqlError> {
        match &mut self.rows {
            Rows::Kept(kept) => return kept.push(values, self.store),
            Rows::Reply(formats) => {
                append_row(self.output, values, self.columns, *formats, self.zone_offset)?;
            }
            Rows::Described { .. } => {
                append_row(
                    self.output,
                    values,
                    self.columns,
                    Formats::default(),
                    self.zone_offset,
                )?;
            }
            Rows::Copy(options) => {
                append_line(self.output, values, (self.columns, self.zone_offset), options)?;
            }
        }
        if self.output.len() > self.free { self.make_room(depends) } else { Ok(()) }
    }

    fn notice(&mut self, message: String) {
        self.notices.push(message);
    }
}

/// Appends a DataRow.
pub(super) fn append_row(
    out: &mut Vec<u8>,
    values: &[Value],
    columns: &[ResultColumn],
    formats: Formats<'_>,
    zone_offset: i32,
) -> Result<(), SqlError> {
    let mut result = Ok(());
    reply::message(out, b'D', |out| {
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for (position, (value, column)) in values.iter().zip(columns).enumerate() {
            let format = formats.of(position);
            let shown = binary::append_column(out, value.as_ref(), column, format, zone_offset);
            if let Err(error) = shown {
                result = Err(error);
            }
        }
    });
    result
}

/// Appends a CopyData with one line.
fn append_line(
    out: &mut Vec<u8>,
    values: &[Value],
    (columns, zone_offset): (&[ResultColumn], i32),
    options: &CopyOptions,
) -> Result<(), SqlError> {
    let (mut texts, mut ends) = (Vec::new(), Vec::with_capacity(values.len()));
    for (value, column) in values.iter().zip(columns) {
        append_text(&mut texts, value.as_ref(), column.data_type, zone_offset);
        ends.push(texts.len());
    }
    let texts = str::from_utf8(&texts).map_err(|_| SqlError::internal("a text is not UTF-8"))?;
    let begins = [0].into_iter().chain(ends.iter().copied());
    let fields = values.iter().zip(begins.zip(&ends));
    let fields =
        fields.map(|(value, (begin, end))| (!value.is_null()).then(|| &texts[begin..*end]));
    reply::message(out, b'd', |out| append_copy_line(out, fields, options));
    Ok(())
}
