//! Plans: what the binder makes of a statement and the executor runs, without names.
//!
//! A tuple is the concatenation of its relations' columns; a table with `with_row_id` has one column
//! more, the row's identity. Plans hold definitions of the catalog version they were made from; the
//! executor refuses an older plan (see `Prepared`).

use crate::{
    aggregate::AggregateCall,
    expr::Expr,
    parse::{Analyze, ExplainFormat},
    system::SystemView,
    types::Type,
};
use std::{ops::Bound, sync::Arc};
use understudy_store::{DataType, Direction, IndexId, TableDef};

/// One column of a result, as RowDescription tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultColumn {
    /// The column's label.
    pub name: String,
    /// How the values are stored and shown.
    pub data_type: DataType,
    /// PostgreSQL's number of the type.
    pub type_oid: u32,
    /// Length or precision, packed as `atttypmod`; -1 when there is none.
    pub type_modifier: i32,
    /// Bytes of the type; -1 when it varies.
    pub type_length: i16,
}

impl ResultColumn {
    pub(crate) fn new(name: impl Into<String>, ty: Type) -> ResultColumn {
        ResultColumn {
            name: name.into(),
            data_type: ty.storage(),
            type_oid: ty.oid(),
            type_modifier: -1,
            type_length: ty.length(),
        }
    }
}

/// A query: rows of `columns`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) node: Node,
    pub(crate) columns: Vec<ResultColumn>,
    pub(crate) types: Vec<Type>,
    /// Whether it reads columns of an enclosing query, so that its result cannot be kept.
    pub(crate) correlated: bool,
    /// Names its kept result within one execution.
    pub(crate) slot: usize,
}

/// How a table's rows are found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Access {
    /// Every row.
    Scan,
    /// Rows whose index key begins with these values. Keys do not refer to the table's own columns.
    Key { index: IndexId, key: Vec<Expr> },
    /// Rows whose one-column key is one of these values.
    KeyList { index: IndexId, keys: Vec<Expr> },
    /// Rows within bounds, in index order. `equal` values fix leading columns; bounds are on the next.
    Range {
        index: IndexId,
        equal: Vec<Expr>,
        lower: Bound<Expr>,
        upper: Bound<Expr>,
        direction: Direction,
    },
}

/// Which state of a table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The statement's snapshot.
    Snapshot,
    /// What will be changed or locked: under READ COMMITTED the newest.
    Target,
}

/// A table and how it is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableNode {
    pub(crate) table: Arc<TableDef>,
    pub(crate) access: Access,
    pub(crate) filter: Option<Expr>,
    pub(crate) reading: Reading,
    pub(crate) with_row_id: bool,
    pub(crate) expressions: IndexExpressions,
}

/// What the planner must know of the indexes of a table that are not on plain columns of all rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct IndexExpressions {
    /// What hidden columns hold in every row: a condition on such an expression is one on the column.
    pub(crate) hidden: Vec<Computed>,
    /// Indexes that leave rows out.
    pub(crate) partial: Vec<PartialIndex>,
}

/// An index that has entries for some rows alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartialIndex {
    pub(crate) index: IndexId,
    /// What holds for the rows that it has.
    pub(crate) predicate: Vec<Expr>,
    /// What its own hidden columns hold in these rows; in others they hold null.
    pub(crate) hidden: Vec<Computed>,
}

/// A column of a table, and the expression over the table's other columns that it holds.
pub(crate) type Computed = (usize, Expr);

impl TableNode {
    /// Columns of its tuples.
    pub(crate) fn width(&self) -> usize {
        self.table.columns.len() + usize::from(self.with_row_id)
    }
}

/// Which unmatched rows a join keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// How a join finds the partners of a left row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JoinMethod {
    /// The right side is read anew for every left row, by its access.
    Lateral,
    /// The right side is read once and searched by these keys (left, right), both in own numbering.
    Hash(Vec<(Expr, Expr)>),
    /// The right side is read once and tried row by row.
    Loop,
}

/// Two inputs; tuples are left columns followed by right columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JoinNode {
    pub(crate) left: Node,
    pub(crate) right: Node,
    pub(crate) kind: JoinKind,
    pub(crate) method: JoinMethod,
    /// What must hold beside the method's own keys, over the joined tuple.
    pub(crate) on: Option<Expr>,
    pub(crate) left_width: usize,
    pub(crate) right_width: usize,
}

