//! A reader over the tokens of one statement, for the forms we parse ourselves.

use crate::error::SqlError;
use sqlparser::{
    ast,
    tokenizer::{Location, Token, TokenWithSpan},
};
use std::sync::Arc;

/// Significant tokens of one statement and a place among them.
pub(super) struct Cursor<'a> {
    tokens: Vec<&'a TokenWithSpan>,
    next: usize,
    text: &'a Arc<str>,
}

impl<'a> Cursor<'a> {
    /// Starts before the first token that is neither blank nor comment.
    pub(super) fn new(tokens: &'a [TokenWithSpan], text: &'a Arc<str>) -> Cursor<'a> {
        let tokens = tokens.iter().filter(|token| !super::is_blank(token)).collect();
        Cursor { tokens, next: 0, text }
    }

    /// The token at the cursor.
    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.peek_at(0)
    }

    /// The token `ahead` places after the cursor.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.next + ahead).map(|token| &token.token)
    }

    /// Moves on and returns what was passed.
    pub(super) fn advance(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.next += usize::from(token.is_some());
        token
    }

    /// The unquoted word `ahead` places on, in upper case.
    pub(super) fn word_at(&self, ahead: usize) -> Option<String> {
        match self.peek_at(ahead) {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                Some(word.value.to_ascii_uppercase())
            }
            _ => None,
        }
    }

    /// Passes over `word` if it is next.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.word_at(0).is_some_and(|next| next == word);
        self.next += usize::from(found);
        found
    }

    /// Passes over all of `words` if they are next, else over none.
    pub(super) fn take_all(&mut self, words: &[&str]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.word_at(ahead).is_some_and(|next| next == *word));
        self.next += if found { words.len() } else { 0 };
        found
    }

    /// Passes over `word` or fails there.
    pub(super) fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.take(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Passes over a punctuation token if it is next.
    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    /// Passes over a punctuation token or fails there.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.take_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A name: unquoted ones folded to lower case.
    pub(super) fn name(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(match word.quote_style {
                    Some(_) => word.value.clone(),
                    None => word.value.to_lowercase(),
                })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A possibly qualified name, in sqlparser's form.
    pub(super) fn object_name(&mut self) -> Result<ast::ObjectName, SqlError> {
        let mut parts = Vec::new();
        loop {
            let Some(found) = self.tokens.get(self.next) else { return Err(self.unexpected()) };
            let Token::Word(word) = &found.token else { return Err(self.unexpected()) };
            self.next += 1;
            parts.push(ast::Ident {
                value: word.value.clone(),
                quote_style: word.quote_style,
                span: found.span,
            });
            if !self.take_token(&Token::Period) {
                return Ok(ast::ObjectName::from(parts));
            }
        }
    }

    /// A string literal.
    pub(super) fn string(&mut self) -> Result<String, SqlError> {
        match self.peek() {
            Some(
                Token::SingleQuotedString(text)
                | Token::EscapedStringLiteral(text)
                | Token::UnicodeStringLiteral(text),
            ) => {
                self.next += 1;
                Ok(text.clone())
            }
            Some(Token::DollarQuotedString(text)) => {
                self.next += 1;
                Ok(text.value.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// The error for the token at the cursor.
    pub(super) fn unexpected(&self) -> SqlError {
        match self.tokens.get(self.next) {
            Some(token) => SqlError::syntax_near(&token.token.to_string()).at(token.span),
            None => SqlError::syntax_near("").at_location(self.end_location()),
        }
    }

    /// Where the token at the cursor begins.
    pub(super) fn location(&self) -> Location {
        self.tokens.get(self.next).map_or_else(|| self.end_location(), |token| token.span.start)
    }

    /// Fails unless every token was passed.
    pub(super) fn expect_end(&self) -> Result<(), SqlError> {
        if self.next >= self.tokens.len() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// The remaining tokens, all passed over, for sqlparser.
    pub(super) fn rest(&mut self) -> Vec<TokenWithSpan> {
        let rest = self.tokens[self.next..].iter().map(|token| (*token).clone()).collect();
        self.next = self.tokens.len();
        rest
    }

    /// The tokens up to the parenthesis that closes the one just passed; passes over it too.
    pub(super) fn until_closing(&mut self) -> Result<Vec<TokenWithSpan>, SqlError> {
        let mut depth = 0_usize;
        let mut inside = Vec::new();
        while let Some(token) = self.tokens.get(self.next) {
            self.next += 1;
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return Ok(inside),
                Token::RParen => depth -= 1,
                _ => {}
            }
            inside.push((*token).clone());
        }
        Err(self.unexpected())
    }

    /// The text all positions refer to.
    pub(super) fn text(&self) -> &'a Arc<str> {
        self.text
    }

    fn end_location(&self) -> Location {
        self.tokens.last().map_or(Location { line: 1, column: 1 }, |token| token.span.end)
    }
}
