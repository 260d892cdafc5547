//! Functions on dates, timestamps and intervals.

use super::{Function, float, int, text};
use crate::{
    datetime::{self, DAY, Interval},
    error::{SqlError, state},
    eval::Env,
    types::Type::{Date, Float8, Int4, Interval as Span, Text, Timestamp, Timestamptz},
};
use understudy_store::Value;

type Answer = Result<Value, SqlError>;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("now", &[], Timestamptz, |_, env| Ok(Value::Timestamptz(started(env)))).stable(),
    Function::new("transaction_timestamp", &[], Timestamptz, |_, env| {
        Ok(Value::Timestamptz(started(env)))
    })
    .stable(),
    Function::new("current_timestamp", &[], Timestamptz, |_, env| {
        Ok(Value::Timestamptz(started(env)))
    })
    .stable(),
    Function::new("statement_timestamp", &[], Timestamptz, |_, env| {
        Ok(Value::Timestamptz(env.run.context.statement_micros))
    })
    .stable(),
    Function::new("clock_timestamp", &[], Timestamptz, |_, env| {
        Ok(Value::Timestamptz(env.run.context.statement_micros))
    })
    .stable(),
    Function::new("localtimestamp", &[], Timestamp, |_, env| Ok(Value::Timestamp(local(env))))
        .stable(),
    Function::new("current_date", &[], Date, |_, env| {
        Ok(Value::Date(local(env).div_euclid(DAY) as i32))
    })
    .stable(),
    Function::new("date_part", &[Text, Timestamptz], Float8, |v, env| {
        part(text(v, 0), &shifted(&v[1], env), env).map(Value::Float)
    })
    .stable(),
    Function::new("date_part", &[Text, Timestamp], Float8, |v, env| {
        part(text(v, 0), &v[1], env).map(Value::Float)
    }),
    Function::new("date_part", &[Text, Date], Float8, |v, env| {
        part(text(v, 0), &midnight(&v[1]), env).map(Value::Float)
    }),
    Function::new("date_part", &[Text, Span], Float8, |v, _| {
        span_part(text(v, 0), text(v, 1)).map(Value::Float)
    }),
    Function::new("date_trunc", &[Text, Timestamptz], Timestamptz, |v, env| {
        let zone = i64::from(env.run.context.session.settings.zone_offset()) * 1_000_000;
        let local = micros(&shifted(&v[1], env));
        Ok(Value::Timestamptz(truncated(text(v, 0), local)? - zone))
    })
    .stable(),
    Function::new("date_trunc", &[Text, Timestamp], Timestamp, |v, _| {
        Ok(Value::Timestamp(truncated(text(v, 0), micros(&v[1]))?))
    }),
    Function::new("make_date", &[Int4, Int4, Int4], Date, |v, _| make_date(v)),
    Function::new("to_timestamp", &[Float8], Timestamptz, |v, _| {
        let micros = (float(v, 0) * 1e6).round();
        Ok(Value::Timestamptz(micros as i64 - datetime::EPOCH_2000 * DAY))
    }),
    Function::new("age", &[Timestamptz, Timestamptz], Span, |v, _| Ok(age(&v[0], &v[1]))),
    Function::new("age", &[Timestamp, Timestamp], Span, |v, _| Ok(age(&v[0], &v[1]))),
    Function::new("timezone", &[Text, Timestamptz], Timestamp, |v, _| {
        Ok(Value::Timestamp(micros(&v[1]) + zone(text(v, 0))?))
    }),
    Function::new("timezone", &[Text, Timestamp], Timestamptz, |v, _| {
        Ok(Value::Timestamptz(micros(&v[1]) - zone(text(v, 0))?))
    }),
];

fn started(env: &Env<'_>) -> i64 {
    env.run.context.transaction_micros
}

fn local(env: &Env<'_>) -> i64 {
    started(env) + i64::from(env.run.context.session.settings.zone_offset()) * 1_000_000
}

fn micros(value: &Value) -> i64 {
    match value {
        Value::Timestamp(micros) | Value::Timestamptz(micros) => *micros,
        _ => 0,
    }
}

fn shifted(value: &Value, env: &Env<'_>) -> Value {
    let zone = i64::from(env.run.context.session.settings.zone_offset()) * 1_000_000;
    Value::Timestamptz(micros(value).saturating_add(zone))
}

fn midnight(value: &Value) -> Value {
    match value {
        Value::Date(day) => Value::Timestamp(i64::from(*day) * DAY),
        _ => Value::Null,
    }
}

fn zone(name: &str) -> Result<i64, SqlError> {
    let offset = datetime::named_zone_offset(name).ok_or_else(|| {
        SqlError::new(state::INVALID_PARAMETER, format!("time zone \"{name}\" not recognized"))
    })?;
    Ok(i64::from(offset) * 1_000_000)
}

fn unknown_unit(unit: &str, what: &str) -> SqlError {
    SqlError::new(
        state::INVALID_PARAMETER,
        format!("unit \"{unit}\" not recognized for type {what}"),
    )
}