/// One ORDER BY item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SortKey {
    pub(crate) expr: Expr,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// UNION, INTERSECT, EXCEPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetOperation {
    Union,
    Intersect,
    Except,
}

/// A step that yields tuples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// One tuple without columns.
    Nothing,
    /// Rows written in the statement.
    Values(Vec<Vec<Expr>>),
    Table(Box<TableNode>),
    /// generate_series(from, to, step).
    Series {
        from: Expr,
        to: Expr,
        step: Option<Expr>,
        ty: Type,
    },
    /// unnest: the items of an array's text, perhaps with their numbers.
    Items {
        array: Expr,
        item: Type,
        numbered: bool,
    },
    /// Where a sequence stands, as one row.
    Sequence(Arc<TableDef>),
    /// A catalog view.
    System(SystemView),
    Filter {
        input: Box<Node>,
        predicate: Expr,
    },
    Project {
        input: Box<Node>,
        exprs: Vec<Expr>,
    },
    Join(Box<JoinNode>),
    Aggregate {
        input: Box<Node>,
        groups: Vec<Expr>,
        calls: Vec<AggregateCall>,
    },
    Sort {
        input: Box<Node>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<Node>,
        limit: Option<Expr>,
        offset: Option<Expr>,
    },
    /// Distinct tuples; with keys, the first tuple of each key (DISTINCT ON).
    Distinct {
        input: Box<Node>,
        on: Option<Vec<Expr>>,
    },
    Set {
        operation: SetOperation,
        all: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
}

/// A CHECK constraint, bound over the table's columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) predicate: Expr,
}

/// Where INSERT's rows come from; rows are in table column order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InsertSource {
    /// VALUES: whole rows, defaults and casts in place.
    Rows(Vec<Vec<Expr>>),
    /// A query, and for each table column an expression over its tuple.
    Query { node: Node, exprs: Vec<Expr> },
}

/// ON CONFLICT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OnConflict {
    /// Unique indexes whose conflicts are handled.
    pub(crate) arbiters: Vec<IndexId>,
    /// None: DO NOTHING.
    pub(crate) update: Option<ConflictUpdate>,
}

/// DO UPDATE: over the existing row followed by the proposed one (`excluded`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConflictUpdate {
    pub(crate) assignments: Vec<(usize, Expr)>,
    /// What is computed from what is assigned.
    pub(crate) computed: Vec<Computed>,
    pub(crate) predicate: Option<Expr>,
}

/// INSERT.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InsertPlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) source: InsertSource,
    pub(crate) on_conflict: Option<OnConflict>,
    /// In the order in which they are computed.
    pub(crate) computed: Vec<Computed>,
    pub(crate) checks: Vec<Check>,
    /// Over the row's columns.
    pub(crate) returning: Vec<Expr>,
}

/// UPDATE or DELETE: the target's columns come first in the tuple, then its row id, then FROM's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChangePlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) source: Node,
    /// None: DELETE.
    pub(crate) assignments: Option<Vec<(usize, Expr)>>,
    /// What is computed from what is assigned.
    pub(crate) computed: Vec<Computed>,
    pub(crate) checks: Vec<Check>,
    /// Over the tuple, with the target's new columns for UPDATE.
    pub(crate) returning: Vec<Expr>,
}

/// What a locking read does about a row that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockWaitPolicy {
    Wait,
    NoWait,
    SkipLocked,
}

/// SELECT … FOR UPDATE: tuples of `input` are locked, then projected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LockingPlan {
    pub(crate) input: Node,
    /// Tables to lock and the tuple's column that holds the row id.
    pub(crate) locks: Vec<(Arc<TableDef>, usize)>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) policy: LockWaitPolicy,
    /// Of locked rows: rows that are skipped do not count.
    pub(crate) limit: Option<Expr>,
    pub(crate) offset: Option<Expr>,
}

/// The plan of one statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    Query(Query),
    Locking(LockingPlan),
    Insert(InsertPlan),
    Change(ChangePlan),
    Definition(crate::definition::Definition),
    /// EXPLAIN: its rows, or for ANALYZE what to run and to tell of.
    Explain {
        format: ExplainFormat,
        rows: Vec<String>,
        run: Option<(Analyze, Box<Plan>)>,
    },
    /// SHOW of one setting, or of all.
    Show(Option<String>),
    /// VACUUM and the like.
    Nothing,
    /// A statement that the session runs itself.
    Session,
}
