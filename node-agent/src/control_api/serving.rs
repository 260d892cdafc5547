//! Accepting, handshakes and HTTP/1 connections, with a bound on everything.

use super::{Control, router};
use crate::tls::Tls;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::net::sockopt;
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

/// Handshakes under way at once; strangers cannot take more than these.
const HANDSHAKES_MAX: usize = 32;
/// Connections of proven peers: operator pods, supervisors, command lines.
const CONNECTIONS_MAX: usize = 64;
/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time to send a request's head, and longest idle time between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head and largest unsent answer that is kept.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long the kernel waits for a peer that takes no bytes: a stream to a lost node ends by this.
const UNSENT_TIMEOUT_MS: u32 = 5_000;
/// Pause after a failed accept: out of descriptors does not mend by asking faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the control port until `shutdown`; open connections end with it.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<Tls>,
    agent: Arc<dyn Control>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = router(agent);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = tokio::task::JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let socket = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            socket = accept(&listener) => socket,
        };
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else { continue };
        let (tls, router) = (Arc::clone(&tls), router.clone());
        let connections = Arc::clone(&connections);
        tasks.spawn(async move {
            let acceptor = TlsAcceptor::from(tls.mutual_server());
            let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
            let Ok(Ok(stream)) = accepting.await else { return };
            drop(handshake);
            let Ok(peer) = tls.identify(stream.get_ref().1.peer_certificates()) else { return };
            let Ok(_place) = connections.try_acquire_owned() else {
                tracing::warn!(%peer, "no place for one more connection on the control port");
                return;
            };
            Connection { stream, router: router.layer(Extension(peer)) }.serve().await;
        });
    }
}

/// The next socket; trouble with one peer is not trouble with the listener.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => match slow_is_dead(&socket) {
                Ok(()) => return socket,
                Err(error) => tracing::debug!(%error, "a new connection ended at once"),
            },
            Err(error) => {
                tracing::warn!(%error, "failed to accept on the control port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Small answers leave at once, and a peer that takes no bytes is given up by the kernel.
pub(crate) fn slow_is_dead(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(socket, UNSENT_TIMEOUT_MS)?;
    Ok(())
}

/// One connection that speaks HTTP/1.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    pub(crate) router: Router,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// Until either end closes. What the peer does wrong is the peer's affair.
    pub(crate) async fn serve(self) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(self.stream), TowerToHyperService::new(self.router));
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }
}
