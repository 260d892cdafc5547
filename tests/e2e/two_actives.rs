//! Two actives, as only a person makes them (contract §4, row 13): the seed's procedure by hand, under
//! `mode: Paused`, while the members do not reach each other.

use crate::{
    pair::{Namespace, Outcome, Pair},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    process::Child,
    time::Duration,
};

/// Longest time until the operator has seen what happened.
const SEEN: Duration = Duration::from_secs(40);
const SET_ACTIVE: &str = "CALL ttRepStateSet('ACTIVE')";

/// A row before the cut, one on each active during it: the one on the active set first is trapped.
pub(crate) fn two_actives(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    pair.psql("orders-active", "CREATE TABLE notes (id int PRIMARY KEY, word text)")?;
    pair.psql("orders-active", "INSERT INTO notes VALUES (1, 'on both')")?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    refused(&pair, &standby, "the pair is managed")?;
    pair.set_mode("Paused")?;
    refused(&pair, &standby, "is active, and answers")?;
    let told = behind_a_cut(shell, &pair, &active, &standby);
    // Also after a failure: other flows need the node.
    shell.cluster(&["fault", "heal", &pair.node(&standby)?])?;
    let mut session = told?;
    pair.wait_whole()?;
    writeln!(session.stdin.take().context("no standard input")?, "SELECT 2;")?;
    let output = session.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        said.contains("another member is active now"),
        "the first active's session heard: {said}"
    );
    ensure!(pair.active()? == standby, "{} is active", pair.active()?);
    let tail = pair.trapped_tail(&active)?;
    let shown = shell.understudy(&["trapped", "show", &tail, "-n", &pair.namespace.name])?;
    ensure!(shown.contains("(2, 'set first')"), "shown: {shown}");
    pair.set_mode("Automatic")?;
    pair.wait_whole()?;
    for service in ["orders-active", "orders-standby"] {
        let rows = pair.psql(service, "SELECT id FROM notes ORDER BY id")?;
        ensure!(rows.split_whitespace().eq(["1", "3"]), "{service} has {rows}");
    }
    Ok(Outcome { note: "the one set later stayed, 1 row trapped".into(), ..Outcome::default() })
}

fn refused(pair: &Pair<'_>, standby: &str, why: &str) -> anyhow::Result<()> {
    let error = pair.psql_as_admin(standby, SET_ACTIVE).err().context("it was set active")?;
    let said = format!("{error:#}");
    ensure!(said.contains(why) && said.contains("HINT"), "it said: {said}");
    Ok(())
}

/// Makes the second active; returns a session that the first one has to end.
fn behind_a_cut(
    shell: &Shell,
    pair: &Pair<'_>,
    active: &str,
    standby: &str,
) -> anyhow::Result<Child> {
    let (node, other) = (pair.node(standby)?, pair.node(active)?);
    // A standby without a feeder is not ready: no Service of its own leads to it.
    let by_name = format!("{standby}.orders-members");
    shell.cluster(&["fault", "partition", &node, "--from", &other])?;
    let mut refusal = String::new();
    wait_for("nobody answers the standby any more", SEEN, || {
        let set = pair.psql_as_admin(&by_name, SET_ACTIVE);
        Ok(set.map_err(|error| refusal = format!("{error:#}")).ok())
    })
    .with_context(|| refusal)?;
    let state = pair.psql(&by_name, "CALL ttRepStateGet()")?;
    ensure!(state.trim() == "ACTIVE", "{standby} is {state}");
    pair.psql(&by_name, "INSERT INTO notes VALUES (3, 'set later')")?;
    pair.psql(active, "INSERT INTO notes VALUES (2, 'set first')")?;
    let exit = pair.exit_when_stalled("DualActive", SEEN)?;
    let human = exit["humanAction"].as_str().context("no action is named")?;
    ensure!(human.contains("understudy trapped show"), "humanAction: {human}");
    let mut session = pair.open_psql(active)?;
    let stdin = session.stdin.as_mut().context("no standard input")?;
    writeln!(stdin, "CALL ttRepStateGet();")?;
    let stdout = session.stdout.as_mut().context("no standard output")?;
    let mut state = String::new();
    BufReader::new(stdout).read_line(&mut state)?;
    ensure!(state.trim() == "ACTIVE", "{active} is {state}");
    Ok(session)
}
