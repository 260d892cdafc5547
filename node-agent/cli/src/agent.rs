//! The two processes of a container: supervisor and engine.

use anyhow::Context;
use std::{process::ExitCode, sync::Arc};
use understudy_agent_api::names;
use understudy_lease::{AuthorityLease, Timeouts};
use understudy_node_agent::{
    config::Config,
    node,
    pod::RoleLabels,
    supervisor::{self, Notices, Settings},
    telemetry,
    tls::{
        Tls,
        identity::{Home, PeerIdentity},
    },
};

/// PID 1 of the container.
pub(crate) fn agent() -> anyhow::Result<ExitCode> {
    telemetry::init("agent");
    let config = Config::from_environment()?;
    let settings = Settings::of_this_program(&config).context("cannot name this program")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let home = Home {
            namespace: config.namespace.clone(),
            pair_uid: config.pair_uid.clone(),
            own: PeerIdentity::Member(config.member.clone()),
        };
        let tls = Tls::load(&config.tls_dir, home)?;
        let kube = kube::Config::infer().await.context("no access to the API server")?;
        let lease_name = format!("{}{}", config.pair, names::LEASE_SUFFIX);
        let lease = AuthorityLease::connect(
            kube.clone(),
            &config.namespace,
            &lease_name,
            Timeouts::default(),
        )?;
        let labels = RoleLabels::connect(kube, &config.namespace)?;
        let notices =
            Notices::new(config.member.clone(), Arc::clone(&tls), Some(lease), Some(labels));
        supervisor::Witness::voters(&notices, config.scheme.voters.clone());
        tokio::spawn(tls.keep_fresh(understudy_node_agent::tls::RELOAD_EVERY));
        anyhow::Ok(supervisor::run(settings, Arc::new(notices)).await?)
    })?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The engine process.
pub(crate) fn engine() -> anyhow::Result<ExitCode> {
    telemetry::init("engine");
    node::run(Config::from_environment()?)?;
    Ok(ExitCode::SUCCESS)
}
