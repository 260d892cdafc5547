//! CALL of a built-in procedure, by the names that users of the original know.

use super::{Failure, Report, Session, simple::Ran, transaction::Block};
use crate::pg::{reply, sqlstate};
use understudy_sql::CallArgument;
use understudy_store::Value;
use understudy_types::{CommitToken, Role};

/// Every procedure with its signature; names are compared in lower case.
const SIGNATURES: [&str; 7] = [
    "ttCkpt()",
    "ttLogHolds()",
    "ttRepStateGet()",
    "ttRepStateSet('ACTIVE')",
    "ttRepXactTokenGet()",
    "ttRepXactStatus('TOKEN')",
    "ttRepXactInDoubt()",
];
/// What `ttLogHolds` tells of somebody who needs the log.
const HOLDS: [&str; 3] = ["lsn", "type", "description"];
/// What `ttRepXactInDoubt` tells of a commit.
const IN_DOUBT: [&str; 6] = ["lsn", "token", "session", "user", "state", "age_ms"];

impl Session {
    pub(super) async fn call(
        &mut self,
        name: &str,
        arguments: &[CallArgument],
        parameters: &[Value],
    ) -> Result<Ran, Failure> {
        match (name, arguments) {
            ("ttckpt", []) => self.take_checkpoint().await?,
            ("ttlogholds", []) => self.list_holds()?,
            ("ttrepstateget", []) => {
                let state = state_word(self.database.role());
                reply::text_row(&mut self.output.bytes, &[("state", state)]);
            }
            ("ttrepstateset", [argument]) => self.set_state(argument, parameters).await?,
            ("ttrepxacttokenget", []) => {
                let token = self.name_transaction().await?.to_string();
                reply::text_row(&mut self.output.bytes, &[("token", &token)]);
            }
            ("ttrepxactstatus", [argument]) => {
                let token = token_of(argument, parameters)?;
                let outcome = self.database.outcome(token);
                let columns = [("outcome", &*outcome.to_string()), ("reason", outcome.why())];
                reply::text_row(&mut self.output.bytes, &columns);
            }
            ("ttrepxactindoubt", []) => self.list_in_doubt(),
            (_, _) => return Err(no_such_call(name, arguments.len()).into()),
        }
        Ok(Ran::Tag("CALL".to_owned()))
    }

    /// A checkpoint, at once; the answer comes when it is on disk. Who waits no longer leaves it to go on.
    async fn take_checkpoint(&mut self) -> Result<(), Failure> {
        self.check_admin("ttCkpt", "Only an administrator may take checkpoints.")?;
        match self.in_time(self.database.checkpoint()).await? {
            Ok(_) => Ok(()),
            Err(why) => {
                let message = format!("no checkpoint was taken: {why}");
                Err(Report::error(sqlstate::NOT_IN_STATE, message)
                    .hint("Nothing was lost: the checkpoints before it are kept, and the log too.")
                    .into())
            }
        }
    }

    /// Who keeps log from being given back: the least LSN first.
    fn list_holds(&mut self) -> Result<(), Failure> {
        let holds = self.database.log_holds().map_err(|why| {
            let message = format!("what holds the log is not known: {why}");
            Report::error(sqlstate::NOT_IN_STATE, message)
        })?;
        reply::text_columns(&mut self.output.bytes, HOLDS.into_iter());
        for hold in holds {
            let values =
                [&*hold.first_lsn.to_string(), hold.kind.as_str(), hold.description.as_str()];
            reply::text_values(&mut self.output.bytes, values.into_iter());
        }
        Ok(())
    }

    /// Commits of this member that are in its log and not acknowledged, whoever waits for them (design §2).
    fn list_in_doubt(&mut self) {
        let sessions = self.database.sessions();
        let listed = sessions.in_doubt(self.database.acknowledged_lsn());
        reply::text_columns(&mut self.output.bytes, IN_DOUBT.into_iter());
        for commit in listed {
            let values = [
                commit.lsn.to_string(),
                commit.token.map(|token| token.to_string()).unwrap_or_default(),
                commit.pid.to_string(),
                commit.user,
                if commit.is_left { "left" } else { "waits" }.to_owned(),
                commit.since.elapsed().as_millis().to_string(),
            ];
            reply::text_values(&mut self.output.bytes, values.iter().map(String::as_str));
        }
    }

    /// The token of the open block; the same each time it is asked for.
    async fn name_transaction(&mut self) -> Result<CommitToken, Failure> {
        self.check_may_write("ttRepXactTokenGet")?;
        if self.transaction.block != Block::Explicit {
            let message = "ttRepXactTokenGet names the transaction that is open, and none is";
            return Err(Report::error(sqlstate::NO_TRANSACTION, message)
                .hint("Write BEGIN first; the token is for its COMMIT.")
                .into());
        }
        if let Some(named) = &self.transaction.named {
            return Ok(named.token());
        }
        self.see_own_commits().await?;
        let given = self.database.give_token().map_err(|refused| {
            Report::error(refused.sqlstate(), refused.to_string()).hint(refused.hint())
        })?;
        let token = given.token();
        self.transaction.named = Some(given);
        Ok(token)
    }
}

fn state_word(role: Role) -> &'static str {
    match role {
        Role::Active => "ACTIVE",
        Role::Standby => "STANDBY",
        Role::Subscriber => "SUBSCRIBER",
        Role::Idle => "IDLE",
        Role::Recovering => "RECOVERING",
        Role::Failed => "FAILED",
    }
}

fn token_of(argument: &CallArgument, parameters: &[Value]) -> Result<CommitToken, Failure> {
    let Some(text) = text_of(argument, parameters) else {
        let message = "the argument of ttRepXactStatus is a token, as text";
        return Err(Report::error(sqlstate::INVALID_TEXT, message)
            .hint("Write CALL ttRepXactStatus('7.1042').")
            .into());
    };
    text.parse().map_err(|error: understudy_types::TokenError| {
        Report::error(sqlstate::INVALID_TEXT, error.to_string()).into()
    })
}

/// An argument that is text; `None` for every other.
pub(super) fn text_of(argument: &CallArgument, parameters: &[Value]) -> Option<String> {
    match argument {
        CallArgument::Text(text) => Some(text.clone()),
        CallArgument::Parameter(n) => match n.checked_sub(1).and_then(|i| parameters.get(i)) {
            Some(Value::Text(text)) => Some(text.to_string()),
            Some(_) | None => None,
        },
        CallArgument::Null | CallArgument::Integer(_) => None,
    }
}

/// A known name with other arguments is told its signature.
fn no_such_call(name: &str, given: usize) -> Report {
    let known = SIGNATURES.iter().find(|signature| {
        signature.split('(').next().is_some_and(|own| own.eq_ignore_ascii_case(name))
    });
    match known {
        Some(signature) => {
            let message = format!("{name} does not take {given} arguments");
            Report::error(sqlstate::UNKNOWN_FUNCTION, message)
                .hint(format!("Write CALL {signature};"))
        }
        None => {
            let message = format!("procedure {name} does not exist");
            Report::error(sqlstate::UNKNOWN_FUNCTION, message)
                .hint(format!("Known procedures: {}.", SIGNATURES.join(", ")))
        }
    }
}
