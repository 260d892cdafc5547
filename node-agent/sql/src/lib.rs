//! PostgreSQL's SQL over the store: parse, bind, plan, execute. Pure and synchronous.
//!
//! # One statement's way
//! ```text
//! text ─ parse ─► Statement ─ prepare ─► Prepared ─ execute ─► CommandTag, rows
//!                    │                      │                      │
//!             the session runs its    types of $n, result    Blocked { on }: undo, wait,
//!             own: BEGIN, SET, CALL   columns, a plan        execute again
//! ```
//! * **parse** makes a list of [`Statement`]s of a text; nothing is looked up.
//! * **prepare** (`bind`) resolves names against one version of the catalog, settles types, moves
//!   conditions to where an index can serve them, and leaves a plan of column numbers. It is made
//!   again when the catalog's version moves on.
//! * **execute** runs the plan in a transaction of the store. Tuples are pushed from step to step; a
//!   point read touches the index, one row, and nothing else.
//!
//! # Worked example
//! `UPDATE accounts SET balance = balance + $1 WHERE id = $2`, with a primary key on `id`: `$1` and `$2` take the
//! columns' types; the plan is an index key `[$2]`, no filter, one assignment `#1 + $1` in int4
//! arithmetic. Each execution evaluates the key, looks the row up as it will be changed (pending
//! commits included), computes the sum, and writes the new version. If somebody else holds the row, the
//! store says whom to wait for.
//!
//! # Caveats
//! Not here: sockets, clocks, randomness and passwords (arguments of the session); views, triggers,
//! deferrable constraints, window functions, arrays and JSON as values (refused by name with 0A000). EXPLAIN
//! estimates no costs, and writes text and JSON; its JSON is a text that is announced as json, the type that
//! PostgreSQL gives it. An index on an expression is over a hidden column (`bind/computed.rs`), so CREATE INDEX
//! writes every row once. Text is ordered by its bytes. numeric holds 28 digits. Time zones are UTC and fixed
//! offsets. What a statement keeps is temporary memory (`execute/room.rs`); not counted are one value on its way
//! from step to step, and what a statement's text is parsed to.

mod activity;
mod aggregate;
mod arithmetic;
mod array;
mod bind;
mod cast;
mod copy;
mod copy_in;
mod datetime;
mod definition;
mod error;
mod eval;
mod execute;
mod explain;
mod expr;
mod function;
mod names;
mod parse;
mod pattern;
mod plan;
mod prepared;
mod reach;
mod sequence;
mod settings;
mod system;
mod text;
mod types;

pub use activity::{
    EndedTransactions, HeldActivity, SessionActivity, SessionState, SessionWait, Sessions,
};
pub use copy::{CopyDecoder, CopyFields, CopyFormat, CopyOptions, append_copy_line};
pub use copy_in::{CopyIn, copy_out_query};
pub use error::{SqlError, state};
pub use execute::{
    CommandTag, ExecContext, ExecError, Outcome, Room, RowSink, execute, execute_into,
    measure::Clock,
};
pub use parse::{
    Analyze, CallArgument, CopyDirection, CopySource, CopyStatement, DiscardTarget, ExplainFormat,
    IsolationLevel, SequenceStatement, SetScope, SqlText, Statement, StatementKind,
    TransactionModes, UserAction, UserStatement, parse,
};
pub use plan::ResultColumn;
pub use prepared::{Prepared, constant_arguments, declared_types, parameter_from_text, prepare};
pub use reach::NEAR_ROWS;
pub use sequence::{SequenceLog, SessionSequences};
pub use settings::{SessionInfo, Settings, reported_settings};
pub use text::{append_text, parse_value};
pub use types::{Type, type_modifier, type_text};
