//! What is kept for a row, and what is logged for a change of one.

use crate::{
    measure::{Bench, Side, Verdict},
    pgbench::{self, Length, Load, ROWS, Script, psql},
    restart, wire,
};
use anyhow::{Context, ensure};
use std::{fs, path::Path, sync::Arc};
use understudy_tests::servers::{self, Durability, Kind, Placement, Server};
use understudy_txlog::{Disks, LogOptions, RecordKind, disk::FsDisk, record::records, recover};

/// Updates of a round.
const UPDATES: u32 = 20_000;
/// Bytes of the log read at once.
const BATCH: usize = 4 << 20;

/// Bytes of pgbench_accounts and its primary key for each row.
pub(crate) fn memory(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    let servers = bench.servers(Durability::Async, Placement::S)?;
    let size = |server: &Server| -> anyhow::Result<(f64, f64)> {
        let of = |relation: &str| -> anyhow::Result<f64> {
            let bytes = psql(server, &format!("SELECT pg_relation_size('{relation}'::regclass)"))?;
            Ok(bytes.parse::<f64>()? / ROWS)
        };
        Ok((of("pgbench_accounts")?, of("pgbench_accounts_pkey")?))
    };
    let ((our_row, our_entry), (row, entry)) = (size(&servers.ours)?, size(&servers.peer)?);
    let resident = resident(servers.ours.pid())? / ROWS;
    let notes = vec![
        format!("ours: a row {our_row:.1} B, an entry {our_entry:.1} B, as accounted"),
        format!("ours: {resident:.1} B resident for each row, everything in the process included"),
        format!("peer: a row {row:.1} B, an entry {entry:.1} B, as files"),
    ];
    let side = |bytes| Side::of(vec![bytes], Vec::new());
    let settings = format!("pgbench -i -s 10, the fill factor 100; {}", servers.settings());
    Ok(Verdict {
        ours: side(our_row + our_entry),
        peer: side(row + entry),
        floor: None,
        notes,
        settings,
    })
}

/// Resident bytes of a process.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}

/// Bytes of the log for each update of an account: ours are the records of the transactions as they lie in
/// the segments, the peer's the distance of WAL positions, without full pages.
pub(crate) fn log_bytes(bench: &mut Bench<'_>) -> anyhow::Result<Verdict> {
    let rounds = bench.arguments.rounds;
    bench.alone();
    let directory = bench.directory()?;
    let script = directory.path().join("update.sql");
    fs::write(&script, wire::UPDATE)?;
    let script = Script::Files(vec![(script, 1)]);
    let load = Load { script, clients: 1, over_tcp: false };
    let places = [Kind::Ours, Kind::Peer].map(|kind| (kind, restart::place(&directory, kind)));
    let start = |(kind, place): &(Kind, std::path::PathBuf)| {
        let program = &bench.arguments.understudy;
        Server::start(*kind, program, place, Durability::Async, Placement::S)
    };
    let (ours, peer) = (start(&places[0])?, start(&places[1])?);
    pgbench::fill(&ours)?;
    pgbench::fill(&peer)?;
    let length = Length::Transactions(UPDATES);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        pgbench::round(&ours, &load, length, Placement::S)?;
        for (full_pages, figures) in [("off", &mut without), ("on", &mut with)] {
            psql(&peer, &format!("ALTER SYSTEM SET full_page_writes = {full_pages}"))?;
            psql(&peer, "SELECT pg_reload_conf()")?;
            psql(&peer, "CHECKPOINT")?;
            let before = position(&peer)?;
            pgbench::round(&peer, &load, length, Placement::S)?;
            figures.push((position(&peer)? - before) / f64::from(UPDATES));
        }
    }
    // Its end brings the whole log into the files.
    drop(ours);
    let figures = record_bytes(&places[0].1, rounds)?;
    let full = crate::measure::median(with);
    let notes = vec![
        format!("peer with full_page_writes=on, after a checkpoint: {full:.1} B"),
        "ours: one record of the log; segment heads and marks of durability come to less than 1 B"
            .into(),
    ];
    let settings = servers::settings(Durability::Async, Placement::S);
    let settings = format!("1 client; full_page_writes=off; {settings}");
    let (ours, peer) = (Side::of(figures, Vec::new()), Side::of(without, Vec::new()));
    Ok(Verdict { ours, peer, floor: None, notes, settings })
}

fn position(server: &Server) -> anyhow::Result<f64> {
    let bytes = psql(server, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")?;
    Ok(bytes.parse()?)
}

/// Bytes of a transaction's record in the last rounds of a database that has ended.
fn record_bytes(place: &Path, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let below = place.join("data");
    let log = restart::directory_of(&below, "seg")?.context("there are no segments")?;
    let log = Arc::new(FsDisk::open(log)?);
    let disks = match restart::directory_of(&below, "ckp")? {
        Some(checkpoints) => Disks { log, data: Arc::new(FsDisk::open(checkpoints)?) },
        None => Disks::one(log),
    };
    let recovered = recover(disks, LogOptions::default())?;
    let mut sizes = Vec::new();
    let mut next = recovered.log.first_lsn();
    while next <= recovered.end.lsn {
        let mut batch = Vec::new();
        next = recovered.log.read_into(next, BATCH, &mut batch)?;
        for record in records(&batch) {
            let record = record?;
            if record.kind == RecordKind::Transaction {
                sizes.push(record.encoded.len() as f64);
            }
        }
    }
    let wanted = rounds as usize * UPDATES as usize;
    ensure!(sizes.len() > wanted, "only {} transactions in the log", sizes.len());
    let last = sizes.split_off(sizes.len() - wanted);
    let mean = |round: &[f64]| round.iter().sum::<f64>() / round.len() as f64;
    Ok(last.chunks(UPDATES as usize).map(mean).collect())
}
