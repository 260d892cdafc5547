//! PID 1 of the container: starts the engine, waits for it, and proves its death (R10, R10a).
//!
//! ```text
//!   start engine ──▶ it reports its incarnation ──▶ termination log ──▶ leave to act … it lives …
//!        ▲                                                                     │ waitpid
//!        └── at once, later slower ◀── its death is told: peer, Lease, label ◀─┘
//! ```
//!
//! **Invariants.**
//! 1. The termination log names an engine before that engine acts (R10): it acts only after it got
//!    leave.
//! 2. Whatever is told of a death is told after waitpid returned it: the kernel's word.
//! 3. Nothing here waits for the API server or a peer; telling goes on beside the next engine.
//! 4. An engine does not outlive its supervisor (the kernel's parent-death signal).
//!
//! Deliberately absent: every decision about roles, a store, SQL; this process stays small and simple
//! enough never to be the one that dies.

mod engine_process;
mod notices;
mod restart;

pub use engine_process::{Lifeline, LifelineError, StartError, kill_engine, running_engine};
pub use notices::Notices;
pub use restart::EXIT_AGAIN;

use crate::clock;
use async_trait::async_trait;
use engine_process::{EngineProcess, FromEngine};
use restart::Restarts;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait, waitpid,
};
use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};
use understudy_agent_api::{MemberAddress, termination_message};
use understudy_types::Incarnation;

/// How long telling of the last death may hold the end of the container back.
const LAST_WORD_TIMEOUT: Duration = Duration::from_millis(1500);
/// Deaths told at once; an engine that dies faster than it can be told of is not worth more.
const NOTICES_MAX: usize = 8;
/// Engines named in the termination log.
const ENGINES_NAMED_MAX: usize = 64;

/// Usual [`Settings::linger`]: endpoints follow a pod's deletion within this time.
const LINGER: Duration = Duration::from_secs(2);

/// What is run, and where its traces go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its arguments, usually `engine`.
    pub arguments: Vec<OsString>,
    /// Directory for the engine's pid.
    pub run_dir: PathBuf,
    /// The container's termination log.
    pub termination_log: PathBuf,
    /// From the first request to stop until the engine is killed.
    pub grace: Duration,
    /// After a stop, how long this process stays: while it does, its pod's kernel refuses connections at
    /// once, and nobody waits a second for a repeated SYN before the Services forget the pod.
    pub linger: Duration,
    /// First pause after an engine died twice quickly; doubled each time.
    pub pause: Duration,
}

impl Settings {
    /// For this very program.
    ///
    /// # Errors
    /// When the running program cannot be named.
    pub fn of_this_program(config: &crate::config::Config) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: vec!["engine".into()],
            run_dir: config.run_dir.clone(),
            termination_log: config.termination_log.clone(),
            grace: config.grace,
            linger: LINGER,
            pause: restart::PAUSE_FIRST,
        })
    }
}

/// The death of an engine that had acted, or could have.
#[derive(Debug, Clone)]
pub struct Death {
    /// Which process.
    pub incarnation: Incarnation,
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// Which engine of this supervisor, counted from one.
    pub number: u64,
    /// Number of the newest engine that was allowed to act; what it writes is newer than this news.
    pub newest: Arc<AtomicU64>,
}

impl Death {
    /// Whether a later engine acts already.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.newest.load(Ordering::Acquire) > self.number
    }
}

/// Who learns of a death.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// The pair's voters changed; whom to tell follows from that.
    fn voters(&self, voters: Vec<MemberAddress>);
    /// Tells everybody; returns when all know it or it is not worth telling any more.
    async fn tell(&self, death: Death);
}

/// Why the supervisor cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// No signal handler.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// The program cannot be run.
    #[error("failed to start the engine")]
    Start(#[source] StartError),
    /// The kernel does not say how the engine is.
    #[error("failed to wait for the engine")]
    Wait(#[source] io::Error),
}

/// Runs engines until asked to stop by SIGTERM or SIGINT; returns the exit code for this process. Call
/// it from the main thread: the parent-death signal follows the thread that started the engine.
///
/// # Errors
/// When engines cannot be run at all.
pub async fn run(settings: Settings, witness: Arc<dyn Witness>) -> Result<i32, SupervisorError> {
    let (stop, stops) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate()).map_err(SupervisorError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SupervisorError::Signals)?;
    let signals = async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => {}
                Some(()) = interrupt.recv() => {}
                else => return,
            }
            // Full means that a request waits already; closed, that nobody is left to ask.
            let _ = stop.try_send(());
        }
    };
    // Children of a dead engine become ours, as they do for PID 1 anyway.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::warn!(%error, "orphans of an engine will not be taken in");
    }
    tokio::select! {
        code = supervise(settings, witness, stops, Reaping::All) => code,
        () = signals => unreachable!("signals are listened to for ever"),
    }
}

