//! How the API server is talked to about authority: on connections of one's own, with short times, and
//! without kube's built-in retries (15 of them, 160 s in all, would outlive every deadline here).

use kube::Config;
use std::time::Duration;

/// How long a request about the Lease may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For TCP and TLS; a request that fails here was never sent.
    pub connect: Duration,
    /// For reading or writing on a connection that exists.
    pub transfer: Duration,
    /// For the whole request, queueing included.
    pub whole: Duration,
}

impl Timeouts {
    /// Longest life of one watch request: a connection that died silently delays a hint by at most
    /// this much, and a hint is all it delays.
    pub(crate) const WATCH_SECONDS: u32 = 20;
}

impl Default for Timeouts {
    /// A renewal is due every D/5 (600 ms for the shortest D), so a request that takes 2 s is lost.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            transfer: Duration::from_millis(1500),
            whole: Duration::from_secs(2),
        }
    }
}

/// The configuration for reads and writes: short times, no retries.
#[must_use]
pub fn prompt_config(mut config: Config, timeouts: Timeouts) -> Config {
    config.connect_timeout = Some(timeouts.connect);
    config.read_timeout = Some(timeouts.transfer);
    config.write_timeout = Some(timeouts.transfer);
    // Else the time that a pooled connection sat idle counts against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
}

/// The configuration for watches: as [`prompt_config`], but silence is normal while nothing changes.
#[must_use]
pub fn watch_config(config: Config, timeouts: Timeouts) -> Config {
    let silence = Duration::from_secs(u64::from(Timeouts::WATCH_SECONDS)) + timeouts.whole;
    let mut config = prompt_config(config, timeouts);
    config.read_timeout = Some(silence);
    config
}
