//! Duplicates over real sockets and TLS between two members on loopback, with real volumes.

use super::*;
use crate::{
    datadir::{Contents, ControlFile, DataDir, StoreDir},
    peer::{
        DuplicateAnswer, DuplicateEnd, DuplicateRequest, FrameKind, Incoming, Link, LinkTls,
        Listener,
        testing::{TestPair, TestTls, epoch, incarnation, name, target},
    },
};
use parking_lot::Mutex;
use std::{
    io::Read,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use understudy_replication::FollowerKind;
use understudy_txlog::{
    CheckpointMeta, Disks, Log, LogOptions, RecordKind, disk::MemDisk, recover, write_checkpoint,
};
use understudy_types::{Dbid, Epoch, EpochBegin, EpochId, Incarnation, Lsn, RunningHash, StoreId};
use uuid::Uuid;

const DBID: Dbid = Dbid(Uuid::from_u128(77));
/// Large enough for many chunks.
const BODY_BYTES: usize = 6 << 20;

/// A source in memory.
struct TestSource {
    log: Log,
    disks: Disks,
    kept: Mutex<Vec<CheckpointFile>>,
    taken: AtomicUsize,
    first_lsn: AtomicU64,
    dbid: Mutex<Option<Dbid>>,
    epoch: Mutex<EpochId>,
    /// Called at each look at the identity: once per piece of a stream.
    watch: Mutex<Watch>,
}

type Watch = Box<dyn FnMut(&TestSource) + Send>;

/// Bytes that no compression or repetition would forgive a mistake in.
fn body(seed: u8) -> Vec<u8> {
    (0..BODY_BYTES as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed)
        .collect()
}

impl TestSource {
    fn new() -> Arc<Self> {
        let disks = Disks::one(Arc::new(MemDisk::new()));
        let recovered = recover(disks.clone(), LogOptions::default()).unwrap();
        let source = Self {
            log: recovered.log,
            disks,
            kept: Mutex::default(),
            taken: AtomicUsize::new(0),
            first_lsn: AtomicU64::new(1),
            dbid: Mutex::new(Some(DBID)),
            epoch: Mutex::new(epoch(4)),
            watch: Mutex::new(Box::new(|_| ())),
        };
        let mut appender = source.log.appender();
        let begin = EpochBegin {
            epoch: epoch(4),
            author: incarnation(4),
            previous: source.log.position(),
            hash: appender.hash(),
            lossy: false,
        };
        appender.begin_epoch(&begin).unwrap();
        drop(appender);
        source.append(9);
        Arc::new(source)
    }

    fn append(&self, count: usize) {
        let mut appender = self.log.appender();
        for _ in 0..count {
            appender.append(Epoch(4), RecordKind::Transaction, b"a row");
        }
        drop(appender);
        self.log.sync_all().unwrap();
    }

    fn checkpoint_now(&self) -> CheckpointFile {
        let lsn = self.log.end();
        let hash = self.log.hash_at(lsn).unwrap();
        let meta = CheckpointMeta { lsn, history: self.log.history(), hash, dbid: DBID };
        let body = body(lsn.0 as u8);
        let file =
            write_checkpoint(&self.disks.data, meta, &mut |out| out.write_all(&body)).unwrap();
        let mut kept = self.kept.lock();
        kept.insert(0, file.clone());
        kept.truncate(2);
        file
    }
}

impl Source for TestSource {
    fn identity(&self) -> SourceIdentity {
        // Taken out while it runs, so that it may look at the identity itself.
        let mut watch = std::mem::replace(&mut *self.watch.lock(), Box::new(|_| ()));
        watch(self);
        *self.watch.lock() = watch;
        SourceIdentity {
            dbid: *self.dbid.lock(),
            store: StoreId(Uuid::from_u128(1)),
            incarnation: incarnation(4),
            epoch: *self.epoch.lock(),
        }
    }

    fn checkpoint(&self, at: Option<Lsn>) -> Option<CheckpointFile> {
        let kept = self.kept.lock();
        kept.iter().find(|c| at.is_none_or(|at| c.meta().lsn == at)).cloned()
    }

    fn take_checkpoint(&self) -> Result<CheckpointFile, String> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(self.checkpoint_now())
    }

    fn first_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.load(Ordering::Relaxed))
    }
}

