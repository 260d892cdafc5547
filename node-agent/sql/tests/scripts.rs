//! Runs the scripts under `testscripts/`: each line is SQL of a session, its output what a client would see.
//!
//! The harness plays the session and the commit section: it parses, prepares, executes, and gives commits
//! their LSNs. `s2:` before a line speaks in another session. A statement that somebody else blocks is
//! reported, undone, and can be repeated with `retry`. Rewrite expectations with UPDATE_GOLDENFILES=1.

#[path = "session/mod.rs"]
mod session;

use goldenscript::{Command, Context, Runner};
use session::Database;
use std::{error::Error, path::Path};

struct Script {
    database: Database,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let session = context.prefix.clone().unwrap_or_default();
        Ok(self.database.run(&session, &command.name))
    }
}

fn run_all(directory: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(directory);
    let mut scripts: Vec<_> = std::fs::read_dir(&root)
        .expect("the directory of scripts is there")
        .map(|entry| entry.expect("its entries are readable").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", root.display());
    for script in scripts {
        let mut runner = Script { database: Database::new() };
        goldenscript::run(&mut runner, &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

#[test]
fn definitions_do_what_their_scripts_say() {
    run_all("ddl");
}

#[test]
fn changes_do_what_their_scripts_say() {
    run_all("dml");
}

#[test]
fn queries_do_what_their_scripts_say() {
    run_all("queries");
}

#[test]
fn transactions_do_what_their_scripts_say() {
    run_all("transactions");
}

#[test]
fn errors_are_what_their_scripts_say() {
    run_all("errors");
}

#[test]
fn copies_do_what_their_scripts_say() {
    run_all("copy");
}

#[test]
fn foreign_keys_do_what_their_scripts_say() {
    run_all("foreign_keys");
}
