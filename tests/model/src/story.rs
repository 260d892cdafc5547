//! Tells a path in plain English: one numbered line a step, with who has authority after it.

use crate::{
    action::{Action, Answer},
    explore::states_along,
    messages::Message,
    model::Model,
    state::{Hold, Lease, Member, Name, State, Write},
};
use std::fmt::Write as _;

/// The lines of a story.
#[must_use]
pub fn tell(model: &Model, path: &[Action]) -> Vec<String> {
    let states = states_along(model, path);
    let mut lines = vec![format!(
        "   0. A holds the Lease of epoch 1, S = {{A, B}}  [{}]",
        authority(&states[0], 0)
    )];
    let mut now = 0;
    for (step, action) in path.iter().enumerate() {
        let (before, after) = (&states[step], &states[step + 1]);
        if matches!(action, Action::Tick | Action::TickWithoutClockOf(_)) {
            now += 1;
        }
        let mut line = format!("{:4}. {}", step + 1, sentence(before, *action, now));
        tell_changes(&mut line, (before, after), *action, now).expect("a string takes any text");
        lines.push(format!("{line}  [{}]", authority(after, now)));
    }
    lines
}

/// Who has authority, by what, until when.
fn authority(state: &State, now: u8) -> String {
    let mut holders: Vec<String> = Name::ALL
        .into_iter()
        .filter(|name| state.members[*name].has_authority())
        .map(|name| {
            let Member { lease_ticks, grant_ticks, .. } = state.members[name];
            format!("{name:?} serves {}", by(lease_ticks, grant_ticks, now))
        })
        .collect();
    if let Some(old) = state.old_process.filter(|old| old.has_authority()) {
        holders
            .push(format!("A's old process serves {}", by(old.lease_ticks, old.grant_ticks, now)));
    }
    if holders.is_empty() { "nobody serves".to_owned() } else { holders.join(", ") }
}

fn by(lease_ticks: u8, grant_ticks: u8, now: u8) -> String {
    match (lease_ticks, grant_ticks) {
        (lease, 0) => format!("by its Lease until tick {}", now + lease),
        (0, grant) => format!("by a grant until tick {}", now + grant),
        (lease, grant) => {
            format!(
                "by its Lease until tick {}, by a grant until tick {}",
                now + lease,
                now + grant
            )
        }
    }
}

/// What follows from a step, read off the states.
fn tell_changes(
    line: &mut String,
    (before, after): (&State, &State),
    action: Action,
    now: u8,
) -> std::fmt::Result {
    for name in Name::ALL {
        let (old, new) = (&before.members[name], &after.members[name]);
        if new.promised > old.promised && action != Action::Promise(name) {
            write!(line, "; {name:?} promises epoch {}", new.promised)?;
        }
        if new.log.len() < old.log.len() {
            write!(line, "; {name:?} loses what was not on its disk")?;
        }
        if new.granted_ticks > old.granted_ticks {
            write!(line, "; {name:?} grants until tick {}", now + new.granted_ticks)?;
        }
        if new.solo && !old.solo {
            write!(line, "; {name:?} acknowledges alone from now on")?;
        }
    }
    if after.lease.content() != before.lease.content() {
        write!(line, "; the Lease says {}", lease(&after.lease))?;
    }
    for commit in after.acknowledged.iter().filter(|c| !before.acknowledged.contains(*c)) {
        write!(line, "; commit {commit} is acknowledged")?;
    }
    for commit in after.read_on_standby.iter().filter(|c| !before.read_on_standby.contains(*c)) {
        write!(line, "; a reader of the standby sees commit {commit}")?;
    }
    Ok(())
}

fn lease(lease: &Lease) -> String {
    let holder = process(lease.holder, lease.incarnation);
    let held = match lease.hold {
        Hold::Held => "held by",
        Hold::Released => "released by",
        Hold::Transferring { .. } => "handed over by",
        Hold::Recreated => "last held by",
    };
    let standby = lease.standby.map_or_else(String::new, |incarnation| {
        format!(", {}", process(lease.holder.other(), incarnation))
    });
    format!("{held} {holder}, epoch {}, S = {{{holder}{standby}}}", lease.epoch)
}

/// A member, with the count of its restarts if there were any.
fn process(name: Name, incarnation: u8) -> String {
    format!("{name:?}{}", "′".repeat(usize::from(incarnation)))
}

fn sentence(before: &State, action: Action, now: u8) -> String {
    let actor = action.actor().map_or_else(String::new, |name| format!("{name:?} "));
    let told = format!("{actor}{}{}", deed(action), detail(before, action, now));
    told.replace(" 's ", "'s ")
}

