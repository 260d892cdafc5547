//! Certificates of this process: loaded from one directory, watched, and turned into configurations
//! for the two kinds of doors: *mutual* (control API, replication: both ends show who they are) and
//! *clients* (SQL: the server shows who it is, the client proves itself by password).
//!
//! **Invariants.**
//! 1. Key, chain and trusted CAs are taken together or not at all; a broken set leaves the one in use.
//! 2. A mutual handshake succeeds only with a certificate of this pair: right chain, in its time, and
//!    the URI of this namespace and pair UID ([`identity`]). DNS names play no part, so an address may
//!    be anything.
//! 3. A new configuration is used from the next handshake on; open connections live on.
//!
//! Deliberately absent: issuing (operator), revocation lists (a certificate lives for weeks, and a
//! removed CA ends all of its certificates), session resumption on mutual doors (a resumed session
//! would carry an identity past the removal of its CA).

pub mod identity;

use arc_swap::ArcSwap;
use identity::{Expected, Home, IdentityError, PeerIdentity};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often the directory is looked at: a Secret's update takes the kubelet up to a minute anyway.
pub const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// File with the certificate and its intermediates.
const CHAIN_FILE: &str = "tls.crt";
/// File with the private key.
const KEY_FILE: &str = "tls.key";
/// File with every CA that is trusted at this time.
const TRUST_FILE: &str = "ca.crt";
/// Largest of these files; a Secret holds at most 1 MiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why certificates cannot be used. Each names the file and what to look at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {path}; mount the member's TLS Secret there")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not the PEM it should be.
    #[error("{path} holds no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Key and certificate do not belong together, or rustls cannot use them.
    #[error("certificate and key in {dir} cannot be used together")]
    Pair {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The CAs cannot be used.
    #[error("the trusted CAs in {dir} cannot be used")]
    Trust {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// The certificate is somebody else's.
    #[error("the certificate in {dir} is not this process's own")]
    Identity {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

/// What a look at the directory found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The same files as before.
    Unchanged,
    /// New ones, in use from now on.
    Replaced,
}

/// The certificates in use.
pub struct Tls {
    dir: PathBuf,
    home: Home,
    current: ArcSwap<Loaded>,
}

struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    trust: Vec<u8>,
}

struct Loaded {
    files: Files,
    not_after: jiff::Timestamp,
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    mutual_server: Arc<ServerConfig>,
    sql_server: Arc<ServerConfig>,
}

impl Tls {
    /// Loads the directory for the first time.
    ///
    /// # Errors
    /// When a file is missing or unusable, or the certificate names somebody else.
    pub fn load(dir: &Path, home: Home) -> Result<Arc<Self>, TlsError> {
        let loaded = Loaded::new(dir, &home, Files::read(dir)?)?;
        Ok(Arc::new(Self { dir: dir.to_owned(), home, current: ArcSwap::from_pointee(loaded) }))
    }

    /// Looks at the directory again.
    ///
    /// # Errors
    /// When the new files cannot be used; the old ones stay in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let files = Files::read(&self.dir)?;
        if files.are_same_as(&self.current.load().files) {
            return Ok(Reload::Unchanged);
        }
        self.current.store(Arc::new(Loaded::new(&self.dir, &self.home, files)?));
        Ok(Reload::Replaced)
    }

    /// Reloads for ever; run it on the control runtime.
    pub async fn keep_fresh(self: Arc<Self>, every: Duration) {
        let mut complained = String::new();
        loop {
            tokio::time::sleep(every).await;
            match self.reload() {
                Ok(Reload::Unchanged) => complained.clear(),
                Ok(Reload::Replaced) => {
                    complained.clear();
                    tracing::info!(not_after = %self.not_after(), "certificates replaced");
                }
                // The same trouble is told once, not every ten seconds.
                Err(error) if complained != error.to_string() => {
                    complained = error.to_string();
                    tracing::error!(error = &error as &dyn std::error::Error, "certificates kept");
                }
                Err(_) => {}
            }
        }
    }

    /// For doors where both ends show certificates.
    #[must_use]
    pub fn mutual_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().mutual_server)
    }

    /// For the SQL door: the client shows none.
    #[must_use]
    pub fn sql_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().sql_server)
    }

    /// To call a mutual door of `expected` and nobody else.
    #[must_use]
    pub fn client(&self, expected: Expected) -> Arc<ClientConfig> {
        let current = self.current.load();
        let verifier =
            identity::server_verifier(Arc::clone(&current.roots), self.home.clone(), expected);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&current.own))));
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// End of the certificate in use.
    #[must_use]
    pub fn not_after(&self) -> jiff::Timestamp {
        self.current.load().not_after
    }

    /// Who is at the other end of a finished mutual handshake.
    ///
    /// # Errors
    /// When there is no certificate or it is not of this pair.
    pub fn identify(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<PeerIdentity, IdentityError> {
        let leaf = certificates.and_then(<[_]>::first).ok_or(IdentityError::None)?;
        self.home.identify(leaf)
    }

    /// Namespace, pair and own identity.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }
}

