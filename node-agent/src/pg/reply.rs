//! Messages of the server, written into one growing buffer.
//!
//! Nothing here does I/O: a session appends messages and writes the buffer once. Lengths are filled in
//! when a message ends. Absent on purpose: any judgement of what may be sent when.

use std::ops::Deref;
use understudy_sql::SqlError;

/// The letter in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransactionStatus {
    /// No transaction is open.
    Idle,
    /// A transaction is open.
    Open,
    /// The transaction has failed; only its end is taken.
    Failed,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The statement or transaction failed.
    Error,
    /// The session ends.
    Fatal,
    /// Something went another way than asked.
    Warning,
    /// Something worth knowing.
    Notice,
}

/// One error, warning or notice as a client shows it. Boxed, for it is the error of half the front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report(Box<Fields>);

/// The fields of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) severity: Severity,
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
    /// Offset in characters, from 1.
    pub(super) position: Option<u32>,
    /// The lines of CONTEXT.
    pub(super) context: Option<String>,
}

impl Report {
    pub(super) fn new(
        severity: Severity,
        sqlstate: &'static str,
        message: impl Into<String>,
    ) -> Report {
        let (detail, hint, position, context) = (None, None, None, None);
        let message = message.into();
        Report(Box::new(Fields { severity, sqlstate, message, detail, hint, position, context }))
    }

    pub(super) fn error(sqlstate: &'static str, message: impl Into<String>) -> Report {
        Report::new(Severity::Error, sqlstate, message)
    }

    pub(super) fn fatal(sqlstate: &'static str, message: impl Into<String>) -> Report {
        Report::new(Severity::Fatal, sqlstate, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Report {
        self.0.hint = Some(hint.into());
        self
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Report {
        self.0.detail = Some(detail.into());
        self
    }

    pub(super) fn context(mut self, context: impl Into<String>) -> Report {
        self.0.context = Some(context.into());
        self
    }

    pub(super) fn severity(mut self, severity: Severity) -> Report {
        self.0.severity = severity;
        self
    }
}

impl Deref for Report {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl From<SqlError> for Report {
    fn from(error: SqlError) -> Report {
        Report(Box::new(Fields {
            severity: Severity::Error,
            sqlstate: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: error.position,
            context: None,
        }))
    }
}

/// Appends one message; `body` appends what follows the length word.
pub(super) fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    // A zero would end the string early and let the rest be read as something else.
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

pub(super) fn authentication_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"R\0\0\0\x08\0\0\0\0");
}

pub(super) fn authentication_sasl(out: &mut Vec<u8>, mechanism: &str) {
    message(out, b'R', |out| {
        out.extend_from_slice(&10_i32.to_be_bytes());
        text(out, mechanism);
        out.push(0);
    });
}

pub(super) fn authentication_sasl_continue(out: &mut Vec<u8>, data: &str) {
    sasl_data(out, 11, data);
}

pub(super) fn authentication_sasl_final(out: &mut Vec<u8>, data: &str) {
    sasl_data(out, 12, data);
}

fn sasl_data(out: &mut Vec<u8>, code: i32, data: &str) {
    message(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(data.as_bytes());
    });
}

pub(super) fn backend_key(out: &mut Vec<u8>, pid: i32, secret: i32) {
    message(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(&secret.to_be_bytes());
    });
}

/// The tag of a ParameterStatus.
pub(super) const PARAMETER_STATUS: u8 = b'S';

pub(super) fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, PARAMETER_STATUS, |out| {
        text(out, name);
        text(out, value);
    });
}

/// We speak minor version `minor` at most, and do not know these options.
pub(super) fn negotiate_version(out: &mut Vec<u8>, minor: i32, unknown: &[String]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&(3_i32 << 16 | minor).to_be_bytes());
        out.extend_from_slice(&(unknown.len() as i32).to_be_bytes());
        for option in unknown {
            text(out, option);
        }
    });
}