/// A member that wants a duplicate.
struct TestReceiver {
    volumes: tempfile::TempDir,
    directory: Arc<DataDir>,
    control: ControlFile,
    tls: Arc<TestTls>,
    seen: Mutex<Vec<Transferred>>,
}

impl TestReceiver {
    fn new(pair: &TestPair) -> Self {
        let volumes = tempfile::tempdir().unwrap();
        let (data, log) = (volumes.path().join("data"), volumes.path().join("log"));
        let directory = DataDir::lock(&data, &log, name("orders-2")).unwrap();
        let control = directory.create(StoreId(Uuid::from_u128(2))).unwrap().control;
        Self {
            volumes,
            directory: Arc::new(directory),
            control,
            tls: pair.member("orders-2"),
            seen: Mutex::default(),
        }
    }

    /// The store that `CURRENT` names.
    fn current(&self) -> StoreId {
        let text = std::fs::read_to_string(self.volumes.path().join("data/CURRENT")).unwrap();
        StoreId(text.lines().next().unwrap().parse().unwrap())
    }

    /// What the process after this one finds.
    fn restarted(self) -> Restarted {
        let Self { volumes, directory, control, .. } = self;
        drop(control);
        match directory.open().unwrap() {
            Contents::Present(store) => Restarted { _volumes: volumes, store },
            Contents::Empty => panic!("the volumes are empty"),
        }
    }
}

/// A member after its restart.
struct Restarted {
    _volumes: tempfile::TempDir,
    store: StoreDir,
}

impl Restarted {
    /// End of the recovered log and contents of the checkpoint.
    fn recover(&self) -> (Lsn, Vec<u8>) {
        let recovered = recover(self.store.disks(), LogOptions::default()).unwrap();
        let mut body = Vec::new();
        recovered.checkpoint.unwrap().read().unwrap().read_to_end(&mut body).unwrap();
        (recovered.end.lsn, body)
    }
}

impl Receiver for TestReceiver {
    fn tls(&self) -> &dyn LinkTls {
        &*self.tls
    }

    fn data_dir(&self) -> Arc<DataDir> {
        Arc::clone(&self.directory)
    }

    fn control(&self) -> ControlFile {
        self.control.clone()
    }

    fn incarnation(&self) -> Incarnation {
        incarnation(1)
    }

    fn kind(&self) -> FollowerKind {
        FollowerKind::Standby
    }

    fn transferred(&self, progress: Transferred) {
        self.seen.lock().push(progress);
    }
}

/// The source's port, with everything that came of its streams.
struct Port {
    port: u16,
    duplicates: Arc<Duplicates>,
    ended: Arc<Mutex<Vec<Result<Served, ServeError>>>>,
    task: JoinHandle<()>,
}

/// Above which LSNs the log is kept.
fn held(port: &Port) -> Vec<Lsn> {
    port.duplicates.holds().into_iter().map(|(_, lsn)| lsn).collect()
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(pair: &TestPair, source: &Arc<TestSource>) -> Port {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, pair.member("orders-1")).await.unwrap();
    let port = listener.local_address().unwrap().port();
    let source: Arc<dyn Source> = Arc::clone(source) as _;
    let duplicates = Arc::new(Duplicates::new(source, None));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (serving, ends) = (Arc::clone(&duplicates), Arc::clone(&ended));
    let task = tokio::spawn(async move {
        loop {
            let Incoming::Duplicate(waiting) = listener.accept().await else { continue };
            let ended = serving.serve(waiting).await;
            ends.lock().push(ended);
        }
    });
    Port { port, duplicates, ended, task }
}

