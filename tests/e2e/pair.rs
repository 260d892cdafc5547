//! A pair under test: applied, looked at, written to, broken and checked.

use crate::shell::{OPERATOR, Shell, wait_for};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{fmt, fs, path::PathBuf, process::Child, thread, time::Duration};

/// Longest time from nothing to Ready on two busy cores.
pub(crate) const READY: Duration = Duration::from_secs(180);
/// Longest time until a broken pair is whole again.
const WHOLE: Duration = Duration::from_secs(120);

/// Longest time until the operator has seen a trapped tail.
const TRAPPED: Duration = Duration::from_secs(40);

/// Longest time until a Service follows its pods.
const ROUTED: Duration = Duration::from_secs(10);
/// Of that, for one attempt: whose first packet was routed to the old member's node goes there with all others.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The variable of libpq; the last word on it counts.
const CONNECT_TIMEOUT: &str = "PGCONNECT_TIMEOUT";

/// When the fault comes in the first round, from the start of the load.
const FAULT_AFTER: Duration = Duration::from_secs(3);
/// How much later it comes in each round after that; no multiple of any period of the pair.
const FAULT_STEP: Duration = Duration::from_millis(1_037);

/// What a flow saw.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) acknowledged: u64,
    /// Acknowledged, and not there at the end.
    pub(crate) lost: u64,
    pub(crate) unknown: u64,
    pub(crate) gap_ms: u64,
    pub(crate) note: String,
}

impl Outcome {
    /// Adds another run to this one; the longest gap counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.gap_ms = self.gap_ms.max(other.gap_ms);
    }

    /// One line of JSON.
    pub(crate) fn json(&self, flow: &str, round: u32, seconds: u64) -> Value {
        serde_json::json!({
            "flow": flow, "round": round, "seconds": seconds, "acknowledged": self.acknowledged,
            "lost": self.lost, "unknown": self.unknown, "gapMillis": self.gap_ms, "note": self.note,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.acknowledged > 0 {
            write!(
                f,
                "{} acknowledged, {} lost, {} unknown, gap {} ms  ",
                self.acknowledged, self.lost, self.unknown, self.gap_ms
            )?;
        }
        f.write_str(&self.note)
    }
}

/// A namespace that enforces the *restricted* Pod Security Standard.
pub(crate) struct Namespace<'a> {
    shell: &'a Shell,
    pub(crate) name: String,
    /// Which repetition this is, from 1: the fault comes at another moment of the load in each.
    round: u32,
    scratch: tempfile::TempDir,
}

impl<'a> Namespace<'a> {
    pub(crate) fn create(shell: &'a Shell, name: &str, round: u32) -> anyhow::Result<Self> {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest"}}});
        shell.kubectl_with(&["apply", "-f", "-"], &text.to_string())?;
        Ok(Self { shell, name: name.to_owned(), round, scratch: tempfile::tempdir()? })
    }

    /// Runs kubectl in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        self.shell.kubectl(&all)
    }

    /// Another number each round.
    pub(crate) fn seed(&self) -> u64 {
        u64::from(self.round)
    }

    pub(crate) fn object(&self, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
        self.shell.object(&["-n", &self.name, kind, name])
    }

    /// Runs kubectl in the namespace with an object on its standard input.
    pub(crate) fn kubectl_with(
        &self,
        arguments: &[&str],
        object: &Value,
    ) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        self.shell.kubectl_with(&all, &object.to_string())
    }

    /// A directory with a Secret's values as files.
    pub(crate) fn files_of_secret(&self, name: &str) -> anyhow::Result<String> {
        let directory = self.scratch.path().join(name);
        fs::create_dir_all(&directory)?;
        let secret = self.object("secrets", name)?.with_context(|| format!("no Secret {name}"))?;
        for key in secret["data"].as_object().context("it is empty")?.keys() {
            let path = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
            fs::write(directory.join(key), self.kubectl(&["get", "secret", name, "-o", &path])?)?;
        }
        Ok(directory.to_str().context("the path is not text")?.to_owned())
    }

    /// Applies an object.
    pub(crate) fn apply(&self, object: &Value) -> anyhow::Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], object)
    }

    /// Applies a pair and waits until it is Ready.
    pub(crate) fn pair(&self, name: &str, spec: Value) -> anyhow::Result<Pair<'_>> {
        self.apply(&pair_object(name, spec))?;
        let pair = Pair { namespace: self, shell: self.shell, name: name.to_owned() };
        pair.wait_ready(READY)?;
        pair.wait_routed()?;
        Ok(pair)
    }
}