/// A field of a local moment; `epoch` of a timestamptz counts from UTC.
fn part(unit: &str, value: &Value, env: &Env<'_>) -> Result<f64, SqlError> {
    let local = micros(value);
    let (day, clock) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let (year, month, day_of_month) = datetime::civil(day);
    let seconds = (clock % 60_000_000) as f64 / 1e6;
    let weekday = (day + 6).rem_euclid(7);
    Ok(match unit.to_ascii_lowercase().trim_end_matches('s') {
        "year" => year as f64,
        "month" => f64::from(month),
        "day" => f64::from(day_of_month),
        "hour" => (clock / 3_600_000_000) as f64,
        "minute" => (clock / 60_000_000 % 60) as f64,
        "second" => seconds,
        "millisecond" => seconds * 1e3,
        "microsecond" => (clock % 60_000_000) as f64,
        "dow" => weekday as f64,
        "isodow" => {
            if weekday == 0 {
                7.0
            } else {
                weekday as f64
            }
        }
        "doy" => (day - datetime::days(year, 1, 1) + 1) as f64,
        "quarter" => f64::from((month - 1) / 3 + 1),
        "week" => iso_week(day) as f64,
        "decade" => year.div_euclid(10) as f64,
        "century" => ((year - 1).div_euclid(100) + 1) as f64,
        "epoch" => {
            let zone = match value {
                Value::Timestamptz(_) => env.run.context.session.settings.zone_offset(),
                _ => 0,
            };
            (local - i64::from(zone) * 1_000_000 + datetime::EPOCH_2000 * DAY) as f64 / 1e6
        }
        _ => return Err(unknown_unit(unit, "timestamp")),
    })
}

fn iso_week(day: i64) -> i64 {
    // The week of a day is that of its Thursday.
    let thursday = day - (day + 5).rem_euclid(7) + 3;
    let (year, _, _) = datetime::civil(thursday);
    (thursday - datetime::days(year, 1, 1)) / 7 + 1
}

fn span_part(unit: &str, span: &str) -> Result<f64, SqlError> {
    let span = Interval::parse(span)?;
    Ok(match unit.to_ascii_lowercase().trim_end_matches('s') {
        "year" => (span.months / 12) as f64,
        "month" => (span.months % 12) as f64,
        "day" => span.days as f64,
        "hour" => (span.micros / 3_600_000_000) as f64,
        "minute" => (span.micros / 60_000_000 % 60) as f64,
        "second" => (span.micros % 60_000_000) as f64 / 1e6,
        "epoch" => {
            let days = span.months as f64 / 12.0 * 365.25 + span.days as f64;
            days * 86_400.0 + span.micros as f64 / 1e6
        }
        _ => return Err(unknown_unit(unit, "interval")),
    })
}

fn truncated(unit: &str, micros: i64) -> Result<i64, SqlError> {
    let (day, clock) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, _) = datetime::civil(day);
    let start = |year, month| datetime::days(year, month, 1) * DAY;
    Ok(match unit.to_ascii_lowercase().trim_end_matches('s') {
        "microsecond" => micros,
        "millisecond" => micros - clock.rem_euclid(1_000),
        "second" => micros - clock.rem_euclid(1_000_000),
        "minute" => micros - clock.rem_euclid(60_000_000),
        "hour" => micros - clock.rem_euclid(3_600_000_000),
        "day" => day * DAY,
        "week" => (day - (day + 5).rem_euclid(7)) * DAY,
        "month" => start(year, month),
        "quarter" => start(year, (month - 1) / 3 * 3 + 1),
        "year" => start(year, 1),
        "decade" => start(year.div_euclid(10) * 10, 1),
        "century" => start((year - 1).div_euclid(100) * 100 + 1, 1),
        _ => return Err(unknown_unit(unit, "timestamp")),
    })
}

fn make_date(values: &[Value]) -> Answer {
    let (year, month, day) = (int(values, 0), int(values, 1), int(values, 2));
    let valid = (1..=12).contains(&month)
        && day >= 1
        && day <= i64::from(datetime::month_length(year, month as u32));
    if !valid {
        return Err(SqlError::new(
            state::DATETIME_OVERFLOW,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        ));
    }
    Ok(Value::Date(datetime::days(year, month as u32, day as u32) as i32))
}

/// Years, months and days between two moments, by the calendar.
fn age(later: &Value, earlier: &Value) -> Value {
    let (a, b) = (micros(later), micros(earlier));
    let ((later, earlier), negative) = if a >= b { ((a, b), false) } else { ((b, a), true) };
    let fields = |micros: i64| {
        let (year, month, day) = datetime::civil(micros.div_euclid(DAY));
        (year, i64::from(month), i64::from(day), micros.rem_euclid(DAY))
    };
    let (ya, ma, da, ca) = fields(later);
    let (yb, mb, db, cb) = fields(earlier);
    let (mut months, mut days, mut clock) = ((ya - yb) * 12 + ma - mb, da - db, ca - cb);
    if clock < 0 {
        clock += DAY;
        days -= 1;
    }
    if days < 0 {
        days += i64::from(datetime::month_length(yb, mb as u32));
        months -= 1;
    }
    let span = Interval { months, days, micros: clock };
    Value::text(if negative { span.negated() } else { span }.text())
}
