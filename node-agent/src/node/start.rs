//! From an environment to a running engine process: volumes, incarnation, recovery, then all tasks.

use crate::{
    clock,
    config::{Config, MemberKind},
    control_api,
    datadir::{Contents, DataDir, DiskFailure, StoreDir},
    duplicate::{Duplicates, Source},
    engine::{Effect, Engine, Parts},
    metrics::Exposition,
    node::{
        FeederNote, Node,
        checkpoints::Checkpoints,
        feed_link, follow_link, hand_over,
        lease_link::{LeaseLink, chain},
        lives, reclaim_rows, recover,
        status::Takeover,
        users,
    },
    peer::{DuplicateWaiting, Incoming, LinkTls, Listener},
    pg::{self, ServerIdentity, SessionRegistry},
    pod::RoleLabels,
    supervisor::Lifeline,
    tls::{
        RELOAD_EVERY, Tls,
        identity::{Home, PeerIdentity},
    },
};
use anyhow::Context;
use parking_lot::Mutex;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, watch},
};
use understudy_agent_api::{Notice, PORT_CONTROL, PORT_METRICS, PORT_SQL, TrappedStatus, names};
use understudy_authority::{Holder, Timing};
use understudy_lease::{AuthorityLease, Timeouts};
use understudy_replication::{FollowerKind, Member, Start};
use understudy_store::Tail;
use understudy_types::{Incarnation, StoreId};
use uuid::Uuid;

/// Most client sessions.
const SESSIONS_MAX: usize = 1_000;

static CONTROL: OnceLock<Handle> = OnceLock::new();

/// The control runtime.
pub(crate) fn control_handle() -> &'static Handle {
    CONTROL.get().expect("the control runtime is made before any task")
}

/// Runs the engine until the process ends. Called by the supervisor's child.
///
/// # Errors
/// When it cannot begin: the environment, a volume, a certificate or a port.
pub fn run(config: Config) -> anyhow::Result<()> {
    let volumes = DataDir::lock(&config.data_dir, &config.log_dir, config.member.clone())?;
    let config = config.with_newer(volumes.kept_scheme());
    let directory = match volumes.open()? {
        Contents::Present(directory) => directory,
        Contents::Empty => volumes.create(StoreId(Uuid::new_v4()))?,
    };
    let life = begin_life(&config, &directory)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    CONTROL.set(runtime.handle().clone()).ok().context("the engine runs once a process")?;
    let terminate = runtime.block_on(async { hand_over::on_terminate() })?;
    let (node, effects, started) = assemble(&runtime, config, volumes, directory, life)?;
    let mut options =
        pg::ListenerOptions::tcp(SocketAddr::new(node.config.listen, PORT_SQL), started.client_tls);
    options.loops = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let database = Arc::clone(&node.engine) as Arc<dyn pg::Database>;
    let _sessions = pg::Listener::start(database, options)?;
    let links = start_links(Arc::clone(&node))?;
    runtime.block_on(async move {
        let node_for_stop = Arc::clone(&node);
        tokio::spawn(hand_over::wait(node_for_stop, terminate));
        control_tasks(node, effects, started.control).await
    })?;
    links.join().map_err(|_| anyhow::anyhow!("the replication loop panicked"))
}

/// This process's life.
struct Life {
    incarnation: Incarnation,
    /// Earlier ones that are proven dead from the start.
    dead: Vec<Incarnation>,
    /// The supervisor's line; `None` when nobody supervises.
    line: Option<Lifeline>,
}

/// Raises the start counter, reports this life to the supervisor, and waits for its leave to act (R10).
fn begin_life(config: &Config, directory: &StoreDir) -> anyhow::Result<Life> {
    let mut line = Lifeline::take()?;
    let id = line.as_ref().map_or_else(Uuid::new_v4, Lifeline::id);
    let incarnation = directory.start(id)?;
    let pod_uid = std::env::var(names::ENV_POD_UID).unwrap_or_default();
    let mut dead = lives::begin(&config.data_dir, incarnation, &pod_uid)?;
    if let Some(line) = &mut line {
        dead.extend(line.begin(incarnation)?);
    }
    tracing::info!(incarnation = %incarnation, "begun");
    Ok(Life { incarnation, dead, line })
}

/// Whether SQL clients may come without TLS.
fn plain_connections() -> anyhow::Result<pg::PlainConnections> {
    match std::env::var(names::ENV_CLIENT_TLS).as_deref() {
        Err(_) | Ok("require") => Ok(pg::PlainConnections::Refuse),
        Ok("allow") => Ok(pg::PlainConnections::Allow),
        Ok(other) => {
            anyhow::bail!("{} is `{other}`; write require or allow", names::ENV_CLIENT_TLS)
        }
    }
}

