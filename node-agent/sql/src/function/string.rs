//! Functions on text and bytes.

use super::{Function, int, text};
use crate::{
    error::{SqlError, state},
    eval::Env,
    names, pattern,
    types::Type::{Bool, Bpchar, Bytea, Int4, Text, Unknown},
};
use understudy_store::Value;

type Answer = Result<Value, SqlError>;

/// Longest text that a function or `||` may make: 1 GiB as in PostgreSQL would outgrow our rows.
const MADE_MAX: usize = 64 * 1024 * 1024;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("lower", &[Text], Text, |v, _| Ok(Value::text(text(v, 0).to_lowercase()))),
    Function::new("upper", &[Text], Text, |v, _| Ok(Value::text(text(v, 0).to_uppercase()))),
    Function::new("initcap", &[Text], Text, |v, _| Ok(Value::text(initcap(text(v, 0))))),
    Function::new("length", &[Text], Int4, |v, _| count(text(v, 0).chars().count())),
    Function::new("length", &[Bpchar], Int4, |v, _| {
        count(text(v, 0).trim_end_matches(' ').chars().count())
    }),
    Function::new("length", &[Bytea], Int4, |v, _| count(bytes(v, 0).len())),
    Function::new("char_length", &[Text], Int4, |v, _| count(text(v, 0).chars().count())),
    Function::new("character_length", &[Text], Int4, |v, _| count(text(v, 0).chars().count())),
    Function::new("octet_length", &[Text], Int4, |v, _| count(text(v, 0).len())),
    Function::new("octet_length", &[Bytea], Int4, |v, _| count(bytes(v, 0).len())),
    Function::new("bit_length", &[Text], Int4, |v, _| count(text(v, 0).len() * 8)),
    Function::new("substring", &[Text, Int4], Text, |v, _| {
        Ok(Value::text(substring(text(v, 0), int(v, 1), None)?))
    }),
    Function::new("substring", &[Text, Int4, Int4], Text, |v, _| {
        Ok(Value::text(substring(text(v, 0), int(v, 1), Some(int(v, 2)))?))
    }),
    Function::new("substring", &[Text, Text], Text, |v, _| {
        let found = pattern::Regex::new(text(v, 1))?.find(text(v, 0));
        Ok(found.map_or(Value::Null, |(from, to)| {
            Value::text(text(v, 0).chars().skip(from).take(to - from).collect::<String>())
        }))
    }),
    Function::new("substr", &[Text, Int4], Text, |v, _| {
        Ok(Value::text(substring(text(v, 0), int(v, 1), None)?))
    }),
    Function::new("substr", &[Text, Int4, Int4], Text, |v, _| {
        Ok(Value::text(substring(text(v, 0), int(v, 1), Some(int(v, 2)))?))
    }),
    Function::new("left", &[Text, Int4], Text, |v, _| {
        let kept = edge(text(v, 0), int(v, 1));
        Ok(Value::text(text(v, 0).chars().take(kept).collect::<String>()))
    }),
    Function::new("right", &[Text, Int4], Text, |v, _| {
        let kept = edge(text(v, 0), int(v, 1));
        let skipped = text(v, 0).chars().count() - kept;
        Ok(Value::text(text(v, 0).chars().skip(skipped).collect::<String>()))
    }),
    Function::new("strpos", &[Text, Text], Int4, |v, _| position(text(v, 0), text(v, 1))),
    Function::new("position", &[Text, Text], Int4, |v, _| position(text(v, 1), text(v, 0))),
    Function::new("replace", &[Text, Text, Text], Text, |v, _| {
        let (whole, from, to) = (text(v, 0), text(v, 1), text(v, 2));
        if from.is_empty() {
            return Ok(Value::text(whole));
        }
        let grows = to.len().saturating_sub(from.len());
        made(whole.len().saturating_add(grows.saturating_mul(whole.matches(from).count())))?;
        Ok(Value::text(whole.replace(from, to)))
    }),
    Function::new("translate", &[Text, Text, Text], Text, |v, _| {
        Ok(Value::text(translate(text(v, 0), text(v, 1), text(v, 2))))
    }),
    Function::new("reverse", &[Text], Text, |v, _| {
        Ok(Value::text(text(v, 0).chars().rev().collect::<String>()))
    }),
    Function::new("repeat", &[Text, Int4], Text, |v, _| {
        let times = usize::try_from(int(v, 1)).unwrap_or(0);
        made(text(v, 0).len().saturating_mul(times))?;
        Ok(Value::text(text(v, 0).repeat(times)))
    }),
    Function::new("lpad", &[Text, Int4], Text, |v, _| pad(text(v, 0), int(v, 1), " ", Side::Left)),
    Function::new("lpad", &[Text, Int4, Text], Text, |v, _| {
        pad(text(v, 0), int(v, 1), text(v, 2), Side::Left)
    }),
    Function::new("rpad", &[Text, Int4], Text, |v, _| pad(text(v, 0), int(v, 1), " ", Side::Right)),
    Function::new("rpad", &[Text, Int4, Text], Text, |v, _| {
        pad(text(v, 0), int(v, 1), text(v, 2), Side::Right)
    }),
    Function::new("btrim", &[Text], Text, |v, _| Ok(Value::text(text(v, 0).trim_matches(' ')))),
    Function::new("btrim", &[Text, Text], Text, |v, _| {
        Ok(Value::text(text(v, 0).trim_matches(|c| text(v, 1).contains(c))))
    }),
    Function::new("ltrim", &[Text], Text, |v, _| {
        Ok(Value::text(text(v, 0).trim_start_matches(' ')))
    }),
    Function::new("ltrim", &[Text, Text], Text, |v, _| {
        Ok(Value::text(text(v, 0).trim_start_matches(|c| text(v, 1).contains(c))))
    }),
    Function::new("rtrim", &[Text], Text, |v, _| Ok(Value::text(text(v, 0).trim_end_matches(' ')))),
    Function::new("rtrim", &[Text, Text], Text, |v, _| {
        Ok(Value::text(text(v, 0).trim_end_matches(|c| text(v, 1).contains(c))))
    }),
    Function::new("split_part", &[Text, Text, Int4], Text, |v, _| split_part(v)),
    Function::new("starts_with", &[Text, Text], Bool, |v, _| {
        Ok(Value::Bool(text(v, 0).starts_with(text(v, 1))))
    }),
    Function::new("ascii", &[Text], Int4, |v, _| {
        Ok(Value::Int(text(v, 0).chars().next().map_or(0, |c| i64::from(c as u32))))
    }),
    Function::new("chr", &[Int4], Text, |v, _| {
        let character = u32::try_from(int(v, 0)).ok().filter(|n| *n != 0).and_then(char::from_u32);
        character.map(|c| Value::text(c.to_string())).ok_or_else(|| {
            SqlError::new(
                "54000",
                format!("requested character not valid for encoding: {}", int(v, 0)),
            )
        })
    }),
    Function::new("concat", &[Unknown], Text, |v, env| Ok(Value::text(concat(v, env))))
        .stable()
        .variadic(),
    Function::new("concat_ws", &[Text, Unknown], Text, concat_ws).stable().variadic(),
    Function::new("md5", &[Text], Text, |v, _| Ok(digest(text(v, 0).as_bytes()))),
    Function::new("md5", &[Bytea], Text, |v, _| Ok(digest(bytes(v, 0)))),
    Function::new("quote_ident", &[Text], Text, |v, _| Ok(Value::text(names::quoted(text(v, 0))))),
    Function::new("quote_literal", &[Text], Text, |v, _| {
        Ok(Value::text(format!("'{}'", text(v, 0).replace('\'', "''"))))
    }),
    Function::new("encode", &[Bytea, Text], Text, |v, _| match text(v, 1) {
        "hex" => {
            let digits: String = bytes(v, 0).iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Value::text(digits))
        }
        other => Err(SqlError::unsupported(format!("the encoding {other}"))),
    }),
    Function::new("regexp_replace", &[Text, Text, Text], Text, |v, _| {
        let found = pattern::Regex::new(text(v, 1))?.find(text(v, 0));
        if text(v, 2).contains('\\') {
            return Err(SqlError::unsupported("a back reference in regexp_replace"));
        }
        Ok(found.map_or_else(
            || Value::text(text(v, 0)),
            |(from, to)| {
                let head: String = text(v, 0).chars().take(from).collect();
                let tail: String = text(v, 0).chars().skip(to).collect();
                Value::text(format!("{head}{}{tail}", text(v, 2)))
            },
        ))
    }),
];

