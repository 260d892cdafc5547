//! A death told over real TLS, and to an API server in memory that keeps one Lease.

use super::*;
use crate::{
    control_api::{Control, serve},
    metrics::tests::usual_status,
    tls::tests::{Authority, Equipped},
};
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::sync::atomic::AtomicU64;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use understudy_agent_api::{
    AgentStatus, CandidacyRequest, PledgeAnswer, PledgeRequest, Refusal, Scheme, TransferRequest,
    TrappedPage, TrappedQuery, names,
};
use understudy_authority::{Holder, StandbySync, SyncClass, Voter};
use understudy_lease::Timeouts;
use understudy_types::{Dbid, StoreId};
use uuid::Uuid;

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn life(start: u64) -> Incarnation {
    Incarnation { start, id: Uuid::from_u128(u128::from(start)) }
}

fn death_of(start: u64) -> Death {
    Death {
        incarnation: life(start),
        exit_code: 137,
        number: 1,
        newest: Arc::new(AtomicU64::new(1)),
    }
}

/// The other voter's agent: passes on what it is told.
struct Ear {
    told: mpsc::UnboundedSender<DeathReport>,
    status: watch::Sender<Arc<AgentStatus>>,
}

#[async_trait]
impl Control for Ear {
    fn status(&self) -> watch::Receiver<Arc<AgentStatus>> {
        self.status.subscribe()
    }
    async fn scheme(&self, _: Scheme) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }
    async fn candidacy(&self, _: CandidacyRequest) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }
    async fn death(&self, report: DeathReport) -> Result<(), Refusal> {
        self.told.send(report).unwrap();
        Ok(())
    }
    async fn transfer(&self, _: TransferRequest) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }
    async fn trapped(&self, _: TrappedQuery) -> Result<TrappedPage, Refusal> {
        unreachable!("nobody asks")
    }
    async fn discard_trapped(&self, _: TrappedQuery) -> Result<(), Refusal> {
        unreachable!("nobody asks")
    }
    async fn pledge(&self, _: PledgeRequest) -> PledgeAnswer {
        unreachable!("nobody asks")
    }
}

fn serve_ear(listener: TcpListener, peer: &Equipped) -> mpsc::UnboundedReceiver<DeathReport> {
    let (told, hears) = mpsc::unbounded_channel();
    let ear = Ear { told, status: watch::Sender::new(Arc::new(usual_status())) };
    tokio::spawn(serve(listener, Arc::clone(&peer.tls), Arc::new(ear), std::future::pending()));
    hears
}

fn voters() -> Vec<MemberAddress> {
    ["orders-1", "orders-2"]
        .map(|name| MemberAddress { member: member(name), host: "127.0.0.1".into() })
        .into()
}

