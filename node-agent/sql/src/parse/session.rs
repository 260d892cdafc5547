//! Statements about the session, users, maintenance and built-ins: ours, not sqlparser's.

use super::{
    CallArgument, DiscardTarget, IsolationLevel, SetScope, Statement, TransactionModes, UserAction,
    UserStatement, copying, cursor::Cursor, explain, parse_tree, sequence, session, sqlparser_over,
    translate,
};
use crate::error::SqlError;
use sqlparser::{ast, tokenizer::Token};

/// Reads the statement if its first words are ours; None leaves it to sqlparser.
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Option<Statement>, SqlError> {
    let Some(first) = cursor.word_at(0) else { return Ok(None) };
    let second = cursor.word_at(1).unwrap_or_default();
    let statement = match (first.as_str(), second.as_str()) {
        ("BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT", _)
        | ("SAVEPOINT" | "RELEASE", _) => transaction(cursor)?,
        ("SET", _) => set(cursor)?,
        ("RESET", _) => {
            cursor.advance();
            if cursor.take("ALL") {
                Statement::Reset(None)
            } else {
                Statement::Reset(Some(setting_name(cursor)?))
            }
        }
        ("SHOW", _) => {
            cursor.advance();
            Statement::Show(setting_name(cursor)?)
        }
        ("DISCARD", _) => discard(cursor)?,
        ("PREPARE", _) => prepare(cursor)?,
        ("EXECUTE", _) => execute(cursor)?,
        ("DEALLOCATE", _) => {
            cursor.advance();
            cursor.take("PREPARE");
            Statement::Deallocate(if cursor.take("ALL") { None } else { Some(cursor.name()?) })
        }
        ("UNLISTEN", _) => {
            cursor.advance();
            if !cursor.take_token(&Token::Mul) {
                cursor.name()?;
            }
            Statement::Unlisten
        }
        ("CALL", _) => call(cursor)?,
        ("COPY", _) => copying::parse(cursor)?,
        ("CREATE" | "ALTER" | "DROP", "USER" | "ROLE") => user(cursor)?,
        ("CREATE" | "ALTER", "SEQUENCE") => sequence::parse(cursor)?,
        ("CREATE", "TEMP" | "TEMPORARY") if cursor.word_at(2).as_deref() == Some("SEQUENCE") => {
            sequence::parse(cursor)?
        }
        ("GRANT" | "REVOKE", "ADMIN") => admin(cursor)?,
        ("VACUUM" | "ANALYZE" | "ANALYSE" | "CHECKPOINT", _) => maintenance(cursor)?,
        ("EXPLAIN", _) => explain::parse(cursor)?,
        _ => return Ok(None),
    };
    Ok(Some(statement))
}

fn transaction(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let first = cursor.word_at(0).unwrap_or_default();
    cursor.advance();
    match first.as_str() {
        "SAVEPOINT" => return Ok(Statement::Savepoint(cursor.name()?)),
        "RELEASE" => {
            cursor.take("SAVEPOINT");
            return Ok(Statement::ReleaseSavepoint(cursor.name()?));
        }
        "START" => cursor.expect("TRANSACTION")?,
        _ => {
            let _ = cursor.take("WORK") || cursor.take("TRANSACTION");
        }
    }
    match first.as_str() {
        "BEGIN" | "START" => Ok(Statement::Begin(transaction_modes(cursor)?)),
        "COMMIT" | "END" => {
            if cursor.word_at(0).as_deref() == Some("PREPARED") {
                return Err(SqlError::unsupported("COMMIT PREPARED").at_location(cursor.location()));
            }
            Ok(Statement::Commit { chain: chain(cursor)? })
        }
        _ => {
            if cursor.take("TO") {
                cursor.take("SAVEPOINT");
                return Ok(Statement::RollbackTo(cursor.name()?));
            }
            if cursor.word_at(0).as_deref() == Some("PREPARED") {
                return Err(
                    SqlError::unsupported("ROLLBACK PREPARED").at_location(cursor.location())
                );
            }
            Ok(Statement::Rollback { chain: chain(cursor)? })
        }
    }
}

