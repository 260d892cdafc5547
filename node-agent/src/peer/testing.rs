//! Certificates of a test pair, made in memory: an authority, members, and configurations as the agent
//! has them. A member's certificate carries its name in the same URI form as in production.

use super::{LinkTls, Target};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use std::sync::Arc;
use understudy_replication::{Attach, Follower, FollowerKind, WIRE_VERSION};
use understudy_types::{
    Dbid, Epoch, EpochHistory, EpochId, EpochStart, Incarnation, Lsn, MemberName, StoreId,
};
use uuid::Uuid;
use x509_parser::{extensions::GeneralName, prelude::*};

const URI: &str = "understudy://test/pair/member/";

/// A pair's certificate authority.
pub(crate) struct TestPair {
    authority: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// One member's certificates.
pub(crate) struct TestTls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl TestPair {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().der().clone();
        Self { authority, issuer: Issuer::new(params, key) }
    }

    /// Certificates for `member`, valid for the name `localhost`.
    pub(crate) fn member(&self, member: &str) -> Arc<TestTls> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(format!("{URI}{member}").try_into().unwrap()));
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.clone()], key.clone_key())
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf], key)
            .unwrap();
        Arc::new(TestTls { server: Arc::new(server), client: Arc::new(client) })
    }
}

impl LinkTls for TestTls {
    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    fn client(&self, _to: &MemberName) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    fn member(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<MemberName, String> {
        let certificate = certificates.and_then(<[_]>::first).ok_or("it shows no certificate")?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
        let names = parsed.subject_alternative_name().map_err(|e| e.to_string())?;
        let mut uris = names.iter().flat_map(|n| &n.value.general_names).filter_map(|n| match n {
            GeneralName::URI(uri) => uri.strip_prefix(URI),
            _ => None,
        });
        let name = uris.next_back().ok_or("it names no member")?;
        MemberName::new(name).map_err(|e| e.to_string())
    }
}

/// Where a test's listener is.
pub(crate) fn target(member: &str, port: u16) -> Target {
    Target { member: name(member), host: "localhost".to_owned(), port }
}

pub(crate) fn name(member: &str) -> MemberName {
    MemberName::new(member).unwrap()
}

pub(crate) fn incarnation(start: u64) -> Incarnation {
    Incarnation { start, id: Uuid::from_u128(u128::from(start) << 8) }
}

pub(crate) fn epoch(number: u64) -> EpochId {
    EpochId { number: Epoch(number), author: Uuid::from_u128(u128::from(number)) }
}

pub(crate) fn follower(member: &str) -> Follower {
    Follower {
        member: name(member),
        store: StoreId(Uuid::from_u128(5)),
        incarnation: incarnation(1),
    }
}

pub(crate) fn attach(member: &str) -> Attach {
    let mut history = EpochHistory::default();
    history.push(EpochStart { epoch: epoch(1), first_lsn: Lsn(1) }).unwrap();
    Attach {
        version: WIRE_VERSION,
        follower: follower(member),
        kind: FollowerKind::Standby,
        dbid: Some(Dbid(Uuid::from_u128(9))),
        history,
        end: Lsn(10),
        promised: Epoch(1),
    }
}
