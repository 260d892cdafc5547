//! Faults of volumes.

use super::arena::Scene;
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use std::time::{Duration, Instant};

/// How long fdatasync fails; the engine ends at the first failure.
const FAILING: Duration = Duration::from_secs(2);
/// How long fdatasync hangs: past the lease, and past every wait of a commit.
const HANGING: Duration = Duration::from_secs(15);
/// Where a member sees its log volume.
const LOG_DIR: &str = "/var/lib/understudy/log";
/// The table whose changes fill a log.
pub(crate) const BULK: &str = "understudy_bulk";
/// Rows of it.
const BULK_ROWS: usize = 16;
/// Bytes of log in a transaction that changes them all.
const BULK_BYTES: usize = 4 << 20;
/// Such transactions that are more than a log has set aside: two segments of a sixteenth of the volume.
const BULK_WRITES: usize = 12;
/// Longest time until a log has used up what it has set aside.
const FULL: Duration = Duration::from_secs(60);
/// Longest time until a log writes on once there is room.
const RESUMED: Duration = Duration::from_secs(10);
/// Longest time until a person is told that nothing is left.
const TOLD: Duration = Duration::from_secs(90);
/// How long members without a database are watched.
const EMPTY_WATCHED: Duration = Duration::from_secs(30);

pub(crate) fn lose_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    lose(scene, &scene.active)
}

pub(crate) fn lose_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    lose(scene, &scene.standby)
}

/// Deletes a member's volumes and pod.
fn lose(scene: &Scene<'_>, member: &str) -> anyhow::Result<()> {
    let (data, log) = (format!("{member}-data"), format!("{member}-log"));
    let namespace = scene.pair.namespace;
    namespace.kubectl(&["delete", "pvc", &data, &log, "--wait=false"])?;
    let force = ["delete", "pod", member, "--wait=false", "--grace-period=0", "--force"];
    namespace.kubectl(&force).map(drop)
}

pub(crate) fn fail_active_fsync(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    fail_fsync(scene, &scene.active.clone())
}

pub(crate) fn fail_standby_fsync(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    fail_fsync(scene, &scene.standby.clone())
}

fn fail_fsync(scene: &Scene<'_>, member: &str) -> anyhow::Result<()> {
    let (node, container) = (scene.node(member)?, scene.container(member)?);
    let before = scene.pair.incarnation(member)?;
    scene
        .shell
        .trace_engine(&node, &container, "inject=fdatasync:error=EIO", FAILING)
        .context("strace")?;
    wait_for("the engine ended by it", Duration::from_secs(30), || {
        Ok((scene.pair.incarnation(member)? != before).then_some(()))
    })
}

pub(crate) fn hang_active_fsync(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    hang_fsync(scene, &scene.active.clone())
}

pub(crate) fn hang_standby_fsync(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    hang_fsync(scene, &scene.standby.clone())
}

/// The disk neither fails nor answers; the process lives, and its other threads go on.
fn hang_fsync(scene: &Scene<'_>, member: &str) -> anyhow::Result<()> {
    let (node, container) = (scene.node(member)?, scene.container(member)?);
    let expression = format!("inject=fdatasync:delay_enter={}", 2 * HANGING.as_micros());
    scene.shell.trace_engine(&node, &container, &expression, HANGING).context("strace")
}

pub(crate) fn fill_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    fill(scene, scene.active.clone(), |scene| {
        let refused = wait_for("a write is refused", FULL, || match scene.write_much() {
            Ok(()) => Ok(None),
            Err(error) => Ok(Some(format!("{error:#}"))),
        })?;
        ensure!(refused.contains("53100"), "a full log says {refused}");
        // Long enough for the operator to see it and say so.
        scene.hold(4, 8);
        let again = scene.write_much();
        ensure!(again.is_err(), "a full log took {BULK_BYTES} bytes");
        let rows =
            scene.pair.psql(&scene.active_service(), &format!("SELECT count(*) FROM {BULK}"))?;
        ensure!(rows.trim() == BULK_ROWS.to_string(), "reads do not go on: {rows}");
        Ok(())
    })?;
    wait_for("writes resume", RESUMED, || scene.write_much().map(Some))
}

