//! Bound expressions: names are column numbers, operators know their operands' types.
//!
//! Invariants: both operands of a comparison hold the same kind of value; a `Cast` is present wherever
//! a value changes its kind; `Aggregate` occurs only between binding and grouping.

use crate::{cast::CastContext, function::Function, plan::Query, types::Type};
use understudy_store::{DataType, Value};

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl CompareOp {
    /// The operator with its operands exchanged.
    pub(crate) fn mirrored(self) -> CompareOp {
        match self {
            CompareOp::Equal | CompareOp::NotEqual => self,
            CompareOp::Less => CompareOp::Greater,
            CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
            CompareOp::Greater => CompareOp::Less,
            CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        }
    }

    /// As written in SQL.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            CompareOp::Equal => "=",
            CompareOp::NotEqual => "<>",
            CompareOp::Less => "<",
            CompareOp::LessOrEqual => "<=",
            CompareOp::Greater => ">",
            CompareOp::GreaterOrEqual => ">=",
        }
    }

    /// Whether an ordering of left to right satisfies the operator.
    pub(crate) fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            CompareOp::Equal => ordering.is_eq(),
            CompareOp::NotEqual => ordering.is_ne(),
            CompareOp::Less => ordering.is_lt(),
            CompareOp::LessOrEqual => ordering.is_le(),
            CompareOp::Greater => ordering.is_gt(),
            CompareOp::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Arithmetic on numbers of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

impl ArithmeticOp {
    /// As written in SQL.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Subtract => "-",
            ArithmeticOp::Multiply => "*",
            ArithmeticOp::Divide => "/",
            ArithmeticOp::Modulo => "%",
            ArithmeticOp::Power => "^",
            ArithmeticOp::BitAnd => "&",
            ArithmeticOp::BitOr => "|",
            ArithmeticOp::BitXor => "#",
            ArithmeticOp::ShiftLeft => "<<",
            ArithmeticOp::ShiftRight => ">>",
        }
    }
}

/// Arithmetic on dates, timestamps and intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MomentOp {
    /// date ± integer → date
    DatePlusDays,
    /// See [`MomentOp::DatePlusDays`].
    DateMinusDays,
    /// date − date → integer
    DaysBetween,
    /// timestamp − timestamp → interval
    TimeBetween,
    /// timestamp(tz) + interval
    PlusInterval,
    /// timestamp(tz) − interval
    MinusInterval,
    /// interval + interval
    AddIntervals,
    /// interval − interval
    SubtractIntervals,
    /// interval × number
    ScaleInterval,
}

/// Which pattern language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternKind {
    Like,
    LikeIgnoringCase,
    Regex,
    RegexIgnoringCase,
}

