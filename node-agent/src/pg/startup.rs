//! From an accepted connection to an authenticated client: encryption, the start-up packet, SCRAM,
//! admission. Cancel requests end here.
//!
//! Invariants: a packet before authentication is at most [`PACKET_BYTES_MAX`] long; exactly the bytes of
//! one packet are read at a time, so nothing that came before TLS is taken as having come inside it;
//! the answer to a wrong password and to an unknown user is the same. The 60 s limit around all of
//! this is the listener's.

use super::{
    auth::{self, Verifier},
    database::Database,
    frame::{self, FrameError, Reader},
    listener::{Front, PlainConnections},
    registry::SessionGuard,
    reply::{self, Report},
    sqlstate,
    stream::Stream,
};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use understudy_types::Role;

/// Longest packet before authentication, PostgreSQL's.
const PACKET_BYTES_MAX: usize = 10_000;

const CODE_CANCEL: i32 = 80_877_102;
const CODE_SSL: i32 = 80_877_103;
const CODE_GSSENC: i32 = 80_877_104;
const PROTOCOL_3: i32 = 3 << 16;

/// How often a client may ask for an encryption that is not there, then go on.
const NEGOTIATIONS_MAX: usize = 2;

/// An authenticated client.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) stream: Stream,
    pub(super) guard: SessionGuard,
    pub(super) user: String,
    /// Settings asked for in the start-up packet, `options` already taken apart.
    pub(super) settings: Vec<(String, String)>,
    /// AuthenticationOk and what came before it; the session adds its parameters and writes it.
    pub(super) greeting: Vec<u8>,
}

/// The start-up packet's content.
#[derive(Debug, Default)]
struct Hello {
    minor: i32,
    parameters: Vec<(String, String)>,
    unknown_options: Vec<String>,
}

/// Why a connection ends before it is a session.
#[derive(Debug)]
enum Refused {
    /// The client is told.
    Told(Report),
    /// There is nothing to tell, or nobody.
    Silent,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Refused {
        Refused::Silent
    }
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Refused {
        Refused::Told(Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string()))
    }
}

impl From<Report> for Refused {
    fn from(report: Report) -> Refused {
        Refused::Told(report)
    }
}

/// The session and secret of a whole cancel request at the head of a connection.
pub(super) fn plain_cancel(head: &[u8; 16]) -> Option<(i32, i32)> {
    let mut reader = Reader(head);
    let (length, code) = (reader.i32().ok()?, reader.i32().ok()?);
    let (pid, secret) = (reader.i32().ok()?, reader.i32().ok()?);
    (length == 16 && code == CODE_CANCEL).then_some((pid, secret))
}

/// Brings a connection to an authenticated client; None when it ended instead, the client being told.
pub(super) async fn start(stream: Stream, front: &Front) -> Option<Started> {
    let mut stream = Some(stream);
    match negotiate(&mut stream, front).await {
        Ok(started) => started,
        Err(Refused::Silent) => None,
        Err(Refused::Told(report)) => {
            let mut out = Vec::new();
            reply::report(&mut out, &report);
            if let Some(mut stream) = stream {
                // The client may be gone; the connection ends either way.
                let _ = stream.write_all(&out).await;
                let _ = stream.shutdown().await;
            }
            None
        }
    }
}

async fn negotiate(slot: &mut Option<Stream>, front: &Front) -> Result<Option<Started>, Refused> {
    for _ in 0..=NEGOTIATIONS_MAX {
        let stream = slot.as_mut().ok_or(Refused::Silent)?;
        let packet = read_packet(stream).await?;
        let mut reader = Reader(&packet);
        match reader.i32()? {
            CODE_CANCEL => {
                let (pid, secret) = (reader.i32()?, reader.i32()?);
                front.database.sessions().cancel(pid, secret);
                return Ok(None);
            }
            CODE_SSL => encrypt(slot, front).await?,
            CODE_GSSENC => stream.write_all(b"N").await?,
            version if version & !0xffff == PROTOCOL_3 => {
                let hello = read_hello(version & 0xffff, reader)?;
                return authenticate(slot, front, hello).await.map(Some);
            }
            version => {
                let (major, minor) = (version >> 16, version & 0xffff);
                let message = format!("unsupported frontend protocol {major}.{minor}");
                return Err(Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
            }
        }
    }
    Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, "too many encryption requests").into())
}

