//! The isolation levels beside PostgreSQL's, through psycopg on both servers: the Hermitage cases level by
//! level, and what READ COMMITTED does with rows, references and sequences that another session changes. Both
//! must do the same, but for what `otherwise` tells. And histories of many sessions.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

mod histories;
mod scans;

use serde::de::DeserializeOwned;
use serde_json::json;
use std::{collections::BTreeMap, process::Command};
use understudy_tests::{
    alone::program,
    servers::{DATABASE, Durability, Placement, Server, Servers},
};

/// What each level lets through of each case.
type Table = BTreeMap<String, BTreeMap<String, String>>;

/// By case: whether the statement waited, its answer, and what is left in the end.
type Cases = BTreeMap<String, serde_json::Value>;

/// Cases in which this engine does something else than PostgreSQL: whether the statement waits, and its answer.
/// tests/README.md says why.
fn otherwise() -> Cases {
    let referenced = "23503 update or delete on table \"parent\" violates foreign key constraint \
        \"child_parent_fkey\" on table \"child\"";
    let cases = [
        ("a row that a reference moves from goes, commit", json!([true, 1])),
        ("a row that a reference moves from goes, rollback", json!([true, referenced])),
        ("a sequence that is set is altered, commit", json!([false, -1])),
        ("a sequence that is set is altered, rollback", json!([false, -1])),
        ("a sequence whose number is taken is altered, commit", json!([false, -1])),
        ("a sequence whose number is taken is altered, rollback", json!([false, -1])),
    ];
    cases.into_iter().map(|(case, does)| (case.to_owned(), does)).collect()
}

/// What a script prints of a server.
fn told<T: DeserializeOwned>(script: &str, server: &Server) -> T {
    let script = understudy_tests::root().join("tests/isolation").join(script);
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
    let servers =
        Servers::start(&program().unwrap(), &place, Durability::Async, Placement::N).unwrap();
    let script = "hermitage.py";
    let (ours, peer): (Table, Table) = (told(script, &servers.ours), told(script, &servers.peer));
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
    assert_eq!(ours, peer);
}

#[test]
fn a_statement_that_waited_does_what_postgresqls_does() {
    let place = std::env::temp_dir();
    let servers =
        Servers::start(&program().unwrap(), &place, Durability::Async, Placement::N).unwrap();
    let script = "waiting.py";
    let (ours, peer): (Cases, Cases) = (told(script, &servers.ours), told(script, &servers.peer));
    assert!(!peer.is_empty());
    let mut otherwise = otherwise();
    for (case, expected) in &peer {
        let does = &ours[case];
        match otherwise.remove(case) {
            None => assert_eq!(does, expected, "{case}"),
            Some(known) => {
                assert_eq!(json!([does["waited"], does["answer"]]), known, "{case}");
                assert_ne!(does, expected, "{case} is the same by now");
                if does["answer"] == expected["answer"] {
                    assert_eq!(does["left"], expected["left"], "{case}");
                }
            }
        }
    }
    assert_eq!(otherwise, Cases::new(), "cases that nobody tried");
}
