//! The control port: what operator, supervisors and the command line may ask of this agent.
//!
//! ```text
//!   accept → (≤ 32) TLS handshake, 3 s → identity from the certificate → (≤ 64) HTTP/1
//!          → may this identity ask this? 403 → can the body be understood? 422
//!          → Control (node): 204, or 409 with the reason
//! ```
//!
//! **Invariants.**
//! 1. Nothing here decides about authority: a request asks, informs or vetoes, [`Control`] decides by
//!    the rules of the protocol (A1.1).
//! 2. The operator may ask everything but a pledge, which is between voters (R11). A member may read the
//!    status, may ask for a pledge to itself, and may tell of deaths that its own supervisor reaped:
//!    nobody proves the death of another member's process this way (R10).
//! 3. Whoever is slow, silent or talks garbage is cut off; places and bytes are bounded.
//!
//! Deliberately absent: HTTP/2, compression, anything without a client certificate.

mod serving;

use crate::{config::check_scheme, tls::identity::PeerIdentity};
use async_trait::async_trait;
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    middleware,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use futures::Stream;
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::watch;
use understudy_agent_api::{
    self as api, AgentStatus, CandidacyRequest, DeathEvidence, DeathReport, PledgeAnswer,
    PledgeRequest, Refusal, Scheme, TransferRequest, TrappedPage, TrappedQuery,
};
use understudy_authority::Timing;

pub use serving::serve;
pub(crate) use serving::{Connection, slow_is_dead};

/// Largest request. A scheme with 127 subscribers is about 24 KiB.
const BODY_BYTES_MAX: usize = 128 << 10;
/// Longest time for a request's body and decision; a hand-over has its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two messages of one stream: figures change with every commit.
const STREAM_GAP: Duration = Duration::from_millis(20);

/// The agent behind the port.
///
/// *Expected flow:* the port checks identity and form, then asks. *Guarantees:* `Ok` means the agent
/// took it (and persisted it, where the protocol says so), not that a role has changed. *Errors:* the
/// reason goes to the asker with status 409.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// The agent's own words, replaced whenever something changed.
    fn status(&self) -> watch::Receiver<Arc<AgentStatus>>;
    /// What the pair is; a lower version than the one held is refused.
    async fn scheme(&self, scheme: Scheme) -> Result<(), Refusal>;
    /// Asks for a candidacy now.
    async fn candidacy(&self, request: CandidacyRequest) -> Result<(), Refusal>;
    /// Offers a proof of death.
    async fn death(&self, report: DeathReport) -> Result<(), Refusal>;
    /// Asks the active to hand over.
    async fn transfer(&self, request: TransferRequest) -> Result<(), Refusal>;
    /// Transactions of a trapped tail.
    async fn trapped(&self, query: TrappedQuery) -> Result<TrappedPage, Refusal>;
    /// Throws a trapped tail away.
    async fn discard_trapped(&self, query: TrappedQuery) -> Result<(), Refusal>;
    /// Another voter asks for this one's word; what is promised is on disk when it answers.
    async fn pledge(&self, request: PledgeRequest) -> PledgeAnswer;
}

type Agent = Arc<dyn Control>;

/// All paths; each request carries a [`PeerIdentity`] extension.
pub(crate) fn router(agent: Agent) -> Router {
    Router::new()
        .route(api::STATUS, get(status))
        .route(api::STATUS_STREAM, get(status_stream))
        .route(api::SCHEME, post(scheme))
        .route(api::CANDIDACY, post(candidacy))
        .route(api::DEATH, post(death))
        .route(api::TRANSFER, post(transfer))
        .route(api::PLEDGE, post(pledge))
        .route(api::TRAPPED, post(trapped))
        .route(api::TRAPPED_DISCARD, post(discard_trapped))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no such path; see /v1/status") })
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "no such method on this path")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(agent)
}

/// Cuts requests whose body or decision takes too long. A hand-over may hold commits back for as long
/// as a lease lasts at most, and answers at the latest then.
async fn in_time(request: axum::extract::Request, next: middleware::Next) -> Response {
    let limit = match request.uri().path() {
        api::TRANSFER => REQUEST_TIMEOUT + Duration::from_millis(Timing::LEASE_MS_MAX),
        _ => REQUEST_TIMEOUT,
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "not decided in time: the request may or may not have been taken; read the status",
        )
        .into_response(),
    }
}

async fn status(State(agent): State<Agent>) -> Response {
    json(StatusCode::OK, &**agent.status().borrow())
}

async fn status_stream(
    State(agent): State<Agent>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let first = StreamStage { receiver: agent.status(), is_first: true };
    Sse::new(futures::stream::unfold(first, next_event))
}

struct StreamStage {
    receiver: watch::Receiver<Arc<AgentStatus>>,
    is_first: bool,
}