/// A pair with small volumes and memory, so that several fit beside each other.
pub(crate) fn pair_object(name: &str, mut spec: Value) -> Value {
    let defaults = [
        ("memory", serde_json::json!({"permanent": "128Mi"})),
        ("storage", serde_json::json!({"data": {"size": "1Gi"}, "log": {"size": "1Gi"}})),
        ("resources", serde_json::json!({"requests": {"cpu": "50m"}})),
    ];
    for (key, value) in defaults {
        if spec.get(key).is_none() {
            spec[key] = value;
        }
    }
    serde_json::json!({
        "apiVersion": "understudy.dev/v1alpha1", "kind": "ActiveStandbyPair",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// See the module.
pub(crate) struct Pair<'a> {
    pub(crate) namespace: &'a Namespace<'a>,
    shell: &'a Shell,
    pub(crate) name: String,
}

/// A recorder that is writing.
pub(crate) struct Recording {
    process: Child,
}

/// Clients that append to lists (`tests/chaos/append.rs`).
pub(crate) struct Appending {
    process: Child,
}

impl<'a> Pair<'a> {
    /// A pair that was applied before.
    pub(crate) fn existing(shell: &'a Shell, namespace: &'a Namespace<'a>, name: &str) -> Self {
        Self { namespace, shell, name: name.to_owned() }
    }

    pub(crate) fn shell(&self) -> &'a Shell {
        self.shell
    }

    /// The pair's status.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let object = self.namespace.object("activestandbypairs", &self.name)?;
        let object = object.with_context(|| format!("pair {} is gone", self.name))?;
        Ok(object.get("status").cloned().unwrap_or(Value::Null))
    }

    pub(crate) fn text(&self, field: &str) -> anyhow::Result<String> {
        Ok(self.status()?.get(field).and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    pub(crate) fn epoch(&self) -> anyhow::Result<i64> {
        Ok(self.status()?.get("epoch").and_then(Value::as_i64).unwrap_or(0))
    }

    pub(crate) fn is_ready(&self) -> anyhow::Result<bool> {
        Ok(is_ready(&self.status()?))
    }

    /// Active and standby of a Ready pair that has both.
    pub(crate) fn roles_when_ready(&self) -> anyhow::Result<Option<(String, String)>> {
        let status = self.status()?;
        let named = |role: &str| status[role].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
        let roles = named("active").zip(named("standby"));
        Ok(roles.filter(|_| is_ready(&status)))
    }

    /// Waits until both voters' Services lead to them.
    fn wait_routed(&self) -> anyhow::Result<()> {
        self.wait_leads("active")?;
        self.wait_leads("standby")
    }

    /// Waits until the Service of this role leads to a member: the nodes' proxies follow the pods' labels and
    /// readiness within a moment.
    pub(crate) fn wait_leads(&self, role: &str) -> anyhow::Result<()> {
        let service = format!("{}-{role}", self.name);
        wait_for(&format!("{service} leads to a member"), ROUTED, || {
            let mut environment = self.environment(&service)?;
            environment.push((CONNECT_TIMEOUT, ATTEMPT.as_secs().to_string()));
            self.shell.inside(&pairs(&environment), &psql_command("SELECT 1")).map(Some)
        })
        .map(drop)
    }

    /// The way out that the status names while it is stalled for this reason.
    pub(crate) fn exit_when_stalled(&self, reason: &str, bound: Duration) -> anyhow::Result<Value> {
        wait_for(&format!("{reason} is told"), bound, || {
            let status = self.status()?;
            let conditions = status["conditions"].as_array().context("no conditions")?;
            let is_told =
                conditions.iter().any(|c| c["type"] == "Stalled" && c["reason"] == reason);
            Ok(is_told.then(|| status["exit"].clone()))
        })
    }

    /// The first tail that is listed as trapped, by the name that the command line takes; it is this member's.
    pub(crate) fn trapped_tail(&self, member: &str) -> anyhow::Result<String> {
        let trapped = wait_for("a trapped tail is listed", TRAPPED, || {
            Ok(self.status()?["trapped"].as_array().and_then(|all| all.first().cloned()))
        })?;
        ensure!(trapped["member"] == member, "trapped: {trapped}");
        Ok(format!("{member}-e{}", trapped["epoch"]))
    }

    /// What the Lease says.
    pub(crate) fn lease_record(&self) -> anyhow::Result<Value> {
        let name = format!("{}-authority", self.name);
        let lease = self.namespace.object("leases", &name)?.context("there is no Lease")?;
        let record = lease["metadata"]["annotations"]["understudy.dev/authority"].as_str();
        Ok(serde_json::from_str(record.context("the Lease has no record")?)?)
    }

    /// Whether the newest spec was carried out.
    pub(crate) fn is_settled(&self) -> anyhow::Result<bool> {
        let object = self.namespace.object("activestandbypairs", &self.name)?;
        let object = object.with_context(|| format!("pair {} is gone", self.name))?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|c| {
            c["type"] == "Reconciling"
                && c["status"] == "False"
                && c["observedGeneration"] == object["metadata"]["generation"]
        }))
    }

    pub(crate) fn wait_ready(&self, bound: Duration) -> anyhow::Result<()> {
        wait_for(&format!("pair {} is Ready", self.name), bound, || {
            Ok(self.is_ready()?.then_some(()))
        })
    }

    /// Waits until the pair is whole again after something broke.
    pub(crate) fn wait_whole(&self) -> anyhow::Result<()> {
        self.wait_ready(WHOLE)?;
        self.wait_routed()
    }

    pub(crate) fn active(&self) -> anyhow::Result<String> {
        let active = self.text("active")?;
        ensure!(!active.is_empty(), "no active is known");
        Ok(active)
    }

    pub(crate) fn standby(&self) -> anyhow::Result<String> {
        let standby = self.text("standby")?;
        ensure!(!standby.is_empty(), "no standby is known");
        Ok(standby)
    }

    /// A value of the application's Secret.
    pub(crate) fn secret(&self, key: &str) -> anyhow::Result<String> {
        let name = format!("{}-app", self.name);
        self.value_of(&name, key)
    }

    fn value_of(&self, secret: &str, key: &str) -> anyhow::Result<String> {
        let path = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        self.namespace.kubectl(&["get", "secret", secret, "-o", &path])
    }

    /// Writes `spec.mode`, and waits until it is in force.
    pub(crate) fn set_mode(&self, mode: &str) -> anyhow::Result<()> {
        let patch = serde_json::json!({"spec": {"mode": mode}}).to_string();
        self.namespace.kubectl(&["patch", "asp", &self.name, "--type=merge", "-p", &patch])?;
        wait_for(&format!("{mode} is in force"), Duration::from_secs(30), || {
            let is_told = self.status()?["effective"]["mode"] == mode;
            Ok((is_told && self.is_settled()?).then_some(()))
        })
    }

    /// A file with the pair's certificate authority, and with the one that may take its place.
    pub(crate) fn ca_file(&self) -> anyhow::Result<String> {
        let path = self.namespace.scratch.path().join(format!("{}-ca.crt", self.name));
        let next = fs::read_to_string(self.next_authority().join("tls.crt")).unwrap_or_default();
        fs::write(&path, self.secret("ca.crt")? + "\n" + &next)?;
        Ok(path.to_str().context("the path is not text")?.to_owned())
    }

    /// Where certificate and key of another authority lie, if a fault made one.
    pub(crate) fn next_authority(&self) -> PathBuf {
        self.namespace.scratch.path().join(format!("{}-next-authority", self.name))
    }

    /// A libpq URI over the Services of all voters: the client finds the active by itself.
    pub(crate) fn uri(&self) -> anyhow::Result<String> {
        self.secret("multi-host-uri")
    }

    /// Starts the recorder for `seconds`.
    pub(crate) fn record(&self, seconds: u32) -> anyhow::Result<Recording> {
        let (uri, ca, seconds) = (self.uri()?, self.ca_file()?, seconds.to_string());
        let arguments = ["--ca", &ca, "--seconds", &seconds, "--json", "--sessions", "4"];
        Ok(Recording { process: self.shell.start_recorder(&uri, &arguments)? })
    }

    /// Starts clients that append to lists for `seconds`.
    pub(crate) fn append(&self, seconds: u32, seed: u64) -> anyhow::Result<Appending> {
        let (uri, ca) = (self.uri()?, self.ca_file()?);
        let (seconds, seed) = (seconds.to_string(), (seed >> 8).to_string());
        let command = [
            env!("CARGO_BIN_EXE_append"),
            "--ca",
            &ca,
            "--seconds",
            &seconds,
            "--seed",
            &seed,
            "--json",
            "--strict",
            "--sessions",
            "3",
            "--keys",
            "6",
        ];
        Ok(Appending { process: self.shell.start_inside(&[("UNDERSTUDY_URI", &uri)], &command)? })
    }

    /// psql as the application's user through a Service; returns rows without decoration.
    pub(crate) fn psql(&self, service: &str, sql: &str) -> anyhow::Result<String> {
        let environment = self.environment(service)?;
        self.shell.inside(&pairs(&environment), &psql_command(sql))
    }

    /// Starts psql through a Service; it takes statements from its standard input.
    pub(crate) fn open_psql(&self, service: &str) -> anyhow::Result<Child> {
        let environment = self.environment(service)?;
        let command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"];
        self.shell.start_inside(&pairs(&environment), &command)
    }

    /// One text as the administrator.
    pub(crate) fn psql_as_admin(&self, service: &str, sql: &str) -> anyhow::Result<String> {
        let environment = self.environment_of(service, &format!("{}-admin", self.name))?;
        self.shell.inside(&pairs(&environment), &psql_command(sql))
    }

    /// Starts psql through a Service, and does not wait for its end.
    pub(crate) fn start_psql(&self, service: &str, sql: &str) -> anyhow::Result<Child> {
        let environment = self.environment(service)?;
        self.shell.start_inside(&pairs(&environment), &psql_command(sql))
    }

    /// A program with libpq's environment for the Service of the active.
    pub(crate) fn client(&self, command: &[&str]) -> anyhow::Result<String> {
        let environment = self.environment(&format!("{}-active", self.name))?;
        self.shell.inside(&pairs(&environment), command)
    }

    /// What libpq needs to reach a Service as the application's user.
    fn environment(&self, service: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
        self.environment_of(service, &format!("{}-app", self.name))
    }

    /// The same as the user of this Secret.
    fn environment_of(
        &self,
        service: &str,
        secret: &str,
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("PGHOST", format!("{service}.{}.svc", self.namespace.name)),
            ("PGUSER", self.value_of(secret, "username")?),
            ("PGPASSWORD", self.value_of(secret, "password")?),
            ("PGDATABASE", self.secret("dbname")?),
            ("PGSSLMODE", "verify-full".into()),
            ("PGSSLROOTCERT", self.ca_file()?),
            (CONNECT_TIMEOUT, "10".into()),
        ])
    }

    /// The living engine process of a member: start counter and id.
    pub(crate) fn incarnation(&self, member: &str) -> anyhow::Result<String> {
        let said = self.exec(member, &["understudy", "status", "--local", "--json"])?;
        let members: Value = serde_json::from_str(&said)?;
        Ok(members[0]["incarnation"].to_string())
    }

    /// The pod as an object.
    pub(crate) fn pod(&self, member: &str) -> anyhow::Result<Value> {
        self.namespace.object("pods", member)?.with_context(|| format!("no pod {member}"))
    }

    /// The node that a member runs on.
    pub(crate) fn node(&self, member: &str) -> anyhow::Result<String> {
        let pod = self.pod(member)?;
        Ok(pod["spec"]["nodeName"].as_str().context("the pod is not scheduled")?.to_owned())
    }

    /// The member's container.
    pub(crate) fn container(&self, member: &str) -> anyhow::Result<String> {
        let pod = self.pod(member)?;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
        let id = id.and_then(|id| id.split("//").nth(1)).context("the pod has no container")?;
        Ok(id.to_owned())
    }

    /// A command inside a member's container.
    pub(crate) fn exec(&self, member: &str, command: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["exec", member, "--"];
        all.extend_from_slice(command);
        self.namespace.kubectl(&all)
    }
}

