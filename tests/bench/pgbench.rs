//! pgbench, as both sides' client: PostgreSQL 15's own.

use crate::{machine, measure::Side};
use anyhow::{Context, ensure};
use std::process::Command;
use understudy_tests::servers::{Address, DATABASE, Placement, Server};

/// Rows of pgbench_accounts at the scale of every measure, 10.
pub(crate) const ROWS: f64 = 1e6;

/// What pgbench runs.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// One that it has: `select-only`, `tpcb-like`.
    Builtin(&'static str),
    /// Files and their weights.
    Files(Vec<(std::path::PathBuf, u32)>),
}

/// A run of pgbench.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) script: Script,
    pub(crate) clients: u32,
    pub(crate) over_tcp: bool,
}

/// What pgbench runs against.
pub(crate) trait Subject {
    fn name(&self) -> &'static str;
    /// Its first process.
    fn pid(&self) -> u32;
    fn address(&self, over_tcp: bool) -> Address<'_>;
}

impl Subject for Server {
    fn name(&self) -> &'static str {
        Server::name(self)
    }

    fn pid(&self) -> u32 {
        Server::pid(self)
    }

    fn address(&self, over_tcp: bool) -> Address<'_> {
        Server::address(self, over_tcp)
    }
}

/// One round: transactions a second, and server microseconds for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    rate: f64,
    cpu_us: f64,
}

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Seconds(u32),
    /// Transactions of each client.
    Transactions(u32),
}

/// Runs pgbench against a server, and counts what the server used meanwhile.
pub(crate) fn round(
    server: &impl Subject,
    load: &Load,
    length: Length,
    placement: Placement,
) -> anyhow::Result<Round> {
    let mut command = placement.command("pgbench");
    address(&mut command, server.address(load.over_tcp));
    let jobs = placement.jobs().min(load.clients);
    command.args(["-n", "-M", "prepared", "-D", "scale=10", "-s", "10"]);
    command.args(["-c", &load.clients.to_string(), "-j", &jobs.to_string()]);
    match length {
        Length::Seconds(seconds) => command.args(["-T", &seconds.to_string()]),
        Length::Transactions(count) => command.args(["-t", &count.to_string()]),
    };
    match &load.script {
        Script::Builtin(name) => drop(command.args(["-b", name])),
        Script::Files(files) => {
            for (file, weight) in files {
                command.arg("-f").arg(format!("{}@{weight}", file.display()));
            }
        }
    }
    command.arg(DATABASE);
    let before = machine::used_micros(server.pid())?;
    let output = command.output().context("pgbench does not run")?;
    let used = machine::used_micros(server.pid())? - before;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "pgbench failed on {}: {}",
        server.name(),
        String::from_utf8_lossy(&output.stderr).lines().take(5).collect::<Vec<_>>().join("; ")
    );
    let number = |before: &str| {
        let rest = told.split_once(before)?.1;
        rest.split_whitespace().next()?.split('/').next()?.parse::<f64>().ok()
    };
    let failed = number("number of failed transactions: ").unwrap_or(0.0);
    ensure!(failed == 0.0, "{failed} transactions failed on {}", server.name());
    let rate = number("tps = ").context("pgbench told no rate")?;
    let done = number("actually processed: ").context("pgbench told no number")?;
    Ok(Round { rate, cpu_us: used / done })
}

/// The medians of a side.
pub(crate) fn side(rounds: &[Round]) -> Side {
    let rates = rounds.iter().map(|round| round.rate).collect();
    Side::of(rates, rounds.iter().map(|round| round.cpu_us).collect())
}

/// Makes pgbench's tables.
pub(crate) fn fill(server: &Server) -> anyhow::Result<()> {
    let mut command = Command::new("pgbench");
    address(&mut command, server.address(false));
    command.args(["-i", "-q", "-s", "10", "-I", "dtgvp", DATABASE]);
    let output = command.output().context("pgbench does not run")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench -i failed on {}: {told}", server.name());
    Ok(())
}

/// Runs a script of SQL.
pub(crate) fn psql(server: &Server, sql: &str) -> anyhow::Result<String> {
    let mut command = Command::new("psql");
    address(&mut command, server.address(false));
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, DATABASE]);
    let output = command.output().context("psql does not run")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} refused `{sql}`: {told}", server.name());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn address(command: &mut Command, address: Address<'_>) {
    command.env("PGUSER", address.user).env("PGHOST", address.host);
    command.env("PGPORT", address.port.to_string());
    if let Some(password) = address.password {
        command.env("PGPASSWORD", password);
    }
}
