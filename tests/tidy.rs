//! Style and architecture as a test: the dependency direction, what is pure, sizes, words.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};
use understudy_tests::{root, sources, words};

/// Hard limit of a file's lines without tests (house style §5.7 aims at 600).
const FILE_LINES_MAX: usize = 800;

/// Who may depend on whom, beside packages from the registry.
const EDGES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("store", &["types"]),
    ("txlog", &["types"]),
    ("agent-api", &["types"]),
    ("authority", &["types"]),
    ("replication", &["types", "authority"]),
    ("lease", &["types", "authority"]),
    ("sql", &["types", "store"]),
    (
        "node-agent",
        &["types", "agent-api", "authority", "lease", "store", "txlog", "replication", "sql"],
    ),
    ("crds", &[]),
    ("operator", &["types", "agent-api", "authority", "lease", "crds"]),
    ("cli", &["types", "agent-api", "crds", "lease", "node-agent"]),
    ("tests", &["cli", "sql", "store", "txlog", "types"]),
    ("model", &[]),
    ("shuttle", &["types", "shuttle-locks"]),
    ("shuttle-locks", &[]),
    ("shuttle-log", &["types", "shuttle-locks"]),
];

/// Crates without any I/O, clock or randomness, and the pure half of the operator.
const PURE: &[&str] = &[
    "node-agent/types/src",
    "node-agent/agent-api/src",
    "node-agent/authority/src",
    "node-agent/store/src",
    "node-agent/replication/src",
    "node-agent/sql/src",
    "crds/src",
    "operator/src/pair/plan",
    "operator/src/pair/build",
    "operator/src/pair/validate.rs",
    "operator/src/pair/status",
];

const IMPURE: &[&str] = &[
    "tokio::",
    "kube::Client",
    "kube::Api",
    "std::fs",
    "std::net",
    "std::thread::spawn",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "rand::",
    "new_v4",
];

/// One word per thing (house style §5.4). Kubernetes' own `replicas` and `leader` of an election, and
/// the key of a table, are other things.
const FORBIDDEN: &[&str] =
    &["master", "slave", "primary", "replica", "leader", "resync", "rebuild", "flip", "swap"];

/// Where a forbidden word is somebody else's: the file, and the identifiers in it that may hold it.
const FOREIGN_WORDS: &[(&str, &str)] = &[
    ("swap", "arc_swap, Vec::swap_remove and atomics' swap are the libraries' words"),
    ("primary", "PRIMARY KEY is SQL's word"),
    ("replica", "REPLICA IDENTITY is SQL's word, in the parser's own names"),
    ("flip", "a bit that flips is the disk's fault, not a change of roles"),
    ("leader", "an election's word, in the operator's own two pods"),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

#[test]
fn crates_depend_in_one_direction() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        EDGES.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let metadata = metadata();
    let mut wrong = Vec::new();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), EDGES.len(), "a crate is missing in EDGES");
    for package in packages {
        let name = own(package["name"].as_str().expect("name")).expect("ours");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let is_dev = dependency["kind"].as_str() == Some("dev");
            let Some(to) = own(dependency["name"].as_str().expect("name")) else { continue };
            if !is_dev && !allowed[name].contains(to) {
                wrong.push(format!("{name} → {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the design does not have: {wrong:?}");
}

fn own(package: &str) -> Option<&str> {
    package.strip_prefix("understudy-")
}

#[test]
fn pure_code_has_no_way_to_the_world() {
    let mut wrong = Vec::new();
    for source in sources().unwrap() {
        let path = source.path.display().to_string();
        if !PURE.iter().any(|p| path.starts_with(p)) || source.is_test() {
            continue;
        }
        let code = source.code();
        for word in IMPURE.iter().filter(|w| code.contains(**w)) {
            wrong.push(format!("{path}: {word}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = sources()
        .unwrap()
        .into_iter()
        .filter(|s| !s.text.starts_with("//!"))
        .map(|s| s.path)
        .collect();
    assert!(silent.is_empty(), "files without a first `//!` line: {silent:?}");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .unwrap()
        .into_iter()
        .map(|s| (s.lines_without_tests(), s.path))
        .filter(|(lines, path)| *lines > FILE_LINES_MAX && !path.ends_with("tidy.rs"))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:?}");
}

#[test]
fn one_word_per_thing() {
    let foreign: BTreeMap<&str, &str> = FOREIGN_WORDS.iter().copied().collect();
    let mut wrong = BTreeSet::new();
    for source in sources().unwrap() {
        for word in words(&source.code()) {
            if FORBIDDEN.contains(&word.as_str()) && !foreign.contains_key(word.as_str()) {
                wrong.insert(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_test_is_skipped_in_silence_and_nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for source in sources().unwrap() {
        if source.path.ends_with("tests/tidy.rs") {
            continue;
        }
        let code = understudy_tests::strip(&source.text);
        for word in ["#[ignore", "todo!(", "unimplemented!("] {
            if code.contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
        for word in ["TODO", "FIXME", "XXX"] {
            if source.text.contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