impl std::fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("dir", &self.dir)
            .field("home", &self.home)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Kubernetes replaces a mounted Secret by turning the link `..data` over: reading through one
    /// resolved directory gives one consistent set.
    fn read(dir: &Path) -> Result<Self, TlsError> {
        let linked = dir.join("..data");
        let dir = std::fs::canonicalize(&linked).unwrap_or_else(|_| dir.to_owned());
        Ok(Self {
            chain: read(&dir.join(CHAIN_FILE))?,
            key: read(&dir.join(KEY_FILE))?,
            trust: read(&dir.join(TRUST_FILE))?,
        })
    }

    fn are_same_as(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key && self.trust == other.trust
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

impl Loaded {
    fn new(dir: &Path, home: &Home, files: Files) -> Result<Self, TlsError> {
        let chain = certificates(dir, CHAIN_FILE, &files.chain)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| TlsError::Pem { path: dir.join(KEY_FILE), what: "private key" })?;
        let unusable = |source| TlsError::Pair { dir: dir.to_owned(), source };
        let stranger = |source| TlsError::Identity { dir: dir.to_owned(), source };
        let leaf = chain.first().expect("certificates() gives at least one");
        home.identify_own(leaf).map_err(stranger)?;
        let not_after = identity::not_after(leaf).map_err(stranger)?;
        let own = Arc::new(CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?);
        own.keys_match().map_err(unusable)?;

        let mut roots = RootCertStore::empty();
        for certificate in certificates(dir, TRUST_FILE, &files.trust)? {
            roots.add(certificate).map_err(unusable)?;
        }
        let roots = Arc::new(roots);
        let mutual_server = mutual_server(home, Arc::clone(&roots), Arc::clone(&own))
            .map_err(|source| TlsError::Trust { dir: dir.to_owned(), source })?;
        let sql_server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own))));
        let (mutual_server, sql_server) = (Arc::new(mutual_server), Arc::new(sql_server));
        Ok(Self { files, not_after, own, roots, mutual_server, sql_server })
    }
}

fn mutual_server(
    home: &Home,
    roots: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
) -> Result<ServerConfig, VerifierBuilderError> {
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_client_cert_verifier(identity::client_verifier(chain, home.clone()))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(
    dir: &Path,
    file: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = || TlsError::Pem { path: dir.join(file), what: "certificate" };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| error())?;
    if found.is_empty() { Err(error()) } else { Ok(found) }
}

/// The cryptography in use everywhere: ring.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes ring the process's default, which kube's client needs; the first line of `main`. Doing it
/// twice is harmless.
pub fn install_provider() {
    // An error only says that a default is installed already.
    let _ = ring::default_provider().install_default();
}

#[cfg(test)]
#[path = "tls/tests.rs"]
pub(crate) mod tests;