/// A scalar expression over the columns of one tuple.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    /// A constant.
    Const(Value),
    /// `$n`, from zero.
    Param(usize),
    /// A column of the tuple at hand.
    Column(usize),
    /// A column of the tuple of an enclosing query, `depth` ≥ 1 levels out.
    Outer {
        depth: usize,
        column: usize,
    },
    /// In the access of a join's right side: a column of the left side's tuple.
    Lateral(usize),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// IS (NOT) NULL.
    IsNull {
        expr: Box<Expr>,
        negated: bool,
    },
    /// IS (NOT) TRUE, FALSE, UNKNOWN (None).
    IsTruth {
        expr: Box<Expr>,
        truth: Option<bool>,
        negated: bool,
    },
    Compare(CompareOp, Box<(Expr, Expr)>),
    /// IS (NOT) DISTINCT FROM.
    Distinct {
        pair: Box<(Expr, Expr)>,
        negated: bool,
    },
    /// Both operands and the result are of the type.
    Arithmetic(ArithmeticOp, Type, Box<(Expr, Expr)>),
    Negate(Type, Box<Expr>),
    Moment(MomentOp, Box<(Expr, Expr)>),
    /// Text || text.
    Concat(Box<(Expr, Expr)>),
    /// LIKE, ILIKE, ~, ~*. `escape` None: no character escapes.
    Pattern {
        kind: PatternKind,
        pair: Box<(Expr, Expr)>,
        negated: bool,
        escape: Option<char>,
    },
    /// Conditions are boolean; a CASE with an operand was turned into comparisons.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Coalesce(Vec<Expr>),
    NullIf(Box<(Expr, Expr)>),
    /// GREATEST or LEAST.
    Extreme {
        greatest: bool,
        items: Vec<Expr>,
    },
    InList {
        expr: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    Cast {
        expr: Box<Expr>,
        from: Type,
        to: Type,
        limit: Option<(DataType, CastContext)>,
    },
    Call(&'static Function, Vec<Expr>),
    Exists(Box<Query>),
    /// A subquery of one column, at most one row.
    Scalar(Box<Query>),
    /// `expr op ANY (query)`; `all` turns it into ALL. Operands were made comparable.
    Quantified {
        expr: Box<Expr>,
        op: CompareOp,
        query: Box<Query>,
        all: bool,
    },
    /// `expr op ANY (array)` or ALL over an array's text, whose items are read as the type.
    AnyItem {
        pair: Box<(Expr, Expr)>,
        op: CompareOp,
        item: Type,
        all: bool,
    },
    /// ARRAY(subquery): the first column as an array's text.
    ArrayOf(Box<Query>),
    /// The n-th aggregate of the query being bound.
    Aggregate(usize),
}

impl Expr {
    /// The constant NULL.
    pub(crate) const NULL: Expr = Expr::Const(Value::Null);

    /// Visits the direct operands.
    pub(crate) fn for_each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        match self {
            Expr::Const(_)
            | Expr::Param(_)
            | Expr::Column(_)
            | Expr::Outer { .. }
            | Expr::Lateral(_)
            | Expr::Exists(_)
            | Expr::Scalar(_)
            | Expr::ArrayOf(_)
            | Expr::Aggregate(_) => {}
            Expr::And(items)
            | Expr::Or(items)
            | Expr::Coalesce(items)
            | Expr::Extreme { items, .. }
            | Expr::Call(_, items) => items.iter().for_each(visit),
            Expr::Not(expr)
            | Expr::IsNull { expr, .. }
            | Expr::IsTruth { expr, .. }
            | Expr::Negate(_, expr)
            | Expr::Cast { expr, .. }
            | Expr::Quantified { expr, .. } => visit(expr),
            Expr::Compare(_, pair)
            | Expr::Distinct { pair, .. }
            | Expr::Arithmetic(_, _, pair)
            | Expr::Moment(_, pair)
            | Expr::Concat(pair)
            | Expr::Pattern { pair, .. }
            | Expr::AnyItem { pair, .. }
            | Expr::NullIf(pair) => {
                visit(&pair.0);
                visit(&pair.1);
            }
            Expr::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    visit(condition);
                    visit(result);
                }
                otherwise.iter().for_each(|expr| visit(expr));
            }
            Expr::InList { expr, list, .. } => {
                visit(expr);
                list.iter().for_each(visit);
            }
        }
    }

    /// Rebuilds the expression from the leaves up: `change` sees every node and may replace it. A
    /// replaced node's operands are not visited.
    pub(crate) fn rewrite<E>(
        &mut self,
        change: &mut dyn FnMut(&mut Expr) -> Result<bool, E>,
    ) -> Result<(), E> {
        if change(self)? {
            return Ok(());
        }
        match self {
            Expr::Const(_)
            | Expr::Param(_)
            | Expr::Column(_)
            | Expr::Outer { .. }
            | Expr::Lateral(_)
            | Expr::Exists(_)
            | Expr::Scalar(_)
            | Expr::ArrayOf(_)
            | Expr::Aggregate(_) => Ok(()),
            Expr::And(items)
            | Expr::Or(items)
            | Expr::Coalesce(items)
            | Expr::Extreme { items, .. }
            | Expr::Call(_, items) => items.iter_mut().try_for_each(|expr| expr.rewrite(change)),
            Expr::Not(expr)
            | Expr::IsNull { expr, .. }
            | Expr::IsTruth { expr, .. }
            | Expr::Negate(_, expr)
            | Expr::Cast { expr, .. }
            | Expr::Quantified { expr, .. } => expr.rewrite(change),
            Expr::Compare(_, pair)
            | Expr::Distinct { pair, .. }
            | Expr::Arithmetic(_, _, pair)
            | Expr::Moment(_, pair)
            | Expr::Concat(pair)
            | Expr::Pattern { pair, .. }
            | Expr::AnyItem { pair, .. }
            | Expr::NullIf(pair) => {
                pair.0.rewrite(change)?;
                pair.1.rewrite(change)
            }
            Expr::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    condition.rewrite(change)?;
                    result.rewrite(change)?;
                }
                otherwise.iter_mut().try_for_each(|expr| expr.rewrite(change))
            }
            Expr::InList { expr, list, .. } => {
                expr.rewrite(change)?;
                list.iter_mut().try_for_each(|expr| expr.rewrite(change))
            }
        }
    }

    /// Moves every column number by `shift`.
    pub(crate) fn shifted(mut self, shift: isize) -> Expr {
        let moved: Result<(), std::convert::Infallible> = self.rewrite(&mut |expr| {
            if let Expr::Column(column) = expr {
                *column = column.wrapping_add_signed(shift);
            }
            Ok(false)
        });
        match moved {
            Ok(()) => self,
        }
    }

    /// Whether any node satisfies the predicate.
    pub(crate) fn any(&self, predicate: &dyn Fn(&Expr) -> bool) -> bool {
        if predicate(self) {
            return true;
        }
        let mut found = false;
        self.for_each_child(&mut |child| found = found || child.any(predicate));
        found
    }

    /// Whether it holds a subquery, whose references to the tuple at hand cannot be moved.
    pub(crate) fn has_subquery(&self) -> bool {
        self.any(&|expr| {
            matches!(
                expr,
                Expr::Exists(_) | Expr::Scalar(_) | Expr::Quantified { .. } | Expr::ArrayOf(_)
            )
        })
    }

    /// Splits nested ANDs into their parts.
    pub(crate) fn into_conjuncts(self, parts: &mut Vec<Expr>) {
        match self {
            Expr::And(items) => items.into_iter().for_each(|item| item.into_conjuncts(parts)),
            Expr::Const(Value::Bool(true)) => {}
            other => parts.push(other),
        }
    }

    /// Joins parts by AND; None when there are none.
    pub(crate) fn from_conjuncts(mut parts: Vec<Expr>) -> Option<Expr> {
        match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Expr::And(parts)),
        }
    }
}
