//! Faults of the Lease: a person, or a backup, takes away what the pair stands on.

use super::arena::{Scene, TAKES_OVER};
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;

const ANNOTATION: &str = "understudy.dev/authority";
/// Longest time until a standby that left S for a moment is named again.
const NAMED: Duration = Duration::from_secs(10);

impl Scene<'_> {
    fn lease(&self) -> String {
        format!("{}-authority", self.pair.name)
    }

    /// Writes the annotation as it is given, whatever is there.
    fn write_record(&self, record: &Value) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: record.to_string()}}});
        let arguments = ["patch", "lease", &self.lease(), "--type=merge", "-p", &patch.to_string()];
        self.pair.namespace.kubectl(&arguments).map(drop)
    }
}

/// The finalizer is a person's to remove, too.
pub(crate) fn delete_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let lease = scene.lease();
    scene.pair.namespace.kubectl(&["delete", "lease", &lease, "--wait=false"])?;
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    scene.pair.namespace.kubectl(&["patch", "lease", &lease, "--type=merge", "-p", patch])?;
    Ok(())
}

/// The standby is written in as the holder, as if a label had been moved.
pub(crate) fn edit_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    // On a busy machine the standby may leave S for a moment, and then there is nobody to name.
    let mut record = wait_for("the Lease names a standby", NAMED, || {
        let record = scene.pair.lease_record()?;
        Ok((!record["sync"].is_null()).then_some(record))
    })?;
    record["holder"] = record["sync"]["standby"].clone();
    record["sync"] = Value::Null;
    let seq = record["seq"].as_u64().context("no sequence number")?;
    record["seq"] = json!(seq + 1);
    scene.write_record(&record)
}

/// The state of an earlier epoch comes back after a failover, in which commits were acknowledged.
pub(crate) fn restore_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let old = scene.pair.lease_record()?;
    scene.kill_engine(&scene.active)?;
    let known = old["epoch"].as_u64().context("the Lease has no epoch")?;
    wait_for("a later epoch is on the Lease", TAKES_OVER, || {
        let record = scene.pair.lease_record()?;
        let is_later = record["epoch"].as_u64().is_some_and(|epoch| epoch > known);
        Ok((is_later && record["state"] == "held").then_some(()))
    })?;
    scene.hold(4, 6);
    scene.write_record(&old)
}

/// All that the API server knows goes back by a few seconds: nothing has happened since, or the standby
/// was away and came back, or the other member became active.
pub(crate) fn restore_etcd(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.shell.cluster(&["fault", "etcd", "save"])?;
    match scene.dice.below(3) {
        0 => scene.note("nothing since"),
        1 => {
            scene.note("the standby was away since");
            scene.kill_engine(&scene.standby)?;
        }
        _ => {
            scene.note("another active since");
            scene.kill_engine(&scene.active)?;
            scene.await_failover()?;
        }
    }
    scene.hold(4, 8);
    let record = scene.pair.lease_record()?;
    scene.epoch = record["epoch"].as_u64().context("the Lease has no epoch")?;
    scene.shell.cluster(&["fault", "etcd", "restore"]).map(drop)
}

/// Nobody was promoted by the old Lease, and the new one is above everything that was known.
pub(crate) fn is_reinstated(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.assert_stayed()?;
    let record = scene.pair.lease_record()?;
    let epoch = record["epoch"].as_u64().context("the Lease has no epoch")?;
    ensure!(epoch > scene.epoch, "epoch {} was known, and the Lease says {record}", scene.epoch);
    scene.note(&format!("epoch {} became {epoch}", scene.epoch));
    Ok(())
}
