//! COPY, with PostgreSQL's parenthesised options and its older bare ones.

use super::{CopyDirection, CopySource, CopyStatement, Statement, cursor::Cursor, parse_tree};
use crate::{
    copy::{CopyFormat, CopyOptions},
    error::{SqlError, state},
};
use sqlparser::tokenizer::Token;

/// Reads `COPY table (columns) FROM STDIN …` or `COPY table|(query) TO STDOUT …`.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let source = if cursor.take_token(&Token::LParen) {
        let inside = cursor.until_closing()?;
        match parse_tree(&inside, cursor.text())? {
            Statement::Sql(query) => CopySource::Query(query),
            other => {
                return Err(SqlError::unsupported(format!("COPY of {}", other.command())));
            }
        }
    } else {
        cursor.take("ONLY");
        table(cursor)?
    };
    let location = cursor.location();
    let direction = if cursor.take("FROM") {
        CopyDirection::In
    } else {
        cursor.expect("TO")?;
        CopyDirection::Out
    };
    if direction == CopyDirection::In && matches!(source, CopySource::Query(_)) {
        return Err(SqlError::syntax_near("FROM").at_location(location));
    }
    let place = cursor.location();
    let standard = match direction {
        CopyDirection::In => cursor.take("STDIN"),
        CopyDirection::Out => cursor.take("STDOUT") || cursor.take("STDIN"),
    };
    if !standard {
        return Err(SqlError::unsupported("COPY with a file or program on the server")
            .with_hint("Use COPY … FROM STDIN or TO STDOUT; psql's \\copy reads and writes files on the client.")
            .at_location(place));
    }
    let options = options(cursor)?;
    Ok(Statement::Copy(CopyStatement { source, direction, options }))
}

fn table(cursor: &mut Cursor<'_>) -> Result<CopySource, SqlError> {
    let name = cursor.object_name()?;
    let mut columns = Vec::new();
    if cursor.take_token(&Token::LParen) {
        loop {
            columns.push(cursor.name()?);
            if cursor.take_token(&Token::RParen) {
                break;
            }
            cursor.expect_token(&Token::Comma)?;
        }
    }
    Ok(CopySource::Table { name, columns })
}

fn options(cursor: &mut Cursor<'_>) -> Result<CopyOptions, SqlError> {
    let mut draft = Draft::default();
    cursor.take("WITH");
    if cursor.take_token(&Token::LParen) {
        loop {
            new_option(cursor, &mut draft)?;
            if cursor.take_token(&Token::RParen) {
                break;
            }
            cursor.expect_token(&Token::Comma)?;
        }
    } else {
        while !cursor.is_at_end() {
            old_option(cursor, &mut draft)?;
        }
    }
    draft.finish()
}

/// Options as written; defaults depend on the format, which may come last.
#[derive(Default)]
struct Draft {
    csv: bool,
    delimiter: Option<String>,
    null: Option<String>,
    header: bool,
    quote: Option<String>,
    escape: Option<String>,
}

impl Draft {
    fn finish(self) -> Result<CopyOptions, SqlError> {
        let format = if self.csv { CopyFormat::Csv } else { CopyFormat::Text };
        let mut options = CopyOptions::new(format);
        options.header = self.header;
        if let Some(delimiter) = self.delimiter {
            options.delimiter = single("delimiter", &delimiter)?;
        }
        if let Some(null) = self.null {
            options.null = null;
        }
        if (self.quote.is_some() || self.escape.is_some()) && !self.csv {
            return Err(SqlError::new(
                state::FEATURE_NOT_SUPPORTED,
                "COPY quote and escape available only in CSV mode",
            ));
        }
        if let Some(quote) = self.quote {
            options.quote = single("quote", &quote)?;
            options.escape = options.quote;
        }
        if let Some(escape) = self.escape {
            options.escape = single("escape", &escape)?;
        }
        if options.null.contains(['\n', '\r']) {
            return Err(SqlError::new(
                state::INVALID_PARAMETER,
                "COPY null representation cannot use newline or carriage return",
            ));
        }
        Ok(options)
    }
}

fn single(what: &str, text: &str) -> Result<u8, SqlError> {
    match text.as_bytes() {
        [byte] if !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        [_] => Err(SqlError::new(
            state::INVALID_PARAMETER,
            format!("COPY {what} cannot be newline or carriage return"),
        )),
        _ => Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            format!("COPY {what} must be a single one-byte character"),
        )),
    }
}

fn new_option(cursor: &mut Cursor<'_>, draft: &mut Draft) -> Result<(), SqlError> {
    let location = cursor.location();
    let option = cursor.name()?;
    match option.as_str() {
        "format" => draft.csv = format(cursor)?,
        "freeze" => {
            boolean(cursor)?;
        }
        "header" => draft.header = boolean(cursor)?,
        "delimiter" => draft.delimiter = Some(cursor.string()?),
        "null" => draft.null = Some(cursor.string()?),
        "quote" => draft.quote = Some(cursor.string()?),
        "escape" => draft.escape = Some(cursor.string()?),
        "encoding" => encoding(cursor)?,
        other => {
            return Err(
                SqlError::unsupported(format!("the COPY option {other}")).at_location(location)
            );
        }
    }
    Ok(())
}

fn old_option(cursor: &mut Cursor<'_>, draft: &mut Draft) -> Result<(), SqlError> {
    let location = cursor.location();
    let option = cursor.name()?;
    match option.as_str() {
        "csv" => draft.csv = true,
        "freeze" => {}
        "header" => draft.header = true,
        "delimiter" | "delimiters" | "null" | "quote" | "escape" => {
            cursor.take("AS");
            let value = Some(cursor.string()?);
            match option.as_str() {
                "null" => draft.null = value,
                "quote" => draft.quote = value,
                "escape" => draft.escape = value,
                _ => draft.delimiter = value,
            }
        }
        "encoding" => encoding(cursor)?,
        "binary" => {
            return Err(SqlError::unsupported("COPY in binary format").at_location(location));
        }
        other => {
            return Err(
                SqlError::unsupported(format!("the COPY option {other}")).at_location(location)
            );
        }
    }
    Ok(())
}

fn format(cursor: &mut Cursor<'_>) -> Result<bool, SqlError> {
    let location = cursor.location();
    let name = if matches!(cursor.peek(), Some(Token::Word(_))) {
        cursor.name()?
    } else {
        cursor.string()?
    };
    match name.as_str() {
        "text" => Ok(false),
        "csv" => Ok(true),
        "binary" => Err(SqlError::unsupported("COPY in binary format").at_location(location)),
        other => Err(SqlError::new(
            state::INVALID_PARAMETER,
            format!("COPY format \"{other}\" not recognized"),
        )
        .at_location(location)),
    }
}

fn encoding(cursor: &mut Cursor<'_>) -> Result<(), SqlError> {
    let location = cursor.location();
    let name = cursor.string()?;
    if matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
        Ok(())
    } else {
        Err(SqlError::unsupported(format!("the COPY encoding {name}")).at_location(location))
    }
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<bool, SqlError> {
    let error = cursor.unexpected();
    match cursor.peek() {
        Some(Token::Word(_)) => match cursor.name()?.as_str() {
            "on" | "true" | "match" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(error),
        },
        Some(Token::Number(number, _)) => {
            cursor.advance();
            Ok(number != "0")
        }
        Some(Token::SingleQuotedString(_)) => {
            Ok(matches!(cursor.string()?.as_str(), "on" | "true" | "1"))
        }
        _ => Ok(true),
    }
}
