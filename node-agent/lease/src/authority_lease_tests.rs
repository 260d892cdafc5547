//! Tests of the pair's Lease against an API server in memory and against real sockets.

use super::*;
use crate::testing::{FakeApi, Fault};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use understudy_authority::{Holder, Voter};
use understudy_types::{Dbid, Incarnation, MemberName, StoreId};
use uuid::Uuid;

const NAME: &str = "orders-authority";

fn timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(500),
        transfer: Duration::from_millis(500),
        whole: Duration::from_millis(700),
    }
}

fn lease_on(api: &FakeApi) -> AuthorityLease {
    AuthorityLease::with_client(api.client(), "ns", NAME, timeouts())
}

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn held(record: &LeaseRecord) -> LeaseRecord {
    let store = StoreId(Uuid::from_u128(7));
    let incarnation = Incarnation { start: 1, id: Uuid::from_u128(1) };
    LeaseRecord {
        dbid: Some(Dbid(Uuid::from_u128(1))),
        epoch: record.epoch.next(),
        state: LeaseState::Held,
        holder: Some(Holder { member: member("orders-1"), store, incarnation }),
        voters: vec![Voter { member: member("orders-1"), store }],
        ..record.successor()
    }
}

async fn created(lease: &AuthorityLease) -> Versioned {
    let labels = BTreeMap::from([("understudy.dev/pair".to_owned(), "orders".to_owned())]);
    match lease.create(&LeaseRecord::uninitialised(4000), labels).await {
        CreateOutcome::Created(made) => made,
        other => panic!("not created: {other:?}"),
    }
}

async fn written(lease: &AuthorityLease, base: &Versioned, record: &LeaseRecord) -> Versioned {
    match lease.write(&base.version, record).await {
        WriteOutcome::Confirmed(next) => next,
        other => panic!("not confirmed: {other:?}"),
    }
}

#[tokio::test]
async fn a_written_record_is_read_back_and_mirrored_for_people() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    assert!(matches!(lease.read().await, Err(ReadError::Absent)));
    let made = created(&lease).await;
    assert_eq!(api.lease().unwrap()["metadata"]["finalizers"][0], FINALIZER);

    let record = held(&made.record);
    let next = written(&lease, &made, &record).await;
    assert!(made.seen <= next.sent && next.sent <= next.seen);
    let read = lease.read().await.unwrap();
    assert_eq!((read.record, &read.version), (record, &next.version));
    assert_eq!(read.asked_holder, None);
    let spec = api.spec();
    assert_eq!(spec["holderIdentity"], "orders-1");
    assert_eq!(spec["leaseTransitions"], 1);
    assert_eq!(spec["leaseDurationSeconds"], 4);
    let labels = &api.lease().unwrap()["metadata"]["labels"];
    assert_eq!(labels["understudy.dev/pair"], "orders", "a write lost a label");

    let released = LeaseRecord { state: LeaseState::Released, ..next.record.successor() };
    written(&lease, &next, &released).await;
    assert!(api.spec()["holderIdentity"].is_null());
}

#[tokio::test]
async fn a_second_creation_finds_the_first() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    created(&lease).await;
    let again = lease.create(&LeaseRecord::uninitialised(4000), BTreeMap::new()).await;
    assert!(matches!(again, CreateOutcome::Exists));
}

#[tokio::test]
async fn a_stale_version_conflicts_and_is_not_tried_again() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let stale = created(&lease).await;
    written(&lease, &stale, &held(&stale.record)).await;
    let before = (api.requests(), api.lease());
    assert!(matches!(
        lease.write(&stale.version, &held(&stale.record)).await,
        WriteOutcome::Conflict
    ));
    assert_eq!((api.requests(), api.lease()), (before.0 + 1, before.1));
}

#[tokio::test]
async fn a_record_that_does_not_follow_its_base_is_refused_before_it_is_sent() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let made = created(&lease).await;
    let base = written(&lease, &made, &held(&made.record)).await;
    let requests = api.requests();
    let next = base.record.successor();
    let older_epoch = LeaseRecord { epoch: Epoch(0), ..next.clone() };
    let skipped = LeaseRecord { seq: next.seq + 1, ..next };
    for record in [&base.record, &older_epoch, &skipped] {
        assert!(matches!(
            lease.write(&base.version, record).await,
            WriteOutcome::Refused(NotWritten::NotTheNext { .. })
        ));
    }
    assert_eq!(api.requests(), requests);
}

#[tokio::test]
async fn every_answer_is_sorted_into_applied_or_not_or_doubt() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let base = created(&lease).await;
    let record = held(&base.record);
    for fault in [Fault::NoConnection, Fault::Status(403), Fault::Status(422), Fault::Status(429)] {
        api.fail_next(fault);
        let outcome = lease.write(&base.version, &record).await;
        assert!(matches!(outcome, WriteOutcome::Refused(_)), "{fault:?} gave {outcome:?}");
    }
    for fault in [Fault::Status(500), Fault::Status(503), Fault::Status(504)] {
        api.fail_next(fault);
        let outcome = lease.write(&base.version, &record).await;
        assert!(matches!(outcome, WriteOutcome::Unknown(_)), "{fault:?} gave {outcome:?}");
    }
    let requests = api.requests();
    assert_eq!(requests, 8, "something was tried again");
    // Still the base: none of the above was applied.
    assert_eq!(lease.read().await.unwrap().version, base.version);
}

