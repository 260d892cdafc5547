//! What this process was told: the environment of its container, read once and made into types.
//!
//! **Invariant.** Every error names the variable and what to write there; all of them are told at once,
//! so that one look at the log mends one pod.
//!
//! Deliberately absent: files of settings (the operator writes the environment), and everything that
//! can change while the process runs (that comes as a [`Scheme`] over the control API).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};
use understudy_agent_api::{MemberAddress, Scheme, names};
use understudy_authority::Timing;
use understudy_types::MemberName;

/// Directory for what lives as long as the container: the engine's pid.
pub const ENV_RUN_DIR: &str = "UNDERSTUDY_RUN_DIR";
/// File that the kubelet reads when the container ends (R10).
pub const ENV_TERMINATION_LOG: &str = "UNDERSTUDY_TERMINATION_LOG";
/// Seconds that the engine gets to hand over before it is killed.
pub const ENV_GRACE_SECONDS: &str = "UNDERSTUDY_GRACE_SECONDS";
/// Address that every port is opened on.
pub const ENV_LISTEN: &str = "UNDERSTUDY_LISTEN";

const RUN_DIR_DEFAULT: &str = "/run/understudy";
const TERMINATION_LOG_DEFAULT: &str = "/dev/termination-log";
/// Five less than the kubelet's default grace of 30 s, so that the last word is ours.
const GRACE_SECONDS_DEFAULT: u64 = 25;
const GRACE_SECONDS_MAX: u64 = 3600;
/// Smallest permanent memory: the smallest pair that the resource allows.
pub const PERMANENT_BYTES_MIN: u64 = 64 << 20;
/// A segment of the log must fit several times.
pub const LOG_BYTES_MIN: u64 = 256 << 20;
/// Most subscribers that a standby feeds.
const SUBSCRIBERS_MAX: usize = 127;
/// Two voters, each with its replacement on the way.
const VOTERS_MAX: usize = 4;
/// Longest DNS name.
const HOST_BYTES_MAX: usize = 253;

/// What a member is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// May become active or standby.
    Voter,
    /// Follows only.
    Subscriber,
}

/// The environment, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the pair.
    pub pair: String,
    /// UID of the ActiveStandbyPair.
    pub pair_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// This member, which is also the pod's name.
    pub member: MemberName,
    /// Voter or subscriber.
    pub kind: MemberKind,
    /// Directory of the data volume.
    pub data_dir: PathBuf,
    /// Directory of the log volume.
    pub log_dir: PathBuf,
    /// Directory of the certificates.
    pub tls_dir: PathBuf,
    /// Directory with the administrator's name and password.
    pub admin_dir: PathBuf,
    /// Directory with the application user's name and password.
    pub app_dir: PathBuf,
    /// What it may use.
    pub sizes: Sizes,
    /// The scheme when the pod was made; a later one on disk or over the control API replaces it.
    pub scheme: Scheme,
    /// Address that every port is opened on.
    pub listen: IpAddr,
    /// Directory for what lives as long as the container.
    pub run_dir: PathBuf,
    /// File that the kubelet reads when the container ends.
    pub termination_log: PathBuf,
    /// What the engine gets to hand over before it is killed.
    pub grace: Duration,
}

/// What an engine may use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Permanent memory: rows and indexes.
    pub permanent_bytes: u64,
    /// Temporary memory: what statements need while they run.
    pub temporary_bytes: u64,
    /// The log volume.
    pub log_bytes: u64,
}

/// One wrong variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}; write {wanted}")]
pub struct WrongVariable {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub wanted: &'static str,
}

/// Everything that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is wrong: {}", lines(.0))]
pub struct ConfigError(pub Vec<WrongVariable>);

fn lines(all: &[WrongVariable]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" · ")
}

