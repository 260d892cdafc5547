//! The two servers of a comparison, this engine and PostgreSQL 15: how they are started, where they run,
//! how they end.

use anyhow::{Context, ensure};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Where Debian keeps PostgreSQL 15.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
/// Longest start of a server.
const STARTS: Duration = Duration::from_secs(60);
/// Longest end of one before it is killed.
const ENDS: Duration = Duration::from_secs(30);
/// What a server tells of itself, beside its files.
const LOG: &str = "log";
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// The user on both sides, and the password for what needs one.
const USER: &str = "bench";
const PASSWORD: &str = "bench";
/// The database on both sides.
pub const DATABASE: &str = "bench";

/// What a commit waits for, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the log follows within moments.
    Async,
    /// fsync.
    Disk,
}

/// Which processors server and client have (research/wire-and-engine-measurements §0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Server and client on one.
    S,
    /// Both on all.
    N,
}

impl Placement {
    /// A command that runs there.
    #[must_use]
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::S => {
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
            Self::N => Command::new(program),
        }
    }

    /// Threads of a client there.
    #[must_use]
    pub fn jobs(self) -> u32 {
        match self {
            Self::S => 1,
            Self::N => 2,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::N => "N",
        }
    }
}

/// How a client comes to a server.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Name, or directory of its socket.
    pub host: &'a str,
    /// TCP port, and the number in the socket's name.
    pub port: u16,
    /// Who.
    pub user: &'static str,
    /// `None` where none is asked for.
    pub password: Option<&'static str>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This engine, by the path of its program.
    Ours,
    /// PostgreSQL 15.
    Peer,
}

/// One of the two.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    child: Child,
    socket_dir: String,
    port: u16,
    /// Only over TCP.
    password: Option<&'static str>,
    /// From exec until it answered.
    started_in: Duration,
}

/// Both.
#[derive(Debug)]
pub struct Servers {
    /// This engine, without a cluster.
    pub ours: Server,
    /// PostgreSQL 15.
    pub peer: Server,
    /// What their commits wait for.
    pub durability: Durability,
    /// Where they run.
    pub placement: Placement,
    /// Their files; it goes last.
    directory: TempDir,
}

impl Servers {
    /// Starts both, with their files in a new directory in `place`.
    ///
    /// # Errors
    /// When one does not start; nothing is left of the other.
    pub fn start(
        program: &Path,
        place: &Path,
        durability: Durability,
        placement: Placement,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("understudy-beside-")
            // PostgreSQL runs as a user of its own.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(place)
            .with_context(|| format!("no directory in {}", place.display()))?;
        let start = |kind: Kind, name| {
            Server::start(kind, program, &directory.path().join(name), durability, placement)
        };
        let (ours, peer) = (start(Kind::Ours, "ours")?, start(Kind::Peer, "peer")?);
        Ok(Self { ours, peer, durability, placement, directory })
    }

    /// Where their files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Placement and what the peer was set to.
    #[must_use]
    pub fn settings(&self) -> String {
        settings(self.durability, self.placement)
    }
}

/// Placement, and what both are set to.
#[must_use]
pub fn settings(durability: Durability, placement: Placement) -> String {
    format!(
        "placement {}; ours: {}; PostgreSQL 15: {}",
        placement.word(),
        our_options(durability, placement).join(" "),
        peer_settings(durability).join(" "),
    )
}

impl Server {
    /// Starts one with its files in `place`, which is made when it is not there; what lies there is taken
    /// up again.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        kind: Kind,
        program: &Path,
        place: &Path,
        durability: Durability,
        placement: Placement,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(place)?;
        match kind {
            Kind::Ours => start_ours(program, place, durability, placement),
            Kind::Peer => start_peer(place, durability, placement),
        }
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Ours => "understudy",
            Kind::Peer => "PostgreSQL",
        }
    }

    /// From exec until it answered.
    #[must_use]
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Ends it as a crash does: SIGKILL, or PostgreSQL's immediate stop, which writes as little.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Ours => self.child.kill()?,
            Kind::Peer => {
                let pid = rustix::process::Pid::from_child(&self.child);
                rustix::process::kill_process(pid, rustix::process::Signal::QUIT)?;
            }
        }
        self.child.wait()?;
        Ok(())
    }

    /// Its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How clients reach it.
    #[must_use]
    pub fn address(&self, over_tcp: bool) -> Address<'_> {
        let host = if over_tcp { "127.0.0.1" } else { &self.socket_dir };
        let password = self.password.filter(|_| over_tcp);
        Address { host, port: self.port, user: USER, password }
    }
}

