//! The flows, each a story with an end: what breaks, and that the pair is whole again with nothing lost.

use crate::{
    fields, loss,
    pair::{Namespace, Outcome, Pair},
    policies, refusals,
    shell::{OPERATOR, Shell, wait_for},
    sieve, two_actives,
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// One flow.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Shell, &Namespace<'_>) -> anyhow::Result<Outcome>,
}

/// All of them, in the order of their running.
pub(crate) const ALL: &[Flow] = &[
    Flow {
        name: "bootstrap",
        what: "five lines become a Ready pair, with one initialiser",
        run: bootstrap,
    },
    Flow { name: "clients", what: "psql, pgbench and psycopg through the Services", run: clients },
    Flow {
        name: "engine-killed",
        what: "SIGKILL to the active's engine under load",
        run: engine_killed,
    },
    Flow {
        name: "container-killed",
        what: "the active's container dies under load",
        run: container_killed,
    },
    Flow { name: "hand-over", what: "kubectl delete pod of the active under load", run: hand_over },
    Flow {
        name: "standby-killed",
        what: "SIGKILL to the standby's engine under load",
        run: standby_killed,
    },
    Flow {
        name: "standby-volume-lost",
        what: "the standby's volumes and pod are deleted",
        run: standby_volume_lost,
    },
    Flow {
        name: "killed-in-duplicate",
        what: "the active dies while its standby is being built",
        run: killed_in_duplicate,
    },
    Flow {
        name: "subscriber-lost",
        what: "a subscriber is scaled in, lost and built again",
        run: subscriber_lost,
    },
    Flow {
        name: "operator-off",
        what: "the operator is away; clients see nothing",
        run: operator_off,
    },
    Flow {
        name: "both-killed",
        what: "SIGKILL to both engines at once, under load",
        run: both_killed,
    },
    Flow {
        name: "both-replaced",
        what: "both pods are force-deleted at once: nobody proves a death",
        run: both_replaced,
    },
    Flow {
        name: "loss-accepted",
        what: "the active is lost while alone, and a person types what the status names",
        run: loss::loss_accepted,
    },
    Flow {
        name: "manual-failover",
        what: "under policy Manual nobody is promoted before a person types the command",
        run: policies::manual,
    },
    Flow {
        name: "named-commits",
        what: "a client asks what became of a commit, before and after a failover",
        run: policies::named_commits,
    },
    Flow {
        name: "loss-bounded",
        what: "NO RETURN with an allowed loss: promoted, and the loss predicted and measured",
        run: policies::loss_bounded,
    },
    Flow {
        name: "services",
        what: "every return service and durability, changed live, then the engine killed",
        run: services,
    },
    Flow {
        name: "node-replaced",
        what: "the standby's node stays off: the next number takes its place on another node",
        run: policies::node_replaced,
    },
    Flow { name: "at-rest", what: "a pair at rest writes nothing but Leases", run: at_rest },
    Flow {
        name: "paused",
        what: "under mode Paused nobody is promoted, and then it is made good",
        run: paused,
    },
    Flow {
        name: "two-actives",
        what: "under mode Paused a person makes a second active behind a cut; the one set later stays",
        run: two_actives::two_actives,
    },
    Flow {
        name: "deleted-and-adopted",
        what: "a deleted pair's volumes are adopted by its successor, or go with it when told so",
        run: deleted_and_adopted,
    },
    Flow {
        name: "bad-input",
        what: "wrong resources are refused in words",
        run: refusals::resources,
    },
    Flow {
        name: "fields-changed",
        what: "every field of the spec is changed and changed back; the end equals a fresh pair",
        run: fields::together,
    },
    Flow {
        name: "strangers",
        what: "garbage on every port and another pair's certificate",
        run: refusals::strangers,
    },
    Flow {
        name: "operator-disturbed",
        what: "the operator dies after every write, reads old lists, misses events: the same end",
        run: sieve::flow,
    },
];

/// Too long for every run: only by name.
const NAMED: &[Flow] = &[Flow {
    name: "fields-alone",
    what: "as fields-changed, each change alone",
    run: fields::alone,
}];

