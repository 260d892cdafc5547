//! The replication port against real sockets and TLS on loopback.

use super::{
    testing::{TestPair, TestTls, attach, epoch, incarnation, name, target},
    *,
};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use understudy_replication::{Attached, FRAME_BYTES_MAX, Message};
use understudy_types::{Epoch, EpochHistory, Lsn, RunningHash, StoreId};
use uuid::Uuid;

fn follow() -> Attached {
    Attached::Follow {
        epoch: epoch(1),
        feeder: incarnation(3),
        fork: Lsn(10),
        hash: RunningHash(77),
        history: EpochHistory::default(),
    }
}

fn frame(lsn: u64) -> Message {
    let (first, last) = (Lsn(lsn), Lsn(lsn));
    Message::Frame { epoch: Epoch(1), first, last, acknowledged: Lsn(lsn - 1) }
}

fn ack(lsn: u64) -> Message {
    Message::Ack {
        epoch: Epoch(1),
        incarnation: incarnation(1),
        store: StoreId(Uuid::from_u128(5)),
        received: Lsn(lsn),
        durable: Lsn(lsn),
        applied: Lsn(lsn),
    }
}

async fn listen(tls: Arc<TestTls>) -> (Listener, u16) {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await.unwrap();
    let port = listener.local_address().unwrap().port();
    (listener, port)
}

async fn follower(listener: &mut Listener) -> FollowerWaiting {
    match listener.accept().await {
        Incoming::Follower(waiting) => waiting,
        Incoming::Duplicate(waiting) => panic!("{} wants a duplicate", waiting.identity),
    }
}

/// Feeder's end and follower's end of one attached link.
async fn linked() -> (Link, Link) {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = pair.member("orders-2");
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let (feeder, dialed) = tokio::join!(
        async { follower(&mut listener).await.answer(&follow()).await.unwrap() },
        dial(&target, &*tls, &wish),
    );
    (feeder, dialed.unwrap().1)
}

#[tokio::test]
async fn a_follower_attaches_and_both_sides_talk() {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = pair.member("orders-2");
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let accept = async {
        let waiting = follower(&mut listener).await;
        assert_eq!(waiting.identity, name("orders-2"));
        assert_eq!(waiting.attach, wish);
        waiting.answer(&follow()).await.unwrap()
    };
    let (feeder, dialed) = tokio::join!(accept, dial(&target, &*tls, &wish));
    let (attached, follower) = dialed.unwrap();
    assert_eq!(attached, follow());
    assert_eq!(follower.peer(), &name("orders-1"));
    let ((mut from_follower, mut to_follower), (mut from_feeder, mut to_feeder)) =
        (feeder.split(), follower.split());
    to_follower.send(&frame(11), b"record 11").unwrap();
    to_follower.send(&frame(12), b"record 12").unwrap();
    assert_eq!(to_follower.try_flush().unwrap(), Flushed::Everything);
    let mut batch = Vec::new();
    from_feeder.receive(&mut batch).await.unwrap();
    // One flush arrives as one batch.
    assert_eq!(batch.len(), 2);
    assert_eq!(
        batch[1],
        Received { message: frame(12), records: Bytes::from_static(b"record 12") }
    );
    to_feeder.send(&ack(12), &[]).unwrap();
    to_feeder.flush().await.unwrap();
    batch.clear();
    from_follower.receive(&mut batch).await.unwrap();
    assert_eq!(batch, [Received { message: ack(12), records: Bytes::new() }]);
}