/// Why a scheme is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// No voters or too many.
    #[error("a scheme names 1 to {VOTERS_MAX} voters, not {0}")]
    Voters(usize),
    /// Too many subscribers.
    #[error("a scheme names at most {SUBSCRIBERS_MAX} subscribers, not {0}")]
    Subscribers(usize),
    /// A member appears twice.
    #[error("{0} appears twice")]
    Twice(MemberName),
    /// No address.
    #[error("`{host}` is no host for {member}")]
    Host {
        /// The member.
        member: MemberName,
        /// What was given.
        host: String,
    },
    /// D is out of range.
    #[error("leaseDurationMs is {0}; write 3000 to 60000")]
    Lease(u64),
    /// No port.
    #[error("replicationPort is 0; write 1 to 65535")]
    Port,
}

/// Checks what came from outside before anything relies on it.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_scheme(scheme: &Scheme) -> Result<(), SchemeError> {
    if scheme.voters.is_empty() || scheme.voters.len() > VOTERS_MAX {
        return Err(SchemeError::Voters(scheme.voters.len()));
    }
    if scheme.subscribers.len() > SUBSCRIBERS_MAX {
        return Err(SchemeError::Subscribers(scheme.subscribers.len()));
    }
    let mut seen = BTreeSet::new();
    for MemberAddress { member, host } in scheme.voters.iter().chain(&scheme.subscribers) {
        if !seen.insert(member) {
            return Err(SchemeError::Twice(member.clone()));
        }
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(is_host) {
            return Err(SchemeError::Host { member: member.clone(), host: host.clone() });
        }
    }
    if Timing::new(scheme.lease_duration_ms).is_err() {
        return Err(SchemeError::Lease(scheme.lease_duration_ms));
    }
    if scheme.replication_port == 0 {
        return Err(SchemeError::Port);
    }
    Ok(())
}

impl Config {
    /// With the scheme that was kept, if it is newer than the one that the pod was made with.
    #[must_use]
    pub fn with_newer(self, kept: Option<Scheme>) -> Self {
        match kept.filter(|kept| kept.version > self.scheme.version) {
            Some(scheme) if check_scheme(&scheme).is_ok() => Self { scheme, ..self },
            Some(_) | None => self,
        }
    }

    /// Reads this process's environment.
    ///
    /// # Errors
    /// Everything that is missing or wrong, at once.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables from anywhere.
    ///
    /// # Errors
    /// Everything that is missing or wrong, at once.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut read = Reader { lookup: &lookup, wrong: Vec::new() };
        let dir = |read: &mut Reader<'_>, name| {
            read.required(name, "the absolute path of a mounted directory", absolute)
        };
        let bytes = "a number of bytes";
        let config = (|| {
            // Every line is read before any is missed: `?` comes only at the end.
            let pair = read.required(names::ENV_PAIR, "the pair's name", Ok);
            let pair_uid = read.required(names::ENV_PAIR_UID, "the pair's metadata.uid", Ok);
            let namespace = read.required(names::ENV_NAMESPACE, "the pod's namespace", Ok);
            let member = read.required(names::ENV_MEMBER, "the pod's name", member);
            let kind = read.required(names::ENV_KIND, "`voter` or `subscriber`", kind);
            let data_dir = dir(&mut read, names::ENV_DATA_DIR);
            let log_dir = dir(&mut read, names::ENV_LOG_DIR);
            let tls_dir = dir(&mut read, names::ENV_TLS_DIR);
            let admin_dir = dir(&mut read, names::ENV_ADMIN_DIR);
            let app_dir = dir(&mut read, names::ENV_APP_DIR);
            let permanent =
                read.required(names::ENV_PERMANENT_BYTES, bytes, at_least::<PERMANENT_BYTES_MIN>);
            let temporary = read.required(names::ENV_TEMPORARY_BYTES, bytes, at_least::<1>);
            let log_bytes = read.required(names::ENV_LOG_BYTES, bytes, at_least::<LOG_BYTES_MIN>);
            let scheme = read.required(names::ENV_SCHEME, "the JSON of a scheme", scheme);
            let listen = read.optional(ENV_LISTEN, "an IP address", address);
            let run_dir = read.optional(ENV_RUN_DIR, "an absolute path", absolute);
            let log = read.optional(ENV_TERMINATION_LOG, "an absolute path", absolute);
            let grace = read.optional(ENV_GRACE_SECONDS, "1 to 3600", grace);
            Some(Self {
                pair: pair?,
                pair_uid: pair_uid?,
                namespace: namespace?,
                member: member?,
                kind: kind?,
                data_dir: data_dir?,
                log_dir: log_dir?,
                tls_dir: tls_dir?,
                admin_dir: admin_dir?,
                app_dir: app_dir?,
                sizes: Sizes {
                    permanent_bytes: permanent?,
                    temporary_bytes: temporary?,
                    log_bytes: log_bytes?,
                },
                scheme: scheme?,
                listen: listen.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                run_dir: run_dir.unwrap_or_else(|| RUN_DIR_DEFAULT.into()),
                termination_log: log.unwrap_or_else(|| TERMINATION_LOG_DEFAULT.into()),
                grace: grace.unwrap_or(Duration::from_secs(GRACE_SECONDS_DEFAULT)),
            })
        })();
        match config {
            Some(config) if read.wrong.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError(read.wrong)),
        }
    }

    /// Name of the pair's Lease.
    #[must_use]
    pub fn lease_name(&self) -> String {
        format!("{}{}", self.pair, names::LEASE_SUFFIX)
    }

    /// Namespace, pair and own identity, as certificates carry them.
    #[must_use]
    pub fn home(&self) -> crate::tls::identity::Home {
        crate::tls::identity::Home {
            namespace: self.namespace.clone(),
            pair_uid: self.pair_uid.clone(),
            own: crate::tls::identity::PeerIdentity::Member(self.member.clone()),
        }
    }
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    wrong: Vec<WrongVariable>,
}

