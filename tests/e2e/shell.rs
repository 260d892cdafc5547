//! Programs that the flows call: kubectl and the cluster tool, as a person would.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    env,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The operator's namespace.
pub(crate) const OPERATOR: &str = "understudy-system";
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);
/// Sizes of the writes that fill a volume, in bytes.
const FILLINGS: [usize; 2] = [1 << 20, 1 << 10];
/// Most that is written to fill a volume, in bytes: more is not a volume of a test.
const FILL_MAX: u64 = 1 << 30;

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

    /// Where kubectl lies.
    pub(crate) fn kubectl_path(&self) -> anyhow::Result<&str> {
        self.kubectl.to_str().context("the path is not text")
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
            .stdin(Stdio::piped())
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

    /// Runs the command line as a person would.
    pub(crate) fn understudy(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.understudy).args(arguments), "understudy", arguments)
    }

    /// Runs openssl.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new("openssl").args(arguments), "openssl", arguments)
    }

    /// Runs the cluster tool.
    pub(crate) fn cluster(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.cluster).args(arguments), "cluster", arguments)
    }

    /// SIGKILL to a container's PID 1.
    pub(crate) fn kill_container(&self, node: &str, id: &str) -> anyhow::Result<()> {
        let pids = container_pids(node, id)?;
        let first = pids.iter().min().context("it has no process")?;
        signal("KILL", &[*first])
    }

    /// Every process of a container, by this machine's pids.
    pub(crate) fn processes(&self, node: &str, id: &str) -> anyhow::Result<Vec<u32>> {
        container_pids(node, id)
    }

    /// A signal to every process of a container.
    pub(crate) fn signal_container(&self, node: &str, id: &str, name: &str) -> anyhow::Result<()> {
        signal(name, &container_pids(node, id)?)
    }

    /// SIGKILL to a container's engine: the process whose parent is PID 1 of the container.
    pub(crate) fn kill_engine(&self, node: &str, id: &str) -> anyhow::Result<()> {
        signal("KILL", &[engine_pid(node, id)?])
    }

    /// Leaves a container so many bytes above what its processes use; the page cache can give way.
    pub(crate) fn starve(&self, node: &str, id: &str, left: u64) -> anyhow::Result<Starved> {
        let cgroup = container_cgroups("memory", node, id)?.swap_remove(0);
        let limit = cgroup.join("memory.limit_in_bytes");
        let starved = Starved {
            before: std::fs::read_to_string(&limit)?,
            killed_before: statistic(&cgroup, "memory.oom_control", "oom_kill")?,
            cgroup,
            left,
        };
        starved.tighten()?;
        Ok(starved)
    }

    /// Runs strace on a container's engine for a while, with this expression.
    pub(crate) fn trace_engine(
        &self,
        node: &str,
        id: &str,
        expression: &str,
        long: Duration,
    ) -> anyhow::Result<()> {
        let pid = engine_pid(node, id)?.to_string();
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid, "-e", expression])
            .spawn()
            .context("strace does not run")?;
        // Not a condition: how long the system calls fail.
        thread::sleep(long);
        let _ = signal("INT", &[strace.id()]);
        strace.wait().context("strace does not end").map(drop)
    }

    /// Fills the volume that a container sees at `directory`, to the last byte.
    pub(crate) fn fill(&self, node: &str, id: &str, directory: &str) -> anyhow::Result<Filled> {
        let pid = engine_pid(node, id)?;
        let path = PathBuf::from(format!("/proc/{pid}/root{directory}/filler"));
        let mut file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        let mut bytes = 0;
        for size in FILLINGS {
            let zeros = vec![0; size];
            bytes += loop_until_full(&mut file, &zeros)?;
        }
        file.sync_all()?;
        Ok(Filled { file, path, bytes })
    }

    /// A program of this machine with the network and the names of the cluster.
    pub(crate) fn inside_command(&self, environment: &[(&str, &str)], command: &[&str]) -> Command {
        let mut cluster = Command::new(&self.cluster);
        cluster.args(["exec", "--"]).args(command);
        for (name, value) in environment {
            cluster.env(name, value);
        }
        cluster
    }
}

