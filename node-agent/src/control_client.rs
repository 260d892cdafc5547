//! Calls to another agent's control port: one connection a call, mutual TLS, short times.
//!
//! Used by the supervisor (a death is told at once) and by the command line inside the pod. The
//! operator keeps its own client with open streams.
//!
//! Deliberately absent: retries (the caller knows how long its news is worth telling) and redirects.

use crate::tls::{Tls, identity::Expected};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use understudy_agent_api::{
    self as api, AgentStatus, DeathReport, PledgeAnswer, PledgeRequest, Refusal,
};

/// A whole call; an agent that takes longer than this does not answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer read. A status with 127 links is about 40 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody there, or not who was expected; trying again may help.
    #[error("failed to reach {address}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time; the request may have been taken.
    #[error("{0} did not answer in time")]
    TimedOut(String),
    /// The agent refused; asking the same again is useless.
    #[error("refused with {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The agent's words.
        reason: String,
    },
    /// The connection broke or the answer made no sense.
    #[error("{address} gave no usable answer: {problem}")]
    Broken {
        /// Host and port.
        address: String,
        /// What went wrong.
        problem: String,
    },
}

/// One agent to talk to.
#[derive(Debug, Clone)]
pub struct ControlClient {
    tls: Arc<Tls>,
    host: String,
    port: u16,
    expected: Expected,
}

impl ControlClient {
    /// The agent at `host`, provided its certificate says `expected`.
    #[must_use]
    pub fn new(tls: Arc<Tls>, host: impl Into<String>, port: u16, expected: Expected) -> Self {
        Self { tls, host: host.into(), port, expected }
    }

    /// What the agent says of itself.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn status(&self) -> Result<AgentStatus, CallError> {
        let body = self.call(Method::GET, api::STATUS, Bytes::new()).await?;
        self.read(&body)
    }

    /// Tells of a death (R10).
    ///
    /// # Errors
    /// When the agent did not confirm that it took the report.
    pub async fn report_death(&self, report: &DeathReport) -> Result<(), CallError> {
        self.post(api::DEATH, report).await
    }

    /// Asks for a voter's word (R11, R13c).
    ///
    /// # Errors
    /// When there is no answer; a word that was given on the way to it binds the voter all the same.
    pub async fn pledge(&self, request: &PledgeRequest) -> Result<PledgeAnswer, CallError> {
        self.ask(api::PLEDGE, request).await
    }

    /// Sends a request that has an answer.
    ///
    /// # Errors
    /// When there is none, or the agent refuses.
    pub async fn ask<T: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(body).expect("requests are plain data");
        let body = self.call(Method::POST, path, body.into()).await?;
        self.read(&body)
    }

    /// Sends a request that has no answer but yes or no.
    ///
    /// # Errors
    /// When the agent did not say yes.
    pub async fn post<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<(), CallError> {
        let body = serde_json::to_vec(body).expect("requests are plain data");
        self.call(Method::POST, path, body.into()).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, CallError> {
        match tokio::time::timeout(CALL_TIMEOUT, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut(self.address())),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, CallError> {
        let unreachable = |source| CallError::Unreachable { address: self.address(), source };
        let socket =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        // The name is not used: the certificate's URI decides (see `tls`).
        let name = ServerName::try_from("understudy.invalid").expect("a valid DNS name");
        let connector = TlsConnector::from(self.tls.client(self.expected.clone()));
        let stream = connector.connect(name, socket).await.map_err(unreachable)?;
        let broken = |problem: &dyn std::fmt::Display| CallError::Broken {
            address: self.address(),
            problem: problem.to_string(),
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
        };
        let (status, body) = tokio::select! {
            // The answer first: the connection may end in the same moment.
            biased;
            done = exchange => done?,
            ended = connection => {
                return Err(broken(&ended.err().map_or_else(
                    || "connection closed".to_owned(),
                    |error| error.to_string(),
                )));
            }
        };
        if status.is_success() {
            return Ok(body);
        }
        let reason = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.reason,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(CallError::Refused { status, reason })
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(body).map_err(|error| CallError::Broken {
            address: self.address(),
            problem: error.to_string(),
        })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
