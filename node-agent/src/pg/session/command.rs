//! Statements that the session runs itself: settings, prepared statements, users, CALL.

use super::{
    Failure, Report, Session, execute::is_planned, portal::PreparedStatement, rows::Rows,
    simple::Ran, sqlstate,
};
use crate::pg::auth::{Verifier, make_verifier};
use std::sync::Arc;
use understudy_sql::{
    DiscardTarget, ExecError, SqlError, Statement, StatementKind, UserAction, UserStatement,
    constant_arguments, declared_types,
};
use understudy_store::{DataType, UserDef, Value, WriteError};

impl Session {
    /// Runs a statement that has no plan.
    pub(super) async fn run_command(
        &mut self,
        statement: &Statement,
        parameters: &[Value],
    ) -> Result<Ran, Failure> {
        if statement.kind() == StatementKind::Transaction {
            if matches!(statement, Statement::Commit { .. }) {
                self.await_log().await?;
            }
            self.control_transaction(statement).await?;
            return Ok(Ran::Answered);
        }
        match statement {
            Statement::Set { scope, name, value } => self.set(*scope, name, value.as_deref())?,
            Statement::Reset(name) => self.reset(name.as_deref())?,
            Statement::Discard(target) => self.discard(*target)?,
            Statement::Prepare { name, types, statement } => {
                self.prepare_by_name(name, declared_types(types)?, statement).await?;
            }
            Statement::Execute { .. } => return self.execute_by_name(statement).await,
            Statement::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    return Err(Report::error(sqlstate::UNKNOWN_STATEMENT, message).into());
                }
            }
            Statement::Deallocate(None) => self.statements.clear(),
            Statement::Unlisten => {}
            Statement::Call { name, arguments } => {
                return self.call(name, arguments, parameters).await;
            }
            Statement::Copy(copy) => return self.copy(copy).await,
            Statement::User(user) => self.change_user(user).await?,
            other => {
                let message = format!("{} has no plan", other.command());
                return Err(Report::error(sqlstate::INTERNAL, message).into());
            }
        }
        Ok(Ran::Tag(statement.command().to_owned()))
    }

    fn discard(&mut self, target: DiscardTarget) -> Result<(), Failure> {
        match target {
            DiscardTarget::All => {
                if self.transaction.block == super::transaction::Block::Explicit {
                    let message = "DISCARD ALL cannot run inside a transaction block";
                    return Err(Report::error(sqlstate::ACTIVE_TRANSACTION, message).into());
                }
                self.statements.clear();
                self.info.sequences.forget();
                self.reset(None)
            }
            DiscardTarget::Sequences => {
                self.info.sequences.forget();
                Ok(())
            }
            DiscardTarget::Plans | DiscardTarget::Temp => Ok(()),
        }
    }

    async fn prepare_by_name(
        &mut self,
        name: &str,
        hints: Vec<Option<DataType>>,
        statement: &Statement,
    ) -> Result<(), Failure> {
        if self.statements.contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Report::error(sqlstate::DUPLICATE_STATEMENT, message).into());
        }
        if !is_planned(statement) {
            let message = format!("{} cannot be prepared", statement.command());
            return Err(Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
        }
        let prepared = self.prepare_statement(Some(statement.clone()), hints).await?;
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        Ok(())
    }

    /// EXECUTE.
    async fn execute_by_name(&mut self, statement: &Statement) -> Result<Ran, Failure> {
        let Statement::Execute { name, arguments } = statement else {
            return Err(SqlError::internal("not an EXECUTE").into());
        };
        let prepared: Arc<PreparedStatement> = Arc::clone(self.statement(name)?);
        let Some(plan) = prepared.plan.as_deref() else {
            return Err(SqlError::internal("a named statement has no plan").into());
        };
        self.see_own_commits().await?;
        let parameters = loop {
            self.begin_statement_txn();
            let facts = self.facts();
            let txn = self.transaction.txn.as_ref().expect("begun above");
            let context = facts.context(&self.store, &self.info, &[]);
            match constant_arguments(plan, arguments, &context, txn) {
                Ok(values) => break values,
                // A sequence that somebody changes.
                Err(ExecError::Blocked { on }) => self.wait_for(on).await?,
                Err(ExecError::Far) => {
                    let what = "an argument of EXECUTE that takes long";
                    return Err(SqlError::unsupported(what).into());
                }
                Err(ExecError::Sql(error)) => {
                    self.hold(self.depends_of(&error), self.output.bytes.len());
                    return Err(error.into());
                }
            }
        };
        let rows = Rows::Described { may_change: false };
        let tag = self.execute(&prepared, &parameters, rows).await?;
        Ok(Ran::Tag(tag.to_string()))
    }

    /// 42501 unless the user is an administrator.
    pub(super) fn check_admin(&self, what: &str, hint: &str) -> Result<(), Failure> {
        if self.info.admin {
            return Ok(());
        }
        let message = format!("permission denied for {what}");
        Err(Report::error(sqlstate::PRIVILEGE, message).hint(hint).into())
    }

    /// CREATE, ALTER and DROP USER. Passwords become verifiers here and go no further in clear.
    async fn change_user(&mut self, wanted: &UserStatement) -> Result<(), Failure> {
        self.check_may_write(wanted.tag)?;
        let is_own_password = wanted.action == UserAction::Alter
            && wanted.name == self.info.user
            && wanted.admin.is_none();
        if !is_own_password {
            self.check_admin(wanted.tag, "Only an administrator may change users.")?;
        }
        self.see_own_commits().await?;
        let mut has_snapshot = self.begin_txn();
        loop {
            let txn = self.transaction.txn.as_mut().expect("begun above");
            let mark =
                if has_snapshot { self.store.savepoint(txn) } else { self.store.statement(txn) };
            has_snapshot = false;
            let known = txn.catalog().user(&wanted.name).map(|user| (**user).clone());
            let result = match (wanted.action, known) {
                (UserAction::Create, Some(_)) | (UserAction::Alter | UserAction::Drop, None)
                    if wanted.lenient =>
                {
                    return Ok(());
                }
                (UserAction::Create, _) => self.store.create_user(txn, user_of(wanted, None)),
                (UserAction::Alter, known) => self.store.alter_user(txn, user_of(wanted, known)),
                (UserAction::Drop, _) => self.store.drop_user(txn, &wanted.name),
            };
            match result {
                Ok(()) => return Ok(()),
                Err(WriteError::Blocked { on }) => {
                    self.store.rollback_to(txn, &mark);
                    self.wait_for(on).await?;
                }
                Err(error) => {
                    self.store.rollback_to(txn, &mark);
                    self.hold(self.transaction.depends_lsn(), self.output.bytes.len());
                    return Err(user_error(&error, &wanted.name));
                }
            }
        }
    }
}