/// Passes connections on and cuts each after so many bytes towards the client; `usize::MAX` never.
async fn cutting_proxy(to: u16, budgets: Vec<usize>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for mut left in budgets {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
                (client.into_split(), server.into_split());
            let up = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut client_in, &mut server_out).await;
            });
            let mut buf = vec![0; 16 * 1024];
            while left > 0 {
                let most = buf.len().min(left);
                let Ok(read @ 1..) = server_in.read(&mut buf[..most]).await else { break };
                if client_out.write_all(&buf[..read]).await.is_err() {
                    break;
                }
                left -= read;
            }
            up.abort();
        }
    });
    port
}

#[tokio::test]
async fn a_duplicate_becomes_the_store_and_keeps_the_promise() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let mut state = receiver.control.get();
    state.raise_promise(epoch(9));
    receiver.control.persist(&state).unwrap();
    let fetched = fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    assert_eq!((fetched.checkpoint.lsn, fetched.resumed_from_bytes), (Lsn(10), 0));
    assert_eq!(fetched.source, incarnation(4));
    let seen = receiver.seen.lock().clone();
    assert!(seen.is_sorted_by_key(|p| p.received_bytes));
    let last = seen.last().unwrap();
    assert_eq!(last.received_bytes, last.total_bytes);
    let restarted = receiver.restarted();
    assert_eq!(restarted.store.id, fetched.store);
    assert_eq!(restarted.store.replaces, [StoreId(Uuid::from_u128(2))]);
    let state = restarted.store.control.get();
    assert_eq!((state.dbid, state.promised), (Some(DBID), epoch(9)));
    let (end, recovered) = restarted.recover();
    assert_eq!(end, Lsn(10));
    assert!(recovered == body(10));
}

#[tokio::test]
async fn the_log_is_held_until_the_new_store_has_attached() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    assert_eq!(held(&port), []);
    let receiver = TestReceiver::new(&pair);
    source.append(5);
    fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    assert_eq!(held(&port), [Lsn(10)]);
    port.duplicates.attached(&name("orders-2"));
    assert_eq!(held(&port), []);
}

#[tokio::test]
async fn a_cut_stream_goes_on_where_it_broke_off() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    let cuts = vec![300_000, 1_500_000, 2_000_000, usize::MAX];
    let proxy = cutting_proxy(port.port, cuts.clone()).await;
    let receiver = TestReceiver::new(&pair);
    let mut kept = 0;
    for _ in 1..cuts.len() {
        let error = fetch(&receiver, &target("orders-1", proxy)).await.unwrap_err();
        assert!(matches!(error, FetchError::Link(_)), "{error}");
        // The store in use is untouched, and the log is held for the next attempt.
        assert_eq!(receiver.current(), StoreId(Uuid::from_u128(2)));
        assert_eq!(held(&port), [Lsn(10)]);
        let begun = receiver.seen.lock().first().unwrap().received_bytes;
        assert!(begun >= kept, "it went back from {kept} to {begun}");
        kept = begun;
        receiver.seen.lock().clear();
        // The source goes on meanwhile, and even takes another checkpoint.
        source.append(1);
    }
    source.checkpoint_now();
    let fetched = fetch(&receiver, &target("orders-1", proxy)).await.unwrap();
    assert!(fetched.resumed_from_bytes > 3_000_000, "{fetched:?}");
    assert_eq!(fetched.checkpoint.lsn, Lsn(10));
    assert!(receiver.restarted().recover().1 == body(10));
}

#[tokio::test]
async fn a_file_that_is_gone_begins_anew_and_mixes_nothing() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    let proxy = cutting_proxy(port.port, vec![2_000_000, usize::MAX]).await;
    let receiver = TestReceiver::new(&pair);
    fetch(&receiver, &target("orders-1", proxy)).await.unwrap_err();
    for _ in 0..2 {
        source.append(3);
        source.checkpoint_now();
    }
    let fetched = fetch(&receiver, &target("orders-1", proxy)).await.unwrap();
    assert_eq!((fetched.checkpoint.lsn, fetched.resumed_from_bytes), (Lsn(16), 0));
    assert!(receiver.restarted().recover().1 == body(16));
}