/// What the tasks need beside the node.
struct Started {
    client_tls: pg::ClientTls,
    control: ControlParts,
}

struct ControlParts {
    tls: Arc<Tls>,
    checkpoints: Arc<Checkpoints>,
}

fn assemble(
    runtime: &Runtime,
    config: Config,
    volumes: DataDir,
    directory: StoreDir,
    life: Life,
) -> anyhow::Result<(Arc<Node>, mpsc::Receiver<Effect>, Started)> {
    let home = Home {
        namespace: config.namespace.clone(),
        pair_uid: config.pair_uid.clone(),
        own: PeerIdentity::Member(config.member.clone()),
    };
    let tls = Tls::load(&config.tls_dir, home)?;
    // The pair may take back what nobody acknowledged (R17).
    let ready = recover::run(config.sizes, &directory, Tail::MayGo)?;
    after_recovery(&volumes, &directory, &ready)?;
    let kind = match config.kind {
        MemberKind::Voter => FollowerKind::Standby,
        MemberKind::Subscriber => FollowerKind::Subscriber,
    };
    let me = Holder {
        member: config.member.clone(),
        store: directory.id,
        incarnation: life.incarnation,
    };
    let member = Member::new(
        Start {
            me,
            kind,
            timing: Timing::new(config.scheme.lease_duration_ms)?,
            control: directory.control.get(),
            end: ready.end.lsn,
            proven_dead: life.dead,
        },
        clock::now(),
    );
    let sessions = Arc::new(SessionRegistry::new(SESSIONS_MAX));
    let identity = ServerIdentity {
        member: config.member.clone(),
        pair: config.pair.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let parts = Parts {
        store: ready.store,
        log: ready.log,
        member,
        control: directory.control.clone(),
        identity,
        sessions: Arc::clone(&sessions),
    };
    let (engine, effects) = Engine::new(parts);
    let (lease, labels) = runtime.block_on(kubernetes(&config, &engine))?;
    let checkpoints = Checkpoints::new(Arc::clone(&engine), ready.disks, ready.checkpoint);
    let duplicates = Duplicates::new(Arc::clone(&checkpoints) as Arc<dyn Source>, None);
    let node = make_node(
        config,
        kind,
        engine,
        (lease, labels),
        (&tls, sessions),
        (volumes, duplicates, ready.unusable.is_some()),
        life.line,
    )?;
    if let Some(unfit) = ready.unusable {
        node.set_unfit(unfit);
    }
    let for_sql = Arc::clone(&tls);
    let plain = plain_connections()?;
    let started = Started {
        client_tls: pg::ClientTls { source: Arc::new(move || Some(for_sql.sql_server())), plain },
        control: ControlParts { tls, checkpoints },
    };
    Ok((node, effects, started))
}

/// A disk that failed is noted, and a replaced store is retired, but only once its replacement has
/// recovered (law 7).
fn after_recovery(
    volumes: &DataDir,
    directory: &StoreDir,
    ready: &recover::Ready,
) -> anyhow::Result<()> {
    match &ready.unusable {
        Some(unfit) if unfit.notice == Some(Notice::DiskFailed) => {
            volumes.note_disk_failure(&DiskFailure { at: clock::wall(), why: unfit.why.clone() });
        }
        Some(_) => {}
        None => {
            for old in &directory.replaces {
                volumes.retire(*old, &ready.log)?;
            }
        }
    }
    Ok(())
}

async fn kubernetes(
    config: &Config,
    engine: &Arc<Engine>,
) -> anyhow::Result<(Arc<LeaseLink>, RoleLabels)> {
    let kube = kube::Config::infer().await.context("no access to the API server")?;
    let name = format!("{}{}", config.pair, names::LEASE_SUFFIX);
    let lease =
        AuthorityLease::connect(kube.clone(), &config.namespace, &name, Timeouts::default())?;
    let labels = RoleLabels::connect(kube, &config.namespace)?;
    Ok((LeaseLink::new(lease, Arc::clone(engine)), labels))
}

fn make_node(
    config: Config,
    kind: FollowerKind,
    engine: Arc<Engine>,
    (lease, labels): (Arc<LeaseLink>, RoleLabels),
    (tls, sessions): (&Arc<Tls>, Arc<SessionRegistry>),
    (volumes, duplicates, needs_duplicate): (DataDir, Duplicates, bool),
    line: Option<Lifeline>,
) -> anyhow::Result<Arc<Node>> {
    let trapped = volumes.trapped()?.into_iter().map(|t| TrappedStatus {
        epoch: t.epoch,
        above_lsn: t.above_lsn,
        transactions: t.records,
        file: t.file,
    });
    let trapped = trapped.collect();
    let scheme = config.scheme.clone();
    let for_end = Arc::clone(tls);
    let status = watch::channel(Arc::new(crate::node::status::starting(&config, &engine))).0;
    let node = Arc::new(Node {
        engine,
        kind,
        tls: Arc::clone(tls) as Arc<dyn LinkTls>,
        config,
        lease,
        sessions,
        labels,
        scheme: Mutex::new(scheme.clone()),
        status,
        feeder: Mutex::new(FeederNote::default()),
        takeover: Mutex::new(Takeover::default()),
        progress: Mutex::new(None),
        problem: Mutex::new(None),
        trapped: Mutex::new(trapped),
        certificate_end: Box::new(move || Some(for_end.not_after().to_string())),
        label: watch::channel(None).0,
        agent_tls: Arc::clone(tls),
        stopping: std::sync::atomic::AtomicBool::new(false),
        disk_failure: volumes.disk_failure(),
        volumes: Arc::new(volumes),
        needs_duplicate,
        line: Mutex::new(line),
        duplicates,
    });
    node.take_scheme(scheme).map_err(|e| anyhow::anyhow!(e))?;
    Ok(node)
}

/// Replication lives on a loop of its own thread: a follower applies inline in its receive loop.
fn start_links(node: Arc<Node>) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let address = SocketAddr::new(node.config.listen, node.replication_port());
    let tls = Arc::clone(&node.tls);
    let mut listener = runtime.block_on(Listener::bind(address, tls))?;
    let thread = std::thread::Builder::new().name("replication".into()).spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(follow_link::follow(Arc::clone(&node)));
            loop {
                match listener.accept().await {
                    Incoming::Follower(waiting) => {
                        tokio::spawn(feed_link::serve(Arc::clone(&node), waiting));
                    }
                    Incoming::Duplicate(waiting) => {
                        serve_duplicate(Arc::clone(&node), waiting);
                    }
                }
            }
        });
    })?;
    Ok(thread)
}

