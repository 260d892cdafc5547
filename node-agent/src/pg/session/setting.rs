//! A session's settings: where they come from, whom they are told, and the few that the session itself
//! obeys.
//!
//! Names, checks and defaults are the SQL crate's. The limits that are looked at often are kept as
//! durations and follow every change.

use super::{Failure, Session, notice::SET_LOCAL_OUTSIDE, reply, transaction::Block};
use crate::pg::{
    database::Database,
    registry::SessionGuard,
    reply::{Report, Severity},
    sqlstate,
};
use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use understudy_sql::{
    Clock, IsolationLevel, SequenceLog, SessionInfo, SessionSequences, SetScope, Settings,
    SqlError, TransactionModes, reported_settings,
};
use understudy_store::Txn;
use understudy_types::{Lsn, Role};

/// The PostgreSQL release whose protocol and SQL are spoken.
const SPOKEN_VERSION: &str = "15.10";

/// The one setting that only administrators change.
const SLOW: &str = "log_min_duration_statement";
/// Its default for new sessions: milliseconds, -1 for none.
pub(crate) const ENV_SLOW: &str = "UNDERSTUDY_LOG_MIN_DURATION_STATEMENT";

/// Limits in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// `statement_timeout`
    pub(super) statement: Option<Duration>,
    /// `lock_timeout`
    pub(super) lock: Option<Duration>,
    idle_session: Option<Duration>,
    idle_in_transaction: Option<Duration>,
    /// `log_min_duration_statement`, in microseconds
    pub(super) slow_micros: Option<i64>,
}

impl Limits {
    fn of(settings: &Settings) -> Limits {
        let limit = |name| match settings.milliseconds(name) {
            0 => None,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        };
        Limits {
            statement: limit("statement_timeout"),
            lock: limit("lock_timeout"),
            idle_session: limit("idle_session_timeout"),
            idle_in_transaction: limit("idle_in_transaction_session_timeout"),
            slow_micros: settings.slow_statement_micros(),
        }
    }
}

/// The commit section, for the small transactions that reserve a sequence's numbers.
struct Reservations(Arc<dyn Database>);

impl SequenceLog for Reservations {
    fn commit(&self, reservation: Txn) -> Result<Lsn, SqlError> {
        self.0.commit(reservation).map_err(|refused| {
            SqlError::new(refused.sqlstate(), refused.to_string()).with_hint(refused.hint())
        })
    }
}

/// What an execution may know of a new session.
pub(super) fn session_info(
    user: &str,
    guard: &SessionGuard,
    database: &Arc<dyn Database>,
) -> SessionInfo {
    let identity = database.identity();
    let sessions = Arc::clone(database.sessions());
    let ended = Arc::clone(&sessions);
    let admin = database.store().catalog().user(user).is_some_and(|user| user.admin);
    SessionInfo {
        user: user.to_owned(),
        admin,
        backend_pid: guard.pid(),
        in_recovery: database.role() != Role::Active,
        version: format!(
            "PostgreSQL {SPOKEN_VERSION} compatible, Understudy {} on {}",
            identity.version, identity.member
        ),
        database: identity.pair,
        clock: Clock::of(nanos, thread::sleep),
        sessions: understudy_sql::Sessions::told_by(
            move || sessions.activity(),
            move || ended.ended_transactions(),
        ),
        sequences: SessionSequences::reserved_by(Arc::new(Reservations(Arc::clone(database)))),
        ..SessionInfo::default()
    }
}

