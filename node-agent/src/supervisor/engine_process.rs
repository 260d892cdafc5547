//! The engine as its supervisor has it: a child process with a socket as its standard input.
//!
//! Over that socket both say lines of JSON: the engine [`FromEngine`], the supervisor once [`ToEngine`],
//! which is the leave to act. A socket on standard input needs no code between fork and exec, and no file descriptor made
//! from a number.
//!
//! Both ends are here, so that they cannot disagree.

use super::{Settings, send};
use futures::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio_util::codec::{Framed, LinesCodec};
use understudy_agent_api::MemberAddress;
use understudy_types::Incarnation;
use uuid::Uuid;

/// Variable by which the supervisor names the engine's life.
const ENV_INCARNATION_ID: &str = "UNDERSTUDY_INCARNATION_ID";
/// Variable with the supervisor's pid, so that the engine notices a parent that is gone already.
const ENV_SUPERVISOR_PID: &str = "UNDERSTUDY_SUPERVISOR_PID";
/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 10;
/// File with the engine's pid.
const PID_FILE: &str = "engine.pid";

/// What an engine says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum FromEngine {
    /// First of all: which life this is.
    Incarnation(Incarnation),
    /// Whom to tell of its death, whenever that changes.
    Voters(Vec<MemberAddress>),
}

/// What an engine is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ToEngine {
    /// It may act.
    Go {
        /// Earlier engines of this supervisor, each reaped: proofs of death for R7 and R11.
        dead: Vec<Incarnation>,
    },
}

