//! The place of the campaign: one pair that lives through run after run, and what was broken around it.

use super::{
    Dice,
    faults::{End, Fault, LogVolume, Vantage},
    words::Listening,
};
use crate::{
    pair::{Namespace, Outcome, Pair, READY, delete_namespace},
    shell::{OPERATOR, Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fmt, thread,
    time::{Duration, Instant},
};

/// The pair's name in its namespace.
const PAIR: &str = "orders";
/// The cluster's nodes.
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// The fault comes at a random moment of this length, once the load has begun.
const MOMENTS_MS: u64 = 3_000;
/// Load before the first of these moments.
const LOAD_FIRST: Duration = Duration::from_millis(1_500);

/// Tables of the load and of faults; what earlier runs left in them would fill the memory in the end.
const LOADED: [&str; 4] =
    ["understudy_demo_history", "understudy_demo_accounts", "lists", super::disks::BULK];

/// How long the pair must stay whole before it counts: what the status says right after the API server
/// came back is what it said before.
const STEADY: Duration = Duration::from_secs(2);
/// Longest time until every node's proxy leads where it should.
const ROUTED: Duration = Duration::from_secs(60);
/// Longest time until the other member has taken over.
pub(crate) const TAKES_OVER: Duration = Duration::from_secs(30);
/// Longest time until a broken pair is whole again.
const WHOLE: Duration = Duration::from_secs(120);

/// What a pair promises in a run, in the words of `spec.replication`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) returns: &'static str,
    pub(crate) durability: &'static str,
    pub(crate) standby_lost: &'static str,
}

impl Promise {
    fn spec(self) -> Value {
        json!({"replication": {
            "returnService": self.returns,
            "durability": self.durability,
            "whenStandbyLost": self.standby_lost,
        }})
    }

    fn is_told(self, effective: &Value) -> bool {
        effective["returnService"] == self.returns
            && effective["durability"] == self.durability
            && effective["whenStandbyLost"] == self.standby_lost
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.returns, self.durability, self.standby_lost)
    }
}

/// See the module.
pub(crate) struct Arena<'a> {
    pub(crate) shell: &'a Shell,
    namespace: Option<Namespace<'a>>,
    pairs: u32,
    promise: Option<Promise>,
    log: LogVolume,
    /// What the object said in the last run.
    heard: BTreeSet<String>,
}

/// What a fault works on.
pub(crate) struct Scene<'a> {
    pub(crate) shell: &'a Shell,
    pub(crate) pair: &'a Pair<'a>,
    pub(crate) active: String,
    pub(crate) standby: String,
    pub(crate) dice: Dice,
    /// The highest epoch that was on the Lease.
    pub(crate) epoch: u64,
    /// What a run shows beside its verdict.
    notes: Vec<String>,
    /// Whether the Lease named a standby in sync when the fault came; a busy machine may lose one.
    was_in_sync: bool,
}

impl<'a> Arena<'a> {
    pub(crate) fn new(shell: &'a Shell) -> Self {
        Self {
            shell,
            namespace: None,
            pairs: 0,
            promise: None,
            log: LogVolume::Large,
            heard: BTreeSet::new(),
        }
    }

    pub(crate) fn namespace_name(&self) -> Option<String> {
        self.namespace.as_ref().map(|n| n.name.clone())
    }