#[tokio::test]
async fn another_pairs_certificate_is_refused_on_both_sides() {
    let (pair, stranger) = (TestPair::new(), TestPair::new());
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let tls = stranger.member("orders-2");
    let error = tokio::select! {
        incoming = listener.accept() => panic!("accepted {incoming:?}"),
        dialed = dial(&target, &*tls, &wish) => dialed.unwrap_err(),
    };
    assert!(matches!(error, PeerError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_client_of_another_pair_that_trusts_this_one_is_refused() {
    // The client does not care who the server is; the server must.
    let (pair, stranger) = (TestPair::new(), TestPair::new());
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = Mixed { own: stranger.member("orders-2"), trusting: pair.member("orders-2") };
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    tokio::select! {
        incoming = listener.accept() => panic!("accepted {incoming:?}"),
        dialed = dial(&target, &tls, &wish) => { dialed.unwrap_err(); }
    }
}

/// Shows a certificate of another pair but trusts the right authority.
struct Mixed {
    own: Arc<TestTls>,
    trusting: Arc<TestTls>,
}

impl LinkTls for Mixed {
    fn server(&self) -> Arc<ServerConfig> {
        self.own.server()
    }

    fn client(&self, to: &MemberName) -> Arc<ClientConfig> {
        let mut config = (*self.trusting.client(to)).clone();
        config.client_auth_cert_resolver = self.own.client(to).client_auth_cert_resolver.clone();
        Arc::new(config)
    }

    fn member(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<MemberName, String> {
        self.trusting.member(certificates)
    }
}

#[tokio::test]
async fn a_member_that_says_to_be_another_is_refused() {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = pair.member("orders-s1");
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let attached = tokio::select! {
        incoming = listener.accept() => panic!("accepted {incoming:?}"),
        dialed = dial(&target, &*tls, &wish) => dialed.unwrap().0,
    };
    let Attached::Refused { reason, .. } = attached else { panic!("{attached:?}") };
    assert!(reason.contains("orders-s1") && reason.contains("orders-2"), "{reason}");
}

#[tokio::test]
async fn a_member_dialed_in_the_place_of_another_is_refused() {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-3")).await;
    let tls = pair.member("orders-2");
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let error = tokio::select! {
        incoming = listener.accept() => panic!("accepted {incoming:?}"),
        dialed = dial(&target, &*tls, &wish) => dialed.unwrap_err(),
    };
    assert!(matches!(error, PeerError::WrongMember { .. }), "{error}");
}

#[tokio::test]
async fn another_version_of_the_protocol_is_refused_in_words() {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = pair.member("orders-2");
    let mut wish = attach("orders-2");
    wish.version += 1;
    let target = target("orders-1", port);
    let attached = tokio::select! {
        incoming = listener.accept() => panic!("accepted {incoming:?}"),
        dialed = dial(&target, &*tls, &wish) => dialed.unwrap().0,
    };
    let Attached::Refused { reason, .. } = attached else { panic!("{attached:?}") };
    assert!(reason.contains("version 2"), "{reason}");
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_nobody() {
    let pair = TestPair::new();
    let (mut listener, port) = listen(pair.member("orders-1")).await;
    let tls = pair.member("orders-2");
    let (target, wish) = (target("orders-1", port), attach("orders-2"));
    let strangers = async {
        for garbage in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 600], &[0x16, 3, 1, 0xff, 0xff], b""]
        {
            let mut tcp = TcpStream::connect(("localhost", port)).await.unwrap();
            tcp.write_all(garbage).await.unwrap();
            tcp.shutdown().await.unwrap();
            // The port closes the connection; whether with an alert or a reset does not matter.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
        // Half a greeting, then silence: held open while a member attaches.
        let mut silent = TcpStream::connect(("localhost", port)).await.unwrap();
        silent.write_all(&[0x16, 3]).await.unwrap();
        let dialed = dial(&target, &*tls, &wish).await.unwrap();
        drop(silent);
        dialed
    };
    let accept = async { follower(&mut listener).await.answer(&follow()).await.unwrap() };
    let (_, (attached, _)) = tokio::join!(accept, strangers);
    assert_eq!(attached, follow());
}

#[tokio::test]
async fn garbage_inside_tls_is_refused() {
    let pair = TestPair::new();
    let tls = pair.member("orders-2");
    for garbage in [
        &b"SSH-2.0-OpenSSH"[..],
        b"ustudy\x00\x01\x01\x00\x00\x00\x63",
        b"ustudy\x00\x01\xff\xff\xff\xff\x01",
    ] {
        let (mut listener, port) = listen(pair.member("orders-1")).await;
        let tcp = TcpStream::connect(("localhost", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.client(&name("orders-1")));
        let server = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let client = async {
            let mut stream = connector.connect(server, tcp).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            // The listener hangs up.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        tokio::select! {
            incoming = listener.accept() => panic!("accepted {incoming:?}"),
            () = client => {}
        }
    }
}

#[tokio::test]
async fn a_bad_frame_ends_the_link_with_its_reason() {
    let (mut feeder, mut follower) = linked().await;
    feeder.writer.queue_unframed(&[0xff, 0xff, 0xff, 0xff, 3, 1, 2, 3]);
    feeder.writer.flush().await.unwrap();
    let error = follower.reader.receive(&mut Vec::new()).await.unwrap_err();
    let LinkError::Frame { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, super::error::FrameError::TooLong { .. }), "{source}");
}

#[tokio::test]
async fn the_end_of_the_peer_ends_the_link() {
    let (feeder, mut follower) = linked().await;
    feeder.writer.close();
    drop(feeder.reader);
    let error = follower.reader.receive(&mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, LinkError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn what_came_before_the_end_is_still_delivered() {
    let (mut feeder, mut follower) = linked().await;
    feeder.writer.send(&frame(11), b"last words").unwrap();
    feeder.writer.try_flush().unwrap();
    drop(feeder);
    let mut batch = Vec::new();
    follower.reader.receive(&mut batch).await.unwrap();
    assert_eq!(&batch[0].records[..], b"last words");
    follower.reader.receive(&mut batch).await.unwrap_err();
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_noticed_and_heartbeats_still_queue() {
    let (mut feeder, mut follower) = linked().await;
    let records = vec![7_u8; FRAME_BYTES_MAX];
    let mut taken = 0_u64;
    let full = loop {
        match feeder.writer.send(&frame(taken + 1), &records) {
            Ok(()) => taken += 1,
            Err(full) => break full,
        }
        feeder.writer.try_flush().unwrap();
        assert!(taken < 100, "the queue has no bound");
    };
    assert_eq!(feeder.writer.try_flush().unwrap(), Flushed::Blocked);
    assert!(full.queued_bytes <= QUEUE_BYTES_MAX + 1024, "{full}");
    assert!(feeder.writer.room_bytes() < FRAME_BYTES_MAX);
    feeder.writer.send(&ack(1), &[]).unwrap();
    // The peer reads again: everything arrives, in order.
    let mut batch = Vec::new();
    let receive = async {
        while batch.len() <= usize::try_from(taken).unwrap() {
            follower.reader.receive(&mut batch).await.unwrap();
        }
    };
    let (flushed, ()) = tokio::join!(feeder.writer.flush(), receive);
    flushed.unwrap();
    for (received, lsn) in batch.iter().zip(1..=taken) {
        assert_eq!(received.message, frame(lsn));
        assert_eq!(received.records, records);
    }
    assert_eq!(batch.last().unwrap().message, ack(1));
    assert_eq!(feeder.writer.queued_bytes(), 0);
}

#[tokio::test]
async fn a_queue_that_never_drains_whole_does_not_grow() {
    let (mut feeder, mut follower) = linked().await;
    let records = vec![5_u8; 1 << 20];
    let (mut sent, mut batch) = (0, Vec::new());
    while batch.len() < 100 {
        while feeder.writer.room_bytes() > 2 * records.len() && sent < 100 {
            sent += 1;
            feeder.writer.send(&frame(sent), &records).unwrap();
        }
        let blocked = feeder.writer.try_flush().unwrap() == Flushed::Blocked;
        let held = feeder.writer.queue.capacity();
        assert!(held < 4 * QUEUE_BYTES_MAX, "{held} bytes are held after {sent} frames");
        let writable = feeder.writer.writable();
        tokio::select! {
            received = follower.reader.receive(&mut batch) => received.unwrap(),
            () = writable.wait(), if blocked => {}
        }
        batch.iter_mut().for_each(|received| received.records = Bytes::new());
    }
}

#[tokio::test]
async fn one_record_longer_than_a_frame_passes_alone() {
    let (mut feeder, mut follower) = linked().await;
    let record = vec![3_u8; QUEUE_BYTES_MAX + 12_345];
    feeder.writer.send(&frame(1), &record).unwrap();
    feeder.writer.send(&frame(2), &[1]).unwrap_err();
    let mut batch = Vec::new();
    let (flushed, received) =
        tokio::join!(feeder.writer.flush(), follower.reader.receive(&mut batch));
    flushed.unwrap();
    received.unwrap();
    assert!(batch[0].records == record);
}

#[tokio::test]
async fn a_dropped_receive_loses_nothing() {
    let (mut feeder, mut follower) = linked().await;
    let (mut batch, mut sent) = (Vec::new(), 0_u64);
    while batch.len() < 500 {
        if sent < 500 {
            sent += 1;
            feeder.writer.send(&frame(sent), &vec![sent as u8; 1 + sent as usize * 37]).unwrap();
            feeder.writer.try_flush().unwrap();
        }
        // Mostly polled once and dropped in the middle of a frame.
        tokio::select! {
            biased;
            received = follower.reader.receive(&mut batch) => received.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    }
    for (received, lsn) in batch.iter().zip(1..) {
        assert_eq!(received.message, frame(lsn));
        assert_eq!(received.records.len(), 1 + lsn as usize * 37);
    }
}

#[test]
fn a_link_moves_to_another_runtime_with_all_that_it_holds() {
    let first = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut feeder, mut follower) = first.block_on(linked());
    first.block_on(async {
        feeder.writer.send(&frame(1), b"one").unwrap();
        feeder.writer.send(&frame(2), b"two").unwrap();
        feeder.writer.flush().await.unwrap();
        // One message is read, the other stays in the buffer or the socket.
        let mut batch = Vec::new();
        follower.reader.receive(&mut batch).await.unwrap();
        feeder.writer.send(&frame(3), b"three").unwrap();
        feeder.writer.flush().await.unwrap();
        follower.writer.send(&ack(2), &[]).unwrap();
    });
    let portable = {
        let _entered = first.enter();
        follower.into_portable().unwrap()
    };
    let second = std::thread::spawn(move || {
        let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        second.block_on(async {
            let mut follower = portable.into_link().unwrap();
            follower.writer.flush().await.unwrap();
            let mut batch = Vec::new();
            follower.reader.receive(&mut batch).await.unwrap();
            batch.pop().unwrap()
        })
    });
    let mut batch = Vec::new();
    first.block_on(feeder.reader.receive(&mut batch)).unwrap();
    assert_eq!(batch[0].message, ack(2));
    assert_eq!(second.join().unwrap().message, frame(3));
}

/// How long one record takes to the follower and its acknowledgement back, both ends on one
/// current-thread runtime. Printed, never judged: `cargo test round_trip -- --nocapture`.
#[tokio::test(flavor = "current_thread")]
async fn round_trip_of_one_record_is_measured() {
    const WARM: u64 = 2_000;
    const ROUNDS: u64 = 20_000;
    let (mut feeder, mut follower) = linked().await;
    let echo = tokio::spawn(async move {
        let mut batch = Vec::new();
        while follower.reader.receive(&mut batch).await.is_ok() {
            let count = batch.len() as u64;
            batch.clear();
            follower.writer.send(&ack(count), &[]).unwrap();
            follower.writer.try_flush().unwrap();
        }
    });
    let mut batch = Vec::new();
    let mut times = Vec::new();
    for round in 1..=WARM + ROUNDS {
        let begun = std::time::Instant::now();
        feeder.writer.send(&frame(round), &[9; 96]).unwrap();
        feeder.writer.try_flush().unwrap();
        feeder.reader.receive(&mut batch).await.unwrap();
        if round > WARM {
            times.push(begun.elapsed());
        }
        assert_eq!(batch.len(), 1);
        batch.clear();
    }
    drop(feeder);
    echo.await.unwrap();
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!("frame → ack, 96-byte record: p50 {:.1} µs, p99 {:.1} µs", at(0.5), at(0.99));
    assert_eq!(times.len() as u64, ROUNDS);
}
