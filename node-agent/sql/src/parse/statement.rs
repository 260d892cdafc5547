//! The statements a session can meet, after parsing and before names are looked up.
//!
//! Statements about the session itself (transactions, settings, COPY, users, CALL) have our own forms;
//! queries, DML and table definitions keep sqlparser's tree and the text it came from, for positions.

use crate::copy::CopyOptions;
use sqlparser::ast;
use std::sync::Arc;
use understudy_store::Isolation;

/// Isolation, access mode and the like, as written on BEGIN or SET TRANSACTION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionModes {
    /// None: the session's default.
    pub isolation: Option<IsolationLevel>,
    /// None: the session's default.
    pub read_only: Option<bool>,
}

/// The isolation level asked for. READ UNCOMMITTED is READ COMMITTED, as in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// Each statement sees what was acknowledged before it began.
    #[default]
    ReadCommitted,
    /// The whole transaction sees one snapshot.
    RepeatableRead,
    /// As if transactions ran one after another.
    Serializable,
}

impl From<IsolationLevel> for Isolation {
    fn from(level: IsolationLevel) -> Isolation {
        match level {
            IsolationLevel::ReadCommitted => Isolation::ReadCommitted,
            IsolationLevel::RepeatableRead => Isolation::RepeatableRead,
            IsolationLevel::Serializable => Isolation::Serializable,
        }
    }
}

impl IsolationLevel {
    /// The words of `SHOW transaction_isolation`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            IsolationLevel::ReadCommitted => "read committed",
            IsolationLevel::RepeatableRead => "repeatable read",
            IsolationLevel::Serializable => "serializable",
        }
    }

    /// Reads the words of [`IsolationLevel::name`], any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<IsolationLevel> {
        match name.to_ascii_lowercase().as_str() {
            "read committed" | "read uncommitted" => Some(IsolationLevel::ReadCommitted),
            "repeatable read" => Some(IsolationLevel::RepeatableRead),
            "serializable" => Some(IsolationLevel::Serializable),
            _ => None,
        }
    }
}

/// How long a SET lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetScope {
    /// Until the session ends or the transaction that set it rolls back.
    Session,
    /// Until the transaction ends.
    Local,
}

/// An argument of CALL, already a constant.
#[derive(Debug, Clone, PartialEq)]
pub enum CallArgument {
    /// NULL.
    Null,
    /// A string literal, verbatim.
    Text(String),
    /// A whole number; `0x01` is read as hexadecimal.
    Integer(i64),
    /// `$n` (1-based) of the extended protocol.
    Parameter(usize),
}

/// CREATE, ALTER or DROP of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStatement {
    /// What to do.
    pub action: UserAction,
    /// The user's name, folded.
    pub name: String,
    /// The password as typed: clear text, or a verifier that starts with `SCRAM-SHA-256$`. The session
    /// turns it into a verifier; it never reaches the store in clear. None: unchanged, or no password.
    pub password: Option<String>,
    /// PASSWORD NULL was written: the user can no longer log in by password.
    pub password_removed: bool,
    /// SUPERUSER / NOSUPERUSER, or GRANT / REVOKE ADMIN. None: unchanged.
    pub admin: Option<bool>,
    /// IF EXISTS or IF NOT EXISTS was written.
    pub lenient: bool,
    /// The command tag: CREATE ROLE, ALTER ROLE, DROP ROLE, GRANT, REVOKE.
    pub tag: &'static str,
}

/// The three things one can do to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAction {
    /// CREATE USER or CREATE ROLE … LOGIN.
    Create,
    /// ALTER USER, ALTER ROLE, GRANT ADMIN, REVOKE ADMIN.
    Alter,
    /// DROP USER or DROP ROLE.
    Drop,
}

/// COPY with its options read.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyStatement {
    /// What is copied.
    pub source: CopySource,
    /// In which direction.
    pub direction: CopyDirection,
    /// Format and its details.
    pub options: CopyOptions,
}

/// The table or query of a COPY.
#[derive(Debug, Clone, PartialEq)]
pub enum CopySource {
    /// A table and the listed columns (empty: all).
    Table {
        /// As written, folded, possibly qualified.
        name: ast::ObjectName,
        /// Folded column names.
        columns: Vec<String>,
    },
    /// COPY (query) TO STDOUT.
    Query(Arc<SqlText>),
}

