//! CREATE, ALTER, DROP, TRUNCATE: names checked, defaults and checks bound once to prove them.

use super::{
    Binder, Relation, Scope,
    computed::generation_expr,
    draft::{TableDraft, split_check},
    reference::{cascade_notice, served, still_needed},
    rename::Renaming,
    sequence::serial_type,
};
use crate::{
    definition::{AlterStep, Definition},
    error::{SqlError, state},
    names, parse,
    types::{self, WrittenType},
};
use sqlparser::ast::{self, Spanned as _};
use std::sync::Arc;
use understudy_store::{ColumnDef, DataType, IndexDef, TableDef};

/// Longest name of PostgreSQL.
const NAME_MAX: usize = 63;

impl Binder<'_> {
    /// A definition.
    pub(crate) fn definition(&self, tree: &ast::Statement) -> Result<Definition, SqlError> {
        match tree {
            ast::Statement::CreateTable(create) => self.create_table(create),
            ast::Statement::CreateIndex(create) => self.create_index(create),
            ast::Statement::AlterTable(alter) => self.alter_table(alter),
            ast::Statement::Truncate(truncate) => {
                let tables: Result<Vec<Arc<TableDef>>, SqlError> = truncate
                    .table_names
                    .iter()
                    .map(|target| names::table(self.catalog, &target.name))
                    .collect();
                let restart = truncate.identity == Some(ast::TruncateIdentityOption::Restart);
                let cascade = truncate.cascade == Some(ast::CascadeOption::Cascade);
                self.truncate(tables?, cascade, restart)
            }
            ast::Statement::Drop { object_type, if_exists, names, cascade, .. } => {
                match object_type {
                    ast::ObjectType::Table => self.drop_tables((names, *if_exists), *cascade),
                    ast::ObjectType::Sequence => self.drop_sequences((names, *if_exists), *cascade),
                    ast::ObjectType::Index => self.drop_indexes((names, *if_exists), *cascade),
                    other => Err(SqlError::unsupported(format!("DROP {other}"))),
                }
            }
            other => Err(SqlError::unsupported(parse::tree_command(other))),
        }
    }

    fn create_table(&self, create: &ast::CreateTable) -> Result<Definition, SqlError> {
        refuse_table_clauses(create)?;
        let name = names::for_creation(&create.name)?;
        if self.catalog.has_relation(names::PUBLIC, &name) {
            let message = format!("relation \"{name}\" already exists");
            if create.if_not_exists {
                return Ok(Definition::Skip(vec![format!("{message}, skipping")]));
            }
            return Err(
                SqlError::new(state::DUPLICATE_TABLE, message).at(names::span(&create.name))
            );
        }
        let mut draft = TableDraft::new(TableDef::new(name, Vec::new()));
        let mut sequences = Vec::new();
        for column in &create.columns {
            let mut def = self.column(column, &draft.table)?;
            sequences.extend(self.column_sequence(column, &mut def, &draft.table)?);
            draft.table.columns.push(def);
        }
        self.generated_columns(&create.columns, &mut draft.table)?;
        for (position, column) in create.columns.iter().enumerate() {
            draft.column_constraints(column, position)?;
        }
        for constraint in &create.constraints {
            draft.constraint(constraint)?;
        }
        draft.named_indexes(self)?;
        draft.resolve_references(self)?;
        let table = draft.table;
        if table.columns.len() > understudy_store::COLUMNS_MAX {
            return Err(SqlError::new("54011", "tables can have at most 1600 columns"));
        }
        self.checks(&Arc::new(table.clone()))?;
        Ok(Definition::CreateTable { table, sequences })
    }

    /// A column's name, type, nullability and default.
    fn column(&self, column: &ast::ColumnDef, table: &TableDef) -> Result<ColumnDef, SqlError> {
        let name = names::folded(&column.name);
        if table.column_position(&name).is_some() {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .at(column.name.span));
        }
        let written = match serial_type(&column.data_type) {
            Some(serial) => WrittenType::Column(serial),
            None => types::written_type(&column.data_type)
                .map_err(|error| error.at(column.name.span))?,
        };
        let WrittenType::Column(data_type) = written else {
            return Err(SqlError::unsupported(format!("a column of type {}", written.ty()))
                .at(column.name.span));
        };
        let mut def = ColumnDef::new(name, data_type);
        for option in &column.options {
            match &option.option {
                ast::ColumnOption::NotNull => def.not_null = true,
                ast::ColumnOption::Default(expr) => {
                    def.default = Some(self.default_text(expr, &def.name, data_type)?);
                }
                ast::ColumnOption::Null
                | ast::ColumnOption::PrimaryKey(_)
                | ast::ColumnOption::Unique(_)
                | ast::ColumnOption::Check(_)
                | ast::ColumnOption::ForeignKey(_)
                | ast::ColumnOption::Comment(_) => {}
                ast::ColumnOption::Collation(collation) => {
                    let name = names::last_part(collation);
                    if !matches!(name.as_str(), "C" | "c" | "default" | "POSIX") {
                        return Err(SqlError::unsupported(format!("the collation {name}"))
                            .at(column.name.span));
                    }
                }
                ast::ColumnOption::Generated { .. } => {}
                ast::ColumnOption::Identity(_) => {
                    return Err(SqlError::unsupported("IDENTITY").at(column.name.span));
                }
                other => {
                    return Err(SqlError::unsupported(format!("the column option {other}"))
                        .at(column.name.span));
                }
            }
        }
        Ok(def)
    }

    /// Makes columns generated, when the whole table is known.
    fn generated_columns(
        &self,
        written: &[ast::ColumnDef],
        table: &mut TableDef,
    ) -> Result<(), SqlError> {
        let mut found = Vec::new();
        for (position, column) in written.iter().enumerate() {
            if let Some(tree) = generation_expr(column)? {
                check_only_generated(&table.columns[position], &table.name, column)?;
                table.columns[position].generated = Some(tree.to_string());
                found.push((position, tree));
            }
        }
        let shared = Arc::new(table.clone());
        found
            .into_iter()
            .try_for_each(|(position, tree)| self.generation(&shared, position, tree).map(drop))
    }

    /// The text of a DEFAULT, proved to be an expression of the column's type.
    fn default_text(
        &self,
        expr: &ast::Expr,
        name: &str,
        data_type: DataType,
    ) -> Result<String, SqlError> {
        let text = self.canonical_nextval(expr).unwrap_or_else(|| expr.to_string());
        self.default_expr(&text, name, data_type).map_err(|error| {
            if error.sqlstate == state::UNKNOWN_COLUMN {
                return SqlError::unsupported("a column reference in a DEFAULT").at(expr.span());
            }
            error.moved_to(expr.span())
        })?;
        Ok(text)
    }

    /// The name, or the name with the smallest number that makes it free.
    pub(super) fn free_name(&self, wanted: &str, taken: &[IndexDef]) -> String {
        let stem: String = wanted.chars().take(NAME_MAX - 3).collect();
        let is_free = |name: &str| {
            !self.catalog.has_relation(names::PUBLIC, name)
                && taken.iter().all(|index| index.name != name)
        };
        if is_free(&stem) {
            return stem;
        }
        (1..)
            .map(|number: u32| format!("{stem}{number}"))
            .find(|name| is_free(name))
            .expect("some number is free")
    }

    fn drop_tables(
        &self,
        (written, lenient): (&[ast::ObjectName], bool),
        cascade: bool,
    ) -> Result<Definition, SqlError> {
        let (mut tables, mut notices) = (Vec::new(), Vec::new());
        for name in written {
            match names::find_table(self.catalog, name)? {
                Some(table) => tables.push(table),
                None => {
                    let last = names::last_part(name);
                    if self.catalog.sequence(names::PUBLIC, &last).is_some() {
                        let message = format!("\"{last}\" is not a table");
                        return Err(SqlError::new(state::WRONG_OBJECT, message)
                            .with_hint("Use DROP SEQUENCE to remove a sequence."));
                    }
                    let message = format!("table \"{last}\" does not exist");
                    if !lenient {
                        return Err(SqlError::new(state::UNKNOWN_TABLE, message));
                    }
                    notices.push(format!("{message}, skipping"));
                }
            }
        }
        self.check_owned_sequences(&tables)?;
        let keys = self.keys_of_dropped(&tables, cascade, &mut notices)?;
        Ok(Definition::DropTables { tables, keys, notices })
    }

    fn drop_indexes(
        &self,
        (written, lenient): (&[ast::ObjectName], bool),
        cascade: bool,
    ) -> Result<Definition, SqlError> {
        let (mut indexes, mut keys, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        for name in written {
            let last = names::last_part(name);
            match self.catalog.index(names::PUBLIC, &last) {
                Some((table, index)) if index.is_primary_key => {
                    return Err(SqlError::new(
                        state::DEPENDENTS,
                        format!("cannot drop index {last} because constraint {last} on table {} requires it", table.name),
                    )
                    .with_hint(format!("You can drop constraint {last} on table {} instead.", table.name)));
                }
                Some((table, index)) => {
                    let needing = served(self.catalog, (table, index));
                    if !cascade && !needing.is_empty() {
                        let on = format!("index {last}");
                        let needing: Vec<_> =
                            needing.into_iter().map(|key| (key, on.clone())).collect();
                        return Err(still_needed(&on, &needing));
                    }
                    notices.extend(needing.iter().map(|key| cascade_notice(*key)));
                    keys.extend(needing.iter().map(|(table, key)| (table.id, key.name.clone())));
                    indexes.push(index.id);
                }
                None => {
                    let message = format!("index \"{last}\" does not exist");
                    if !lenient {
                        return Err(SqlError::new(state::UNKNOWN_OBJECT, message));
                    }
                    notices.push(format!("{message}, skipping"));
                }
            }
        }
        Ok(Definition::DropIndexes { indexes, keys, notices })
    }

    fn alter_table(&self, alter: &ast::AlterTable) -> Result<Definition, SqlError> {
        let Some(table) = names::find_table(self.catalog, &alter.name)? else {
            if alter.if_exists {
                let name = names::last_part(&alter.name);
                let notice = format!("relation \"{name}\" does not exist, skipping");
                return Ok(Definition::Skip(vec![notice]));
            }
            return Err(names::unknown_table(&alter.name));
        };
        // Clauses see the columns that earlier clauses of the same statement added.
        let mut seen = (*table).clone();
        let mut steps = Vec::new();
        for operation in &alter.operations {
            self.alter_step(&mut seen, operation, &mut steps)?;
        }
        Ok(Definition::AlterTable { table, steps })
    }

    fn alter_step(
        &self,
        table: &mut TableDef,
        operation: &ast::AlterTableOperation,
        steps: &mut Vec<AlterStep>,
    ) -> Result<(), SqlError> {
        use ast::AlterTableOperation as Op;
        match operation {
            Op::AddColumn { if_not_exists, column_def, .. } => {
                self.add_column(table, (column_def, *if_not_exists), steps)
            }
            Op::AddConstraint { not_valid: true, .. } => Err(SqlError::unsupported("NOT VALID")),
            Op::AddConstraint { constraint, .. } => {
                let mut draft = TableDraft::new(table.clone());
                draft.constraint(constraint)?;
                self.take_constraints(table, draft, steps)
            }
            Op::DropConstraint { name, if_exists, drop_behavior } => {
                let cascade = *drop_behavior == Some(ast::DropBehavior::Cascade);
                self.drop_constraint(table, (&names::folded(name), *if_exists, cascade), steps)
            }
            Op::AlterColumn { column_name, op } => {
                let column = column_position(table, column_name)?;
                steps.push(self.alter_column(table, column, op)?);
                Ok(())
            }
            Op::RenameColumn { old_column_name, new_column_name } => {
                let column = column_position(table, old_column_name)?;
                let name = names::folded(new_column_name);
                if table.column_position(&name).is_some() {
                    return Err(SqlError::new(
                        state::DUPLICATE_COLUMN,
                        format!("column \"{name}\" of relation \"{}\" already exists", table.name),
                    ));
                }
                *table = self.renamed(table, Renaming::Column(column, &name))?;
                steps.push(AlterStep::Rename(Box::new(table.clone())));
                Ok(())
            }
            Op::RenameTable { table_name } => {
                let (ast::RenameTableNameKind::As(name) | ast::RenameTableNameKind::To(name)) =
                    table_name;
                let name = names::for_creation(name)?;
                if self.catalog.has_relation(names::PUBLIC, &name) {
                    let message = format!("relation \"{name}\" already exists");
                    return Err(SqlError::new(state::DUPLICATE_TABLE, message));
                }
                *table = self.renamed(table, Renaming::Table(&name))?;
                steps.push(AlterStep::Rename(Box::new(table.clone())));
                Ok(())
            }
            Op::OwnerTo { .. } | Op::SetOptionsParens { .. } | Op::ReplicaIdentity { .. } => {
                steps.push(AlterStep::Nothing);
                Ok(())
            }
            Op::DropColumn { .. } => Err(SqlError::unsupported("ALTER TABLE … DROP COLUMN")
                .with_hint("Create a new table and INSERT … SELECT the columns you keep.")),
            other => Err(SqlError::unsupported(format!("ALTER TABLE … {other}"))),
        }
    }

    fn add_column(
        &self,
        table: &mut TableDef,
        (written, lenient): (&ast::ColumnDef, bool),
        steps: &mut Vec<AlterStep>,
    ) -> Result<(), SqlError> {
        let name = names::folded(&written.name);
        if table.column_position(&name).is_some() {
            if lenient {
                steps.push(AlterStep::Nothing);
                return Ok(());
            }
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{name}\" of relation \"{}\" already exists", table.name),
            )
            .at(written.name.span));
        }
        let mut column = self.column(written, table)?;
        if let Some(sequence) = self.column_sequence(written, &mut column, table)? {
            table.columns.push(column.clone());
            steps.push(AlterStep::AddNumbered { column, sequence });
            let mut draft = TableDraft::new(table.clone());
            draft.column_constraints(written, table.columns.len() - 1)?;
            return self.take_constraints(table, draft, steps);
        }
        if let Some(tree) = generation_expr(written)? {
            check_only_generated(&column, &table.name, written)?;
            column.generated = Some(tree.to_string());
            table.columns.push(column.clone());
            let shared = Arc::new(table.clone());
            let expr = self.generation(&shared, table.columns.len() - 1, tree)?;
            steps.push(AlterStep::AddGenerated { column, expr });
            let mut draft = TableDraft::new(table.clone());
            draft.column_constraints(written, table.columns.len() - 1)?;
            return self.take_constraints(table, draft, steps);
        }
        let fill = match &column.default {
            Some(text) => {
                let expr = self.default_expr(text, &column.name, column.data_type)?;
                if expr.any(&|part| matches!(part, crate::expr::Expr::Call(f, _) if f.volatile)) {
                    return Err(SqlError::unsupported("adding a column with a volatile DEFAULT"));
                }
                Some(expr)
            }
            None => None,
        };
        table.columns.push(column.clone());
        steps.push(AlterStep::AddColumn { column, fill });
        let mut draft = TableDraft::new(table.clone());
        draft.column_constraints(written, table.columns.len() - 1)?;
        self.take_constraints(table, draft, steps)
    }

    /// Turns what a draft has gained into steps.
    fn take_constraints(
        &self,
        table: &mut TableDef,
        mut draft: TableDraft,
        steps: &mut Vec<AlterStep>,
    ) -> Result<(), SqlError> {
        let (indexes, checks) = (table.indexes.len(), table.checks.len());
        let foreign_keys = table.foreign_keys.len();
        draft.named_indexes(self)?;
        draft.resolve_references(self)?;
        for index in &draft.table.indexes[indexes..] {
            steps.push(AlterStep::AddIndex(index.clone()));
        }
        for text in &draft.table.checks[checks..] {
            let (name, predicate) = split_check(text)?;
            let tree = parse::parse_expression(&predicate)?;
            let shared = Arc::new(draft.table.clone());
            let relation = Relation::of_table(table.name.clone(), &shared, 0);
            let predicate = self.predicate(&tree, "CHECK", &Scope::new(vec![relation], None))?;
            steps.push(AlterStep::AddCheck { text: text.clone(), name, predicate });
        }
        for key in &draft.table.foreign_keys[foreign_keys..] {
            steps.push(AlterStep::AddForeignKey(key.clone()));
        }
        *table = draft.table;
        Ok(())
    }

    fn drop_constraint(
        &self,
        table: &TableDef,
        (name, lenient, cascade): (&str, bool, bool),
        steps: &mut Vec<AlterStep>,
    ) -> Result<(), SqlError> {
        if let Some(index) = table.indexes.iter().find(|index| index.unique && index.name == name) {
            let needing = served(self.catalog, (table, index));
            if !cascade && !needing.is_empty() {
                let on = format!("index {name}");
                let needing: Vec<_> = needing.into_iter().map(|key| (key, on.clone())).collect();
                let what = format!("constraint {name} on table {}", table.name);
                return Err(still_needed(&what, &needing));
            }
            for (owner, key) in needing {
                let notice = Some(cascade_notice((owner, key)));
                steps.push(AlterStep::DropForeignKey((owner.id, key.name.clone()), notice));
            }
            steps.push(AlterStep::DropIndex(index.id));
            return Ok(());
        }
        if table.foreign_keys.iter().any(|key| key.name == name) {
            steps.push(AlterStep::DropForeignKey((table.id, name.to_owned()), None));
            return Ok(());
        }
        for text in &table.checks {
            if split_check(text)?.0 == name {
                steps.push(AlterStep::DropCheck(text.clone()));
                return Ok(());
            }
        }
        if lenient {
            steps.push(AlterStep::Nothing);
            return Ok(());
        }
        Err(SqlError::new(
            state::UNKNOWN_OBJECT,
            format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name),
        ))
    }

    fn alter_column(
        &self,
        table: &TableDef,
        column: usize,
        op: &ast::AlterColumnOperation,
    ) -> Result<AlterStep, SqlError> {
        let def = &table.columns[column];
        match op {
            ast::AlterColumnOperation::SetNotNull => Ok(AlterStep::SetNotNull(column)),
            ast::AlterColumnOperation::DropNotNull => {
                let in_key = table.primary_key().is_some_and(|key| {
                    key.columns.iter().any(|position| usize::from(*position) == column)
                });
                if def.identity.is_some() {
                    return Err(is_of_kind(table, def, "an identity"));
                }
                if in_key {
                    return Err(SqlError::new(
                        state::BAD_TABLE,
                        format!("column \"{}\" is in a primary key", def.name),
                    ));
                }
                Ok(AlterStep::DropNotNull(column))
            }
            ast::AlterColumnOperation::SetDefault { .. }
            | ast::AlterColumnOperation::DropDefault
                if def.generated.is_some() =>
            {
                Err(is_of_kind(table, def, "a generated"))
            }
            ast::AlterColumnOperation::SetDefault { .. }
            | ast::AlterColumnOperation::DropDefault
                if def.identity.is_some() =>
            {
                Err(is_of_kind(table, def, "an identity"))
            }
            ast::AlterColumnOperation::SetDefault { value } => {
                let text = self.default_text(value, &def.name, def.data_type)?;
                Ok(AlterStep::SetDefault(column, Some(text)))
            }
            ast::AlterColumnOperation::DropDefault => Ok(AlterStep::SetDefault(column, None)),
            ast::AlterColumnOperation::SetDataType { .. } => {
                Err(SqlError::unsupported("ALTER COLUMN … TYPE")
                    .with_hint("Create a new table and INSERT … SELECT with casts."))
            }
            ast::AlterColumnOperation::AddGenerated { generated_as, sequence_options } => {
                let written = (generated_as.as_ref(), sequence_options.as_deref());
                let (kind, sequence) = self.added_identity(table, column, written)?;
                Ok(AlterStep::AddIdentity { kind, sequence })
            }
        }
    }
}

