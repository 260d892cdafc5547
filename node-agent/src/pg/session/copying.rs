//! COPY FROM STDIN and COPY TO STDOUT.
//!
//! Lines are read, inserted and written by the SQL crate; here are the messages, the waits for locks and
//! the end. Data that arrives after an error is passed over.

use super::{
    Failure, Frame, Report, Session, SessionEnd, reply, rows::Rows, simple::Ran, sqlstate,
};
use crate::pg::frame::only_text;
use std::{collections::VecDeque, sync::Arc};
use understudy_sql::{
    CopyDecoder, CopyDirection, CopyFields, CopyIn, CopyStatement, ExecError, SqlError, Statement,
    append_copy_line, copy_out_query,
};

/// A COPY FROM STDIN under way.
#[derive(Debug)]
pub(super) struct Incoming {
    statement: CopyStatement,
    target: CopyIn,
    decoder: CopyDecoder,
    rows: u64,
    /// Bytes taken since the last whole line.
    unfinished_bytes: usize,
    /// The statements after it; None when it came by the extended protocol.
    pub(super) rest: Option<VecDeque<Statement>>,
}

impl Session {
    /// Begins a COPY IN, or does a whole COPY OUT.
    pub(super) async fn copy(&mut self, copy: &CopyStatement) -> Result<Ran, Failure> {
        self.enter_block();
        if let CopyDirection::In = copy.direction {
            self.check_may_write("COPY FROM")?;
        }
        self.see_own_commits().await?;
        match copy.direction {
            CopyDirection::Out => self.copy_out(copy).await,
            CopyDirection::In => self.begin_copy_in(copy).await,
        }
    }

    async fn begin_copy_in(&mut self, copy: &CopyStatement) -> Result<Ran, Failure> {
        self.begin_statement_txn();
        // The client goes on when it has the answer, so nothing is held with it.
        self.hold(self.transaction.depends_lsn(), self.output.bytes.len());
        self.settle().await?;
        let txn = self.transaction.txn.as_ref().expect("begun above");
        let target = CopyIn::new(txn.catalog(), copy)?;
        reply::copy_response(&mut self.output.bytes, b'G', target.width());
        let (statement, decoder) = (copy.clone(), CopyDecoder::new(copy.options.clone()));
        let (rows, unfinished_bytes, rest) = (0, 0, None);
        self.copy_in = Some(Incoming { statement, target, decoder, rows, unfinished_bytes, rest });
        self.output.is_asked_for = true;
        Ok(Ran::Copying)
    }

    /// A message while COPY IN is under way.
    pub(super) async fn copy_message(&mut self, frame: Frame<'_>) -> Result<(), SessionEnd> {
        let Some(mut copy) = self.copy_in.take() else { return Ok(()) };
        let is_simple = copy.rest.is_some();
        let result = match frame.tag {
            b'd' => {
                let result = self.copy_data(&mut copy, frame.body).await;
                if result.is_ok() {
                    self.copy_in = Some(copy);
                }
                result
            }
            b'c' => self.finish_copy_in(copy).await,
            b'f' => {
                let reason = only_text(frame.body).unwrap_or("no reason was given");
                let message = format!("COPY from stdin failed: {reason}");
                Err(Report::error(sqlstate::CANCELED, message).into())
            }
            // A client may have sent Sync or Flush right behind the Execute.
            b'S' | b'H' => {
                self.copy_in = Some(copy);
                Ok(())
            }
            tag => {
                let message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                Err(Report::error(sqlstate::PROTOCOL_VIOLATION, message).into())
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) => self.fail_message(failure, is_simple).await,
        }
    }

    async fn finish_copy_in(&mut self, mut copy: Incoming) -> Result<(), Failure> {
        self.copy_lines(&mut copy).await?;
        if let Some(fields) = copy.decoder.finish()? {
            self.copy_row(&mut copy, fields).await?;
        }
        self.settle_copy(&copy).await?;
        let tag = format!("COPY {}", copy.rows);
        let Some(rest) = copy.rest else {
            reply::command_complete(&mut self.output.bytes, &tag);
            return Ok(());
        };
        if rest.is_empty() {
            self.end_implicit().await?;
        }
        reply::command_complete(&mut self.output.bytes, &tag);
        self.run_list(rest).await?;
        self.undone().await;
        if self.copy_in.is_none() {
            self.ready();
        }
        Ok(())
    }

