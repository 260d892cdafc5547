//! The operator under the proxy: a process that is started again whenever it ends, as a kubelet would,
//! only at once.

use anyhow::Context;
use std::{
    fs::OpenOptions,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

/// Each life of the operator stands for an election of its own, under this name and a number: the one
/// before is dead for certain, and nobody has to wait until its Lease ends.
pub(crate) const ELECTION: &str = "sieve-operator";
/// An operator that ends so often by itself is not started again.
const FALLS_MAX: u64 = 5;
/// Orders that may wait: one of the test, and one of each connection that the operator writes by.
const KILLS_QUEUED: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    counts: Arc<Counts>,
    kills: mpsc::Sender<Kill>,
}

#[derive(Debug, Default)]
struct Counts {
    life: AtomicU64,
    killed: AtomicU64,
    fell: AtomicU64,
}

/// How the operator is started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// Where it logs to, life after life.
    pub(crate) log: PathBuf,
}

#[derive(Debug)]
struct Kill {
    life: u64,
    done: oneshot::Sender<bool>,
}

impl Supervisor {
    /// Starts the operator for the first time.
    pub(crate) fn start(program: Program) -> Self {
        let (kills, orders) = mpsc::channel(KILLS_QUEUED);
        let counts = Arc::new(Counts::default());
        tokio::spawn(supervise(program, Arc::clone(&counts), orders));
        Self { counts, kills }
    }

    /// The life that the operator is in, from 1.
    pub(crate) fn life(&self) -> u64 {
        self.counts.life.load(Ordering::SeqCst)
    }

    pub(crate) fn killed(&self) -> u64 {
        self.counts.killed.load(Ordering::SeqCst)
    }

    pub(crate) fn fell(&self) -> u64 {
        self.counts.fell.load(Ordering::SeqCst)
    }

    /// SIGKILL, if the operator still lives this life; returns when it is dead, and whether it was this
    /// order that ended it.
    pub(crate) async fn kill(&self, life: u64) -> bool {
        let (done, is_done) = oneshot::channel();
        match self.kills.send(Kill { life, done }).await {
            Ok(()) => is_done.await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

async fn supervise(program: Program, counts: Arc<Counts>, mut orders: mpsc::Receiver<Kill>) {
    while counts.fell.load(Ordering::SeqCst) < FALLS_MAX {
        let life = counts.life.fetch_add(1, Ordering::SeqCst) + 1;
        let mut child = match program.spawn(life) {
            Ok(child) => child,
            Err(error) => {
                eprintln!("sieve: {error:#}");
                counts.fell.store(FALLS_MAX, Ordering::SeqCst);
                return;
            }
        };
        let Some(done) = killed_by(&mut child, life, &mut orders, &counts).await else { continue };
        counts.killed.fetch_add(1, Ordering::SeqCst);
        // Nobody waits for the word where the connection was lost with the operator.
        let _ = done.send(true);
    }
}

/// Waits for the end of a life; `None` when it came by itself.
async fn killed_by(
    child: &mut Child,
    life: u64,
    orders: &mut mpsc::Receiver<Kill>,
    counts: &Counts,
) -> Option<oneshot::Sender<bool>> {
    loop {
        let kill = tokio::select! {
            ended = child.wait() => {
                eprintln!("sieve: the operator ended by itself: {ended:?}");
                counts.fell.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            kill = orders.recv() => kill?,
        };
        if kill.life == life {
            // It may have ended in this very moment, which is as good.
            let _ = child.kill().await;
            return Some(kill.done);
        }
        let _ = kill.done.send(false);
    }
}

impl Program {
    fn spawn(&self, life: u64) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        Command::new(&self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("UNDERSTUDY_ELECTION_LEASE", format!("{ELECTION}-{life}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not run", self.path.display()))
    }
}
