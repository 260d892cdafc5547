//! EXPLAIN: its options, and the statement that is explained.

use super::{Analyze, ExplainFormat, Statement, cursor::Cursor, session::nested};
use crate::error::{SqlError, state};
use sqlparser::tokenizer::{Location, Token};

/// What a query in parentheses begins with; anything else in them is options.
const QUERIES: [&str; 4] = ["SELECT", "VALUES", "WITH", "TABLE"];

/// What to write for a format that there is not.
const FORMATS: &str = "Write FORMAT TEXT or FORMAT JSON.";

/// EXPLAIN, from its first word on.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let has_options = cursor.peek() == Some(&Token::LParen)
        && cursor.word_at(1).is_some_and(|word| !QUERIES.contains(&word.as_str()));
    let options = if has_options {
        cursor.advance();
        options(cursor)?
    } else {
        let analyze = cursor.take("ANALYZE") || cursor.take("ANALYSE");
        cursor.take("VERBOSE");
        Options { analyze, ..Options::default() }
    };
    let statement = Box::new(nested(cursor)?);
    match *statement {
        Statement::Sql(_) => Ok(Statement::Explain {
            analyze: options.analyze()?,
            format: options.format,
            statement,
        }),
        _ => Err(SqlError::unsupported(format!("EXPLAIN {}", statement.command()))),
    }
}

/// What is asked for; None where nothing is said.
#[derive(Default)]
struct Options {
    analyze: bool,
    timing: Option<bool>,
    summary: Option<bool>,
    wal: bool,
    format: ExplainFormat,
}

impl Options {
    fn analyze(&self) -> Result<Option<Analyze>, SqlError> {
        let needs = |option: &str| {
            let message = format!("EXPLAIN option {option} requires ANALYZE");
            Err(SqlError::new(state::INVALID_PARAMETER, message)
                .with_hint(format!("Write EXPLAIN (ANALYZE, {option}).")))
        };
        match (self.analyze, self.timing) {
            (true, timing) => Ok(Some(Analyze {
                timing: timing.unwrap_or(true),
                summary: self.summary.unwrap_or(true),
            })),
            (false, _) if self.wal => needs("WAL"),
            (false, Some(true)) => needs("TIMING"),
            (false, _) => Ok(None),
        }
    }
}

fn options(cursor: &mut Cursor<'_>) -> Result<Options, SqlError> {
    let mut options = Options::default();
    loop {
        let location = cursor.location();
        let name = cursor.name()?;
        let value = value(cursor)?;
        let is_on = || boolean(&name, value.as_deref(), location);
        match name.as_str() {
            "analyze" | "analyse" => options.analyze = is_on()?,
            "timing" => options.timing = Some(is_on()?),
            "summary" => options.summary = Some(is_on()?),
            "wal" => options.wal = is_on()?,
            // Nothing of theirs is told.
            "costs" | "verbose" | "buffers" | "settings" => drop(is_on()?),
            "format" => options.format = format(value.as_deref(), location)?,
            _ => {
                let message = format!("unrecognized EXPLAIN option \"{name}\"");
                return Err(SqlError::new(state::SYNTAX, message).at_location(location));
            }
        }
        if cursor.take_token(&Token::RParen) {
            return Ok(options);
        }
        cursor.expect_token(&Token::Comma)?;
    }
}

/// What stands behind an option's name, if anything does.
fn value(cursor: &mut Cursor<'_>) -> Result<Option<String>, SqlError> {
    match cursor.peek() {
        Some(Token::Word(_)) => cursor.name().map(Some),
        Some(Token::Number(digits, _)) => {
            cursor.advance();
            Ok(Some(digits.clone()))
        }
        Some(Token::Comma | Token::RParen) => Ok(None),
        _ => cursor.string().map(Some),
    }
}

fn boolean(option: &str, value: Option<&str>, location: Location) -> Result<bool, SqlError> {
    let Some(value) = value else { return Ok(true) };
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => {
            let message = format!("{option} requires a Boolean value");
            Err(SqlError::new(state::SYNTAX, message)
                .with_hint(format!("Write {option} ON or {option} OFF, not {value}."))
                .at_location(location))
        }
    }
}

fn format(value: Option<&str>, location: Location) -> Result<ExplainFormat, SqlError> {
    let refused = |error: SqlError| Err(error.with_hint(FORMATS).at_location(location));
    match value {
        Some("text") => Ok(ExplainFormat::Text),
        Some("json") => Ok(ExplainFormat::Json),
        Some(known @ ("xml" | "yaml")) => {
            let what = format!("EXPLAIN (FORMAT {})", known.to_ascii_uppercase());
            refused(SqlError::unsupported(what))
        }
        Some(other) => {
            let message = format!("unrecognized value for EXPLAIN option \"format\": \"{other}\"");
            refused(SqlError::new(state::INVALID_PARAMETER, message))
        }
        None => refused(SqlError::new(state::SYNTAX, "format requires a parameter")),
    }
}