    async fn copy_data(&mut self, copy: &mut Incoming, data: &[u8]) -> Result<(), Failure> {
        let line_before = copy.decoder.line();
        copy.unfinished_bytes += data.len();
        if copy.unfinished_bytes > self.message_bytes_max + data.len() {
            let message =
                format!("a line of COPY data is longer than {} bytes", self.message_bytes_max);
            return Err(Report::error(sqlstate::LIMIT_EXCEEDED, message).into());
        }
        copy.decoder.feed(data);
        self.copy_lines(copy).await?;
        if copy.decoder.line() != line_before {
            copy.unfinished_bytes = 0;
        }
        Ok(())
    }

    async fn copy_lines(&mut self, copy: &mut Incoming) -> Result<(), Failure> {
        while let Some(fields) = copy.decoder.next_line()? {
            self.copy_row(copy, fields).await?;
        }
        Ok(())
    }

    /// Inserts one line, waiting for locks as often as it takes.
    async fn copy_row(&mut self, copy: &mut Incoming, fields: CopyFields) -> Result<(), Failure> {
        loop {
            let facts = self.facts();
            let txn = self.transaction.txn.as_mut().expect("COPY IN is inside a block");
            if !copy.target.is_current(txn.catalog()) {
                copy.target = CopyIn::new(txn.catalog(), &copy.statement)?;
            }
            let mark = self.store.savepoint(txn);
            let context = facts.context(&self.store, &self.info, &[]);
            let error = match copy.target.insert(&fields, &context, txn) {
                Ok(()) => {
                    copy.rows += 1;
                    return Ok(());
                }
                Err(error) => error,
            };
            self.store.rollback_to(txn, &mark);
            match error {
                ExecError::Blocked { on } => {
                    self.wait_for(on).await?;
                    if let Some(txn) = self.transaction.txn.as_mut() {
                        self.store.statement(txn);
                    }
                }
                ExecError::Far => {
                    let what = "COPY into a table whose defaults or checks take long";
                    return Err(SqlError::unsupported(what).into());
                }
                ExecError::Sql(error) => {
                    let depends = self.depends_of(&error);
                    self.hold(depends, self.output.bytes.len());
                    let place = copy.target.place(copy.decoder.line());
                    return Err(Report::from(error).context(place).into());
                }
            }
        }
    }

    /// Checks the foreign keys of all lines, waiting for locks as often as it takes, and giving way after some
    /// of them. The lines stay: what was checked before a wait need not be checked again.
    async fn settle_copy(&mut self, copy: &Incoming) -> Result<(), Failure> {
        loop {
            let facts = self.facts();
            let txn = self.transaction.txn.as_mut().expect("COPY IN is inside a block");
            let context = facts.context(&self.store, &self.info, &[]);
            match copy.target.finish(&context, txn) {
                Ok(()) => return Ok(()),
                Err(ExecError::Blocked { on }) => {
                    self.wait_for(on).await?;
                    if let Some(txn) = self.transaction.txn.as_mut() {
                        self.store.statement(txn);
                    }
                }
                Err(ExecError::Far) => self.give_way().await?,
                Err(ExecError::Sql(error)) => {
                    let depends = self.depends_of(&error);
                    self.hold(depends, self.output.bytes.len());
                    return Err(error.into());
                }
            }
        }
    }

    async fn copy_out(&mut self, copy: &CopyStatement) -> Result<Ran, Failure> {
        self.begin_statement_txn();
        self.hold(self.transaction.depends_lsn(), self.output.bytes.len());
        let txn = self.transaction.txn.as_ref().expect("begun above");
        let select = copy_out_query(txn.catalog(), copy)?;
        let prepared = Arc::new(self.prepare_statement(Some(select), Vec::new()).await?);
        let columns = prepared.columns();
        let out = &mut self.output.bytes;
        reply::copy_response(out, b'H', columns.len());
        if copy.options.header {
            let names = columns.iter().map(|column| Some(column.name.as_str()));
            reply::message(out, b'd', |out| append_copy_line(out, names, &copy.options));
        }
        let tag = self.execute(&prepared, &[], Rows::Copy(&copy.options)).await?;
        reply::copy_done(&mut self.output.bytes);
        Ok(Ran::Tag(format!("COPY {}", tag.rows.unwrap_or_default())))
    }
}