#[tokio::test]
async fn the_other_voter_hears_of_the_death_and_the_own_member_is_not_asked() {
    let ca = Authority::new();
    let (own, peer) = (ca.member("orders-1"), ca.member("orders-2"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut hears = serve_ear(listener, &peer);
    let notices =
        Notices::new(member("orders-1"), Arc::clone(&own.tls), None, None).with_control_port(port);
    notices.voters(voters());
    notices.tell(death_of(3)).await;
    let report = hears.recv().await.unwrap();
    assert_eq!((report.member.as_str(), report.incarnation), ("orders-1", life(3)));
    assert_eq!(report.evidence, DeathEvidence::Reaped { exit_code: 137 });
    assert!(hears.try_recv().is_err(), "told twice");
}

#[tokio::test]
async fn a_voter_that_comes_back_later_is_still_told() {
    let ca = Authority::new();
    let (own, peer) = (ca.member("orders-1"), ca.member("orders-2"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let notices = Notices::new(member("orders-1"), Arc::clone(&own.tls), None, None)
        .with_control_port(address.port());
    notices.voters(voters());
    let death = death_of(3);
    let telling = notices.tell(death);
    let listening = async {
        // The first attempts have failed by then; how many does not matter.
        tokio::task::yield_now().await;
        let listener = TcpListener::bind(address).await.unwrap();
        serve_ear(listener, &peer).recv().await.unwrap()
    };
    let ((), report) = tokio::join!(telling, listening);
    assert_eq!(report.incarnation, life(3));
}

type Stored = Arc<Mutex<(Value, Vec<u16>)>>;

/// Keeps a Lease; answers the next requests with the listed statuses instead.
fn lease_server(record: &LeaseRecord) -> (Stored, AuthorityLease) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "orders-authority", "namespace": "ns", "uid": "u", "resourceVersion": "1",
            "annotations": {names::ANNOTATION_AUTHORITY: record.render()},
        },
        "spec": {},
    });
    let stored: Stored = Arc::new(Mutex::new((lease, Vec::new())));
    let served = Arc::clone(&stored);
    let service = tower::service_fn(move |request: Request<Body>| {
        let stored = Arc::clone(&served);
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut stored = stored.lock();
            let mut response = Response::new(Body::empty());
            if let Some(code) = stored.1.pop() {
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                return Ok::<_, tower::BoxError>(response);
            }
            if method == Method::PUT {
                let mut next: Value = serde_json::from_slice(&body).unwrap();
                let version = next["metadata"]["resourceVersion"].as_str().unwrap();
                assert_eq!(version, stored.0["metadata"]["resourceVersion"]);
                next["metadata"]["resourceVersion"] = json!(format!("{version}1"));
                stored.0 = next;
            }
            *response.body_mut() = Body::from(stored.0.to_string().into_bytes());
            Ok(response)
        }
    });
    let client = Client::new(service, "ns");
    let lease = AuthorityLease::with_client(client, "ns", "orders-authority", Timeouts::default());
    (stored, lease)
}

fn held_by(start: u64) -> LeaseRecord {
    let holder = |name: &str, incarnation| Holder {
        member: member(name),
        store: StoreId(Uuid::from_u128(7)),
        incarnation,
    };
    LeaseRecord {
        dbid: Some(Dbid(Uuid::from_u128(1))),
        state: LeaseState::Held,
        holder: Some(holder("orders-1", life(start))),
        voters: vec![Voter { member: member("orders-1"), store: StoreId(Uuid::from_u128(7)) }],
        sync: Some(StandbySync {
            standby: holder("orders-2", life(30)),
            class: SyncClass::Twosafe,
        }),
        ..LeaseRecord::uninitialised(4000)
    }
}

fn notices_with(lease: AuthorityLease) -> (Notices, Equipped) {
    let own = Authority::new().member("orders-1");
    (Notices::new(member("orders-1"), Arc::clone(&own.tls), Some(lease), None), own)
}

#[tokio::test]
async fn the_dead_holders_lease_is_released_with_s_unchanged() {
    let before = held_by(3);
    let (_, lease) = lease_server(&before);
    let (notices, _own) = notices_with(lease.clone());
    notices.tell(death_of(3)).await;
    let after = lease.read().await.unwrap().record;
    assert_eq!(after, LeaseRecord { state: LeaseState::Released, ..before.successor() });
}

#[tokio::test]
async fn a_lease_that_names_another_life_is_left_alone() {
    let transferring =
        LeaseState::Transferring { to: member("orders-2"), lsn: understudy_types::Lsn(9) };
    for before in [held_by(4), LeaseRecord { state: transferring, ..held_by(3) }] {
        let (_, lease) = lease_server(&before);
        let (notices, _own) = notices_with(lease.clone());
        notices.tell(death_of(3)).await;
        assert_eq!(lease.read().await.unwrap().record, before);
    }
}

#[tokio::test]
async fn an_api_server_that_stumbles_is_asked_again() {
    let before = held_by(3);
    let (stored, lease) = lease_server(&before);
    stored.lock().1 = vec![503, 500];
    let (notices, _own) = notices_with(lease.clone());
    notices.tell(death_of(3)).await;
    assert_eq!(lease.read().await.unwrap().record.state, LeaseState::Released);
}
