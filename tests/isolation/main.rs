//! The isolation levels beside PostgreSQL's: the Hermitage cases through psycopg, on both servers, level by
//! level. What a level lets through must be the same on both.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};
use understudy_tests::servers::{DATABASE, Durability, Placement, Server, Servers};

/// What each level lets through of each case.
type Table = BTreeMap<String, BTreeMap<String, String>>;

/// The program, which `cargo test --workspace` puts beside the tests.
fn understudy() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.parent().and_then(Path::parent).unwrap().join("understudy");
    assert!(program.is_file(), "{} is not there: cargo build --workspace", program.display());
    program
}

fn hermitage(server: &Server) -> Table {
    let script = understudy_tests::root().join("tests/isolation/hermitage.py");
    let address = server.address(false);
    // Debian's own, for which psycopg is installed; another one may come first on the path.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).env("PGHOST", address.host).env("PGPORT", address.port.to_string());
    command.env("PGUSER", address.user).env("PGDATABASE", DATABASE);
    let output = command.output().expect("python3 and python3-psycopg: tests/run installs them");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "on {}: {told}", server.name());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn each_level_lets_through_what_postgresqls_does() {
    let place = std::env::temp_dir();
    let servers = Servers::start(&understudy(), &place, Durability::Async, Placement::N).unwrap();
    let (ours, peer) = (hermitage(&servers.ours), hermitage(&servers.peer));
    // The peer's own row, as Hermitage published it: else both could be wrong in one way.
    let allowed = |level: &str| -> Vec<&str> {
        let cases = peer[level].iter();
        cases.filter(|(_, verdict)| *verdict == "allowed").map(|(case, _)| case.as_str()).collect()
    };
    assert_eq!(allowed("SERIALIZABLE"), [""; 0]);
    assert_eq!(allowed("REPEATABLE READ"), ["G2", "G2-item", "G2-two-edges"]);
    let skews = ["G-single", "G-single-predicate", "G-single-write", "G2", "G2-item"];
    let lost = ["G2-two-edges", "P4", "PMP", "PMP-write"];
    assert_eq!(allowed("READ COMMITTED"), [&skews[..], &lost[..]].concat());
    // A statement that waited is executed anew, where PostgreSQL judges anew the rows that it waited for
    // alone: ours deletes what came to match meanwhile.
    let mut expected = peer.clone();
    let stricter = expected.get_mut("READ COMMITTED").and_then(|level| level.get_mut("PMP-write"));
    *stricter.unwrap() = "prevented".to_owned();
    assert_eq!(ours, expected);
}
