//! Figures and health over plain HTTP (port 9090): `/metrics` for Prometheus, `/healthz` for the
//! kubelet's liveness, `/readyz` for its readiness.
//!
//! Most figures are read from the agent's own status at the moment of the scrape, so they cannot
//! disagree with the control API. What must be counted where it happens (commits, failures, times) are
//! the fields of [`Metrics`].
//!
//! **Invariant.** Ready says "sends useful answers to clients", never "may be promoted" (law 9).
//!
//! Deliberately absent: labels taken from users' data (tables, users, addresses), which would grow
//! without bound.

use crate::control_api::{Connection, slow_is_dead};
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use std::{fmt, future::Future, sync::Arc};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use understudy_agent_api::{AgentStatus, MemberState, SyncState};
use understudy_types::Role;

/// Scrapers and probes at once.
const CONNECTIONS_MAX: usize = 16;
/// Type of the text that Prometheus and OpenMetrics readers take.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures that are counted where they happen. Cheap to clone; every clone counts the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Commits that were given their place in the log by this process as active.
    pub commits: Counter,
    /// Answers whose client was told "unknown", because this member ceased to be active.
    pub answers_unknown: Counter,
    /// How long answers wait for what they show to be acknowledged, in seconds.
    pub answer_wait_seconds: Histogram,
    /// Sessions ended by the agent because the member was fenced or demoted (57P01).
    pub sessions_ended: Counter,
    /// Lease writes confirmed.
    pub lease_writes_confirmed: Counter,
    /// Lease writes refused, in conflict or in doubt.
    pub lease_writes_failed: Counter,
    /// Epochs that this process opened.
    pub epochs_opened: Counter,
    /// Bytes of records sent to followers.
    pub replication_sent_bytes: Counter,
    /// Bytes of records received from the feeder.
    pub replication_received_bytes: Counter,
    /// Statements that waited for a lock, each time they did.
    pub lock_waits: Counter,
    /// Statements that were ended because they would have waited in a circle.
    pub deadlocks: Counter,
    /// Statements that took as long as `log_min_duration_statement` says.
    pub slow_statements: Counter,
    /// Row versions and rows that waited for reclamation when it last ended.
    pub reclaimable_items: Gauge,
    /// How long checkpoints took, from the pin to the verified file, in seconds.
    pub checkpoint_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            answers_unknown: Counter::default(),
            // 20 µs … 10 s: a memory commit is at the left, a commit across a failover at the right.
            answer_wait_seconds: Histogram::new(exponential_buckets(20e-6, 2.0, 20)),
            sessions_ended: Counter::default(),
            lease_writes_confirmed: Counter::default(),
            lease_writes_failed: Counter::default(),
            epochs_opened: Counter::default(),
            replication_sent_bytes: Counter::default(),
            replication_received_bytes: Counter::default(),
            lock_waits: Counter::default(),
            deadlocks: Counter::default(),
            slow_statements: Counter::default(),
            reclaimable_items: Gauge::default(),
            // 10 ms … 5 min.
            checkpoint_seconds: Histogram::new(exponential_buckets(10e-3, 2.0, 16)),
        }
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("commits", "Commits logged as active", &self.commits),
            ("answers_unknown", "Commits that ended with outcome unknown", &self.answers_unknown),
            ("sessions_ended", "Sessions ended by fencing or demotion", &self.sessions_ended),
            ("lease_writes_confirmed", "Lease writes confirmed", &self.lease_writes_confirmed),
            ("lease_writes_failed", "Lease writes not confirmed", &self.lease_writes_failed),
            ("epochs_opened", "Epochs opened by this process", &self.epochs_opened),
            ("lock_waits", "Waits of statements for a lock", &self.lock_waits),
            ("deadlocks", "Statements ended by a deadlock", &self.deadlocks),
            ("slow_statements", "Statements that took too long", &self.slow_statements),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let bytes = [
            ("replication_sent", "Records sent to followers", &self.replication_sent_bytes),
            ("replication_received", "Records received", &self.replication_received_bytes),
        ];
        for (name, help, counter) in bytes {
            registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
        }
        let help = "Wait of answers for their acknowledgement";
        let waits = self.answer_wait_seconds.clone();
        registry.register_with_unit("answer_wait", help, Unit::Seconds, waits);
        let help = "Row versions that wait for reclamation";
        registry.register("reclaimable_items", help, self.reclaimable_items.clone());
        let help = "Time of a checkpoint";
        let checkpoints = self.checkpoint_seconds.clone();
        registry.register_with_unit("checkpoint", help, Unit::Seconds, checkpoints);
    }
}

/// Says what the agent says of itself at this moment.
type Said = Arc<dyn Fn() -> Arc<AgentStatus> + Send + Sync>;

/// Everything behind the port.
pub struct Exposition {
    registry: Registry,
    status: Said,
}

