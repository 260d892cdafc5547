//! The port over real sockets and real certificates.

use super::*;
use crate::{
    config::tests::usual_scheme,
    control_client::{CallError, ControlClient},
    metrics::tests::usual_status,
    tls::{
        identity::Expected,
        tests::{Authority, Equipped},
    },
};
use rustls::pki_types::ServerName;
use std::{net::SocketAddr, sync::Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use understudy_types::{Epoch, EpochId, Incarnation, MemberName, StoreId};
use uuid::Uuid;

/// An agent that writes down what it was asked.
struct Scribe {
    status: watch::Sender<Arc<AgentStatus>>,
    asked: Mutex<Vec<String>>,
    refuses: bool,
}

impl Scribe {
    fn note(&self, what: &impl std::fmt::Debug) -> Result<(), Refusal> {
        if self.refuses {
            return Err(Refusal { reason: "epoch 8 is in force, not 7".into() });
        }
        self.asked.lock().unwrap().push(format!("{what:?}"));
        Ok(())
    }
}

#[async_trait]
impl Control for Scribe {
    fn status(&self) -> watch::Receiver<Arc<AgentStatus>> {
        self.status.subscribe()
    }
    async fn scheme(&self, scheme: Scheme) -> Result<(), Refusal> {
        self.note(&scheme)
    }
    async fn candidacy(&self, request: CandidacyRequest) -> Result<(), Refusal> {
        self.note(&request)
    }
    async fn death(&self, report: DeathReport) -> Result<(), Refusal> {
        self.note(&report)
    }
    async fn transfer(&self, request: TransferRequest) -> Result<(), Refusal> {
        self.note(&request)
    }
    async fn trapped(&self, query: TrappedQuery) -> Result<TrappedPage, Refusal> {
        self.note(&query)?;
        Ok(TrappedPage { transactions: Vec::new(), is_last: true })
    }
    async fn discard_trapped(&self, query: TrappedQuery) -> Result<(), Refusal> {
        self.note(&query)
    }
    async fn pledge(&self, request: PledgeRequest) -> PledgeAnswer {
        let promised = request.epoch.number;
        match self.note(&request) {
            Ok(()) => {
                PledgeAnswer::Refused { reason: "a scribe promises nothing".into(), promised }
            }
            Err(Refusal { reason }) => PledgeAnswer::Refused { reason, promised },
        }
    }
}

struct Served {
    ca: Authority,
    server: Equipped,
    address: SocketAddr,
    scribe: Arc<Scribe>,
    _stop: oneshot::Sender<()>,
}

async fn served(refuses: bool) -> Served {
    let ca = Authority::new();
    let server = ca.member("orders-1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (status, _) = watch::channel(Arc::new(usual_status()));
    let scribe = Arc::new(Scribe { status, asked: Mutex::default(), refuses });
    let (stop, stopped) = oneshot::channel::<()>();
    let agent: Arc<dyn Control> = Arc::clone(&scribe) as _;
    tokio::spawn(serve(listener, Arc::clone(&server.tls), agent, async move {
        let _ = stopped.await;
    }));
    Served { ca, server, address, scribe, _stop: stop }
}

impl Served {
    fn client(&self, caller: &Equipped) -> ControlClient {
        let expected = Expected::Member(MemberName::new("orders-1").unwrap());
        let host = self.address.ip().to_string();
        ControlClient::new(Arc::clone(&caller.tls), host, self.address.port(), expected)
    }

    async fn connect(&self, caller: &Equipped) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("x").unwrap();
        let connector = TlsConnector::from(caller.tls.client(Expected::AnyMember));
        connector.connect(name, socket).await.unwrap()
    }

    /// One raw request; the whole answer.
    async fn raw(&self, caller: &Equipped, request: &[u8]) -> String {
        let mut stream = self.connect(caller).await;
        // The other side may answer and close before it has read all.
        let _ = stream.write_all(request).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn asked(&self) -> Vec<String> {
        self.scribe.asked.lock().unwrap().clone()
    }
}

fn death_of(member: &str, evidence: DeathEvidence) -> DeathReport {
    let incarnation = Incarnation { start: 3, id: Uuid::from_u128(3) };
    DeathReport { member: MemberName::new(member).unwrap(), incarnation, evidence }
}

fn reaped() -> DeathEvidence {
    DeathEvidence::Reaped { exit_code: 137 }
}

fn candidacy_request() -> CandidacyRequest {
    CandidacyRequest {
        epoch: Epoch(7),
        reason: "the active is silent".into(),
        by_person: false,
        accepts_loss: false,
    }
}

fn transfer_request(deadline_ms: u64) -> TransferRequest {
    TransferRequest { epoch: Epoch(7), to: MemberName::new("orders-2").unwrap(), deadline_ms }
}

fn code(outcome: Result<(), CallError>) -> u16 {
    match outcome {
        Ok(()) => 204,
        Err(CallError::Refused { status, reason }) => {
            assert!(!reason.is_empty(), "a refusal without a reason");
            status.as_u16()
        }
        Err(other) => panic!("neither yes nor no: {other:?}"),
    }
}

#[tokio::test]
async fn the_operator_may_ask_everything() {
    let served = served(false).await;
    let operator = served.ca.operator();
    let client = served.client(&operator);
    assert_eq!(client.status().await.unwrap(), usual_status());
    assert_eq!(code(client.post(api::SCHEME, &usual_scheme()).await), 204);
    assert_eq!(code(client.post(api::CANDIDACY, &candidacy_request()).await), 204);
    assert_eq!(code(client.post(api::TRANSFER, &transfer_request(4000)).await), 204);
    let evidence = [
        DeathEvidence::ContainerTerminated { exit_code: 137 },
        DeathEvidence::LaterContainer,
        DeathEvidence::Person { name: "ada".into() },
    ];
    for evidence in evidence {
        let report = death_of("orders-2", evidence);
        assert_eq!(code(client.post(api::DEATH, &report).await), 204);
    }
    assert_eq!(served.asked().len(), 6);
}

#[tokio::test]
async fn a_voter_asks_for_a_pledge_to_itself_and_nobody_else_asks() {
    let served = served(false).await;
    let request = PledgeRequest {
        set_at_ms: None,
        dbid: None,
        epoch: EpochId { number: Epoch(8), author: Uuid::from_u128(4) },
        member: MemberName::new("orders-2").unwrap(),
        store: StoreId(Uuid::from_u128(2)),
        incarnation: Incarnation { start: 4, id: Uuid::from_u128(4) },
        compare: None,
    };
    let answer = served.client(&served.ca.member("orders-2")).pledge(&request).await.unwrap();
    let PledgeAnswer::Refused { promised, .. } = answer else { panic!("a scribe promised") };
    assert_eq!(promised, Epoch(8));
    for stranger in [served.ca.operator(), served.ca.member("orders-3")] {
        let refused = served.client(&stranger).pledge(&request).await.map(drop);
        assert_eq!(code(refused), 403);
    }
    assert_eq!(served.asked().len(), 1);
}

#[tokio::test]
async fn a_member_reads_the_status_and_tells_only_of_its_own_reaped_engines() {
    let served = served(false).await;
    let member = served.ca.member("orders-2");
    let client = served.client(&member);
    assert_eq!(client.status().await.unwrap().epoch, Epoch(7));
    client.report_death(&death_of("orders-2", reaped())).await.unwrap();
    assert_eq!(served.asked().len(), 1);

    assert_eq!(code(client.report_death(&death_of("orders-1", reaped())).await), 403);
    for evidence in [
        DeathEvidence::ContainerTerminated { exit_code: 0 },
        DeathEvidence::LaterContainer,
        DeathEvidence::Person { name: "me".into() },
    ] {
        assert_eq!(code(client.report_death(&death_of("orders-2", evidence)).await), 403);
    }
    assert_eq!(code(client.post(api::SCHEME, &usual_scheme()).await), 403);
    assert_eq!(code(client.post(api::CANDIDACY, &candidacy_request()).await), 403);
    assert_eq!(code(client.post(api::TRANSFER, &transfer_request(4000)).await), 403);
    assert_eq!(served.asked().len(), 1, "a forbidden request reached the agent");
}

#[tokio::test]
async fn trapped_transactions_are_the_own_containers_and_the_operators() {
    let served = served(false).await;
    let query = TrappedQuery { file: "trapped/tail".into(), after: understudy_types::Lsn(0) };
    let own = served.ca.member(usual_status().member.as_str());
    for allowed in [own, served.ca.operator()] {
        let client = served.client(&allowed);
        let page: TrappedPage = client.ask(api::TRAPPED, &query).await.unwrap();
        assert!(page.is_last);
        assert_eq!(code(client.post(api::TRAPPED_DISCARD, &query).await), 204);
    }
    let stranger = served.ca.member("orders-9");
    let client = served.client(&stranger);
    assert_eq!(code(client.post(api::TRAPPED, &query).await), 403);
    assert_eq!(code(client.post(api::TRAPPED_DISCARD, &query).await), 403);
}

#[tokio::test]
async fn a_stale_request_is_answered_with_the_agents_reason() {
    let served = served(true).await;
    let operator = served.ca.operator();
    let refused = served.client(&operator).post(api::CANDIDACY, &candidacy_request()).await;
    match refused {
        Err(CallError::Refused { status, reason }) => {
            assert_eq!(status, StatusCode::CONFLICT);
            assert_eq!(reason, "epoch 8 is in force, not 7");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_understood_reaches_nobody() {
    let served = served(false).await;
    let operator = served.ca.operator();
    let client = served.client(&operator);
    assert_eq!(code(client.post(api::CANDIDACY, &"nonsense").await), 422);
    assert_eq!(
        code(client.post(api::DEATH, &serde_json::json!({"member": "Orders_1"})).await),
        422
    );
    let contradictory = Scheme { lease_duration_ms: 1, ..usual_scheme() };
    assert_eq!(code(client.post(api::SCHEME, &contradictory).await), 422);
    assert_eq!(code(client.post(api::TRANSFER, &transfer_request(0)).await), 422);
    assert_eq!(code(client.post(api::TRANSFER, &transfer_request(60_001)).await), 422);
    assert_eq!(code(client.post("/v2/scheme", &usual_scheme()).await), 404);
    assert_eq!(code(client.post(api::STATUS, &usual_scheme()).await), 405);
    assert_eq!(served.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_huge_body_and_a_huge_head_are_refused() {
    let served = served(false).await;
    let operator = served.ca.operator();
    let request = format!(
        "POST /v1/scheme HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    let mut bytes = request.into_bytes();
    bytes.resize(bytes.len() + BODY_BYTES_MAX + 1, b' ');
    let answer = served.raw(&operator, &bytes).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut bytes = b"GET /v1/status HTTP/1.1\r\nx: ".to_vec();
    bytes.resize(256 << 10, b'y');
    let answer = served.raw(&operator, &bytes).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(served.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn the_stream_tells_changes_at_once_and_beats_when_nothing_changes() {
    let served = served(false).await;
    let operator = served.ca.operator();
    let mut stream = served.connect(&operator).await;
    stream.write_all(b"GET /v1/status/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut read_until = async |wanted: &str, count: usize| {
        let mut buffer = [0; 4096];
        while text.matches(wanted).count() < count {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    read_until("\"epoch\":7", 1).await;
    let changed = AgentStatus { epoch: Epoch(8), ..usual_status() };
    served.scribe.status.send_replace(Arc::new(changed));
    read_until("\"epoch\":8", 1).await;
    let begun = std::time::Instant::now();
    read_until("data:", 4).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "no beat");
    assert!(text.contains("content-type: text/event-stream"), "{text}");
}

#[tokio::test]
async fn garbage_and_strangers_are_closed_and_the_port_lives_on() {
    let served = served(false).await;
    let flood = vec![0xff; 100 << 10];
    let garbage: [&[u8]; 4] = [
        b"GET /v1/status HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        &flood,
    ];
    for bytes in garbage {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
    }
    // Garbage after a good handshake.
    let operator = served.ca.operator();
    let answer = served.raw(&operator, b"\0\x01\x02 garbage \r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");

    let stranger = Authority::new().member("orders-1");
    assert!(matches!(
        served.client(&stranger).status().await,
        Err(CallError::Unreachable { .. } | CallError::Broken { .. })
    ));
    served.client(&operator).status().await.unwrap();
    assert_eq!(served.server.tls.home().namespace, "shop");
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_operator_out() {
    let served = served(false).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    // The first 32 of them hold the places until their handshakes time out.
    let operator = served.ca.operator();
    let client = served.client(&operator);
    let begun = std::time::Instant::now();
    while client.status().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "kept out for ever");
    }
    drop(silent);
}
