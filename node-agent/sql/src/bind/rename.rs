//! ALTER TABLE … RENAME: checks, generated columns and index expressions keep their meaning.
//!
//! They are kept as SQL, so the names in them change too. What comes out is bound, and must be what was
//! there before (a bound expression has columns by position); a text that does not come out so is refused.

use super::{Binder, split_check};
use crate::{
    error::{SqlError, state},
    expr::Expr,
    names,
    plan::Computed,
};
use sqlparser::{
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer, Word},
};
use std::sync::Arc;
use understudy_store::TableDef;

/// What gets another name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Renaming<'a> {
    Column(usize, &'a str),
    Table(&'a str),
}

impl Binder<'_> {
    /// The table with the new name, in its texts too.
    pub(super) fn renamed(
        &self,
        old: &TableDef,
        renaming: Renaming<'_>,
    ) -> Result<TableDef, SqlError> {
        let mut new = old.clone();
        for column in new.columns.iter_mut().filter(|column| column.generated.is_some()) {
            if column.hidden {
                column.name = reworded(&column.name, old, renaming)?;
            }
            if let Some(text) = &mut column.generated {
                *text = reworded(text, old, renaming)?;
            }
        }
        for check in &mut new.checks {
            let (name, predicate) = split_check(check)?;
            let predicate = reworded(&predicate, old, renaming)?;
            *check = format!("CONSTRAINT {} CHECK ({predicate})", names::quoted(&name));
        }
        match renaming {
            Renaming::Column(position, name) => name.clone_into(&mut new.columns[position].name),
            Renaming::Table(name) => name.clone_into(&mut new.name),
        }
        let before = self.meaning(old)?;
        match self.meaning(&new) {
            Ok(after) if before == after => Ok(new),
            Ok(_) | Err(_) => Err(SqlError::unsupported(
                "renaming what a check, a generated column or an index expression names in this way",
            )
            .with_hint("Drop them, rename, and make them again.")),
        }
    }

    /// What the texts of a table say.
    fn meaning(&self, table: &TableDef) -> Result<(Vec<Computed>, Vec<Expr>), SqlError> {
        let table = Arc::new(table.clone());
        let checks = self.checks(&table)?;
        Ok((self.computed(&table)?, checks.into_iter().map(|check| check.predicate).collect()))
    }
}

/// A text of the table with another name in the places of the old one.
fn reworded(text: &str, table: &TableDef, renaming: Renaming<'_>) -> Result<String, SqlError> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).with_unescape(false).tokenize();
    let tokens = tokens.map_err(|error| SqlError::new(state::SYNTAX, error.message))?;
    let mut out = String::with_capacity(text.len());
    for (position, token) in tokens.iter().enumerate() {
        let (before, after) = (&tokens[..position], &tokens[position + 1..]);
        match token {
            Token::Word(word) if is_meant(word, (before, after), table, renaming) => {
                let (Renaming::Column(_, name) | Renaming::Table(name)) = renaming;
                out.push_str(&names::quoted(name));
            }
            token => out.push_str(&token.to_string()),
        }
    }
    Ok(out)
}

/// Whether a word is the name that changes, and not that of a function, a type or a table.
fn is_meant(
    word: &Word,
    (before, after): (&[Token], &[Token]),
    table: &TableDef,
    renaming: Renaming<'_>,
) -> bool {
    let is_space = |token: &&Token| !matches!(token, Token::Whitespace(_));
    let last = before.iter().rfind(is_space);
    let next = after.iter().find(is_space);
    let name = match word.quote_style {
        Some(_) => word.value.replace("\"\"", "\""),
        None => word.value.to_lowercase(),
    };
    match renaming {
        Renaming::Table(_) => name == table.name && next == Some(&Token::Period),
        Renaming::Column(position, _) => {
            let is_type = match last {
                Some(Token::DoubleColon) => true,
                Some(Token::Word(word)) => word.keyword == Keyword::AS,
                _ => false,
            };
            let stands_alone =
                !matches!(next, Some(Token::LParen | Token::Period | Token::SingleQuotedString(_)));
            name == table.columns[position].name && stands_alone && !is_type
        }
    }
}