impl Exposition {
    /// Figures of the agent that says `status` of itself and counts with `metrics`.
    #[must_use]
    pub fn new(
        metrics: &Metrics,
        status: impl Fn() -> Arc<AgentStatus> + Send + Sync + 'static,
    ) -> Self {
        let status: Said = Arc::new(status);
        let mut registry = Registry::with_prefix("understudy");
        metrics.register(&mut registry);
        registry.register_collector(Box::new(StatusFigures(Arc::clone(&status))));
        Self { registry, status }
    }

    /// Serves the port until `shutdown`.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        let router = Router::new()
            .route("/metrics", get(figures))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readiness))
            .with_state(Arc::new(self));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept on the metrics port");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            if slow_is_dead(&stream).is_ok() {
                let router = router.clone();
                tasks.spawn(async move {
                    Connection { stream, router }.serve().await;
                    drop(place);
                });
            }
        }
    }
}

async fn figures(State(exposition): State<Arc<Exposition>>) -> Response {
    let mut text = String::new();
    encode(&mut text, &exposition.registry).expect("writing to a String does not fail");
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

async fn readiness(State(exposition): State<Arc<Exposition>>) -> Response {
    let status = (exposition.status)();
    let code = match is_ready(status.state) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = status.problem.as_deref().unwrap_or("");
    (code, format!("{:?} {problem}\n", status.state)).into_response()
}

/// Whether clients get useful answers: a candidate still serves its reads, a lapsed active does not
/// serve what it is asked for.
#[must_use]
pub fn is_ready(state: MemberState) -> bool {
    match state {
        MemberState::CatchingUp
        | MemberState::InSync
        | MemberState::Candidate
        | MemberState::Serving
        | MemberState::Transferring => true,
        MemberState::Starting
        | MemberState::Recovering
        | MemberState::Duplicating
        | MemberState::Waiting
        | MemberState::Lapsed
        | MemberState::Failed => false,
    }
}

/// Figures taken from the status when asked.
struct StatusFigures(Said);

impl fmt::Debug for StatusFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusFigures")
    }
}

impl Collector for StatusFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = (self.0)();
        for (name, help, value) in gauges(&status) {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let help = "One for the role that the member has";
        let mut metric = encoder.encode_descriptor("role", help, None, MetricType::Gauge)?;
        for role in ROLES {
            let gauge = ConstGauge::new(i64::from(status.role == role));
            gauge.encode(metric.encode_family(&[("role", role.as_label())])?)?;
        }
        let starts = ConstCounter::new(status.incarnation.start);
        let help = "Process starts of this data directory";
        let metric = encoder.encode_descriptor("starts", help, None, starts.metric_type())?;
        starts.encode(metric)
    }
}

/// Every role, each at the place of its own number.
pub(crate) const ROLES: [Role; 6] =
    [Role::Active, Role::Standby, Role::Subscriber, Role::Idle, Role::Recovering, Role::Failed];

type Figure = (&'static str, &'static str, i64);

fn gauges(status: &AgentStatus) -> Vec<Figure> {
    let positions = &status.positions;
    let authority = &status.authority;
    let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let left = |value: Option<u64>| value.map_or(0, whole);
    let mut all = vec![
        ("ready", "Whether clients get useful answers", i64::from(is_ready(status.state))),
        ("epoch", "Epoch served or followed", whole(status.epoch.0)),
        ("end_lsn", "Last record of the log", whole(positions.end_lsn.0)),
        ("durable_lsn", "Last record on the own disk", whole(positions.durable_lsn.0)),
        ("applied_lsn", "Last record applied", whole(positions.applied_lsn.0)),
        ("acknowledged_lsn", "All below is visible", whole(positions.acknowledged_lsn.0)),
        ("authority_lease_left_ms", "Authority by the Lease", left(authority.lease_left_ms)),
        ("authority_grant_left_ms", "Authority by the grant", left(authority.grant_left_ms)),
        ("alone", "Acknowledging alone", i64::from(status.sync == SyncState::Alone)),
        ("in_sync", "A standby is recorded", i64::from(status.sync == SyncState::InSync)),
        ("links_up", "Peers attached", whole(status.links.iter().filter(|l| l.up).count() as u64)),
        ("pending_commits", "Sent, not yet acknowledged", whole(status.pending_commits)),
        ("sessions", "Client sessions", whole(status.sessions)),
        ("memory_used_bytes", "Permanent memory in use", whole(status.memory_used_bytes)),
        ("memory_limit_bytes", "Permanent memory allowed", whole(status.memory_limit_bytes)),
        ("log_full", "Commits are refused for want of room", i64::from(status.log_full)),
        ("trapped_tails", "Exported tails kept here", whole(status.trapped.len() as u64)),
    ];
    if let Some(lease) = &status.lease {
        let help = "Since the API server last answered";
        all.push(("lease_silent_ms", help, whole(lease.silent_ms)));
    }
    let end =
        status.certificate_not_after.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    if let Some(end) = end {
        let help = "End of the certificate, Unix time";
        all.push(("certificate_not_after_seconds", help, end.as_second()));
    }
    all
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
pub(crate) mod tests;
