//! Binding: names become columns, types are settled, and a statement becomes a plan.
//!
//! A parameter's type is what the client declared, else what its first use demands (a column compared
//! with it, a cast, an insert's target), else text: PostgreSQL's rule for simple cases. Constants are
//! converted here once; a constant of the wrong form is an error with its position.

mod call;
mod change;
mod computed;
mod define;
mod draft;
mod expression;
mod from;
mod group;
mod index;
mod operator;
mod output;
mod push_down;
mod reference;
mod rename;
mod scope;
mod select;
mod sequence;

pub(crate) use change::generated_in_copy;
pub(crate) use draft::split_check;
pub(crate) use scope::{Bound, Relation, Scope, ScopeColumn};
pub(crate) use sequence::{nextval_text, within as sequence_within};

use crate::{
    cast::{self, CastContext},
    error::{SqlError, state},
    expr::Expr,
    parse::{ConflictKeys, Overriding},
    plan::Query,
    text,
    types::{Category, Type},
};
use sqlparser::tokenizer::Span;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use understudy_store::{Catalog, DataType, Value};

/// A WITH query: bound anew at each use.
#[derive(Clone)]
pub(crate) struct Cte {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) query: Rc<sqlparser::ast::Query>,
    /// How many WITH queries its own text may use.
    pub(crate) visible: usize,
}

/// Binds one statement.
pub(crate) struct Binder<'a> {
    pub(crate) catalog: &'a Catalog,
    params: RefCell<Vec<Option<Type>>>,
    slots: Cell<usize>,
    pub(crate) ctes: RefCell<Vec<Cte>>,
    /// OVERRIDING … VALUE of the INSERT that is bound.
    pub(crate) overriding: Cell<Option<Overriding>>,
    /// The keys of its ON CONFLICT, where they are more than columns.
    pub(crate) conflict: RefCell<Option<ConflictKeys>>,
    /// Set for a plan that hidden columns take no part in.
    pub(crate) without_hidden: Cell<bool>,
    /// Whether hidden columns may take part in the plan.
    pub(crate) uses_hidden: Cell<bool>,
    /// Whether an expression asks a sequence, which somebody else may hold.
    pub(crate) asks_sequence: Cell<bool>,
}

