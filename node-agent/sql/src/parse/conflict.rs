//! ON CONFLICT (…) WHERE …: sqlparser knows names of columns there, PostgreSQL also expressions and a predicate.

use super::{is_blank, is_word, sqlparser_over};
use sqlparser::{
    ast,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan},
};

/// The keys that an INSERT names, where they are more than columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConflictKeys {
    pub(crate) exprs: Vec<ast::Expr>,
    pub(crate) predicate: Option<ast::Expr>,
}

/// Takes the keys out of the tokens, unless sqlparser can read them.
pub(super) fn take_keys(
    tokens: &mut Vec<TokenWithSpan>,
) -> Result<Option<ConflictKeys>, ParserError> {
    let solid: Vec<usize> = (0..tokens.len()).filter(|at| !is_blank(&tokens[*at])).collect();
    let is = |place: usize, word: &str| {
        solid.get(place).is_some_and(|at| is_word(&tokens[*at].token, &[word]))
    };
    let token = |place: usize| solid.get(place).map(|at| &tokens[*at].token);
    let begins = |place: &usize| {
        is(*place, "ON") && is(place + 1, "CONFLICT") && token(place + 2) == Some(&Token::LParen)
    };
    let Some(on) = (0..solid.len()).find(begins) else { return Ok(None) };
    let open = on + 2;
    let Some(close) = closing(&solid, tokens, open) else { return Ok(None) };
    let mut end = close + 1;
    let has_predicate = is(end, "WHERE");
    while has_predicate && end < solid.len() && !is(end, "DO") {
        end = match token(end) {
            Some(Token::LParen) => closing(&solid, tokens, end).unwrap_or(solid.len()),
            _ => end + 1,
        };
    }
    let is_name = |place: usize| matches!(token(place), Some(Token::Word(_) | Token::Comma));
    if !has_predicate && (open + 1..close).all(is_name) {
        return Ok(None);
    }
    let exprs = read(&tokens[solid[open] + 1..solid[close]], |parser| {
        parser.parse_comma_separated(Parser::parse_expr)
    })?;
    let past = solid.get(end).copied().unwrap_or(tokens.len());
    let predicate = match has_predicate {
        true => Some(read(&tokens[solid[close + 1] + 1..past], Parser::parse_expr)?),
        false => None,
    };
    tokens.drain(solid[open]..past);
    Ok(Some(ConflictKeys { exprs, predicate }))
}

/// The place of the parenthesis that closes one.
fn closing(solid: &[usize], tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (place, at) in solid.iter().enumerate().skip(open) {
        match tokens[*at].token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(place),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Reads all of the tokens.
fn read<T>(
    tokens: &[TokenWithSpan],
    parse: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>,
) -> Result<T, ParserError> {
    let mut parser = sqlparser_over(tokens);
    let found = parse(&mut parser)?;
    match parser.peek_token().token {
        Token::EOF => Ok(found),
        _ => parser.expected("the end of the conflict target", parser.peek_token()),
    }
}
