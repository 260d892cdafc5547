//! A database of its own on this machine: the engine without Kubernetes, Lease and standby.
//!
//! The person who starts it is the authority; the lock on the directory keeps a second process out.
//! Each start recovers, opens the next epoch, and then listens. What is durable here is what one disk
//! keeps; a pair keeps more.
//!
//! **Invariant.** The promise of the epoch is on disk before its first record (law 3).
//!
//! Deliberately absent: a link, duplicates, the control API; and a member of a pair is never started this
//! way, for its directory carries the member's name.

use crate::{
    clock,
    config::Sizes,
    datadir::{Contents, DataDir, StoreDir},
    engine::{Effect, Engine, Parts},
    metrics::Exposition,
    node::{checkpoints::Checkpoints, lease_link::chain, reclaim_rows, recover, status, users},
    pg::{self, ClientTls, Database, ServerIdentity, SessionRegistry},
};
use anyhow::{Context, bail};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use understudy_agent_api::{AgentStatus, MemberState, Notice};
use understudy_authority::{Holder, Timing};
use understudy_replication::{FollowerKind, Input, Member, Policy, Start};
use understudy_store::Tail;
use understudy_txlog::forget_failure;
use understudy_types::{
    Dbid, Durability, EpochId, FailoverPolicy, MemberName, ReturnService, Role, StoreId,
    WhenStandbyLost,
};
use uuid::Uuid;

/// The name that its directory carries in place of a member's.
const MEMBER: &str = "standalone";
/// Times of a Lease that there is not; any that is allowed.
const TIMING_MS: u64 = 4_000;
/// Longest time from a recovered log to the durable first record of the epoch.
const OPENING: Duration = Duration::from_secs(30);

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the control file and the checkpoints; made if it is missing.
    pub data_dir: PathBuf,
    /// Directory of the log; may be the same.
    pub log_dir: PathBuf,
    /// Directory of the Unix socket; `None`: no Unix socket.
    pub socket_dir: Option<PathBuf>,
    /// Port, in the name of the Unix socket too.
    pub port: u16,
    /// Whether the port is opened on loopback.
    pub listens_on_tcp: bool,
    /// Port on loopback for figures and health; `None`: they are not served.
    pub metrics_port: Option<u16>,
    /// The administrator, made at the first start.
    pub admin: String,
    /// The administrator's password; `None`: as it was, or none.
    pub password: Option<String>,
    /// What an acknowledged commit waits for: the own disk, or nothing.
    pub durability: Durability,
    /// What it may use.
    pub sizes: Sizes,
    /// Session loops; at least one.
    pub loops: usize,
    /// Most client sessions.
    pub sessions_max: usize,
    /// A person says that the disk is sound again whose failure ended an earlier process.
    pub after_disk_failure: bool,
}

impl Settings {
    fn unix_path(&self) -> Option<PathBuf> {
        self.socket_dir.as_ref().map(|dir| dir.join(format!(".s.PGSQL.{}", self.port)))
    }
}

/// Runs the database until SIGTERM or SIGINT. `ready` is told where it listens.
///
/// # Errors
/// When it cannot begin, or a task of it ended: the directory, the log, an address.
pub fn run(settings: Settings, ready: impl FnOnce(&Settings)) -> anyhow::Result<()> {
    let member = MemberName::new(MEMBER.to_owned()).context("the name is one")?;
    let volumes = DataDir::lock(&settings.data_dir, &settings.log_dir, member)?;
    let directory = match volumes.open()? {
        Contents::Present(directory) => directory,
        Contents::Empty => volumes.create(StoreId(Uuid::new_v4()))?,
    };
    if settings.after_disk_failure
        && forget_failure(&directory.disks()).context("the disk does not answer yet")?
    {
        tracing::warn!("beginning on a disk that failed an earlier process, as asked");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(serve(settings, &directory, ready))
}

async fn serve(
    settings: Settings,
    directory: &StoreDir,
    ready: impl FnOnce(&Settings),
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let Recovered { engine, effects, checkpoints } = recover_and_open(&settings, directory)?;
    let mut heeding = tokio::spawn(heed(Arc::clone(&engine), effects));
    opened(&engine).await?;
    let (admin, password) = (settings.admin.clone(), settings.password.as_deref());
    users::bring_up_to_date(&engine, admin, password, true).await?;
    // The runtime ends these two with the process.
    tokio::spawn(reclaim_rows(Arc::clone(&engine.store), engine.metrics.clone()));
    tokio::spawn(checkpoints.run(Vec::new));
    if let Some(port) = settings.metrics_port {
        expose(&engine, port).await?;
    }
    let listener = listen(&engine, &settings)?;
    ready(&settings);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        why = &mut heeding => Err(anyhow::anyhow!(why?)),
    };
    tracing::info!("asked to stop");
    let reason = pg::EndReason { message: "the database is shutting down".to_owned(), hint: None };
    engine.sessions().end_all(&reason);
    tokio::task::spawn_blocking(move || drop(listener)).await?;
    let log = engine.log.clone();
    tokio::task::spawn_blocking(move || log.sync_all()).await?.context("the log was not synced")?;
    tracing::info!("stopped");
    ended
}

struct Recovered {
    engine: Arc<Engine>,
    effects: mpsc::Receiver<Effect>,
    checkpoints: Arc<Checkpoints>,
}

