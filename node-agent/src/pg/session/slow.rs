//! The log of slow statements: `log_min_duration_statement`.
//!
//! A statement's time is from its first message to the end of its answer, the wait for the acknowledgement of
//! its commit included. One line with its text and without the values of its parameters; a text that
//! names a password is not logged at all, for it may hold one.
//!
//! Caveat: statements that are sent before the answer of the one before share one wait for the
//! acknowledgement, which counts for the last of them.

use super::Session;
use crate::pg::database::Noted;

/// Most of a text that is logged, in bytes.
const TEXT_MAX: usize = 8 << 10;

impl Session {
    /// Logs the statement in hand, once, when it has taken too long by now.
    #[cold]
    pub(super) fn judge_duration(&mut self, now_micros: i64) {
        let Some(limit) = self.limits.slow_micros else { return };
        let micros = now_micros - self.statement_micros;
        if micros < limit || self.logged_micros == self.statement_micros {
            return;
        }
        self.logged_micros = self.statement_micros;
        self.database.note(Noted::SlowStatement);
        tracing::info!(
            duration_ms = micros as f64 / 1e3,
            statement = shown(&self.told_text),
            user = self.info.user,
            database = self.info.database,
            pid = self.guard.pid(),
            "slow statement"
        );
    }
}

/// The text as it may be logged.
fn shown(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    // CREATE USER … IDENTIFIED BY is the original's way to write one.
    if lower.contains("password") || lower.contains("identified") {
        return "(not shown: it names a password)";
    }
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_never_shows_a_password() {
        assert_eq!(shown("SELECT 1"), "SELECT 1");
        assert_eq!(shown("alter user a PassWord 'x'"), "(not shown: it names a password)");
        assert_eq!(shown("CREATE USER a IDENTIFIED BY 'x'"), "(not shown: it names a password)");
        assert_eq!(shown(&"ä".repeat(TEXT_MAX)).len(), TEXT_MAX);
    }
}