#[tokio::test]
async fn a_checkpoint_is_taken_when_there_is_none() {
    let pair = TestPair::new();
    let source = TestSource::new();
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let fetched = fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    assert_eq!(source.taken.load(Ordering::Relaxed), 1);
    assert!(receiver.restarted().recover().1 == body(fetched.checkpoint.lsn.0 as u8));
}

#[tokio::test]
async fn a_checkpoint_that_the_log_has_left_behind_is_not_sent() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    source.append(20);
    source.first_lsn.store(15, Ordering::Relaxed);
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let fetched = fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    assert_eq!(fetched.checkpoint.lsn, Lsn(30));
    assert_eq!(held(&port), [Lsn(30)]);
}

#[tokio::test]
async fn newer_checkpoints_do_not_take_the_file_from_a_running_stream() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    *source.watch.lock() = Box::new(|source| {
        source.append(1);
        source.checkpoint_now();
    });
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let fetched = fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    let now = source.checkpoint(None).unwrap().meta().lsn;
    assert!(now.since(fetched.checkpoint.lsn) > 2, "the file was not removed during the stream");
    assert!(receiver.restarted().recover().1 == body(fetched.checkpoint.lsn.0 as u8));
}

#[tokio::test]
async fn a_change_of_epoch_ends_the_stream_and_leaves_the_old_store() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let mut looks = 0;
    *source.watch.lock() = Box::new(move |source| {
        looks += 1;
        if looks == 3 {
            *source.epoch.lock() = epoch(5);
        }
    });
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let error = fetch(&receiver, &target("orders-1", port.port)).await.unwrap_err();
    assert!(matches!(error, FetchError::Link(_)), "{error}");
    assert_eq!(receiver.current(), StoreId(Uuid::from_u128(2)));
    // The same file is still that of this source: it goes on.
    let fetched = fetch(&receiver, &target("orders-1", port.port)).await.unwrap();
    assert!(fetched.resumed_from_bytes > 0);
    assert_eq!(receiver.control.get().promised, epoch(5));
    assert!(matches!(port.ended.lock()[0], Err(ServeError::EpochChanged)));
}

#[tokio::test]
async fn another_database_is_refused_in_words() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    let receiver = TestReceiver::new(&pair);
    let mut state = receiver.control.get();
    state.dbid = Some(Dbid(Uuid::from_u128(1234)));
    receiver.control.persist(&state).unwrap();
    let error = fetch(&receiver, &target("orders-1", port.port)).await.unwrap_err();
    let FetchError::Refused { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains(&DBID.to_string()), "{reason}");
    *source.dbid.lock() = None;
    let error = fetch(&receiver, &target("orders-1", port.port)).await.unwrap_err();
    assert!(error.to_string().contains("no database yet"), "{error}");
}

/// Accepts one request and lets a test play the source.
async fn scripted(listener: &mut Listener) -> (DuplicateRequest, Link) {
    match listener.accept().await {
        Incoming::Duplicate(waiting) => (waiting.request, waiting.link),
        Incoming::Follower(waiting) => panic!("{} wants to follow", waiting.identity),
    }
}

fn announce(link: &mut Link, bytes: u64, from_bytes: u64) -> CheckpointName {
    let store = StoreId(Uuid::from_u128(1));
    let (epoch, lsn) = (epoch(4), Lsn(10));
    let checkpoint = CheckpointName { dbid: DBID, store, epoch, lsn, hash: RunningHash(0), bytes };
    let source = incarnation(4);
    let answer = DuplicateAnswer::Stream { source, epoch, checkpoint, from_bytes };
    link.writer.queue_frame(FrameKind::DuplicateAnswer, &answer);
    checkpoint
}

