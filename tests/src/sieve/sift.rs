//! What becomes of the events of a watch on their way: nothing, some lost, or several made one.
//!
//! An event is a line of JSON. A watch that lost one ends soon with *Expired*, so that its client lists
//! anew: an API server that forgets must say so in the end.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::time::Duration;

/// Of so many events one is lost.
const LOST_OF: u32 = 3;
/// When a watch that lost an event expires, from the first loss.
const EXPIRES_AFTER_MS: std::ops::Range<u64> = 1_000..4_000;
/// How long events of an object are held together.
const HELD: Duration = Duration::from_millis(1_500);

/// See the module.
#[derive(Debug)]
pub struct Sift {
    how: How,
    /// Events that never arrive.
    pub withheld: u64,
}

#[derive(Debug)]
enum How {
    Plain,
    Dropping { dice: Box<StdRng>, expires: Option<Duration> },
    Merging { held: Vec<(String, String)>, until: Option<Duration> },
}

/// What goes on to the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Whole lines.
    pub lines: Vec<String>,
    /// Whether the watch ends after them.
    pub is_over: bool,
}

impl Passed {
    fn lines(lines: Vec<String>) -> Self {
        Self { lines, is_over: false }
    }
}

impl Sift {
    /// Everything passes.
    #[must_use]
    pub fn plain() -> Self {
        Self { how: How::Plain, withheld: 0 }
    }

    /// Some events are lost; the seed says which.
    #[must_use]
    pub fn dropping(seed: u64) -> Self {
        let dice = Box::new(StdRng::seed_from_u64(seed));
        Self { how: How::Dropping { dice, expires: None }, withheld: 0 }
    }

    /// Only the last of several events of an object arrives.
    #[must_use]
    pub fn merging() -> Self {
        Self { how: How::Merging { held: Vec::new(), until: None }, withheld: 0 }
    }

    /// A line from the API server, at this time since the watch began.
    pub fn push(&mut self, line: String, now: Duration) -> Passed {
        let Some(object) = changed_object(&line) else {
            // A bookmark may not overtake what it stands behind.
            let mut lines = self.flush();
            lines.push(line);
            return Passed::lines(lines);
        };
        match &mut self.how {
            How::Plain => Passed::lines(vec![line]),
            How::Dropping { dice, expires } => {
                if dice.random_range(0..LOST_OF) > 0 {
                    return Passed::lines(vec![line]);
                }
                let after = Duration::from_millis(dice.random_range(EXPIRES_AFTER_MS));
                expires.get_or_insert(now + after);
                self.withheld += 1;
                Passed::default()
            }
            How::Merging { held, until } => {
                until.get_or_insert(now + HELD);
                let before = held.len();
                held.retain(|(known, _)| *known != object);
                self.withheld += (before - held.len()) as u64;
                held.push((object, line));
                Passed::default()
            }
        }
    }

    /// When [`Sift::tick`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        match &self.how {
            How::Plain => None,
            How::Dropping { expires, .. } => *expires,
            How::Merging { until, .. } => *until,
        }
    }

    /// What goes on because time has passed.
    pub fn tick(&mut self, now: Duration) -> Passed {
        if self.due().is_none_or(|due| now < due) {
            return Passed::default();
        }
        match &self.how {
            How::Plain => Passed::default(),
            How::Dropping { .. } => Passed { lines: vec![expired()], is_over: true },
            How::Merging { .. } => Passed::lines(self.flush()),
        }
    }

    /// What is left when the API server ends the watch.
    pub fn flush(&mut self) -> Vec<String> {
        match &mut self.how {
            How::Plain | How::Dropping { .. } => Vec::new(),
            How::Merging { held, until } => {
                *until = None;
                std::mem::take(held).into_iter().map(|(_, line)| line).collect()
            }
        }
    }
}

/// The object of an added, modified or deleted one; `None` for other lines.
fn changed_object(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    if !["ADDED", "MODIFIED", "DELETED"].contains(&event["type"].as_str()?) {
        return None;
    }
    let metadata = &event["object"]["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    Some(format!("{namespace}/{}", metadata["name"].as_str()?))
}

fn expired() -> String {
    json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version"}})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, version: u32) -> String {
        json!({"type": kind, "object": {"metadata": {
            "namespace": "n", "name": name, "resourceVersion": version.to_string()}}})
        .to_string()
    }

    #[test]
    fn the_last_event_of_an_object_stands_for_all() {
        let mut sift = Sift::merging();
        let (a1, b2) = (event("ADDED", "a", 1), event("ADDED", "b", 2));
        let a3 = event("DELETED", "a", 3);
        for line in [&a1, &b2, &a3] {
            assert_eq!(sift.push(line.clone(), Duration::ZERO), Passed::default());
        }
        assert_eq!(sift.tick(HELD / 2), Passed::default());
        assert_eq!(sift.tick(HELD).lines, [b2, a3]);
        assert_eq!((sift.withheld, sift.due()), (1, None));
    }

    #[test]
    fn a_bookmark_lets_go_what_is_held() {
        let mut sift = Sift::merging();
        let (added, bookmark) = (event("ADDED", "a", 1), event("BOOKMARK", "", 2));
        assert!(sift.push(added.clone(), Duration::ZERO).lines.is_empty());
        assert_eq!(sift.push(bookmark.clone(), Duration::ZERO).lines, [added, bookmark]);
    }

    #[test]
    fn a_watch_that_lost_an_event_expires() {
        let mut sift = Sift::dropping(7);
        let mut passed = 0;
        for version in 0..300 {
            passed += sift.push(event("MODIFIED", "a", version), Duration::ZERO).lines.len();
        }
        assert!((150..250).contains(&passed), "a third is lost, {passed} of 300 passed");
        assert_eq!(passed as u64 + sift.withheld, 300);
        let end = sift.tick(sift.due().unwrap());
        assert!(end.is_over && end.lines[0].contains("410"));
    }

    #[test]
    fn a_watch_that_lost_nothing_goes_on() {
        let mut sift = Sift::plain();
        let line = event("ADDED", "a", 1);
        assert_eq!(sift.push(line.clone(), Duration::ZERO).lines, [line]);
        assert_eq!(sift.tick(Duration::from_secs(3_600)), Passed::default());
    }
}
