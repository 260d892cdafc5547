//! What a supervisor leaves in its container's termination log, and how the operator reads it (R10).
//!
//! One incarnation a line, newest first: every engine that this container ever ran. When the container
//! is terminated all of them are dead, so naming any of them is proof for that one.

use std::fmt::Write;
use understudy_types::Incarnation;

/// The kubelet keeps 4096 bytes; a line is at most 58 long.
const LINES_MAX: usize = 64;

/// The message, newest incarnation first in `engines`; older ones than fit are left out.
#[must_use]
pub fn termination_message(engines: &[Incarnation]) -> String {
    let mut text = String::new();
    for engine in engines.iter().take(LINES_MAX) {
        writeln!(text, "{engine}").expect("writing to a String does not fail");
    }
    text
}

/// Whether a termination message proves that its container ran this very process.
#[must_use]
pub fn names_incarnation(message: &str, incarnation: Incarnation) -> bool {
    let wanted = incarnation.to_string();
    message.lines().any(|line| line.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn engine(start: u64) -> Incarnation {
        Incarnation { start, id: Uuid::from_u128(u128::from(start)) }
    }

    #[test]
    fn a_message_names_what_the_container_ran_and_nothing_else() {
        let message = termination_message(&[engine(12), engine(11)]);
        assert!(names_incarnation(&message, engine(12)));
        assert!(names_incarnation(&message, engine(11)));
        assert!(!names_incarnation(&message, engine(1)));
        let other_life = Incarnation { id: Uuid::from_u128(99), ..engine(12) };
        assert!(!names_incarnation(&message, other_life));
        assert!(!names_incarnation("", engine(12)));
        assert!(!names_incarnation(&message[..20], engine(12)), "a torn line proved something");
    }

    #[test]
    fn many_engines_still_fit_into_what_the_kubelet_keeps() {
        let engines: Vec<_> = (0..1000).map(|n| engine(u64::MAX - n)).collect();
        assert!(termination_message(&engines).len() <= 4096);
    }
}
