//! A plan as JSON: an array of one object, with PostgreSQL's keys where it has them.
//!
//! Deliberately absent: costs, widths, and what else is not estimated; aliases, which a plan no longer has;
//! and "Parallel Aware" and the like, for no step is.

use super::Step;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// The whole text.
pub(super) fn text(step: &Step, execution_ms: Option<f64>) -> String {
    let plan = Told { relationship: None, step };
    let explained = [Explained { plan, execution_ms: execution_ms.map(rounded) }];
    serde_json::to_string_pretty(&explained).expect("every key is a string")
}

#[derive(Serialize)]
struct Explained<'a> {
    #[serde(rename = "Plan")]
    plan: Told<'a>,
    #[serde(rename = "Execution Time", skip_serializing_if = "Option::is_none")]
    execution_ms: Option<f64>,
}

/// A step, and what it is to the one above.
struct Told<'a> {
    relationship: Option<&'static str>,
    step: &'a Step,
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let step = self.step;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Node Type", step.kind)?;
        if let Some(relationship) = self.relationship {
            map.serialize_entry("Parent Relationship", relationship)?;
        }
        for (key, fact) in &step.facts {
            map.serialize_entry(key, fact)?;
        }
        if let Some(did) = step.did {
            if let Some((first, last)) = did.ms {
                map.serialize_entry("Actual Startup Time", &rounded(first))?;
                map.serialize_entry("Actual Total Time", &rounded(last))?;
            }
            map.serialize_entry("Actual Rows", &did.rows)?;
            map.serialize_entry("Actual Loops", &did.loops)?;
        }
        if let Some(condition) = &step.condition {
            map.serialize_entry("Index Cond", condition)?;
        }
        if let Some(filter) = filter(step) {
            map.serialize_entry("Filter", &filter)?;
        }
        if let Some(removed) = step.removed {
            map.serialize_entry("Rows Removed by Filter", &removed)?;
        }
        if !step.children.is_empty() {
            let plans: Vec<Told<'_>> = step
                .children
                .iter()
                .map(|(relationship, step)| Told { relationship: Some(relationship), step })
                .collect();
            map.serialize_entry("Plans", &plans)?;
        }
        map.end()
    }
}

/// All filters of a step as one: a key stands in an object once.
fn filter(step: &Step) -> Option<String> {
    let all: Vec<&str> = step.filter.iter().chain(&step.above).map(String::as_str).collect();
    match all[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(format!("({})", all.join(" AND "))),
    }
}

/// To microseconds, as text tells milliseconds.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::measure::Did;

    #[test]
    fn times_are_told_in_milliseconds_to_three_places() {
        let did = |loops, ms| Some(Did { loops, rows: 3, ms });
        let below = Step { did: did(2, Some((0.000_4, 1.234_56))), ..Step::plain("Result") };
        let step = Step { did: did(1, None), ..Step::plain("Limit") }.over(below);
        let told: serde_json::Value = serde_json::from_str(&text(&step, Some(12.0))).unwrap();
        let below = serde_json::json!({
            "Node Type": "Result",
            "Parent Relationship": "Outer",
            "Actual Startup Time": 0.0,
            "Actual Total Time": 1.235,
            "Actual Rows": 3,
            "Actual Loops": 2,
        });
        let plan = serde_json::json!({
            "Node Type": "Limit",
            "Actual Rows": 3,
            "Actual Loops": 1,
            "Plans": [below],
        });
        assert_eq!(told, serde_json::json!([{ "Plan": plan, "Execution Time": 12.0 }]));
    }
}
