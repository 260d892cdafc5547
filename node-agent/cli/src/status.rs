//! `understudy status`: the pair's resource, and live figures from each member.

use crate::cluster::{PairArguments, PairInCluster};
use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use std::process::ExitCode;
use understudy_agent_api::{AgentStatus, PORT_CONTROL};
use understudy_node_agent::{
    config::Config,
    control_client::ControlClient,
    tls::{
        Tls,
        identity::{Expected, Home, PeerIdentity},
    },
};

/// `understudy status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pair: Option<PairArguments>,
    /// Ask this pod's own agent; works without an API server
    #[arg(long, conflicts_with = "pair")]
    local: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the status.
pub(crate) async fn run(arguments: StatusArguments) -> anyhow::Result<ExitCode> {
    let members = match &arguments.pair {
        None => vec![local().await?],
        Some(pair) => {
            let pair = PairInCluster::connect(pair).await?;
            if !arguments.json {
                print_head(&pair).await?;
            }
            everyone(&pair).await?
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&members)?);
    } else {
        println!("{}", table(&members));
        for member in &members {
            if let Some(problem) = &member.problem {
                println!("{}: {problem}", member.member);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn local() -> anyhow::Result<AgentStatus> {
    Ok(own_agent()?.status().await?)
}

/// The agent of this pod.
pub(crate) fn own_agent() -> anyhow::Result<ControlClient> {
    let config = Config::from_environment()
        .context("--local works inside a member's pod; outside, name the pair")?;
    let home = Home {
        namespace: config.namespace.clone(),
        pair_uid: config.pair_uid.clone(),
        own: PeerIdentity::Member(config.member.clone()),
    };
    let tls = Tls::load(&config.tls_dir, home)?;
    let expected = Expected::Member(config.member.clone());
    let host = format!("{}", std::net::Ipv4Addr::LOCALHOST);
    Ok(ControlClient::new(tls, host, PORT_CONTROL, expected))
}

async fn everyone(pair: &PairInCluster) -> anyhow::Result<Vec<AgentStatus>> {
    let mut all = Vec::new();
    for (member, _) in pair.members().await? {
        let command = ["understudy", "status", "--local", "--json"];
        match pair.output_of(&member, &command).await {
            Ok(text) => {
                let one: Vec<AgentStatus> = serde_json::from_str(&text)
                    .with_context(|| format!("{member} answered something else"))?;
                all.extend(one);
            }
            Err(error) => eprintln!("{member}: {error:#}"),
        }
    }
    Ok(all)
}

async fn print_head(pair: &PairInCluster) -> anyhow::Result<()> {
    let status = serde_json::to_value(pair.pair().await?.status.unwrap_or_default())?;
    let text = |key: &str| status.get(key).and_then(|v| v.as_str()).unwrap_or("-").to_owned();
    let epoch = status.get("epoch").and_then(serde_json::Value::as_i64).unwrap_or(0);
    println!("{}  {}  epoch {epoch}  promise: {}", pair.name, text("phase"), text("promise"));
    Ok(())
}

fn table(members: &[AgentStatus]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "MEMBER",
        "ROLE",
        "STATE",
        "EPOCH",
        "END",
        "DURABLE",
        "ACKNOWLEDGED",
        "AUTHORITY",
        "MEM",
    ]);
    for m in members {
        let left =
            |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3));
        table.add_row([
            m.member.to_string(),
            m.role.to_string(),
            format!("{:?}", m.state),
            m.epoch.to_string(),
            m.positions.end_lsn.to_string(),
            m.positions.durable_lsn.to_string(),
            m.positions.acknowledged_lsn.to_string(),
            format!(
                "lease {} grant {}",
                left(m.authority.lease_left_ms),
                left(m.authority.grant_left_ms)
            ),
            format!("{}/{} MiB", m.memory_used_bytes >> 20, m.memory_limit_bytes >> 20),
        ]);
    }
    table
}
