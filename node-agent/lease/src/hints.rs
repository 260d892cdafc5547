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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateOutcome, WriteOutcome,
        testing::{FakeApi, Fault},
    };
    use std::collections::BTreeMap;
    use understudy_authority::LeaseRecord;

    fn lease_on(api: &FakeApi) -> AuthorityLease {
        AuthorityLease::with_client(api.client(), "ns", "orders-authority", Timeouts::default())
    }

    async fn created(lease: &AuthorityLease) -> Versioned {
        match lease.create(&LeaseRecord::uninitialised(4000), BTreeMap::new()).await {
            CreateOutcome::Created(made) => made,
            other => panic!("not created: {other:?}"),
        }
    }

    async fn raised(lease: &AuthorityLease, base: &Versioned) -> Versioned {
        match lease.write(&base.version, &base.record.successor()).await {
            WriteOutcome::Confirmed(next) => next,
            other => panic!("not written: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_watch_begins_with_the_present_and_goes_on_through_ends_and_failures() {
        let api = FakeApi::empty();
        let lease = lease_on(&api);
        let first = created(&lease).await;
        let watching = FakeApi::same(&api);
        let mut hints = Box::pin(lease_on(&watching).watch());
        assert_eq!(hints.next().await.unwrap().unwrap().record, first.record);
        let second = raised(&lease, &first).await;
        // The watch that was open has ended with nothing to tell; the next beginning fails twice.
        watching.fail_next(Fault::Status(503));
        watching.fail_next(Fault::NoConnection);
        for _ in 0..2 {
            assert!(hints.next().await.unwrap().unwrap_err().is_transient());
        }
        assert_eq!(hints.next().await.unwrap().unwrap().version, second.version);
        lease.remove(&second.version).await.unwrap();
        assert!(matches!(hints.next().await.unwrap(), Err(ReadError::Absent)));
    }

    #[tokio::test]
    async fn events_between_two_reads_are_all_seen() {
        let api = FakeApi::empty();
        let lease = lease_on(&api);
        let first = created(&lease).await;
        let (_, mut events) = lease.begin().await.unwrap();
        assert!(events.next().await.is_none(), "nothing has happened since");
        let second = raised(&lease, &first).await;
        let third = raised(&lease, &second).await;
        let params = WatchParams::default().fields("metadata.name=orders-authority");
        let since = lease.watched.watch(&params, first.version.resource_version());
        let events: Vec<_> = since.await.unwrap().collect().await;
        let seen: Vec<u64> = events
            .into_iter()
            .map(|event| match hint_of(Some(event)) {
                Hint::Seen(hint) => hint.unwrap().record.seq,
                Hint::Nothing | Hint::Over => panic!("an event was lost"),
            })
            .collect();
        assert_eq!(seen, [second.record.seq, third.record.seq]);
    }
}