impl<'a> Binder<'a> {
    /// A binder for a statement whose first parameters have these declared types.
    pub(crate) fn new(catalog: &'a Catalog, declared: &[Option<DataType>]) -> Binder<'a> {
        let params = declared.iter().map(|hint| hint.map(Type::of)).collect();
        Binder {
            catalog,
            params: RefCell::new(params),
            slots: Cell::new(0),
            ctes: RefCell::default(),
            overriding: Cell::new(None),
            conflict: RefCell::default(),
            without_hidden: Cell::new(false),
            uses_hidden: Cell::new(false),
            asks_sequence: Cell::new(false),
        }
    }

    /// The types of all parameters; those nothing was said about are text.
    pub(crate) fn parameter_types(&self) -> Vec<DataType> {
        self.params.borrow().iter().map(|ty| ty.unwrap_or(Type::Text).storage()).collect()
    }

    /// A name for a subquery's kept result.
    pub(crate) fn give_slot(&self) -> usize {
        let slot = self.slots.get();
        self.slots.set(slot + 1);
        slot
    }

    /// `$n`.
    pub(crate) fn parameter(&self, text: &str, span: Span) -> Result<Bound, SqlError> {
        let number: usize = text.trim_start_matches('$').parse().unwrap_or(0);
        if number == 0 || number > usize::from(u16::MAX) {
            return Err(SqlError::new(
                state::UNKNOWN_PARAMETER,
                format!("there is no parameter {text}"),
            )
            .at(span));
        }
        let mut params = self.params.borrow_mut();
        if params.len() < number {
            params.resize(number, None);
        }
        Ok(Bound::new(Expr::Param(number - 1), params[number - 1].unwrap_or(Type::Unknown)))
    }

    /// Settles the type of an expression whose context has not: text.
    pub(crate) fn settled(&self, bound: Bound) -> Result<Bound, SqlError> {
        if bound.ty != Type::Unknown {
            return Ok(bound);
        }
        let expr = self.coerced(bound, Type::Text, Span::empty())?;
        Ok(Bound::new(expr, Type::Text))
    }

    /// Converts to a type that the expression converts to implicitly, or that a literal can be read as.
    pub(crate) fn coerced(&self, bound: Bound, to: Type, span: Span) -> Result<Expr, SqlError> {
        let Bound { expr, ty, .. } = bound;
        if ty == to {
            return Ok(expr);
        }
        if let Expr::Param(index) = expr {
            let mut params = self.params.borrow_mut();
            let known = &mut params[index];
            match *known {
                None => {
                    *known = Some(to);
                    return Ok(expr);
                }
                Some(settled) if settled == to => return Ok(expr),
                Some(settled) => return Ok(converted(expr, settled, to)),
            }
        }
        if let (Expr::Const(value), Type::Unknown) = (&expr, ty) {
            return literal(value, to).map_err(|error| error.at(span));
        }
        if let (Expr::Const(value), true) =
            (&expr, to != Type::Timestamptz && ty != Type::Timestamptz)
        {
            return cast::convert(value, ty, to, 0)
                .map(Expr::Const)
                .map_err(|error| error.at(span));
        }
        Ok(converted(expr, ty, to))
    }

    /// Converts to a column's type as an assignment does, length and precision included.
    pub(crate) fn assigned(
        &self,
        bound: Bound,
        column: (&str, DataType),
        span: Span,
    ) -> Result<Expr, SqlError> {
        let (name, data_type) = column;
        let to = Type::of(data_type);
        if !bound.ty.converts_on_assignment(to) {
            return Err(SqlError::new(
                state::DATATYPE_MISMATCH,
                format!("column \"{name}\" is of type {to} but expression is of type {}", bound.ty),
            )
            .with_hint("You will need to rewrite or cast the expression.")
            .at(span));
        }
        let same = bound.declared == Some(data_type);
        let expr = self.coerced(bound, to, span)?;
        Ok(if same { expr } else { limited(expr, to, data_type, CastContext::Assignment) })
    }

    /// A predicate: boolean, or a literal that can be read as one.
    pub(crate) fn condition(
        &self,
        bound: Bound,
        clause: &str,
        span: Span,
    ) -> Result<Expr, SqlError> {
        match bound.ty {
            Type::Bool => Ok(bound.expr),
            Type::Unknown => self.coerced(bound, Type::Bool, span),
            other => Err(SqlError::new(
                state::DATATYPE_MISMATCH,
                format!("argument of {clause} must be type boolean, not type {other}"),
            )
            .at(span)),
        }
    }

    /// Binds a query of the statement that stands by itself.
    pub(crate) fn top_query(&self, query: &sqlparser::ast::Query) -> Result<Query, SqlError> {
        self.query(query, None)
    }
}

/// A literal of unknown type read as a type. Times with zone depend on the session: read at execution.
fn literal(value: &Value, to: Type) -> Result<Expr, SqlError> {
    match value {
        Value::Text(content) if to != Type::Timestamptz => {
            text::parse_value(to, content, 0).map(Expr::Const)
        }
        Value::Null => Ok(Expr::NULL),
        _ => Ok(Expr::Cast {
            expr: Box::new(Expr::Const(value.clone())),
            from: Type::Text,
            to,
            limit: None,
        }),
    }
}

/// A conversion at execution, left out where both types hold their values alike.
fn converted(expr: Expr, from: Type, to: Type) -> Expr {
    let wider = from.is_integer() && to.is_integer() && from.converts_implicitly(to);
    let texts = from.category() == Category::Text && matches!(to, Type::Text | Type::Varchar)
        || from == Type::Unknown && matches!(to, Type::Text | Type::Varchar);
    if wider || texts {
        return expr;
    }
    Expr::Cast { expr: Box::new(expr), from, to, limit: None }
}

/// Applies a length or precision.
pub(crate) fn limited(expr: Expr, ty: Type, data_type: DataType, context: CastContext) -> Expr {
    let bounded = matches!(data_type, DataType::NumericOf { .. })
        || matches!(data_type, DataType::Varchar(length) | DataType::Char(length) if length > 0);
    if !bounded {
        return expr;
    }
    match expr {
        Expr::Const(value) => match cast::limit(value.clone(), data_type, context) {
            Ok(limited) => Expr::Const(limited),
            // Refused when it is executed, as for any other value.
            Err(_) => with_limit(Expr::Const(value), ty, data_type, context),
        },
        other => with_limit(other, ty, data_type, context),
    }
}

fn with_limit(expr: Expr, ty: Type, data_type: DataType, context: CastContext) -> Expr {
    Expr::Cast { expr: Box::new(expr), from: ty, to: ty, limit: Some((data_type, context)) }
}
