//! A session's settings (SET, SHOW, RESET) and what else an execution knows of its session.
//!
//! Known names have a default and a check; dotted names are free, as in PostgreSQL. SET inside a transaction
//! is undone by ROLLBACK, SET LOCAL ends with the transaction: the session calls [`Settings::commit`]
//! and [`Settings::rollback`]. Values nobody acts on are refused when they would change an answer.

use crate::{
    activity::Sessions,
    datetime,
    error::{SqlError, state},
    execute::measure::Clock,
    parse::{IsolationLevel, SetScope},
    sequence::SessionSequences,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

/// Version that clients see: features of this release's SQL are tested against it.
const SERVER_VERSION: &str = "15.0";
const SERVER_VERSION_NUM: &str = "150000";

/// What a value of a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Anything; nothing depends on it.
    Free,
    /// on or off.
    Bool,
    /// A whole number, or a time with a unit; kept as typed.
    Amount,
    /// One of these, any case.
    OneOf(&'static [&'static str]),
    /// A time zone.
    Zone,
    /// Computed from the session; SET is refused.
    Fixed,
}

/// A known setting.
struct Known {
    name: &'static str,
    default: &'static str,
    check: Check,
    /// Sent to clients as ParameterStatus when it changes.
    reported: bool,
    about: &'static str,
}

const fn known(
    name: &'static str,
    default: &'static str,
    check: Check,
    about: &'static str,
) -> Known {
    Known { name, default, check, reported: false, about }
}

const fn reported(
    name: &'static str,
    default: &'static str,
    check: Check,
    about: &'static str,
) -> Known {
    Known { name, default, check, reported: true, about }
}

const ISOLATION: Check =
    Check::OneOf(&["read committed", "read uncommitted", "repeatable read", "serializable"]);
const UTF8: Check = Check::OneOf(&["utf8", "utf-8", "unicode"]);

static KNOWN: &[Known] = &[
    reported("application_name", "", Check::Free, "The name that the application gives itself."),
    known("bytea_output", "hex", Check::OneOf(&["hex"]), "The output format for bytea."),
    reported("client_encoding", "UTF8", UTF8, "The client's character set."),
    known(
        "client_min_messages",
        "notice",
        Check::Free,
        "The level of messages sent to the client.",
    ),
    reported("datestyle", "ISO, MDY", Check::Free, "The display format of dates."),
    known("default_transaction_deferrable", "off", Check::Bool, "Accepted; nothing is deferred."),
    known(
        "default_transaction_isolation",
        "read committed",
        ISOLATION,
        "Isolation of new transactions.",
    ),
    reported(
        "default_transaction_read_only",
        "off",
        Check::Bool,
        "Whether new transactions are read-only.",
    ),
    known("durable_commit", "on", Check::Bool, "Whether a commit waits for the log on disk."),
    known("enable_hashjoin", "on", Check::Bool, "Accepted; joins are chosen by the planner."),
    known("enable_seqscan", "on", Check::Bool, "Accepted; access is chosen by the planner."),
    known(
        "extra_float_digits",
        "1",
        Check::Amount,
        "Doubles are always shown in shortest exact form.",
    ),
    known(
        "idle_in_transaction_session_timeout",
        "0",
        Check::Amount,
        "Longest idle time in a transaction.",
    ),
    reported(
        "in_hot_standby",
        "off",
        Check::Fixed,
        "Whether this member is a standby or subscriber.",
    ),
    reported("integer_datetimes", "on", Check::Fixed, "Timestamps are whole microseconds."),
    reported(
        "intervalstyle",
        "postgres",
        Check::OneOf(&["postgres"]),
        "The display format of intervals.",
    ),
    reported("is_superuser", "off", Check::Fixed, "Whether the user is an administrator."),
    known("jit", "off", Check::Bool, "Accepted; nothing is compiled."),
    known("lc_collate", "C", Check::Fixed, "Text is ordered by its bytes."),
    known("lc_ctype", "C", Check::Fixed, "Character classes are Unicode's."),
    known("lc_messages", "C", Check::Free, "The language of messages."),
    known("lock_timeout", "0", Check::Amount, "Longest wait for a lock."),
    known(
        "log_min_duration_statement",
        "-1",
        Check::Amount,
        "Statements that take as many milliseconds are logged; -1 for none.",
    ),
    known("max_identifier_length", "63", Check::Fixed, "Longest identifier."),
    known("row_security", "on", Check::Bool, "Accepted; there are no row policies."),
    known("search_path", "\"$user\", public", Check::Free, "Tables are looked up in public."),
    reported("server_encoding", "UTF8", Check::Fixed, "The server's character set."),
    reported("server_version", SERVER_VERSION, Check::Fixed, "The PostgreSQL version spoken."),
    known("server_version_num", SERVER_VERSION_NUM, Check::Fixed, "The same as a number."),
    reported("session_authorization", "", Check::Fixed, "The session's user."),
    reported(
        "standard_conforming_strings",
        "on",
        Check::OneOf(&["on"]),
        "Backslashes in '…' are literal.",
    ),
    known("statement_timeout", "0", Check::Amount, "Longest time of a statement."),
    known("synchronous_commit", "on", Check::Free, "Accepted; the pair's return service rules."),
    reported("timezone", "UTC", Check::Zone, "The time zone of timestamps with time zone."),
    known("transaction_isolation", "read committed", ISOLATION, "Isolation of this transaction."),
    known("transaction_read_only", "off", Check::Bool, "Whether this transaction is read-only."),
];

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(state::UNKNOWN_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// The settings of one session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// What the session began with; RESET goes back to it.
    start: BTreeMap<String, String>,
    session: BTreeMap<String, String>,
    local: BTreeMap<String, String>,
    /// What `session` was before the transaction changed it.
    before: Option<BTreeMap<String, String>>,
    /// Read off the above after each change: every statement asks for them.
    zone_offset: i32,
    default_isolation: IsolationLevel,
}