/// The direction of a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// FROM STDIN.
    In,
    /// TO STDOUT.
    Out,
}

/// A statement in sqlparser's form together with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlText {
    /// The tree.
    pub(crate) tree: ast::Statement,
    /// The whole text that was parsed; spans of the tree point into it.
    pub(crate) text: Arc<str>,
    /// OVERRIDING … VALUE of an INSERT.
    pub(crate) overriding: Option<super::Overriding>,
    /// The keys of ON CONFLICT, where they are more than columns.
    pub(crate) conflict: Option<super::ConflictKeys>,
}

/// One parsed statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT name.
    Savepoint(String),
    /// RELEASE (SAVEPOINT) name.
    ReleaseSavepoint(String),
    /// ROLLBACK TO (SAVEPOINT) name.
    RollbackTo(String),
    /// SET TRANSACTION, or SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetTransaction {
        /// Whether it is about this transaction or about the session's later ones.
        scope: SetScope,
        /// The modes that were written.
        modes: TransactionModes,
    },
    /// SET name = value. None: TO DEFAULT.
    Set {
        /// SESSION unless LOCAL was written.
        scope: SetScope,
        /// Folded.
        name: String,
        /// Several values are joined with ", ".
        value: Option<String>,
    },
    /// RESET name; None: ALL.
    Reset(Option<String>),
    /// SHOW name; `all` shows every setting.
    Show(String),
    /// DISCARD ALL, PLANS, SEQUENCES, TEMP.
    Discard(DiscardTarget),
    /// PREPARE name (types) AS statement.
    Prepare {
        /// Folded.
        name: String,
        /// The declared parameter types, possibly fewer than used.
        types: Vec<ast::DataType>,
        /// What is prepared.
        statement: Box<Statement>,
    },
    /// EXECUTE name (arguments).
    Execute {
        /// Folded.
        name: String,
        /// Constant expressions; evaluate with [`crate::constant_arguments`].
        arguments: Vec<ast::Expr>,
    },
    /// DEALLOCATE name; None: ALL.
    Deallocate(Option<String>),
    /// UNLISTEN: accepted, for there is nothing to stop listening to.
    Unlisten,
    /// CALL name(arguments): built-ins of the replication and cache agents.
    Call {
        /// Folded to lower case, for these names are typed in any case.
        name: String,
        /// In order.
        arguments: Vec<CallArgument>,
    },
    /// COPY.
    Copy(CopyStatement),
    /// CREATE, ALTER, DROP USER; GRANT and REVOKE ADMIN.
    User(UserStatement),
    /// CREATE SEQUENCE, ALTER SEQUENCE.
    Sequence(super::SequenceStatement),
    /// VACUUM, ANALYZE, CHECKPOINT: accepted; the tag is the value.
    Maintenance(&'static str),
    /// EXPLAIN statement.
    Explain {
        /// EXPLAIN ANALYZE: run it, and tell what it did.
        analyze: Option<Analyze>,
        /// How the answer is written.
        format: ExplainFormat,
        /// What is explained.
        statement: Box<Statement>,
    },
    /// SELECT, VALUES, INSERT, UPDATE, DELETE and table definitions.
    Sql(Arc<SqlText>),
}

/// How EXPLAIN's answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainFormat {
    /// Lines, each a row.
    #[default]
    Text,
    /// One row, an array of one object.
    Json,
}

/// What EXPLAIN ANALYZE tells beside rows and loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Analyze {
    /// The time of each step.
    pub timing: bool,
    /// The time of the whole.
    pub summary: bool,
}

/// What DISCARD throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardTarget {
    /// Everything of the session.
    All,
    /// Cached plans.
    Plans,
    /// Sequence caches.
    Sequences,
    /// Temporary tables.
    Temp,
}