/// Every flow that there is.
pub(crate) fn every() -> impl Iterator<Item = &'static Flow> {
    ALL.iter().chain(NAMED)
}

/// How long the recorder writes in a flow that breaks something.
const LOAD_SECONDS: u32 = 20;

fn bootstrap(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let record = pair.lease_record()?;
    ensure!(record["epoch"] == 1, "one initialiser opens epoch 1: {record}");
    ensure!(record["sync"].is_object(), "Ready means a recorded standby: {record}");
    let columns = namespace.kubectl(&["get", "asp", "orders"])?;
    for column in ["PHASE", "ACTIVE", "STANDBY", "SYNC", "SUBS", "RETURN", "AGE"] {
        ensure!(columns.contains(column), "column {column} is missing in: {columns}");
    }
    ensure!(columns.contains("InSync") && columns.contains("Twosafe"), "{columns}");
    namespace.kubectl(&["wait", "asp/orders", "--for=condition=Ready", "--timeout=10s"])?;
    let described = namespace.kubectl(&["describe", "asp", "orders"])?;
    for word in ["Promise", "Conditions", "Events"] {
        ensure!(described.contains(word), "describe lacks {word}");
    }
    ensure!(pair.active()? != pair.standby()?, "two members, two roles");
    let nodes = shell.kubectl(&[
        "-n",
        &namespace.name,
        "get",
        "pods",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ])?;
    let nodes: Vec<&str> = nodes.split_whitespace().collect();
    ensure!(nodes.len() == 2 && nodes[0] != nodes[1], "spread over nodes: {nodes:?}");
    Ok(Outcome { note: "Ready, epoch 1".into(), ..Outcome::default() })
}

fn clients(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({"memory": {"permanent": "512Mi"}}))?;
    let two = pair.psql("orders-active", "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x'); SELECT a + 1 FROM t")?;
    ensure!(two.trim() == "2", "psql says {two}");
    let standby = pair.standby()?;
    wait_for("the standby shows the row", Duration::from_secs(5), || {
        Ok((pair.psql("orders-standby", "SELECT b FROM t")?.trim() == "x").then_some(()))
    })?;
    let refused = refusal(pair.psql(&standby, "INSERT INTO t VALUES (2, 'y')"))?;
    ensure!(refused.contains("read-only"), "a write on the standby says {refused}");
    ensure!(refused.contains(&pair.active()?), "the hint names the active: {refused}");
    let syntax = refusal(pair.psql("orders-active", "SELEKT 1"))?;
    ensure!(syntax.contains("syntax error"), "{syntax}");
    pair.client(&["pgbench", "-q", "-i", "-s", "10"]).context("pgbench -i -s 10")?;
    let mut note = String::from("pgbench tps");
    for (name, flags) in [
        ("tpc-b", &["-M", "simple"][..]),
        ("select", &["-S"][..]),
        ("prepared", &["-M", "prepared"][..]),
        ("select prepared", &["-S", "-M", "prepared"][..]),
    ] {
        let mut command = vec!["pgbench", "-n", "-c", "4", "-T", "3"];
        command.extend_from_slice(flags);
        let text = pair.client(&command).with_context(|| format!("pgbench {name}"))?;
        let tps =
            text.lines().find(|l| l.starts_with("tps =")).context("pgbench printed no tps")?;
        let tps = tps.split_whitespace().nth(2).unwrap_or("?");
        note.push_str(&format!(", {name} {tps}"));
    }
    let script = "import os, psycopg\n\
        with psycopg.connect(os.environ['DSN'], prepare_threshold=1) as c:\n\
        \x20   for i in range(10, 20):\n\
        \x20       c.execute('INSERT INTO t (a, b) VALUES (%s, %s)', (i, 'p%d' % i))\n\
        \x20   print(c.execute('SELECT count(*) FROM t WHERE a >= %s', (10,)).fetchone()[0])\n";
    let uri = pair.uri()?;
    let ten = shell.inside(&[("DSN", &uri)], &["/usr/bin/python3", "-c", script])?;
    ensure!(ten.trim() == "10", "psycopg counts {ten}");
    Ok(Outcome { note, ..Outcome::default() })
}

