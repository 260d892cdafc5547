//! The summary of all rounds, one row a flow, as it stands in tests/README.md.

use crate::pair::Outcome;
use std::fmt;

#[derive(Default)]
struct Row {
    flow: &'static str,
    failed: u32,
    outcomes: Vec<Outcome>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a run; `None` when it failed.
    pub(crate) fn add(&mut self, flow: &'static str, outcome: Option<Outcome>) {
        let place = self.rows.iter().position(|row| row.flow == flow).unwrap_or_else(|| {
            self.rows.push(Row { flow, ..Row::default() });
            self.rows.len() - 1
        });
        match outcome {
            Some(outcome) => self.rows[place].outcomes.push(outcome),
            None => self.rows[place].failed += 1,
        }
    }

    pub(crate) fn failed(&self) -> u32 {
        self.rows.iter().map(|row| row.failed).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| flow | passed | acknowledged | lost | unknown | gap p50 | gap max |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let runs = row.outcomes.len();
            write!(f, "| {} | {runs} of {} |", row.flow, runs + row.failed as usize)?;
            let mut gaps: Vec<u64> =
                row.outcomes.iter().filter(|o| o.acknowledged > 0).map(|o| o.gap_ms).collect();
            gaps.sort_unstable();
            let Some(max) = gaps.last() else {
                writeln!(f, " | | | | |")?;
                continue;
            };
            let acknowledged: u64 = row.outcomes.iter().map(|o| o.acknowledged).sum();
            let unknown: u64 = row.outcomes.iter().map(|o| o.unknown).sum();
            let p50 = gaps[(gaps.len() - 1) / 2];
            writeln!(f, " {acknowledged} | 0 | {unknown} | {p50} ms | {max} ms |")?;
        }
        let passed: usize = self.rows.iter().map(|row| row.outcomes.len()).sum();
        writeln!(f, "{passed} passed, {} failed, 0 skipped", self.failed())
    }
}