/// The same with any source of requests to stop, in a process that has other children of its own.
///
/// # Errors
/// When engines cannot be run at all.
pub async fn run_until(
    settings: Settings,
    witness: Arc<dyn Witness>,
    stops: mpsc::Receiver<()>,
) -> Result<i32, SupervisorError> {
    supervise(settings, witness, stops, Reaping::EngineOnly).await
}

/// Whose end is taken in by waitpid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaping {
    /// The engine's: other children belong to others.
    EngineOnly,
    /// Everybody's: this process is a supervisor and nothing else.
    All,
}

async fn supervise(
    settings: Settings,
    witness: Arc<dyn Witness>,
    stops: mpsc::Receiver<()>,
    reaping: Reaping,
) -> Result<i32, SupervisorError> {
    let children = signal(SignalKind::child()).map_err(SupervisorError::Signals)?;
    let restarts = Restarts::new(settings.pause);
    let supervisor = Supervisor {
        settings,
        witness,
        stops,
        children,
        reaping,
        restarts,
        deadline: None,
        engines: Vec::new(),
        newest: Arc::default(),
        notices: JoinSet::new(),
    };
    supervisor.run().await
}

struct Supervisor {
    settings: Settings,
    witness: Arc<dyn Witness>,
    stops: mpsc::Receiver<()>,
    children: tokio::signal::unix::Signal,
    reaping: Reaping,
    restarts: Restarts,
    /// When the engine is killed; `None` while nobody asked to stop.
    deadline: Option<Instant>,
    /// Engines that reported, newest first.
    engines: Vec<Incarnation>,
    newest: Arc<AtomicU64>,
    notices: JoinSet<()>,
}

/// How a life ended.
struct Ended {
    exit_code: i32,
    incarnation: Option<Incarnation>,
}

impl Supervisor {
    async fn run(mut self) -> Result<i32, SupervisorError> {
        let mut number = 0;
        loop {
            number += 1;
            let started = clock::now();
            let engine = EngineProcess::start(&self.settings).map_err(SupervisorError::Start)?;
            engine_process::write_pid(&self.settings.run_dir, engine.pid());
            let ended = self.live(engine, number).await?;
            let lived = clock::now().since(started);
            engine_process::remove_pid(&self.settings.run_dir);
            let is_stopping = self.deadline.is_some();
            tracing::warn!(
                exit_code = ended.exit_code,
                incarnation = ended.incarnation.map(tracing::field::display),
                lived_ms = lived.as_millis(),
                is_stopping,
                "the engine ended"
            );
            self.announce(&ended, number).await;
            let pause = self.restarts.after(ended.exit_code, lived);
            if is_stopping || self.pause(pause).await {
                tokio::join!(tokio::time::sleep(self.settings.linger), self.finish());
                return Ok(ended.exit_code);
            }
        }
    }

    /// From the start of an engine to its end.
    async fn live(
        &mut self,
        mut engine: EngineProcess,
        number: u64,
    ) -> Result<Ended, SupervisorError> {
        let mut incarnation = None;
        if self.deadline.is_some() {
            engine.signal(Signal::TERM);
        }
        loop {
            // The signal may have come before this look: look first, then wait.
            if let Some(exit_code) =
                self.reaping.reap(engine.pid()).map_err(SupervisorError::Wait)?
            {
                // What it still said before it died counts: its incarnation may be among it.
                while let Some(message) = engine.said_before_death().await {
                    self.heard(message, &mut engine, &mut incarnation, number).await;
                }
                return Ok(Ended { exit_code, incarnation });
            }
            tokio::select! {
                _ = self.children.recv() => {}
                message = engine.says() => {
                    self.heard(message, &mut engine, &mut incarnation, number).await;
                }
                Some(()) = self.stops.recv() => self.begin_to_stop(&engine),
                () = at(self.deadline) => {
                    tracing::warn!("the engine did not end in time and is killed");
                    self.deadline = Some(Instant::now() + self.settings.grace);
                    engine.signal(Signal::KILL);
                }
            }
        }
    }