    /// What the pair's object said in the last run.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &str> {
        self.heard.iter().map(String::as_str)
    }

    /// One fault under load; the pair is whole before and after.
    pub(crate) fn run(&mut self, fault: &Fault, round: u32, dice: Dice) -> anyhow::Result<Outcome> {
        let promise = fault.promises[round as usize % fault.promises.len()];
        self.prepare(fault.log, promise)?;
        let outcome = self.watched(fault, promise, dice);
        if fault.end != End::Whole {
            self.close();
        }
        outcome
    }

    /// Breaks the pair, and hears what its object says meanwhile.
    fn watched(&mut self, fault: &Fault, promise: Promise, dice: Dice) -> anyhow::Result<Outcome> {
        let namespace = self.namespace.as_ref().context("no namespace")?;
        let pair = Pair::existing(self.shell, namespace, PAIR);
        let is_afar = fault.vantage == Vantage::Anywhere || is_operator_afar(&pair)?;
        let listening = Listening::to(&pair)?;
        let outcome = self.break_pair(fault, promise, dice);
        self.heard = listening.heard();
        let mut outcome = outcome?;
        if !is_afar {
            outcome.note.push_str("  operator on a member's node: words not judged");
            return Ok(outcome);
        }
        for wanted in fault.says {
            ensure!(
                self.heard.contains(*wanted),
                "the object never said `{wanted}`, but {:?}",
                self.heard
            );
        }
        Ok(outcome)
    }

    fn break_pair(
        &self,
        fault: &Fault,
        promise: Promise,
        mut dice: Dice,
    ) -> anyhow::Result<Outcome> {
        let namespace = self.namespace.as_ref().context("no namespace")?;
        let pair = Pair::existing(self.shell, namespace, PAIR);
        let (active, standby) = wait_steady(&pair).context("before the fault")?;
        for table in LOADED {
            // The nodes' proxies may be behind when the API server has just come back.
            wait_for("an old table is dropped", ROUTED, || {
                pair.psql(&format!("{PAIR}-active"), &format!("DROP TABLE IF EXISTS {table}"))
                    .map(Some)
            })?;
        }
        (fault.before)(&pair)?;
        let recording = pair.record(fault.load_seconds)?;
        let appending = pair.append(fault.load_seconds, dice.below(u64::MAX))?;
        // Not a condition: the fault comes at a random moment of the load.
        thread::sleep(LOAD_FIRST + Duration::from_millis(dice.below(MOMENTS_MS)));
        let record = pair.lease_record()?;
        let mut scene = Scene {
            shell: self.shell,
            pair: &pair,
            active,
            standby,
            dice,
            epoch: record["epoch"].as_u64().context("the Lease has no epoch")?,
            notes: Vec::new(),
            was_in_sync: !record["sync"].is_null(),
        };
        let injected = (fault.inject)(&mut scene);
        if fault.end == End::Destroyed {
            recording.abandon()?;
            appending.abandon()?;
            injected.context("the fault was not injected")?;
            (fault.check)(&mut scene)?;
            return Ok(Outcome { note: scene.notes.join(", "), ..Outcome::default() });
        }
        let (recorded, appended) = (recording.verdict(), appending.finish());
        injected.context("the fault was not injected")?;
        let mut outcome = recorded?;
        let lists = appended?;
        wait_steady(&pair).context("after the fault")?;
        (fault.check)(&mut scene)?;
        let notes: String = scene.notes.iter().map(|note| format!("  {note}")).collect();
        outcome.note = format!("{lists} transactions on lists in order  {promise}{notes}");
        Ok(outcome)
    }

    /// A pair with this promise: the one that is there, changed live when it promises something else.
    fn prepare(&mut self, log: LogVolume, promise: Promise) -> anyhow::Result<()> {
        if self.log != log {
            self.close();
            self.log = log;
        }
        let mut spec = promise.spec();
        if self.namespace.is_none() {
            self.pairs += 1;
            // Another run's namespace may still be on its way out.
            let name = format!("chaos-{}-{}", std::process::id(), self.pairs);
            let namespace = Namespace::create(self.shell, &name, 1)?;
            self.namespace = Some(namespace);
            if log == LogVolume::Small {
                let log = json!({"size": "256Mi", "storageClassName": "node-local-sized"});
                spec["storage"] = json!({"data": {"size": "1Gi"}, "log": log});
            }
            self.namespace.as_ref().context("no namespace")?.pair(PAIR, spec)?;
        } else if self.promise != Some(promise) {
            let namespace = self.namespace.as_ref().context("no namespace")?;
            let patch = json!({"spec": spec}).to_string();
            namespace.kubectl(&["patch", "asp", PAIR, "--type=merge", "-p", &patch])?;
            let pair = Pair::existing(self.shell, namespace, PAIR);
            wait_for("the promise is in force", READY, || {
                let is_told = promise.is_told(&pair.status()?["effective"]);
                Ok((is_told && pair.is_settled()?).then_some(()))
            })?;
        }
        self.promise = Some(promise);
        Ok(())
    }

    /// Ends every fault of the cluster; the faults of processes ended with their processes.
    pub(crate) fn heal(&self) {
        for node in NODES {
            let _ = self.shell.cluster(&["fault", "heal", node]);
        }
        let _ = self.shell.cluster(&["fault", "apiserver", "resume"]);
    }

    /// Removes the pair; the next run gets a new one.
    pub(crate) fn close(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            delete_namespace(self.shell, &namespace.name);
        }
        self.promise = None;
    }
}

