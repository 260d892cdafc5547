//! The operator under the proxy: a process that is started again whenever it ends, as a kubelet would,
//! only at once. Since a new one takes seconds to be elected, several are started ahead; until its life
//! begins, one of these sees nothing but its own election.

use anyhow::Context;
use serde_json::json;
use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot, watch},
};

/// Each life of the operator stands for an election of its own, under this name and a number: the one
/// before is dead for certain, and nobody has to wait until its Lease ends.
pub(crate) const ELECTION: &str = "sieve-operator";
/// Lives that are started ahead where the operator is to die often.
pub(crate) const SPARES: usize = 6;
/// Begins the path of every request; the number of the life follows.
const LIFE: &str = "/life-";
/// What all lives log, in the scratch directory.
pub(crate) const LOG: &str = "operator.log";
/// An operator that ends so often by itself is not started again.
const FALLS_MAX: u64 = 5;
/// Orders that may wait: one of the test, and one of each connection that the operator writes by.
const KILLS_QUEUED: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    counts: Arc<Counts>,
    kills: mpsc::Sender<Kill>,
    life: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    killed: AtomicU64,
    fell: AtomicU64,
}

/// How the operator is started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Where its configurations and its log lie.
    pub(crate) scratch: PathBuf,
    /// Of the proxy; a life's requests have its number before their path.
    pub(crate) address: String,
    pub(crate) token: String,
    /// Lives that are started ahead.
    pub(crate) spares: usize,
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
        let (begun, life) = watch::channel(0);
        let counts = Arc::new(Counts::default());
        tokio::spawn(supervise(program, Arc::clone(&counts), orders, begun));
        Self { counts, kills, life }
    }

    /// The life that the operator is in, from 1.
    pub(crate) fn life(&self) -> u64 {
        *self.life.borrow()
    }

    /// Waits until this life has begun; false when it never will.
    pub(crate) async fn begins(&self, life: u64) -> bool {
        self.life.clone().wait_for(|now| *now >= life).await.is_ok()
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

async fn supervise(
    program: Program,
    counts: Arc<Counts>,
    mut orders: mpsc::Receiver<Kill>,
    begun: watch::Sender<u64>,
) {
    let mut next = 1;
    let mut lives = VecDeque::new();
    while counts.fell.load(Ordering::SeqCst) < FALLS_MAX {
        while lives.len() <= program.spares {
            match program.spawn(next) {
                Ok(child) => lives.push_back((next, child)),
                Err(error) => {
                    eprintln!("sieve: {error:#}");
                    counts.fell.store(FALLS_MAX, Ordering::SeqCst);
                    return;
                }
            }
            next += 1;
        }
        let Some((life, mut child)) = lives.pop_front() else { return };
        begun.send_replace(life);
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
        let log = self.scratch.join(LOG);
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let kubeconfig = self.scratch.join(format!("kubeconfig-{life}"));
        fs::write(&kubeconfig, self.configuration(life).to_string())?;
        Command::new(&self.path)
            .env("KUBECONFIG", &kubeconfig)
            .env("UNDERSTUDY_ELECTION_LEASE", format!("{ELECTION}-{life}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not run", self.path.display()))
    }

    /// JSON is YAML too.
    fn configuration(&self, life: u64) -> serde_json::Value {
        let server = format!("{}{LIFE}{life}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sieve",
            "clusters": [{"name": "sieve", "cluster": {"server": server}}],
            "users": [{"name": "sieve", "user": {"token": self.token}}],
            "contexts": [{"name": "sieve", "context": {"cluster": "sieve", "user": "sieve"}}],
        })
    }
}

/// The life that a request is of, and its path without it.
pub(crate) fn life_of(path: &str) -> Option<(u64, &str)> {
    let rest = path.strip_prefix(LIFE)?;
    let end = rest.find('/')?;
    Some((rest[..end].parse().ok()?, &rest[end..]))
}
