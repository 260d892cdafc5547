//! The operator's side of the control port, against a small agent on a loopback address: what is heard,
//! what is refused, and what silence becomes. Each test has a loopback address of its own, for the port
//! is fixed.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use futures::{StreamExt, channel::mpsc};
use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use understudy_agent_api::{AgentStatus, CANDIDACY, CandidacyRequest, MemberState, PORT_CONTROL};
use understudy_operator::{
    agents::{Agents, ClientIdentity, ConnectionError, PairKey, Target},
    certificates::{Authority, CertifiedPem, Subject, issue, make_authority},
    pair::{observation::Seen, validate::Identity},
};
use understudy_types::{Epoch, Incarnation, MemberName, Role};
use uuid::Uuid;

/// Longest time for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

struct Pair {
    identity: Identity,
    authority: Authority,
}

impl Pair {
    fn new(uid: &str) -> Self {
        let identity = Identity {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            uid: uid.to_owned(),
            generation: 1,
            created_unix: 0,
        };
        let issuing = make_authority("orders", Timestamp::now()).unwrap();
        Self { identity, authority: Authority { issuing, next: None, previous: None } }
    }

    fn certified(&self, subject: &Subject) -> CertifiedPem {
        issue(&self.authority.issuing, subject, Timestamp::now()).unwrap()
    }

    fn client(&self) -> Arc<ClientIdentity> {
        let own = self.certified(&Subject::operator(&self.identity));
        let trusted = self.authority.trusted();
        Arc::new(ClientIdentity::new(self.identity.clone(), &own, &trusted).unwrap())
    }

    fn acceptor(&self, member: &str) -> TlsAcceptor {
        let subject = Subject::member(&self.identity, &MemberName::new(member).unwrap());
        let own = self.certified(&subject);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let authority = self.authority.trusted();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn status(state: MemberState) -> AgentStatus {
    let incarnation = Incarnation { start: 1, id: Uuid::from_u128(1) };
    let starting = AgentStatus::starting(MemberName::new("orders-1").unwrap(), incarnation);
    AgentStatus { role: Role::Active, state, epoch: Epoch(1), scheme_version: 1, ..starting }
}

async fn accept(listener: &TcpListener, tls: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = tls.accept(tcp).await.ok()?;
    // The head of the request; what it asks is known from the test.
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut some = [0; 1024];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => request.extend_from_slice(&some[..n]),
        }
    }
    Some(stream)
}

async fn answer(stream: &mut TlsStream<TcpStream>, head: &str, body: &str) {
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn begin_events(stream: &mut TlsStream<TcpStream>) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
}

