//! CREATE SEQUENCE and ALTER SEQUENCE, and the forms of identity columns that sqlparser reads
//! differently from PostgreSQL or not at all.

use super::{Statement, cursor::Cursor, is_word};
use crate::error::{SqlError, state};
use sqlparser::{
    ast,
    tokenizer::{Token, TokenWithSpan},
};

/// CREATE SEQUENCE or ALTER SEQUENCE.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceStatement {
    /// The sequence, as written.
    pub(crate) name: ast::ObjectName,
    /// What is done to it.
    pub(crate) action: SequenceAction,
    /// IF EXISTS or IF NOT EXISTS.
    pub(crate) lenient: bool,
}

/// What is done to a sequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SequenceAction {
    Create(SequenceOptions),
    Alter(SequenceOptions),
    Rename(String),
    /// Accepted without effect (OWNER TO).
    Nothing,
}

/// The options that were written; None for those that were not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SequenceOptions {
    /// AS: a name of a type.
    pub(crate) data_type: Option<String>,
    pub(crate) increment: Option<i64>,
    /// Some(None): NO MINVALUE.
    pub(crate) min: Option<Option<i64>>,
    pub(crate) max: Option<Option<i64>>,
    pub(crate) start: Option<i64>,
    /// Some(None): RESTART without a number.
    pub(crate) restart: Option<Option<i64>>,
    pub(crate) cache: Option<i64>,
    pub(crate) cycle: Option<bool>,
    /// Some(None): OWNED BY NONE.
    pub(crate) owned_by: Option<Option<ast::ObjectName>>,
}

/// What INSERT says of identity columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overriding {
    /// Written values stand, also in GENERATED ALWAYS columns.
    System,
    /// Written values of identity columns are left aside.
    User,
}

/// Reads the statement; the cursor is at CREATE or ALTER.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let create = cursor.take("CREATE");
    if !create {
        cursor.expect("ALTER")?;
    } else if cursor.take("TEMP") || cursor.take("TEMPORARY") {
        return Err(SqlError::unsupported("a temporary sequence").at_location(cursor.location()));
    }
    cursor.expect("SEQUENCE")?;
    let words: &[&str] = if create { &["IF", "NOT", "EXISTS"] } else { &["IF", "EXISTS"] };
    let lenient = cursor.take_all(words);
    let name = cursor.object_name()?;
    let action = if create {
        SequenceAction::Create(options(cursor)?)
    } else if cursor.take_all(&["RENAME", "TO"]) {
        SequenceAction::Rename(cursor.name()?)
    } else if cursor.take_all(&["OWNER", "TO"]) {
        cursor.name()?;
        SequenceAction::Nothing
    } else if cursor.is_at_end() {
        return Err(cursor.unexpected());
    } else {
        SequenceAction::Alter(options(cursor)?)
    };
    Ok(Statement::Sequence(SequenceStatement { name, action, lenient }))
}

fn options(cursor: &mut Cursor<'_>) -> Result<SequenceOptions, SqlError> {
    let mut options = SequenceOptions::default();
    while !cursor.is_at_end() {
        option(cursor, &mut options)?;
    }
    Ok(options)
}

fn option(cursor: &mut Cursor<'_>, options: &mut SequenceOptions) -> Result<(), SqlError> {
    let location = cursor.location();
    let twice = if cursor.take("AS") {
        options.data_type.replace(cursor.name()?).is_some()
    } else if cursor.take("INCREMENT") {
        cursor.take("BY");
        options.increment.replace(number(cursor)?).is_some()
    } else if cursor.take("MINVALUE") {
        options.min.replace(Some(number(cursor)?)).is_some()
    } else if cursor.take("MAXVALUE") {
        options.max.replace(Some(number(cursor)?)).is_some()
    } else if cursor.take_all(&["NO", "MINVALUE"]) {
        options.min.replace(None).is_some()
    } else if cursor.take_all(&["NO", "MAXVALUE"]) {
        options.max.replace(None).is_some()
    } else if cursor.take_all(&["NO", "CYCLE"]) {
        options.cycle.replace(false).is_some()
    } else if cursor.take("CYCLE") {
        options.cycle.replace(true).is_some()
    } else if cursor.take("START") {
        cursor.take("WITH");
        options.start.replace(number(cursor)?).is_some()
    } else if cursor.take("RESTART") {
        let with = cursor.take("WITH");
        let given = with || matches!(cursor.peek(), Some(Token::Number(..) | Token::Minus));
        options.restart.replace(if given { Some(number(cursor)?) } else { None }).is_some()
    } else if cursor.take("CACHE") {
        options.cache.replace(number(cursor)?).is_some()
    } else if cursor.take_all(&["OWNED", "BY"]) {
        let owner = if cursor.take("NONE") { None } else { Some(cursor.object_name()?) };
        options.owned_by.replace(owner).is_some()
    } else {
        return Err(cursor.unexpected());
    };
    if twice {
        let message = "conflicting or redundant options";
        return Err(SqlError::new(state::SYNTAX, message).at_location(location));
    }
    Ok(())
}