/// Reads exactly one packet without a tag; its body.
async fn read_packet(stream: &mut Stream) -> Result<Vec<u8>, Refused> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head) as usize;
    if !(8..=PACKET_BYTES_MAX).contains(&length) {
        let message = "invalid length of startup packet";
        return Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Answers an SSLRequest, with TLS when there is a certificate.
async fn encrypt(slot: &mut Option<Stream>, front: &Front) -> Result<(), Refused> {
    let config = (front.options.tls)();
    match (slot.take().ok_or(Refused::Silent)?, config) {
        (Stream::Tcp(mut tcp), Some(config)) => {
            tcp.write_all(b"S").await?;
            tcp.wait_beside_others();
            let tls = TlsAcceptor::from(config).accept(tcp).await?;
            *slot = Some(Stream::Tls(Box::new(tls)));
        }
        (mut other, _) => {
            other.write_all(b"N").await?;
            *slot = Some(other);
        }
    }
    Ok(())
}

fn read_hello(minor: i32, mut reader: Reader<'_>) -> Result<Hello, Refused> {
    let mut hello = Hello { minor, ..Hello::default() };
    loop {
        let name = reader.text()?;
        if name.is_empty() {
            reader.end()?;
            return Ok(hello);
        }
        let value = reader.text()?.to_owned();
        if name.starts_with("_pq_.") {
            hello.unknown_options.push(name.to_owned());
        } else {
            hello.parameters.push((name.to_owned(), value));
        }
    }
}

async fn authenticate(
    slot: &mut Option<Stream>,
    front: &Front,
    hello: Hello,
) -> Result<Started, Refused> {
    let stream = slot.as_mut().ok_or(Refused::Silent)?;
    if front.options.plain == PlainConnections::Refuse && !stream.is_private() {
        let message = "this server takes encrypted connections only";
        return Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, message)
            .hint("Connect with sslmode=require, or sslmode=verify-full and the pair's ca.crt.")
            .into());
    }
    let (user, settings) = take_parameters(hello.parameters)?;
    let mut greeting = Vec::with_capacity(512);
    if hello.minor > 0 || !hello.unknown_options.is_empty() {
        reply::negotiate_version(&mut greeting, 0, &hello.unknown_options);
    }
    check_serving(&*front.database)?;
    if front.options.trusts_own_user && stream.is_own_user() {
        check_user(&*front.database, &user)?;
    } else {
        exchange(stream, front, &user, &mut greeting).await?;
    }
    check_following(&*front.database, &user)?;
    let secret = rand::random::<i32>();
    let guard = front.database.sessions().register(secret).map_err(|full| {
        Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, full.to_string())
            .hint("Close sessions that are not needed, or use a connection pool.")
    })?;
    reply::authentication_ok(&mut greeting);
    let stream = slot.take().ok_or(Refused::Silent)?;
    Ok(Started { stream, guard, user, settings, greeting })
}

/// A member without a database it could show.
fn check_serving(database: &dyn Database) -> Result<(), Refused> {
    let (what, hint) = match database.role() {
        Role::Active | Role::Standby | Role::Subscriber | Role::Idle => return Ok(()),
        Role::Recovering => ("recovering", "It will take connections when it has caught up."),
        Role::Failed => ("failed", "See `kubectl describe` of the pair for what to do."),
    };
    Err(takes_none(database, what, hint))
}

/// A member that follows nobody and serves nobody falls behind without knowing how far. An administrator
/// may look, and set it active (`ttRepStateSet`); this is told before the authentication is confirmed, so
/// that a client with several hosts goes on to the next one.
fn check_following(database: &dyn Database, user: &str) -> Result<(), Refused> {
    let is_admin = || database.store().catalog().user(user).is_some_and(|user| user.admin);
    if database.role() != Role::Idle || is_admin() {
        return Ok(());
    }
    let hint =
        "It follows nobody at this moment, and lets administrators in; another member may serve.";
    Err(takes_none(database, "idle", hint))
}

fn takes_none(database: &dyn Database, what: &str, hint: &str) -> Refused {
    let member = database.identity().member;
    let message = format!("the member {member} is {what} and takes no connections");
    Report::fatal(sqlstate::CANNOT_CONNECT_NOW, message).hint(hint).into()
}

/// Who is trusted may be told who exists.
fn check_user(database: &dyn Database, user: &str) -> Result<(), Refused> {
    if database.store().catalog().user(user).is_some() {
        return Ok(());
    }
    let message = format!("role \"{user}\" does not exist");
    Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, message)
        .hint("Connect as a user that was created, with -U NAME.")
        .into())
}

/// The user, and the settings; `database` and `replication` are not settings.
fn take_parameters(
    parameters: Vec<(String, String)>,
) -> Result<(String, Vec<(String, String)>), Refused> {
    let (mut user, mut settings) = (None, Vec::new());
    for (name, value) in parameters {
        match name.as_str() {
            "user" => user = Some(value),
            // A pair has one database, whatever a client calls it.
            "database" => {}
            "replication" => {
                if !matches!(value.as_str(), "false" | "off" | "no" | "0") {
                    let message = "PostgreSQL's replication protocol is not supported";
                    return Err(Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
                }
            }
            "options" => settings.extend(split_options(&value)?),
            _ => settings.push((name, value)),
        }
    }
    match user {
        Some(user) if !user.is_empty() => Ok((user, settings)),
        _ => {
            let message = "no PostgreSQL user name specified in startup packet";
            Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, message).into())
        }
    }
}

