//! The campaign's table, one row a fault, as it stands in tests/README.md.

use super::faults::Fault;
use crate::pair::Outcome;
use std::fmt;

struct Row {
    fault: &'static Fault,
    passed: usize,
    failed: usize,
    /// What was recorded, in failed runs too.
    outcomes: Vec<Outcome>,
}

impl Row {
    fn sum(&self, count: fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(count).sum()
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
}

impl Summary {
    /// Adds a run, with what was recorded if it came so far.
    pub(crate) fn add(&mut self, fault: &'static Fault, is_passed: bool, outcome: Option<Outcome>) {
        let place = self.rows.iter().position(|row| row.fault.name == fault.name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row { fault, passed: 0, failed: 0, outcomes: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        row.outcomes.extend(outcome);
        *(if is_passed { &mut row.passed } else { &mut row.failed }) += 1;
    }

    pub(crate) fn failed(&self) -> usize {
        self.rows.iter().map(|row| row.failed).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | passed | acknowledged | lost | unknown | gap p50 | gap max | target |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let mut gaps: Vec<u64> = row.outcomes.iter().map(|o| o.gap_ms).collect();
            gaps.sort_unstable();
            let p50 = gaps.get(gaps.len().saturating_sub(1) / 2).copied().unwrap_or(0);
            let max = gaps.last().copied().unwrap_or(0);
            let (acknowledged, unknown) = (row.sum(|o| o.acknowledged), row.sum(|o| o.unknown));
            let lost = row.sum(|o| o.lost);
            let target = row.fault.gap_max_ms.map_or(String::new(), |ms| format!("{ms} ms"));
            writeln!(
                f,
                "| {} | {} of {} | {acknowledged} | {lost} | {unknown} | {p50} ms | {max} ms | {target} |",
                row.fault.name,
                row.passed,
                row.passed + row.failed,
            )?;
        }
        let passed: usize = self.rows.iter().map(|row| row.passed).sum();
        writeln!(f, "{passed} passed, {} failed, 0 skipped", self.failed())
    }
}