impl Settings {
    /// SET; None is SET … TO DEFAULT, which is what the session began with. Says whether clients must be told (ParameterStatus).
    ///
    /// # Errors
    /// 42704 for an unknown name, 22023 for a bad value, 55P02 for one that cannot be set.
    pub fn set(
        &mut self,
        scope: SetScope,
        name: &str,
        value: Option<&str>,
    ) -> Result<bool, SqlError> {
        let name = name.to_lowercase();
        let known = find(&name);
        if known.is_none() && !name.contains('.') {
            return Err(unknown(&name));
        }
        let checked = match (known, value) {
            (Some(known), Some(value)) => Some(check(known, value)?),
            (Some(known), None) if known.check == Check::Fixed => return Err(fixed(&name)),
            (None, Some(value)) => Some(value.to_owned()),
            (_, None) => None,
        };
        if self.before.is_none() {
            self.before = Some(self.session.clone());
        }
        let target = match scope {
            SetScope::Session => {
                self.local.remove(&name);
                &mut self.session
            }
            SetScope::Local => &mut self.local,
        };
        match (checked, known, scope) {
            (Some(value), _, _) => {
                target.insert(name.clone(), value);
            }
            (None, Some(known), SetScope::Local) => {
                let start = self.start.get(&name).map_or(known.default, String::as_str);
                target.insert(name.clone(), start.to_owned());
            }
            (None, _, _) => {
                target.remove(&name);
            }
        }
        self.refresh();
        Ok(known.is_some_and(|known| known.reported))
    }