/// The words with which something was refused.
pub(crate) fn refusal(result: anyhow::Result<String>) -> anyhow::Result<String> {
    match result {
        Ok(text) => anyhow::bail!("this should have been refused and said: {text}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Loads the pair, breaks it, and expects it whole again with nothing lost.
fn break_under_load(
    pair: &Pair<'_>,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let recording = pair.record(LOAD_SECONDS)?;
    recording.let_run(pair);
    fault()?;
    let outcome = recording.finish()?;
    pair.wait_whole()?;
    Ok(outcome)
}

/// Who was active, in which epoch, and which stores had a vote, before something breaks.
struct Before {
    active: String,
    epoch: i64,
    voters: Value,
}

impl Before {
    fn of(pair: &Pair<'_>) -> anyhow::Result<Self> {
        let voters = pair.lease_record()?["voters"].clone();
        Ok(Self { active: pair.active()?, epoch: pair.epoch()?, voters })
    }

    /// The other member is active, the decision is told, and the old active came back from its own log.
    fn assert_failed_over(&self, pair: &Pair<'_>) -> anyhow::Result<()> {
        let active = pair.active()?;
        ensure!(active != self.active, "{active} is active still");
        ensure!(pair.epoch()? > self.epoch, "the epoch did not rise");
        let status = pair.status()?;
        let decisions = status["decisions"].as_array().map_or(0, Vec::len);
        ensure!(decisions > 0, "no decision explains the failover: {status}");
        self.assert_same_stores(pair)
    }

    /// Everybody came back from their own volumes.
    fn assert_same_stores(&self, pair: &Pair<'_>) -> anyhow::Result<()> {
        let voters = pair.lease_record()?["voters"].clone();
        ensure!(voters == self.voters, "a store was replaced: {} by {voters}", self.voters);
        Ok(())
    }
}

fn engine_killed(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let before = Before::of(&pair)?;
    let outcome = break_under_load(&pair, || {
        pair.exec(&before.active, &["understudy", "fault", "kill-engine"]).map(drop)
    })?;
    before.assert_failed_over(&pair)?;
    Ok(outcome)
}

fn container_killed(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let before = Before::of(&pair)?;
    let outcome = break_under_load(&pair, || kill_container(shell, namespace, &before.active))?;
    before.assert_failed_over(&pair)?;
    Ok(outcome)
}

/// SIGKILL to PID 1 of the pod's container, from outside of it.
fn kill_container(shell: &Shell, namespace: &Namespace<'_>, pod: &str) -> anyhow::Result<()> {
    let object = namespace.object("pods", pod)?.context("the pod is gone")?;
    let node = object["spec"]["nodeName"].as_str().context("not scheduled")?;
    let id = object["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .and_then(|id| id.split("//").nth(1))
        .context("no container")?;
    shell.kill_container(node, id)
}

fn hand_over(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let before = Before::of(&pair)?;
    let outcome = break_under_load(&pair, || {
        namespace.kubectl(&["delete", "pod", &before.active, "--wait=false"]).map(drop)
    })?;
    before.assert_failed_over(&pair)?;
    Ok(outcome)
}

fn standby_killed(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let outcome = break_under_load(&pair, || {
        pair.exec(&standby, &["understudy", "fault", "kill-engine"]).map(drop)
    })?;
    ensure!(pair.active()? == active, "the active changed");
    Ok(outcome)
}

fn standby_volume_lost(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let standby = pair.standby()?;
    let outcome = break_under_load(&pair, || lose_member(namespace, &standby))?;
    ensure!(pair.standby()? != pair.active()?, "two members, two roles");
    Ok(outcome)
}

fn lose_member(namespace: &Namespace<'_>, member: &str) -> anyhow::Result<()> {
    let (data, log) = (format!("{member}-data"), format!("{member}-log"));
    namespace.kubectl(&["delete", "pvc", &data, &log, "--wait=false"])?;
    namespace.kubectl(&["delete", "pod", member, "--wait=false", "--grace-period=0", "--force"])?;
    Ok(())
}

/// The store is large enough for its duplicate to take a while.
fn killed_in_duplicate(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({"memory": {"permanent": "512Mi"}}))?;
    pair.client(&["pgbench", "-q", "-i", "-s", "10"]).context("pgbench -i -s 10")?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let outcome = break_under_load(&pair, || {
        lose_member(namespace, &standby)?;
        wait_for("a duplicate is on its way", Duration::from_secs(30), || {
            let status = pair.status()?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            // The store comes from a checkpoint, all since then from the log.
            let is_built = |m: &Value| m["state"] == "Duplicating" || m["state"] == "CatchingUp";
            Ok(members.iter().any(is_built).then_some(()))
        })?;
        pair.exec(&active, &["understudy", "fault", "kill-engine"]).map(drop)
    })?;
    ensure!(pair.active()? == active, "only the old active has everything");
    Ok(outcome)
}

fn subscriber_lost(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    namespace.kubectl(&["scale", "asp/orders", "--replicas=1"])?;
    pair.psql("orders-active", "CREATE TABLE s (a int PRIMARY KEY); INSERT INTO s VALUES (7)")?;
    let reads = |what: &str| {
        wait_for(what, Duration::from_secs(90), || {
            let seven = pair.psql("orders-subscribers", "SELECT a FROM s")?;
            Ok((seven.trim() == "7").then_some(()))
        })
    };
    reads("the subscriber reads")?;
    let subscriber = namespace.kubectl(&[
        "get",
        "pods",
        "-l",
        "understudy.dev/kind=subscriber",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ])?;
    let outcome = break_under_load(&pair, || lose_member(namespace, &subscriber))?;
    reads("a subscriber reads again")?;
    Ok(outcome)
}

fn operator_off(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let scale = |replicas: &str| {
        shell.kubectl(&[
            "-n",
            OPERATOR,
            "scale",
            "deployment",
            "--all",
            &format!("--replicas={replicas}"),
        ])
    };
    let outcome = break_under_load(&pair, || scale("0").map(drop));
    scale("2")?;
    let outcome = outcome?;
    ensure!(outcome.gap_ms < 1_000, "clients saw a gap of {} ms", outcome.gap_ms);
    Ok(outcome)
}

fn both_killed(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let before = Before::of(&pair)?;
    let standby = pair.standby()?;
    let outcome = break_under_load(&pair, || {
        pair.exec(&standby, &["understudy", "fault", "kill-engine"])?;
        pair.exec(&before.active, &["understudy", "fault", "kill-engine"]).map(drop)
    })?;
    before.assert_same_stores(&pair)?;
    Ok(outcome)
}

/// Pods that are gone leave no status behind, so neither death is proven: the voters go on by each
/// other's word (R11, R13c).
fn both_replaced(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let before = Before::of(&pair)?;
    let standby = pair.standby()?;
    let outcome = break_under_load(&pair, || {
        let both = ["delete", "pod", &before.active, &standby, "--force", "--grace-period=0"];
        namespace.kubectl(&both).map(drop)
    })?;
    before.assert_same_stores(&pair)?;
    ensure!(pair.epoch()? > before.epoch, "the epoch did not rise");
    Ok(outcome)
}

/// What is promised changes while the pair serves, and each promise is put to the test.
fn services(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let mut sum = Outcome::default();
    let mut promises = Vec::new();
    for (service, durability) in [
        ("Receipt", "LocalDisk"),
        ("Twosafe", "Memory"),
        ("Twosafe", "BothDisks"),
        ("NoReturn", "LocalDisk"),
    ] {
        let patch =
            json!({"spec": {"replication": {"returnService": service, "durability": durability}}});
        namespace.kubectl(&["patch", "asp", "orders", "--type=merge", "-p", &patch.to_string()])?;
        wait_for(&format!("{service} is in force"), Duration::from_secs(30), || {
            let effective = pair.status()?["effective"].clone();
            let is_told =
                effective["returnService"] == service && effective["durability"] == durability;
            Ok((is_told && pair.is_ready()? && pair.is_settled()?).then_some(()))
        })?;
        promises.push(pair.text("promise")?);
        let before = Before::of(&pair)?;
        let recording = pair.record(10)?;
        recording.let_run(&pair);
        if service != "NoReturn" {
            pair.exec(&before.active, &["understudy", "fault", "kill-engine"])?;
        }
        let outcome = recording.finish().with_context(|| format!("{service} {durability}"))?;
        pair.wait_whole()?;
        if service != "NoReturn" {
            before.assert_failed_over(&pair)?;
        }
        sum.add(&outcome);
    }
    promises.dedup();
    ensure!(promises.len() == 4, "four services, four promises: {promises:?}");
    Ok(sum)
}

/// Everything that a pair and the operator own, with its version; Leases are written at rest.
const OWNED: &str = "asp,pods,services,endpointslices,secrets,pvc,pdb,configmaps,deployments,\
    serviceaccounts,roles,rolebindings,events";
/// How long nothing may be written.
const REST: Duration = Duration::from_secs(15);

fn at_rest(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    namespace.pair("orders", json!({}))?;
    let versions = || -> anyhow::Result<String> {
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}";
        let mut all = namespace.kubectl(&["get", OWNED, "-o", path])?;
        all.push_str(&shell.kubectl(&["-n", OPERATOR, "get", OWNED, "-o", path])?);
        Ok(all)
    };
    let mut before = versions()?;
    ensure!(before.lines().count() > 20, "too few objects to prove anything: {before}");
    wait_for("the pair comes to rest", Duration::from_secs(60), || {
        // Not a condition: rest is that nothing happens for a while.
        std::thread::sleep(REST);
        let now = versions()?;
        let changed: Vec<&str> = now.lines().filter(|line| !before.contains(*line)).collect();
        let is_same = changed.is_empty() && now.lines().count() == before.lines().count();
        if !is_same {
            println!("changed within {} s: {changed:?}", REST.as_secs());
        }
        before = now;
        Ok(is_same.then_some(()))
    })?;
    Ok(Outcome { note: "nothing written but Leases".into(), ..Outcome::default() })
}

fn paused(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let (active, epoch) = (pair.active()?, pair.epoch()?);
    pair.set_mode("Paused")?;
    pair.exec(&active, &["understudy", "fault", "kill-engine"])?;
    wait_for("the way out names the person", Duration::from_secs(30), || {
        let exit = pair.status()?["exit"]["humanAction"].as_str().unwrap_or("").to_owned();
        Ok(exit.contains("spec.mode: Automatic").then_some(()))
    })?;
    ensure!(pair.epoch()? == epoch, "somebody was promoted under mode Paused");
    pair.set_mode("Automatic")?;
    pair.wait_whole()?;
    ensure!(pair.epoch()? > epoch, "the pair is whole without a new epoch");
    Ok(Outcome { note: "nobody promoted until Automatic".into(), ..Outcome::default() })
}

fn deleted_and_adopted(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    pair.psql(
        "orders-active",
        "CREATE TABLE kept (a int PRIMARY KEY); INSERT INTO kept VALUES (42)",
    )?;
    namespace.kubectl(&["delete", "asp", "orders", "--timeout=60s"])?;
    wait_for("the pods are gone", Duration::from_secs(60), || {
        let pods = namespace.kubectl(&["get", "pods", "-o", "name"])?;
        Ok(pods.trim().is_empty().then_some(()))
    })?;
    ensure!(namespace.object("leases", "orders-authority")?.is_some(), "the Lease is kept");
    let volumes = namespace.kubectl(&["get", "pvc", "-o", "name"])?;
    ensure!(volumes.lines().count() == 4, "four volumes are kept: {volumes}");
    let pair = namespace.pair("orders", json!({}))?;
    let kept = pair.psql("orders-active", "SELECT a FROM kept")?;
    ensure!(kept.trim() == "42", "the row is there: {kept}");
    let patch = r#"{"spec":{"storage":{"retentionPolicy":"Delete"}}}"#;
    namespace.kubectl(&["patch", "asp", "orders", "--type=merge", "-p", patch])?;
    namespace.kubectl(&["delete", "asp", "orders", "--timeout=60s"])?;
    wait_for("volumes and Lease are gone", Duration::from_secs(60), || {
        let left = namespace.kubectl(&["get", "pvc,leases", "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    Ok(Outcome { note: "adopted".into(), ..Outcome::default() })
}
