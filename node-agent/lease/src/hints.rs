//! The watch of the Lease: hints that something changed, as fast as the API server tells.
//!
//! A hint is never proof of the present: a watch may lag or die silently. Expiry is judged only after a
//! consistent read (R4), so a broken watch costs time and nothing else.

use crate::{
    AuthorityLease, ReadError, Timeouts, Versioned, authority_lease::versioned, boot_time,
    outcome::classify_read,
};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{WatchEvent, WatchParams};
use std::time::Duration;

/// First pause after a failed watch; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: half the shortest D, so that hints come back soon after the API server does.
const PAUSE_MAX: Duration = Duration::from_millis(1500);

enum Stage {
    /// Read once, then watch from there.
    Begin { pause: Duration },
    /// Wait, then begin again.
    Pause { pause: Duration },
    /// Follow the events.
    Follow { events: BoxStream<'static, kube::Result<WatchEvent<Lease>>> },
}

impl AuthorityLease {
    /// Every version that this process gets to see, the present one first. Never ends; an error is
    /// followed by a pause and a new beginning.
    pub fn watch(&self) -> impl Stream<Item = Result<Versioned, ReadError>> + Send + 'static {
        let lease = self.clone();
        stream::unfold(Stage::Begin { pause: PAUSE_MIN }, move |stage| {
            let lease = lease.clone();
            async move { Some(lease.next_hint(stage).await) }
        })
    }

    async fn next_hint(&self, mut stage: Stage) -> (Result<Versioned, ReadError>, Stage) {
        loop {
            stage = match stage {
                Stage::Pause { pause } => {
                    tokio::time::sleep(pause).await;
                    Stage::Begin { pause: (pause * 2).min(PAUSE_MAX) }
                }
                Stage::Begin { pause } => match self.begin().await {
                    Ok((first, events)) => return (Ok(first), Stage::Follow { events }),
                    Err(error) => return (Err(error), Stage::Pause { pause }),
                },
                Stage::Follow { mut events } => match hint_of(events.next().await) {
                    Hint::Seen(hint) => return (*hint, Stage::Follow { events }),
                    Hint::Nothing => Stage::Follow { events },
                    Hint::Over => Stage::Pause { pause: PAUSE_MIN },
                },
            }
        }
    }

    async fn begin(
        &self,
    ) -> Result<(Versioned, BoxStream<'static, kube::Result<WatchEvent<Lease>>>), ReadError> {
        let first = self.read().await?;
        // The field selector lets a Role with `resourceNames` allow the watch.
        let params = WatchParams::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(Timeouts::WATCH_SECONDS);
        let events = self
            .watched
            .watch(&params, first.version.resource_version())
            .await
            .map_err(classify_read)?;
        Ok((first, events.boxed()))
    }
}

enum Hint {
    Seen(Box<Result<Versioned, ReadError>>),
    Nothing,
    Over,
}

fn hint_of(event: Option<kube::Result<WatchEvent<Lease>>>) -> Hint {
    match event {
        Some(Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease))) => {
            Hint::Seen(Box::new(versioned(lease, boot_time())))
        }
        Some(Ok(WatchEvent::Deleted(_))) => Hint::Seen(Box::new(Err(ReadError::Absent))),
        Some(Ok(WatchEvent::Bookmark(_))) => Hint::Nothing,
        // The request's time is over, the connection broke, or the version is too old: begin again.
        None | Some(Ok(WatchEvent::Error(_)) | Err(_)) => Hint::Over,
    }
}
