//! An API server in memory that knows Leases, for tests: compares resourceVersions as the real one does
//! and fails on request. A watch gives what happened since the version asked for, and ends. Deliberately
//! absent: admission, and everything but one Lease.

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use parking::Shared;
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The connection is never made.
    NoConnection,
    /// Applied, and the connection breaks before the answer.
    AnswerLost,
    /// Applied, and the answer never comes.
    AnswerLate,
    /// Refused with this status, unapplied.
    Status(u16),
    /// Applied, but something on the way rewrites the annotation.
    Rewritten,
}

mod parking {
    use std::sync::{Mutex, MutexGuard};

    /// A mutex whose poison is a failed test anyway.
    #[derive(Default)]
    pub(crate) struct Shared<T>(Mutex<T>);

    impl<T> Shared<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

#[derive(Default)]
struct Stored {
    lease: Option<Value>,
    versions: u64,
    /// Every event of a watch, with the version that it made.
    events: Vec<(u64, Value)>,
}

#[derive(Default)]
struct Faults {
    next: VecDeque<Fault>,
    always: Option<Fault>,
}

/// One client's way to the server: faults belong to the way, the Lease to the server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    stored: Arc<Shared<Stored>>,
    faults: Arc<Shared<Faults>>,
    count: Arc<watch::Sender<usize>>,
}

impl FakeApi {
    pub(crate) fn empty() -> Self {
        Self {
            stored: Arc::new(Shared::new(Stored::default())),
            faults: Arc::default(),
            count: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Another way to the same server.
    pub(crate) fn same(other: &Self) -> Self {
        Self { stored: Arc::clone(&other.stored), ..Self::empty() }
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        self.faults.lock().next.push_back(fault);
    }

    pub(crate) fn fail_always(&self, fault: Fault) {
        self.faults.lock().always = Some(fault);
    }

    pub(crate) fn requests(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until so many requests were answered on this way.
    pub(crate) async fn requests_reach(&self, wanted: usize) {
        self.count.subscribe().wait_for(|count| *count >= wanted).await.unwrap();
    }

    pub(crate) fn lease(&self) -> Option<Value> {
        self.stored.lock().lease.clone()
    }

    pub(crate) fn spec(&self) -> Value {
        self.lease().unwrap()["spec"].clone()
    }

    /// A person's edit, which makes a new version.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut stored = self.stored.lock();
        let mut lease = stored.lease.clone().unwrap();
        edit(&mut lease);
        stored.put(lease);
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(service, "ns")
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let method = request.method().clone();
        let watched_from = watched_from(request.uri());
        let body = request.into_body().collect_bytes().await?;
        let fault = {
            let mut faults = self.faults.lock();
            faults.next.pop_front().or(faults.always).unwrap_or(Fault::None)
        };
        if let (Fault::None, Some(version)) = (fault, watched_from) {
            self.count.send_modify(|count| *count += 1);
            return Ok(self.stored.lock().events_since(version));
        }
        let answer = match fault {
            Fault::NoConnection => Err(no_connection().await),
            Fault::Status(code) => Ok(status(code, "refused on request")),
            Fault::None => Ok(self.stored.lock().serve(&method, &body)),
            Fault::AnswerLost => {
                self.stored.lock().serve(&method, &body);
                Err("connection reset by peer".into())
            }
            Fault::AnswerLate => {
                self.stored.lock().serve(&method, &body);
                self.count.send_modify(|count| *count += 1);
                return std::future::pending().await;
            }
            Fault::Rewritten => {
                let mut lease: Value = serde_json::from_slice(&body)?;
                lease["metadata"]["annotations"] = json!({});
                Ok(self.stored.lock().serve(&method, &serde_json::to_vec(&lease)?))
            }
        };
        self.count.send_modify(|count| *count += 1);
        answer
    }
}

impl Stored {
    fn serve(&mut self, method: &Method, body: &[u8]) -> Response<Body> {
        let found = self.lease.clone();
        match (method, found) {
            (&Method::GET, Some(lease)) => ok(&lease),
            (&Method::POST, None) => {
                let mut lease: Value = serde_json::from_slice(body).unwrap();
                lease["metadata"]["uid"] = json!(format!("uid-{}", self.versions));
                ok(&self.put(lease))
            }
            (&Method::POST, Some(_)) => status(409, "AlreadyExists"),
            (&Method::PUT, Some(current)) => {
                let lease: Value = serde_json::from_slice(body).unwrap();
                let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
                assert!(version(&lease).is_string(), "a write without a resourceVersion");
                if version(&lease) != version(&current) {
                    return status(409, "Conflict");
                }
                ok(&self.put(lease))
            }
            (&Method::DELETE, Some(lease)) => {
                assert_eq!(lease["metadata"]["finalizers"], json!([]), "a finalizer holds it");
                self.lease = None;
                self.happened("DELETED", lease);
                ok(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            (&Method::PATCH, _) => panic!("a Lease is never patched"),
            (_, None) => status(404, "NotFound"),
            (method, _) => panic!("unexpected {method}"),
        }
    }

    fn put(&mut self, mut lease: Value) -> Value {
        lease["metadata"]["resourceVersion"] = json!((self.versions + 1).to_string());
        self.lease = Some(lease.clone());
        self.happened("MODIFIED", lease.clone());
        lease
    }

    fn happened(&mut self, kind: &str, lease: Value) {
        self.versions += 1;
        self.events.push((self.versions, json!({"type": kind, "object": lease})));
    }

    fn events_since(&self, version: u64) -> Response<Body> {
        let newer = self.events.iter().filter(|(made, _)| *made > version);
        let lines: String = newer.map(|(_, event)| format!("{event}\n")).collect();
        Response::new(Body::from(lines.into_bytes()))
    }
}

/// The version that a watch begins after; `None` for other requests.
fn watched_from(uri: &http::Uri) -> Option<u64> {
    let query = uri.query().filter(|query| query.contains("watch=true"))?;
    assert!(query.contains("fieldSelector=metadata.name%3D"), "a Role would refuse: {query}");
    let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    Some(version.unwrap().parse().unwrap())
}

fn ok(body: &Value) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(body).unwrap()))
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": reason,
    });
    let mut response = ok(&body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// The transport's own error for a port where nobody listens.
async fn no_connection() -> tower::BoxError {
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let request = Request::get(format!("http://{address}/")).body(Body::empty()).unwrap();
    client.request(request).await.unwrap_err().into()
}
