//! What a start after a crash costs: replay of the log, and loading a checkpoint.

use crate::{
    measure::{Bench, Side, Verdict, median},
    pgbench::{self, Length, Load, ROWS, Script, psql},
    wire,
};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use understudy_tests::servers::{self, Durability, Kind, Placement, Server, log_of};

/// Clients that make the log that is replayed, and transactions of each.
const CLIENTS: u32 = 8;
const TRANSACTIONS: u32 = 75_000;

/// Rows of a table of wide ones, how many of them are written at a time, and the bytes of text in each.
const WIDE_ROWS: usize = 200_000;
const WIDE_STEP: usize = 20_000;
const WIDE_BYTES: usize = 1_000;

/// Where one side has its files.
pub(crate) fn place(directory: &TempDir, kind: Kind) -> PathBuf {
    directory.path().join(match kind {
        Kind::Ours => "ours",
        Kind::Peer => "peer",
    })
}

fn start(bench: &Bench<'_>, kind: Kind, place: &Path) -> anyhow::Result<Server> {
    let program = &bench.arguments.understudy;
    Server::start(kind, program, place, Durability::Async, Placement::N)
}

/// Transactions replayed a second after a kill; the peer's redo of as many after an immediate stop.
/// Each round starts from a copy of the same files.
pub(crate) fn replay(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    bench.alone();
    let directory = bench.directory()?;
    for kind in [Kind::Ours, Kind::Peer] {
        let server = filled(bench, &directory, kind)?;
        let script = directory.path().join("update.sql");
        fs::write(&script, wire::UPDATE)?;
        let script = Script::Files(vec![(script, 1)]);
        let load = Load { script, clients: CLIENTS, over_tcp: false };
        pgbench::round(&server, &load, Length::Transactions(TRANSACTIONS), Placement::N)?;
        server.kill()?;
    }
    let mut sides = [(Kind::Ours, Vec::new(), Vec::new()), (Kind::Peer, Vec::new(), Vec::new())];
    for _ in 0..bench.arguments.rounds {
        for (kind, rates, waits) in &mut sides {
            let copy = directory.path().join("copy");
            copied(&place(&directory, *kind), &copy)?;
            let server = start(bench, *kind, &copy)?;
            waits.push(server.started_in().as_secs_f64());
            rates.push(match kind {
                Kind::Ours => our_replay(&copy)?,
                Kind::Peer => f64::from(CLIENTS * TRANSACTIONS) / redo_seconds(&copy)?,
            });
            server.kill()?;
            fs::remove_dir_all(&copy)?;
        }
    }
    let [(_, ours, our_waits), (_, peer, waits)] = sides;
    let notes = vec![
        format!(
            "from exec to ready: ours {:.2} s, checkpoint of a million rows included, peer {:.2} s",
            median(our_waits),
            median(waits),
        ),
        format!(
            "an update: ours {:.0} ns, peer {:.0} ns",
            1e9 / median(ours.clone()),
            1e9 / median(peer.clone())
        ),
    ];
    let settings = format!(
        "{} updates by {CLIENTS} clients since the checkpoint; {}",
        CLIENTS * TRANSACTIONS,
        servers::settings(Durability::Async, Placement::N)
    );
    let (ours, peer) = (Side::of(ours, Vec::new()), Side::of(peer, Vec::new()));
    Ok(Verdict { ours, peer, floor: None, notes, settings })
}

/// Bytes a second of a checkpoint into memory, from the page cache.
pub(crate) fn checkpoint_load(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    bench.alone();
    let directory = bench.directory()?;
    for kind in [Kind::Ours, Kind::Peer] {
        filled(bench, &directory, kind)?.kill()?;
    }
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    let (mut waits, mut bytes) = (Vec::new(), (0.0, 0.0));
    let (mut our_times, mut times) = (Vec::new(), Vec::new());
    for _ in 0..bench.arguments.rounds {
        let server = start(bench, Kind::Ours, &place(&directory, Kind::Ours))?;
        waits.push(server.started_in().as_secs_f64());
        let (size, seconds) = our_load(&place(&directory, Kind::Ours))?;
        bytes.0 = size;
        ours.push(size / seconds);
        our_times.push(seconds);
        server.kill()?;
        let server = start(bench, Kind::Peer, &place(&directory, Kind::Peer))?;
        psql(&server, "CREATE EXTENSION IF NOT EXISTS pg_prewarm")?;
        let (size, seconds) = prewarmed(&server)?;
        bytes.1 = size;
        peer.push(size / seconds);
        times.push(seconds);
        drop(server);
    }
    let notes = vec![
        format!(
            "ours: {:.0} MB, {}; from exec to ready {:.2} s",
            bytes.0 / 1e6,
            by_row(median(our_times)),
            median(waits)
        ),
        format!(
            "peer: {:.0} MB of table and key, {}; it builds nothing",
            bytes.1 / 1e6,
            by_row(median(times))
        ),
        format!(
            "ours with rows of {WIDE_BYTES} bytes: {:.0} MB/s",
            median(load_wide_rows(bench)?) / 1e6
        ),
    ];
    let settings = servers::settings(Durability::Async, Placement::N);
    let settings = format!("pgbench -i -s 10; {settings}");
    let (ours, peer) = (Side::of(ours, Vec::new()), Side::of(peer, Vec::new()));
    Ok(Verdict { ours, peer, floor: None, notes, settings })
}

