//! Measures over a socket, with pgbench as the client of both sides.

use crate::{
    floor::Floor,
    measure::{Bench, Verdict},
    pgbench::{self, Length, Load, Script},
    tatp,
};
use std::{fs, path::PathBuf};
use understudy_tests::servers::{Durability, Placement, Servers};

/// One account's balance by its key.
pub(crate) const UPDATE: &str = "\\set aid random(1, 100000 * :scale)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
";

fn load(script: Script, clients: u32) -> Load {
    Load { script, clients, over_tcp: false }
}

fn select(clients: u32) -> Load {
    load(Script::Builtin("select-only"), clients)
}

pub(crate) fn select_c1(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::S), |_| Ok(select(1)))
}

pub(crate) fn select_c16(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::S), |_| Ok(select(16)))
}

pub(crate) fn select_tcp_c1(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::S), |_| Ok(Load { over_tcp: true, ..select(1) }))
}

pub(crate) fn update_async_c1(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::S), |servers| update(servers, 1))
}

pub(crate) fn update_async_c8(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::N), |servers| update(servers, 8))
}

pub(crate) fn tpcb_async_c1(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    let tpcb = load(Script::Builtin("tpcb-like"), 1);
    compare(bench, (Durability::Async, Placement::S), |_| Ok(tpcb.clone()))
}

pub(crate) fn tpcb_async_c8(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    let tpcb = load(Script::Builtin("tpcb-like"), 8);
    compare(bench, (Durability::Async, Placement::N), |_| Ok(tpcb.clone()))
}

pub(crate) fn tatp_c8(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Async, Placement::N), |servers| {
        tatp::fill(&servers.ours)?;
        tatp::fill(&servers.peer)?;
        let files = tatp::MIX.iter().map(|(name, weight, text)| {
            Ok((script(servers, &format!("tatp-{name}.sql"), text)?, *weight))
        });
        Ok(load(Script::Files(files.collect::<anyhow::Result<_>>()?), 8))
    })
}

pub(crate) fn durable_c1(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Disk, Placement::S), |servers| update(servers, 1))
}

pub(crate) fn durable_c16(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    compare(bench, (Durability::Disk, Placement::N), |servers| update(servers, 16))
}

fn update(servers: &Servers, clients: u32) -> anyhow::Result<Load> {
    let file = script(servers, "update.sql", UPDATE)?;
    Ok(load(Script::Files(vec![(file, 1)]), clients))
}

/// A script's file, beside the servers'.
fn script(servers: &Servers, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = servers.directory().join(name);
    fs::write(&file, text)?;
    Ok(file)
}

/// Rounds in turn, after one of each that does not count.
fn compare(
    bench: &mut Bench<'_>,
    (durability, placement): (Durability, Placement),
    load: impl FnOnce(&Servers) -> anyhow::Result<Load>,
) -> anyhow::Result<Verdict> {
    let (rounds, seconds) = (bench.arguments.rounds, Length::Seconds(bench.arguments.seconds));
    let directories = [bench.directory()?, bench.directory()?];
    let servers = bench.servers(durability, placement)?;
    let load = load(servers)?;
    let [directory, with_engine] = directories;
    let beneath = Floor::start(directory, placement, load.clients, false)?;
    let with_engine = match (load.clients, durability) {
        (1, Durability::Async) => Some(Floor::start(with_engine, placement, 1, true)?),
        _ => None,
    };
    for server in [&servers.ours, &servers.peer] {
        pgbench::round(server, &load, Length::Seconds(1), placement)?;
    }
    let (mut ours, mut peer, mut floor, mut engine) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(pgbench::round(&servers.ours, &load, seconds, placement)?);
        peer.push(pgbench::round(&servers.peer, &load, seconds, placement)?);
        floor.push(pgbench::round(&beneath, &load, seconds, placement)?);
        if let Some(with_engine) = &with_engine {
            engine.push(pgbench::round(with_engine, &load, seconds, placement)?);
        }
    }
    let settings = format!("{} clients; {}", load.clients, servers.settings());
    let (ours, peer) = (pgbench::side(&ours), pgbench::side(&peer));
    let floor = Some(pgbench::side(&floor));
    let mut notes = Vec::new();
    if with_engine.is_some() {
        let side = pgbench::side(&engine);
        let (each, ratio) = (1e6 / side.figure, side.figure / peer.figure);
        notes.push(format!(
            "floor with the engine in it: {:.0}/s, {each:.1} us, ratio {ratio:.2}",
            side.figure
        ));
    }
    Ok(Verdict { ours, peer, floor, notes, settings })
}
