//! One database of this engine as a process of its own, for tests that break it: `understudy standalone`
//! in a directory that goes with the test.

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Longest wait for a process to end.
const ENDS: Duration = Duration::from_secs(60);
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);
/// Port in the name of the socket; no TCP port is opened.
const PORT: u16 = 5432;
/// The administrator.
const USER: &str = "keeper";
/// Name of the database, which takes any for itself.
const DATABASE: &str = "understudy";

/// The program, which `cargo build --workspace` puts beside this one, or one directory above a test.
///
/// # Errors
/// When it was not built.
pub fn program() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).take(2).map(|beside| beside.join("understudy"));
    let mut found = found.filter(|program| program.is_file());
    found.next().with_context(|| {
        format!("understudy is not beside {}: cargo build --workspace", here.display())
    })
}

/// Where a database lies, and how it is started.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    program: PathBuf,
    data: PathBuf,
    options: Vec<String>,
}

/// The process; killed when it is dropped.
#[derive(Debug)]
pub struct Alone {
    child: Child,
    out: BufReader<ChildStdout>,
    errors: PathBuf,
}

impl Place {
    /// A directory of its own, and options of `understudy standalone` beside directories and user.
    ///
    /// # Errors
    /// When there is no program or no room.
    pub fn new(options: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("understudy-alone-").tempdir()?;
        let data = directory.path().join("data");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Ok(Self { directory, program: program()?, data, options })
    }

    /// Puts the files of the database somewhere else.
    #[must_use]
    pub fn with_data(self, data: PathBuf) -> Self {
        Self { data, ..self }
    }

    /// The directory that goes with the test.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The files of the database, all below one directory.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.data.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        Ok(found)
    }

    /// A URI for the socket.
    #[must_use]
    pub fn uri(&self) -> String {
        let host = self.path().display().to_string().replace('/', "%2F");
        format!("postgresql://{USER}@{host}:{PORT}/{DATABASE}")
    }

    /// Starts it with options for this time alone, and does not wait.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn launch_with(&self, options: &[&str]) -> anyhow::Result<Alone> {
        let mut command = Command::new(&self.program);
        command.arg("standalone").arg("--data-dir").arg(&self.data);
        command.arg("--socket-dir").arg(self.path()).args(["--admin", USER]);
        command.args(&self.options).args(options).env("UNDERSTUDY_LOG", "info");
        let errors = self.path().join("errors");
        command.stdout(Stdio::piped()).stderr(File::create(&errors)?);
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let out = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Alone { child, out, errors })
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends before; the error says what it said.
    pub fn start(&self) -> anyhow::Result<Alone> {
        self.start_with(&[])
    }

    /// The same, with options for this time alone.
    ///
    /// # Errors
    /// When it ends before; the error says what it said.
    pub fn start_with(&self, options: &[&str]) -> anyhow::Result<Alone> {
        let mut alone = self.launch_with(options)?;
        ensure!(alone.is_ready()?, "it did not begin: {}", alone.told());
        Ok(alone)
    }

    /// Starts it where it must refuse; what it said.
    ///
    /// # Errors
    /// When it begins, or ends as if all was well.
    pub fn refused(&self) -> anyhow::Result<String> {
        let mut alone = self.launch_with(&[])?;
        ensure!(!alone.is_ready()?, "it began");
        let status = alone.wait()?;
        ensure!(!status.success(), "it ended as if all was well: {}", alone.told());
        Ok(alone.told())
    }

    /// A session.
    ///
    /// # Errors
    /// When there is nobody to connect to.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.path()).port(PORT).user(USER).dbname(DATABASE);
        config.connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Alone {
    /// Waits until it says that it is ready; `false` when it ends before.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn is_ready(&mut self) -> anyhow::Result<bool> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        Ok(line.starts_with("ready"))
    }

    /// What it wrote to its standard error so far.
    #[must_use]
    pub fn told(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// A clean stop.
    ///
    /// # Errors
    /// When it ends otherwise, or not at all.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "a clean stop failed, {status}: {}", self.told());
        Ok(())
    }

    /// How it ended, when it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not come within a minute.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + ENDS;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it does not end: {}", self.told());
            thread::sleep(LOOK);
        }
    }

    /// Waits for an end by SIGABRT: it gave up by itself.
    ///
    /// # Errors
    /// When it ends otherwise, or not at all.
    pub fn aborted(&mut self) -> anyhow::Result<()> {
        let status = self.wait()?;
        ensure!(status.signal() == Some(6), "it ended otherwise, {status}: {}", self.told());
        Ok(())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}