/// Bytes a second of our checkpoint of a table whose rows are wide: there it is the bytes that cost, not the rows.
fn load_wide_rows(bench: &Bench<'_>) -> anyhow::Result<Vec<f64>> {
    let directory = bench.directory()?;
    let place = place(&directory, Kind::Ours);
    let mut server = start(bench, Kind::Ours, &place)?;
    psql(&server, "CREATE TABLE wide (id int PRIMARY KEY, t text)")?;
    for first in (1..=WIDE_ROWS).step_by(WIDE_STEP) {
        let rows = format!("generate_series({first}, {}) g", first + WIDE_STEP - 1);
        let insert = format!("INSERT INTO wide SELECT g, repeat('x', {WIDE_BYTES}) FROM {rows}");
        psql(&server, &insert)?;
    }
    psql(&server, "CALL ttCkpt()")?;
    let mut rates = Vec::new();
    for _ in 0..bench.arguments.rounds {
        server.kill()?;
        server = start(bench, Kind::Ours, &place)?;
        let (bytes, seconds) = our_load(&place)?;
        rates.push(bytes / seconds);
    }
    server.kill()?;
    Ok(rates)
}

/// What a time for all rows of pgbench_accounts comes to.
fn by_row(seconds: f64) -> String {
    format!("{:.0} ns a row, {:.1} M rows/s", seconds / ROWS * 1e9, ROWS / seconds / 1e6)
}

/// A server with pgbench's tables, and a checkpoint just now.
fn filled(bench: &Bench<'_>, directory: &TempDir, kind: Kind) -> anyhow::Result<Server> {
    let server = start(bench, kind, &place(directory, kind))?;
    pgbench::fill(&server)?;
    psql(&server, if kind == Kind::Peer { "CHECKPOINT" } else { "CALL ttCkpt()" })?;
    Ok(server)
}

/// Copies a directory, and lets the disk come to rest.
fn copied(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copy.success(), "{} was not copied", from.display());
    rustix::fs::sync();
    Ok(())
}

/// Transactions a second, as recovery tells it.
fn our_replay(place: &Path) -> anyhow::Result<f64> {
    let told = recovered(place)?;
    let replayed = number(&told, "replayed")?;
    let least = f64::from(CLIENTS * TRANSACTIONS) / 2.0;
    ensure!(replayed > least, "a checkpoint came between: {replayed} were replayed");
    Ok(replayed / number(&told, "replay_ms")? * 1e3)
}

/// Bytes of the checkpoint, and the seconds that it took to load, as recovery tells it.
fn our_load(place: &Path) -> anyhow::Result<(f64, f64)> {
    let told = recovered(place)?;
    Ok((number(&told, "checkpoint_bytes")?, number(&told, "load_ms")? / 1e3))
}

/// The line that recovery ends with.
fn recovered(place: &Path) -> anyhow::Result<Value> {
    let log = log_of(place)?;
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line.get("message").is_some_and(|m| m == "recovered"));
    line.with_context(|| format!("no recovery in {log}"))
}

fn number(line: &Value, name: &str) -> anyhow::Result<f64> {
    line.get(name).and_then(Value::as_f64).with_context(|| format!("no {name} in {line}"))
}

/// Seconds of PostgreSQL's redo, as it tells them.
fn redo_seconds(place: &Path) -> anyhow::Result<f64> {
    let log = log_of(place)?;
    let line = log.lines().find(|line| line.contains("redo done at"));
    let line = line.with_context(|| format!("no redo in {log}"))?;
    let elapsed = line.rsplit_once("elapsed: ").map(|(_, rest)| rest);
    let seconds = elapsed.and_then(|rest| rest.split_whitespace().next());
    Ok(seconds.with_context(|| format!("no time in {line}"))?.parse()?)
}

/// Bytes that PostgreSQL brings into its memory, and the seconds that it says it took.
fn prewarmed(server: &Server) -> anyhow::Result<(f64, f64)> {
    let names = ["pgbench_accounts", "pgbench_accounts_pkey"];
    let (mut bytes, mut seconds) = (0.0, 0.0);
    for name in names {
        let size = psql(server, &format!("SELECT pg_relation_size('{name}'::regclass)"))?;
        bytes += size.parse::<f64>()?;
        let told =
            psql(server, &format!("EXPLAIN (ANALYZE) SELECT pg_prewarm('{name}'::regclass)"))?;
        let time = told.rsplit_once("Execution Time: ").map(|(_, rest)| rest);
        let ms = time.and_then(|rest| rest.split_whitespace().next()).context("no time told")?;
        seconds += ms.parse::<f64>()? / 1e3;
    }
    Ok((bytes, seconds))
}

/// The directory below `data` that holds files of this extension; `None` when there are none.
pub(crate) fn directory_of(data: &Path, extension: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut found = vec![data.to_owned()];
    let mut at = 0;
    while let Some(directory) = found.get(at).cloned() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|own| own == extension) {
                return Ok(Some(directory));
            }
            if path.is_dir() {
                found.push(path);
            }
        }
        at += 1;
    }
    Ok(None)
}