/// Takes `-c name=value` and `--name=value` apart; a backslash keeps the next character.
fn split_options(text: &str) -> Result<Vec<(String, String)>, Refused> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => words.last_mut().expect("one word at least").extend(characters.next()),
            blank if blank.is_whitespace() => words.push(String::new()),
            other => words.last_mut().expect("one word at least").push(other),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(rest) => rest
                .split_once('=')
                .map(|(name, value)| format!("{}={value}", name.replace('-', "_"))),
            None if word == "-c" => words.next(),
            None => word.strip_prefix("-c").map(str::to_owned),
        };
        let pair = assignment.as_deref().and_then(|text| text.split_once('='));
        let Some((name, value)) = pair else {
            let message = format!("invalid command-line argument for server process: {word}");
            return Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, message)
                .hint("Write options as \"-c name=value\".")
                .into());
        };
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

/// The SCRAM exchange; the server's proof is left in `greeting`.
async fn exchange(
    stream: &mut Stream,
    front: &Front,
    user: &str,
    greeting: &mut Vec<u8>,
) -> Result<(), Refused> {
    let wrong = || {
        let message = format!("password authentication failed for user \"{user}\"");
        Refused::Told(Report::fatal(sqlstate::INVALID_PASSWORD, message))
    };
    let catalog = front.database.store().catalog();
    let stored = catalog.user(user).and_then(|known| known.scram.as_deref());
    let verifier = stored.and_then(|text| Verifier::parse(text).ok());
    let is_known = verifier.is_some();
    let verifier = verifier.unwrap_or_else(|| Verifier::invented(user, &front.secret));

    reply::authentication_sasl(greeting, auth::MECHANISM);
    stream.write_all(greeting).await?;
    greeting.clear();
    let body = read_password_message(stream).await?;
    let mut reader = Reader(&body);
    if reader.text()? != auth::MECHANISM {
        let message = "client selected an invalid SASL authentication mechanism";
        return Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
    }
    let first = reader.value()?.unwrap_or_default();
    let malformed = |_| {
        let message = "malformed SCRAM message";
        Refused::Told(Report::fatal(sqlstate::PROTOCOL_VIOLATION, message))
    };
    let (challenge, waiting) = auth::begin(verifier, first).map_err(malformed)?;

    let mut out = Vec::new();
    reply::authentication_sasl_continue(&mut out, &challenge);
    stream.write_all(&out).await?;
    let body = read_password_message(stream).await?;
    let proof = auth::finish(&waiting, &body).map_err(|_| wrong())?;
    if !is_known {
        return Err(wrong());
    }
    reply::authentication_sasl_final(greeting, &proof);
    Ok(())
}

/// Reads exactly one message with the tag `p`; its body.
async fn read_password_message(stream: &mut Stream) -> Result<Vec<u8>, Refused> {
    let mut head = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != b'p' || !(4..=PACKET_BYTES_MAX).contains(&length) {
        let message = "expected a password response";
        return Err(Report::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Option<Vec<(String, String)>> {
        split_options(text).ok()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn options_of_the_startup_packet_are_taken_apart() {
        let expected = vec![pair("statement_timeout", "5s"), pair("search_path", "a b")];
        assert_eq!(options(r"-c statement_timeout=5s  -csearch_path=a\ b"), Some(expected));
        assert_eq!(options("--lock-timeout=7-8"), Some(vec![pair("lock_timeout", "7-8")]));
        assert_eq!(options(""), Some(Vec::new()));
        for bad in ["-c", "-c nothing", "x", "-x 1"] {
            assert_eq!(options(bad), None, "{bad} was taken");
        }
    }

    #[test]
    fn a_hello_without_user_is_refused() {
        assert!(take_parameters(vec![pair("database", "x")]).is_err());
        assert!(take_parameters(vec![pair("user", "u"), pair("replication", "database")]).is_err());
        let (user, settings) =
            take_parameters(vec![pair("user", "u"), pair("application_name", "psql")]).unwrap();
        assert_eq!((user.as_str(), settings), ("u", vec![pair("application_name", "psql")]));
    }

    #[test]
    fn a_hello_that_does_not_end_is_refused() {
        assert!(read_hello(0, Reader(b"user\0x\0\0")).is_ok());
        for bad in [&b"user\0x\0"[..], b"user\0x", b"", b"user\0x\0\0more"] {
            assert!(read_hello(0, Reader(bad)).is_err(), "{bad:?} was taken");
        }
    }
}