/// Why an engine was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No socket for it.
    #[error("failed to make the engine's socket")]
    Socket(#[source] io::Error),
    /// The program does not run.
    #[error("failed to run {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running engine.
pub(super) struct EngineProcess {
    pid: Pid,
    id: Uuid,
    /// `None` after the engine closed its end or talked garbage.
    socket: Option<Framed<tokio::net::UnixStream, LinesCodec>>,
}

impl EngineProcess {
    pub(super) fn start(settings: &Settings) -> Result<Self, StartError> {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Socket)?;
        ours.set_nonblocking(true).map_err(StartError::Socket)?;
        let ours = tokio::net::UnixStream::from_std(ours).map_err(StartError::Socket)?;
        let id = Uuid::new_v4();
        // Not kept: waiting for it is done by waitpid, which takes in orphans as well.
        let child = Command::new(&settings.program)
            .args(&settings.arguments)
            .env(ENV_INCARNATION_ID, id.to_string())
            .env(ENV_SUPERVISOR_PID, std::process::id().to_string())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .map_err(|source| StartError::Spawn { program: settings.program.clone(), source })?;
        let socket = Framed::new(ours, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
        Ok(Self { pid: Pid::from_child(&child), id, socket: Some(socket) })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// The next thing it says; never, when it is silent for good. Safe to cancel.
    pub(super) async fn says(&mut self) -> FromEngine {
        match self.next_message().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// What it said before it died and was not yet heard.
    pub(super) async fn said_before_death(&mut self) -> Option<FromEngine> {
        tokio::select! {
            biased;
            message = self.next_message() => message,
            // Only when a child of the engine lives on and holds the socket open.
            () = tokio::time::sleep(Duration::from_millis(5)) => None,
        }
    }

    /// `None` at the end of what it says.
    async fn next_message(&mut self) -> Option<FromEngine> {
        let line = self.socket.as_mut()?.next().await;
        match line.map(|line| line.map(|line| serde_json::from_str(&line))) {
            Some(Ok(Ok(message))) => return Some(message),
            None => {}
            Some(Ok(Err(error))) => {
                tracing::error!(%error, "the engine says what nobody understands");
            }
            Some(Err(error)) => tracing::debug!(%error, "the engine's socket broke"),
        }
        self.socket = None;
        None
    }

    /// Lets it act, and tells it which engines before it are dead.
    pub(super) async fn go(&mut self, dead: &[Incarnation]) {
        let leave = ToEngine::Go { dead: dead.to_vec() };
        let line = serde_json::to_string(&leave).expect("messages are plain data");
        if let Some(socket) = &mut self.socket
            && let Err(error) = socket.send(line).await
        {
            tracing::debug!(%error, "the engine ended before it could act");
        }
    }
}

/// Why an engine cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LifelineError {
    /// A variable of the supervisor's is garbled.
    #[error("{0} is not what a supervisor writes")]
    Variable(&'static str),
    /// The supervisor is gone.
    #[error("the supervisor is gone")]
    Orphaned,
    /// The socket broke.
    #[error("failed to talk with the supervisor")]
    Socket(#[source] io::Error),
}

/// The engine's end: its life hangs on it.
#[derive(Debug)]
pub struct Lifeline {
    id: Uuid,
    socket: UnixStream,
}

impl Lifeline {
    /// Takes up the line when a supervisor started this process; `None` when nobody did (an engine run
    /// by hand proves its death by no one but the kubelet). From here the kernel kills this process
    /// when its supervisor dies.
    ///
    /// # Errors
    /// When the supervisor is gone already or wrote nonsense.
    pub fn take() -> Result<Option<Self>, LifelineError> {
        let Ok(id) = std::env::var(ENV_INCARNATION_ID) else { return Ok(None) };
        let id = id.parse().map_err(|_| LifelineError::Variable(ENV_INCARNATION_ID))?;
        let parent: i32 = std::env::var(ENV_SUPERVISOR_PID)
            .ok()
            .and_then(|pid| pid.parse().ok())
            .ok_or(LifelineError::Variable(ENV_SUPERVISOR_PID))?;
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| LifelineError::Socket(error.into()))?;
        // It may have died before the line above.
        if getppid().map(Pid::as_raw_pid) != Some(parent) {
            return Err(LifelineError::Orphaned);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(LifelineError::Socket)?;
        Ok(Some(Self { id, socket: UnixStream::from(socket) }))
    }

    /// The identity of this life, to be used in its [`Incarnation`].
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Reports this life and waits for leave to act. Nothing that another process can see may be done
    /// before this returns (R10). Gives the earlier engines of the same supervisor: all of them were
    /// reaped, so each is proven dead.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn begin(&mut self, incarnation: Incarnation) -> Result<Vec<Incarnation>, LifelineError> {
        self.say(&FromEngine::Incarnation(incarnation))?;
        let mut answer = String::new();
        let reader = self.socket.try_clone().map_err(LifelineError::Socket)?;
        let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
        reader.read_line(&mut answer).map_err(LifelineError::Socket)?;
        match serde_json::from_str(&answer) {
            Ok(ToEngine::Go { dead }) => Ok(dead),
            Err(_) => Err(LifelineError::Orphaned),
        }
    }

    /// Names whom to tell of this process's death.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn name_voters(&mut self, voters: &[MemberAddress]) -> Result<(), LifelineError> {
        self.say(&FromEngine::Voters(voters.to_vec()))
    }

    fn say(&mut self, message: &FromEngine) -> Result<(), LifelineError> {
        let mut line = serde_json::to_string(message).expect("messages are plain data");
        line.push('\n');
        self.socket.write_all(line.as_bytes()).map_err(LifelineError::Socket)
    }
}

/// Names the engine for `understudy fault kill-engine`. Without the file only that command fails.
pub(super) fn write_pid(run_dir: &Path, pid: Pid) {
    let write = || -> io::Result<()> {
        let next = run_dir.join("engine.pid.next");
        fs::write(&next, format!("{}\n", pid.as_raw_pid()))?;
        fs::rename(next, run_dir.join(PID_FILE))
    };
    if let Err(error) = write() {
        tracing::warn!(%error, dir = %run_dir.display(), "failed to note the engine's pid");
    }
}

pub(super) fn remove_pid(run_dir: &Path) {
    // A file that is not there was never written, which was told then.
    let _ = fs::remove_file(run_dir.join(PID_FILE));
}

/// Pid of the engine that a supervisor on this machine runs, noted in `run_dir`.
///
/// # Errors
/// When no engine runs or the directory is not its.
pub fn running_engine(run_dir: &Path) -> io::Result<Pid> {
    let text = fs::read_to_string(run_dir.join(PID_FILE))?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, format!("`{text}` is not a pid"));
    // Neither PID 1 nor a group: whoever reads this wants to send a signal.
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1).ok_or_else(garbled)?;
    Pid::from_raw(pid).ok_or_else(garbled)
}

/// Kills the engine that runs here, as a fault would (SIGKILL); gives its pid.
///
/// # Errors
/// When no engine runs or it may not be killed.
pub fn kill_engine(run_dir: &Path) -> io::Result<Pid> {
    let pid = running_engine(run_dir)?;
    kill_process(pid, Signal::KILL)?;
    Ok(pid)
}

/// Writes the whole message in place: the file is a mount, which cannot be renamed over. A torn write
/// names nobody, which proves nothing.
pub(super) fn write_termination_log(path: &Path, message: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(message.as_bytes())?;
    match file.sync_data() {
        // Not every file system that a log is mounted from can do it; the kubelet reads the cache.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
