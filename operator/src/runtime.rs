//! Wires the operator: election, caches, the queue of pairs to look at, health, shutdown.
//!
//! ```text
//!   watches of pairs, pods, claims, Leases ─┐
//!   agents' status streams ─────────────────┼──▶ queue of pairs ──▶ one look at a time per pair
//!   requeue after a look ───────────────────┘
//! ```
//!
//! **Invariants**
//! 1. No pair is looked at before every cache was filled once: an empty cache is not an absent pod.
//! 2. A renewal of a Lease wakes nobody; a change of what the Lease says does.
//! 3. Losing the election ends every look and every stream of this process.

use crate::{
    agents::{Agents, PairKey},
    args::Args,
    context::{Context, Sightings, Stores, Written},
    health::{self, Health},
    metrics::Metrics,
    pair,
};
use futures::{Stream, StreamExt, channel::mpsc};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    client::{Body, ClientBuilder},
    runtime::{
        WatchStreamExt,
        controller::{self, ReconcileReason, ReconcileRequest},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{
    convert::Infallible,
    fmt::Debug,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tokio::{signal::unix, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;
use understudy_agent_api::names as shared;
use understudy_authority::LeaseRecord;
use understudy_crds::ActiveStandbyPair;
use understudy_lease::{Timeouts, election, prompt_config};
use understudy_types::Span;

/// How many pairs are looked at side by side.
const CONCURRENCY: u16 = 16;
/// How long the election of an operator process lasts without renewal.
const ELECTION: Span = Span::seconds(10);
/// How long the last looks get at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the operator until a signal.
///
/// # Errors
/// When no API server is configured, or the health address cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let metrics = Metrics::default();
    let config = Config::infer().await?;
    let prompt = client(prompt_config(config.clone(), Timeouts::default()), &metrics)?;
    let client = client(config, &metrics)?;
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn(cancel_at_signal(shutdown.clone())?);
    let is_ready = Arc::new(AtomicBool::new(false));
    let health = Health { is_ready: Arc::clone(&is_ready), metrics: metrics.clone() };
    let serving =
        tokio::spawn(health::serve(args.listen, health, shutdown.clone().cancelled_owned()));

    let settings = election::Settings {
        lease: args.election_lease.clone(),
        identity: format!("{}_{}", args.identity, uuid::Uuid::new_v4()),
        duration: ELECTION,
        timeouts: Timeouts::default(),
    };
    let leases = Api::namespaced(prompt.clone(), &args.election_namespace);
    let (mut elected, standing) =
        election::stand(leases, settings, shutdown.clone().cancelled_owned());
    let standing = tokio::spawn(standing);
    is_ready.store(true, Ordering::Relaxed);
    tracing::info!(identity = args.identity, "standing for election");
    while !shutdown.is_cancelled() {
        let won = tokio::select! {
            won = elected.won() => won,
            () = shutdown.cancelled() => false,
        };
        if !won {
            break;
        }
        tracing::info!("elected: tending the pairs");
        metrics.note_elected(true);
        let working = shutdown.child_token();
        let tending = tend(&client, &prompt, &metrics, &args, working.clone());
        tokio::select! {
            () = tending => {}
            () = elected.lost() => tracing::warn!("not elected any more"),
        }
        working.cancel();
        metrics.note_elected(false);
    }
    standing.await?;
    serving.await??;
    signals.abort();
    Ok(())
}

fn client(config: Config, metrics: &Metrics) -> anyhow::Result<Client> {
    let metrics = metrics.clone();
    let count = MapRequestLayer::new(move |request: http::Request<Body>| {
        metrics.count_request(&request);
        request
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&count).build())
}

fn cancel_at_signal(token: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        token.cancel();
    })
}

/// Tends every pair until `stop`.
async fn tend(
    client: &Client,
    prompt: &Client,
    metrics: &Metrics,
    args: &Args,
    stop: CancellationToken,
) {
    let (wake, woken) = mpsc::unbounded();
    let (pairs, pairs_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let (volumes, volumes_writer) = reflector::store();
    let (leases, leases_writer) = reflector::store();
    let reporter =
        Reporter { controller: pair::names::MANAGER.into(), instance: Some(args.identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        prompt: prompt.clone(),
        stores: Stores { pairs, pods, volumes, leases },
        agents: Agents::new(wake.clone()),
        recorder: Recorder::new(client.clone(), reporter),
        metrics: metrics.clone(),
        default_image: args.node_agent_image.clone(),
        applied: Default::default(),
        sightings: Sightings::default(),
        written: Written::default(),
        secured: Mutex::default(),
    });
    let labelled = watcher::Config::default().labels(shared::LABEL_PAIR);
    let mut watches = JoinSet::new();
    let pairs = watched::<ActiveStandbyPair>(client, args, watcher::Config::default());
    watches.spawn(feed_pairs(pairs, pairs_writer, Arc::clone(&context), wake.clone()));
    let pods = watched::<Pod>(client, args, labelled.clone());
    watches.spawn(feed(pods, pods_writer, wake.clone()));
    let volumes = watched::<PersistentVolumeClaim>(client, args, labelled.clone());
    watches.spawn(feed(volumes, volumes_writer, wake.clone()));
    let leases = watched::<Lease>(client, args, labelled);
    watches.spawn(feed_leases(leases, leases_writer, Arc::clone(&context), wake));

    tokio::select! {
        () = filled(&context.stores) => {}
        () = stop.cancelled() => return,
    }
    tracing::info!(pairs = context.stores.pairs.len(), "the caches are filled");
    let queue = woken.map(request).take_until(stop.clone().cancelled_owned());
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let store = context.stores.pairs.clone();
    let looks = controller::applier(
        |pair, context| Box::pin(pair::reconcile(pair, context)),
        pair::after_error,
        Arc::clone(&context),
        store,
        queue,
        config,
    );
    let looks = looks.for_each(|_| std::future::ready(()));
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = looks => {}
        () = stopped => {}
    }
}