fn column_position(table: &TableDef, ident: &ast::Ident) -> Result<usize, SqlError> {
    let name = names::folded(ident);
    table.column_position(&name).ok_or_else(|| {
        SqlError::new(
            state::UNKNOWN_COLUMN,
            format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
        )
        .at(ident.span)
    })
}

/// 42601 when a generated column would have another value too.
fn check_only_generated(
    column: &ColumnDef,
    table: &str,
    written: &ast::ColumnDef,
) -> Result<(), SqlError> {
    let is_identity = |option: &ast::ColumnOptionDef| {
        matches!(&option.option, ast::ColumnOption::Generated { generation_expr: None, .. })
    };
    let other = if column.default.is_some() {
        "default"
    } else if column.identity.is_some() || written.options.iter().any(is_identity) {
        "identity"
    } else {
        return Ok(());
    };
    let message = format!(
        "both {other} and generation expression specified for column \"{}\" of table \"{table}\"",
        column.name
    );
    Err(SqlError::new(state::SYNTAX, message).at(written.name.span))
}

/// A column that cannot be changed like that.
fn is_of_kind(table: &TableDef, column: &ColumnDef, kind: &str) -> SqlError {
    let (name, table) = (&column.name, &table.name);
    let message = format!("column \"{name}\" of relation \"{table}\" is {kind} column");
    SqlError::new(state::SYNTAX, message)
}

fn refuse_table_clauses(create: &ast::CreateTable) -> Result<(), SqlError> {
    let refused = [
        (create.temporary, "a temporary table"),
        (create.query.is_some(), "CREATE TABLE AS"),
        (create.like.is_some(), "CREATE TABLE LIKE"),
        (create.inherits.is_some(), "INHERITS"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "a partitioned table"),
        (create.or_replace, "CREATE OR REPLACE TABLE"),
        (create.external, "an external table"),
        (create.on_commit.is_some(), "ON COMMIT"),
    ];
    match refused.iter().find(|(written, _)| *written) {
        Some((_, what)) => Err(SqlError::unsupported(what).at(names::span(&create.name))),
        None => Ok(()),
    }
}