fn number(cursor: &mut Cursor<'_>) -> Result<i64, SqlError> {
    let minus = cursor.take_token(&Token::Minus);
    if !minus {
        cursor.take_token(&Token::Plus);
    }
    let error = cursor.unexpected();
    let Some(Token::Number(digits, _)) = cursor.peek() else { return Err(error) };
    let text = if minus { format!("-{digits}") } else { digits.clone() };
    let number = text.parse().map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type bigint");
        SqlError::new(state::OUT_OF_RANGE, message).at_location(cursor.location())
    })?;
    cursor.advance();
    Ok(number)
}

/// Takes `OVERRIDING … VALUE` out of an INSERT.
pub(super) fn take_overriding(tokens: &mut Vec<TokenWithSpan>) -> Option<Overriding> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|at| !super::is_blank(&tokens[*at])).collect();
    let word = |at: usize, words: &[&str]| is_word(&tokens[at].token, words);
    if !significant.first().is_some_and(|at| word(*at, &["INSERT"])) {
        return None;
    }
    let found = significant.windows(4).find(|window| {
        word(window[0], &["OVERRIDING"])
            && word(window[1], &["SYSTEM", "USER"])
            && word(window[2], &["VALUE"])
            && (word(window[3], &["VALUES", "SELECT", "WITH", "TABLE"])
                || tokens[window[3]].token == Token::LParen)
    })?;
    let overriding =
        if word(found[1], &["SYSTEM"]) { Overriding::System } else { Overriding::User };
    tokens.drain(found[0]..=found[2]);
    Some(overriding)
}

/// Brings the options of `AS IDENTITY (…)` into the one order that sqlparser takes them in.
pub(super) fn order_identity_options(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at < tokens.len() {
        if !is_word(&tokens[at].token, &["IDENTITY"]) {
            at += 1;
            continue;
        }
        at += 1;
        while at < tokens.len() && super::is_blank(&tokens[at]) {
            at += 1;
        }
        if tokens.get(at).is_none_or(|token| token.token != Token::LParen) {
            continue;
        }
        let inside = at + 1;
        let Some(length) = tokens[inside..].iter().position(|t| t.token == Token::RParen) else {
            return;
        };
        let mut groups: Vec<(usize, Vec<TokenWithSpan>)> = Vec::new();
        for token in tokens[inside..inside + length].iter().filter(|t| !super::is_blank(t)) {
            let rank = RANKS.iter().position(|words| is_word(&token.token, words));
            let after_no = groups
                .last()
                .is_some_and(|(_, group)| group.len() == 1 && is_word(&group[0].token, &["NO"]));
            match (rank, groups.last_mut()) {
                (Some(rank), Some(group)) if after_no => {
                    group.0 = rank;
                    group.1.push(token.clone());
                }
                (None, Some(group)) => group.1.push(token.clone()),
                (rank, _) => groups.push((rank.unwrap_or(0), vec![token.clone()])),
            }
        }
        groups.sort_by_key(|(rank, _)| *rank);
        let ordered: Vec<TokenWithSpan> = groups.into_iter().flat_map(|(_, group)| group).collect();
        let end = inside + ordered.len();
        tokens.splice(inside..inside + length, ordered);
        at = end;
    }
}

/// First words of options, in sqlparser's order.
const RANKS: [&[&str]; 7] =
    [&["INCREMENT"], &["MINVALUE"], &["MAXVALUE"], &["START"], &["CACHE"], &["CYCLE"], &["NO"]];
