//! The way out that only a person can take: the last active does not come back, nobody else has all it
//! acknowledged, and the command that the status names is typed.

use crate::{
    pair::{Namespace, Outcome, Pair},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::json;
use std::time::Duration;

/// The kubelet kills a frozen container only after a minute; the return wait is ten seconds.
const ALONE: Duration = Duration::from_secs(40);
/// Longest time until the operator has seen what happened.
const SEEN: Duration = Duration::from_secs(40);

/// The standby stands still while a row is written, then the active's node is off for good.
pub(crate) fn loss_accepted(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    pair.psql("orders-active", "CREATE TABLE notes (id int PRIMARY KEY, word text)")?;
    pair.psql("orders-active", "INSERT INTO notes VALUES (1, 'on both')")?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let (node, container) = (pair.node(&standby)?, pair.container(&standby)?);
    shell.signal_container(&node, &container, "STOP")?;
    let written = pair.psql("orders-active", "INSERT INTO notes VALUES (2, 'alone')");
    let alone = wait_for("the active goes on alone", ALONE, || {
        Ok((pair.status()?["sync"]["state"] == "Alone").then_some(()))
    });
    let active_node = pair.node(&active)?;
    let off = shell.cluster(&["fault", "node-off", &active_node]);
    let _ = shell.signal_container(&node, &container, "CONT");
    let told = written.and(alone).and(off.map(drop)).and_then(|()| type_what_is_told(shell, &pair));
    // Also after a failure: other flows need the node.
    shell.cluster(&["fault", "node-on", &active_node])?;
    told?;
    ensure!(pair.active()? == standby, "the standby did not take over");
    pair.wait_leads("active")?;
    pair.psql("orders-active", "INSERT INTO notes VALUES (3, 'after')")?;
    pair.wait_whole()?;
    for service in ["orders-active", "orders-standby"] {
        let rows = pair.psql(service, "SELECT id FROM notes ORDER BY id")?;
        ensure!(rows.split_whitespace().eq(["1", "3"]), "{service} has {rows}");
    }
    put_back(shell, &pair, &pair.trapped_tail(&active)?)?;
    Ok(Outcome {
        note: "1 row lost as told, kept aside, and put back".into(),
        ..Outcome::default()
    })
}

/// What was lost is shown, done again, and only then thrown away.
fn put_back(shell: &Shell, pair: &Pair<'_>, tail: &str) -> anyhow::Result<()> {
    let namespace = ["-n", &pair.namespace.name];
    let trapped = |what: &[&str]| shell.understudy(&[&["trapped"], what, &namespace].concat());
    let shown = trapped(&["show", tail])?;
    let statement = r#"INSERT INTO "public"."notes" ("id", "word") VALUES (2, 'alone');"#;
    ensure!(shown.contains(statement), "shown: {shown}");
    trapped(&["replay", tail])?;
    let word = pair.psql("orders-active", "SELECT word FROM notes WHERE id = 2")?;
    ensure!(word.trim() == "alone", "the row is not back: {word}");
    let again = trapped(&["replay", tail]);
    ensure!(again.is_err(), "a row came twice: {again:?}");
    ensure!(trapped(&["discard", tail]).is_err(), "thrown away without --yes");
    trapped(&["discard", tail, "--yes"])?;
    wait_for("nothing is trapped any more", SEEN, || {
        let listed = pair.status()?["trapped"].as_array().is_some_and(|all| !all.is_empty());
        Ok((!listed).then_some(()))
    })
}

/// Waits for the condition, and types the command of `status.exit.humanAction`.
fn type_what_is_told(shell: &Shell, pair: &Pair<'_>) -> anyhow::Result<()> {
    let exit = pair.exit_when_stalled("StandbyNotInSync", SEEN)?;
    let human = exit["humanAction"].as_str().context("no action is named")?;
    let command = human.split("never returns: understudy ").nth(1).context(human.to_owned())?;
    let words: Vec<&str> = command.split_whitespace().collect();
    let without = &words[..words.len() - 1];
    ensure!(shell.understudy(without).is_err(), "a loss was taken without --accept-loss");
    shell.understudy(&words).map(drop)
}
