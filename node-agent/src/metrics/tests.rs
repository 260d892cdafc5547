//! The port, asked over real sockets.

use super::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
};
use understudy_agent_api::AuthorityStatus;
use understudy_types::{Epoch, Incarnation, MemberName};
use uuid::Uuid;

pub(crate) fn usual_status() -> AgentStatus {
    let incarnation = Incarnation { start: 3, id: Uuid::from_u128(3) };
    AgentStatus {
        role: Role::Active,
        state: MemberState::Serving,
        epoch: Epoch(7),
        authority: AuthorityStatus { lease_left_ms: Some(3800), ..AuthorityStatus::default() },
        sync: SyncState::Alone,
        scheme_version: 1,
        sessions: 5,
        memory_used_bytes: 1 << 20,
        memory_limit_bytes: 1 << 30,
        certificate_not_after: Some("2090-01-01T00:00:00Z".into()),
        ..AgentStatus::starting(MemberName::new("orders-1").unwrap(), incarnation)
    }
}

struct Port {
    address: std::net::SocketAddr,
    publish: watch::Sender<Arc<AgentStatus>>,
    metrics: Metrics,
    _stop: oneshot::Sender<()>,
}

async fn port() -> Port {
    let (publish, status) = watch::channel(Arc::new(usual_status()));
    let metrics = Metrics::default();
    let exposition = Exposition::new(&metrics, move || Arc::clone(&status.borrow()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(exposition.serve(listener, async move {
        let _ = stopped.await;
    }));
    Port { address, publish, metrics, _stop: stop }
}

impl Port {
    async fn send(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // The other side may close while this side still writes.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
    }
}

#[tokio::test]
async fn a_scrape_shows_counters_and_the_agents_own_words() {
    let port = port().await;
    port.metrics.commits.inc_by(42);
    port.metrics.answer_wait_seconds.observe(0.001);
    let text = port.get("/metrics").await;
    for line in [
        "understudy_commits_total 42",
        "understudy_answer_wait_seconds_count 1",
        "understudy_epoch 7",
        "understudy_sessions 5",
        "understudy_authority_lease_left_ms 3800",
        "understudy_role{role=\"active\"} 1",
        "understudy_role{role=\"standby\"} 0",
        "understudy_starts_total 3",
        "understudy_certificate_not_after_seconds 3786912000",
        "# EOF",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    assert_eq!(text.matches("# TYPE understudy_role ").count(), 1, "{text}");
}

#[tokio::test]
async fn readiness_follows_the_state_and_liveness_does_not() {
    let port = port().await;
    assert!(port.get("/readyz").await.starts_with("HTTP/1.1 200"));
    for state in [MemberState::Lapsed, MemberState::Recovering, MemberState::Failed] {
        let status = AgentStatus { state, problem: Some("why".into()), ..usual_status() };
        port.publish.send_replace(Arc::new(status));
        let answer = port.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("why"), "{answer}");
        assert!(port.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }
    for state in [MemberState::InSync, MemberState::CatchingUp] {
        port.publish.send_replace(Arc::new(AgentStatus { state, ..usual_status() }));
        assert!(port.get("/readyz").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn garbage_is_closed_and_the_port_lives_on() {
    let port = port().await;
    let flood = vec![b'x'; 200 << 10];
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"\0\0\0\x08\x04\xd2\x16\x2f", b"GET", &flood] {
        let answer = port.send(garbage).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert!(port.get("/nowhere").await.starts_with("HTTP/1.1 404"));
    assert!(port.get("/healthz").await.starts_with("HTTP/1.1 200"));
}