pub(super) fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    let letter = match status {
        TransactionStatus::Idle => b'I',
        TransactionStatus::Open => b'T',
        TransactionStatus::Failed => b'E',
    };
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, letter]);
}

pub(super) fn parse_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"1\0\0\0\x04");
}

pub(super) fn bind_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"2\0\0\0\x04");
}

pub(super) fn close_complete(out: &mut Vec<u8>) {
    out.extend_from_slice(b"3\0\0\0\x04");
}

pub(super) fn no_data(out: &mut Vec<u8>) {
    out.extend_from_slice(b"n\0\0\0\x04");
}

pub(super) fn empty_query(out: &mut Vec<u8>) {
    out.extend_from_slice(b"I\0\0\0\x04");
}

pub(super) fn portal_suspended(out: &mut Vec<u8>) {
    out.extend_from_slice(b"s\0\0\0\x04");
}

pub(super) fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| text(out, tag));
}

pub(super) fn parameter_description(out: &mut Vec<u8>, oids: impl ExactSizeIterator<Item = u32>) {
    message(out, b't', |out| {
        out.extend_from_slice(&(oids.len() as u16).to_be_bytes());
        for oid in oids {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// `G` for COPY IN and `H` for COPY OUT, all columns in text.
pub(super) fn copy_response(out: &mut Vec<u8>, tag: u8, columns: usize) {
    message(out, tag, |out| {
        out.push(0);
        out.extend_from_slice(&(columns as u16).to_be_bytes());
        out.resize(out.len() + columns * 2, 0);
    });
}

pub(super) fn copy_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"c\0\0\0\x04");
}

/// One row of text columns, its description included.
pub(super) fn text_row(out: &mut Vec<u8>, columns: &[(&str, &str)]) {
    text_columns(out, columns.iter().map(|(name, _)| *name));
    text_values(out, columns.iter().map(|(_, value)| *value));
}

/// The names of columns that are all text.
pub(super) fn text_columns<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'a str>) {
    const TEXT_OID: u32 = 25;
    let count = (names.len() as u16).to_be_bytes();
    message(out, b'T', |out| {
        out.extend_from_slice(&count);
        for name in names {
            text(out, name);
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&TEXT_OID.to_be_bytes());
            out.extend_from_slice(&(-1_i16).to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&[0; 2]);
        }
    });
}

/// One row of such columns.
pub(super) fn text_values<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = &'a str>) {
    let count = (values.len() as u16).to_be_bytes();
    message(out, b'D', |out| {
        out.extend_from_slice(&count);
        for value in values {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    });
}

pub(super) fn report(out: &mut Vec<u8>, report: &Report) {
    let (tag, severity) = match report.severity {
        Severity::Error => (b'E', "ERROR"),
        Severity::Fatal => (b'E', "FATAL"),
        Severity::Warning => (b'N', "WARNING"),
        Severity::Notice => (b'N', "NOTICE"),
    };
    message(out, tag, |out| {
        let mut field = |code: u8, value: &str| {
            out.push(code);
            text(out, value);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', report.sqlstate);
        field(b'M', &report.message);
        if let Some(detail) = &report.detail {
            field(b'D', detail);
        }
        if let Some(hint) = &report.hint {
            field(b'H', hint);
        }
        if let Some(position) = report.position {
            field(b'P', &position.to_string());
        }
        if let Some(context) = &report.context {
            field(b'W', context);
        }
        out.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_own_length() {
        let mut out = vec![b'x'];
        command_complete(&mut out, "UPDATE 1");
        assert_eq!(out, b"xC\0\0\0\x0dUPDATE 1\0");
    }

    #[test]
    fn a_zero_inside_a_text_cannot_forge_a_field() {
        let mut out = Vec::new();
        report(&mut out, &Report::error("42601", "a\0Mforged"));
        assert!(out.windows(9).any(|window| window == b"aMforged\0"));
    }
}
