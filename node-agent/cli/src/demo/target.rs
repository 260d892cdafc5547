//! How the recorder reaches the database: a libpq URI, or the API server's port-forward to whatever pod
//! is labelled active at the moment.

use crate::cluster::{PairArguments, PairInCluster};
use anyhow::Context;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout_at};
use tokio_postgres::{
    Client, Config,
    config::{Host, TargetSessionAttrs},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the hosts of a list are asked before the attempt counts as failed.
const ROUND: Duration = Duration::from_secs(1);
/// Pause before a host that refused is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// A server that is reached without a cluster's help; one of several hosts, whichever takes writes.
pub struct Direct {
    /// One for each host.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
}

impl Direct {
    /// By a libpq URI, and the file with the authority that vouches for the server.
    ///
    /// # Errors
    /// When it is no URI, or the file is not there or no certificate.
    pub fn by_uri(uri: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let config: Config = uri.parse().context("--uri is no libpq URI")?;
        anyhow::ensure!(!config.get_hosts().is_empty(), "--uri names no host");
        let pem = match ca {
            Some(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => Vec::new(),
        };
        Ok(Self { hosts: each_host(&config), tls: tls(&pem)? })
    }

    /// A session on a member that takes writes, whichever gives it first: all hosts are asked at once, so
    /// that a gap that is measured is the database's, not that of a silent host before it in the list.
    ///
    /// # Errors
    /// When no host gives one.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let until = Instant::now() + ROUND;
        let attempts = self.hosts.iter().map(|host| Box::pin(self.persist(host, until)));
        let (client, _) = futures::future::select_ok(attempts).await?;
        Ok(client)
    }

    /// Asks one host until it gives a session or the round is over: it may become active while another
    /// one is silent.
    async fn persist(&self, host: &Config, until: Instant) -> anyhow::Result<Client> {
        loop {
            match timeout_at(until.into(), host.connect(self.tls.clone())).await {
                Ok(Ok((client, connection))) => {
                    tokio::spawn(connection);
                    return Ok(client);
                }
                Ok(Err(error)) if Instant::now() + AGAIN >= until => return Err(error.into()),
                Ok(Err(_)) => sleep(AGAIN).await,
                Err(_) => anyhow::bail!("no answer within {} s", ROUND.as_secs()),
            }
        }
    }
}

/// The same configuration once for each host of it.
fn each_host(config: &Config) -> Vec<Config> {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let alone = |at: usize, host: &Host| {
        let mut one = Config::new();
        match host {
            Host::Tcp(name) => one.host(name),
            #[cfg(unix)]
            Host::Unix(path) => one.host_path(path),
        };
        one.port(port(at)).ssl_mode(config.get_ssl_mode());
        one.user(config.get_user().unwrap_or_default());
        one.password(config.get_password().unwrap_or_default());
        one.dbname(config.get_dbname().unwrap_or_default());
        prefer_writable(&mut one);
        one
    };
    config.get_hosts().iter().enumerate().map(|(at, host)| alone(at, host)).collect()
}

/// Where to connect.
pub(crate) enum Target {
    /// Directly.
    Uri(Direct),
    /// Through the API server.
    Cluster { pair: PairInCluster, config: Box<Config>, tls: MakeRustlsConnect, host: String },
}

impl Target {
    /// By a libpq URI.
    pub(crate) fn by_uri(uri: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        Direct::by_uri(uri, ca).map(Self::Uri)
    }

    /// By a pair in a cluster: user, password and authority come from its Secret.
    pub(crate) async fn by_cluster(arguments: &PairArguments) -> anyhow::Result<Self> {
        let pair = PairInCluster::connect(arguments).await?;
        let secret = pair.app_secret().await?;
        let key = |key: &str| {
            secret.get(key).with_context(|| format!("Secret {}-app has no {key}", pair.name))
        };
        let mut config = Config::new();
        config.user(key("username")?).password(key("password")?).dbname(key("dbname")?);
        config.application_name("understudy demo");
        let tls = tls(key("ca.crt")?.as_bytes())?;
        let host = format!("{}-active.{}.svc", pair.name, pair.namespace);
        Ok(Self::Cluster { pair, config: Box::new(config), tls, host })
    }

    /// A session on a member that takes writes.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        match self {
            Self::Uri(direct) => direct.connect().await,
            Self::Cluster { pair, config, tls, host } => {
                let active = pair.active().await?;
                let mut forward = pair.pods().portforward(&active, &[5432]).await?;
                let stream = forward.take_stream(5432).context("no stream to the pod")?;
                let mut tls = tls.clone();
                let tls =
                    MakeTlsConnect::<tokio::io::DuplexStream>::make_tls_connect(&mut tls, host)?;
                let (client, connection) = config.connect_raw(stream, tls).await?;
                tokio::spawn(async move {
                    // How a session ended is told by its requests.
                    let _ = connection.await;
                    drop(forward);
                });
                Ok(client)
            }
        }
    }

    /// Makes the demo's tables, if they are not there, with `accounts` rows.
    pub(crate) async fn prepare(&self, accounts: u32) -> anyhow::Result<()> {
        let client = self.connect().await.context("cannot connect to prepare the tables")?;
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS understudy_demo_accounts \
                   (id bigint PRIMARY KEY, balance bigint NOT NULL); \
                 CREATE TABLE IF NOT EXISTS understudy_demo_history \
                   (run bigint, session integer, number bigint, account bigint, delta bigint, \
                    PRIMARY KEY (run, session, number))",
            )
            .await
            .context("cannot make the demo's tables")?;
        let row = client.query_one("SELECT count(*) FROM understudy_demo_accounts", &[]).await?;
        let have: i64 = row.get(0);
        let mut next = have + 1;
        while next <= i64::from(accounts) {
            let last = (next + 499).min(i64::from(accounts));
            let rows: Vec<String> = (next..=last).map(|id| format!("({id}, 0)")).collect();
            client
                .batch_execute(&format!(
                    "INSERT INTO understudy_demo_accounts VALUES {}",
                    rows.join(", ")
                ))
                .await?;
            next = last + 1;
        }
        Ok(())
    }
}

fn prefer_writable(config: &mut Config) {
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.connect_timeout(Duration::from_secs(1));
    config.tcp_user_timeout(Duration::from_secs(3));
    config.application_name("understudy demo");
}

fn tls(ca_pem: &[u8]) -> anyhow::Result<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate.context("the authority is not PEM")?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