/// The user as the statement wants it.
fn user_of(wanted: &UserStatement, known: Option<UserDef>) -> UserDef {
    let (scram, admin) = known.map_or((None, false), |user| (user.scram, user.admin));
    let scram = match &wanted.password {
        Some(text) if Verifier::parse(text).is_ok() => Some(text.clone()),
        Some(password) => Some(make_verifier(password)),
        None if wanted.password_removed => None,
        None => scram,
    };
    UserDef { name: wanted.name.clone(), scram, admin: wanted.admin.unwrap_or(admin) }
}

fn user_error(error: &WriteError, name: &str) -> Failure {
    let report = match error {
        WriteError::AlreadyExists { .. } => {
            Report::error("42710", format!("role \"{name}\" already exists"))
        }
        WriteError::Missing { .. } => {
            Report::error(sqlstate::UNKNOWN_OBJECT, format!("role \"{name}\" does not exist"))
        }
        WriteError::Serialization => Report::error(sqlstate::SERIALIZATION, error.to_string()),
        WriteError::OutOfMemory { .. } => Report::error("53200", error.to_string()),
        WriteError::Blocked { .. }
        | WriteError::UniqueViolation { .. }
        | WriteError::ForeignKeyViolation { .. }
        | WriteError::NotNull { .. }
        | WriteError::TooLong { .. }
        | WriteError::RowGone { .. }
        | WriteError::Stopped
        | WriteError::InvalidDefinition { .. } => {
            Report::error(sqlstate::INTERNAL, error.to_string())
        }
    };
    report.into()
}