#[tokio::test]
async fn an_applied_write_without_an_answer_is_in_doubt() {
    for fault in [Fault::AnswerLost, Fault::AnswerLate] {
        let api = FakeApi::empty();
        let lease = lease_on(&api);
        let base = created(&lease).await;
        let record = held(&base.record);
        api.fail_next(fault);
        let outcome = lease.write(&base.version, &record).await;
        assert!(matches!(outcome, WriteOutcome::Unknown(_)), "{fault:?} gave {outcome:?}");
        assert_eq!(lease.read().await.unwrap().record, record);
    }
}

#[tokio::test]
async fn a_rewritten_record_is_never_confirmed() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let base = created(&lease).await;
    api.fail_next(Fault::Rewritten);
    let outcome = lease.write(&base.version, &held(&base.record)).await;
    assert!(matches!(outcome, WriteOutcome::Unknown(Doubt::Altered(_))), "{outcome:?}");
    assert!(matches!(lease.read().await, Err(ReadError::Bare(_))));
}

#[tokio::test]
async fn a_lease_that_vanished_is_absent_and_not_in_doubt() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let base = created(&lease).await;
    lease.remove(&base.version).await.unwrap();
    assert!(api.lease().is_none());
    assert!(matches!(
        lease.write(&base.version, &held(&base.record)).await,
        WriteOutcome::Refused(NotWritten::Absent)
    ));
    lease.remove(&base.version).await.unwrap();
}

#[tokio::test]
async fn a_removal_of_a_changed_lease_is_refused() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let base = created(&lease).await;
    written(&lease, &base, &held(&base.record)).await;
    assert!(matches!(lease.remove(&base.version).await, Err(RemoveError::Changed)));
    assert_eq!(api.lease().unwrap()["metadata"]["finalizers"][0], FINALIZER);
}

#[tokio::test]
async fn a_persons_edits_are_seen_and_change_no_record() {
    let api = FakeApi::empty();
    let lease = lease_on(&api);
    let made = created(&lease).await;
    let base = written(&lease, &made, &held(&made.record)).await;
    api.edit(|lease| lease["spec"]["holderIdentity"] = "orders-2".into());
    api.edit(|lease| lease["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    let read = lease.read().await.unwrap();
    assert_eq!(read.record, base.record);
    assert_ne!(read.version, base.version);
    assert_eq!(read.asked_holder.as_deref(), Some("orders-2"));
    assert!(read.is_being_deleted);
    api.edit(|lease| lease["metadata"]["annotations"][ANNOTATION] = "{}".into());
    assert!(matches!(lease.read().await, Err(ReadError::Damaged(_))));
}

/// The real transport over a server that does `with_connection` to each connection.
async fn outcome_on_the_wire<F>(with_connection: impl Fn(TcpStream) -> F) -> WriteOutcome
where
    F: Future<Output = ()>,
{
    let api = FakeApi::empty();
    let base = created(&lease_on(&api)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let config = kube::Config::new(url);
    let lease = AuthorityLease::connect(config, "ns", NAME, timeouts()).unwrap();
    let record = held(&base.record);
    let write = lease.write(&base.version, &record);
    let serve = async {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            with_connection(connection).await;
        }
    };
    tokio::select! {
        outcome = write => outcome,
        () = serve => unreachable!("serves for ever"),
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let api = FakeApi::empty();
    let base = created(&lease_on(&api)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let lease = AuthorityLease::connect(kube::Config::new(url), "ns", NAME, timeouts()).unwrap();
    let outcome = lease.write(&base.version, &held(&base.record)).await;
    assert!(
        matches!(outcome, WriteOutcome::Refused(NotWritten::NotSent(_))),
        "nobody listened, and it was {outcome:?}"
    );
    assert!(lease.read().await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_request_that_was_sent_and_not_answered_is_in_doubt() {
    let silent = outcome_on_the_wire(|mut connection| async move {
        let mut taken = [0; 64];
        connection.read_exact(&mut taken).await.unwrap();
        std::future::pending::<()>().await;
    });
    assert!(matches!(silent.await, WriteOutcome::Unknown(_)));

    let cut = outcome_on_the_wire(|mut connection| async move {
        let mut taken = [0; 64];
        connection.read_exact(&mut taken).await.unwrap();
    });
    assert!(matches!(cut.await, WriteOutcome::Unknown(Doubt::NoAnswer(_))));
}

#[tokio::test]
async fn an_unreadable_answer_is_in_doubt() {
    for answer in ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{]"] {
        let outcome = outcome_on_the_wire(|mut connection| async move {
            let mut taken = [0; 64];
            connection.read_exact(&mut taken).await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, WriteOutcome::Unknown(_)), "{answer} gave {outcome:?}");
    }
}
