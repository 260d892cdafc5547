//! The two servers of a comparison: how they are started, where they run, how they end.

use crate::{Arguments, pgbench};
use anyhow::{Context, ensure};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where Debian keeps PostgreSQL 15.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
/// Longest start of a server.
const STARTS: Duration = Duration::from_secs(60);
/// Longest end of one before it is killed.
const ENDS: Duration = Duration::from_secs(30);
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// The user on both sides, and the password for what needs one.
const USER: &str = "bench";
const PASSWORD: &str = "bench";

/// What a commit waits for, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing: the log follows within moments.
    Async,
    /// fsync.
    Disk,
}

/// Which processors server and client have (research/wire-and-engine-measurements §0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Server and client on one.
    S,
    /// Both on all.
    N,
}

impl Placement {
    /// A command that runs there.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
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
    pub(crate) fn jobs(self) -> u32 {
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
pub(crate) struct Address<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) user: &'static str,
    pub(crate) password: Option<&'static str>,
}

/// One of the two.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    socket_dir: String,
    port: u16,
    /// Only over TCP.
    password: Option<&'static str>,
}

/// Both, with pgbench's tables.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) ours: Server,
    pub(crate) peer: Server,
    pub(crate) durability: Durability,
    pub(crate) placement: Placement,
    pub(crate) directory: PathBuf,
}

impl Servers {
    pub(crate) fn start(
        arguments: &Arguments,
        durability: Durability,
        placement: Placement,
    ) -> anyhow::Result<Self> {
        let directory = arguments.directory.clone();
        remove(&directory)?;
        fs::create_dir_all(&directory)?;
        let ours = start_ours(&arguments.understudy, &directory, durability, placement)?;
        let peer = start_peer(&directory, durability, placement)?;
        let servers = Self { ours, peer, durability, placement, directory };
        pgbench::fill(&servers.ours)?;
        pgbench::fill(&servers.peer)?;
        Ok(servers)
    }

    /// Placement and what the peer was set to.
    pub(crate) fn settings(&self) -> String {
        format!(
            "placement {}; ours: {}; PostgreSQL 15: {}",
            self.placement.word(),
            our_options(self.durability, self.placement).join(" "),
            peer_settings(self.durability).join(" "),
        )
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in [&mut self.ours, &mut self.peer] {
            server.stop();
        }
        // What cannot be removed is removed at the next start, or said then.
        let _ = remove(&self.directory);
    }
}

impl Server {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self, over_tcp: bool) -> Address<'_> {
        let host = if over_tcp { "127.0.0.1" } else { &self.socket_dir };
        let password = self.password.filter(|_| over_tcp);
        Address { host, port: self.port, user: USER, password }
    }

    /// Asks it to end, and kills it when it does not.
    fn stop(&mut self) {
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

fn our_options(durability: Durability, placement: Placement) -> Vec<String> {
    let durability = match durability {
        Durability::Async => "memory",
        Durability::Disk => "local-disk",
    };
    // A session loop for each processor that it is granted.
    let loops = match placement {
        Placement::S => "1",
        Placement::N => "2",
    };
    let options =
        ["--durability", durability, "--loops", loops, "--memory", "3Gi", "--log-size", "16Gi"];
    options.map(str::to_owned).to_vec()
}

/// What is known to be best for these loads; all else is Debian's.
fn peer_settings(durability: Durability) -> Vec<&'static str> {
    let commit = match durability {
        Durability::Async => "synchronous_commit=off",
        Durability::Disk => "synchronous_commit=on",
    };
    vec![
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

fn start_ours(
    program: &Path,
    directory: &Path,
    durability: Durability,
    placement: Placement,
) -> anyhow::Result<Server> {
    let place = directory.join("ours");
    fs::create_dir_all(&place)?;
    let password = place.join("password");
    fs::write(&password, PASSWORD)?;
    let port = free_port()?;
    let mut command = placement.command(program);
    command.arg("standalone").arg("--data-dir").arg(place.join("data"));
    command.arg("--socket-dir").arg(&place).args(["--port", &port.to_string(), "--admin", USER]);
    command.arg("--password-file").arg(&password);
    command.args(our_options(durability, placement));
    command.env("UNDERSTUDY_LOG", "warn").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let told = child.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(told).read_line(&mut line)?;
    if !line.starts_with("ready") {
        let _ = child.kill();
        anyhow::bail!("{} did not become ready: {line}", program.display());
    }
    let socket_dir = place.display().to_string();
    Ok(Server { name: "understudy", child, socket_dir, port, password: Some(PASSWORD) })
}

fn start_peer(
    directory: &Path,
    durability: Durability,
    placement: Placement,
) -> anyhow::Result<Server> {
    let place = directory.join("peer");
    fs::create_dir_all(&place)?;
    // It refuses to run as root.
    as_postgres("chown", &["-R", "postgres", &place.display().to_string()], false)?;
    let data = place.join("data").display().to_string();
    let made = ["-D", &data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C"];
    as_postgres(&format!("{POSTGRES}/initdb"), &made, true)?;
    let port = free_port()?;
    let mut command = placement.command("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    command.arg(format!("{POSTGRES}/postgres")).args(["-D", &data, "-k"]).arg(&place);
    command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    for setting in peer_settings(durability) {
        command.args(["-c", setting]);
    }
    let log = fs::File::create(directory.join("peer.log"))?;
    let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("no PostgreSQL 15")?;
    let socket_dir = place.display().to_string();
    let mut server = Server { name: "PostgreSQL", child, socket_dir, port, password: None };
    let deadline = Instant::now() + STARTS;
    loop {
        let address = server.address(false);
        let mut ask = Command::new("pg_isready");
        ask.args(["-q", "-h", address.host, "-p", &address.port.to_string()]);
        if ask.status().is_ok_and(|status| status.success()) {
            break;
        }
        let ended = server.child.try_wait()?;
        ensure!(ended.is_none(), "PostgreSQL ended: {}", log_of(directory));
        ensure!(Instant::now() < deadline, "PostgreSQL does not answer: {}", log_of(directory));
        thread::sleep(LOOK);
    }
    let address = server.address(false);
    let port = port.to_string();
    let made = ["-h", address.host, "-p", &port, "-U", USER, "bench"];
    let status = Command::new("createdb").args(made).status()?;
    if !status.success() {
        server.stop();
        anyhow::bail!("PostgreSQL made no database");
    }
    Ok(server)
}

fn log_of(directory: &Path) -> String {
    fs::read_to_string(directory.join("peer.log")).unwrap_or_default()
}

fn as_postgres(program: &str, arguments: &[&str], drops: bool) -> anyhow::Result<()> {
    let mut command = if drops {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", program]);
        command
    } else {
        Command::new(program)
    };
    let output = command.args(arguments).output().with_context(|| format!("no {program}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {told}");
    Ok(())
}

/// A port that nobody has at this moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
}
