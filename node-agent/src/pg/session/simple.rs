//! The simple protocol: one text, any number of statements, one implicit transaction around those that
//! are in no block.

use super::{
    Failure, Report, Session, SessionEnd, WRITE_BYTES, execute::is_planned,
    portal::PreparedStatement, reply, rows::Rows, transaction::Block,
};
use crate::pg::frame::only_text;
use std::{collections::VecDeque, sync::Arc};
use understudy_sql::{CommandTag, Statement, StatementKind, parse};

/// How a statement of the session ended.
pub(super) enum Ran {
    /// CommandComplete with this tag is still to be sent.
    Tag(String),
    /// Everything has been appended.
    Answered,
    /// COPY IN has begun; the answer comes after the data.
    Copying,
}

impl Session {
    /// Query.
    pub(super) async fn simple_query(&mut self, body: &[u8]) -> Result<(), SessionEnd> {
        self.begin_statement();
        let result = match self.parse_simple(body) {
            Ok(statements) => self.run_list(statements).await,
            Err(failure) => Err(failure),
        };
        self.undone().await;
        match result {
            Err(failure) => self.fail_message(failure, true).await?,
            Ok(()) if self.copy_in.is_none() => self.ready(),
            Ok(()) => {}
        }
        Ok(())
    }

    fn parse_simple(&mut self, body: &[u8]) -> Result<VecDeque<Statement>, Failure> {
        self.statements.remove("");
        self.portals.remove("");
        let text = only_text(body)?;
        self.tell_text(&text.into());
        let statements = parse(text)?;
        if statements.is_empty() {
            reply::empty_query(&mut self.output.bytes);
        }
        Ok(statements.into())
    }

    /// Runs the statements in order; stops early when COPY IN begins and leaves it the others.
    pub(super) async fn run_list(
        &mut self,
        mut statements: VecDeque<Statement>,
    ) -> Result<(), Failure> {
        while let Some(statement) = statements.pop_front() {
            self.undone().await;
            match self.run_one(&statement, &statements).await? {
                Ran::Tag(tag) => {
                    reply::command_complete(&mut self.output.bytes, &tag);
                    if self.output.bytes.len() >= WRITE_BYTES && !self.is_held() {
                        self.write().await?;
                    }
                }
                Ran::Answered => {}
                Ran::Copying => {
                    if let Some(copy) = &mut self.copy_in {
                        copy.rest = Some(statements);
                    }
                    return Ok(());
                }
            }
        }
        self.end_implicit().await
    }

    async fn run_one(
        &mut self,
        statement: &Statement,
        rest: &VecDeque<Statement>,
    ) -> Result<Ran, Failure> {
        self.check_not_failed(statement)?;
        if statement.kind() != StatementKind::Transaction {
            self.enter_block();
        }
        let ran = if is_planned(statement) {
            self.run_planned(statement).await?
        } else {
            self.run_command(statement, &[]).await?
        };
        // The last word on an implicit block is its commit, so that comes before the tag.
        if rest.is_empty()
            && matches!(ran, Ran::Tag(_))
            && self.transaction.block == Block::Implicit
        {
            self.end_implicit().await?;
        }
        Ok(ran)
    }

    /// Plans and runs a statement without parameters, rows in text.
    async fn run_planned(&mut self, statement: &Statement) -> Result<Ran, Failure> {
        let plan = self.plan(statement, &[]).await?;
        let prepared = PreparedStatement::new(Some(statement.clone()), Vec::new(), Some(plan));
        if !prepared.parameter_types().is_empty() {
            let message = "there is no parameter $1";
            return Err(Report::error("42P02", message).into());
        }
        let rows = Rows::Described { may_change: true };
        let tag = self.execute(&Arc::new(prepared), &[], rows).await?;
        Ok(Ran::Tag(tag.to_string()))
    }

    /// CommandComplete.
    pub(super) fn complete(&mut self, tag: &CommandTag) {
        reply::message(&mut self.output.bytes, b'C', |out| {
            tag.append(out);
            out.push(0);
        });
    }
}