    /// A value that the session begins with: from the start-up packet, or from the process's environment.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn start_with(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        self.set(SetScope::Session, name, Some(value))?;
        if let Some(checked) = self.session.remove(&name.to_lowercase()) {
            self.start.insert(name.to_lowercase(), checked);
        }
        self.commit();
        Ok(())
    }

    /// RESET ALL: every setting to what the session began with.
    pub fn reset_all(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.session.clone());
        }
        self.session.clear();
        self.local.clear();
        self.refresh();
    }

    /// The transaction committed: SET stays, SET LOCAL ends.
    pub fn commit(&mut self) {
        self.before = None;
        self.local.clear();
        self.refresh();
    }

    /// The transaction rolled back: both end.
    pub fn rollback(&mut self) {
        if let Some(before) = self.before.take() {
            self.session = before;
        }
        self.local.clear();
        self.refresh();
    }

    /// The value that was set, or the default; None for unknown names and for those the session
    /// computes (see [`SessionInfo::show`]).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let maps = [&self.local, &self.session, &self.start];
        let set = maps.into_iter().find_map(|map| map.get(name));
        set.map(String::as_str).or_else(|| find(name).map(|known| known.default))
    }

    /// Isolation of new transactions.
    #[must_use]
    pub fn default_isolation(&self) -> IsolationLevel {
        self.default_isolation
    }

    /// Whether a boolean setting is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("on")
    }

    /// A time setting in milliseconds; zero means none.
    #[must_use]
    pub fn milliseconds(&self, name: &str) -> u64 {
        self.get(name).and_then(milliseconds).unwrap_or(0)
    }

    /// Microseconds from which a statement counts as slow; None for never.
    #[must_use]
    pub fn slow_statement_micros(&self) -> Option<i64> {
        let text = self.get("log_min_duration_statement")?;
        i64::try_from(milliseconds(text)?.checked_mul(1000)?).ok()
    }

    /// Seconds east of UTC of the session's time zone.
    #[must_use]
    pub fn zone_offset(&self) -> i32 {
        self.zone_offset
    }

    fn refresh(&mut self) {
        self.zone_offset = self.get("timezone").and_then(datetime::named_zone_offset).unwrap_or(0);
        let isolation = self.get("default_transaction_isolation");
        self.default_isolation = isolation.and_then(IsolationLevel::from_name).unwrap_or_default();
    }
}

fn fixed(name: &str) -> SqlError {
    SqlError::new("55P02", format!("parameter \"{name}\" cannot be changed"))
}

fn check(known: &Known, value: &str) -> Result<String, SqlError> {
    let invalid = || {
        SqlError::new(
            state::INVALID_PARAMETER,
            format!("invalid value for parameter \"{}\": \"{value}\"", known.name),
        )
    };
    match known.check {
        Check::Free => Ok(value.to_owned()),
        Check::Bool => match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
            _ => Err(SqlError::new(
                state::INVALID_PARAMETER,
                format!("parameter \"{}\" requires a Boolean value", known.name),
            )),
        },
        Check::Amount => match milliseconds(value) {
            Some(_) => Ok(value.to_owned()),
            None => value.parse::<i64>().map(|_| value.to_owned()).map_err(|_| invalid()),
        },
        Check::OneOf(choices) => {
            let lower = value.to_ascii_lowercase();
            if !choices.contains(&lower.as_str()) {
                return Err(
                    invalid().with_hint(format!("Available values: {}.", choices.join(", ")))
                );
            }
            Ok(if known.name == "client_encoding" { "UTF8".to_owned() } else { lower })
        }
        Check::Zone => match (value.parse::<i32>(), datetime::named_zone_offset(value)) {
            // A bare number counts hours east, unlike the same number in a name.
            (Ok(hours), _) if (-15..=15).contains(&hours) && !value.starts_with('+') => {
                Ok(format!("<{hours:+03}>{:+03}", -hours))
            }
            (_, Some(_)) => Ok(value.to_owned()),
            (_, None) => Err(invalid().with_hint(
                "Time zones are UTC or fixed offsets such as <+02>-02 or a number of hours.",
            )),
        },
        Check::Fixed => Err(fixed(known.name)),
    }
}