/// A container with hardly any memory left (cgroup v1).
pub(crate) struct Starved {
    cgroup: PathBuf,
    before: String,
    killed_before: u64,
    left: u64,
}

impl Starved {
    /// Takes away what it has given back since: an allocator may, as soon as its program is idle.
    pub(crate) fn tighten(&self) -> anyhow::Result<()> {
        let limit = self.cgroup.join("memory.limit_in_bytes");
        let used = statistic(&self.cgroup, "memory.stat", "total_rss")?;
        match std::fs::write(&limit, (used + self.left).to_string()) {
            // So much is in use by now; the limit before stays, which is a tight one.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
            ended => Ok(ended?),
        }
    }

    /// Whether the kernel has killed a process for it. A container that is gone was killed whole.
    pub(crate) fn has_killed(&self) -> anyhow::Result<bool> {
        let killed = !self.cgroup.exists()
            || statistic(&self.cgroup, "memory.oom_control", "oom_kill")? > self.killed_before;
        Ok(killed)
    }

    /// Gives the memory back.
    pub(crate) fn lift(&self) -> anyhow::Result<()> {
        if self.cgroup.exists() {
            std::fs::write(self.cgroup.join("memory.limit_in_bytes"), self.before.trim())?;
        }
        Ok(())
    }
}

/// A volume without room.
pub(crate) struct Filled {
    file: File,
    path: PathBuf,
    /// How many bytes were free.
    pub(crate) bytes: u64,
}

impl Filled {
    /// Gives the room back, whatever became of the process by which the volume was found.
    pub(crate) fn empty(self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        let _ = std::fs::remove_file(&self.path);
        Ok(())
    }
}

/// Writes until there is no room for as much again; the bytes written.
fn loop_until_full(file: &mut File, zeros: &[u8]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    loop {
        match file.write(zeros) {
            Ok(written) => bytes += written as u64,
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => return Ok(bytes),
            Err(e) => return Err(e.into()),
        }
        ensure!(bytes < FILL_MAX, "the volume has no limit");
    }
}

/// A number of a cgroup's file of names and numbers.
fn statistic(cgroup: &Path, file: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(cgroup.join(file))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{file} has no {name}"))?.trim().parse()?)
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

fn signal(name: &str, pids: &[u32]) -> anyhow::Result<()> {
    let mut arguments = vec![format!("-{name}")];
    arguments.extend(pids.iter().map(ToString::to_string));
    output(Command::new("kill").args(&arguments), "kill", &[]).map(drop)
}

/// Every process of a container, found by the cgroup that the kubelet named after it.
fn container_pids(node: &str, id: &str) -> anyhow::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for cgroup in container_cgroups("pids", node, id)? {
        let text = std::fs::read_to_string(cgroup.join("cgroup.procs"))?;
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    ensure!(!pids.is_empty(), "container {id} has no process");
    Ok(pids)
}

/// The process of the container whose parent is in it too: the supervisor has one child.
fn engine_pid(node: &str, id: &str) -> anyhow::Result<u32> {
    let pids = container_pids(node, id)?;
    let parent = |pid: u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    };
    let first = pids.iter().copied().find(|pid| parent(*pid).is_some_and(|p| pids.contains(&p)));
    first.with_context(|| format!("container {id} has no engine"))
}

fn container_cgroups(controller: &str, node: &str, id: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for node in node_cgroups(controller, node) {
        collect_cgroups(&node, id, &mut found);
        if !found.is_empty() {
            break;
        }
    }
    ensure!(!found.is_empty(), "container {id} has no {controller} cgroup on {node}");
    Ok(found)
}

/// Cgroups of nodes with this name: the tool puts the cluster's prefix before it.
fn node_cgroups(controller: &str, node: &str) -> Vec<PathBuf> {
    let suffix = format!("-{node}");
    [format!("/sys/fs/cgroup/{controller}"), "/sys/fs/cgroup".into()]
        .into_iter()
        .filter_map(|hierarchy| std::fs::read_dir(hierarchy).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_str().is_some_and(|text| text.ends_with(&suffix)))
        .collect()
}

/// The cgroups below `directory` whose name holds `id`.
fn collect_cgroups(directory: &Path, id: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.contains(id)) {
            found.push(path.clone());
        }
        collect_cgroups(&path, id, found);
    }
}