fn bytes(values: &[Value], position: usize) -> &[u8] {
    match values.get(position) {
        Some(Value::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

fn count(number: usize) -> Answer {
    Ok(Value::Int(number as i64))
}

/// Refuses a length that no text may have.
pub(crate) fn made(length: usize) -> Result<(), SqlError> {
    if length <= MADE_MAX {
        return Ok(());
    }
    Err(SqlError::new("54000", "requested length too large"))
}

fn digest(bytes: &[u8]) -> Value {
    Value::text(format!("{:x}", md5::compute(bytes)))
}

fn initcap(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let cased: Vec<char> =
                if start { c.to_uppercase().collect() } else { c.to_lowercase().collect() };
            start = !c.is_alphanumeric();
            cased
        })
        .collect()
}

fn substring(text: &str, from: i64, length: Option<i64>) -> Result<String, SqlError> {
    let end = match length {
        Some(length) if length < 0 => {
            return Err(SqlError::new(
                state::SUBSTRING_ERROR,
                "negative substring length not allowed",
            ));
        }
        Some(length) => from.saturating_add(length),
        None => i64::MAX,
    };
    let skipped = from.max(1) - 1;
    let kept = (end - 1).saturating_sub(skipped).max(0);
    let (skipped, kept) = (skipped as usize, usize::try_from(kept).unwrap_or(usize::MAX));
    Ok(text.chars().skip(skipped).take(kept).collect())
}

/// How many characters `left(text, n)` keeps; negative counts from the other end.
fn edge(text: &str, wanted: i64) -> usize {
    let length = text.chars().count() as i64;
    let kept = if wanted < 0 { length + wanted } else { wanted };
    kept.clamp(0, length) as usize
}

fn position(text: &str, wanted: &str) -> Answer {
    let found = text.find(wanted).map_or(0, |at| text[..at].chars().count() + 1);
    count(found)
}

fn translate(text: &str, from: &str, to: &str) -> String {
    let to: Vec<char> = to.chars().collect();
    text.chars()
        .filter_map(|c| match from.chars().position(|known| known == c) {
            Some(at) => to.get(at).copied(),
            None => Some(c),
        })
        .collect()
}

enum Side {
    Left,
    Right,
}

fn pad(text: &str, length: i64, fill: &str, side: Side) -> Answer {
    let length = usize::try_from(length).unwrap_or(0);
    made(length)?;
    let present = text.chars().count();
    if present >= length || fill.is_empty() {
        return Ok(Value::text(text.chars().take(length).collect::<String>()));
    }
    let padding: String = fill.chars().cycle().take(length - present).collect();
    Ok(Value::text(match side {
        Side::Left => format!("{padding}{text}"),
        Side::Right => format!("{text}{padding}"),
    }))
}

fn split_part(values: &[Value]) -> Answer {
    let (whole, separator, wanted) = (text(values, 0), text(values, 1), int(values, 2));
    if wanted == 0 {
        return Err(SqlError::new(state::INVALID_PARAMETER, "field position must not be zero"));
    }
    let parts: Vec<&str> =
        if separator.is_empty() { vec![whole] } else { whole.split(separator).collect() };
    let at = if wanted > 0 { wanted - 1 } else { parts.len() as i64 + wanted };
    let part = usize::try_from(at).ok().and_then(|at| parts.get(at).copied());
    Ok(Value::text(part.unwrap_or("")))
}

fn concat(values: &[Value], env: &Env<'_>) -> String {
    let zone = env.run.context.session.settings.zone_offset();
    values
        .iter()
        .map(|value| crate::text::shown(value.as_ref(), crate::types::Type::Float8, zone))
        .collect()
}

fn concat_ws(values: &[Value], env: &Env<'_>) -> Answer {
    if values.first().is_none_or(Value::is_null) {
        return Ok(Value::Null);
    }
    let zone = env.run.context.session.settings.zone_offset();
    let parts: Vec<String> = values[1..]
        .iter()
        .filter(|value| !value.is_null())
        .map(|value| {
            crate::text::shown(value.as_ref(), crate::types::Type::Float8, zone).into_owned()
        })
        .collect();
    Ok(Value::text(parts.join(text(values, 0))))
}
