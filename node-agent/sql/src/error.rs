//! The one error a client can see: SQLSTATE, PostgreSQL's wording, detail, hint and position.
//!
//! Every layer of this crate returns [`SqlError`]; positions are taken from the parser's spans and are
//! turned into character offsets once, where the statement's text is known ([`SqlError::resolve`]).
//! Absent on purpose: severity and wire encoding, which belong to the session.

use sqlparser::tokenizer::{Location, Span};
use std::fmt;
use understudy_types::Lsn;

/// SQLSTATE codes used by this crate, named as PostgreSQL names them.
pub mod state {
    /// feature_not_supported
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// cardinality_violation
    pub const CARDINALITY_VIOLATION: &str = "21000";
    /// string_data_right_truncation
    pub const STRING_TOO_LONG: &str = "22001";
    /// numeric_value_out_of_range
    pub const OUT_OF_RANGE: &str = "22003";
    /// invalid_datetime_format
    pub const INVALID_DATETIME: &str = "22007";
    /// datetime_field_overflow
    pub const DATETIME_OVERFLOW: &str = "22008";
    /// substring_error
    pub const SUBSTRING_ERROR: &str = "22011";
    /// sequence_generator_limit_exceeded
    pub const SEQUENCE_EXHAUSTED: &str = "2200H";
    /// division_by_zero
    pub const DIVISION_BY_ZERO: &str = "22012";
    /// invalid_escape_sequence
    pub const INVALID_ESCAPE: &str = "22025";
    /// character_not_in_repertoire
    pub const BAD_ENCODING: &str = "22021";
    /// invalid_parameter_value
    pub const INVALID_PARAMETER: &str = "22023";
    /// invalid_text_representation
    pub const INVALID_TEXT: &str = "22P02";
    /// bad_copy_file_format
    pub const BAD_COPY: &str = "22P04";
    /// invalid_regular_expression
    pub const INVALID_REGEX: &str = "2201B";
    /// invalid_row_count_in_limit_clause
    pub const BAD_LIMIT: &str = "2201W";
    /// invalid_row_count_in_result_offset_clause
    pub const BAD_OFFSET: &str = "2201X";
    /// not_null_violation
    pub const NOT_NULL: &str = "23502";
    /// unique_violation
    pub const UNIQUE: &str = "23505";
    /// foreign_key_violation
    pub const FOREIGN_KEY: &str = "23503";
    /// check_violation
    pub const CHECK: &str = "23514";
    /// read_only_sql_transaction
    pub const READ_ONLY: &str = "25006";
    /// invalid_sql_statement_name
    pub const UNKNOWN_STATEMENT: &str = "26000";
    /// invalid_schema_name
    pub const UNKNOWN_SCHEMA: &str = "3F000";
    /// serialization_failure
    pub const SERIALIZATION: &str = "40001";
    /// syntax_error
    pub const SYNTAX: &str = "42601";
    /// insufficient_privilege
    pub const PRIVILEGE: &str = "42501";
    /// cannot_coerce
    pub const CANNOT_COERCE: &str = "42846";
    /// invalid_foreign_key
    pub const BAD_FOREIGN_KEY: &str = "42830";
    /// grouping_error
    pub const GROUPING: &str = "42803";
    /// datatype_mismatch
    pub const DATATYPE_MISMATCH: &str = "42804";
    /// undefined_column
    pub const UNKNOWN_COLUMN: &str = "42703";
    /// undefined_object
    pub const UNKNOWN_OBJECT: &str = "42704";
    /// undefined_function (also operators)
    pub const UNKNOWN_FUNCTION: &str = "42883";
    /// undefined_table
    pub const UNKNOWN_TABLE: &str = "42P01";
    /// undefined_parameter
    pub const UNKNOWN_PARAMETER: &str = "42P02";
    /// indeterminate_datatype
    pub const INDETERMINATE_TYPE: &str = "42P18";
    /// duplicate_column
    pub const DUPLICATE_COLUMN: &str = "42701";
    /// ambiguous_column
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    /// duplicate_alias
    pub const DUPLICATE_ALIAS: &str = "42712";
    /// duplicate_object
    pub const DUPLICATE_OBJECT: &str = "42710";
    /// duplicate_table (also indexes)
    pub const DUPLICATE_TABLE: &str = "42P07";
    /// invalid_object_definition
    pub const BAD_OBJECT: &str = "42P17";
    /// invalid_table_definition
    pub const BAD_TABLE: &str = "42P16";
    /// invalid_column_reference
    pub const BAD_COLUMN_REFERENCE: &str = "42P10";
    /// generated_always
    pub const GENERATED_ALWAYS: &str = "428C9";
    /// wrong_object_type
    pub const WRONG_OBJECT: &str = "42809";
    /// out_of_memory
    pub const OUT_OF_MEMORY: &str = "53200";
    /// query_canceled
    pub const CANCELED: &str = "57014";
    /// program_limit_exceeded
    pub const LIMIT_EXCEEDED: &str = "54000";
    /// program_limit_exceeded: statement_too_complex
    pub const TOO_COMPLEX: &str = "54001";
    /// object_not_in_prerequisite_state
    pub const NOT_IN_STATE: &str = "55000";
    /// dependent_objects_still_exist
    pub const DEPENDENTS: &str = "2BP01";
    /// internal_error
    pub const INTERNAL: &str = "XX000";
}