fn chain(cursor: &mut Cursor<'_>) -> Result<bool, SqlError> {
    if !cursor.take("AND") {
        return Ok(false);
    }
    let negated = cursor.take("NO");
    cursor.expect("CHAIN")?;
    Ok(!negated)
}

fn transaction_modes(cursor: &mut Cursor<'_>) -> Result<TransactionModes, SqlError> {
    let mut modes = TransactionModes::default();
    while !cursor.is_at_end() {
        if cursor.take_all(&["ISOLATION", "LEVEL"]) {
            modes.isolation = Some(isolation_level(cursor)?);
        } else if cursor.take_all(&["READ", "ONLY"]) {
            modes.read_only = Some(true);
        } else if cursor.take_all(&["READ", "WRITE"]) {
            modes.read_only = Some(false);
        } else if !(cursor.take("DEFERRABLE") || cursor.take_all(&["NOT", "DEFERRABLE"])) {
            return Err(cursor.unexpected());
        }
        cursor.take_token(&Token::Comma);
    }
    Ok(modes)
}

fn isolation_level(cursor: &mut Cursor<'_>) -> Result<IsolationLevel, SqlError> {
    if cursor.take_all(&["READ", "COMMITTED"]) || cursor.take_all(&["READ", "UNCOMMITTED"]) {
        Ok(IsolationLevel::ReadCommitted)
    } else if cursor.take_all(&["REPEATABLE", "READ"]) {
        Ok(IsolationLevel::RepeatableRead)
    } else if cursor.take("SERIALIZABLE") {
        Ok(IsolationLevel::Serializable)
    } else {
        Err(cursor.unexpected())
    }
}

fn set(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let scope = if cursor.take("LOCAL") {
        SetScope::Local
    } else if cursor.take_all(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        let modes = transaction_modes(cursor)?;
        return Ok(Statement::SetTransaction { scope: SetScope::Session, modes });
    } else {
        cursor.take("SESSION");
        SetScope::Session
    };
    if cursor.take("TRANSACTION") {
        let modes = transaction_modes(cursor)?;
        return Ok(Statement::SetTransaction { scope: SetScope::Local, modes });
    }
    if cursor.take_all(&["TIME", "ZONE"]) {
        let value = set_value(cursor)?.filter(|value| !value.eq_ignore_ascii_case("local"));
        return Ok(Statement::Set { scope, name: "timezone".to_owned(), value });
    }
    if cursor.take("NAMES") {
        return Ok(Statement::Set {
            scope,
            name: "client_encoding".to_owned(),
            value: set_value(cursor)?,
        });
    }
    let name = setting_name(cursor)?;
    if !(cursor.take("TO") || cursor.take_token(&Token::Eq)) {
        return Err(cursor.unexpected());
    }
    Ok(Statement::Set { scope, name, value: set_value(cursor)? })
}

fn set_value(cursor: &mut Cursor<'_>) -> Result<Option<String>, SqlError> {
    if cursor.take("DEFAULT") {
        return Ok(None);
    }
    let mut values = Vec::new();
    loop {
        let negative = cursor.take_token(&Token::Minus);
        let value = match cursor.peek() {
            Some(Token::Number(number, _)) => {
                let sign = if negative { "-" } else { "" };
                let value = format!("{sign}{number}");
                cursor.advance();
                value
            }
            Some(Token::Word(_)) if !negative => cursor.name()?,
            _ if !negative => cursor.string()?,
            _ => return Err(cursor.unexpected()),
        };
        values.push(value);
        if !cursor.take_token(&Token::Comma) {
            return Ok(Some(values.join(", ")));
        }
    }
}

/// A setting's name: dotted, and with PostgreSQL's two-word forms.
fn setting_name(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    if cursor.take_all(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return Ok("transaction_isolation".to_owned());
    }
    if cursor.take_all(&["TIME", "ZONE"]) {
        return Ok("timezone".to_owned());
    }
    if cursor.take_all(&["SESSION", "AUTHORIZATION"]) {
        return Ok("session_authorization".to_owned());
    }
    let mut name = cursor.name()?;
    while cursor.take_token(&Token::Period) {
        name.push('.');
        name.push_str(&cursor.name()?);
    }
    Ok(name.to_lowercase())
}

