//! Runs a row and judges what it found.

use crate::{
    beginning,
    explore::shortest_violation,
    liveness::{self, Lively, Question},
    model::Model,
    rows::{Check, Row, Subject},
    story,
};
use anyhow::ensure;
use stateright::{Checker, HasDiscoveries};
use std::{
    fmt::{self, Debug, Display, Formatter},
    hash::Hash,
    time::{Duration, Instant},
};

/// The figures of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Different states reached.
    pub states: usize,
    /// States reached, also those known before.
    pub generated: usize,
    /// How many states are on the longest of the shortest paths.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What was found, in words.
    pub found: String,
    /// Why it is not what the row must find.
    pub objection: Option<String>,
    /// A violation, told.
    pub story: Vec<String>,
}

impl Display for Outcome {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} states, {} generated, depth {}, {:.1} s: {}",
            self.states,
            self.generated,
            self.depth,
            self.took.as_secs_f64(),
            self.found
        )
    }
}

/// Explores the row's whole space, or up to the violation it expects.
///
/// # Errors
/// When a row names a property that there is not.
pub fn run(row: &Row) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let mut outcome = match &row.subject {
        Subject::Pair(model) => judge(model, row.check)?,
        Subject::Beginning(model) => judge(model, row.check)?,
    };
    outcome.took = begun.elapsed();
    Ok(outcome)
}

fn judge(model: &impl Told, check: Check) -> anyhow::Result<Outcome> {
    Ok(match check {
        Check::Safe(seen) => explore_all(model, seen)?,
        Check::Live(question) => {
            let mut outcome = explore_graph(model, question);
            outcome.object_if(!outcome.story.is_empty(), "nobody can serve any more");
            outcome
        }
        Check::Breaks(property) => look_for(model, property)?,
        Check::Sticks(question) => {
            let mut outcome = explore_graph(model, question);
            outcome.object_if(outcome.story.is_empty(), "somebody can always serve without it");
            outcome
        }
    })
}

/// A model whose paths can be told.
trait Told:
    Lively<
        State: Clone + Debug + Hash + PartialEq + Send + Sync,
        Action: Debug + PartialEq + Send + Sync,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The lines of a story.
    fn tell(&self, path: &[Self::Action]) -> Vec<String>;
}

impl Told for Model {
    fn tell(&self, path: &[Self::Action]) -> Vec<String> {
        story::tell(self, path)
    }
}

impl Told for beginning::Model {
    fn tell(&self, path: &[Self::Action]) -> Vec<String> {
        beginning::tell(self, path)
    }
}

impl Outcome {
    fn object_if(&mut self, wrong: bool, objection: &str) {
        if wrong {
            self.objection = Some(objection.to_owned());
        }
    }
}

/// One thread: the states are many and small, and two would fight for the same table.
fn explore_all(model: &impl Told, must_see: &[&str]) -> anyhow::Result<Outcome> {
    let checker = model.clone().checker().threads(1);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discovered = checker.discoveries();
    let violated: Vec<&str> = model
        .properties()
        .iter()
        .filter(|property| property.expectation.discovery_is_failure())
        .map(|property| property.name)
        .filter(|name| discovered.contains_key(name))
        .collect();
    let unseen: Vec<&&str> =
        must_see.iter().filter(|name| !discovered.contains_key(*name)).collect();
    let mut outcome = Outcome {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took: Duration::ZERO,
        found: format!("no violation{}", sights(must_see, &unseen)),
        objection: None,
        story: Vec::new(),
    };
    if let Some(property) = violated.first() {
        let search = shortest_violation(model, property)?;
        ensure!(search.path.is_some(), "both walks must find the violation of {property}");
        outcome.found = format!("violated: {}", violated.join(", "));
        outcome.story = search.path.map_or_else(Vec::new, |path| model.tell(&path));
        outcome.object_if(true, "a property fails");
    } else if !unseen.is_empty() {
        outcome.objection = Some(format!("never seen: {unseen:?}"));
    }
    Ok(outcome)
}

/// The short names of what was seen of what must be.
fn sights(must_see: &[&str], unseen: &[&&str]) -> String {
    let seen = must_see.iter().filter(|name| !unseen.contains(name));
    seen.filter_map(|name| name.split(' ').next()).fold(String::new(), |mut told, name| {
        told.push_str(if told.is_empty() { ", seen " } else { " " });
        told.push_str(name);
        told
    })
}

fn look_for(model: &impl Told, property: &str) -> anyhow::Result<Outcome> {
    let search = shortest_violation(model, property)?;
    let path = search.path.as_deref();
    let found = match path {
        Some(path) => format!("violates \"{property}\" in {} steps", path.len()),
        None => format!("\"{property}\" holds"),
    };
    let mut outcome = Outcome {
        states: search.states,
        generated: search.generated,
        depth: search.depth,
        took: Duration::ZERO,
        found,
        objection: None,
        story: path.map_or_else(Vec::new, |path| model.tell(path)),
    };
    if path.is_some() {
        outcome.story.push(format!("      {property}: no longer."));
    }
    outcome.object_if(path.is_none(), "the property holds without the rule");
    Ok(outcome)
}

fn explore_graph(model: &impl Told, question: Question) -> Outcome {
    let found = liveness::check(model, question);
    let path = found.path.as_deref();
    let mut story = path.map_or_else(Vec::new, |path| model.tell(path));
    if !story.is_empty() {
        story.push("      From here nobody can ever serve again.".to_owned());
    }
    Outcome {
        states: found.states,
        generated: found.generated,
        depth: found.depth,
        took: Duration::ZERO,
        found: format!("AG EF: judged {}, stuck {}", found.judged, found.stuck),
        objection: (found.judged == 0).then(|| "no state was judged".to_owned()),
        story,
    }
}