#[tokio::test]
async fn a_source_that_breaks_the_rules_changes_nothing() {
    let pair = TestPair::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, pair.member("orders-1")).await.unwrap();
    let port = listener.local_address().unwrap().port();
    let receiver = TestReceiver::new(&pair);
    let end = |link: &mut Link, checkpoint| {
        link.writer.queue_frame(FrameKind::DuplicateEnd, &DuplicateEnd { checkpoint });
    };
    type Play<'a> = &'a dyn Fn(&mut Link);
    let plays: [(&str, Play<'_>); 5] = [
        ("more than it announced", &|link| {
            announce(link, 10, 0);
            link.writer.queue_raw_frame(FrameKind::DuplicateChunk, &[0; 11]);
        }),
        ("ends before the file", &|link| {
            let checkpoint = announce(link, 10, 0);
            end(link, checkpoint);
        }),
        ("was not asked for", &|link| {
            announce(link, 10, 5);
        }),
        ("not taken", &|link| {
            let checkpoint = announce(link, 1000, 0);
            link.writer.queue_raw_frame(FrameKind::DuplicateChunk, &[0xab; 1000]);
            end(link, checkpoint);
        }),
        ("bad frame", &|link| {
            announce(link, 10, 0);
            link.writer.queue_raw_frame(FrameKind::Message, &[1, 2, 3]);
        }),
    ];
    for (expected, play) in plays {
        let source = async {
            let (_, mut link) = scripted(&mut listener).await;
            play(&mut link);
            link.writer.flush().await.unwrap();
            link
        };
        let to = target("orders-1", port);
        let (_link, fetched) = tokio::join!(source, fetch(&receiver, &to));
        let error = fetched.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let told = format!("{error}: {}", cause.unwrap_or_default());
        assert!(told.contains(expected), "{expected}: {told}");
        assert_eq!(receiver.current(), StoreId(Uuid::from_u128(2)));
    }
}

#[tokio::test]
async fn a_source_that_takes_a_checkpoint_is_waited_for() {
    let pair = TestPair::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(address, pair.member("orders-1")).await.unwrap();
    let port = listener.local_address().unwrap().port();
    let receiver = TestReceiver::new(&pair);
    let source = async {
        let (request, mut link) = scripted(&mut listener).await;
        assert_eq!((request.resume, request.dbid), (None, None));
        for _ in 0..3 {
            link.writer.queue_frame(FrameKind::DuplicateAnswer, &DuplicateAnswer::Preparing);
            link.writer.flush().await.unwrap();
        }
        let refused = DuplicateAnswer::Refused { reason: "the disk is full".to_owned() };
        link.writer.queue_frame(FrameKind::DuplicateAnswer, &refused);
        link.writer.flush().await.unwrap();
    };
    let to = target("orders-1", port);
    let ((), fetched) = tokio::join!(source, fetch(&receiver, &to));
    assert!(fetched.unwrap_err().to_string().contains("the disk is full"));
}

#[tokio::test]
async fn damage_on_the_receivers_disk_between_attempts_is_found_and_mended() {
    let pair = TestPair::new();
    let source = TestSource::new();
    source.checkpoint_now();
    let port = serve(&pair, &source).await;
    let proxy = cutting_proxy(port.port, vec![3_000_000, usize::MAX]).await;
    let receiver = TestReceiver::new(&pair);
    fetch(&receiver, &target("orders-1", proxy)).await.unwrap_err();
    let partial = find(receiver.volumes.path(), "checkpoint.tmp");
    let mut bytes = std::fs::read(&partial).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&partial, bytes).unwrap();
    let fetched = fetch(&receiver, &target("orders-1", proxy)).await.unwrap();
    assert!((1..1_000_000).contains(&fetched.resumed_from_bytes), "{fetched:?}");
    assert!(receiver.restarted().recover().1 == body(10));
}

/// The one file of this name below a directory.
fn find(directory: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.file_name().unwrap() == name {
                return path;
            }
        }
    }
    panic!("there is no {name}");
}
