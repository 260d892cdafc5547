//! `understudy connect`: psql on the active, through the API server, with the application's user.

use crate::cluster::{PairArguments, PairInCluster};
use anyhow::Context;
use clap::Args;
use std::process::{ExitCode, Stdio};
use tokio::{io::copy_bidirectional, net::TcpListener, process::Command};

/// `understudy connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArguments {
    #[command(flatten)]
    pair: PairArguments,
    /// Another member than the active
    #[arg(long)]
    member: Option<String>,
    /// Further arguments for psql
    #[arg(last = true)]
    psql: Vec<String>,
}

/// Runs psql until it ends.
pub(crate) async fn run(arguments: ConnectArguments) -> anyhow::Result<ExitCode> {
    let pair = PairInCluster::connect(&arguments.pair).await?;
    let member = match arguments.member {
        Some(member) => member,
        None => pair.active().await?,
    };
    let secret = pair.app_secret().await?;
    let key = |key: &str| {
        secret.get(key).cloned().with_context(|| format!("Secret {}-app has no {key}", pair.name))
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let pods = pair.pods();
    let target = member.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (pods, target) = (pods.clone(), target.clone());
            tokio::spawn(async move {
                let Ok(mut forward) = pods.portforward(&target, &[5432]).await else { return };
                if let Some(mut stream) = forward.take_stream(5432) {
                    // The session's end ends both directions; neither has anything to report.
                    let _ = copy_bidirectional(&mut client, &mut stream).await;
                }
            });
        }
    });
    println!("{member} of {} through 127.0.0.1:{port}", pair.name);
    let status = Command::new("psql")
        .env("PGPASSWORD", key("password")?)
        .env("PGSSLMODE", "require")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", &key("username")?])
        .args(["-d", &key("dbname")?])
        .args(&arguments.psql)
        .stdin(Stdio::inherit())
        .status()
        .await
        .context("psql cannot be run; install postgresql-client")?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
