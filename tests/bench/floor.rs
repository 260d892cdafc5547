//! The floor of a measure over a socket: what this machine and the client allow when the server does
//! nothing. A process answers the client's messages with bytes made beforehand, knows no SQL, no table and no
//! transaction, and makes few system calls: one read and one write a batch, and a wait in front of them where
//! it has more than one client.
//!
//! A target above the floor's ratio to the peer is out of reach for a server that works like that: with
//! sockets and the calls of every server, and behind that client.
//!
//! Where a measure has one client there is a second floor, with the engine in it: it executes the statements
//! that it is sent, with their parameters, on a store and a log of its own. What it leaves out is the session:
//! the answers are still made beforehand, nothing waits, is cancelled, looked at or refused. Against what the
//! same statements take in a loop (`inprocess`), it has the caches that the client and the kernel leave.

use crate::{inprocess::Own, pgbench::Subject};
use anyhow::Context;
use rustix::{buffer::spare_capacity, event::epoll};
use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};
use tempfile::TempDir;
use understudy_sql::Prepared;
use understudy_store::{Txn, Value};
use understudy_tests::servers::{Address, Placement};

/// Longest batch of a client here; pgbench's are shorter than a thousandth of it.
const BATCH_BYTES: usize = 64 << 10;

/// The process.
#[derive(Debug)]
pub(crate) struct Floor {
    child: Child,
    /// Its Unix socket's; goes last.
    directory: TempDir,
    port: u16,
}

impl Floor {
    /// Starts this very program as the floor.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(
        directory: TempDir,
        placement: Placement,
        clients: u32,
        has_engine: bool,
    ) -> anyhow::Result<Self> {
        let mut command = placement.command(std::env::current_exe()?);
        command.arg("--floor").arg(directory.path());
        if has_engine {
            command.arg("--with-engine");
        }
        command.args(["--loops", &placement.jobs().to_string()]);
        command.args(["--clients", &clients.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("no second process")?;
        let told = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(told).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("the floor said {line:?}"))?;
        Ok(Self { child, directory, port })
    }
}

impl Subject for Floor {
    fn name(&self) -> &'static str {
        "the floor"
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn address(&self, over_tcp: bool) -> Address<'_> {
        let directory = self.directory.path().to_str().unwrap_or_default();
        let host = if over_tcp { "127.0.0.1" } else { directory };
        Address { host, port: self.port, user: "bench", password: None }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client's connection.
enum Link {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// A client, and what it prepared.
struct Client {
    link: Link,
    batch: Vec<u8>,
    answer: Vec<u8>,
    statements: HashMap<Vec<u8>, Known>,
    /// Columns of the statement bound last.
    bound: u8,
    engine: Option<Engine>,
    /// The block that it has open.
    txn: Option<Txn>,
}

type Engine = Arc<Mutex<Own>>;

/// A statement that a client prepared.
struct Known {
    /// How many columns it answers with, 0 without rows.
    columns: u8,
    /// What the engine does for it, where there is one.
    step: Option<Step>,
}

enum Step {
    Begin,
    Execute(Box<Prepared>),
    Commit,
}

/// A thread with its clients. A single one is waited for in its read, several in front of their reads.
struct Loop {
    epoll: OwnedFd,
    clients: Mutex<HashMap<u64, Client>>,
}

/// Serves `clients` at a time until it is killed.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn serve(
    directory: &Path,
    (loops, clients): (usize, usize),
    has_engine: bool,
) -> anyhow::Result<()> {
    let log = directory.join("log");
    let engine = if has_engine { Some(Arc::new(Mutex::new(Own::with_bank(&log)?))) } else { None };
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let port = tcp.local_addr()?.port();
    let unix = UnixListener::bind(directory.join(format!(".s.PGSQL.{port}")))?;
    let (give, links) = mpsc::channel();
    let give_tcp = give.clone();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let _ = give_tcp.send(Link::Tcp(stream));
        }
    });
    thread::spawn(move || unix.incoming().flatten().all(|s| give.send(Link::Unix(s)).is_ok()));
    let loops = (0..loops).map(|_| Loop::start()).collect::<anyhow::Result<Vec<_>>>()?;
    println!("{port}");
    for (number, link) in (0..).zip(links) {
        let mut client = Client::new(link, engine.clone());
        if client.greet().is_err() {
            continue;
        }
        match (clients, loops.get(number as usize % loops.len())) {
            (1, _) | (_, None) => drop(thread::spawn(move || while client.serve().is_ok() {})),
            (_, Some(chosen)) => chosen.take(number, client)?,
        }
    }
    Ok(())
}

impl Loop {
    fn start() -> anyhow::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let made = Arc::new(Self { epoll, clients: Mutex::default() });
        let own = Arc::clone(&made);
        thread::spawn(move || own.run());
        Ok(made)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, number: u64, client: Client) -> anyhow::Result<()> {
        let data = epoll::EventData::new_u64(number);
        let mut clients = self.clients();
        epoll::add(&self.epoll, &client.link, data, epoll::EventFlags::IN)?;
        clients.insert(number, client);
        Ok(())
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        while epoll::wait(&self.epoll, spare_capacity(&mut events), None).is_ok() {
            let mut clients = self.clients();
            for event in events.drain(..) {
                let number = event.data.u64();
                if clients.get_mut(&number).is_some_and(|client| client.serve().is_err()) {
                    // Its closed socket leaves the epoll by itself.
                    clients.remove(&number);
                }
            }
        }
    }
}

impl Client {
    fn new(link: Link, engine: Option<Engine>) -> Self {
        Self {
            link,
            batch: vec![0; BATCH_BYTES],
            answer: Vec::new(),
            statements: HashMap::new(),
            bound: 0,
            engine,
            txn: None,
        }
    }