impl Drop for Server {
    /// Asks it to end, and kills it when it does not.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let deadline = Instant::now() + ENDS;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn our_options(durability: Durability, placement: Placement) -> [&'static str; 8] {
    let durability = match durability {
        Durability::Async => "memory",
        Durability::Disk => "local-disk",
    };
    // A session loop for each processor that it is granted.
    let loops = match placement {
        Placement::S => "1",
        Placement::N => "2",
    };
    ["--durability", durability, "--loops", loops, "--memory", "3Gi", "--log-size", "16Gi"]
}

/// What is known to be best for these loads; all else is Debian's.
fn peer_settings(durability: Durability) -> [&'static str; 8] {
    let commit = match durability {
        Durability::Async => "synchronous_commit=off",
        Durability::Disk => "synchronous_commit=on",
    };
    [
        commit,
        "fsync=on",
        "shared_buffers=2GB",
        "wal_level=minimal",
        "max_wal_senders=0",
        "max_wal_size=16GB",
        "checkpoint_timeout=1h",
        "jit=off",
    ]
}

/// What a server that was started in `place` told of itself.
///
/// # Errors
/// When there is no such file.
pub fn log_of(place: &Path) -> anyhow::Result<String> {
    let file = place.join(LOG);
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

fn start_ours(
    program: &Path,
    place: &Path,
    durability: Durability,
    placement: Placement,
) -> anyhow::Result<Server> {
    let password = place.join("password");
    fs::write(&password, PASSWORD)?;
    let port = free_port()?;
    let mut command = placement.command(program);
    command.arg("standalone").arg("--data-dir").arg(place.join("data"));
    command.arg("--socket-dir").arg(place).args(["--port", &port.to_string(), "--admin", USER]);
    command.arg("--password-file").arg(&password);
    command.args(our_options(durability, placement));
    command.env("UNDERSTUDY_LOG", "info").stdout(Stdio::piped());
    command.stderr(fs::File::create(place.join(LOG))?);
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let told = child.stdout.take().context("no standard output")?;
    let mut server = server(Kind::Ours, child, place, port);
    let mut line = String::new();
    BufReader::new(told).read_line(&mut line)?;
    server.started_in = begun.elapsed();
    let is_ready = line.starts_with("ready");
    ensure!(is_ready, "{} did not become ready: {line}{}", program.display(), log_of(place)?);
    Ok(server)
}

fn server(kind: Kind, child: Child, place: &Path, port: u16) -> Server {
    let socket_dir = place.display().to_string();
    let password = (kind == Kind::Ours).then_some(PASSWORD);
    Server { kind, child, socket_dir, port, password, started_in: Duration::ZERO }
}

fn start_peer(
    place: &Path,
    durability: Durability,
    placement: Placement,
) -> anyhow::Result<Server> {
    let data = place.join("data");
    let is_new = !data.exists();
    let data = data.display().to_string();
    if is_new {
        // It refuses to run as root.
        done(Command::new("chown").arg("postgres").arg(place))?;
        let made = ["-D", &data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C"];
        done(as_postgres(Command::new("setpriv"), "initdb").args(made))?;
    }
    let port = free_port()?;
    let mut command = as_postgres(placement.command("setpriv"), "postgres");
    command.args(["-D", &data, "-k"]).arg(place);
    command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    for setting in peer_settings(durability) {
        command.args(["-c", setting]);
    }
    let log = fs::File::create(place.join(LOG))?;
    let begun = Instant::now();
    let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("no PostgreSQL 15")?;
    let mut server = server(Kind::Peer, child, place, port);
    let address = server.address(false);
    let (host, port) = (address.host.to_owned(), port.to_string());
    loop {
        let mut ask = Command::new("pg_isready");
        ask.args(["-q", "-h", &host, "-p", &port]);
        if ask.status().is_ok_and(|status| status.success()) {
            break;
        }
        let ended = server.child.try_wait()?;
        ensure!(ended.is_none(), "PostgreSQL ended: {}", log_of(place)?);
        ensure!(begun.elapsed() < STARTS, "PostgreSQL does not answer: {}", log_of(place)?);
        thread::sleep(LOOK);
    }
    server.started_in = begun.elapsed();
    if is_new {
        let made = ["-h", &host, "-p", &port, "-U", USER, DATABASE];
        done(Command::new("createdb").args(made))?;
    }
    Ok(server)
}

/// PostgreSQL's program, under its own user: `setpriv` is completed.
fn as_postgres(mut setpriv: Command, program: &str) -> Command {
    setpriv.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    setpriv.arg(format!("{POSTGRES}/{program}"));
    setpriv
}

/// Runs a program to its end.
fn done(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {told}");
    Ok(())
}

/// A port that nobody has at this moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
