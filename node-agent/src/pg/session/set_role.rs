//! `CALL ttRepStateSet('ACTIVE')`: a person sets the role, under `mode: Paused` (seed 001).

use super::{Failure, Report, Session, call::text_of, waiting::interruptible};
use crate::pg::sqlstate;
use understudy_replication::NotSettable;
use understudy_sql::CallArgument;
use understudy_store::Value;

impl Session {
    /// Ends when the member is active.
    pub(super) async fn set_state(
        &mut self,
        argument: &CallArgument,
        parameters: &[Value],
    ) -> Result<(), Failure> {
        let wanted = text_of(argument, parameters).unwrap_or_default();
        if !wanted.eq_ignore_ascii_case("ACTIVE") {
            let message = format!("ttRepStateSet takes 'ACTIVE', not '{wanted}'");
            return Err(Report::error(sqlstate::INVALID_PARAMETER, message)
                .hint("To see the state, write CALL ttRepStateGet().")
                .into());
        }
        self.check_admin("ttRepStateSet", "Only an administrator may set roles.")?;
        let wait = self.database.set_active().map_err(|why| {
            Report::error(sqlstate::NOT_IN_STATE, why.to_string()).hint(self.instead(&why))
        })?;
        self.write_answered()?;
        interruptible(&self.control, wait).await.map_err(|interrupt| self.interrupted(interrupt))
    }

    /// What to do instead.
    fn instead(&self, why: &NotSettable) -> String {
        let pair = self.database.identity().pair;
        match why {
            NotSettable::Managed => format!(
                "To let the other member take over, run understudy failover {pair}; to set roles by hand, write spec.mode: Paused on ActiveStandbyPair {pair} first."
            ),
            NotSettable::NoPair => "understudy standalone serves one database alone.".to_owned(),
            NotSettable::IsActive => "Nothing has to be done.".to_owned(),
            NotSettable::NoVote => "Connect to a voter of the pair: a subscriber, or a store that no active has admitted, never becomes active.".to_owned(),
            NotSettable::HearsActive(active) => format!(
                "Two actives lose commits. End {active} first, or write spec.mode: Automatic and run understudy failover {pair}."
            ),
            NotSettable::Unfit(_) => {
                "See CALL ttRepStateGet() on the other member, and set that one.".to_owned()
            }
            NotSettable::Runs => "See CALL ttRepStateGet() in a moment.".to_owned(),
        }
    }
}
