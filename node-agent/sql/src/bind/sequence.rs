//! Sequences: their definitions, and the columns that take their values from one.

use super::{Binder, Bound};
use crate::{
    definition::{Definition, NewSequence},
    error::{SqlError, state},
    expr::Expr,
    names,
    parse::{Overriding, SequenceAction, SequenceOptions, SequenceStatement},
    system,
    types::Type,
};
use sqlparser::{ast, tokenizer::Span};
use std::sync::Arc;
use understudy_store::{
    ColumnDef, DataType, Identity, SequenceDef, SequenceOwner, TableDef, Value,
};

/// What an INSERT or UPDATE may put into a column.
pub(super) enum Written {
    /// What was written.
    Value,
    /// The default, whatever was written.
    Default,
}

impl Binder<'_> {
    /// CREATE SEQUENCE and ALTER SEQUENCE.
    pub(crate) fn sequence(&self, written: &SequenceStatement) -> Result<Definition, SqlError> {
        match &written.action {
            SequenceAction::Create(options) => self.create_sequence(written, options),
            action => {
                let Some(sequence) = self.find_sequence(&written.name)? else {
                    let name = names::last_part(&written.name);
                    let message = format!("relation \"{name}\" does not exist");
                    if written.lenient {
                        return Ok(Definition::Skip(vec![format!("{message}, skipping")]));
                    }
                    return Err(SqlError::new(state::UNKNOWN_TABLE, message));
                };
                self.alter_sequence(&sequence, action)
            }
        }
    }

    fn create_sequence(
        &self,
        written: &SequenceStatement,
        options: &SequenceOptions,
    ) -> Result<Definition, SqlError> {
        let name = names::for_creation(&written.name)?;
        if self.catalog.has_relation(names::PUBLIC, &name) {
            let message = format!("relation \"{name}\" already exists");
            if written.lenient {
                return Ok(Definition::Skip(vec![format!("{message}, skipping")]));
            }
            return Err(SqlError::new(state::DUPLICATE_TABLE, message));
        }
        if options.restart.is_some() {
            return Err(SqlError::syntax_near("RESTART"));
        }
        let mut def = new_definition(options, DataType::Int8)?;
        def.owner = self.owner(options, &name)?.flatten();
        Ok(Definition::CreateSequence(TableDef::new_sequence(name, def)))
    }

    fn alter_sequence(
        &self,
        sequence: &Arc<TableDef>,
        action: &SequenceAction,
    ) -> Result<Definition, SqlError> {
        let mut changed = (**sequence).clone();
        let mut restart = None;
        match action {
            SequenceAction::Create(_) | SequenceAction::Nothing => {
                return Ok(Definition::Skip(Vec::new()));
            }
            SequenceAction::Rename(name) => {
                if self.catalog.has_relation(names::PUBLIC, name) {
                    let message = format!("relation \"{name}\" already exists");
                    return Err(SqlError::new(state::DUPLICATE_TABLE, message));
                }
                changed.name.clone_from(name);
            }
            SequenceAction::Alter(options) => {
                let Some(old) = &sequence.sequence else {
                    return Err(SqlError::internal("a sequence without its definition"));
                };
                let mut def = altered_definition(options, old)?;
                if let Some(owner) = self.owner(options, &sequence.name)? {
                    if let Some((table, _)) = self.identity_of(old) {
                        let message = "cannot change ownership of identity sequence";
                        return Err(SqlError::new(state::FEATURE_NOT_SUPPORTED, message)
                            .with_detail(format!(
                                "Sequence \"{}\" is linked to table \"{}\".",
                                sequence.name, table.name
                            )));
                    }
                    def.owner = owner;
                }
                restart = options.restart.map(|given| given.unwrap_or(def.start));
                if let Some(restart) = restart {
                    within("RESTART", restart, &def)?;
                }
                changed.sequence = Some(def);
            }
        }
        Ok(Definition::AlterSequence { old: Arc::clone(sequence), new: changed, restart })
    }

    /// DROP SEQUENCE.
    pub(super) fn drop_sequences(
        &self,
        (written, lenient): (&[ast::ObjectName], bool),
        cascade: bool,
    ) -> Result<Definition, SqlError> {
        let (mut sequences, mut defaults, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        for name in written {
            let Some(sequence) = self.find_sequence(name)? else {
                let message = format!("sequence \"{}\" does not exist", names::last_part(name));
                if !lenient {
                    return Err(SqlError::new(state::UNKNOWN_TABLE, message));
                }
                notices.push(format!("{message}, skipping"));
                continue;
            };
            if let Some(def) = &sequence.sequence
                && let Some((table, column)) = self.identity_of(def)
            {
                let column = &table.columns[column].name;
                return Err(SqlError::new(
                    state::DEPENDENTS,
                    format!(
                        "cannot drop sequence {} because column {column} of table {} requires it",
                        sequence.name, table.name
                    ),
                )
                .with_hint(format!(
                    "You can drop column {column} of table {} instead.",
                    table.name
                )));
            }
            let users = self.defaults_from(&sequence);
            if let Some((table, column)) = users.first().filter(|_| !cascade) {
                return Err(still_used(&sequence, (table, *column)));
            }
            for (table, column) in users {
                let name = &table.columns[column].name;
                notices.push(format!(
                    "drop cascades to default value for column {name} of table {}",
                    table.name
                ));
                defaults.push((table, column));
            }
            sequences.push(sequence);
        }
        Ok(Definition::DropSequences { sequences, defaults, notices })
    }

    /// 2BP01 when a table outside the list takes defaults from a sequence that goes with the list.
    pub(super) fn check_owned_sequences(&self, dropped: &[Arc<TableDef>]) -> Result<(), SqlError> {
        let owned = dropped.iter().flat_map(|table| self.catalog.sequences_of(table.id));
        for sequence in owned {
            let users = self.defaults_from(sequence);
            let other = users.iter().find(|(table, _)| dropped.iter().all(|d| d.id != table.id));
            if let Some((table, column)) = other {
                return Err(still_used(sequence, (table, *column)));
            }
        }
        Ok(())
    }

    /// The columns whose DEFAULT takes numbers from a sequence.
    pub(crate) fn defaults_from(&self, sequence: &TableDef) -> Vec<(Arc<TableDef>, usize)> {
        let call = nextval_text(&sequence.name);
        let mut found = Vec::new();
        for table in self.catalog.tables() {
            for (position, column) in table.columns.iter().enumerate() {
                if column.default.as_ref().is_some_and(|text| text.contains(&call)) {
                    found.push((Arc::clone(table), position));
                }
            }
        }
        found
    }

    fn find_sequence(&self, name: &ast::ObjectName) -> Result<Option<Arc<TableDef>>, SqlError> {
        let (schema, last) = names::qualified(name)?;
        let schema = schema.as_deref().unwrap_or(names::PUBLIC);
        let found = self.catalog.sequence(schema, &last);
        if found.is_none() && self.catalog.has_relation(schema, &last) {
            let error = SqlError::new(state::WRONG_OBJECT, format!("\"{last}\" is not a sequence"));
            return Err(match self.catalog.table(schema, &last) {
                Some(_) => error.with_hint("Use DROP TABLE to remove a table."),
                None => error.with_hint("Use DROP INDEX to remove an index."),
            });
        }
        Ok(found.cloned())
    }

    /// The identity column that a sequence belongs to.
    fn identity_of(&self, sequence: &SequenceDef) -> Option<(&Arc<TableDef>, usize)> {
        let owner = sequence.owner?;
        let table = self.catalog.table_by_id(owner.table)?;
        let column = usize::from(owner.column);
        table.columns.get(column)?.identity.map(|_| (table, column))
    }

    /// OWNED BY: None when it was not written, Some(None) for NONE.
    fn owner(
        &self,
        options: &SequenceOptions,
        sequence: &str,
    ) -> Result<Option<Option<SequenceOwner>>, SqlError> {
        let Some(written) = &options.owned_by else { return Ok(None) };
        let Some(written) = written else { return Ok(Some(None)) };
        let mut parts = written.0.clone();
        let column = match parts.pop() {
            Some(ast::ObjectNamePart::Identifier(ident)) if !parts.is_empty() => {
                names::folded(&ident)
            }
            _ => {
                return Err(SqlError::new(state::SYNTAX, "invalid OWNED BY option")
                    .with_hint("Specify OWNED BY table.column or OWNED BY NONE."));
            }
        };
        let name = ast::ObjectName(parts);
        let Some(table) = names::find_table(self.catalog, &name)? else {
            let last = names::last_part(&name);
            if self.catalog.has_relation(names::PUBLIC, &last) {
                let message = format!("sequence cannot be owned by relation \"{last}\"");
                return Err(SqlError::new(state::WRONG_OBJECT, message));
            }
            return Err(names::unknown_table(&name));
        };
        let Some(position) = table.column_position(&column) else {
            return Err(SqlError::new(
                state::UNKNOWN_COLUMN,
                format!("column \"{column}\" of relation \"{}\" does not exist", table.name),
            ));
        };
        let _ = sequence;
        let column = u16::try_from(position).unwrap_or(u16::MAX);
        Ok(Some(Some(SequenceOwner { table: table.id, column })))
    }

    /// The sequence that a serial or identity column comes with; makes the column what it will be.
    pub(super) fn column_sequence(
        &self,
        written: &ast::ColumnDef,
        column: &mut ColumnDef,
        table: &TableDef,
    ) -> Result<Option<NewSequence>, SqlError> {
        let serial = is_serial(&written.data_type);
        let identity = written.options.iter().find_map(|option| match &option.option {
            ast::ColumnOption::Generated {
                generated_as,
                sequence_options,
                generation_expr: None,
                ..
            } => identity_kind(generated_as).map(|kind| (kind, sequence_options.as_deref())),
            _ => None,
        });
        let (name, table_name) = (column.name.clone(), &table.name);
        let twice = |what: &str| {
            let message =
                format!("{what} specified for column \"{name}\" of table \"{table_name}\"");
            Err(SqlError::new(state::SYNTAX, message).at(written.name.span))
        };
        let (def, kind) = match (serial, identity) {
            (false, None) => return Ok(None),
            (true, Some(_)) => return twice("both default and identity"),
            (true, None) if column.default.is_some() => return twice("multiple default values"),
            (true, None) => (new_definition(&SequenceOptions::default(), column.data_type)?, None),
            (false, Some(_)) if column.default.is_some() => {
                return twice("both default and identity");
            }
            (false, Some((kind, options))) => {
                (identity_definition(options, column.data_type)?, Some(kind))
            }
        };
        let sequence = self.free_name(&format!("{table_name}_{name}_seq"), &table.indexes);
        column.not_null = true;
        column.identity = kind;
        if kind.is_none() {
            column.default = Some(format!("{}::regclass)", nextval_text(&sequence)));
        }
        let position = u16::try_from(table.columns.len()).unwrap_or(u16::MAX);
        Ok(Some(NewSequence { name: sequence, def, column: position }))
    }

    /// ALTER COLUMN … ADD GENERATED … AS IDENTITY.
    pub(super) fn added_identity(
        &self,
        table: &TableDef,
        position: usize,
        (generated_as, options): (Option<&ast::GeneratedAs>, Option<&[ast::SequenceOptions]>),
    ) -> Result<(Identity, NewSequence), SqlError> {
        let (column, table_name) = (&table.columns[position], &table.name);
        let of = format!("column \"{}\" of relation \"{table_name}\"", column.name);
        let refused =
            |words: &str| Err(SqlError::new(state::NOT_IN_STATE, format!("{of} {words}")));
        if !column.not_null {
            return refused("must be declared NOT NULL before identity can be added");
        }
        if column.identity.is_some() {
            return refused("is already an identity column");
        }
        if column.default.is_some() {
            return refused("already has a default value");
        }
        let kind = generated_as.and_then(identity_kind).unwrap_or(Identity::Always);
        let def = identity_definition(options, column.data_type)?;
        let wanted = format!("{table_name}_{}_seq", column.name);
        let name = self.free_name(&wanted, &table.indexes);
        let column = u16::try_from(position).unwrap_or(u16::MAX);
        Ok((kind, NewSequence { name, def, column }))
    }

    /// The next number of an identity column.
    pub(super) fn identity_value(&self, table: &TableDef, column: usize) -> Result<Expr, SqlError> {
        let def = &table.columns[column];
        let Some(sequence) = self.catalog.sequence_of(table.id, column) else {
            return Err(SqlError::internal(format!("no owned sequence found for {}", def.name)));
        };
        let oid = Expr::Const(Value::Int(system::table_oid(sequence)));
        let span = Span::empty();
        let call = self.bound_call("nextval", vec![Bound::new(oid, Type::Oid)], span)?;
        self.assigned(call, (&def.name, def.data_type), span)
    }

    /// Whether a value that INSERT writes stands.
    pub(super) fn inserted(&self, column: &ColumnDef) -> Result<Written, SqlError> {
        let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
        Self::refuse_generated(column, &message)?;
        match (column.identity, self.overriding.get()) {
            (Some(_), Some(Overriding::User)) => Ok(Written::Default),
            (Some(Identity::Always), None) => Err(SqlError::new(state::GENERATED_ALWAYS, message)
                .with_detail(always(column))
                .with_hint("Use OVERRIDING SYSTEM VALUE to override.")),
            _ => Ok(Written::Value),
        }
    }

    /// 428C9 when UPDATE may not write the column.
    pub(super) fn check_updated(&self, column: &ColumnDef) -> Result<(), SqlError> {
        let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
        Self::refuse_generated(column, &message)?;
        if column.identity != Some(Identity::Always) {
            return Ok(());
        }
        Err(SqlError::new(state::GENERATED_ALWAYS, message).with_detail(always(column)))
    }

    /// A DEFAULT that is nothing but `nextval('s')`, as PostgreSQL shows it.
    pub(super) fn canonical_nextval(&self, expr: &ast::Expr) -> Option<String> {
        let ast::Expr::Function(call) = expr else { return None };
        let ast::FunctionArguments::List(list) = &call.args else { return None };
        let [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument))] = &list.args[..]
        else {
            return None;
        };
        let argument = match argument {
            ast::Expr::Cast { expr, .. } => expr,
            other => other,
        };
        let ast::Expr::Value(value) = argument else { return None };
        let ast::Value::SingleQuotedString(text) = &value.value else { return None };
        let oid = system::relation_constant(self.catalog, text).ok()?;
        let sequence = system::find_sequence(self.catalog, oid)?;
        (names::last_part(&call.name) == "nextval")
            .then(|| format!("{}::regclass)", nextval_text(&sequence.name)))
    }
}

