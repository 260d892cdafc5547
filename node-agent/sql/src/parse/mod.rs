//! Text to statements.
//!
//! The text is cut into tokens once; each statement is then either one of our own forms (`session`,
//! `copying`: words that sqlparser reads differently from PostgreSQL, or not at all) or is handed to
//! sqlparser's PostgreSQL dialect. The whole text is parsed before anything runs, as PostgreSQL does.

mod copying;
mod cursor;
mod session;
mod statement;

pub use statement::{
    CallArgument, CopyDirection, CopySource, CopyStatement, DiscardTarget, IsolationLevel,
    SetScope, SqlText, Statement, StatementKind, TransactionModes, UserAction, UserStatement,
};

use crate::error::{SqlError, state};
use cursor::Cursor;
use sqlparser::{
    ast,
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};
use std::sync::Arc;

/// Nesting allowed in one statement: deep enough for generated SQL, small enough for a session's stack.
const RECURSION_LIMIT: usize = 128;

/// Parses every statement of a text; empty statements are left out.
///
/// # Errors
/// 42601 with the position of the offending token; 0A000 for statements we do not have.
pub fn parse(text: &str) -> Result<Vec<Statement>, SqlError> {
    let shared: Arc<str> = Arc::from(text);
    let tokens = tokenize(text)?;
    let mut statements = Vec::new();
    for part in tokens.split(|token| token.token == Token::SemiColon) {
        if part.iter().all(is_blank) {
            continue;
        }
        statements.push(parse_one(part, &shared).map_err(|error| error.resolve(text))?);
    }
    Ok(statements)
}

/// Parses a scalar expression kept as text in the catalog (defaults, checks).
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    let tokens = tokenize(text)?;
    let shared: Arc<str> = Arc::from(text);
    let mut parser = sqlparser_over(&tokens);
    parser.parse_expr().map_err(|error| translate(error, &tokens, &shared))
}

fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().map_err(|error| {
        let unterminated = error.message.to_ascii_lowercase().contains("unterminated");
        let message = if unterminated {
            let what = if error.message.contains("identifier") || error.message.contains("close") {
                "quoted identifier"
            } else if error.message.contains("comment") {
                "/* comment"
            } else {
                "quoted string"
            };
            format!("unterminated {what}")
        } else {
            error.message
        };
        SqlError::new(state::SYNTAX, message).at_location(error.location).resolve(text)
    })
}

fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

fn parse_one(tokens: &[TokenWithSpan], text: &Arc<str>) -> Result<Statement, SqlError> {
    let mut cursor = Cursor::new(tokens, text);
    match session::parse(&mut cursor)? {
        Some(statement) => {
            cursor.expect_end()?;
            Ok(statement)
        }
        None => parse_tree(tokens, text),
    }
}

fn sqlparser_over(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(tokens.to_vec())
}

pub(super) fn parse_tree(tokens: &[TokenWithSpan], text: &Arc<str>) -> Result<Statement, SqlError> {
    let mut parser = sqlparser_over(tokens);
    let tree = parser.parse_statement().map_err(|error| translate(error, tokens, text))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(SqlError::syntax_near(&rest.token.to_string()).at(rest.span));
    }
    if tree_command(&tree).is_empty() {
        return Err(unknown_statement(tokens));
    }
    Ok(Statement::Sql(Arc::new(SqlText { tree, text: Arc::clone(text) })))
}

fn unknown_statement(tokens: &[TokenWithSpan]) -> SqlError {
    let words: Vec<String> = tokens
        .iter()
        .filter_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_ascii_uppercase()),
            _ => None,
        })
        .take(2)
        .collect();
    SqlError::unsupported(words.join(" "))
}

/// sqlparser's message ends in " at Line: 1, Column: 5" and begins with "Expected: …, found: …".
fn translate(error: ParserError, tokens: &[TokenWithSpan], text: &Arc<str>) -> SqlError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(state::TOO_COMPLEX, "stack depth limit exceeded")
                .with_hint("Write the statement with less nesting.");
        }
    };
    let (words, location) = split_location(&message);
    let Some(location) = location else {
        // Errors without a place: blame the end, as PostgreSQL's grammar does.
        let end = words.contains("found: EOF");
        let error = if end {
            SqlError::syntax_near("")
        } else {
            SqlError::new(state::SYNTAX, format!("syntax error: {words}"))
        };
        let last = end_of(tokens);
        return error.at_location(last).resolve(text);
    };
    let offending = tokens
        .iter()
        .find(|token| token.span.start == location && !is_blank(token))
        .map(|token| token.token.to_string())
        .unwrap_or_default();
    let error = SqlError::syntax_near(&offending).at_location(location);
    let error = match words.split_once(", found:") {
        Some((expected, _)) => error.with_detail(format!("{expected}.")),
        None => error.with_detail(words.to_owned()),
    };
    error.resolve(text)
}

fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((words, place)) = message.rsplit_once(" at Line: ") else {
        return (message, None);
    };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    (words, location)
}

fn end_of(tokens: &[TokenWithSpan]) -> Location {
    tokens
        .iter()
        .rev()
        .find(|token| !is_blank(token))
        .map_or(Location { line: 1, column: 1 }, |token| token.span.end)
}

/// The command of a tree; empty for trees that are not ours to run.
pub(crate) fn tree_command(tree: &ast::Statement) -> &'static str {
    match tree {
        ast::Statement::Query(_) => "SELECT",
        ast::Statement::Insert(_) => "INSERT",
        ast::Statement::Update(_) => "UPDATE",
        ast::Statement::Delete(_) => "DELETE",
        ast::Statement::Truncate(_) => "TRUNCATE TABLE",
        ast::Statement::CreateTable(_) => "CREATE TABLE",
        ast::Statement::CreateIndex(_) => "CREATE INDEX",
        ast::Statement::AlterTable(_) => "ALTER TABLE",
        ast::Statement::Drop { object_type: ast::ObjectType::Table, .. } => "DROP TABLE",
        ast::Statement::Drop { object_type: ast::ObjectType::Index, .. } => "DROP INDEX",
        _ => "",
    }
}

/// What kind of work a tree is.
pub(crate) fn tree_kind(tree: &ast::Statement) -> StatementKind {
    match tree {
        ast::Statement::Query(query) if query.locks.is_empty() => StatementKind::Query,
        ast::Statement::Query(_) => StatementKind::LockingQuery,
        ast::Statement::Insert(_)
        | ast::Statement::Update(_)
        | ast::Statement::Delete(_)
        | ast::Statement::Truncate(_) => StatementKind::Write,
        _ => StatementKind::Definition,
    }
}
