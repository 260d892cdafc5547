//! What became of a request to the API server, sorted by what the caller has to do next.
//!
//! **Invariant.** `NotWritten` is said only where it is proven that the write has not been applied and
//! never will be: the connection was never made, or the API server itself refused. A gateway's answer,
//! a 5xx (etcd may have applied it), a cut connection, a late or unreadable answer are a [`Doubt`].

use crate::Versioned;
use hyper_util::client::legacy;
use std::{error::Error as StdError, time::Duration};
use understudy_authority::RecordError;
use understudy_types::Epoch;

/// What became of one write of the Lease.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a request, moved once")]
pub enum WriteOutcome {
    /// Applied; the version is the one that this very write made.
    Confirmed(Versioned),
    /// Not applied: the Lease is no longer what was judged. Read, and decide again.
    Conflict,
    /// Not applied, and it never will be.
    Refused(NotWritten),
    /// May have been applied, or may land later while its base version is current. Reading the Lease
    /// does not end the doubt unless a version after the base is seen (R15, A1.18).
    Unknown(Doubt),
}

/// Why a write was certainly not applied.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// The record does not follow the one it is based on; nothing was sent.
    #[error(
        "the record ({record_epoch}, {record_seq}) does not follow the one judged \
         ({base_epoch}, {base_seq}): seq must be one higher and the epoch not lower"
    )]
    NotTheNext {
        /// Epoch on the base version.
        base_epoch: Epoch,
        /// Its sequence number.
        base_seq: u64,
        /// Epoch that was to be written.
        record_epoch: Epoch,
        /// Its sequence number.
        record_seq: u64,
    },
    /// The request could not be sent; trying again later is right.
    #[error("the request to the API server was not sent")]
    NotSent(#[source] Box<kube::Error>),
    /// There is no such Lease: R21.
    #[error("the Lease does not exist")]
    Absent,
    /// The API server answered no.
    #[error("the API server refused with {code}: {message}")]
    Status {
        /// HTTP status: 401 and 403 want other credentials or rights, 422 another object, 429 patience.
        code: u16,
        /// The server's words.
        message: String,
    },
}

/// Why it is not known whether a write was applied.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// Sent, and the answer did not come whole.
    #[error("the request was sent and its answer did not come")]
    NoAnswer(#[source] Box<kube::Error>),
    /// No answer within the time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// An answer that does not say whether the write was applied.
    #[error("the API server or something before it answered {code}: {message}")]
    Status {
        /// HTTP status.
        code: u16,
        /// The words.
        message: String,
    },
    /// Applied, but the stored record is not the one sent: something rewrites the Lease.
    #[error("the API server stored another record than the one sent: {0}")]
    Altered(String),
}

/// Why the Lease could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such Lease: R21.
    #[error("the Lease does not exist")]
    Absent,
    /// The Lease carries no authority record: a person removed the annotation, or it is another's.
    #[error("the Lease carries no annotation `{0}`; restore it or delete the Lease by runbook R21")]
    Bare(&'static str),
    /// The annotation is not a record.
    #[error("the Lease cannot be understood")]
    Damaged(#[source] RecordError),
    /// Not allowed: rights or credentials are missing.
    #[error("reading the Lease is not allowed: {0}")]
    Forbidden(String),
    /// No usable answer; transient.
    #[error("the API server gave no usable answer")]
    Unavailable(#[source] Box<kube::Error>),
    /// No answer within the time; transient.
    #[error("the API server gave no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl ReadError {
    /// Whether waiting may help by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ReadError::Unavailable(_) | ReadError::TimedOut(_) => true,
            ReadError::Absent
            | ReadError::Bare(_)
            | ReadError::Damaged(_)
            | ReadError::Forbidden(_) => false,
        }
    }
}

/// A failed write that is not a conflict: certainly not applied, or in doubt.
#[derive(Debug)]
pub(crate) enum Failure {
    Conflict,
    Refused(NotWritten),
    Unknown(Doubt),
}

/// Sorts the error of a write.
pub(crate) fn classify_write(error: kube::Error) -> Failure {
    if let kube::Error::Api(status) = &error {
        return classify_status(status.code, status.message.clone());
    }
    if never_sent(&error) {
        Failure::Refused(NotWritten::NotSent(Box::new(error)))
    } else {
        Failure::Unknown(Doubt::NoAnswer(Box::new(error)))
    }
}

fn classify_status(code: u16, message: String) -> Failure {
    match code {
        409 => Failure::Conflict,
        404 => Failure::Refused(NotWritten::Absent),
        // Everything that the API server says before it touches its storage.
        400 | 401 | 403 | 405 | 406 | 413 | 415 | 422 | 429 => {
            Failure::Refused(NotWritten::Status { code, message })
        }
        _ => Failure::Unknown(Doubt::Status { code, message }),
    }
}

/// Sorts the error of a read.
pub(crate) fn classify_read(error: kube::Error) -> ReadError {
    match &error {
        kube::Error::Api(status) => match status.code {
            404 => ReadError::Absent,
            401 | 403 => ReadError::Forbidden(status.message.clone()),
            _ => ReadError::Unavailable(Box::new(error)),
        },
        _ => ReadError::Unavailable(Box::new(error)),
    }
}

/// Whether it is proven that not one byte of the request was sent. kube's errors are many and grow with
/// its features; only those that arise before the transport are listed, all others are doubt.
fn never_sent(error: &kube::Error) -> bool {
    match error {
        kube::Error::BuildRequest(_)
        | kube::Error::HttpError(_)
        | kube::Error::Auth(_)
        | kube::Error::InferConfig(_)
        | kube::Error::InferKubeconfig(_)
        | kube::Error::RustlsTls(_)
        | kube::Error::TlsRequired => true,
        kube::Error::Service(inner) => failed_to_connect(inner.as_ref()),
        _ => false,
    }
}

fn failed_to_connect(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            return error.is_connect();
        }
        // The credentials' layer failed before it called the transport.
        if error.downcast_ref::<kube::client::AuthError>().is_some() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_servers_own_refusals_are_refusals() {
        for code in [400, 401, 403, 422, 429] {
            assert!(
                matches!(classify_status(code, String::new()), Failure::Refused(_)),
                "{code} was not a refusal"
            );
        }
        for code in [200, 302, 408, 500, 502, 503, 504] {
            assert!(
                matches!(classify_status(code, String::new()), Failure::Unknown(_)),
                "{code} was not a doubt"
            );
        }
        assert!(matches!(classify_status(409, String::new()), Failure::Conflict));
    }
}
