//! Flags of the operator; each can be given by environment too.

use clap::Parser;
use std::net::SocketAddr;

/// The operator of active standby pairs.
#[derive(Debug, Clone, Parser)]
#[command(name = "understudy-operator", version)]
pub struct Args {
    /// Image of the node-agent for pairs that name none.
    #[arg(long, env = "UNDERSTUDY_NODE_AGENT_IMAGE")]
    pub node_agent_image: String,
    /// Namespace whose pairs are tended; absent or empty means all.
    #[arg(long, env = "UNDERSTUDY_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// Address of health and metrics.
    #[arg(long, env = "UNDERSTUDY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Namespace of the Lease by which one of several operator processes is elected.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub election_namespace: String,
    /// Name of that Lease.
    #[arg(long, env = "UNDERSTUDY_ELECTION_LEASE", default_value = "understudy-operator")]
    pub election_lease: String,
    /// Name of this process in the election; the pod's name.
    #[arg(long, env = "POD_NAME", default_value = "understudy-operator")]
    pub identity: String,
    /// What is logged, as `tracing` filters are written.
    #[arg(long, env = "UNDERSTUDY_LOG", default_value = "info,kube=warn")]
    pub log: String,
}
