//! Who decides and what may be lost: `spec.failover`, and the commits that a client asked about by name.

use crate::{
    pair::{Namespace, Outcome, Pair},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::json;
use std::time::Duration;

/// Longest time until the operator has seen what happened.
const SEEN: Duration = Duration::from_secs(40);
/// Longest time until another member has taken a lost one's place: 15 s of waiting, and a duplicate.
const REPLACED: Duration = Duration::from_secs(120);
/// How long the recorder writes.
const LOAD_SECONDS: u32 = 15;

/// The active's node is off: the pair waits for the command that the status names.
pub(crate) fn manual(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({"failover": {"policy": "Manual"}}))?;
    pair.psql("orders-active", "CREATE TABLE notes (id int PRIMARY KEY)")?;
    pair.psql("orders-active", "INSERT INTO notes VALUES (1)")?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let node = pair.node(&active)?;
    let off = shell.cluster(&["fault", "node-off", &node]);
    let told = off.and_then(|_| type_the_command(shell, &pair, &standby));
    // Also after a failure: other flows need the node.
    shell.cluster(&["fault", "node-on", &node])?;
    told?;
    pair.wait_whole()?;
    ensure!(pair.active()? == standby, "{} is active", pair.active()?);
    let rows = pair.psql("orders-active", "SELECT id FROM notes")?;
    ensure!(rows.trim() == "1", "rows: {rows}");
    Ok(Outcome { note: "nobody was promoted before the command".into(), ..Outcome::default() })
}

fn type_the_command(shell: &Shell, pair: &Pair<'_>, standby: &str) -> anyhow::Result<()> {
    let epoch = pair.epoch()?;
    let exit = pair.exit_when_stalled("FailoverIsManual", SEEN)?;
    ensure!(pair.epoch()? == epoch, "somebody was promoted without a word");
    let human = exit["humanAction"].as_str().context("no action is named")?;
    let words: Vec<&str> = human.split_whitespace().collect();
    let said = shell.understudy(&words[1..])?;
    ensure!(said.contains(&format!("{standby} serves")), "it said: {said}");
    Ok(())
}

/// A commit with a token, one that was undone, and the answers before and after a failover.
pub(crate) fn named_commits(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    pair.psql("orders-active", "CREATE TABLE notes (id int PRIMARY KEY)")?;
    let named = |insert: &str, end: &str| -> anyhow::Result<String> {
        let text =
            format!("BEGIN; CALL ttRepXactTokenGet(); INSERT INTO notes VALUES ({insert}); {end}");
        let told = pair.psql("orders-active", &text)?;
        let token = told.split_whitespace().find(|word| {
            word.split_once('.')
                .is_some_and(|(e, n)| e.parse::<u64>().is_ok() && n.parse::<u64>().is_ok())
        });
        token.map(str::to_owned).with_context(|| format!("no token in {told}"))
    };
    let (kept, undone) = (named("1", "COMMIT")?, named("2", "ROLLBACK")?);
    let ask = |service: &str, token: &str| {
        pair.psql(service, &format!("CALL ttRepXactStatus('{token}')"))
    };
    let check = |token: &str, expected: &str| -> anyhow::Result<()> {
        let told = ask("orders-active", token)?;
        ensure!(told.trim().starts_with(expected), "{token}: {told}, not {expected}");
        Ok(())
    };
    check(&kept, "committed")?;
    check(&undone, "not committed")?;
    let active = pair.active()?;
    shell.kill_engine(&pair.node(&active)?, &pair.container(&active)?)?;
    wait_for("another member serves", SEEN, || {
        Ok((pair.active().is_ok_and(|now| now != active)).then_some(()))
    })?;
    pair.wait_whole()?;
    check(&kept, "committed")?;
    check(&undone, "not committed")?;
    let on_standby = ask("orders-standby", &kept)?;
    ensure!(on_standby.trim().starts_with("committed"), "the standby says {on_standby}");
    let careful = ask("orders-standby", &undone)?;
    ensure!(careful.trim().starts_with("unknown"), "the standby says {careful}");
    Ok(Outcome {
        note: format!("{kept} committed, {undone} not, on the survivor"),
        ..Outcome::default()
    })
}

/// NO RETURN with what may be lost: the standby takes over, and the decision tells both figures.
pub(crate) fn loss_bounded(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    const COMMITS: u64 = 500;
    let spec = json!({
        "replication": {"returnService": "NoReturn"},
        "failover": {"dataLoss": "AllowUpTo", "maxLoss": {"seconds": 1, "commits": COMMITS}},
    });
    let pair = namespace.pair("orders", spec)?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let recording = pair.record(LOAD_SECONDS)?;
    recording.let_run(&pair);
    shell.kill_engine(&pair.node(&active)?, &pair.container(&active)?)?;
    let mut outcome = recording.verdict()?;
    ensure!(outcome.lost <= COMMITS, "{} acknowledged commits were lost", outcome.lost);
    pair.wait_whole()?;
    ensure!(pair.active()? == standby, "{} did not take over", standby);
    let decision = wait_for("the loss is measured", SEEN, || {
        let status = pair.status()?;
        let newest = status["decisions"].get(0).cloned().unwrap_or_default();
        Ok(newest["measuredLoss"].is_string().then_some(newest))
    })?;
    let predicted = decision["predictedLoss"].as_str().unwrap_or("");
    ensure!(predicted.contains(&format!("at most {COMMITS} commits")), "predicted: {predicted}");
    outcome.note = format!(
        "{} lost; predicted {predicted}; measured {}",
        outcome.lost, decision["measuredLoss"]
    );
    // What was allowed is no failure of the flow.
    outcome.lost = 0;
    Ok(outcome)
}

/// The standby's node does not come back in time: the next number takes its place on another node.
pub(crate) fn node_replaced(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let spec = json!({"failover": {"nodeLoss": {"afterSeconds": 15}}});
    let pair = namespace.pair("orders", spec)?;
    let standby = pair.standby()?;
    let node = pair.node(&standby)?;
    let recording = pair.record(40)?;
    let off = shell.cluster(&["fault", "node-off", &node]);
    let replaced = off.and_then(|_| {
        wait_for("another member stands by", REPLACED, || {
            let roles = pair.roles_when_ready()?;
            Ok(roles.map(|(_, now)| now).filter(|now| *now != standby))
        })
    });
    shell.cluster(&["fault", "node-on", &node])?;
    let new = replaced?;
    let mut outcome = recording.finish()?;
    ensure!(pair.node(&new)? != node, "{new} is on {node}, too");
    wait_for("the pod of the old member is gone", REPLACED, || {
        Ok(namespace.object("pod", &standby)?.is_none().then_some(()))
    })?;
    for volume in ["data", "log"] {
        let kept = namespace.object("pvc", &format!("{standby}-{volume}"))?;
        ensure!(kept.is_some(), "the {volume} volume of {standby} is gone");
    }
    let status = pair.status()?;
    let members = status["members"].as_array().context("no members")?;
    let is_retired =
        members.iter().any(|m| m["name"] == standby.as_str() && m["standing"] == "Retired");
    ensure!(is_retired, "{standby} is not listed as retired: {members:?}");
    pair.wait_whole()?;
    outcome.note = format!("{standby} replaced by {new}, its volumes kept");
    Ok(outcome)
}
