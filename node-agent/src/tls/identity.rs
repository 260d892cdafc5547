//! Who a certificate belongs to: the one URI among its alternative names.
//!
//! **Invariant.** A certificate counts for exactly one identity of exactly one pair. Two of our URIs in
//! one certificate, another namespace, another pair's UID (a pair made again under the same name has a
//! new one) are all refused during the handshake, even when the CA is shared.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::sync::Arc;
use understudy_agent_api::names;
use understudy_types::MemberName;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

/// Beginning of every URI that is an identity.
const SCHEME: &str = "understudy://";

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// The operator, with its certificate for this pair.
    Operator,
    /// A member of this pair, or its supervisor.
    Member(MemberName),
}

impl std::fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerIdentity::Operator => f.write_str("the operator"),
            PeerIdentity::Member(name) => write!(f, "member {name}"),
        }
    }
}

/// Whom a caller wants to find at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This very member.
    Member(MemberName),
    /// Some member of this pair.
    AnyMember,
}

/// Why a certificate gives no identity here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The peer showed none.
    #[error("no certificate was shown")]
    None,
    /// Not a certificate that can be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No identity in it, or more than one.
    #[error("the certificate carries {0} `understudy://` URIs, not one")]
    Count(usize),
    /// Another namespace's, another pair's, or no known form.
    #[error("the certificate belongs to `{found}`, which is not of the pair `{pair}`")]
    Foreign {
        /// URI found.
        found: String,
        /// Beginning of this pair's URIs.
        pair: String,
    },
    /// Of this pair, but not the wanted one.
    #[error("the certificate belongs to {found}, not to {wanted}")]
    Other {
        /// Found.
        found: String,
        /// Wanted.
        wanted: String,
    },
}

/// Where this process belongs, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Namespace of the pair.
    pub namespace: String,
    /// UID of the ActiveStandbyPair.
    pub pair_uid: String,
    /// Who this process is.
    pub own: PeerIdentity,
}

impl Home {
    /// The identity in a certificate of this pair.
    ///
    /// # Errors
    /// When it is none of this pair.
    pub fn identify(&self, leaf: &CertificateDer<'_>) -> Result<PeerIdentity, IdentityError> {
        let uri = only_uri(&parse(leaf)?)?;
        if uri == names::operator_uri(&self.namespace, &self.pair_uid) {
            return Ok(PeerIdentity::Operator);
        }
        let members = names::member_uri(&self.namespace, &self.pair_uid, "");
        uri.strip_prefix(&members)
            .and_then(|name| MemberName::new(name).ok())
            .map(PeerIdentity::Member)
            .ok_or_else(|| IdentityError::Foreign {
                found: uri.clone(),
                pair: format!("{SCHEME}{}/{}", self.namespace, self.pair_uid),
            })
    }

    /// Checks that a certificate is this process's own.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn identify_own(&self, leaf: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let found = self.identify(leaf)?;
        if found == self.own {
            return Ok(());
        }
        Err(IdentityError::Other { found: found.to_string(), wanted: self.own.to_string() })
    }
}

/// End of a certificate's time.
///
/// # Errors
/// When it cannot be read.
pub fn not_after(leaf: &CertificateDer<'_>) -> Result<jiff::Timestamp, IdentityError> {
    let seconds = parse(leaf)?.validity().not_after.timestamp();
    jiff::Timestamp::from_second(seconds).map_err(|_| IdentityError::Unreadable)
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    let (_, parsed) =
        parse_x509_certificate(leaf.as_ref()).map_err(|_| IdentityError::Unreadable)?;
    Ok(parsed)
}

fn only_uri(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Unreadable)?;
    let mut uris =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some((*uri).to_owned()),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (first, more) => Err(IdentityError::Count(more + usize::from(first.is_some()))),
    }
}

/// A certificate of the wrong owner ends the handshake with an alert; the reason stays on this side.
fn refused(error: &IdentityError) -> Error {
    tracing::warn!(error = %error, "a peer's certificate was refused");
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// Verifies callers: the chain by webpki, then the identity.
pub(super) fn client_verifier(
    chain: Arc<dyn ClientCertVerifier>,
    home: Home,
) -> Arc<dyn ClientCertVerifier> {
    Arc::new(CallerOfThisPair { chain, home })
}

/// Verifies the called: the chain by webpki, then the identity in place of a DNS name.
pub(super) fn server_verifier(
    roots: Arc<RootCertStore>,
    home: Home,
    expected: Expected,
) -> Arc<dyn ServerCertVerifier> {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    Arc::new(MemberOfThisPair { roots, home, expected, algorithms })
}

#[derive(Debug)]
struct CallerOfThisPair {
    chain: Arc<dyn ClientCertVerifier>,
    home: Home,
}

impl ClientCertVerifier for CallerOfThisPair {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        self.home.identify(leaf).map_err(|error| refused(&error))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct MemberOfThisPair {
    roots: Arc<RootCertStore>,
    home: Home,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MemberOfThisPair {
    fn check_identity(&self, leaf: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let found = self.home.identify(leaf)?;
        let is_wanted = match (&self.expected, &found) {
            (Expected::AnyMember, PeerIdentity::Member(_)) => true,
            (Expected::Member(wanted), PeerIdentity::Member(name)) => wanted == name,
            (Expected::AnyMember | Expected::Member(_), PeerIdentity::Operator) => false,
        };
        if is_wanted {
            return Ok(());
        }
        let wanted = match &self.expected {
            Expected::AnyMember => "a member".to_owned(),
            Expected::Member(name) => format!("member {name}"),
        };
        Err(IdentityError::Other { found: found.to_string(), wanted })
    }
}

impl ServerCertVerifier for MemberOfThisPair {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.check_identity(leaf).map_err(|error| refused(&error))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
