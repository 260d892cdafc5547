//! Taking connections and spreading them over the session loops.
//!
//! One thread accepts; it answers plain cancel requests itself, so that a loop busy with a long
//! statement can still be told to stop it. Every other connection goes to the loop with the fewest
//! connections and stays there: a loop is one thread with one `current_thread` runtime, and a session
//! that waits (for a lock, for an acknowledgement) leaves its loop to the others. One that is alone waits for
//! its client inside its read (`socket`).

use super::{
    database::Database,
    registry::EndReason,
    reply::{self, Report},
    session,
    socket::Socket,
    sqlstate,
    startup::{self, Started},
    stream::Stream,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime,
    sync::{mpsc, watch},
    time::timeout,
};

/// Gives the certificate in use now; None while there is none.
pub type TlsSource = Arc<dyn Fn() -> Option<Arc<rustls::ServerConfig>> + Send + Sync>;

/// What to do with a client that does not ask for encryption (`tls.clients`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainConnections {
    /// `Require`: 28000 with a hint. Unix sockets are taken, for they never touch a network.
    Refuse,
    /// `Allow`.
    Allow,
}

/// Where and how to listen.
#[derive(Clone)]
pub struct ListenerOptions {
    /// Address of the TCP socket; port 0 takes a free one. `None`: no TCP.
    pub address: Option<SocketAddr>,
    /// Path of a Unix socket, as `<directory>/.s.PGSQL.<port>`; None for none.
    pub unix_path: Option<PathBuf>,
    /// Whether a client on the Unix socket that runs as this process's own user needs no password: it
    /// could read the files anyhow.
    pub trusts_own_user: bool,
    /// Session loops; at least one. Normally the granted cores.
    pub loops: usize,
    /// The certificate.
    pub tls: TlsSource,
    /// Whether plain connections are taken.
    pub plain: PlainConnections,
    /// Longest message of a client in bytes; a longer one ends the session.
    pub message_bytes_max: usize,
    /// Longest start-up, authentication included; 60 s as PostgreSQL.
    pub startup_timeout: Duration,
}

impl std::fmt::Debug for ListenerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerOptions")
            .field("address", &self.address)
            .field("unix_path", &self.unix_path)
            .finish_non_exhaustive()
    }
}

impl ListenerOptions {
    /// A TCP socket with the usual limits; one loop.
    #[must_use]
    pub fn tcp(address: SocketAddr, tls: ClientTls) -> ListenerOptions {
        ListenerOptions {
            address: Some(address),
            unix_path: None,
            trusts_own_user: false,
            loops: 1,
            tls: tls.source,
            plain: tls.plain,
            message_bytes_max: 64 << 20,
            startup_timeout: Duration::from_secs(60),
        }
    }
}

/// Encryption of client connections.
#[derive(Clone)]
pub struct ClientTls {
    /// The certificate.
    pub source: TlsSource,
    /// Whether plain connections are taken.
    pub plain: PlainConnections,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// No certificate, and plain connections are taken.
    #[must_use]
    pub fn none() -> ClientTls {
        ClientTls { source: Arc::new(|| None), plain: PlainConnections::Allow }
    }
}

