//! Warnings and notices of the session itself, and the level below which a client wants none.

use super::{
    Session,
    reply::{self, Report, Severity},
    sqlstate,
};

/// A warning with fixed words.
pub(super) struct Warning {
    sqlstate: &'static str,
    message: &'static str,
}

/// BEGIN inside a block.
pub(super) const TRANSACTION_OPEN: Warning = Warning {
    sqlstate: sqlstate::ACTIVE_TRANSACTION,
    message: "there is already a transaction in progress",
};

/// COMMIT or ROLLBACK outside a block.
pub(super) const NO_TRANSACTION: Warning =
    Warning { sqlstate: sqlstate::NO_TRANSACTION, message: "there is no transaction in progress" };

/// SET TRANSACTION outside a block.
pub(super) const SET_TRANSACTION_OUTSIDE: Warning = Warning {
    sqlstate: sqlstate::NO_TRANSACTION,
    message: "SET TRANSACTION can only be used in transaction blocks",
};

/// SET LOCAL outside a block.
pub(super) const SET_LOCAL_OUTSIDE: Warning = Warning {
    sqlstate: sqlstate::NO_TRANSACTION,
    message: "SET LOCAL can only be used in transaction blocks",
};

impl Session {
    /// Sends one of the fixed warnings.
    pub(super) fn notice(&mut self, warning: &Warning) {
        self.tell(&Report::new(Severity::Warning, warning.sqlstate, warning.message));
    }

    /// Sends a warning or notice, unless `client_min_messages` is above it.
    pub(super) fn tell(&mut self, report: &Report) {
        if self.wants(report.severity) {
            reply::report(&mut self.output.bytes, report);
        }
    }
}
