//! What a request to the API server is: a write, a list, a watch, or another look.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Parameters of a list that do not say what is listed.
const BESIDE_THE_POINT: [&str; 5] =
    ["resourceVersion", "resourceVersionMatch", "limit", "continue", "timeoutSeconds"];

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// Changes something.
    Write(Write),
    /// Lists objects; two lists of the same things have the same key.
    List(String),
    /// Watches.
    Watch,
    /// Reads one object, or something else.
    Look,
}

/// A request that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub verb: String,
    /// Plural, with the subresource.
    pub resource: String,
    /// The object.
    pub name: String,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.name)
    }
}

impl Write {
    /// What the write says, without times and random names: the same words, the same write. Of events only
    /// the reason counts.
    #[must_use]
    pub fn likeness(&self, body: &[u8]) -> String {
        let mut content = serde_json::from_slice(body).unwrap_or(Value::Null);
        if self.resource == "events" {
            return format!("{} events {}", self.verb, content["reason"]);
        }
        forget_times(&mut content);
        format!("{self} {content}")
    }
}

/// Times, and with them the numbers that count writes.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("resourceVersion");
            fields.values_mut().for_each(forget_times);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        Value::String(text) if is_time(text) => *value = Value::Null,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `2026-11-21T18:56:29Z`, with or without fractions.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes.ends_with(b"Z")
}

impl Call {
    /// By method, path, query and body.
    #[must_use]
    pub fn of(method: &str, path: &str, query: &str, body: &[u8]) -> Self {
        let (resource, name) = target(path);
        if method == "GET" {
            let is_watch = query.split('&').any(|p| p == "watch=true" || p == "watch=1");
            return match (is_watch, name) {
                (true, _) => Self::Watch,
                (false, None) => Self::List(key(path, query)),
                (false, Some(_)) => Self::Look,
            };
        }
        let name = name.or_else(|| {
            let object: Value = serde_json::from_slice(body).ok()?;
            Some(object["metadata"]["name"].as_str()?.to_owned())
        });
        let name = name.unwrap_or_default();
        Self::Write(Write { verb: method.to_owned(), resource, name })
    }
}

/// What is asked for without the version it should have.
fn key(path: &str, query: &str) -> String {
    let is_kept = |part: &&str| !BESIDE_THE_POINT.contains(&part.split('=').next().unwrap_or(part));
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    format!("{path}?{}", kept.join("&"))
}

/// Plural with subresource, and the name if there is one.
fn target(path: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts.first() {
        Some(&"api") => parts.get(2..),
        Some(&"apis") => parts.get(3..),
        _ => None,
    };
    let rest = match rest.unwrap_or_default() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    match rest {
        [] => (path.to_owned(), Some(String::new())),
        [resource] => ((*resource).to_owned(), None),
        [resource, name] => ((*resource).to_owned(), Some((*name).to_owned())),
        [resource, name, sub @ ..] => {
            (format!("{resource}/{}", sub.join("/")), Some((*name).to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(verb: &str, resource: &str, name: &str) -> Call {
        Call::Write(Write { verb: verb.into(), resource: resource.into(), name: name.into() })
    }

    #[test]
    fn writes_have_a_verb_a_resource_and_a_name() {
        let status = "/apis/understudy.dev/v1alpha1/namespaces/n/activestandbypairs/orders/status";
        let patched = Call::of("PATCH", status, "fieldManager=m", b"{}");
        assert_eq!(patched, write("PATCH", "activestandbypairs/status", "orders"));
        let body = br#"{"metadata":{"name":"orders-authority"}}"#;
        let made = Call::of("POST", "/apis/coordination.k8s.io/v1/namespaces/n/leases", "", body);
        assert_eq!(made, write("POST", "leases", "orders-authority"));
    }

    #[test]
    fn a_list_is_known_by_what_it_lists() {
        let list = |query| Call::of("GET", "/api/v1/namespaces/n/pods", query, b"");
        assert_eq!(list("limit=500&labelSelector=a"), list("labelSelector=a&resourceVersion=0"));
        assert_ne!(list("labelSelector=a"), list("labelSelector=b"));
        assert_eq!(list("watch=true&resourceVersion=7"), Call::Watch);
    }

    #[test]
    fn the_same_words_at_another_time_are_the_same_write() {
        let status =
            Write { verb: "PATCH".into(), resource: "pairs/status".into(), name: "a".into() };
        let at = |second: u32, phase: &str| {
            let time = format!("2026-11-21T18:56:{second}Z");
            let body = serde_json::json!({"status": {"since": time, "phase": phase}});
            status.likeness(body.to_string().as_bytes())
        };
        assert_eq!(at(10, "Normal"), at(11, "Normal"));
        assert_ne!(at(10, "Normal"), at(10, "BothDown"));
    }

    #[test]
    fn reading_one_object_is_a_look() {
        assert_eq!(Call::of("GET", "/api/v1/namespaces/n/secrets/s", "", b""), Call::Look);
        assert_eq!(
            Call::of("GET", "/apis/storage.k8s.io/v1/storageclasses/fast", "", b""),
            Call::Look
        );
        assert_eq!(Call::of("GET", "/version", "", b""), Call::Look);
    }
}