impl Recording {
    /// Lets it write for a while before something breaks, in each round for another while.
    pub(crate) fn let_run(&self, pair: &Pair<'_>) {
        // Not a condition: the fault comes at a chosen moment of the load.
        thread::sleep(FAULT_AFTER + FAULT_STEP * (pair.namespace.round - 1));
    }

    /// Waits for its end; an error when anything is lost.
    pub(crate) fn finish(self) -> anyhow::Result<Outcome> {
        let outcome = self.verdict()?;
        ensure!(outcome.lost == 0, "{} acknowledged commits are lost", outcome.lost);
        Ok(outcome)
    }

    /// Ends it without a verdict.
    pub(crate) fn abandon(self) -> anyhow::Result<()> {
        end(self.process)
    }

    /// Waits for its end; an error when a transfer is half there, or nothing was written.
    pub(crate) fn verdict(self) -> anyhow::Result<Outcome> {
        let output = self.process.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or_default();
        let report: Value = serde_json::from_str(last)
            .with_context(|| format!("the recorder said: {text} {errors}"))?;
        let number = |key: &str| report[key].as_u64().unwrap_or(0);
        let lost = report["verdict"]["lost"].as_array().map_or(0, Vec::len);
        if lost > 0 {
            println!("{report}");
        }
        ensure!(report["verdict"]["is_whole"] == true, "balances do not match: {report}");
        ensure!(number("acknowledged") > 0, "nothing was acknowledged: {report}");
        Ok(Outcome {
            acknowledged: number("acknowledged"),
            lost: lost as u64,
            unknown: number("unknown"),
            gap_ms: number("longest_gap_ms"),
            note: String::new(),
        })
    }
}