async fn send(stream: &mut TlsStream<TcpStream>, status: &AgentStatus) {
    let event = format!("data: {}\n\n", serde_json::to_string(status).unwrap());
    stream.write_all(event.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

struct Heard {
    agents: Agents,
    news: mpsc::UnboundedReceiver<PairKey>,
    key: PairKey,
    client: Arc<ClientIdentity>,
    targets: BTreeMap<MemberName, Target>,
}

impl Heard {
    fn new(pair: &Pair, address: &str) -> Self {
        let (announce, news) = mpsc::unbounded();
        let address: IpAddr = address.parse().unwrap();
        let member = MemberName::new("orders-1").unwrap();
        let target = Target { address, pod_uid: "u".to_owned() };
        Self {
            agents: Agents::new(announce),
            news,
            key: ("shop".to_owned(), "orders".to_owned()),
            client: pair.client(),
            targets: BTreeMap::from([(member, target)]),
        }
    }

    fn word(&self) -> Seen<AgentStatus> {
        let mut all = self.agents.follow(&self.key, &self.client, &self.targets);
        all.remove(&MemberName::new("orders-1").unwrap()).unwrap()
    }

    /// Waits for news until the word is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Seen<AgentStatus>) -> bool) -> Seen<AgentStatus> {
        tokio::time::timeout(LIMIT, async {
            loop {
                let word = self.word();
                if wanted(&word) {
                    return word;
                }
                let again = tokio::time::timeout(Duration::from_millis(200), self.news.next());
                drop(again.await);
            }
        })
        .await
        .expect("the word did not come in time")
    }
}

#[tokio::test]
async fn a_change_is_heard_and_silence_is_unknown() {
    let pair = Pair::new("5f0c");
    let listener = TcpListener::bind(("127.0.8.1", PORT_CONTROL)).await.unwrap();
    let tls = pair.acceptor("orders-1");
    let mut heard = Heard::new(&pair, "127.0.8.1");
    assert!(heard.word().known().is_none(), "nothing was heard yet");

    let mut stream = accept(&listener, &tls).await.unwrap();
    begin_events(&mut stream).await;
    send(&mut stream, &status(MemberState::Candidate)).await;
    let is = |state| {
        move |word: &Seen<AgentStatus>| word.known().is_some_and(|status| status.state == state)
    };
    heard.until(is(MemberState::Candidate)).await;
    send(&mut stream, &status(MemberState::Serving)).await;
    heard.until(is(MemberState::Serving)).await;

    // The stream stays open and says nothing: after three beats that is not known any more.
    let word = heard.until(|word| word.known().is_none()).await;
    let Seen::Unknown { why, .. } = word else { panic!("still known") };
    assert!(why.contains("no answer in time"), "{why}");

    // It is opened again by itself.
    let mut stream = accept(&listener, &tls).await.unwrap();
    begin_events(&mut stream).await;
    send(&mut stream, &status(MemberState::Serving)).await;
    heard.until(is(MemberState::Serving)).await;
}

#[tokio::test]
async fn load_is_no_news() {
    let pair = Pair::new("5f0c");
    let listener = TcpListener::bind(("127.0.8.2", PORT_CONTROL)).await.unwrap();
    let tls = pair.acceptor("orders-1");
    let mut heard = Heard::new(&pair, "127.0.8.2");
    heard.word();
    let mut stream = accept(&listener, &tls).await.unwrap();
    begin_events(&mut stream).await;
    for sessions in 0..50 {
        send(&mut stream, &AgentStatus { sessions, ..status(MemberState::Serving) }).await;
    }
    heard.until(|word| word.known().is_some_and(|status| status.sessions == 49)).await;
    let mut news = 0;
    while heard.news.try_recv().is_ok() {
        news += 1;
    }
    assert!(news <= 1, "{news} announcements for one change");
}

#[tokio::test]
async fn a_member_of_another_pair_is_not_believed() {
    let ours = Pair::new("5f0c");
    let mut theirs = Pair::new("another");
    theirs.authority = ours.authority.clone();
    let listener = TcpListener::bind(("127.0.8.3", PORT_CONTROL)).await.unwrap();
    let tls = theirs.acceptor("orders-1");
    let mut heard = Heard::new(&ours, "127.0.8.3");
    heard.word();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(tls.accept(tcp).await);
        }
    });
    let word = heard
        .until(|word| {
            matches!(word, Seen::Unknown { why, .. } if why.contains("shows the certificate"))
        })
        .await;
    assert!(word.known().is_none());
}

#[tokio::test]
async fn a_refusal_comes_back_with_its_reason() {
    let pair = Pair::new("5f0c");
    let listener = TcpListener::bind(("127.0.8.4", PORT_CONTROL)).await.unwrap();
    let tls = pair.acceptor("orders-1");
    let heard = Heard::new(&pair, "127.0.8.4");
    heard.word();
    let server = async {
        // The status stream, and the request; both may come first.
        loop {
            let Some(mut stream) = accept(&listener, &tls).await else { continue };
            answer(&mut stream, "409 Conflict", r#"{"reason": "epoch 1 is past"}"#).await;
        }
    };
    let member = MemberName::new("orders-1").unwrap();
    let body = CandidacyRequest {
        epoch: Epoch(1),
        reason: "test".to_owned(),
        by_person: false,
        accepts_loss: false,
    };
    let asked = heard.agents.request(&heard.key, &member, CANDIDACY, &body);
    let refused = tokio::select! {
        asked = tokio::time::timeout(LIMIT, asked) => asked.unwrap().unwrap_err(),
        () = server => unreachable!("the server has no end"),
    };
    assert!(
        matches!(&refused, ConnectionError::Refused { reason, .. } if reason == "epoch 1 is past"),
        "{refused:?}"
    );
}