fn request((namespace, name): PairKey) -> Result<ReconcileRequest<ActiveStandbyPair>, Infallible> {
    Ok(ReconcileRequest {
        obj_ref: ObjectRef::new(&name).within(&namespace),
        reason: ReconcileReason::Unknown,
    })
}

async fn filled(stores: &Stores) {
    // The writers live as long as the watches do, so these end only filled.
    let _ = stores.pairs.wait_until_ready().await;
    let _ = stores.pods.wait_until_ready().await;
    let _ = stores.volumes.wait_until_ready().await;
    let _ = stores.leases.wait_until_ready().await;
}

fn watched<K>(
    client: &Client,
    args: &Args,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = match args.watch_namespace.as_str() {
        "" => Api::all(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    };
    watcher(api, config).default_backoff()
}

type Wake = mpsc::UnboundedSender<PairKey>;

/// Fills a cache and wakes the pair of everything that is touched.
async fn feed<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    writer: reflector::store::Writer<K>,
    wake: Wake,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let touched = events.reflect(writer).touched_objects();
    touched
        .for_each(|object| {
            match object {
                Ok(object) => wake_pair_of(&object, &wake),
                Err(error) => tracing::warn!(%error, "a watch broke and begins again"),
            }
            std::future::ready(())
        })
        .await;
}

fn wake_pair_of<K: ResourceExt>(object: &K, wake: &Wake) {
    let name = object.labels().get(shared::LABEL_PAIR).cloned();
    if let (Some(namespace), Some(name)) = (object.namespace(), name) {
        drop(wake.unbounded_send((namespace, name)));
    }
}

async fn feed_pairs(
    events: impl Stream<Item = watcher::Result<watcher::Event<ActiveStandbyPair>>> + Send,
    writer: reflector::store::Writer<ActiveStandbyPair>,
    context: Arc<Context>,
    wake: Wake,
) {
    let events = events.reflect(writer);
    events
        .for_each(|event| {
            match event {
                Ok(watcher::Event::Apply(pair) | watcher::Event::InitApply(pair)) => {
                    drop(wake.unbounded_send(pair::key_of(&pair)));
                }
                Ok(watcher::Event::Delete(pair)) => context.forget(&pair::key_of(&pair)),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => tracing::warn!(%error, "the watch of pairs broke and begins again"),
            }
            std::future::ready(())
        })
        .await;
}

async fn feed_leases(
    events: impl Stream<Item = watcher::Result<watcher::Event<Lease>>> + Send,
    writer: reflector::store::Writer<Lease>,
    context: Arc<Context>,
    wake: Wake,
) {
    let events = events.reflect(writer);
    events
        .for_each(|event| {
            match event {
                Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                    note_lease(&lease, &context, &wake);
                }
                // The third voter lost its memory: nothing else tells (R21).
                Ok(watcher::Event::Delete(lease)) => wake_pair_of(&lease, &wake),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => tracing::warn!(%error, "the watch of Leases broke and begins again"),
            }
            std::future::ready(())
        })
        .await;
}

fn note_lease(lease: &Lease, context: &Context, wake: &Wake) {
    let name = lease.labels().get(shared::LABEL_PAIR).cloned();
    let (Some(namespace), Some(name)) = (lease.namespace(), name) else { return };
    let key = (namespace, name);
    let version = lease.resource_version().unwrap_or_default();
    let annotation = lease.annotations().get(shared::ANNOTATION_AUTHORITY);
    // All of the record but its sequence number, which rises with every renewal.
    let said = match annotation.map(|text| LeaseRecord::parse(text)) {
        Some(Ok(record)) => LeaseRecord { seq: 0, ..record }.render(),
        Some(Err(error)) => error.to_string(),
        None => String::new(),
    };
    let is_going = lease.metadata.deletion_timestamp.is_some();
    if context.sightings.note(&key, &version, &format!("{said} {is_going}")) {
        drop(wake.unbounded_send(key));
    }
}
