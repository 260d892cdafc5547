//! The measures, their targets, and how a verdict is told.

use crate::{Arguments, pgbench, wire};
use anyhow::ensure;
use serde_json::json;
use std::fmt;
use understudy_tests::servers::{Durability, Placement, Servers};

/// One measure of the table in the report.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) target: Target,
    pub(crate) run: fn(&mut Bench<'_>) -> anyhow::Result<Verdict>,
}

/// What is reached for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Least ratio to the peer.
    ratio: f64,
    /// Most of the peer's server time for each transaction.
    cpu_share: Option<f64>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) ours: Side,
    pub(crate) peer: Side,
    /// Placement, clients and settings, the peer's in full.
    pub(crate) settings: String,
}

/// One side's medians.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    /// Transactions a second.
    pub(crate) rate: f64,
    /// Least and greatest of the rounds.
    pub(crate) spread: (f64, f64),
    /// Server time for each transaction, in microseconds.
    pub(crate) cpu_us: f64,
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
    Measure { name, what, target: Target { ratio, cpu_share: None }, run }
}

const fn sparing(cpu_share: f64, measure: Measure) -> Measure {
    Measure { target: Target { cpu_share: Some(cpu_share), ..measure.target }, ..measure }
}

/// All of them. Those that share servers stand together.
pub(crate) const ALL: &[Measure] = &[
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
];

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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">= {:.1} x", self.ratio)?;
        match self.cpu_share {
            Some(share) => write!(f, ", CPU <= {share:.2} x"),
            None => Ok(()),
        }
    }
}

impl Verdict {
    fn ratio(&self) -> f64 {
        self.ours.rate / self.peer.rate
    }

    fn cpu_share(&self) -> f64 {
        self.ours.cpu_us / self.peer.cpu_us
    }
}

impl Measure {
    pub(crate) fn is_reached(&self, verdict: &Verdict) -> bool {
        let is_sparing = self.target.cpu_share.is_none_or(|most| verdict.cpu_share() <= most);
        verdict.ratio() >= self.target.ratio && is_sparing
    }

    pub(crate) fn line(&self, verdict: &Verdict) -> String {
        let side = |side: &Side| {
            format!(
                "{:.0}/s ({:.0} to {:.0}) {:.2} us",
                side.rate, side.spread.0, side.spread.1, side.cpu_us
            )
        };
        format!(
            "{:20} ours {}  peer {}  ratio {:.2}  CPU {:.2} x  target {}  {}",
            self.name,
            side(&verdict.ours),
            side(&verdict.peer),
            verdict.ratio(),
            verdict.cpu_share(),
            self.target,
            if self.is_reached(verdict) { "reached" } else { "MISSED" },
        )
    }

    pub(crate) fn json(&self, verdict: &Verdict) -> String {
        json!({
            "measure": self.name,
            "ours": verdict.ours.rate,
            "peer": verdict.peer.rate,
            "ratio": verdict.ratio(),
            "target": self.target.ratio,
            "cpu_us_per_txn": {"ours": verdict.ours.cpu_us, "peer": verdict.peer.cpu_us, "share_target": self.target.cpu_share},
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

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
}