fn discard(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let target = if cursor.take("ALL") {
        DiscardTarget::All
    } else if cursor.take("PLANS") {
        DiscardTarget::Plans
    } else if cursor.take("SEQUENCES") {
        DiscardTarget::Sequences
    } else if cursor.take("TEMP") || cursor.take("TEMPORARY") {
        DiscardTarget::Temp
    } else {
        return Err(cursor.unexpected());
    };
    Ok(Statement::Discard(target))
}

fn prepare(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let name = cursor.name()?;
    if name == "transaction" {
        return Err(SqlError::unsupported("PREPARE TRANSACTION").at_location(cursor.location()));
    }
    let mut types = Vec::new();
    if cursor.take_token(&Token::LParen) {
        let inside = cursor.until_closing()?;
        let mut parser = sqlparser_over(&inside);
        types = parser
            .parse_comma_separated(|parser| parser.parse_data_type())
            .map_err(|error| translate(error, &inside, cursor.text()))?;
    }
    cursor.expect("AS")?;
    Ok(Statement::Prepare { name, types, statement: Box::new(nested(cursor)?) })
}

/// The rest of the tokens as a statement of its own.
pub(super) fn nested(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let rest = cursor.rest();
    let mut inner = Cursor::new(&rest, cursor.text());
    if inner.is_at_end() {
        return Err(cursor.unexpected());
    }
    match session::parse(&mut inner)? {
        Some(statement) => {
            inner.expect_end()?;
            Ok(statement)
        }
        None => parse_tree(&rest, cursor.text()),
    }
}

fn execute(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let name = cursor.name()?;
    let mut arguments = Vec::new();
    if cursor.take_token(&Token::LParen) {
        let inside = cursor.until_closing()?;
        arguments = expressions(&inside, cursor)?;
    }
    Ok(Statement::Execute { name, arguments })
}

fn expressions(
    tokens: &[sqlparser::tokenizer::TokenWithSpan],
    cursor: &Cursor<'_>,
) -> Result<Vec<ast::Expr>, SqlError> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = sqlparser_over(tokens);
    let list = parser
        .parse_comma_separated(sqlparser::parser::Parser::parse_expr)
        .map_err(|error| translate(error, tokens, cursor.text()))?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF {
        Ok(list)
    } else {
        Err(SqlError::syntax_near(&rest.token.to_string()).at(rest.span))
    }
}

/// `CALL name`, `CALL name()` or `CALL name(constants)`, any case.
fn call(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.advance();
    let mut name = cursor.name()?;
    while cursor.take_token(&Token::Period) {
        name = cursor.name()?;
    }
    let mut arguments = Vec::new();
    if cursor.take_token(&Token::LParen) && !cursor.take_token(&Token::RParen) {
        loop {
            arguments.push(call_argument(cursor)?);
            if cursor.take_token(&Token::RParen) {
                break;
            }
            cursor.expect_token(&Token::Comma)?;
        }
    }
    Ok(Statement::Call { name: name.to_lowercase(), arguments })
}

fn call_argument(cursor: &mut Cursor<'_>) -> Result<CallArgument, SqlError> {
    if cursor.take("NULL") {
        return Ok(CallArgument::Null);
    }
    let negative = cursor.take_token(&Token::Minus);
    let error = cursor.unexpected();
    match cursor.peek() {
        Some(Token::Number(number, _)) => {
            let value: i64 = number.parse().map_err(|_| error)?;
            cursor.advance();
            Ok(CallArgument::Integer(if negative { -value } else { value }))
        }
        Some(Token::HexStringLiteral(digits)) => {
            let value = i64::from_str_radix(digits, 16).map_err(|_| error)?;
            cursor.advance();
            Ok(CallArgument::Integer(if negative { -value } else { value }))
        }
        Some(Token::Placeholder(text)) if !negative => {
            let index = text.trim_start_matches('$').parse().map_err(|_| error)?;
            cursor.advance();
            Ok(CallArgument::Parameter(index))
        }
        _ if negative => Err(error),
        _ => cursor.string().map(CallArgument::Text),
    }
}