pub(crate) fn fill_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    fill(scene, scene.standby.clone(), |scene| {
        for _ in 0..BULK_WRITES {
            // What is asked is that the active goes on; for how long it waits first, the gap tells.
            wait_for("the active goes on", FULL, || scene.write_much().map(Some))?;
        }
        Ok(())
    })
}

/// Fills a member's log volume, and writes more than its log has set aside.
fn fill(
    scene: &mut Scene<'_>,
    member: String,
    meanwhile: impl FnOnce(&mut Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let create = format!(
        "DROP TABLE IF EXISTS {BULK}; CREATE TABLE {BULK} (id int PRIMARY KEY, filling text)"
    );
    scene.pair.psql(&scene.active_service(), &create)?;
    let insert = format!("INSERT INTO {BULK} SELECT g, '' FROM generate_series(1, {BULK_ROWS}) g");
    scene.pair.psql(&scene.active_service(), &insert)?;
    let (node, container) = (scene.node(&member)?, scene.container(&member)?);
    let filled = scene.shell.fill(&node, &container, LOG_DIR)?;
    scene.note(&format!("{} MiB filled", filled.bytes >> 20));
    let told = meanwhile(scene);
    filled.empty()?;
    told
}

impl Scene<'_> {
    fn active_service(&self) -> String {
        format!("{}-active", self.pair.name)
    }

    /// One transaction with a good piece of log.
    fn write_much(&self) -> anyhow::Result<()> {
        let update = format!("UPDATE {BULK} SET filling = repeat('x', {})", BULK_BYTES / BULK_ROWS);
        let flags = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"];
        let command = [&["psql"], &flags[..], &["-c", &update]].concat();
        self.pair.client(&command).map(drop)
    }
}

pub(crate) fn lose_both(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    lose(scene, &scene.active)?;
    lose(scene, &scene.standby)
}

/// A person is told, and until then and afterwards no member answers with a database that was begun anew.
pub(crate) fn nobody_serves_an_empty_database(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut told = None;
    while told.is_none() || begun.elapsed() < EMPTY_WATCHED {
        scene.assert_no_empty_database()?;
        told = scene.way_out()?;
        ensure!(told.is_some() || begun.elapsed() < TOLD, "nobody is told what to do");
    }
    scene.note(&told.unwrap_or_default());
    Ok(())
}

impl Scene<'_> {
    /// What the status asks of a person, with phase and reason; `None` while it asks nothing.
    fn way_out(&self) -> anyhow::Result<Option<String>> {
        let status = self.pair.status()?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let stalled = conditions.iter().find(|c| c["type"] == "Stalled" && c["status"] == "True");
        let human = status["exit"]["humanAction"].as_str().filter(|human| *human != "none");
        let Some((stalled, human)) = stalled.zip(human) else { return Ok(None) };
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        Ok(Some(format!("{} {}: {human}", word(&status["phase"]), word(&stalled["reason"]))))
    }

    /// A table of the load is missing or empty only in a database that was begun anew; a container that a
    /// kubelet has not killed yet goes on answering from the old one.
    fn assert_no_empty_database(&self) -> anyhow::Result<()> {
        let members = self.pair.status()?["members"].as_array().cloned().unwrap_or_default();
        let members = members.iter().filter_map(|m| m["name"].as_str().map(str::to_owned));
        for service in members.chain([self.active_service()]) {
            let said = self.pair.psql(&service, "SELECT count(*) FROM understudy_demo_accounts");
            let is_anew = match &said {
                Ok(rows) => rows.trim() == "0",
                Err(error) => format!("{error:#}").contains("does not exist"),
            };
            ensure!(!is_anew, "{service} serves a database that was begun anew: {said:?}");
        }
        Ok(())
    }
}
