//! Programs that the flows call: kubectl and the cluster tool, as a person would.

use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);

/// The programs and the cluster they talk to.
pub(crate) struct Shell {
    kubectl: PathBuf,
    cluster: PathBuf,
    understudy: PathBuf,
}

impl Shell {
    /// By `KUBECONFIG` and `UNDERSTUDY_BIN`, which tests/e2e/run sets; `None` without a cluster.
    pub(crate) fn from_environment() -> Option<Self> {
        let understudy = PathBuf::from(env::var_os("UNDERSTUDY_BIN")?);
        env::var_os("KUBECONFIG")?;
        let cache = env::var_os("UNDERSTUDY_CACHE").map(PathBuf::from)?;
        let bin = cache.join("bin");
        Some(Self { kubectl: bin.join("kubectl"), cluster: bin.join("cluster"), understudy })
    }

    /// Runs kubectl and returns what it prints.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.kubectl).args(arguments), "kubectl", arguments)
    }

    /// Runs kubectl with something on its standard input.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(&self.kubectl)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("kubectl does not run")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An object as JSON; `None` when it does not exist.
    pub(crate) fn object(&self, arguments: &[&str]) -> anyhow::Result<Option<Value>> {
        let mut all = vec!["get", "--ignore-not-found", "-o", "json"];
        all.extend_from_slice(arguments);
        let text = self.kubectl(&all)?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// Runs a program of this machine with the network and the names of the cluster.
    pub(crate) fn inside(
        &self,
        environment: &[(&str, &str)],
        command: &[&str],
    ) -> anyhow::Result<String> {
        output(&mut self.inside_command(environment, command), "cluster exec", command)
    }

    /// Starts a program of this machine with the network of the cluster.
    pub(crate) fn start_inside(
        &self,
        environment: &[(&str, &str)],
        command: &[&str],
    ) -> anyhow::Result<Child> {
        self.inside_command(environment, command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cluster exec does not run")
    }

    /// Starts the recorder against a URI, which holds a password and therefore is no argument.
    pub(crate) fn start_recorder(&self, uri: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let program = self.understudy.to_str().context("the path is not text")?;
        let mut command = vec![program, "demo"];
        command.extend_from_slice(arguments);
        self.start_inside(&[("UNDERSTUDY_URI", uri)], &command)
    }

    /// SIGKILL to a container's PID 1, found by the cgroup that the kubelet named after the container.
    pub(crate) fn kill_container(&self, node: &str, id: &str) -> anyhow::Result<()> {
        let mut pids = Vec::new();
        for node in node_cgroups(node) {
            collect_pids(&node, id, &mut pids)?;
            if !pids.is_empty() {
                break;
            }
        }
        let first = pids.iter().min().with_context(|| format!("no process of container {id}"))?;
        output(Command::new("kill").args(["-KILL", &first.to_string()]), "kill", &[]).map(drop)
    }

    fn inside_command(&self, environment: &[(&str, &str)], command: &[&str]) -> Command {
        let mut cluster = Command::new(&self.cluster);
        cluster.args(["exec", "--"]).args(command);
        for (name, value) in environment {
            cluster.env(name, value);
        }
        cluster
    }
}

fn output(command: &mut Command, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{program} does not run"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {} {}", arguments.join(" "), errors.trim(), text.trim());
    }
    Ok(text)
}

/// Waits until `look` gives something.
pub(crate) fn wait_for<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        let seen = look();
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if begun.elapsed() > bound => {
                bail!("{what}: not within {} s", bound.as_secs());
            }
            Err(error) if begun.elapsed() > bound => {
                return Err(error.context(format!("{what}: not within {} s", bound.as_secs())));
            }
            Ok(None) | Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Cgroups of nodes with this name: the tool puts the cluster's prefix before it.
fn node_cgroups(node: &str) -> Vec<PathBuf> {
    let suffix = format!("-{node}");
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .filter_map(|hierarchy| std::fs::read_dir(hierarchy).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_str().is_some_and(|text| text.ends_with(&suffix)))
        .collect()
}

/// Processes in the cgroups below `directory` whose name holds `id`.
fn collect_pids(directory: &Path, id: &str, pids: &mut Vec<u32>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.contains(id)) {
            let text = std::fs::read_to_string(path.join("cgroup.procs"))?;
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        collect_pids(&path, id, pids)?;
    }
    Ok(())
}
