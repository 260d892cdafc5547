//! Socket options of a link: no delay, and a quick end when the other node is gone without a word.
//!
//! A link that ends proves nothing about the other side (R10); ending it early only lets the follower
//! dial again and the active count the standby as stopped.

use super::PeerError;
use std::{io, time::Duration};
use tokio::net::TcpStream;

/// How long sent bytes may stay unacknowledged by the peer's kernel before the link breaks.
const UNACKNOWLEDGED_TIMEOUT_MS: u32 = 3_000;

/// Silence before the kernel asks whether the peer is there, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Unanswered questions before the link breaks.
const KEEPALIVE_QUESTIONS: u32 = 3;

/// Prepares a fresh socket to `remote`.
pub(super) fn prepare(tcp: &TcpStream, remote: &str) -> Result<(), PeerError> {
    set(tcp).map_err(|source| PeerError::Socket { remote: remote.to_owned(), source })
}

fn set(tcp: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_QUESTIONS)?;
    sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED_TIMEOUT_MS)?;
    Ok(())
}
