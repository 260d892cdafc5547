//! One connection to one agent: mutual TLS, HTTP/1.1, short times.

use crate::{certificates, pair::validate::Identity};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::Serialize;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};
use tokio_rustls::TlsConnector;
use understudy_agent_api::{PORT_CONTROL, Refusal, names as shared};
use understudy_types::MemberName;

/// Longest time for TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest time for an answer to a request.
const ANSWER: Duration = Duration::from_secs(3);
/// Longest refusal that is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Why an agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It was never followed, so its address is not known.
    #[error("the agent's address is not known")]
    NotFollowed,
    /// No connection.
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    /// Too slow.
    #[error("no answer in time")]
    TimedOut,
    /// It shows a certificate of somebody else.
    #[error("the agent shows the certificate of {0}")]
    Stranger(String),
    /// HTTP went wrong.
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    /// The body could not be written as JSON.
    #[error("failed to write the request")]
    Body(#[source] serde_json::Error),
    /// It refused.
    #[error("the agent refused ({status}): {reason}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// Its reason.
        reason: String,
    },
}

/// Who the operator is towards one pair, and whom it trusts there.
pub struct ClientIdentity {
    /// Changes when certificate or trust change.
    pub mark: String,
    pair: Identity,
    config: Arc<ClientConfig>,
}

impl ClientIdentity {
    /// From the operator's certificate for the pair, its key and the trusted authorities, all PEM.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        pair: Identity,
        certified: &certificates::CertifiedPem,
        trusted: &str,
    ) -> Result<Self, rustls::Error> {
        let bad = |what: &str| rustls::Error::General(format!("{what} is not readable PEM"));
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(authority.map_err(|_| bad("an authority"))?)?;
        }
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(certified.certificate.as_bytes()).collect();
        let key =
            PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).map_err(|_| bad("the key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.map_err(|_| bad("the certificate"))?, key)?;
        let mark = crate::pair::build::stable_hash(&(&certified.certificate, trusted));
        Ok(Self { mark, pair, config: Arc::new(config) })
    }
}

/// The way to one agent.
#[derive(Clone)]
pub(super) struct Door {
    identity: Arc<ClientIdentity>,
    member: MemberName,
    address: IpAddr,
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// A connection whose driver ends with it.
pub(super) struct Open {
    sender: Sender,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Door {
    pub(super) fn new(identity: Arc<ClientIdentity>, member: MemberName, address: IpAddr) -> Self {
        Self { identity, member, address }
    }

    pub(super) async fn open(&self) -> Result<Open, ConnectionError> {
        timeout(CONNECT, self.connect()).await.map_err(|_| ConnectionError::TimedOut)?
    }

    async fn connect(&self) -> Result<Open, ConnectionError> {
        let pair = &self.identity.pair;
        let tcp = TcpStream::connect((self.address, PORT_CONTROL))
            .await
            .map_err(ConnectionError::Connect)?;
        tcp.set_nodelay(true).map_err(ConnectionError::Connect)?;
        let host = shared::member_host(&pair.namespace, &pair.name, self.member.as_str());
        let name = ServerName::try_from(host)
            .map_err(|error| ConnectionError::Connect(std::io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::clone(&self.identity.config));
        let tls = connector.connect(name, tcp).await.map_err(ConnectionError::Connect)?;
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let uris = shown
            .and_then(|certificate| certificates::facts(certificate))
            .map(|facts| facts.uris)
            .unwrap_or_default();
        let wanted = shared::member_uri(&pair.namespace, &pair.uid, self.member.as_str());
        if uris != [wanted] {
            return Err(ConnectionError::Stranger(uris.join(", ")));
        }
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(ConnectionError::Http)?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Open { sender, driver })
    }

    /// Sends a request with a JSON body; success is any 2xx.
    pub(super) async fn post<B: Serialize + Sync>(
        &self,
        path: &'static str,
        body: &B,
    ) -> Result<(), ConnectionError> {
        let body = serde_json::to_vec(body).map_err(ConnectionError::Body)?;
        let mut open = self.open().await?;
        let request = self.request("POST", path, body.into());
        let answer = timeout(ANSWER, open.send(request)).await;
        let answer = answer.map_err(|_| ConnectionError::TimedOut)??;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let read = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect();
        let bytes = timeout(ANSWER, read).await.ok().and_then(Result::ok);
        let bytes = bytes.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let reason = serde_json::from_slice::<Refusal>(&bytes)
            .map_or_else(|_| String::from_utf8_lossy(&bytes).into_owned(), |r| r.reason);
        Err(ConnectionError::Refused { status, reason })
    }

    pub(super) fn request(
        &self,
        method: &'static str,
        path: &'static str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let pair = &self.identity.pair;
        let host = shared::member_host(&pair.namespace, &pair.name, self.member.as_str());
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a fixed path and a DNS name always make a request")
    }
}

impl Open {
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ConnectionError> {
        self.sender.send_request(request).await.map_err(ConnectionError::Http)
    }
}
