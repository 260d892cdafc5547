//! The operator's binary: flags, logs, run.

use clap::Parser;
use tracing_subscriber::EnvFilter;
use understudy_operator::{args::Args, runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::try_new(&args.log)?)
        .with_current_span(false)
        .init();
    // A second installation is harmless: whoever came first chose the same one.
    rustls::crypto::ring::default_provider().install_default().ok();
    runtime::run(args).await
}
