//! `understudy standalone`: one database on this machine, for a first try, for tests of drivers, and for
//! benchmarks.

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::{io::Write, num::NonZero, path::PathBuf, process::ExitCode};
use understudy_crds::as_bytes;
use understudy_node_agent::{
    config::{LOG_BYTES_MIN, PERMANENT_BYTES_MIN, Sizes},
    standalone::{self, Settings},
    telemetry,
};
use understudy_types::Durability;

/// PostgreSQL's port, in the name of the Unix socket.
const PORT: u16 = 5432;

/// What a commit waits for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum DurabilityChoice {
    /// The disk: an acknowledged commit survives the machine
    LocalDisk,
    /// Nothing: the last moments may be lost with the process
    Memory,
}

/// `understudy standalone`.
#[derive(Debug, Args)]
pub(crate) struct StandaloneArguments {
    /// Directory of the database; made if it is missing
    #[arg(long)]
    data_dir: PathBuf,
    /// Directory of the log, on a disk of its own for instance [default: the database's]
    #[arg(long)]
    log_dir: Option<PathBuf>,
    /// Directory of the Unix socket; who runs as the same user needs no password there
    #[arg(long)]
    socket_dir: Option<PathBuf>,
    /// Opens this port on 127.0.0.1, with SCRAM; without it there is only the Unix socket, named by 5432
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Opens this port on 127.0.0.1 for /metrics, /healthz and /readyz, as a member of a pair has them on 9090
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    metrics_port: Option<u16>,
    /// Name of the administrator, made at the first start
    #[arg(long, default_value_t = own_name())]
    admin: String,
    /// File whose first line is the administrator's password
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// What a commit waits for
    #[arg(long, value_enum, default_value = "local-disk")]
    durability: DurabilityChoice,
    /// Memory for rows and indexes, as a quantity of Kubernetes
    #[arg(long, default_value = "1Gi", value_parser = size)]
    memory: u64,
    /// Memory for statements while they run [default: a quarter of --memory]
    #[arg(long, value_parser = size)]
    temporary: Option<u64>,
    /// Most that the log may take on its disk [default: twice --memory, 2Gi at least]
    #[arg(long, value_parser = size)]
    log_size: Option<u64>,
    /// Session loops, each a thread [default: one for each processor]
    #[arg(long)]
    loops: Option<NonZero<usize>>,
    /// Most client sessions
    #[arg(long, default_value = "1000")]
    sessions: NonZero<usize>,
    /// Begin although the disk failed an earlier process: you have made sure that it is sound again
    #[arg(long)]
    after_disk_failure: bool,
}

/// The user as the shell knows it: psql asks for it when no other is named.
fn own_name() -> String {
    let named = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let root = || rustix::process::geteuid().is_root().then(|| "root".to_owned());
    named("USER").or_else(|| named("LOGNAME")).or_else(root).unwrap_or_else(|| "understudy".into())
}

/// Serves until it is asked to stop.
pub(crate) fn run(arguments: StandaloneArguments) -> anyhow::Result<ExitCode> {
    telemetry::init("standalone");
    let settings = settings(arguments)?;
    standalone::run(settings, tell)?;
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: StandaloneArguments) -> anyhow::Result<Settings> {
    ensure!(
        arguments.socket_dir.is_some() || arguments.port.is_some(),
        "nobody could connect: give --socket-dir DIRECTORY, --port NUMBER, or both"
    );
    let permanent_bytes = arguments.memory;
    let log_bytes =
        arguments.log_size.unwrap_or_else(|| permanent_bytes.saturating_mul(2).max(2 << 30));
    at_least("--memory", permanent_bytes, PERMANENT_BYTES_MIN)?;
    at_least("--log-size", log_bytes, LOG_BYTES_MIN)?;
    let password = arguments.password_file.as_deref().map(|path| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--password-file {} cannot be read", path.display()))?;
        let line = text.lines().next().unwrap_or_default().to_owned();
        ensure!(!line.is_empty(), "--password-file {}: its first line is empty", path.display());
        Ok(line)
    });
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    Ok(Settings {
        log_dir: arguments.log_dir.unwrap_or_else(|| arguments.data_dir.clone()),
        data_dir: arguments.data_dir,
        socket_dir: arguments.socket_dir,
        port: arguments.port.unwrap_or(PORT),
        listens_on_tcp: arguments.port.is_some(),
        metrics_port: arguments.metrics_port,
        admin: arguments.admin,
        password: password.transpose()?,
        durability: match arguments.durability {
            DurabilityChoice::LocalDisk => Durability::LocalDisk,
            DurabilityChoice::Memory => Durability::Memory,
        },
        sizes: Sizes {
            permanent_bytes,
            temporary_bytes: arguments.temporary.unwrap_or(permanent_bytes / 4),
            log_bytes,
        },
        loops: arguments.loops.map_or_else(processors, NonZero::get),
        sessions_max: arguments.sessions.get(),
        after_disk_failure: arguments.after_disk_failure,
    })
}

fn size(text: &str) -> Result<u64, String> {
    as_bytes(&Quantity(text.to_owned())).map_err(|error| error.to_string())
}

fn at_least(option: &str, bytes: u64, least: u64) -> anyhow::Result<()> {
    ensure!(bytes >= least, "{option} is {bytes} bytes; write {}Mi or more", least >> 20);
    Ok(())
}

/// How to connect, on standard output: what starts this process waits for the line.
fn tell(settings: &Settings) {
    let admin = &settings.admin;
    let port = settings.port;
    let mut out = std::io::stdout().lock();
    // Nobody may be listening to it.
    if let Some(dir) = &settings.socket_dir {
        let _ = writeln!(out, "ready: psql -h {} -p {port} -U {admin} understudy", dir.display());
    }
    if settings.listens_on_tcp {
        let _ = writeln!(out, "ready: psql -h 127.0.0.1 -p {port} -U {admin} understudy");
    }
    let _ = out.flush();
}
