//! Faults of volumes.

use super::arena::Scene;
use anyhow::Context;
use std::time::Duration;

/// How long fdatasync fails; the engine ends at the first failure.
const FAILING: Duration = Duration::from_secs(2);

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
    crate::shell::wait_for("the engine ended by it", Duration::from_secs(30), || {
        Ok((scene.pair.incarnation(member)? != before).then_some(()))
    })
}