/// One message per change, at least one per beat, none when the agent is gone.
async fn next_event(mut stage: StreamStage) -> Option<(Result<Event, Infallible>, StreamStage)> {
    if !std::mem::take(&mut stage.is_first) {
        tokio::time::sleep(STREAM_GAP).await;
        let beat = Duration::from_millis(api::STREAM_BEAT_MS) - STREAM_GAP;
        match tokio::time::timeout(beat, stage.receiver.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return None,
        }
    }
    let status = Arc::clone(&stage.receiver.borrow_and_update());
    let event = Event::default().json_data(&*status).expect("a status is plain data");
    Some((Ok(event), stage))
}

async fn scheme(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<StatusCode, No> {
    operator_only(&peer)?;
    let scheme: Scheme = parse(&body)?;
    check_scheme(&scheme).map_err(|error| unprocessable(&error))?;
    taken(agent.scheme(scheme).await)
}

async fn candidacy(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<StatusCode, No> {
    operator_only(&peer)?;
    taken(agent.candidacy(parse(&body)?).await)
}

async fn death(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<StatusCode, No> {
    let report: DeathReport = parse(&body)?;
    may_prove(&peer, &report)?;
    taken(agent.death(report).await)
}

async fn transfer(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<StatusCode, No> {
    operator_only(&peer)?;
    let request: TransferRequest = parse(&body)?;
    if request.deadline_ms == 0 || request.deadline_ms > Timing::LEASE_MS_MAX {
        return Err(unprocessable(&"deadlineMs is out of range; write 1 to 60000"));
    }
    taken(agent.transfer(request).await)
}

async fn pledge(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<Response, No> {
    let request: PledgeRequest = parse(&body)?;
    if peer != PeerIdentity::Member(request.member.clone()) {
        let reason = format!("only {} asks for itself", request.member);
        return Err(refuse(StatusCode::FORBIDDEN, reason));
    }
    Ok(json(StatusCode::OK, &agent.pledge(request).await))
}

async fn trapped(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<Response, No> {
    own_or_operator(&agent, &peer)?;
    match agent.trapped(parse(&body)?).await {
        Ok(page) => Ok(json(StatusCode::OK, &page)),
        Err(Refusal { reason }) => Err(No(StatusCode::CONFLICT, reason)),
    }
}

async fn discard_trapped(
    State(agent): State<Agent>,
    Extension(peer): Extension<PeerIdentity>,
    body: Bytes,
) -> Result<StatusCode, No> {
    own_or_operator(&agent, &peer)?;
    taken(agent.discard_trapped(parse(&body)?).await)
}

/// A command inside the member's own container, or the operator.
fn own_or_operator(agent: &Agent, peer: &PeerIdentity) -> Result<(), No> {
    let own = agent.status().borrow().member.clone();
    if *peer == PeerIdentity::Member(own) { Ok(()) } else { operator_only(peer) }
}

fn operator_only(peer: &PeerIdentity) -> Result<(), No> {
    match peer {
        PeerIdentity::Operator => Ok(()),
        PeerIdentity::Member(name) => Err(refuse(
            StatusCode::FORBIDDEN,
            format!("member {name} may not ask this; only the operator may"),
        )),
    }
}

/// R10: a supervisor speaks of its own engines, and only of what it reaped.
fn may_prove(peer: &PeerIdentity, report: &DeathReport) -> Result<(), No> {
    let name = match peer {
        PeerIdentity::Operator => return Ok(()),
        PeerIdentity::Member(name) => name,
    };
    let has_reaped = match report.evidence {
        DeathEvidence::Reaped { .. } => true,
        DeathEvidence::ContainerTerminated { .. }
        | DeathEvidence::LaterContainer
        | DeathEvidence::Person { .. } => false,
    };
    if *name == report.member && has_reaped {
        return Ok(());
    }
    let reason = format!("member {name} proves only deaths of its own engines that it reaped");
    Err(refuse(StatusCode::FORBIDDEN, reason))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, No> {
    serde_json::from_slice(body).map_err(|error| unprocessable(&error))
}

fn unprocessable(problem: &dyn std::fmt::Display) -> No {
    refuse(StatusCode::UNPROCESSABLE_ENTITY, problem.to_string())
}

fn taken(decision: Result<(), Refusal>) -> Result<StatusCode, No> {
    match decision {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Refusal { reason }) => Err(No(StatusCode::CONFLICT, reason)),
    }
}

/// A refusal on its way out.
struct No(StatusCode, String);

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let No(status, reason) = self;
        json(status, &Refusal { reason })
    }
}

fn refuse(status: StatusCode, reason: impl Into<String>) -> No {
    No(status, reason.into())
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers are plain data");
    (status, [(http::header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

#[cfg(test)]
#[path = "control_api/tests.rs"]
mod tests;