impl Appending {
    /// Ends it without a verdict.
    pub(crate) fn abandon(self) -> anyhow::Result<()> {
        end(self.process)
    }

    /// Waits for its end; the transactions of a history without a cycle and without a lost append.
    pub(crate) fn finish(self) -> anyhow::Result<u64> {
        let output = self.process.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("append said: {text} {errors}"))?;
        ensure!(report["is_clean"] == true, "the history of lists is not clean: {report}");
        report["committed"].as_u64().context("append counts nothing")
    }
}

fn end(mut process: Child) -> anyhow::Result<()> {
    process.kill()?;
    process.wait().map(drop).context("a client does not end")
}

fn is_ready(status: &Value) -> bool {
    let conditions = status.get("conditions").and_then(Value::as_array);
    let ready = conditions
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    ready && status["phase"] == "Normal"
}

fn psql_command(sql: &str) -> [&str; 9] {
    ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]
}

fn pairs<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Prints everything that helps to understand a failure.
pub(crate) fn dump(shell: &Shell, namespace: &str) {
    for arguments in [
        vec!["-n", namespace, "get", "asp,pods,pvc,leases,services", "-o", "wide"],
        vec!["-n", namespace, "get", "asp", "-o", "yaml"],
        vec!["-n", namespace, "get", "leases", "-o", "yaml"],
        vec!["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
        vec![
            "-n",
            OPERATOR,
            "logs",
            "-l",
            "app.kubernetes.io/name=understudy-operator",
            "--tail=60",
            "--prefix",
        ],
    ] {
        println!("--- kubectl {}", arguments.join(" "));
        println!("{}", shell.kubectl(&arguments).unwrap_or_else(|e| format!("{e:#}")));
    }
    let pods = shell.kubectl(&["-n", namespace, "get", "pods", "-o", "name"]).unwrap_or_default();
    for pod in pods.lines() {
        println!("--- logs of {pod}");
        let logs = shell.kubectl(&["-n", namespace, "logs", pod, "--tail=60"]);
        println!("{}", logs.unwrap_or_else(|e| format!("{e:#}")));
    }
}

/// Removes a flow's namespace without waiting for its end; Leases lose their finalizer first.
pub(crate) fn delete_namespace(shell: &Shell, namespace: &str) {
    let _ = shell.kubectl(&["-n", namespace, "delete", "asp", "--all", "--timeout=60s"]);
    let leases =
        shell.kubectl(&["-n", namespace, "get", "leases", "-o", "name"]).unwrap_or_default();
    for lease in leases.lines() {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        let _ = shell.kubectl(&["-n", namespace, "patch", lease, "--type=merge", "-p", patch]);
    }
    let _ = shell.kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}
