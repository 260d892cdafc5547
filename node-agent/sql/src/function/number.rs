//! Functions on numbers, and random ones.

use super::{Function, float, int};
use crate::{
    arithmetic,
    error::{SqlError, state},
    eval::Env,
    expr::ArithmeticOp,
    types::Type::{self, Float8, Int4, Int8, Numeric, Text, Uuid},
};
use rust_decimal::{Decimal, RoundingStrategy};
use understudy_store::Value;

type Answer = Result<Value, SqlError>;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("abs", &[Int4], Int4, |v, _| absolute(Int4, &v[0])),
    Function::new("abs", &[Int8], Int8, |v, _| absolute(Int8, &v[0])),
    Function::new("abs", &[Numeric], Numeric, |v, _| absolute(Numeric, &v[0])),
    Function::new("abs", &[Float8], Float8, |v, _| absolute(Float8, &v[0])),
    Function::new("sign", &[Numeric], Numeric, |v, _| {
        let sign = decimal(v, 0).cmp(&Decimal::ZERO) as i64;
        Ok(Value::Numeric(Decimal::from(sign)))
    }),
    Function::new("sign", &[Float8], Float8, |v, _| {
        let number = float(v, 0);
        Ok(Value::Float(if number == 0.0 { 0.0 } else { number.signum() }))
    }),
    Function::new("ceil", &[Numeric], Numeric, |v, _| Ok(Value::Numeric(decimal(v, 0).ceil()))),
    Function::new("ceil", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).ceil()))),
    Function::new("ceiling", &[Numeric], Numeric, |v, _| Ok(Value::Numeric(decimal(v, 0).ceil()))),
    Function::new("ceiling", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).ceil()))),
    Function::new("floor", &[Numeric], Numeric, |v, _| Ok(Value::Numeric(decimal(v, 0).floor()))),
    Function::new("floor", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).floor()))),
    Function::new("round", &[Numeric], Numeric, |v, _| Ok(rounded(decimal(v, 0), 0, AWAY))),
    Function::new("round", &[Numeric, Int4], Numeric, |v, _| {
        Ok(rounded(decimal(v, 0), int(v, 1), AWAY))
    }),
    Function::new("round", &[Float8], Float8, |v, _| {
        Ok(Value::Float(float(v, 0).round_ties_even()))
    }),
    Function::new("trunc", &[Numeric], Numeric, |v, _| Ok(rounded(decimal(v, 0), 0, TO_ZERO))),
    Function::new("trunc", &[Numeric, Int4], Numeric, |v, _| {
        Ok(rounded(decimal(v, 0), int(v, 1), TO_ZERO))
    }),
    Function::new("trunc", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).trunc()))),
    Function::new("mod", &[Int4, Int4], Int4, |v, _| modulo(Int4, v)),
    Function::new("mod", &[Int8, Int8], Int8, |v, _| modulo(Int8, v)),
    Function::new("mod", &[Numeric, Numeric], Numeric, |v, _| modulo(Numeric, v)),
    Function::new("div", &[Numeric, Numeric], Numeric, |v, _| {
        let quotient =
            arithmetic::calculate(ArithmeticOp::Divide, Numeric, v[0].as_ref(), v[1].as_ref())?;
        Ok(match quotient {
            Value::Numeric(number) => Value::Numeric(number.trunc()),
            other => other,
        })
    }),
    Function::new("power", &[Numeric, Numeric], Numeric, |v, _| {
        arithmetic::calculate(ArithmeticOp::Power, Numeric, v[0].as_ref(), v[1].as_ref())
    }),
    Function::new("power", &[Float8, Float8], Float8, |v, _| {
        arithmetic::calculate(ArithmeticOp::Power, Float8, v[0].as_ref(), v[1].as_ref())
    }),
    Function::new("sqrt", &[Float8], Float8, |v, _| {
        if float(v, 0) < 0.0 {
            refuse("2201F", "cannot take square root of a negative number")?;
        }
        Ok(Value::Float(float(v, 0).sqrt()))
    }),
    Function::new("exp", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).exp()))),
    Function::new("ln", &[Float8], Float8, |v, _| {
        logarithm(float(v, 0))?;
        Ok(Value::Float(float(v, 0).ln()))
    }),
    Function::new("log", &[Float8], Float8, |v, _| {
        logarithm(float(v, 0))?;
        Ok(Value::Float(float(v, 0).log10()))
    }),
    Function::new("log10", &[Float8], Float8, |v, _| {
        logarithm(float(v, 0))?;
        Ok(Value::Float(float(v, 0).log10()))
    }),
    Function::new("sin", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).sin()))),
    Function::new("cos", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).cos()))),
    Function::new("tan", &[Float8], Float8, |v, _| Ok(Value::Float(float(v, 0).tan()))),
    Function::new("pi", &[], Float8, |_, _| Ok(Value::Float(std::f64::consts::PI))),
    Function::new("to_hex", &[Int8], Text, |v, _| Ok(Value::text(format!("{:x}", int(v, 0))))),
    Function::new("random", &[], Float8, |_, env| {
        Ok(Value::Float((next_random(env) >> 11) as f64 / (1_u64 << 53) as f64))
    })
    .volatile(),
    Function::new("gen_random_uuid", &[], Uuid, |_, env| {
        let bits = u128::from(next_random(env)) << 64 | u128::from(next_random(env));
        let version = bits & !(0xf << 76) | 4 << 76;
        Ok(Value::Uuid(version & !(3 << 62) | 2 << 62))
    })
    .volatile(),
];