/// Whether the operator that tends the pairs is on the node of neither member.
fn is_operator_afar(pair: &Pair<'_>) -> anyhow::Result<bool> {
    let shell = pair.shell();
    let lease = shell.object(&["-n", OPERATOR, "lease", "understudy-operator"])?;
    let lease = lease.context("no operator was elected")?;
    let holder = lease["spec"]["holderIdentity"].as_str().context("the election has no holder")?;
    let name = holder.split('_').next().unwrap_or(holder);
    let pod = shell.object(&["-n", OPERATOR, "pod", name])?.context("the operator has no pod")?;
    let node = pod["spec"]["nodeName"].as_str().context("the operator has no node")?;
    Ok(pair.node(&pair.active()?)? != node && pair.node(&pair.standby()?)? != node)
}

/// Waits until pods reach the API server: when it comes back, each node's proxy leads there again only after
/// its own back-off, and until then an old status looks whole and nobody can write the Lease.
fn wait_api_reached(shell: &Shell) -> anyhow::Result<()> {
    let kubectl = shell.kubectl_path()?;
    let ask = ["--request-timeout=2s", "--server=https://kubernetes.default.svc", "get"];
    for node in NODES {
        wait_for(&format!("{node} reaches the API server"), ROUTED, || {
            let place = ["exec", "--node", node, "--", kubectl];
            shell.cluster(&[&place, &ask[..], &["--raw", "/readyz"]].concat()).map(Some)
        })?;
    }
    Ok(())
}

/// When the elected operator and the active last wrote their Leases.
fn renewals(pair: &Pair<'_>) -> anyhow::Result<[Value; 2]> {
    let operator = pair.shell().object(&["-n", OPERATOR, "lease", "understudy-operator"])?;
    let operator = operator.context("no operator was elected")?;
    Ok([operator["spec"]["renewTime"].clone(), pair.lease_record()?["seq"].clone()])
}

/// Waits until the pair is Ready with both voters, and stays so; who is active and who stands by. The status
/// counts once the operator and the active have written anew: until then it may be from before the fault.
fn wait_steady(pair: &Pair<'_>) -> anyhow::Result<(String, String)> {
    wait_api_reached(pair.shell())?;
    let old = wait_for("the Leases can be read", ROUTED, || renewals(pair).map(Some))?;
    wait_for("the operator and the active write again", WHOLE, || {
        let is_new = renewals(pair)?.iter().zip(&old).all(|(new, old)| new != old);
        Ok(is_new.then_some(()))
    })?;
    let mut seen: Option<((String, String), Instant)> = None;
    wait_for("the pair is whole", WHOLE, || {
        let now = pair.roles_when_ready()?;
        match (&seen, now) {
            (Some((before, since)), Some(now)) if *before == now => {
                return Ok((since.elapsed() >= STEADY).then_some(now));
            }
            (_, now) => seen = now.map(|roles| (roles, Instant::now())),
        }
        Ok(None)
    })
}

impl Scene<'_> {
    /// Shows something at the end of the run's line.
    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    /// Waits until the other member is the active; it is the scene's active then.
    pub(crate) fn await_failover(&mut self) -> anyhow::Result<()> {
        wait_for("the other member is active", TAKES_OVER, || {
            let record = self.pair.lease_record()?;
            let is_other = record["holder"]["member"] == self.standby.as_str();
            Ok((is_other && record["state"] == "held").then_some(()))
        })?;
        std::mem::swap(&mut self.active, &mut self.standby);
        Ok(())
    }

    pub(crate) fn node(&self, member: &str) -> anyhow::Result<String> {
        self.pair.node(member)
    }

    pub(crate) fn container(&self, member: &str) -> anyhow::Result<String> {
        self.pair.container(member)
    }

    /// Lets a fault stand for a while between `from` and `to` seconds.
    pub(crate) fn hold(&mut self, from: u64, to: u64) {
        // Not a condition: the length of the fault is what is tried.
        thread::sleep(Duration::from_millis(
            from * 1_000 + self.dice.below((to - from) * 1_000 + 1),
        ));
    }

    /// The other member became active, if it was in sync.
    pub(crate) fn assert_failed_over(&self) -> anyhow::Result<()> {
        let active = self.pair.active()?;
        ensure!(active != self.active || !self.was_in_sync, "{active} is active still");
        Ok(())
    }

    /// Nobody took over.
    pub(crate) fn assert_stayed(&self) -> anyhow::Result<()> {
        let active = self.pair.active()?;
        ensure!(active == self.active, "{active} took over from {}", self.active);
        Ok(())
    }
}