/// `nextval('s'`, by which defaults that use a sequence are found.
pub(crate) fn nextval_text(sequence: &str) -> String {
    format!("nextval('{}'", names::quoted(sequence).replace('\'', "''"))
}

/// Whether the type is one of serial's.
pub(super) fn is_serial(written: &ast::DataType) -> bool {
    serial_type(written).is_some()
}

/// The type behind serial.
pub(super) fn serial_type(written: &ast::DataType) -> Option<DataType> {
    let ast::DataType::Custom(name, _) = written else { return None };
    match names::last_part(name).to_ascii_lowercase().as_str() {
        "serial" | "serial4" => Some(DataType::Int4),
        "bigserial" | "serial8" => Some(DataType::Int8),
        "smallserial" | "serial2" => Some(DataType::Int2),
        _ => None,
    }
}

fn identity_kind(written: &ast::GeneratedAs) -> Option<Identity> {
    match written {
        ast::GeneratedAs::Always => Some(Identity::Always),
        ast::GeneratedAs::ByDefault => Some(Identity::ByDefault),
        ast::GeneratedAs::ExpStored => None,
    }
}

fn always(column: &ColumnDef) -> String {
    format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name)
}

fn still_used(sequence: &TableDef, (table, column): (&TableDef, usize)) -> SqlError {
    let (name, column) = (&sequence.name, &table.columns[column].name);
    SqlError::new(
        state::DEPENDENTS,
        format!("cannot drop sequence {name} because other objects depend on it"),
    )
    .with_detail(format!(
        "default value for column {column} of table {} depends on sequence {name}",
        table.name
    ))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

fn identity_definition(
    options: Option<&[ast::SequenceOptions]>,
    data_type: DataType,
) -> Result<SequenceDef, SqlError> {
    if limits(data_type).is_none() {
        let message = "identity column type must be smallint, integer, or bigint";
        return Err(SqlError::new(state::INVALID_PARAMETER, message));
    }
    let mut read = SequenceOptions::default();
    for option in options.unwrap_or_default() {
        match option {
            ast::SequenceOptions::IncrementBy(n, _) => read.increment = Some(number(n)?),
            ast::SequenceOptions::MinValue(n) => read.min = Some(bound(n.as_ref())?),
            ast::SequenceOptions::MaxValue(n) => read.max = Some(bound(n.as_ref())?),
            ast::SequenceOptions::StartWith(n, _) => read.start = Some(number(n)?),
            ast::SequenceOptions::Cache(n) => read.cache = Some(number(n)?),
            // The parser's flag says whether NO was written.
            ast::SequenceOptions::Cycle(no) => read.cycle = Some(!no),
        }
    }
    new_definition(&read, data_type)
}

fn bound(written: Option<&ast::Expr>) -> Result<Option<i64>, SqlError> {
    written.map(number).transpose()
}

fn number(written: &ast::Expr) -> Result<i64, SqlError> {
    let text = written.to_string();
    text.parse().map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type bigint");
        SqlError::new(state::OUT_OF_RANGE, message)
    })
}