impl Reader<'_> {
    fn required<T>(
        &mut self,
        variable: &'static str,
        wanted: &'static str,
        parse: impl FnOnce(String) -> Result<T, String>,
    ) -> Option<T> {
        let text = (self.lookup)(variable).filter(|text| !text.is_empty());
        self.take(variable, wanted, text.ok_or_else(|| "is not set".to_owned()).and_then(parse))
    }

    fn optional<T>(
        &mut self,
        variable: &'static str,
        wanted: &'static str,
        parse: impl FnOnce(String) -> Result<T, String>,
    ) -> Option<T> {
        let text = (self.lookup)(variable).filter(|text| !text.is_empty())?;
        self.take(variable, wanted, parse(text))
    }

    fn take<T>(
        &mut self,
        variable: &'static str,
        wanted: &'static str,
        parsed: Result<T, String>,
    ) -> Option<T> {
        parsed.map_err(|problem| self.wrong.push(WrongVariable { variable, problem, wanted })).ok()
    }
}

fn member(text: String) -> Result<MemberName, String> {
    MemberName::new(text).map_err(|error| format!("is wrong: {error}"))
}

fn kind(text: String) -> Result<MemberKind, String> {
    match text.as_str() {
        "voter" => Ok(MemberKind::Voter),
        "subscriber" => Ok(MemberKind::Subscriber),
        other => Err(format!("is `{other}`")),
    }
}

fn absolute(text: String) -> Result<PathBuf, String> {
    let path = PathBuf::from(&text);
    if path.is_absolute() { Ok(path) } else { Err(format!("is `{text}`")) }
}

fn at_least<const MIN: u64>(text: String) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if bytes >= MIN => Ok(bytes),
        Ok(bytes) => Err(format!("is {bytes}, and {MIN} is the least")),
        Err(_) => Err(format!("is `{text}`")),
    }
}

fn address(text: String) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("is `{text}`"))
}

fn grace(text: String) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=GRACE_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err(format!("is `{text}`")),
    }
}

fn scheme(text: String) -> Result<Scheme, String> {
    let scheme: Scheme =
        serde_json::from_str(&text).map_err(|error| format!("cannot be read: {error}"))?;
    check_scheme(&scheme).map_err(|error| format!("is wrong: {error}"))?;
    Ok(scheme)
}

#[cfg(test)]
#[path = "config/tests.rs"]
pub(crate) mod tests;