/// Recovers, persists the promise of the next epoch, and opens it.
fn recover_and_open(settings: &Settings, directory: &StoreDir) -> anyhow::Result<Recovered> {
    let incarnation = directory.start(Uuid::new_v4())?;
    // Nobody else decides about this log, so nothing of it is ever taken back (R17).
    let ready = recover::run(settings.sizes, directory, Tail::Stands)?;
    if let Some(unfit) = ready.unusable {
        let sound_again = match unfit.notice {
            Some(Notice::DiskFailed) => {
                "Once the disk is sound, start it once with --after-disk-failure: what was \
                 acknowledged was on disk before, and everything is checked. Else restore"
            }
            Some(_) | None => "Restore",
        };
        bail!(
            "{}; nothing was changed. {sound_again} {} from a copy, or begin anew in an empty directory",
            unfit.why,
            settings.data_dir.display()
        );
    }
    let mut control = directory.control.get();
    control.dbid.get_or_insert_with(|| Dbid(Uuid::new_v4()));
    let last = control.promised.number.max(ready.end.epoch.number);
    control.promised = EpochId { number: last.next(), author: incarnation.id };
    if settings.durability == Durability::Memory {
        control.acked_beyond_fsync = Some(control.promised.number);
    }
    directory.control.persist(&control)?;
    let member = MemberName::new(MEMBER.to_owned())?;
    let identity = ServerIdentity {
        member: member.clone(),
        pair: MEMBER.to_owned(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let timing = Timing::new(TIMING_MS)?;
    let start = Start {
        me: Holder { member, store: directory.id, incarnation },
        kind: FollowerKind::Standby,
        timing,
        control,
        end: ready.end.lsn,
        proven_dead: Vec::new(),
    };
    let (engine, effects) = Engine::new(Parts {
        store: ready.store,
        log: ready.log,
        member: Member::new(start, clock::now()),
        control: directory.control.clone(),
        identity,
        sessions: Arc::new(SessionRegistry::new(settings.sessions_max)),
    });
    engine.step(Input::Policy(policy(settings.durability, timing)));
    engine.step(Input::Standalone);
    let checkpoints = Checkpoints::new(Arc::clone(&engine), ready.disks, ready.checkpoint);
    Ok(Recovered { engine, effects, checkpoints })
}

/// Nobody is waited for, and nobody takes over.
fn policy(durability: Durability, timing: Timing) -> Policy {
    Policy {
        return_service: ReturnService::NoReturn,
        durability,
        when_standby_lost: WhenStandbyLost::Continue,
        automatic: false,
        failover: FailoverPolicy::Manual,
        max_loss: None,
        timing,
        return_wait_ms: 0,
    }
}

/// Does what the engine decided; returns why it ended.
async fn heed(engine: Arc<Engine>, mut effects: mpsc::Receiver<Effect>) -> String {
    while let Some(effect) = effects.recv().await {
        match effect {
            Effect::SyncLog => {
                let engine = Arc::clone(&engine);
                tokio::task::spawn_blocking(move || match engine.log.sync_all() {
                    Ok(lsn) => engine.synced(lsn),
                    Err(error) => tracing::error!(error = %chain(&error), "the log was not synced"),
                });
            }
            Effect::EpochOpened(epoch) => {
                tracing::info!(epoch = %epoch.number, "an epoch was opened");
            }
            Effect::Event(event) => tracing::info!(event = ?event, "decided"),
            // There is no pod and no session yet when the role changes, and it changes once.
            Effect::Label(_) | Effect::EndSessions(_) => {}
            Effect::Restart(why) => return why.to_owned(),
            wrong @ (Effect::WriteLease(_)
            | Effect::ReadLease
            | Effect::Initialise
            | Effect::AskPledge(_)) => {
                return format!("a database of its own was asked for {wrong:?}");
            }
        }
    }
    "the engine ended".to_owned()
}

/// Waits until the epoch's first record is durable.
async fn opened(engine: &Engine) -> anyhow::Result<()> {
    let mut role = engine.role();
    let active = tokio::time::timeout(OPENING, role.wait_for(|(role, _)| *role == Role::Active));
    active.await.context("the log did not reach the disk in time")??;
    Ok(())
}

/// Serves what a member of a pair serves: `/metrics`, `/healthz`, `/readyz`. The runtime ends it with the process.
async fn expose(engine: &Arc<Engine>, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address} for metrics"))?;
    let described = Arc::clone(engine);
    let exposition = Exposition::new(&engine.metrics, move || Arc::new(describe(&described)));
    tokio::spawn(exposition.serve(listener, std::future::pending()));
    Ok(())
}

/// What it would say of itself as a member of a pair.
fn describe(engine: &Engine) -> AgentStatus {
    let (me, standing, control) = engine.with_section(|section| {
        let member = &section.member;
        (member.me().clone(), member.standing(clock::now()), member.control().clone())
    });
    let state = if standing.serving { MemberState::Serving } else { MemberState::Lapsed };
    AgentStatus { state, ..status::of_engine(engine, (&me, &standing, &control)) }
}

fn listen(engine: &Arc<Engine>, settings: &Settings) -> anyhow::Result<pg::Listener> {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), settings.port);
    let unix_path = settings.unix_path();
    if let Some(dir) = unix_path.as_deref().and_then(Path::parent) {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the socket directory {}", dir.display()))?;
    }
    let options = pg::ListenerOptions {
        address: settings.listens_on_tcp.then_some(loopback),
        unix_path,
        trusts_own_user: true,
        loops: settings.loops,
        ..pg::ListenerOptions::tcp(loopback, ClientTls::none())
    };
    let database = Arc::clone(engine) as Arc<dyn Database>;
    Ok(pg::Listener::start(database, options)?)
}