async fn control_tasks(
    node: Arc<Node>,
    effects: mpsc::Receiver<Effect>,
    parts: ControlParts,
) -> anyhow::Result<()> {
    let never = std::future::pending::<()>;
    let at = |port| SocketAddr::new(node.config.listen, port);
    let control = TcpListener::bind(at(PORT_CONTROL)).await.context("the control port is taken")?;
    let metrics = TcpListener::bind(at(PORT_METRICS)).await.context("the metrics port is taken")?;
    let status = node.status.subscribe();
    let exposition = Exposition::new(&node.engine.metrics, move || Arc::clone(&status.borrow()));
    tokio::spawn(Arc::clone(&parts.tls).keep_fresh(RELOAD_EVERY));
    let agent = Arc::clone(&node) as Arc<dyn control_api::Control>;
    tokio::spawn(control_api::serve(control, parts.tls, agent, never()));
    tokio::spawn(exposition.serve(metrics, never()));
    tokio::spawn(Arc::clone(&node.lease).watch());
    tokio::spawn(Arc::clone(&node).label_pods());
    tokio::spawn(reclaim_rows(Arc::clone(&node.engine.store), node.engine.metrics.clone()));
    tokio::spawn(users::keep(Arc::clone(&node)));
    let held = Arc::clone(&node);
    tokio::spawn(parts.checkpoints.run(move || held.duplicates.holds()));
    let ticks = tokio::spawn(Arc::clone(&node).ticks());
    let effects = tokio::spawn(node.effects(effects));
    // Neither ends while the process lives.
    tokio::select! {
        ended = ticks => ended?,
        ended = effects => ended?,
    }
    anyhow::bail!("a task that must not end has ended")
}

/// A stream runs on the control runtime: megabytes of it must not delay an acknowledgement.
fn serve_duplicate(node: Arc<Node>, waiting: DuplicateWaiting) {
    let DuplicateWaiting { identity, request, link } = waiting;
    let link = match link.into_portable() {
        Ok(link) => link,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "a duplicate's link broke");
            return;
        }
    };
    control_handle().spawn(async move {
        let waiting = match link.into_link() {
            Ok(link) => DuplicateWaiting { identity, request, link },
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a duplicate's link broke");
                return;
            }
        };
        match node.duplicates.serve(waiting).await {
            Ok(served) => tracing::info!(served = ?served, "a duplicate was served"),
            Err(error) => tracing::warn!(error = %chain(&error), "a duplicate was not served"),
        }
    });
}
