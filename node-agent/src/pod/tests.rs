//! Tests against an API server in memory that keeps one pod.

use super::*;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use std::sync::{Arc, Mutex};

struct Pods {
    pod: Option<Value>,
    /// Raises the version right after a read, as another writer would.
    rival: bool,
}

type Shared = Arc<Mutex<Pods>>;

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "orders-1", "namespace": "ns", "resourceVersion": "1",
            "labels": {"understudy.dev/role": "active", "understudy.dev/pair": "orders"},
        },
    })
}

fn pods(pod: Option<Value>) -> (Shared, RoleLabels) {
    let shared = Arc::new(Mutex::new(Pods { pod, rival: false }));
    let served = Arc::clone(&shared);
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = Arc::clone(&served);
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            Ok::<_, tower::BoxError>(answer(&shared, &method, &body))
        }
    });
    let labels = RoleLabels::with_client(Client::new(service, "ns"), "ns", Duration::from_secs(1));
    (shared, labels)
}

fn answer(shared: &Shared, method: &Method, body: &[u8]) -> Response<Body> {
    let mut pods = shared.lock().unwrap();
    let status = |code: u16| {
        let body = json!({"kind": "Status", "status": "Failure", "code": code,
            "reason": if code == 404 { "NotFound" } else { "Conflict" }});
        let mut response = Response::new(Body::from(body.to_string().into_bytes()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response
    };
    let Some(mut pod) = pods.pod.clone() else { return status(404) };
    let answer = Response::new(Body::from(pod.to_string().into_bytes()));
    if method == Method::GET {
        if pods.rival {
            pod["metadata"]["resourceVersion"] = json!("2");
            pods.pod = Some(pod);
        }
        return answer;
    }
    assert_eq!(method, Method::PATCH);
    let patch: Value = serde_json::from_slice(body).unwrap();
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != pod["metadata"]["resourceVersion"] {
        return status(409);
    }
    for (label, value) in patch["metadata"]["labels"].as_object().unwrap() {
        match value {
            Value::Null => drop(pod["metadata"]["labels"].as_object_mut().unwrap().remove(label)),
            value => pod["metadata"]["labels"][label] = value.clone(),
        }
    }
    pods.pod = Some(pod);
    answer
}

fn label(shared: &Shared) -> Value {
    shared.lock().unwrap().pod.as_ref().unwrap()["metadata"]["labels"][names::LABEL_ROLE].clone()
}

fn member() -> MemberName {
    MemberName::new("orders-1").unwrap()
}

#[tokio::test]
async fn the_label_follows_the_role_and_leaves_the_others_alone() {
    let (shared, labels) = pods(Some(pod()));
    labels.set(&member(), Some(Role::Standby)).await.unwrap();
    assert_eq!(label(&shared), "standby");
    labels.set(&member(), None).await.unwrap();
    assert!(label(&shared).is_null());
    let kept = shared.lock().unwrap().pod.as_ref().unwrap()["metadata"]["labels"].clone();
    assert_eq!(kept["understudy.dev/pair"], "orders");
}

#[tokio::test]
async fn a_pod_that_is_gone_needs_no_label() {
    let (_, labels) = pods(None);
    labels.set(&member(), Some(Role::Active)).await.unwrap();
    labels.clear_unless_overtaken(&member(), || false).await.unwrap();
}

#[tokio::test]
async fn a_late_clearing_never_undoes_a_newer_label() {
    let (shared, labels) = pods(Some(pod()));
    let overtaken = labels.clear_unless_overtaken(&member(), || true).await;
    assert!(matches!(overtaken, Err(LabelError::Overtaken(_))));
    shared.lock().unwrap().rival = true;
    let overtaken = labels.clear_unless_overtaken(&member(), || false).await;
    assert!(matches!(overtaken, Err(LabelError::Overtaken(_))));
    assert_eq!(label(&shared), "active");
    shared.lock().unwrap().rival = false;
    labels.clear_unless_overtaken(&member(), || false).await.unwrap();
    assert!(label(&shared).is_null());
}