fn milliseconds(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().ok()?;
    let factor = match value[digits.len()..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Names and values whose changes clients must be told, in the order of a start-up.
pub fn reported_settings() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(|known| known.reported).map(|known| display_name(known.name))
}

/// The spelling PostgreSQL reports: some names have capitals.
fn display_name(name: &'static str) -> &'static str {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
}

/// What an execution may know of its session.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Login name.
    pub user: String,
    /// Whether the user is an administrator.
    pub admin: bool,
    /// Name of the database.
    pub database: String,
    /// Number that cancel requests use.
    pub backend_pid: i32,
    /// Whether this member is a standby or a subscriber.
    pub in_recovery: bool,
    /// Whether the transaction (or this member) takes no writes.
    pub read_only: bool,
    /// The transaction's isolation level.
    pub isolation: IsolationLevel,
    /// Text of `version()`.
    pub version: String,
    /// When the engine started, microseconds since 2000-01-01 UTC.
    pub started_micros: i64,
    /// All sessions of this member.
    pub sessions: Sessions,
    /// For the times of EXPLAIN ANALYZE.
    pub clock: Clock,
    /// Set by whoever wants the running statement to end; it fails with 57014.
    pub stop: Arc<AtomicBool>,
    /// What it was given by sequences, and how numbers are reserved.
    pub sequences: SessionSequences,
    /// The settings.
    pub settings: Settings,
}

impl SessionInfo {
    /// The value SHOW gives.
    ///
    /// # Errors
    /// 42704 for an unknown name.
    pub fn show(&self, name: &str) -> Result<String, SqlError> {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        let name = name.to_lowercase();
        Ok(match name.as_str() {
            "transaction_read_only" => on_off(self.read_only || self.in_recovery),
            "default_transaction_read_only" if self.in_recovery => on_off(true),
            "in_hot_standby" => on_off(self.in_recovery),
            "transaction_isolation" => self.isolation.name().to_owned(),
            "is_superuser" => on_off(self.admin),
            "session_authorization" | "role" => self.user.clone(),
            other => self.settings.get(other).ok_or_else(|| unknown(other))?.to_owned(),
        })
    }

    /// Name, value and meaning of every known setting.
    pub fn show_all(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> + '_ {
        KNOWN.iter().map(|known| {
            let value = self.show(known.name).unwrap_or_default();
            (display_name(known.name), value, known.about)
        })
    }
}

impl Default for SessionInfo {
    fn default() -> SessionInfo {
        SessionInfo {
            user: String::new(),
            admin: false,
            database: String::new(),
            backend_pid: 0,
            in_recovery: false,
            read_only: false,
            isolation: IsolationLevel::ReadCommitted,
            version: format!("PostgreSQL {SERVER_VERSION} compatible, Understudy"),
            started_micros: 0,
            sessions: Sessions::default(),
            clock: Clock::default(),
            stop: Arc::default(),
            sequences: SessionSequences::default(),
            settings: Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_undone_by_rollback_and_set_local_ends_with_the_transaction() {
        let mut settings = Settings::default();
        settings.set(SetScope::Session, "application_name", Some("a")).unwrap();
        settings.commit();
        settings.set(SetScope::Session, "application_name", Some("b")).unwrap();
        settings.set(SetScope::Local, "lock_timeout", Some("2s")).unwrap();
        assert_eq!(settings.milliseconds("lock_timeout"), 2000);
        settings.rollback();
        assert_eq!(settings.get("application_name"), Some("a"));
        assert_eq!(settings.milliseconds("lock_timeout"), 0);
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        let mut settings = Settings::default();
        let mut set = |name, value| settings.set(SetScope::Session, name, Some(value));
        assert_eq!(set("no_such", "1").unwrap_err().sqlstate, state::UNKNOWN_OBJECT);
        assert_eq!(set("timezone", "Mars").unwrap_err().sqlstate, state::INVALID_PARAMETER);
        assert_eq!(set("server_version", "1").unwrap_err().sqlstate, "55P02");
        assert!(set("understudy.anything", "1").is_ok());
        assert_eq!(set("timezone", "2"), Ok(true));
        assert_eq!(settings.zone_offset(), 7200);
    }
}