/// What went wrong with a statement, in the form a PostgreSQL client shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// Five characters, one of [`state`] or of the store's own.
    pub sqlstate: &'static str,
    /// The primary message, PostgreSQL's words where it has them.
    pub message: String,
    /// The DETAIL line.
    pub detail: Option<String>,
    /// The HINT line: what to write instead, or the next command.
    pub hint: Option<String>,
    /// 1-based character offset in the statement's text; None when no place is to blame.
    pub position: Option<u32>,
    /// Set when a committed but unacknowledged version caused the error (A2.9): the error may leave only
    /// after this LSN is acknowledged.
    pub depends_lsn: Option<Lsn>,
    location: Option<Location>,
}

impl SqlError {
    /// An error with code and message only.
    #[must_use]
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> SqlError {
        SqlError {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            depends_lsn: None,
            location: None,
        }
    }

    /// 0A000 naming the construct: "`what` is not supported".
    #[must_use]
    pub fn unsupported(what: impl fmt::Display) -> SqlError {
        SqlError::new(state::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    /// 42601 at a token of the text.
    #[must_use]
    pub fn syntax_near(token: &str) -> SqlError {
        let message = if token.is_empty() {
            "syntax error at end of input".to_owned()
        } else {
            format!("syntax error at or near \"{token}\"")
        };
        SqlError::new(state::SYNTAX, message)
    }

    /// XX000: a broken promise between two of our own layers.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> SqlError {
        SqlError::new(state::INTERNAL, message)
    }

    /// Adds the DETAIL line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the HINT line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// Remembers where in the text the error lies, unless a deeper layer already said so.
    #[must_use]
    pub(crate) fn at(self, span: Span) -> SqlError {
        self.at_location(span.start)
    }

    /// Puts the blame elsewhere: the place known so far lies in another text.
    #[must_use]
    pub(crate) fn moved_to(self, span: Span) -> SqlError {
        SqlError { position: None, location: None, ..self }.at(span)
    }

    /// As [`SqlError::at`], from a bare location.
    #[must_use]
    pub(crate) fn at_location(mut self, location: Location) -> SqlError {
        if self.location.is_none() && self.position.is_none() && location.line > 0 {
            self.location = Some(location);
        }
        self
    }

    /// Turns the remembered place into a character offset of `text`.
    #[must_use]
    pub(crate) fn resolve(mut self, text: &str) -> SqlError {
        if let (None, Some(location)) = (self.position, self.location.take()) {
            self.position = character_offset(text, location).map(|offset| offset + 1);
        }
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl std::error::Error for SqlError {}

/// The 0-based character offset of a 1-based line and column.
pub(crate) fn character_offset(text: &str, location: Location) -> Option<u32> {
    let (mut line, mut column) = (1, 1);
    for (offset, character) in text.chars().enumerate() {
        if line == location.line && column == location.column {
            return u32::try_from(offset).ok();
        }
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line == location.line && column <= location.column)
        .then(|| u32::try_from(text.chars().count()).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_becomes_a_character_offset() {
        let place = |line, column| character_offset("sélect\n 1 +", Location { line, column });
        assert_eq!(place(1, 1), Some(0));
        assert_eq!(place(2, 2), Some(8));
        assert_eq!(place(2, 5), Some(11));
        assert_eq!(place(4, 1), None);
    }
}
