//! Tells the path of a beginning: one numbered line a step.

use super::{
    Action, Model,
    state::{Decision, Lease, Naming, Process, State},
};
use crate::explore::states_along;

/// The lines of a story.
pub(crate) fn tell(model: &Model, path: &[Action]) -> Vec<String> {
    let states = states_along(model, path);
    let mut lines = vec!["   0. two empty volumes, no Lease".to_owned()];
    for (step, action) in path.iter().enumerate() {
        let (before, after) = (&states[step], &states[step + 1]);
        let mut line = format!("{:4}. {}", step + 1, sentence((before, after), *action));
        if before.lease != after.lease {
            line.push_str("; the Lease ");
            line.push_str(&after.lease.map_or_else(|| "is gone".to_owned(), lease));
        }
        lines.push(line);
    }
    lines
}

fn sentence((before, after): (&State, &State), action: Action) -> String {
    match action {
        Action::Decide(which, Decision::Create) => {
            format!("{} finds no Lease: create it", operator(which))
        }
        Action::Decide(which, Decision::Name(by)) => {
            format!("{} decides to name {}", operator(which), process(by))
        }
        Action::Write(which) => format!("{} writes what it decided", operator(which)),
        Action::Note => "The operator notes the database in the status".to_owned(),
        Action::Read(name) => format!("{name:?} reads that it is named"),
        Action::Initialise(name) => {
            let dbid = after.members[name].dbid.unwrap_or_default();
            let verb = if before.next_dbid == after.next_dbid { "keeps" } else { "makes" };
            format!("{name:?} {verb} database {dbid} in its directory")
        }
        Action::Take(name) => format!("{name:?} takes the Lease"),
        Action::SendTake(name) => {
            let dbid = before.members[name].dbid.unwrap_or_default();
            format!(
                "{name:?} sends the write that takes the Lease for database {dbid}; it is delayed"
            )
        }
        Action::TakeLands(name) => format!("{name:?}'s delayed write lands"),
        Action::TakeIsLost(name) => format!("{name:?}'s delayed write is lost"),
        Action::Crash(name) => format!("{name:?} crashes and starts again"),
        Action::LoseVolume(name) => format!("{name:?} loses its volume"),
        Action::FallSilent(name) => format!("{name:?} does not answer the operator any more"),
        Action::Answer(name) => format!("{name:?} answers the operator again"),
        Action::Delete => "A person deletes the Lease".to_owned(),
    }
}

fn operator(which: usize) -> &'static str {
    if which == 0 { "The operator" } else { "The other operator" }
}

fn process(process: Process) -> String {
    format!("{:?}{}", process.name, "′".repeat(usize::from(process.incarnation)))
}

fn lease(lease: Lease) -> String {
    match (lease.naming, lease.dbid) {
        (Naming::Nobody, _) => "is there, and names nobody".to_owned(),
        (Naming::Initialising(by), _) => format!("names {} initialiser", process(by)),
        (Naming::Held(by), dbid) => {
            format!("is held by {}, database {}", process(by), dbid.unwrap_or_default())
        }
    }
}