/// Lowest and highest number of a type that a sequence can have.
fn limits(data_type: DataType) -> Option<(i64, i64)> {
    match data_type {
        DataType::Int2 => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        DataType::Int4 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        DataType::Int8 => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

fn written_type(options: &SequenceOptions) -> Result<Option<DataType>, SqlError> {
    let Some(name) = options.data_type.as_deref() else { return Ok(None) };
    match name {
        "smallint" | "int2" => Ok(Some(DataType::Int2)),
        "integer" | "int" | "int4" => Ok(Some(DataType::Int4)),
        "bigint" | "int8" => Ok(Some(DataType::Int8)),
        _ => {
            let message = "sequence type must be smallint, integer, or bigint";
            Err(SqlError::new(state::INVALID_PARAMETER, message))
        }
    }
}

fn new_definition(options: &SequenceOptions, data_type: DataType) -> Result<SequenceDef, SqlError> {
    let data_type = written_type(options)?.unwrap_or(data_type);
    let increment = options.increment.unwrap_or(1);
    let (min, max) = bounds(options, data_type, increment, None)?;
    let first = if increment > 0 { min } else { max };
    let def = SequenceDef {
        data_type,
        increment,
        min,
        max,
        start: options.start.unwrap_or(first),
        cache: options.cache.unwrap_or(1),
        cycle: options.cycle.unwrap_or(false),
        owner: None,
    };
    checked(def)
}

fn altered_definition(
    options: &SequenceOptions,
    old: &SequenceDef,
) -> Result<SequenceDef, SqlError> {
    let data_type = written_type(options)?.unwrap_or(old.data_type);
    let increment = options.increment.unwrap_or(old.increment);
    let (min, max) = bounds(options, data_type, increment, Some(old))?;
    checked(SequenceDef {
        data_type,
        increment,
        min,
        max,
        start: options.start.unwrap_or(old.start),
        cache: options.cache.unwrap_or(old.cache),
        cycle: options.cycle.unwrap_or(old.cycle),
        owner: old.owner,
    })
}

/// MINVALUE and MAXVALUE: written, kept, or those of the type and direction. Bounds that are those of
/// the old type go over to the new one.
fn bounds(
    options: &SequenceOptions,
    data_type: DataType,
    increment: i64,
    old: Option<&SequenceDef>,
) -> Result<(i64, i64), SqlError> {
    let (lowest, highest) = limits(data_type).unwrap_or((i64::MIN, i64::MAX));
    let of_old = old.and_then(|old| limits(old.data_type).map(|limits| (old, limits)));
    let kept_min = of_old.filter(|(old, (low, _))| data_type == old.data_type || old.min != *low);
    let kept_max = of_old.filter(|(old, (_, high))| data_type == old.data_type || old.max != *high);
    let min = match (options.min, kept_min) {
        (Some(Some(min)), _) => min,
        (None, Some((old, _))) => old.min,
        _ if increment > 0 => 1,
        _ => lowest,
    };
    let max = match (options.max, kept_max) {
        (Some(Some(max)), _) => max,
        (None, Some((old, _))) => old.max,
        _ if increment > 0 => highest,
        _ => -1,
    };
    for (what, bound) in [("MINVALUE", min), ("MAXVALUE", max)] {
        if !(lowest..=highest).contains(&bound) {
            let ty = Type::of(data_type);
            return Err(SqlError::new(
                state::INVALID_PARAMETER,
                format!("{what} ({bound}) is out of range for sequence data type {ty}"),
            ));
        }
    }
    Ok((min, max))
}

fn checked(def: SequenceDef) -> Result<SequenceDef, SqlError> {
    let refused = |message: String| Err(SqlError::new(state::INVALID_PARAMETER, message));
    let SequenceDef { increment, min, max, cache, .. } = def;
    if increment == 0 {
        return refused("INCREMENT must not be zero".to_owned());
    }
    if min >= max {
        return refused(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})"));
    }
    within("START", def.start, &def)?;
    if cache <= 0 {
        return refused(format!("CACHE ({cache}) must be greater than zero"));
    }
    Ok(def)
}

/// 22023 when a number is outside the bounds.
pub(crate) fn within(what: &str, value: i64, def: &SequenceDef) -> Result<(), SqlError> {
    let SequenceDef { min, max, .. } = def;
    let message = if value < *min {
        format!("{what} value ({value}) cannot be less than MINVALUE ({min})")
    } else if value > *max {
        format!("{what} value ({value}) cannot be greater than MAXVALUE ({max})")
    } else {
        return Ok(());
    };
    Err(SqlError::new(state::INVALID_PARAMETER, message))
}
