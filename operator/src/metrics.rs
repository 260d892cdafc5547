//! Metrics of the operator: requests to the API server by verb and resource (the proof that nothing is
//! written at rest, and that no verb is granted without use), reconciliations, and phases.

use crate::{access, agents::PairKey};
use http::Request;
use kube::client::Body;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::sync::{Arc, Mutex, PoisonError};
use understudy_crds::Phase;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    pair: String,
    phase: String,
}

/// Every metric, cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    reconciliations: Family<ResultLabels, Counter>,
    phases: Family<PhaseLabels, Gauge>,
    elected: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("understudy_operator");
        let requests = Family::default();
        registry.register(
            "api_requests",
            "Requests to the API server by verb, group and resource",
            requests.clone(),
        );
        let reconciliations = Family::default();
        registry.register("reconciliations", "Reconciliations by result", reconciliations.clone());
        let phases = Family::default();
        registry.register("pair_phase", "1 for the phase that a pair is in", phases.clone());
        let elected = Gauge::default();
        registry.register("elected", "1 while this process is the one that works", elected.clone());
        let registry = Arc::new(Mutex::new(registry));
        Self { registry, requests, reconciliations, phases, elected }
    }
}

impl Metrics {
    /// Counts a request to the API server.
    pub fn count_request(&self, request: &Request<Body>) {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if let Some(call) = Call::of(request.method().as_str(), request.uri().path(), is_watch) {
            if !access::is_used(&call) {
                tracing::error!(?call, "a call is missing in the list of what the operator uses");
            }
            let Call { verb, group, resource } = call;
            self.requests.get_or_create(&RequestLabels { verb, group, resource }).inc();
        }
    }

    /// Counts a reconciliation.
    pub fn count_reconciliation(&self, result: &str) {
        self.reconciliations.get_or_create(&ResultLabels { result: result.to_owned() }).inc();
    }

    /// Notes the phase of a pair.
    pub fn note_phase(&self, pair: &PairKey, phase: Phase) {
        for other in Phase::ALL {
            if other == phase {
                self.phases.get_or_create(&labels(pair, other)).set(1);
            } else {
                self.phases.remove(&labels(pair, other));
            }
        }
    }

    /// Forgets a pair.
    pub fn forget(&self, pair: &PairKey) {
        for phase in Phase::ALL {
            self.phases.remove(&labels(pair, phase));
        }
    }

    /// Notes whether this process works.
    pub fn note_elected(&self, is_elected: bool) {
        self.elected.set(i64::from(is_elected));
    }

    /// The text of a scrape.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# failed to write the metrics: {error}\n"),
        }
    }
}

fn labels(pair: &PairKey, phase: Phase) -> PhaseLabels {
    PhaseLabels { namespace: pair.0.clone(), pair: pair.1.clone(), phase: phase.to_string() }
}

/// A request as access rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Verb of access rules.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
}

impl Call {
    /// From method and path; `None` for paths that are no resource.
    #[must_use]
    pub fn of(method: &str, path: &str, is_watch: bool) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let (resource, name, sub) = (rest.first()?, rest.get(1), rest.get(2));
        let verb = match (method, name.is_some()) {
            ("GET", _) if is_watch => "watch",
            ("GET", true) => "get",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            (_, _) => return None,
        };
        let resource = match sub {
            Some(sub) => format!("{resource}/{sub}"),
            None => (*resource).to_owned(),
        };
        Some(Self { verb: verb.to_owned(), group, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_access_rules_read_it() {
        let cases = [
            ("GET", "/api/v1/pods", true, "watch", "", "pods"),
            ("GET", "/api/v1/namespaces/shop/secrets/a", false, "get", "", "secrets"),
            (
                "PATCH",
                "/apis/understudy.dev/v1alpha1/namespaces/shop/activestandbypairs/orders/status",
                false,
                "patch",
                "understudy.dev",
                "activestandbypairs/status",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/shop/leases/l",
                false,
                "update",
                "coordination.k8s.io",
                "leases",
            ),
        ];
        for (method, path, is_watch, verb, group, resource) in cases {
            let call = Call::of(method, path, is_watch).unwrap();
            assert_eq!((&*call.verb, &*call.group, &*call.resource), (verb, group, resource));
        }
        assert_eq!(Call::of("GET", "/version", false), None);
    }
}