/// Nanoseconds since this was first asked.
fn nanos() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let since = BEGUN.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Session {
    /// Applies one setting of the start-up packet; it becomes the session's default.
    pub(super) fn start_with(&mut self, name: &str, value: &str) -> Result<(), Report> {
        self.may_set(name).map_err(|failure| match failure {
            Failure::Report(report) => report,
            Failure::End(_) => Report::error(sqlstate::PRIVILEGE, "the session is over"),
        })?;
        self.info.settings.start_with(name, value)?;
        self.apply_settings();
        Ok(())
    }

    /// The default of `log_min_duration_statement`, from the process's environment: the person who runs
    /// it is an administrator.
    pub(super) fn start_with_environment(&mut self) {
        let text = std::env::var(ENV_SLOW).ok().filter(|text| !text.is_empty());
        let start = |text: String| self.info.settings.start_with(SLOW, &text);
        if let Some(Err(error)) = text.map(start) {
            tracing::warn!(%error, "{ENV_SLOW} cannot be read; write milliseconds, or -1");
        }
        self.apply_settings();
    }

    /// 42501 for what only an administrator may set.
    fn may_set(&self, name: &str) -> Result<(), Failure> {
        if !name.eq_ignore_ascii_case(SLOW) || self.info.admin {
            return Ok(());
        }
        let message = format!("permission denied to set parameter \"{SLOW}\"");
        Err(Report::error(sqlstate::PRIVILEGE, message).into())
    }

    /// Appends the value of every setting that clients are told of at the start.
    pub(super) fn report_all_settings(&mut self) {
        for name in reported_settings() {
            let value = self.reported_value(name);
            reply::parameter_status(&mut self.output.bytes, name, &value);
        }
    }

    fn reported_value(&self, name: &str) -> String {
        match name {
            "server_version" => {
                format!("{SPOKEN_VERSION} (Understudy {})", self.database.identity().version)
            }
            // What the user set, as PostgreSQL reports it: a standby says so by in_hot_standby.
            "default_transaction_read_only" => {
                self.info.settings.get(name).unwrap_or("off").to_owned()
            }
            name => self.info.show(name).unwrap_or_default(),
        }
    }

    /// SET.
    pub(super) fn set(
        &mut self,
        scope: SetScope,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), Failure> {
        if self.set_of_transaction(name, value)? {
            return Ok(());
        }
        if scope == SetScope::Local
            && matches!(self.transaction.block, Block::None | Block::Implicit)
        {
            self.notice(&SET_LOCAL_OUTSIDE);
        }
        self.may_set(name)?;
        let is_reported = self.info.settings.set(scope, name, value)?;
        self.settings_changed();
        if is_reported {
            let name = reported_settings().find(|known| known.eq_ignore_ascii_case(name));
            if let Some(name) = name {
                let value = self.reported_value(name);
                reply::parameter_status(&mut self.output.bytes, name, &value);
            }
        }
        Ok(())
    }

    /// The names that stand for SET TRANSACTION. True when it was one of them.
    fn set_of_transaction(&mut self, name: &str, value: Option<&str>) -> Result<bool, Failure> {
        let mut modes = TransactionModes::default();
        let bad = |value: &str| {
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            Report::error(sqlstate::INVALID_PARAMETER, message)
        };
        match (name, value) {
            ("transaction_isolation", Some(value)) => {
                let level = IsolationLevel::from_name(value);
                modes.isolation = Some(level.ok_or_else(|| bad(value))?);
            }
            ("transaction_read_only", Some(value)) => {
                modes.read_only = Some(match value.to_ascii_lowercase().as_str() {
                    "on" | "true" | "yes" | "1" => true,
                    "off" | "false" | "no" | "0" => false,
                    _ => return Err(bad(value).into()),
                });
            }
            ("transaction_isolation" | "transaction_read_only", None) => {}
            _ => return Ok(false),
        }
        self.set_modes(modes)?;
        Ok(true)
    }

    /// RESET; None is ALL.
    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            Some(name) => self.set(SetScope::Session, name, None),
            None => {
                let told = self.reported_values();
                self.info.settings.reset_all();
                self.settings_changed();
                self.report_changes(&told);
                Ok(())
            }
        }
    }

    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    pub(super) fn set_characteristics(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        if let Some(isolation) = modes.isolation {
            let name = "default_transaction_isolation";
            self.set(SetScope::Session, name, Some(isolation.name()))?;
        }
        if let Some(read_only) = modes.read_only {
            let value = if read_only { "on" } else { "off" };
            self.set(SetScope::Session, "default_transaction_read_only", Some(value))?;
        }
        Ok(())
    }

    fn settings_changed(&mut self) {
        // A SET outside of a block is its own transaction.
        if self.transaction.block == Block::None {
            self.info.settings.commit();
        } else {
            self.transaction.has_settings = true;
        }
        self.apply_settings();
    }

    /// The block has ended: SET LOCAL ends with it, and SET if it was undone.
    pub(super) fn end_settings(&mut self, has_committed: HasCommitted) {
        if std::mem::take(&mut self.transaction.has_settings) {
            let told = self.reported_values();
            match has_committed {
                HasCommitted::Yes => self.info.settings.commit(),
                HasCommitted::No => self.info.settings.rollback(),
            }
            self.apply_settings();
            self.report_changes(&told);
        }
    }

    fn reported_values(&self) -> Vec<String> {
        reported_settings().map(|name| self.reported_value(name)).collect()
    }

    /// Tells the client what is no longer as it was told.
    fn report_changes(&mut self, told: &[String]) {
        for (name, told) in reported_settings().zip(told) {
            let value = self.reported_value(name);
            if value != *told {
                reply::parameter_status(&mut self.output.bytes, name, &value);
            }
        }
    }

    fn apply_settings(&mut self) {
        self.limits = Limits::of(&self.info.settings);
        let application = self.info.settings.get("application_name").unwrap_or_default();
        self.control.is_named(application);
        self.refresh_info();
    }

    /// `default_transaction_read_only`
    pub(super) fn is_read_only_by_default(&self) -> bool {
        self.info.settings.is_on("default_transaction_read_only")
    }

    /// Whether the client wants messages of this kind.
    pub(super) fn wants(&self, severity: Severity) -> bool {
        let level = self.info.settings.get("client_min_messages").unwrap_or("notice");
        match severity {
            Severity::Error | Severity::Fatal => true,
            Severity::Warning => !level.eq_ignore_ascii_case("error"),
            Severity::Notice => {
                !["error", "warning"].iter().any(|above| level.eq_ignore_ascii_case(above))
            }
        }
    }

    /// Brings what SHOW answers up to date with the transaction and the member; called when either
    /// changes.
    pub(super) fn refresh_info(&mut self) {
        self.info.in_recovery = self.told_role != Role::Active;
        self.info.read_only = self.is_read_only();
        self.info.isolation = self.isolation();
    }

    /// How long the session may be silent, and what it is told when that is over.
    pub(super) fn idle_limit(&self) -> Option<(Duration, (&'static str, &'static str))> {
        match self.transaction.block {
            Block::None | Block::Implicit => self.limits.idle_session.map(|limit| {
                let message = "terminating connection due to idle-session timeout";
                (limit, (sqlstate::IDLE_SESSION, message))
            }),
            Block::Explicit | Block::Failed => self.limits.idle_in_transaction.map(|limit| {
                let message = "terminating connection due to idle-in-transaction timeout";
                (limit, (sqlstate::IDLE_IN_TRANSACTION, message))
            }),
        }
    }
}

/// How a block ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasCommitted {
    /// Its changes stay.
    Yes,
    /// Its changes are undone.
    No,
}
