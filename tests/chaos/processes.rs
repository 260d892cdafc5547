//! Faults of processes: killed, stopped, starved.

use super::arena::Scene;
use crate::shell::{OPERATOR, wait_for};
use std::{thread, time::Duration};

/// How long a frozen active stays frozen.
const FROZEN: (u64, u64) = (29, 31);
/// What the standby may still take before the kernel kills it, in bytes: less than one more program.
const MEMORY_LEFT: u64 = 64 * 1024;

impl Scene<'_> {
    /// SIGKILL to a member's engine; its supervisor lives on.
    pub(crate) fn kill_engine(&self, member: &str) -> anyhow::Result<()> {
        self.pair.exec(member, &["understudy", "fault", "kill-engine"]).map(drop)
    }

    /// A signal to every process of a member's container.
    pub(crate) fn signal(&self, member: &str, signal: &str) -> anyhow::Result<()> {
        let (node, container) = (self.node(member)?, self.container(member)?);
        self.shell.signal_container(&node, &container, signal)
    }
}

pub(crate) fn kill_active_engine(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.kill_engine(&scene.active)
}

pub(crate) fn kill_standby_engine(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.kill_engine(&scene.standby)
}

pub(crate) fn kill_active_container(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.signal(&scene.active, "KILL")
}

pub(crate) fn kill_both_containers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (one, other) = if scene.dice.below(2) == 0 {
        (&scene.active, &scene.standby)
    } else {
        (&scene.standby, &scene.active)
    };
    scene.signal(one, "KILL")?;
    scene.signal(other, "KILL")
}

pub(crate) fn kill_active_then_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.kill_engine(&scene.active)?;
    let pause = scene.dice.below(600);
    // Not a condition: the moment is what is tried.
    thread::sleep(Duration::from_millis(pause));
    scene.kill_engine(&scene.standby)
}

pub(crate) fn kill_standby_then_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.kill_engine(&scene.standby)?;
    let pause = scene.dice.below(600);
    // Not a condition: the moment is what is tried.
    thread::sleep(Duration::from_millis(pause));
    scene.kill_engine(&scene.active)
}

/// The standby is back within a second or two, and then catches up for a moment.
pub(crate) fn kill_in_catch_up(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.kill_engine(&scene.standby)?;
    let pause = 100 + scene.dice.below(2_500);
    // Not a condition: the moment is what is tried.
    thread::sleep(Duration::from_millis(pause));
    scene.kill_engine(&scene.active)
}

pub(crate) fn kill_in_duplicate(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    super::disks::lose_standby(scene)?;
    let state = wait_for("the standby is built anew", Duration::from_secs(30), || {
        let members = scene.pair.status()?["members"].as_array().cloned().unwrap_or_default();
        let others = members
            .iter()
            .filter(|m| m["name"] != scene.active.as_str() && m["name"] != scene.standby.as_str());
        let mut states = others.filter_map(|m| m["state"].as_str());
        let is_built = |state: &&str| ["Duplicating", "CatchingUp", "InSync"].contains(state);
        Ok(states.find(is_built).map(str::to_owned))
    })?;
    if state == "InSync" {
        // A small database is built between two looks.
        scene.note("the duplicate was over");
    }
    scene.kill_engine(&scene.active)
}

/// CHECKPOINT is asked for on another connection, and the engine dies somewhere within it.
pub(crate) fn kill_in_checkpoint(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut checkpoint =
        scene.pair.start_psql(&format!("{}-active", scene.pair.name), "CHECKPOINT")?;
    let pause = scene.dice.below(300);
    // Not a condition: the moment is what is tried.
    thread::sleep(Duration::from_millis(pause));
    let killed = scene.kill_engine(&scene.active);
    checkpoint.wait()?;
    killed
}

pub(crate) fn kill_operator_and_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let selector = "app.kubernetes.io/name=understudy-operator";
    let arguments = ["-n", OPERATOR, "delete", "pods", "-l", selector];
    scene
        .shell
        .kubectl(&[&arguments[..], &["--force", "--grace-period=0", "--wait=false"]].concat())?;
    scene.kill_engine(&scene.active)
}

pub(crate) fn delete_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let arguments = ["delete", "pod", &scene.active, "--wait=false"];
    scene.pair.namespace.kubectl(&arguments).map(drop)
}

pub(crate) fn force_delete_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let arguments = ["delete", "pod", &scene.active, "--force", "--grace-period=0"];
    scene.pair.namespace.kubectl(&arguments).map(drop)
}

/// The kubelet's probes kill a container that does not answer for long: either way it must not
/// acknowledge anything when it goes on.
pub(crate) fn freeze_active(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    freeze(scene, scene.active.clone(), FROZEN)
}

pub(crate) fn freeze_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    freeze(scene, scene.standby.clone(), (3, 12))
}

fn freeze(scene: &mut Scene<'_>, member: String, (from, to): (u64, u64)) -> anyhow::Result<()> {
    let (node, container) = (scene.node(&member)?, scene.container(&member)?);
    scene.shell.signal_container(&node, &container, "STOP")?;
    scene.hold(from, to);
    // A container that was killed meanwhile has no process to go on.
    let _ = scene.shell.signal_container(&node, &container, "CONT");
    Ok(())
}

/// Takes the standby's memory away but for a little, which a program in its container uses up: the
/// kernel then kills the largest process there, the engine. The limit is lifted afterwards.
pub(crate) fn starve_standby(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let member = &scene.standby;
    let (node, container) = (scene.node(member)?, scene.container(member)?);
    let starved = scene.shell.starve(&node, &container, MEMORY_LEFT)?;
    let killed = wait_for("the kernel kills the standby", Duration::from_secs(60), || {
        // Whether it is this program or the engine that dies by it, is the kernel's choice.
        let _ = scene.pair.exec(member, &["understudy", "status", "--local", "--json"]);
        if starved.has_killed()? {
            return Ok(Some(()));
        }
        starved.tighten()?;
        Ok(None)
    });
    starved.lift()?;
    killed
}
