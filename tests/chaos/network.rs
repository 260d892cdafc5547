//! Faults of nodes, networks and the API server, made by the cluster tool in its own namespaces.

use super::arena::Scene;
use anyhow::Context;
use std::{thread, time::Duration};

/// How long a cut stands, in seconds: past the lease, and past the kubelet's next heartbeat.
const CUT: (u64, u64) = (6, 12);
/// How long the API server is away, in seconds.
const API_AWAY: u64 = 60;

/// Cuts the active's node, holds, and heals.
fn cut(scene: &mut Scene<'_>, arguments: &[&str]) -> anyhow::Result<()> {
    let node = scene.node(&scene.active)?;
    scene.shell.cluster(&[&["fault", "partition", &node], arguments].concat())?;
    scene.hold(CUT.0, CUT.1);
    scene.shell.cluster(&["fault", "heal", &node]).map(drop)
}

fn cut_from_standby(scene: &mut Scene<'_>, arguments: &[&str]) -> anyhow::Result<()> {
    let node = scene.node(&scene.standby)?;
    cut(scene, &[&["--from", &node], arguments].concat())
}

pub(crate) fn cut_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "all"])
}

pub(crate) fn cut_active_in(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "all", "--direction", "in"])
}

pub(crate) fn cut_active_out(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "all", "--direction", "out"])
}

pub(crate) fn lossy_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "all", "--loss", "20%"])
}

pub(crate) fn cut_active_api(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "api"])
}

pub(crate) fn cut_active_api_in(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "api", "--direction", "in"])
}

pub(crate) fn cut_active_api_out(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut(scene, &["--from", "api", "--direction", "out"])
}

pub(crate) fn cut_link(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut_from_standby(scene, &[])
}

pub(crate) fn cut_link_in(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut_from_standby(scene, &["--direction", "in"])
}

pub(crate) fn cut_link_out(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut_from_standby(scene, &["--direction", "out"])
}

pub(crate) fn lossy_link(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    cut_from_standby(scene, &["--loss", "20%"])
}

/// The API server forgets the pod while its process lives on behind the cut.
pub(crate) fn twin(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let node = scene.node(&scene.active)?;
    scene.shell.cluster(&["fault", "partition", &node, "--from", "api"])?;
    let arguments = ["delete", "pod", &scene.active, "--force", "--grace-period=0", "--wait=false"];
    let deleted = scene.pair.namespace.kubectl(&arguments);
    scene.hold(CUT.0, CUT.1);
    scene.shell.cluster(&["fault", "heal", &node])?;
    deleted.map(drop)
}

/// As for maintenance: evicted, which the disruption budget allows one voter at a time, and let back.
pub(crate) fn drain_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let node = scene.node(&scene.active)?;
    let selector = format!("--pod-selector=understudy.dev/pair={}", scene.pair.name);
    let drain = ["drain", &node, &selector, "--delete-emptydir-data", "--timeout=60s"];
    let drained = scene.shell.kubectl(&drain);
    scene.hold(1, 3);
    scene.shell.kubectl(&["uncordon", &node])?;
    drained.map(drop)
}

pub(crate) fn active_node_off(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    node_off(scene, scene.active.clone())
}

pub(crate) fn standby_node_off(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    node_off(scene, scene.standby.clone())
}

fn node_off(scene: &mut Scene<'_>, member: String) -> anyhow::Result<()> {
    let node = scene.node(&member)?;
    scene.shell.cluster(&["fault", "node-off", &node])?;
    scene.hold(CUT.0, CUT.1);
    scene.shell.cluster(&["fault", "node-on", &node]).map(drop)
}

fn api(scene: &Scene<'_>, what: &str) -> anyhow::Result<()> {
    scene.shell.cluster(&["fault", "apiserver", what]).map(drop)
}

fn without_api(
    scene: &mut Scene<'_>,
    (away, back): (&str, &str),
    meanwhile: impl FnOnce(&mut Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    api(scene, away)?;
    // Not conditions: how long the API server is away, and when something dies in this time.
    let before = 5 + scene.dice.below(20);
    thread::sleep(Duration::from_secs(before));
    let broken = meanwhile(scene);
    thread::sleep(Duration::from_secs(API_AWAY - before));
    api(scene, back).context("the API server does not come back")?;
    broken
}

pub(crate) fn stop_api(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    without_api(scene, ("stop", "start"), |_| Ok(()))
}

pub(crate) fn pause_api(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    without_api(scene, ("pause", "resume"), |_| Ok(()))
}

/// Without the API server nobody runs commands in containers: the engine is found from outside.
fn kill_engine_without_api(scene: &mut Scene<'_>, member: String) -> anyhow::Result<()> {
    let (node, container) = (scene.node(&member)?, scene.container(&member)?);
    without_api(scene, ("stop", "start"), |scene| scene.shell.kill_engine(&node, &container))
}

pub(crate) fn stop_api_and_kill_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    kill_engine_without_api(scene, scene.active.clone())
}

pub(crate) fn stop_api_and_kill_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    kill_engine_without_api(scene, scene.standby.clone())
}