    fn begin_to_stop(&mut self, engine: &EngineProcess) {
        if self.deadline.is_none() {
            tracing::info!("asked to stop: the engine hands over");
            self.deadline = Some(Instant::now() + self.settings.grace);
            engine.signal(Signal::TERM);
        }
    }

    async fn heard(
        &mut self,
        message: FromEngine,
        engine: &mut EngineProcess,
        incarnation: &mut Option<Incarnation>,
        number: u64,
    ) {
        match message {
            FromEngine::Voters(voters) => self.witness.voters(voters),
            FromEngine::Incarnation(said) if said.id != engine.id() || incarnation.is_some() => {
                tracing::error!(%said, "the engine reported a life that is not its own");
                engine.signal(Signal::KILL);
            }
            FromEngine::Incarnation(said) => {
                *incarnation = Some(said);
                self.engines.insert(0, said);
                self.engines.truncate(ENGINES_NAMED_MAX);
                let message = termination_message(&self.engines);
                let log = &self.settings.termination_log;
                if let Err(error) = engine_process::write_termination_log(log, &message) {
                    // Without it only the kubelet's proof of death is missing: slower, and as safe.
                    tracing::warn!(%error, path = %log.display(), "failed to write the termination log");
                }
                self.newest.store(number, Ordering::Release);
                engine.go(&self.engines[1..]).await;
            }
        }
    }

    /// Begins to tell of a death, and lets the telling start before the next engine does.
    async fn announce(&mut self, ended: &Ended, number: u64) {
        // An engine that never reported has not acted: there is nothing to prove.
        let Some(incarnation) = ended.incarnation else { return };
        while self.notices.try_join_next().is_some() {}
        if self.notices.len() >= NOTICES_MAX {
            tracing::warn!(%incarnation, "too many deaths at once; this one is not told");
            return;
        }
        let exit_code = ended.exit_code;
        let newest = Arc::clone(&self.newest);
        let death = Death { incarnation, exit_code, number, newest };
        let witness = Arc::clone(&self.witness);
        self.notices.spawn(async move { witness.tell(death).await });
        tokio::task::yield_now().await;
    }

    /// Waits before the next start; true when asked to stop meanwhile.
    async fn pause(&mut self, pause: Duration) -> bool {
        if pause.is_zero() {
            return self.stops.try_recv().is_ok();
        }
        tracing::info!(pause_ms = pause.as_millis() as u64, "the engine is started again later");
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                Some(()) = self.stops.recv() => return true,
                // Orphans end at any time, and PID 1 is their parent.
                _ = self.children.recv() => self.reaping.reap_orphans(),
                () = tokio::time::sleep_until(end) => return false,
            }
        }
    }

    async fn finish(&mut self) {
        let told = async { while self.notices.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORD_TIMEOUT, told).await.is_err() {
            tracing::info!("the last death was not told to everybody; the kubelet's word remains");
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Reaping {
    /// The exit code of the engine when it has ended.
    fn reap(self, engine: Pid) -> io::Result<Option<i32>> {
        match self {
            Reaping::EngineOnly => {
                let ended = waitpid(Some(engine), WaitOptions::NOHANG)?;
                Ok(ended.map(|(_, status)| exit_code(status)))
            }
            Reaping::All => {
                while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
                    if pid == engine {
                        return Ok(Some(exit_code(status)));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Takes in ended children of others while no engine runs; none at all is no trouble then.
    fn reap_orphans(self) {
        match self {
            Reaping::EngineOnly => {}
            Reaping::All => while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {},
        }
    }
}

fn exit_code(status: rustix::process::WaitStatus) -> i32 {
    let by_signal = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(by_signal).unwrap_or(-1)
}

fn send(pid: Pid, signal: Signal) {
    // It may have ended in this moment; waitpid will say so.
    if let Err(error) = kill_process(pid, signal) {
        tracing::debug!(%error, "the engine could not be signalled");
    }
}

#[cfg(test)]
#[path = "supervisor/tests.rs"]
mod tests;
