//! Text to statements.
//!
//! The text is cut into tokens once; each statement is then either one of our own forms (`session`,
//! `copying`, `explain`: words that sqlparser reads differently from PostgreSQL, or not at all) or is handed to
//! sqlparser's PostgreSQL dialect. The whole text is parsed before anything runs, as PostgreSQL does.

mod conflict;
mod copying;
mod cursor;
mod explain;
mod sequence;
mod session;
mod statement;

pub(crate) use conflict::ConflictKeys;
pub use sequence::SequenceStatement;
pub(crate) use sequence::{Overriding, SequenceAction, SequenceOptions};
pub use statement::{
    Analyze, CallArgument, CopyDirection, CopySource, CopyStatement, DiscardTarget, ExplainFormat,
    IsolationLevel, SetScope, SqlText, Statement, StatementKind, TransactionModes, UserAction,
    UserStatement,
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

/// Weight of operators allowed in a row: trees lean to the left, and what walks or frees them takes as
/// many steps on the stack of a session's thread.
const CHAIN_MAX: usize = 300;

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
    refuse_long_chains(&tokens)?;
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
    refuse_long_chains(tokens)?;
    let (mut overriding, mut conflict, mut changed) = (None, None, Vec::new());
    let mut given = tokens;
    if tokens.iter().any(|token| is_word(&token.token, &["CONFLICT"])) {
        changed.extend_from_slice(tokens);
        conflict =
            conflict::take_keys(&mut changed).map_err(|error| translate(error, tokens, text))?;
        given = &changed;
    }
    if tokens.iter().any(|token| is_word(&token.token, &["OVERRIDING", "IDENTITY"])) {
        if changed.is_empty() {
            changed.extend_from_slice(tokens);
        }
        overriding = sequence::take_overriding(&mut changed);
        sequence::order_identity_options(&mut changed);
        given = &changed;
    }
    let mut parser = sqlparser_over(given);
    let tree = parser.parse_statement().map_err(|error| translate(error, tokens, text))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(SqlError::syntax_near(&rest.token.to_string()).at(rest.span));
    }
    if tree_command(&tree).is_empty() {
        return Err(unknown_statement(tokens));
    }
    Ok(Statement::Sql(Arc::new(SqlText { tree, text: Arc::clone(text), overriding, conflict })))
}

/// Operators met at one level of parentheses.
#[derive(Default)]
struct Level {
    /// ANDs and ORs since the last comma: they are bound in a loop, so they weigh little.
    logical: usize,
    /// Others since the last comma, AND or OR.
    others: usize,
    /// The most that `weight` has been.
    most: usize,
}

impl Level {
    fn weight(&self) -> usize {
        self.most.max(self.logical / 8 + self.others)
    }
}

/// Bounds the depth of the tree that the tokens can make, before it is made.
fn refuse_long_chains(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut closed = Vec::new();
    let mut level = Level::default();
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => closed.push(std::mem::take(&mut level)),
            Token::RParen | Token::RBracket => {
                if let Some(outer) = closed.pop() {
                    let inside = level.weight();
                    level = outer;
                    level.others += inside;
                }
            }
            Token::Comma => {
                level = Level { most: level.weight(), ..Level::default() };
            }
            other => match operator_weight(other) {
                0 if is_logical(other) => {
                    level.most = level.weight();
                    level.logical += 1;
                    level.others = 0;
                }
                weight => level.others += weight,
            },
        }
        if level.weight() > CHAIN_MAX {
            return Err(SqlError::new(state::TOO_COMPLEX, "stack depth limit exceeded")
                .with_hint("An expression has too many operators in a row; use IN (…) or a join.")
                .at(token.span));
        }
    }
    Ok(())
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none()
        && words.iter().any(|known| word.value.eq_ignore_ascii_case(known)))
}

fn is_logical(token: &Token) -> bool {
    is_word(token, &["AND", "OR"])
}

/// What one operator adds to the depth of its expression; set operations and joins stand on taller
/// frames.
fn operator_weight(token: &Token) -> usize {
    match token {
        Token::Word(_) if is_word(token, &["UNION", "INTERSECT", "EXCEPT", "JOIN"]) => 4,
        Token::Word(_) => usize::from(is_word(token, &["NOT", "IS", "LIKE", "ILIKE"])),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::Mod
        | Token::Caret
        | Token::StringConcat
        | Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::DoubleColon
        | Token::Pipe
        | Token::Ampersand
        | Token::Sharp
        | Token::ShiftLeft
        | Token::ShiftRight
        | Token::Tilde
        | Token::ExclamationMark
        | Token::AtSign
        | Token::CustomBinaryOperator(_) => 1,
        _ => 0,
    }
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
        ast::Statement::Drop { object_type: ast::ObjectType::Sequence, .. } => "DROP SEQUENCE",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare;

    fn chain(length: usize, operator: &str) -> String {
        let terms = vec!["1"; length + 1].join(operator);
        format!("select {terms}")
    }

    fn is_bound(text: &str) -> bool {
        let statements = parse(text).unwrap();
        prepare(&Arc::default(), &statements[0], &[]).is_ok()
    }

    #[test]
    fn the_longest_chain_fits_the_stack_and_a_longer_one_is_refused() {
        assert!(is_bound(&chain(CHAIN_MAX, " + ")));
        assert!(is_bound(&chain(CHAIN_MAX / 2, " - -")));
        assert!(is_bound(&chain(CHAIN_MAX / 4, " union select ")));
        assert!(is_bound(&chain(CHAIN_MAX * 7, " or ").replace('1', "true")));
        for (length, operator) in
            [(CHAIN_MAX + 1, " + "), (CHAIN_MAX / 4 + 1, " union select "), (CHAIN_MAX * 9, " or ")]
        {
            assert_eq!(parse(&chain(length, operator)).unwrap_err().sqlstate, state::TOO_COMPLEX);
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_and_long_lists_are_not() {
        let deep = format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(parse(&deep).unwrap_err().sqlstate, state::TOO_COMPLEX);
        let nots = format!("select {} true", "not ".repeat(5_000));
        assert_eq!(parse(&nots).unwrap_err().sqlstate, state::TOO_COMPLEX);
        let rows = vec!["(-1, 'a' || 'b')"; 20_000].join(", ");
        assert_eq!(parse(&format!("insert into t values {rows}")).unwrap().len(), 1);
        let list = vec!["-1"; 20_000].join(", ");
        assert_eq!(parse(&format!("select 1 in ({list})")).unwrap().len(), 1);
    }
}
