//! Dates, timestamps and intervals: civil calendar, text in and text out.
//!
//! Days and microseconds count from 2000-01-01, as in the store. The calendar is the proleptic Gregorian
//! one. Time zones are UTC and fixed offsets; named zones need a database and are deliberately absent.

use crate::error::{SqlError, state};

/// Microseconds of a day.
pub(crate) const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;

/// 2000-01-01 as days since 1970-01-01.
pub(crate) const EPOCH_2000: i64 = 10_957;

/// `infinity` and `-infinity` of timestamps.
pub(crate) const INFINITY: i64 = i64::MAX;
/// See [`INFINITY`].
pub(crate) const MINUS_INFINITY: i64 = i64::MIN;

/// Year, month and day of a day number.
pub(crate) fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + EPOCH_2000 + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The day number of a date that is known to exist.
pub(crate) fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - EPOCH_2000
}

/// How many days a month has.
pub(crate) fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2024-02-29`.
pub(crate) fn date_text(day: i32) -> String {
    match day {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        _ => {
            let (year, month, day) = civil(i64::from(day));
            if year > 0 {
                format!("{year:04}-{month:02}-{day:02}")
            } else {
                format!("{:04}-{month:02}-{day:02} BC", 1 - year)
            }
        }
    }
}

fn clock_text(micros: i64) -> String {
    let (hour, minute) = (micros / HOUR, micros % HOUR / MINUTE);
    let (second, fraction) = (micros % MINUTE / SECOND, micros % SECOND);
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text
}

/// `2024-02-29 12:00:00.5`.
pub(crate) fn timestamp_text(micros: i64) -> String {
    stamp(micros, "")
}

/// `2024-02-29 12:00:00.5+00`, at an offset from UTC in seconds.
pub(crate) fn timestamptz_text(micros: i64, offset: i32) -> String {
    if micros == INFINITY || micros == MINUS_INFINITY {
        return stamp(micros, "");
    }
    let size = offset.unsigned_abs();
    let mut zone = format!("{}{:02}", if offset < 0 { '-' } else { '+' }, size / 3600);
    if !size.is_multiple_of(3600) {
        zone.push_str(&format!(":{:02}", size % 3600 / 60));
    }
    stamp(micros + i64::from(offset) * SECOND, &zone)
}

fn stamp(micros: i64, zone: &str) -> String {
    match micros {
        INFINITY => "infinity".to_owned(),
        MINUS_INFINITY => "-infinity".to_owned(),
        _ => {
            let date = date_text(micros.div_euclid(DAY) as i32);
            let clock = clock_text(micros.rem_euclid(DAY));
            match date.strip_suffix(" BC") {
                Some(date) => format!("{date} {clock}{zone} BC"),
                None => format!("{date} {clock}{zone}"),
            }
        }
    }
}

/// A moment as typed: the parts that were found.
struct Moment {
    day: i64,
    micros: i64,
    offset: Option<i32>,
}

fn invalid(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        state::INVALID_DATETIME,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

fn out_of_range(text: &str) -> SqlError {
    SqlError::new(
        state::DATETIME_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

/// Reads a date.
pub(crate) fn parse_date(text: &str) -> Result<i32, SqlError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        "epoch" => return Ok(-EPOCH_2000 as i32),
        _ => {}
    }
    i32::try_from(parse_moment(text, "date")?.day).map_err(|_| out_of_range(text))
}

/// Reads a timestamp without time zone; a zone in the text is ignored, as PostgreSQL does.
pub(crate) fn parse_timestamp(text: &str) -> Result<i64, SqlError> {
    if let Some(special) = special_timestamp(text) {
        return Ok(special);
    }
    let moment = parse_moment(text, "timestamp")?;
    in_micros(&moment, text)
}

/// Reads a timestamp with time zone; without a zone the session's offset (seconds) holds.
pub(crate) fn parse_timestamptz(text: &str, offset: i32) -> Result<i64, SqlError> {
    if let Some(special) = special_timestamp(text) {
        return Ok(special);
    }
    let moment = parse_moment(text, "timestamp with time zone")?;
    let zone = i64::from(moment.offset.unwrap_or(offset)) * SECOND;
    in_micros(&moment, text)?.checked_sub(zone).ok_or_else(|| out_of_range(text))
}

fn special_timestamp(text: &str) -> Option<i64> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" => Some(INFINITY),
        "-infinity" => Some(MINUS_INFINITY),
        "epoch" => Some(-EPOCH_2000 * DAY),
        _ => None,
    }
}

fn in_micros(moment: &Moment, text: &str) -> Result<i64, SqlError> {
    let midnight = moment.day.checked_mul(DAY);
    midnight.and_then(|day| day.checked_add(moment.micros)).ok_or_else(|| out_of_range(text))
}

fn parse_moment(text: &str, type_name: &str) -> Result<Moment, SqlError> {
    let trimmed = text.trim();
    let (body, before_christ) =
        match trimmed.strip_suffix("BC").or_else(|| trimmed.strip_suffix("bc")) {
            Some(body) => (body.trim_end(), true),
            None => (trimmed, false),
        };
    let split = body.find([' ', 'T', 't']).unwrap_or(body.len());
    let (date, rest) = body.split_at(split);
    let rest = rest.trim_start_matches([' ', 'T', 't']);
    let (mut year, month, day) = date_fields(date).ok_or_else(|| invalid(type_name, text))?;
    if before_christ {
        year = 1 - year;
    }
    if !(1..=12).contains(&month) || day == 0 || day > month_length(year, month) {
        return Err(out_of_range(text));
    }
    let (micros, offset) = if rest.is_empty() {
        (0, None)
    } else {
        clock(rest).ok_or_else(|| invalid(type_name, text))?.ok_or_else(|| out_of_range(text))?
    };
    Ok(Moment { day: days(year, month, day), micros, offset })
}

fn date_fields(text: &str) -> Option<(i64, u32, u32)> {
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some((text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?));
    }
    let separator = if text.contains('-') { '-' } else { '/' };
    let fields: Vec<&str> = text.split(separator).collect();
    let [first, second, third] = fields.as_slice() else { return None };
    let number = |field: &str| -> Option<u32> {
        (!field.is_empty() && field.len() <= 2 && field.bytes().all(|b| b.is_ascii_digit()))
            .then(|| field.parse().ok())
            .flatten()
    };
    if (3..=6).contains(&first.len()) && first.bytes().all(|b| b.is_ascii_digit()) {
        return Some((first.parse().ok()?, number(second)?, number(third)?));
    }
    // The date style is ISO, MDY: month first when the year comes last.
    (third.len() == 4 && third.bytes().all(|b| b.is_ascii_digit()))
        .then(|| Some((third.parse().ok()?, number(first)?, number(second)?)))
        .flatten()
}

/// `HH:MM[:SS[.f]][zone]`. Outer None: malformed; inner None: a field is out of range.
#[expect(clippy::option_option, reason = "two kinds of refusal with different SQLSTATEs")]
fn clock(text: &str) -> Option<Option<(i64, Option<i32>)>> {
    let upper = text.to_ascii_uppercase();
    let end = upper
        .char_indices()
        .find(|(at, c)| *at > 0 && !(c.is_ascii_digit() || *c == ':' || *c == '.'))
        .map_or(upper.len(), |(at, _)| at);
    let (time, zone) = upper.split_at(end);
    let (zone, half) = match zone.trim() {
        "AM" => ("", Some(0)),
        "PM" => ("", Some(12)),
        other => (other, None),
    };
    let fields: Vec<&str> = time.split(':').collect();
    let (hour, minute, second) = match fields.as_slice() {
        [hour, minute] => (*hour, *minute, "0"),
        [hour, minute, second] => (*hour, *minute, *second),
        _ => return None,
    };
    let (mut hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    if let Some(shift) = half {
        hour = hour % 12 + shift;
    }
    let second: f64 = second.parse().ok()?;
    let micros = hour * HOUR + minute * MINUTE + (second * SECOND as f64).round() as i64;
    let offset = if zone.is_empty() { None } else { Some(zone_offset(zone)?) };
    let in_range = hour <= 24 && minute < 60 && second <= 60.0 && micros <= DAY;
    Some(in_range.then_some((micros, offset)))
}

/// Seconds east of UTC of `Z`, `UTC`, `GMT`, `+02`, `-03:30`, `+0530`.
pub(crate) fn zone_offset(zone: &str) -> Option<i32> {
    let upper = zone.trim().to_ascii_uppercase();
    if matches!(upper.as_str(), "Z" | "UTC" | "GMT" | "ETC/UTC" | "ETC/GMT" | "ZULU" | "UCT") {
        return Some(0);
    }
    let (sign, digits) = match upper.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(pair) => pair,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    let minutes = minutes.split(':').next().unwrap_or("0");
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Seconds east of UTC of a time zone's name. Signs are POSIX's: `+02` and `GMT+2` lie west of Greenwich.
pub(crate) fn named_zone_offset(name: &str) -> Option<i32> {
    let trimmed = name.trim();
    let spec = match trimmed.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((_, spec)) => spec,
        None if trimmed.starts_with(['+', '-']) => trimmed,
        None => {
            let upper = trimmed.to_ascii_uppercase();
            match ["UTC", "GMT"].iter().find_map(|known| upper.strip_prefix(known)) {
                Some("") => return Some(0),
                Some(spec) => return zone_offset(spec).map(|offset| -offset),
                None => return zone_offset(trimmed),
            }
        }
    };
    zone_offset(spec).map(|offset| -offset)
}

/// A span of time: months and days do not have a fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interval {
    pub(crate) months: i64,
    pub(crate) days: i64,
    pub(crate) micros: i64,
}

impl Interval {
    /// Reads `1 year 2 mons -3 days 04:05:06.5`, `1 day ago`, `P1Y2M`, or a bare number with `unit`.
    pub(crate) fn parse(text: &str) -> Result<Interval, SqlError> {
        Interval::read(text).ok_or_else(|| invalid("interval", text))
    }

    fn read(text: &str) -> Option<Interval> {
        let lower = text.trim().to_ascii_lowercase();
        let (body, ago) = match lower.strip_suffix("ago") {
            Some(body) => (body, true),
            None => (lower.as_str(), false),
        };
        let spaced = spaced_units(body);
        let mut words = spaced.split_whitespace().filter(|word| *word != "@").peekable();
        words.peek()?;
        let mut total = Interval::default();
        while let Some(word) = words.next() {
            if word.contains(':') {
                let (sign, clock_part) = match word.strip_prefix('-') {
                    Some(rest) => (-1, rest),
                    None => (1, word.trim_start_matches('+')),
                };
                let (micros, _) = clock(clock_part)??;
                total.micros += sign * micros;
                continue;
            }
            let amount: f64 = word.parse().ok()?;
            let unit = words.next().unwrap_or("seconds");
            total.add_unit(amount, unit)?;
        }
        Some(if ago { total.negated() } else { total })
    }

    fn add_unit(&mut self, amount: f64, unit: &str) -> Option<()> {
        let micros_per = match unit.trim_end_matches('s') {
            "microsecond" | "u" | "usec" => 1.0,
            "millisecond" | "m_" | "msec" => 1000.0,
            "second" | "sec" | "" => SECOND as f64,
            "minute" | "min" | "m" => MINUTE as f64,
            "hour" | "hr" | "h" => HOUR as f64,
            "day" | "d" => {
                self.days += amount.trunc() as i64;
                self.micros += (amount.fract() * DAY as f64).round() as i64;
                return Some(());
            }
            "week" | "w" => return self.add_unit(amount * 7.0, "days"),
            "month" | "mon" => {
                self.months += amount.trunc() as i64;
                let days = amount.fract() * 30.0;
                return if days == 0.0 { Some(()) } else { self.add_unit(days, "days") };
            }
            "year" | "yr" | "y" => {
                self.months += (amount * 12.0).round() as i64;
                return Some(());
            }
            "decade" => return self.add_unit(amount * 10.0, "years"),
            "century" | "centurie" => return self.add_unit(amount * 100.0, "years"),
            _ => return None,
        };
        self.micros += (amount * micros_per).round() as i64;
        Some(())
    }

    pub(crate) fn negated(self) -> Interval {
        Interval { months: -self.months, days: -self.days, micros: -self.micros }
    }

    /// PostgreSQL's own style: `1 year 2 mons 3 days 04:05:06.5`.
    pub(crate) fn text(self) -> String {
        let mut words = Vec::new();
        let mut push = |amount: i64, one: &str, many: &str| {
            if amount != 0 {
                words.push(format!("{amount} {}", if amount == 1 { one } else { many }));
            }
        };
        push(self.months / 12, "year", "years");
        push(self.months % 12, "mon", "mons");
        push(self.days, "day", "days");
        if self.micros != 0 || words.is_empty() {
            let sign = if self.micros < 0 { "-" } else { "" };
            words.push(format!("{sign}{}", clock_text(self.micros.abs())));
        }
        words.join(" ")
    }

    /// The moment this span later: months first, then days, then the clock.
    pub(crate) fn added_to(self, micros: i64) -> Result<i64, SqlError> {
        if micros == INFINITY || micros == MINUS_INFINITY {
            return Ok(micros);
        }
        let overflow =
            || SqlError::new(state::DATETIME_OVERFLOW, "timestamp out of range".to_owned());
        let (mut day, clock) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
        if self.months != 0 {
            let (year, month, day_of_month) = civil(day);
            let months = year * 12 + i64::from(month) - 1 + self.months;
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
            day = days(year, month, day_of_month.min(month_length(year, month)));
        }
        let moved = day.checked_add(self.days).and_then(|day| day.checked_mul(DAY));
        moved
            .and_then(|midnight| midnight.checked_add(clock)?.checked_add(self.micros))
            .ok_or_else(overflow)
    }
}

/// Puts blanks between numbers and units, so that `1day` and `2h30m` read like `1 day`.
fn spaced_units(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 8);
    let mut previous = ' ';
    for character in text.chars() {
        let digit = character.is_ascii_digit() || matches!(character, '+' | '-');
        if (previous.is_ascii_digit() && character.is_ascii_alphabetic())
            || (previous.is_ascii_alphabetic() && digit)
        {
            spaced.push(' ');
        }
        spaced.push(character);
        previous = character;
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_long_span_survives_the_calendar() {
        for day in (-800_000..800_000).step_by(37) {
            let (year, month, number) = civil(day);
            assert_eq!(days(year, month, number), day);
        }
        assert_eq!(civil(0), (2000, 1, 1));
        assert_eq!(date_text(parse_date("2024-02-29").unwrap()), "2024-02-29");
        assert_eq!(parse_date("2023-02-29").unwrap_err().sqlstate, state::DATETIME_OVERFLOW);
    }

    #[test]
    fn timestamps_keep_zone_and_fraction() {
        let micros = parse_timestamptz("2024-05-06 07:08:09.5+02", 0).unwrap();
        assert_eq!(timestamptz_text(micros, 0), "2024-05-06 05:08:09.5+00");
        assert_eq!(timestamptz_text(micros, 19_800), "2024-05-06 10:38:09.5+05:30");
        assert_eq!(
            timestamp_text(parse_timestamp("1999-12-31T23:59:59").unwrap()),
            "1999-12-31 23:59:59"
        );
    }

    #[test]
    fn intervals_move_by_calendar_months() {
        let start = parse_timestamp("2024-01-31").unwrap();
        let later = Interval::parse("1 month 1 day 2h").unwrap().added_to(start).unwrap();
        assert_eq!(timestamp_text(later), "2024-03-01 02:00:00");
        assert_eq!(Interval::parse("-1 days 02:00").unwrap().text(), "-1 days 02:00:00");
        assert_eq!(Interval::parse("90 minutes").unwrap().text(), "01:30:00");
    }
}
