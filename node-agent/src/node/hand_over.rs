//! A clean stop: the active hands its role to the standby and then leaves (R22). The supervisor sends
//! SIGTERM when the pod is to end.

use crate::node::{EXIT_RESTART, Node};
use std::{sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};
use understudy_replication::Input;

/// How long commits are held back for the standby to take over.
const DEADLINE_MS: u64 = 3_000;
/// How long a Lease that is only released may take.
const RELEASE_MS: u64 = 1_500;
/// Time between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(5);

/// Listens for SIGTERM. Before the runtime is needed elsewhere, so that none is missed.
///
/// # Errors
/// When the handler cannot be installed.
pub(crate) fn on_terminate() -> std::io::Result<Signal> {
    signal(SignalKind::terminate())
}

/// Waits for the signal, lets go in order, and ends the process.
pub(crate) async fn wait(node: Arc<Node>, mut terminate: Signal) {
    terminate.recv().await;
    tracing::info!("asked to stop");
    node.stopping();
    if node.engine.with_section(|s| s.member.active_epoch().is_some()) {
        let standby = node.engine.with_section(|s| s.member.standby());
        let to = standby.filter(|(_, _, up)| *up).map(|(member, _, _)| member);
        let handed = match to {
            Some(to) => let_go(&node, Some(to), DEADLINE_MS).await,
            None => false,
        };
        if !handed {
            let_go(&node, None, RELEASE_MS).await;
        }
    }
    let log = node.engine.log.clone();
    let _ = tokio::task::spawn_blocking(move || log.sync_all()).await;
    tracing::info!("stopped");
    std::process::exit(0);
}

/// Whether this member ceased to be active in time.
async fn let_go(
    node: &Arc<Node>,
    to: Option<understudy_types::MemberName>,
    deadline_ms: u64,
) -> bool {
    tracing::info!(to = ?to, "handing over");
    node.engine.step(Input::Transfer { to, deadline_ms });
    let end = tokio::time::Instant::now() + Duration::from_millis(deadline_ms + RELEASE_MS);
    while tokio::time::Instant::now() < end {
        let (active, transferring) = node.engine.with_section(|s| {
            let standing = s.member.standing(crate::clock::now());
            (s.member.active_epoch().is_some(), standing.transferring)
        });
        if !active {
            return true;
        }
        if !transferring {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// The exit code of a process that was deposed while it was being stopped.
pub(crate) const fn exit_code(stopping: bool) -> i32 {
    if stopping { 0 } else { EXIT_RESTART }
}