fn deed(action: Action) -> &'static str {
    match action {
        Action::Tick => "Tick",
        Action::TickWithoutClockOf(_) => "does not notice tick",
        Action::Crash(_) => "crashes and starts again",
        Action::FaultBegins => "The fault begins",
        Action::FaultEnds => "The fault ends",
        Action::Commit(_) => "takes a client's commit into memory",
        Action::Fsync(_) => "fsyncs its log",
        Action::SendFrame(_) => "sends a heartbeat and its log:",
        Action::Receive(..) => "receives",
        Action::Lose(..) => "never gets",
        Action::Renew(_, Answer::Arrives) => "renews",
        Action::Renew(_, Answer::Lost) => "renews, the answer is lost",
        Action::SetSolo(_, Answer::Arrives) => "records S = itself, and learns that it landed",
        Action::SetSolo(_, Answer::Lost) => "records S = itself, the answer is lost",
        Action::SoloByReading(_) => "reads S = itself",
        Action::SoloUnconfirmed(_) => "asks nobody",
        Action::StopAlone(_) => "stops acknowledging alone",
        Action::SetSync(_) => "records the other in sync",
        Action::Release(_) => "lets go",
        Action::PrepareTransfer(_) => "takes no commits any more, to hand over",
        Action::Transfer(_) => "hands over",
        Action::UndoTransfer(_) => "takes its role back: the deadline passed",
        Action::LearnDeath(_) => "hears of a death, and forgets the grants of the dead",
        Action::ReleaseDead(_) => "'s parent process lets go for it",
        Action::StepDown(_) => "steps down",
        Action::Delay(..) => "sends",
        Action::DelayedLands(_) => "'s delayed write lands",
        Action::DelayedIsLost(_) => "'s delayed write is lost",
        Action::Candidate(_) => "becomes a candidate",
        Action::Cancel(_) => "gives its candidacy up",
        Action::Promise(_) => "promises",
        Action::Compare(_) => "finds its log at least as long as the other's",
        Action::Acquire(_) => "acquires, and learns that it did",
        Action::AcquireUnanswered(_) => "acquires, the answer is under way",
        Action::AcquireAnswerArrives(_) => "gets the answer to an Acquire",
        Action::AcquireAnswerIsLost(_) => "never gets the answer to its Acquire",
        Action::ActivateByReading(_) => "reads that it is the holder, and becomes active",
        Action::Replace => "A's pod is replaced, its old process lives on",
        Action::GrantToOldProcess => "B answers A's old process",
        Action::OldProcessEnds => "A's old process ends",
        Action::PromiseForOther => "B promises for A's candidacy",
        Action::Backup => "A backup of the API server is taken",
        Action::Restore => "The backup is restored",
        Action::Recreate(_) => "The operator creates the Lease anew, both voters having answered",
        Action::OperatorDecides => "The operator sees no grant and an expired Lease: promote B",
        Action::OperatorWrites => "The operator writes B into the Lease",
        Action::OperatorPromotes => "The operator tells B, which becomes active",
    }
}

/// What a deed's words leave open.
fn detail(before: &State, action: Action, now: u8) -> String {
    match action {
        Action::Tick | Action::TickWithoutClockOf(_) => format!(" {now}"),
        Action::SendFrame(name) => {
            let active = &before.members[name];
            let state = if active.has_authority() { "" } else { ", not serving" };
            format!(" epoch {}, {}{state}", active.epoch, records(active.log.len()))
        }
        Action::Receive(name, at) | Action::Lose(name, at) => {
            let mut inbox = before.inboxes[name];
            format!(" {}", content(inbox.take(at)))
        }
        Action::Promise(_) => format!(" epoch {}", before.lease.epoch + 1),
        Action::Delay(_, write) => format!(" {}; it is delayed", sent(write)),
        _ => String::new(),
    }
}

fn records(len: u8) -> String {
    if len == 1 { "1 record".to_owned() } else { format!("{len} records") }
}

fn sent(write: Write) -> String {
    match write {
        Write::SetSync(incarnation) => format!("SetSync for the other's start {incarnation}"),
        Write::Acquire(epoch) => format!("Acquire of epoch {epoch}"),
        Write::Release => "Release and stops serving".to_owned(),
        Write::Transfer { len, .. } => format!("the hand-over of {}", records(len)),
        Write::ReleaseDead => "the Release of its dead process".to_owned(),
    }
}

fn content(message: Message) -> String {
    match message {
        Message::Frame { epoch, len, .. } => format!("the frame: epoch {epoch}, {}", records(len)),
        Message::Answer { len, grants, .. } => {
            let grant = if grants { "and a grant" } else { "no grant" };
            format!("the answer: {} received, {grant}", records(len))
        }
        Message::Refused { promised } => format!("a refusal: epoch {promised} is promised"),
    }
}
