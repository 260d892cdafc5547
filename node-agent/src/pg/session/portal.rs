//! Prepared statements and portals.

use super::{reply, rows::Kept};
use crate::pg::frame::Formats;
use std::sync::Arc;
use understudy_sql::{CommandTag, Prepared, ResultColumn, Statement, StatementKind};
use understudy_store::{DataType, Value};

/// One statement with its plan. Never changed: a plan that has become old is replaced as a whole.
#[derive(Debug)]
pub(super) struct PreparedStatement {
    /// None: an empty text.
    pub(super) statement: Option<Statement>,
    /// Types declared by the client.
    pub(super) hints: Vec<Option<DataType>>,
    /// None for statements that the session runs itself.
    pub(super) plan: Option<Arc<Prepared>>,
    /// What kind of work it is; None for an empty text.
    pub(super) kind: Option<StatementKind>,
    /// RowDescription with all columns in text, or NoData.
    pub(super) description: Vec<u8>,
    /// What the client wrote; empty where that is told elsewhere.
    pub(super) text: Arc<str>,
}

impl PreparedStatement {
    pub(super) fn new(
        statement: Option<Statement>,
        hints: Vec<Option<DataType>>,
        plan: Option<Prepared>,
    ) -> PreparedStatement {
        let mut description = Vec::new();
        let columns = plan.as_ref().map_or(&[][..], |plan| &plan.columns);
        append_description(&mut description, columns, Formats::default());
        let kind = statement.as_ref().map(Statement::kind);
        let (plan, text) = (plan.map(Arc::new), Arc::default());
        PreparedStatement { statement, hints, plan, kind, description, text }
    }

    /// The types of the parameters.
    pub(super) fn parameter_types(&self) -> &[DataType] {
        self.plan.as_ref().map_or(&[], |plan| &plan.params)
    }

    /// The columns of its rows.
    pub(super) fn columns(&self) -> &[ResultColumn] {
        self.plan.as_ref().map_or(&[], |plan| &plan.columns)
    }
}

/// Appends a RowDescription, or NoData when the statement returns no rows.
pub(super) fn append_description(
    out: &mut Vec<u8>,
    columns: &[ResultColumn],
    formats: Formats<'_>,
) {
    if columns.is_empty() {
        reply::no_data(out);
        return;
    }
    reply::message(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (position, column) in columns.iter().enumerate() {
            reply::text(out, &column.name);
            // Neither table nor attribute: results are not updated through their description.
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&column.type_oid.to_be_bytes());
            out.extend_from_slice(&column.type_length.to_be_bytes());
            out.extend_from_slice(&column.type_modifier.to_be_bytes());
            out.extend_from_slice(&formats.code(position).to_be_bytes());
        }
    });
}

/// A statement with its parameters, and how far it has been run.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) statement: Arc<PreparedStatement>,
    pub(super) parameters: Vec<Value>,
    /// Result format codes as the client sent them.
    pub(super) result_formats: Vec<u8>,
    pub(super) progress: Progress,
    /// The open savepoints around it: ROLLBACK TO one of them takes it along.
    pub(super) savepoints: usize,
}

/// How far a portal has been run.
#[derive(Debug)]
pub(super) enum Progress {
    /// Not at all.
    Ready,
    /// It has run; these rows are left.
    Rows { left: Kept, tag: CommandTag },
    /// To its end.
    Done,
}
