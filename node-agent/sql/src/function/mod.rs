//! Scalar functions: a table of names, argument types and code.
//!
//! Overloads are chosen as PostgreSQL does for simple cases: exact types first, then the fewest
//! implicit conversions. `coalesce`, `nullif`, `greatest` and `least` are not here: they are expressions.

mod moment;
mod number;
mod sequence;
mod session;
mod string;

pub(crate) use string::made;

use crate::{
    error::{SqlError, state},
    eval::Env,
    types::{Category, Type},
};
use std::fmt;
use understudy_store::Value;

/// The code of a function.
type Run = fn(&[Value], &Env<'_>) -> Result<Value, SqlError>;

/// One overload of a scalar function.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [Type],
    /// The last argument may be repeated, or left out altogether.
    pub(crate) variadic: bool,
    pub(crate) result: Type,
    /// A null argument makes a null result without a call.
    pub(crate) strict: bool,
    /// Gives another value at every call.
    pub(crate) volatile: bool,
    /// Gives another value in another session, or at another time.
    stable: bool,
    pub(crate) run: Run,
}

impl Function {
    const fn new(
        name: &'static str,
        arguments: &'static [Type],
        result: Type,
        run: Run,
    ) -> Function {
        let (variadic, strict, volatile, stable) = (false, true, false, false);
        Function { name, arguments, variadic, result, strict, volatile, stable, run }
    }

    const fn variadic(mut self) -> Function {
        self.variadic = true;
        self.strict = false;
        self
    }

    const fn taking_nulls(mut self) -> Function {
        self.strict = false;
        self
    }

    const fn volatile(mut self) -> Function {
        self.volatile = true;
        self
    }

    const fn stable(mut self) -> Function {
        self.stable = true;
        self
    }

    /// The type of the n-th argument.
    pub(crate) fn argument(&self, position: usize) -> Type {
        let last = self.arguments.len().saturating_sub(1);
        self.arguments.get(position.min(last)).copied().unwrap_or(Type::Unknown)
    }

    fn takes(&self, count: usize) -> bool {
        if self.variadic {
            count + 1 >= self.arguments.len()
        } else {
            count == self.arguments.len()
        }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        std::ptr::eq(self, other)
    }
}

fn all() -> impl Iterator<Item = &'static Function> {
    string::FUNCTIONS
        .iter()
        .chain(number::FUNCTIONS)
        .chain(moment::FUNCTIONS)
        .chain(session::FUNCTIONS)
        .chain(sequence::FUNCTIONS)
}

/// Whether a function gives the same for the same arguments at any time, in any session.
pub(crate) fn is_immutable(function: &'static Function) -> bool {
    let asks_session = session::FUNCTIONS.iter().any(|f| f == function);
    !asks_session && !asks_sequence(function) && !function.volatile && !function.stable
}

/// Whether a function may have to wait for who holds a sequence.
pub(crate) fn asks_sequence(function: &'static Function) -> bool {
    sequence::FUNCTIONS.iter().any(|f| f == function)
}

/// How far an argument is from a parameter; None when it does not fit.
fn distance(from: Type, to: Type) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    if to == Type::Unknown {
        return Some(1);
    }
    match from {
        Type::Unknown if to.category() == Category::Text => Some(1),
        Type::Unknown => Some(2),
        _ if from.converts_implicitly(to) => {
            Some(if to == Type::Float8 || to == Type::Text { 2 } else { 3 })
        }
        _ => None,
    }
}

/// Chooses the overload for argument types.
///
/// # Errors
/// 42883 when no overload fits.
pub(crate) fn find(name: &str, types: &[Type]) -> Result<&'static Function, SqlError> {
    let mut best: Option<(u32, &'static Function)> = None;
    for function in all().filter(|f| f.name == name && f.takes(types.len())) {
        let cost: Option<u32> = types
            .iter()
            .enumerate()
            .map(|(position, ty)| distance(*ty, function.argument(position)))
            .sum();
        if let Some(cost) = cost
            && best.is_none_or(|(least, _)| cost < least)
        {
            best = Some((cost, function));
        }
    }
    best.map(|(_, function)| function).ok_or_else(|| {
        let shown: Vec<&str> = types.iter().map(|ty| ty.name()).collect();
        SqlError::new(
            state::UNKNOWN_FUNCTION,
            format!("function {name}({}) does not exist", shown.join(", ")),
        )
        .with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        )
    })
}

/// The text of an argument; strict functions have no nulls.
fn text(values: &[Value], position: usize) -> &str {
    match values.get(position) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

/// The whole number of an argument.
fn int(values: &[Value], position: usize) -> i64 {
    match values.get(position) {
        Some(Value::Int(number)) => *number,
        _ => 0,
    }
}

/// The double of an argument.
fn float(values: &[Value], position: usize) -> f64 {
    match values.get(position) {
        Some(Value::Float(number)) => *number,
        _ => 0.0,
    }
}
