//! The measures, their targets, and how a verdict is told.

use crate::{Arguments, inprocess, pgbench, restart, size, wire};
use anyhow::{Context, ensure};
use serde_json::json;
use std::{fs::Permissions, os::unix::fs::PermissionsExt};
use tempfile::TempDir;
use understudy_tests::servers::{Durability, Placement, Servers};

/// One measure of the table in the report.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) target: Target,
    pub(crate) run: fn(&mut Bench<'_>) -> anyhow::Result<Verdict>,
}

/// What the figures of a measure count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Transactions or operations a second; more is better.
    PerSecond,
    /// Bytes a second; more is better.
    BytesPerSecond,
    /// Bytes for each; less is better.
    BytesEach,
}

/// What is reached for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Least ratio to the peer; `None` where the two do not do the same.
    ratio: Option<f64>,
    /// Most of the peer's server time for each transaction.
    cpu_share: Option<f64>,
    /// Least figure of our own.
    least: Option<f64>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) ours: Side,
    pub(crate) peer: Side,
    /// What the machine allows: beside a server with the client, beside a store its memory.
    pub(crate) floor: Option<Side>,
    /// What else is worth telling: lines for people.
    pub(crate) notes: Vec<String>,
    /// Placement, clients and settings, the peer's in full.
    pub(crate) settings: String,
}

/// One side's medians.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    /// In the measure's unit.
    pub(crate) figure: f64,
    /// Least and greatest of the rounds.
    pub(crate) spread: (f64, f64),
    /// Server time for each transaction, in microseconds; `None` where nothing was counted.
    pub(crate) cpu_us: Option<f64>,
}

/// What the measures share: the servers that run.
pub(crate) struct Bench<'a> {
    pub(crate) arguments: &'a Arguments,
    servers: Option<Servers>,
}

const fn wire(
    name: &'static str,
    what: &'static str,
    ratio: f64,
    run: fn(&mut Bench<'_>) -> anyhow::Result<Verdict>,
) -> Measure {
    let target = Target { ratio: Some(ratio), cpu_share: None, least: None };
    Measure { name, what, unit: Unit::PerSecond, target, run }
}

const fn sparing(cpu_share: f64, measure: Measure) -> Measure {
    Measure { target: Target { cpu_share: Some(cpu_share), ..measure.target }, ..measure }
}

const fn at_least(least: f64, measure: Measure) -> Measure {
    Measure { target: Target { least: Some(least), ..measure.target }, ..measure }
}

const fn counted_in(unit: Unit, measure: Measure) -> Measure {
    Measure { unit, ..measure }
}

/// All of them. Those that share servers stand together.
pub(crate) const ALL: &[Measure] = &[
    // First of those that share servers: the tables are as they were filled.
    counted_in(
        Unit::BytesEach,
        wire("memory-per-row", "bytes for a row and its key entry, as filled", 1.0, size::memory),
    ),
    sparing(
        0.4,
        wire("select-prepared-c1", "pgbench -S -M prepared, unix socket, S", 1.7, wire::select_c1),
    ),
    sparing(
        0.25,
        wire("select-prepared-c16", "the same with 16 clients, S", 2.5, wire::select_c16),
    ),
    wire("select-tcp-c1", "the same over TCP, one client, S", 1.5, wire::select_tcp_c1),
    wire("update-async-c1", "one-row update, the log not awaited, S", 4.0, wire::update_async_c1),
    wire("tpcb-async-c1", "TPC-B, the log not awaited, S", 1.9, wire::tpcb_async_c1),
    wire("update-async-c8", "one-row update, 8 clients, N", 3.0, wire::update_async_c8),
    wire("tpcb-async-c8", "TPC-B, 8 clients, N", 3.0, wire::tpcb_async_c8),
    wire("tatp-c8", "TATP's mix, 100,000 subscribers, 8 clients, N", 3.0, wire::tatp_c8),
    wire("durable-c1", "one-row update, fsync awaited, S", 1.0, wire::durable_c1),
    wire("durable-c16", "the same with 16 clients, N", 1.5, wire::durable_c16),
    at_least(
        1e6 / 0.35,
        wire(
            "point-read-inprocess",
            "read by primary key, prepared SQL, beside SQLite",
            1.0,
            inprocess::point_read,
        ),
    ),
    at_least(
        1e6 / 1.5,
        wire(
            "update-inprocess",
            "one-row update, prepared SQL, log not awaited, beside SQLite",
            1.0,
            inprocess::update,
        ),
    ),
    counted_in(
        Unit::BytesEach,
        wire("log-bytes-per-update", "log bytes of a one-row update", 4.0, size::log_bytes),
    ),
    at_least(
        1.7e6,
        wire("recovery-replay", "transactions replayed after a kill", 4.0, restart::replay),
    ),
    CHECKPOINT_LOAD,
];

/// PostgreSQL has no checkpoint that it loads. What brings it to the same state, every row in the
/// server's memory, is pg_prewarm; it copies pages and builds nothing, so no ratio is asked for.
const CHECKPOINT_LOAD: Measure = Measure {
    name: "checkpoint-load",
    what: "a checkpoint's bytes into memory at a start; beside pg_prewarm",
    unit: Unit::BytesPerSecond,
    target: Target { ratio: None, cpu_share: None, least: Some(1e9) },
    run: restart::checkpoint_load,
};

/// The measures with these names; all without a name.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Measure>> {
    for name in names {
        let known = || ALL.iter().map(|measure| measure.name).collect::<Vec<_>>().join(", ");
        let is_known = ALL.iter().any(|measure| measure.name == name);
        ensure!(is_known, "`{name}` is no measure; write one of {}", known());
    }
    let is_asked = |measure: &&Measure| names.is_empty() || names.iter().any(|n| n == measure.name);
    Ok(ALL.iter().filter(is_asked).collect())
}

