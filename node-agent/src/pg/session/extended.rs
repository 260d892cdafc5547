//! The extended protocol, message by message. Whole batches of known statements normally never come
//! here (see `fast`).

use super::{
    Failure, Report, Session,
    execute::is_planned,
    portal::{Portal, PreparedStatement, Progress, append_description},
    reply,
    rows::{Kept, Rows, append_row},
    simple::Ran,
    sqlstate,
    transaction::Block,
};
use crate::pg::{
    binary,
    frame::{BindView, ExecuteView, Formats, ParseView, Target},
};
use std::sync::Arc;
use understudy_sql::{Type, parse};
use understudy_store::{DataType, Value};

impl Session {
    /// Parse.
    pub(super) async fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let view = ParseView::read(body)?;
        self.begin_statement();
        let text = view.text.into();
        self.tell_text(&text);
        if !view.name.is_empty() && self.statements.contains_key(view.name) {
            let message = format!("prepared statement \"{}\" already exists", view.name);
            return Err(Report::error(sqlstate::DUPLICATE_STATEMENT, message).into());
        }
        let mut statements = parse(view.text)?.into_iter();
        let statement = statements.next();
        if statements.next().is_some() {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Report::error("42601", message).into());
        }
        let hints = view.types().map(declared_type).collect::<Result<Vec<_>, _>>()?;
        let prepared =
            PreparedStatement { text, ..self.prepare_statement(statement, hints).await? };
        self.statements.insert(view.name.to_owned(), Arc::new(prepared));
        reply::parse_complete(&mut self.output.bytes);
        Ok(())
    }

    /// Plans a statement, if it is of the kind that has a plan.
    pub(super) async fn prepare_statement(
        &mut self,
        statement: Option<understudy_sql::Statement>,
        hints: Vec<Option<DataType>>,
    ) -> Result<PreparedStatement, Failure> {
        let mut plan = None;
        if let Some(statement) = &statement {
            self.check_not_failed(statement)?;
            if is_planned(statement) {
                plan = Some(self.plan(statement, &hints).await?);
            }
        }
        Ok(PreparedStatement::new(statement, hints, plan))
    }

    /// The statement of that name.
    pub(super) fn statement(&self, name: &str) -> Result<&Arc<PreparedStatement>, Failure> {
        self.statements.get(name).ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            Report::error(sqlstate::UNKNOWN_STATEMENT, message).into()
        })
    }

    /// Bind.
    pub(super) fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let view = BindView::read(body)?;
        self.begin_statement();
        let statement = Arc::clone(self.statement(view.statement)?);
        self.tell_text(&statement.text);
        if let Some(parsed) = &statement.statement {
            self.check_not_failed(parsed)?;
        }
        let types = statement.parameter_types();
        if types.len() != view.parameter_count {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                view.parameter_count,
                view.statement,
                types.len()
            );
            return Err(Report::error(sqlstate::PROTOCOL_VIOLATION, message).into());
        }
        let columns = statement.columns().len();
        let wanted = view.result_formats.count();
        if wanted > 1 && wanted != columns {
            let message =
                format!("bind message has {wanted} result formats but query has {columns} columns");
            return Err(Report::error(sqlstate::PROTOCOL_VIOLATION, message).into());
        }
        let mut parameters = Vec::with_capacity(types.len());
        read_parameters(&view, types, self.info.settings.zone_offset(), &mut parameters)?;
        if !view.portal.is_empty() && self.portals.contains_key(view.portal) {
            let message = format!("cursor \"{}\" already exists", view.portal);
            return Err(Report::error(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        self.enter_block();
        let result_formats = view.result_formats.raw().to_vec();
        let (progress, savepoints) = (Progress::Ready, self.transaction.savepoints());
        let portal = Portal { statement, parameters, result_formats, progress, savepoints };
        self.portals.insert(view.portal.to_owned(), portal);
        reply::bind_complete(&mut self.output.bytes);
        Ok(())
    }

    /// Describe.
    pub(super) fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        match Target::read(body)? {
            Target::Statement(name) => {
                let statement = Arc::clone(self.statement(name)?);
                let oids = statement.parameter_types().iter().map(|ty| Type::of(*ty).oid());
                reply::parameter_description(&mut self.output.bytes, oids);
                self.output.bytes.extend_from_slice(&statement.description);
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
                let formats = Formats::from_raw(&portal.result_formats);
                let columns = portal.statement.columns();
                append_description(&mut self.output.bytes, columns, formats);
            }
        }
        Ok(())
    }

    /// Execute.
    pub(super) async fn execute_portal(&mut self, body: &[u8]) -> Result<(), Failure> {
        let view = ExecuteView::read(body)?;
        self.begin_statement();
        let mut portal =
            self.portals.remove(view.portal).ok_or_else(|| unknown_portal(view.portal))?;
        let blocks_before = self.transaction.blocks;
        self.run_portal(&mut portal, view.rows_max).await?;
        // COMMIT and ROLLBACK end all portals, their own included.
        if self.transaction.blocks == blocks_before {
            self.portals.insert(view.portal.to_owned(), portal);
        }
        Ok(())
    }

    async fn run_portal(&mut self, portal: &mut Portal, rows_max: usize) -> Result<(), Failure> {
        let prepared = Arc::clone(&portal.statement);
        let Some(statement) = &prepared.statement else {
            reply::empty_query(&mut self.output.bytes);
            return Ok(());
        };
        self.check_not_failed(statement)?;
        self.tell_text(&prepared.text);
        if let Progress::Ready = portal.progress {
            // Its rows may be of the savepoint.
            portal.savepoints = self.transaction.savepoints();
            if prepared.plan.is_none() {
                portal.progress = Progress::Done;
                let parameters = std::mem::take(&mut portal.parameters);
                match self.run_command(statement, &parameters).await? {
                    Ran::Tag(tag) => reply::command_complete(&mut self.output.bytes, &tag),
                    Ran::Answered => {}
                    Ran::Copying => {}
                }
                return Ok(());
            }
            self.enter_block();
            if rows_max == 0 {
                portal.progress = Progress::Done;
                let formats = Formats::from_raw(&portal.result_formats);
                let tag = self.execute(&prepared, &portal.parameters, Rows::Reply(formats)).await?;
                self.complete(&tag);
                return Ok(());
            }
            let mut kept = Kept::default();
            let tag = self.execute(&prepared, &portal.parameters, Rows::Kept(&mut kept)).await?;
            portal.progress = Progress::Rows { left: kept, tag };
        }
        self.send_rows(portal, rows_max)
    }

    /// Sends the next rows of a portal that is read in pieces.
    fn send_rows(&mut self, portal: &mut Portal, rows_max: usize) -> Result<(), Failure> {
        let formats = Formats::from_raw(&portal.result_formats);
        let columns = portal.statement.columns();
        let Progress::Rows { left, tag } = &mut portal.progress else {
            // A finished portal has no more rows, as in PostgreSQL.
            reply::command_complete(&mut self.output.bytes, "SELECT 0");
            return Ok(());
        };
        let zone = self.info.settings.zone_offset();
        let limit = if rows_max == 0 { usize::MAX } else { rows_max };
        let mut sent = 0;
        while sent < limit
            && let Some(row) = left.next()
        {
            append_row(&mut self.output.bytes, &row, columns, formats, zone)?;
            sent += 1;
        }
        if !left.is_empty() || sent == limit {
            reply::portal_suspended(&mut self.output.bytes);
            return Ok(());
        }
        let mut tag = *tag;
        if tag.command == "SELECT" {
            tag.rows = Some(sent as u64);
        }
        portal.progress = Progress::Done;
        self.complete(&tag);
        Ok(())
    }

    /// Close.
    pub(super) fn close(&mut self, body: &[u8]) -> Result<(), Failure> {
        match Target::read(body)? {
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        reply::close_complete(&mut self.output.bytes);
        Ok(())
    }

    /// Sync: the point of rest. Ends an implicit block and the skipping after an error.
    pub(super) async fn sync(&mut self) -> Result<(), Failure> {
        self.is_skipping = false;
        if let Err(failure) = self.end_implicit().await {
            self.fail(failure)?;
        }
        if self.transaction.block == Block::None {
            self.portals.clear();
        }
        self.undone().await;
        self.ready();
        Ok(())
    }
}

/// The type a client declared; zero and `unknown` leave it to the statement.
fn declared_type(oid: u32) -> Result<Option<DataType>, Failure> {
    match oid {
        0 | 705 => Ok(None),
        oid => Type::from_oid(oid).map(|ty| Some(ty.storage())).ok_or_else(|| {
            let message = format!("a parameter of the type with OID {oid} is not supported");
            Report::error(sqlstate::UNKNOWN_OBJECT, message).into()
        }),
    }
}

fn unknown_portal(name: &str) -> Report {
    Report::error(sqlstate::UNKNOWN_CURSOR, format!("portal \"{name}\" does not exist"))
}

/// Reads the parameters of a Bind; `types` has as many.
pub(super) fn read_parameters(
    view: &BindView<'_>,
    types: &[DataType],
    zone_offset: i32,
    parameters: &mut Vec<Value>,
) -> Result<(), Failure> {
    let mut reader = view.parameters;
    for (position, ty) in types.iter().enumerate() {
        let bytes = reader.value()?;
        let value = binary::parameter(bytes, view.formats.of(position), Type::of(*ty), zone_offset);
        let place = || format!("parameter ${}", position + 1);
        parameters.push(value.map_err(|report| report.context(place()))?);
    }
    Ok(())
}