const AWAY: RoundingStrategy = RoundingStrategy::MidpointAwayFromZero;
const TO_ZERO: RoundingStrategy = RoundingStrategy::ToZero;

/// The next of the numbers that grow from the execution's seed (splitmix64).
fn next_random(env: &Env<'_>) -> u64 {
    let state = env.run.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    env.run.random.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn decimal(values: &[Value], position: usize) -> Decimal {
    match values.get(position) {
        Some(Value::Numeric(number)) => *number,
        _ => Decimal::ZERO,
    }
}

fn absolute(ty: Type, value: &Value) -> Answer {
    match value {
        Value::Int(number) if *number < 0 => arithmetic::negate(ty, value),
        Value::Float(number) => Ok(Value::Float(number.abs())),
        Value::Numeric(number) => Ok(Value::Numeric(number.abs())),
        other => Ok(other.clone()),
    }
}

fn modulo(ty: Type, values: &[Value]) -> Answer {
    arithmetic::calculate(ArithmeticOp::Modulo, ty, values[0].as_ref(), values[1].as_ref())
}

/// Rounds to digits after the point; negative digits round before it.
fn rounded(number: Decimal, digits: i64, strategy: RoundingStrategy) -> Value {
    if digits >= 0 {
        let scale = digits.min(28) as u32;
        let mut result = number.round_dp_with_strategy(scale, strategy);
        result.rescale(scale);
        return Value::Numeric(result);
    }
    let factor = (0..digits.unsigned_abs().min(28))
        .fold(Decimal::ONE, |factor, _| factor.checked_mul(Decimal::TEN).unwrap_or(Decimal::MAX));
    let scaled = number.checked_div(factor).unwrap_or_default().round_dp_with_strategy(0, strategy);
    Value::Numeric(scaled.checked_mul(factor).unwrap_or_default())
}

fn refuse(sqlstate: &'static str, message: &str) -> Result<(), SqlError> {
    Err(SqlError::new(sqlstate, message))
}

fn logarithm(number: f64) -> Result<(), SqlError> {
    if number.is_nan() {
        refuse(state::OUT_OF_RANGE, "value out of range")
    } else if number == 0.0 {
        refuse("2201E", "cannot take logarithm of zero")
    } else if number < 0.0 {
        refuse("2201E", "cannot take logarithm of a negative number")
    } else {
        Ok(())
    }
}