impl Unit {
    /// A figure for people.
    fn shown(self, figure: f64) -> String {
        match self {
            Self::PerSecond => format!("{figure:.0}/s"),
            Self::BytesPerSecond => format!("{:.0} MB/s", figure / 1e6),
            Self::BytesEach => format!("{figure:.1} B"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::BytesPerSecond => "bytes per second",
            Self::BytesEach => "bytes each",
        }
    }

    /// Above one when ours is the better.
    fn ratio(self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::PerSecond | Self::BytesPerSecond => ours / peer,
            Self::BytesEach => peer / ours,
        }
    }
}

impl Verdict {
    fn cpu_share(&self) -> Option<f64> {
        Some(self.ours.cpu_us? / self.peer.cpu_us?)
    }
}

impl Side {
    /// The medians of rounds: figures, and microseconds where they were counted.
    pub(crate) fn of(figures: Vec<f64>, cpu_us: Vec<f64>) -> Self {
        let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = figures.iter().copied().fold(0.0, f64::max);
        let cpu_us = (!cpu_us.is_empty()).then(|| median(cpu_us));
        Self { figure: median(figures), spread: (least, greatest), cpu_us }
    }
}

impl Measure {
    pub(crate) fn is_reached(&self, verdict: &Verdict) -> bool {
        let Target { ratio, cpu_share, least } = self.target;
        let share = verdict.cpu_share().unwrap_or(0.0);
        cpu_share.is_none_or(|most| share <= most)
            && least.is_none_or(|least| verdict.ours.figure >= least)
            && ratio.is_none_or(|least| self.ratio(verdict) >= least)
    }

    fn ratio(&self, verdict: &Verdict) -> f64 {
        self.unit.ratio(verdict.ours.figure, verdict.peer.figure)
    }