fn user(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let action = match cursor.word_at(0).as_deref() {
        Some("CREATE") => UserAction::Create,
        Some("ALTER") => UserAction::Alter,
        _ => UserAction::Drop,
    };
    cursor.advance();
    cursor.advance();
    let lenient = cursor.take_all(&["IF", "EXISTS"]) || cursor.take_all(&["IF", "NOT", "EXISTS"]);
    let mut statement = UserStatement {
        action,
        name: cursor.name()?,
        password: None,
        password_removed: false,
        admin: None,
        lenient,
        tag: match action {
            UserAction::Create => "CREATE ROLE",
            UserAction::Alter => "ALTER ROLE",
            UserAction::Drop => "DROP ROLE",
        },
    };
    if action != UserAction::Drop {
        cursor.take("WITH");
        while !cursor.is_at_end() {
            user_option(cursor, &mut statement)?;
        }
    }
    Ok(Statement::User(statement))
}

fn user_option(cursor: &mut Cursor<'_>, user: &mut UserStatement) -> Result<(), SqlError> {
    if cursor.take_all(&["IDENTIFIED", "BY"]) {
        // Oracle's form: the password may be a bare word or a quoted identifier.
        user.password = Some(if matches!(cursor.peek(), Some(Token::Word(_))) {
            raw_word(cursor)?
        } else {
            cursor.string()?
        });
        return Ok(());
    }
    cursor.take("ENCRYPTED");
    if cursor.take("PASSWORD") {
        if cursor.take("NULL") {
            user.password_removed = true;
        } else {
            user.password = Some(cursor.string()?);
        }
    } else if cursor.take("SUPERUSER") {
        user.admin = Some(true);
    } else if cursor.take("NOSUPERUSER") {
        user.admin = Some(false);
    } else if !(cursor.take("LOGIN") || cursor.take("INHERIT")) {
        let location = cursor.location();
        return match cursor.word_at(0) {
            Some(word) => {
                Err(SqlError::unsupported(format!("the role option {word}")).at_location(location))
            }
            None => Err(cursor.unexpected()),
        };
    }
    Ok(())
}

fn raw_word(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let error = cursor.unexpected();
    match cursor.advance() {
        Some(Token::Word(word)) => Ok(word.value.clone()),
        _ => Err(error),
    }
}

/// `GRANT ADMIN TO name`, `REVOKE ADMIN FROM name`.
fn admin(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let grant = cursor.take("GRANT") || !cursor.take("REVOKE");
    cursor.expect("ADMIN")?;
    cursor.expect(if grant { "TO" } else { "FROM" })?;
    Ok(Statement::User(UserStatement {
        action: UserAction::Alter,
        name: cursor.name()?,
        password: None,
        password_removed: false,
        admin: Some(grant),
        lenient: false,
        tag: if grant { "GRANT" } else { "REVOKE" },
    }))
}

/// VACUUM, ANALYZE and CHECKPOINT in any of their forms; tables are not looked up.
fn maintenance(cursor: &mut Cursor<'_>) -> Result<Statement, SqlError> {
    let tag = match cursor.word_at(0).as_deref() {
        Some("VACUUM") => "VACUUM",
        Some("CHECKPOINT") => "CHECKPOINT",
        _ => "ANALYZE",
    };
    cursor.advance();
    if tag == "CHECKPOINT" {
        return Ok(Statement::Maintenance(tag));
    }
    if cursor.take_token(&Token::LParen) {
        cursor.until_closing()?;
    }
    while ["FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"].iter().any(|word| cursor.take(word)) {
    }
    while !cursor.is_at_end() {
        cursor.object_name()?;
        if cursor.take_token(&Token::LParen) {
            cursor.until_closing()?;
        }
        if !cursor.take_token(&Token::Comma) {
            break;
        }
    }
    Ok(Statement::Maintenance(tag))
}