/// What kind of work a statement is; the session routes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// BEGIN, COMMIT, ROLLBACK, savepoints, SET TRANSACTION.
    Transaction,
    /// Settings, prepared statements, DISCARD: no store.
    Session,
    /// Reads only.
    Query,
    /// SELECT … FOR UPDATE or FOR SHARE: reads that lock.
    LockingQuery,
    /// INSERT, UPDATE, DELETE, TRUNCATE, COPY FROM.
    Write,
    /// Definitions of tables, indexes, users.
    Definition,
    /// CALL.
    Call,
    /// VACUUM, ANALYZE, CHECKPOINT.
    Maintenance,
}

impl Statement {
    /// The command's name as PostgreSQL writes it in tags and messages ("CREATE TABLE").
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Statement::Begin(_) => "BEGIN",
            Statement::Commit { .. } => "COMMIT",
            Statement::Rollback { .. } | Statement::RollbackTo(_) => "ROLLBACK",
            Statement::Savepoint(_) => "SAVEPOINT",
            Statement::ReleaseSavepoint(_) => "RELEASE",
            Statement::SetTransaction { .. } | Statement::Set { .. } => "SET",
            Statement::Reset(_) => "RESET",
            Statement::Show(_) => "SHOW",
            Statement::Discard(DiscardTarget::All) => "DISCARD ALL",
            Statement::Discard(DiscardTarget::Plans) => "DISCARD PLANS",
            Statement::Discard(DiscardTarget::Sequences) => "DISCARD SEQUENCES",
            Statement::Discard(DiscardTarget::Temp) => "DISCARD TEMP",
            Statement::Prepare { .. } => "PREPARE",
            Statement::Execute { .. } => "EXECUTE",
            Statement::Deallocate(Some(_)) => "DEALLOCATE",
            Statement::Deallocate(None) => "DEALLOCATE ALL",
            Statement::Unlisten => "UNLISTEN",
            Statement::Call { .. } => "CALL",
            Statement::Copy(_) => "COPY",
            Statement::User(user) => user.tag,
            Statement::Sequence(sequence) => match sequence.action {
                super::SequenceAction::Create(_) => "CREATE SEQUENCE",
                _ => "ALTER SEQUENCE",
            },
            Statement::Maintenance(tag) => tag,
            Statement::Explain { .. } => "EXPLAIN",
            Statement::Sql(sql) => crate::parse::tree_command(&sql.tree),
        }
    }

    /// What the session has to do with it.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        match self {
            Statement::Begin(_)
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint(_)
            | Statement::ReleaseSavepoint(_)
            | Statement::RollbackTo(_)
            | Statement::SetTransaction { .. } => StatementKind::Transaction,
            Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::Discard(_)
            | Statement::Prepare { .. }
            | Statement::Execute { .. }
            | Statement::Deallocate(_)
            | Statement::Unlisten => StatementKind::Session,
            Statement::Show(_) => StatementKind::Query,
            Statement::Explain { analyze: None, .. } => StatementKind::Query,
            Statement::Explain { statement, .. } => statement.kind(),
            Statement::Call { .. } => StatementKind::Call,
            Statement::Copy(copy) => match copy.direction {
                CopyDirection::In => StatementKind::Write,
                CopyDirection::Out => StatementKind::Query,
            },
            Statement::User(_) | Statement::Sequence(_) => StatementKind::Definition,
            Statement::Maintenance(_) => StatementKind::Maintenance,
            Statement::Sql(sql) => crate::parse::tree_kind(&sql.tree),
        }
    }

    /// May it run in a read-only transaction, hence on a standby? The answer to a refused one is 25006,
    /// "cannot execute INSERT in a read-only transaction".
    #[must_use]
    pub fn is_allowed_read_only(&self) -> bool {
        match self.kind() {
            StatementKind::Write | StatementKind::Definition | StatementKind::LockingQuery => false,
            StatementKind::Transaction
            | StatementKind::Session
            | StatementKind::Query
            | StatementKind::Call
            | StatementKind::Maintenance => true,
        }
    }

    /// May it run in a transaction that has failed? Anything else is answered with 25P02.
    #[must_use]
    pub fn is_allowed_after_failure(&self) -> bool {
        matches!(
            self,
            Statement::Commit { .. } | Statement::Rollback { .. } | Statement::RollbackTo(_)
        )
    }
}