    /// What is reached for, in words.
    pub(crate) fn aim(&self) -> String {
        let Target { ratio, cpu_share, least } = self.target;
        let parts = [
            ratio.map(|ratio| format!(">= {ratio:.1} x")),
            cpu_share.map(|share| format!("CPU <= {share:.2} x")),
            least.map(|least| format!(">= {}", self.unit.shown(least))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn line(&self, verdict: &Verdict) -> String {
        let shown = |figure| self.unit.shown(figure);
        let side = |side: &Side| {
            let (least, greatest) = side.spread;
            let cpu = side.cpu_us.map_or(String::new(), |cpu| format!(" {cpu:.2} us"));
            format!("{} ({} to {}){cpu}", shown(side.figure), shown(least), shown(greatest))
        };
        let share = verdict.cpu_share();
        let floor = verdict.floor.map(|floor| {
            let ratio = self.unit.ratio(floor.figure, verdict.peer.figure);
            let share = floor.cpu_us.zip(verdict.peer.cpu_us).map_or(f64::NAN, |(f, p)| f / p);
            format!("floor {}  ratio {ratio:.2}  CPU {share:.2} x", side(&floor))
        });
        let notes = floor.iter().chain(&verdict.notes);
        let notes = notes.map(|note| format!("\n{:20} {note}", ""));
        format!(
            "{:20} ours {}  peer {}  ratio {:.2}{}  target {}  {}{}",
            self.name,
            side(&verdict.ours),
            side(&verdict.peer),
            self.ratio(verdict),
            share.map_or(String::new(), |share| format!("  CPU {share:.2} x")),
            self.aim(),
            if self.is_reached(verdict) { "reached" } else { "MISSED" },
            notes.collect::<String>(),
        )
    }

    pub(crate) fn json(&self, verdict: &Verdict) -> String {
        let Target { ratio, cpu_share, least } = self.target;
        json!({
            "measure": self.name,
            "unit": self.unit.word(),
            "ours": verdict.ours.figure,
            "peer": verdict.peer.figure,
            "ratio": self.ratio(verdict),
            "floor": verdict.floor.map(|floor| json!({
                "figure": floor.figure,
                "ratio": self.unit.ratio(floor.figure, verdict.peer.figure),
                "cpu_us_per_txn": floor.cpu_us,
            })),
            "target": ratio,
            "least": least,
            "cpu_us_per_txn": {"ours": verdict.ours.cpu_us, "peer": verdict.peer.cpu_us, "share_target": cpu_share},
            "notes": verdict.notes,
            "settings": verdict.settings,
        })
        .to_string()
    }
}

impl<'a> Bench<'a> {
    pub(crate) fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        ensure!(
            arguments.understudy.is_file(),
            "{} is not there: run tests/bench/run, or cargo build --workspace",
            arguments.understudy.display()
        );
        Ok(Self { arguments, servers: None })
    }

    /// No servers run when this returns: what follows has the processors for itself.
    pub(crate) fn alone(&mut self) {
        self.servers = None;
    }

    /// A directory that goes with its owner.
    pub(crate) fn directory(&self) -> anyhow::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        // PostgreSQL runs as a user of its own.
        builder.prefix("understudy-bench-").permissions(Permissions::from_mode(0o755));
        let place = &self.arguments.directory;
        builder.tempdir_in(place).with_context(|| format!("no directory in {}", place.display()))
    }

    /// Both servers as asked for, with pgbench's tables; those that run already where they are the same.
    pub(crate) fn servers(
        &mut self,
        durability: Durability,
        placement: Placement,
    ) -> anyhow::Result<&Servers> {
        let is_same = |s: &Servers| s.durability == durability && s.placement == placement;
        if !self.servers.as_ref().is_some_and(is_same) {
            // The ones before end first: both pairs at once would share the processors.
            self.servers = None;
            let Arguments { understudy, directory, .. } = self.arguments;
            let servers = Servers::start(understudy, directory, durability, placement)?;
            pgbench::fill(&servers.ours)?;
            pgbench::fill(&servers.peer)?;
            self.servers = Some(servers);
        }
        Ok(self.servers.as_ref().expect("they were started"))
    }
}

/// Nanoseconds that one takes, at a rate a second.
pub(crate) fn nanos_each(rate: f64) -> f64 {
    1e9 / rate
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
}