    /// The start-up: no password is asked for.
    fn greet(&mut self) -> io::Result<()> {
        // Over TCP the client asks for encryption first: with eight bytes, and is told no with one.
        while self.link.read(&mut self.batch)? == 8 {
            self.link.write(b"N")?;
        }
        self.say(b'R', &[0; 4]);
        for setting in ["server_version\x0015\0", "client_encoding\0UTF8\0"] {
            self.say(b'S', setting.as_bytes());
        }
        self.say(b'K', &[0; 8]);
        self.say(b'Z', b"I");
        self.send()
    }

    /// Reads a batch and answers it.
    ///
    /// # Errors
    /// When the client left.
    fn serve(&mut self) -> io::Result<()> {
        let read = self.link.read(&mut self.batch)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let batch = std::mem::take(&mut self.batch);
        let mut rest = &batch[..read];
        while let [tag, a, b, c, d, ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
            let body = rest.get(5..length).ok_or(io::ErrorKind::InvalidData)?;
            self.answer(*tag, body).map_err(io::Error::other)?;
            rest = &rest[length..];
        }
        self.batch = batch;
        self.send()
    }

    fn answer(&mut self, tag: u8, body: &[u8]) -> anyhow::Result<()> {
        match tag {
            b'P' => {
                let mut parts = body.split(|byte| *byte == 0);
                let name = parts.next().unwrap_or_default().to_vec();
                let text = str::from_utf8(parts.next().unwrap_or_default())?;
                let columns = columns(text.to_ascii_uppercase().as_bytes());
                let step = self.engine.as_ref().map(|engine| Step::of(text, engine)).transpose()?;
                self.statements.insert(name, Known { columns, step });
                self.say(b'1', b"");
            }
            b'B' => {
                let mut parts = body.splitn(3, |byte| *byte == 0);
                let name = parts.nth(1).unwrap_or_default();
                if let Some(known) = self.statements.get(name) {
                    self.bound = known.columns;
                    if let (Some(step), Some(engine)) = (&known.step, &self.engine) {
                        step.run(engine, &mut self.txn, parts.next().unwrap_or_default())?;
                    }
                }
                self.say(b'2', b"");
            }
            b'D' if self.bound == 0 => self.say(b'n', b""),
            b'D' => self.describe(self.bound),
            b'E' if self.bound == 0 => self.say(b'C', b"UPDATE 1\0"),
            b'E' => {
                let mut row = vec![0, self.bound];
                (0..self.bound).for_each(|_| row.extend_from_slice(b"\0\0\0\x010"));
                self.say(b'D', &row);
                self.say(b'C', b"SELECT 1\0");
            }
            b'S' => self.say(b'Z', b"I"),
            // What pgbench asks of its tables before it begins: how many branches, and no partitions.
            b'Q' => {
                self.describe(3);
                self.say(b'D', b"\0\x03\0\0\0\x011\xff\xff\xff\xff\0\0\0\x010");
                self.say(b'C', b"SELECT 1\0");
                self.say(b'Z', b"I");
            }
            _ => {}
        }
        Ok(())
    }

    /// So many columns "n" of four bytes, told as text.
    fn describe(&mut self, columns: u8) {
        let column = b"n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        let mut body = vec![0, columns];
        (0..columns).for_each(|_| body.extend_from_slice(column));
        self.say(b'T', &body);
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        self.answer.push(tag);
        self.answer.extend_from_slice(&length.to_be_bytes());
        self.answer.extend_from_slice(body);
    }

    fn send(&mut self) -> io::Result<()> {
        let sent = self.link.write(&self.answer);
        self.answer.clear();
        sent
    }
}

impl Step {
    /// The engine's tables are named without pgbench's prefix.
    fn of(text: &str, engine: &Engine) -> anyhow::Result<Self> {
        let text = text.replace("pgbench_", "");
        Ok(match text.trim_end_matches(';') {
            "BEGIN" => Self::Begin,
            "END" => Self::Commit,
            statement => Self::Execute(Box::new(locked(engine).prepare(statement)?)),
        })
    }

    /// `bind` is a Bind from its formats on.
    fn run(&self, engine: &Engine, txn: &mut Option<Txn>, bind: &[u8]) -> anyhow::Result<()> {
        let mut engine = locked(engine);
        match self {
            Self::Begin => *txn = Some(engine.begin()),
            Self::Commit => engine.commit(txn.take().context("no block")?)?,
            Self::Execute(prepared) => {
                let params = parameters(bind).context("parameters of pgbench are integers")?;
                match txn {
                    Some(txn) => engine.execute(prepared, &params, txn)?,
                    None => engine.run(prepared, &params)?,
                }
            }
        }
        Ok(())
    }
}

fn locked(engine: &Engine) -> MutexGuard<'_, Own> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Integers as text, without formats, as pgbench sends them.
fn parameters(bind: &[u8]) -> Option<Vec<Value>> {
    let (head, mut rest) = bind.split_first_chunk::<4>()?;
    let count = u16::from_be_bytes([head[2], head[3]]);
    let mut next = || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (text, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = behind;
        str::from_utf8(text).ok()?.parse().ok().map(Value::Int)
    };
    (0..count).map(|_| next()).collect()
}

/// Columns of a query of the measures, which are names with commas between; 0 for what is no query.
fn columns(text: &[u8]) -> u8 {
    if !text.starts_with(b"SELECT") {
        return 0;
    }
    let list = text.split(|byte| byte.is_ascii_whitespace()).take_while(|word| *word != b"FROM");
    list.flatten().filter(|byte| **byte == b',').count() as u8 + 1
}
