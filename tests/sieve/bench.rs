//! The place of the runs: the cluster's own operator is away, and each run has one behind a proxy.

use super::{
    operator, proxy,
    words::{Order, Report},
};
use crate::shell::{OPERATOR, Shell, wait_for};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};
use understudy_tests::sieve::case::Case;

/// Longest time until the cluster's operator has gone or come.
const SCALED: Duration = Duration::from_secs(60);
/// How long the token of a run's operator is good.
const TOKEN_LIFE: &str = "--duration=3h";

/// See the module.
pub(crate) struct Bench<'a> {
    pub(crate) shell: &'a Shell,
    away: Away<'a>,
    operator: PathBuf,
    token: String,
    upstream: String,
}

impl<'a> Bench<'a> {
    /// Sends the cluster's operator away until this is dropped.
    pub(crate) fn new(shell: &'a Shell) -> anyhow::Result<Self> {
        let operator = operator_program()?;
        let away = Away::begin(shell)?;
        let pod = &away.deployment["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().context("no service account")?;
        let token = shell.kubectl(&["-n", OPERATOR, "create", "token", account, TOKEN_LIFE])?;
        let kubectl = shell.kubectl_path()?;
        let path = "jsonpath={.clusters[0].cluster.server}";
        let upstream = shell.inside(&[], &[kubectl, "config", "view", "-o", path])?;
        Ok(Self { shell, away, operator, token: token.trim().to_owned(), upstream })
    }

    /// Starts a proxy and an operator for one namespace.
    pub(crate) fn proxy(
        &self,
        namespace: &str,
        case: Case,
        seed: u64,
    ) -> anyhow::Result<Proxy<'a>> {
        let scratch = tempfile::tempdir()?;
        let authority = scratch.path().join("authority.crt");
        let path = r"jsonpath={.data.ca\.crt}";
        let root = ["-n", OPERATOR, "get", "configmap", "kube-root-ca.crt", "-o", path];
        fs::write(&authority, self.shell.kubectl(&root)?)?;
        let program = env::current_exe()?;
        let (case, seed) = (case.to_string(), seed.to_string());
        let command = [
            text(&program)?,
            "sieve-proxy",
            "--upstream",
            &self.upstream,
            "--authority",
            text(&authority)?,
            "--operator",
            text(&self.operator)?,
            "--scratch",
            text(scratch.path())?,
            "--case",
            &case,
            "--seed",
            &seed,
        ];
        let mut process = self
            .shell
            .inside_command(&self.environment(namespace), &command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal to the test's group must not end the proxy before its operator.
            .process_group(0)
            .spawn()
            .context("cluster exec does not run")?;
        let orders = process.stdin.take().context("no standard input")?;
        let reports = BufReader::new(process.stdout.take().context("no standard output")?);
        Ok(Proxy {
            bench: std::marker::PhantomData,
            process,
            orders: Some(orders),
            reports,
            scratch,
        })
    }

    /// What the operator has in the cluster, for one namespace, and an address of its own.
    fn environment<'e>(&'e self, namespace: &'e str) -> Vec<(&'e str, &'e str)> {
        let container = &self.away.deployment["spec"]["template"]["spec"]["containers"][0];
        let mut environment: Vec<(&str, &str)> = container["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|set| Some((set["name"].as_str()?, set["value"].as_str()?)))
            .collect();
        environment.extend([
            ("UNDERSTUDY_WATCH_NAMESPACE", namespace),
            ("UNDERSTUDY_LISTEN", "127.0.0.1:0"),
            ("POD_NAMESPACE", namespace),
            ("POD_NAME", "sieve"),
            (proxy::TOKEN, self.token.as_str()),
        ]);
        environment
    }
}

/// The operator's program: named, or beside the command line's.
fn operator_program() -> anyhow::Result<PathBuf> {
    let named = env::var_os("UNDERSTUDY_OPERATOR_BIN").map(PathBuf::from);
    let beside = || {
        let understudy = PathBuf::from(env::var_os("UNDERSTUDY_BIN")?);
        Some(understudy.with_file_name("understudy-operator"))
    };
    let found = named.or_else(beside).context("UNDERSTUDY_OPERATOR_BIN is not set")?;
    ensure!(found.is_file(), "{} is missing: build understudy-operator", found.display());
    Ok(found)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is not text")
}

/// The cluster's operator at zero pods.
struct Away<'a> {
    shell: &'a Shell,
    deployment: Value,
    /// Gives the operator back when its standard input ends: however this process ends.
    keeper: Child,
}

impl<'a> Away<'a> {
    fn begin(shell: &'a Shell) -> anyhow::Result<Self> {
        let all = shell.object(&["-n", OPERATOR, "deployments"])?.context("no deployments")?;
        let deployment = all["items"].as_array().and_then(|all| all.first()).cloned();
        let deployment = deployment.with_context(|| format!("no operator in {OPERATOR}"))?;
        let name = deployment["metadata"]["name"].as_str().context("it has no name")?.to_owned();
        let pods = deployment["spec"]["replicas"].as_u64().context("it has no size")?;
        ensure!(pods > 0, "the operator is away already: scale {name} in {OPERATOR} up first");
        let back = format!("--replicas={pods}");
        let keeper = Command::new("sh")
            .args(["-c", "read -r _; exec \"$@\"", "keeper", shell.kubectl_path()?])
            .args(["-n", OPERATOR, "scale", "deployment", &name, &back])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("sh does not run")?;
        let away = Self { shell, deployment, keeper };
        shell.kubectl(&["-n", OPERATOR, "scale", "deployment", &name, "--replicas=0"])?;
        wait_for("the cluster's operator is away", SCALED, || {
            let pods = shell.kubectl(&["-n", OPERATOR, "get", "pods", "-o", "name"])?;
            Ok(pods.trim().is_empty().then_some(()))
        })?;
        Ok(away)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        drop(self.keeper.stdin.take());
        ensure!(self.keeper.wait()?.success(), "the operator was not scaled up again");
        let name = self.deployment["metadata"]["name"].as_str().unwrap_or_default();
        let bound = format!("--timeout={}s", SCALED.as_secs());
        let status = ["-n", OPERATOR, "rollout", "status", "deployment", name, &bound];
        self.shell.kubectl(&status).map(drop)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the cluster's operator did not come back: {error:#}");
        }
    }
}

/// A proxy that runs; it ends when this is dropped.
pub(crate) struct Proxy<'a> {
    /// It must not outlive the time without the cluster's operator.
    bench: std::marker::PhantomData<&'a Shell>,
    process: Child,
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    scratch: tempfile::TempDir,
}

impl Proxy<'_> {
    /// Gives an order and returns how it stands.
    pub(crate) fn order(&mut self, order: &Order) -> anyhow::Result<Report> {
        let orders = self.orders.as_mut().context("the proxy has ended")?;
        writeln!(orders, "{}", serde_json::to_string(order)?)?;
        orders.flush()?;
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the proxy has ended");
        Ok(serde_json::from_str(&line)?)
    }

    /// The last lines that the operator logged.
    pub(crate) fn log(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.scratch.path().join(operator::LOG)).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}
