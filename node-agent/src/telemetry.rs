//! Logs of this process: one JSON object a line on standard error, levels by `UNDERSTUDY_LOG` in the
//! form of `RUST_LOG`.
//!
//! Deliberately absent: traces over the network, log files (the container runtime keeps standard
//! error), and anything secret: no module logs a password, a key or a row.

use tracing_subscriber::EnvFilter;

/// Variable with the levels, for example `info,understudy_node_agent::pg=debug`.
pub const ENV_LOG: &str = "UNDERSTUDY_LOG";
/// kube's transport logs each failed request as an error of its own; whoever asked tells it once.
const DEFAULT_LEVELS: &str = "info,kube_client::client::builder=off";

/// Begins logging as `component`. Levels that cannot be read give the default and a warning. A second
/// call changes nothing.
pub fn init(component: &'static str) {
    let asked = std::env::var(ENV_LOG).ok().filter(|levels| !levels.is_empty());
    let parsed = asked.as_deref().map(EnvFilter::try_new);
    let complaint = match &parsed {
        Some(Err(error)) => Some(error.to_string()),
        Some(Ok(_)) | None => None,
    };
    let levels = match parsed {
        Some(Ok(levels)) => levels,
        Some(Err(_)) | None => EnvFilter::new(DEFAULT_LEVELS),
    };
    let begun = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(levels)
        .with_writer(std::io::stderr)
        .try_init();
    if begun.is_err() {
        return;
    }
    if let Some(problem) = complaint {
        tracing::warn!(problem, "{ENV_LOG} cannot be read; write for example `info,kube=warn`");
    }
    tracing::info!(
        component,
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "starting"
    );
}