/// Why the front end cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A socket cannot be opened.
    #[error("failed to listen on {place}")]
    Bind {
        /// The address or path.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or its runtime cannot be made.
    #[error("failed to start the session loop {number}")]
    Loop {
        /// From 0; the acceptor comes after the loops.
        number: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What all connections share.
pub(super) struct Front {
    pub(super) database: Arc<dyn Database>,
    pub(super) options: ListenerOptions,
    /// Makes the invented salts of unknown users; random at each start.
    pub(super) secret: [u8; 32],
    /// Connections that are not sessions yet, and sessions.
    connections: AtomicUsize,
}

impl Front {
    fn new(database: Arc<dyn Database>, options: ListenerOptions) -> Front {
        let (secret, connections) = (rand::random(), AtomicUsize::new(0));
        Front { database, options, secret, connections }
    }

    /// What a session needs when there is no listener.
    #[cfg(test)]
    pub(super) fn for_tests(database: Arc<dyn Database>, options: ListenerOptions) -> Front {
        Front::new(database, options)
    }
}

/// Connections beyond the sessions' limit that may be in start-up at a time.
const STARTING_MAX: usize = 128;

/// Longest wait for the first bytes of a connection in the accepting thread; then a loop waits on.
const FIRST_BYTES_WAIT: Duration = Duration::from_millis(5);

/// Bytes of a cancel request without TLS.
const CANCEL_BYTES: usize = 16;

/// The listening front end. Dropping it stops taking connections and ends the loops with their
/// sessions; use `SessionRegistry::end_all` before to tell the clients.
#[derive(Debug)]
pub struct Listener {
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// A connection on its way to a loop.
enum Arrival {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// One loop, as the accepting thread sees it.
struct Loop {
    arrivals: mpsc::UnboundedSender<Arrival>,
    load: Arc<AtomicUsize>,
}

impl Listener {
    /// Opens the sockets and starts the threads.
    ///
    /// # Errors
    /// When an address is taken or a thread cannot be made.
    pub fn start(
        database: Arc<dyn Database>,
        options: ListenerOptions,
    ) -> Result<Listener, ListenerError> {
        let (tcp, address) = options.address.map(bind_tcp).transpose()?.unzip();
        let unix = options.unix_path.as_deref().map(bind_unix).transpose()?;
        let front = Arc::new(Front::new(database, options));
        let (stop, stopped) = watch::channel(false);
        let mut threads = Vec::new();
        let mut loops = Vec::new();
        let sessions_max = front.database.sessions().limit();
        for number in 0..front.options.loops.max(1) {
            let (arrivals, receiver) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let task = run_loop(Arc::clone(&front), receiver, Arc::clone(&load), stopped.clone());
            threads.push(spawn_loop(number, sessions_max, task)?);
            loops.push(Loop { arrivals, load });
        }
        let number = loops.len();
        let task = accept(front, Sockets { tcp, unix }, loops, stopped);
        threads.push(spawn_loop(number, 1, task)?);
        Ok(Listener { address, stop, threads })
    }

    /// The TCP address that was taken; `None` without TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The loops may have ended already.
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn bind_error(place: String) -> impl FnOnce(io::Error) -> ListenerError {
    move |source| ListenerError::Bind { place, source }
}

fn bind_tcp(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), ListenerError> {
    let bound = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let taken = listener.local_addr()?;
        Ok((listener, taken))
    };
    bound().map_err(bind_error(address.to_string()))
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, ListenerError> {
    let place = || path.display().to_string();
    // A socket file outlives its process; whoever listens on this data directory holds its lock.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(bind_error(place())(error)),
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(bind_error(place()))?;
    listener.set_nonblocking(true).map_err(bind_error(place()))?;
    Ok(listener)
}

/// A loop, which runs so many statements apart: none has to wait for a client that reads slowly.
fn spawn_loop(
    number: usize,
    apart_max: usize,
    task: impl Future<Output = ()> + Send + 'static,
) -> Result<thread::JoinHandle<()>, ListenerError> {
    let error = |source| ListenerError::Loop { number, source };
    let mut builder = runtime::Builder::new_current_thread();
    let runtime =
        builder.enable_all().max_blocking_threads(apart_max.max(1)).build().map_err(error)?;
    thread::Builder::new()
        .name(format!("sql-{number}"))
        .spawn(move || runtime.block_on(task))
        .map_err(error)
}

/// The accepting thread's sockets.
struct Sockets {
    tcp: Option<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
}

async fn accept(
    front: Arc<Front>,
    sockets: Sockets,
    loops: Vec<Loop>,
    mut stopped: watch::Receiver<bool>,
) {
    let tcp = sockets.tcp.map(|tcp| TcpListener::from_std(tcp).expect("inside a runtime with I/O"));
    let unix =
        sockets.unix.map(|unix| UnixListener::from_std(unix).expect("inside a runtime with I/O"));
    let loops = Arc::new(loops);
    loop {
        tokio::select! {
            () = stopping(&mut stopped) => return,
            arrival = accept_tcp(tcp.as_ref()) => match arrival {
                Ok(stream) => {
                    tokio::spawn(sort_tcp(Arc::clone(&front), stream, Arc::clone(&loops)));
                }
                Err(error) => pause_after(&error).await,
            },
            arrival = accept_unix(unix.as_ref()) => match arrival {
                Ok(stream) => {
                    tokio::spawn(sort_unix(stream, Arc::clone(&loops)));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
}

/// Ends when the listener is dropped.
async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // An error means that the listener is gone without a word, which is the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn accept_unix(listener: Option<&UnixListener>) -> io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Out of descriptors, most likely: give sessions time to end instead of spinning.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Answers a plain cancel request here, and sends everything else to a loop.
async fn sort_tcp(front: Arc<Front>, stream: TcpStream, loops: Arc<Vec<Loop>>) {
    let mut head = [0; CANCEL_BYTES];
    let peeked = timeout(FIRST_BYTES_WAIT, stream.peek(&mut head)).await;
    if let Ok(Ok(CANCEL_BYTES)) = peeked
        && let Some((pid, secret)) = startup::plain_cancel(&head)
    {
        front.database.sessions().cancel(pid, secret);
        return;
    }
    // An error here is one of the connection, which ends with it.
    if let Ok(stream) = stream.set_nodelay(true).and_then(|()| stream.into_std()) {
        send_to_least_loaded(&loops, Arrival::Tcp(stream));
    }
}

async fn sort_unix(stream: UnixStream, loops: Arc<Vec<Loop>>) {
    if let Ok(stream) = stream.into_std() {
        send_to_least_loaded(&loops, Arrival::Unix(stream));
    }
}

fn send_to_least_loaded(loops: &[Loop], arrival: Arrival) {
    if let Some(target) = loops.iter().min_by_key(|one| one.load.load(Relaxed)) {
        target.load.fetch_add(1, Relaxed);
        // A loop that has ended drops the connection, which is all there is to do.
        let _ = target.arrivals.send(arrival);
    }
}

/// One session loop.
async fn run_loop(
    front: Arc<Front>,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
    load: Arc<AtomicUsize>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let arrival = tokio::select! {
            () = stopping(&mut stopped) => return,
            arrival = arrivals.recv() => arrival,
        };
        let Some(arrival) = arrival else { return };
        let stream = match arrival {
            Arrival::Tcp(stream) => Socket::new(stream, Arc::clone(&load)).map(Stream::Tcp),
            Arrival::Unix(stream) => Socket::new(stream, Arc::clone(&load)).map(Stream::Unix),
        };
        let (front, place) = (Arc::clone(&front), LoopPlace(Arc::clone(&load)));
        tokio::spawn(async move {
            if let Ok(stream) = stream {
                connection(stream, front).await;
            }
            drop(place);
        });
    }
}

/// A place on a loop, counted when the connection was sent there.
struct LoopPlace(Arc<AtomicUsize>);

impl Drop for LoopPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One connection from its first byte to its last.
async fn connection(stream: Stream, front: Arc<Front>) {
    let sessions_max = front.database.sessions().limit();
    let place = ConnectionPlace::take(&front);
    if place.number > sessions_max + STARTING_MAX {
        refuse(stream, sessions_max).await;
        return;
    }
    let started = timeout(front.options.startup_timeout, startup::start(stream, &front)).await;
    if let Ok(Some(started)) = started {
        serve(started, &front).await;
    }
}

async fn serve(started: Started, front: &Arc<Front>) {
    let pid = started.guard.pid();
    match session::run(started, front).await {
        Ok(()) => {}
        Err(error) => tracing::debug!(pid, %error, "a session ended by its connection"),
    }
}

async fn refuse(mut stream: Stream, limit: usize) {
    let mut out = Vec::new();
    let message = format!("sorry, too many clients already: {limit} sessions are open");
    reply::report(&mut out, &Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, message));
    // The client may be gone; the connection ends either way.
    let _ = stream.write_all(&out).await;
    let _ = stream.shutdown().await;
}

/// Counts a connection for as long as it lives.
struct ConnectionPlace<'a> {
    front: &'a Front,
    number: usize,
}

impl<'a> ConnectionPlace<'a> {
    fn take(front: &'a Front) -> ConnectionPlace<'a> {
        ConnectionPlace { front, number: front.connections.fetch_add(1, Relaxed) + 1 }
    }
}

impl Drop for ConnectionPlace<'_> {
    fn drop(&mut self) {
        self.front.connections.fetch_sub(1, Relaxed);
    }
}

/// The words of PostgreSQL for a session that is ended from outside.
#[must_use]
pub(super) fn end_report(reason: &EndReason) -> Report {
    let report = Report::fatal(
        sqlstate::ADMIN_SHUTDOWN,
        format!("terminating connection: {}", reason.message),
    );
    match &reason.hint {
        Some(hint) => report.hint(hint.clone()),
        None => report,
    }
}
