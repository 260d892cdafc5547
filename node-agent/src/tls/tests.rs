//! Real handshakes on loopback with certificates made on the spot.

use super::{
    Reload, Tls, TlsError,
    identity::{Expected, Home, PeerIdentity},
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::ServerName;
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use understudy_agent_api::names;
use understudy_types::MemberName;

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const PAIR_UID: &str = "5f0c";

/// A CA made for one test.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Time in which a certificate is good.
#[derive(Clone, Copy)]
pub(crate) enum Age {
    Good,
    Expired,
    NotYet,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Chain and key for somebody with these URIs.
    fn issue(&self, uris: &[String], age: Age) -> (String, String) {
        let mut params = CertificateParams::new(vec!["orders-1".to_owned()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (from, to) = match age {
            Age::Good => (2020, 2090),
            Age::Expired => (2020, 2021),
            Age::NotYet => (2089, 2090),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Fills a directory as a mounted Secret would.
    fn fill(&self, dir: &Path, uris: &[String], age: Age, trusted: &[&Authority]) {
        let (chain, key) = self.issue(uris, age);
        let trust: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        std::fs::write(dir.join("tls.crt"), chain).unwrap();
        std::fs::write(dir.join("tls.key"), key).unwrap();
        std::fs::write(dir.join("ca.crt"), trust).unwrap();
    }

    /// A member of the usual pair.
    pub(crate) fn member(&self, name: &str) -> Equipped {
        Equipped::new(self, home(PeerIdentity::Member(MemberName::new(name).unwrap())), Age::Good)
    }

    /// The operator's side, loaded by the same code.
    pub(crate) fn operator(&self) -> Equipped {
        Equipped::new(self, home(PeerIdentity::Operator), Age::Good)
    }
}

/// A directory and what was loaded from it.
pub(crate) struct Equipped {
    dir: TempDir,
    pub(crate) tls: Arc<Tls>,
}

impl Equipped {
    pub(crate) fn new(authority: &Authority, home: Home, age: Age) -> Self {
        let dir = tempfile::tempdir().unwrap();
        authority.fill(dir.path(), &[uri(&home)], age, &[authority]);
        let tls = Tls::load(dir.path(), home).unwrap();
        Self { dir, tls }
    }
}

pub(crate) fn home(own: PeerIdentity) -> Home {
    Home { namespace: NAMESPACE.into(), pair_uid: PAIR_UID.into(), own }
}

fn member_home(name: &str) -> Home {
    home(PeerIdentity::Member(MemberName::new(name).unwrap()))
}

fn uri(home: &Home) -> String {
    match &home.own {
        PeerIdentity::Operator => names::operator_uri(&home.namespace, &home.pair_uid),
        PeerIdentity::Member(name) => {
            names::member_uri(&home.namespace, &home.pair_uid, name.as_str())
        }
    }
}

fn expecting(name: &str) -> Expected {
    Expected::Member(MemberName::new(name).unwrap())
}

/// A whole handshake and one byte each way: what each side says of the other.
async fn meet(
    server: &Tls,
    client: &Tls,
    expected: Expected,
) -> (Result<PeerIdentity, String>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server.mutual_server());
    let connector = TlsConnector::from(client.client(expected));
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(socket).await.map_err(|e| e.to_string())?;
        let who = server.identify(stream.get_ref().1.peer_certificates()).unwrap();
        stream.write_all(b"!").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        Ok(who)
    };
    let call = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("any.name").unwrap();
        let mut stream = connector.connect(name, socket).await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok(())
    };
    tokio::join!(serve, call)
}

#[tokio::test]
async fn members_and_operator_of_one_pair_meet_under_any_name() {
    let ca = Authority::new();
    let server = ca.member("orders-1");
    for (client, is) in [
        (ca.member("orders-2"), PeerIdentity::Member(MemberName::new("orders-2").unwrap())),
        (ca.operator(), PeerIdentity::Operator),
    ] {
        let (who, reached) = meet(&server.tls, &client.tls, expecting("orders-1")).await;
        assert_eq!(who, Ok(is));
        assert_eq!(reached, Ok(()));
        let (_, reached) = meet(&server.tls, &client.tls, Expected::AnyMember).await;
        assert_eq!(reached, Ok(()));
    }
}

#[tokio::test]
async fn a_caller_refuses_the_wrong_member_and_whoever_is_no_member() {
    let ca = Authority::new();
    let client = ca.member("orders-2");
    let (_, reached) = meet(&ca.member("orders-3").tls, &client.tls, expecting("orders-1")).await;
    assert!(reached.is_err());
    let (_, reached) = meet(&ca.operator().tls, &client.tls, Expected::AnyMember).await;
    assert!(reached.is_err());
}

#[tokio::test]
async fn another_pairs_certificate_is_refused_even_under_the_same_ca() {
    let ca = Authority::new();
    let server = ca.member("orders-1");
    let own = member_home("orders-2");
    let again = Home { pair_uid: "other".into(), ..own.clone() };
    let elsewhere = Home { namespace: "other".into(), ..own };
    for stranger in [again, elsewhere] {
        let stranger = Equipped::new(&ca, stranger, Age::Good);
        let (who, reached) = meet(&server.tls, &stranger.tls, Expected::AnyMember).await;
        assert!(who.is_err() && reached.is_err(), "{who:?} {reached:?}");
        let (_, reached) = meet(&stranger.tls, &server.tls, Expected::AnyMember).await;
        assert!(reached.is_err());
    }
}

#[tokio::test]
async fn a_foreign_ca_and_a_wrong_time_are_refused_on_both_sides() {
    let ca = Authority::new();
    let good = ca.member("orders-1");
    let bad = [
        Equipped::new(&Authority::new(), member_home("orders-2"), Age::Good),
        Equipped::new(&ca, member_home("orders-2"), Age::Expired),
        Equipped::new(&ca, member_home("orders-2"), Age::NotYet),
    ];
    for bad in bad {
        let (who, reached) = meet(&good.tls, &bad.tls, Expected::AnyMember).await;
        assert!(who.is_err() && reached.is_err(), "{who:?} {reached:?}");
        let (_, reached) = meet(&bad.tls, &good.tls, Expected::AnyMember).await;
        assert!(reached.is_err());
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let ca = Authority::new();
    let server = ca.member("orders-1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server.tls.mutual_server());
    let mut anonymous = rustls::ClientConfig::clone(&server.tls.client(Expected::AnyMember));
    anonymous.client_auth_cert_resolver = Arc::new(NoCertificate);
    let call = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("any.name").unwrap();
        let mut stream =
            TlsConnector::from(Arc::new(anonymous)).connect(name, socket).await.unwrap();
        stream.read_u8().await
    };
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        acceptor.accept(socket).await.map(drop)
    };
    let (called, served) = tokio::join!(call, serve);
    assert!(called.is_err() && served.is_err());
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_changed_directory_is_taken_whole_and_a_broken_one_not_at_all() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = old.member("orders-1");
    let client = old.member("orders-2");
    assert_eq!(server.tls.reload().unwrap(), Reload::Unchanged);

    // Overlapping trust: the client trusts both, then the server moves to the new CA.
    let client_uri = [uri(client.tls.home())];
    old.fill(client.dir.path(), &client_uri, Age::Good, &[&old, &new]);
    assert_eq!(client.tls.reload().unwrap(), Reload::Replaced);
    let server_uri = [uri(server.tls.home())];
    new.fill(server.dir.path(), &server_uri, Age::Good, &[&old, &new]);
    let (_, before) = meet(&server.tls, &client.tls, Expected::AnyMember).await;
    assert_eq!(before, Ok(()), "in use before it was reloaded");
    assert_eq!(server.tls.reload().unwrap(), Reload::Replaced);
    let (who, reached) = meet(&server.tls, &client.tls, expecting("orders-1")).await;
    assert!(who.is_ok() && reached.is_ok(), "{who:?} {reached:?}");

    std::fs::write(server.dir.path().join("tls.crt"), "half a certif").unwrap();
    assert!(matches!(server.tls.reload(), Err(TlsError::Pem { .. })));
    let (other_chain, _) = new.issue(&server_uri, Age::Good);
    std::fs::write(server.dir.path().join("tls.crt"), other_chain).unwrap();
    assert!(matches!(server.tls.reload(), Err(TlsError::Pair { .. })), "a key of another chain");
    new.fill(server.dir.path(), &client_uri, Age::Good, &[&old, &new]);
    assert!(matches!(server.tls.reload(), Err(TlsError::Identity { .. })));
    std::fs::remove_file(server.dir.path().join("ca.crt")).unwrap();
    assert!(matches!(server.tls.reload(), Err(TlsError::Read { .. })));
    let (who, reached) = meet(&server.tls, &client.tls, expecting("orders-1")).await;
    assert!(who.is_ok() && reached.is_ok(), "the old ones were dropped: {who:?} {reached:?}");
}

#[test]
fn a_mounted_secret_is_read_through_its_link() {
    let ca = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    for version in ["..a", "..b"] {
        let files = dir.path().join(version);
        std::fs::create_dir(&files).unwrap();
        ca.fill(&files, &[uri(&member_home("orders-1"))], Age::Good, &[&ca]);
    }
    let link = dir.path().join("..data");
    std::os::unix::fs::symlink("..a", &link).unwrap();
    let tls = Tls::load(dir.path(), member_home("orders-1")).unwrap();
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("..b", &link).unwrap();
    assert_eq!(tls.reload().unwrap(), Reload::Replaced);
    assert_eq!(tls.not_after().to_string(), "2090-01-01T00:00:00Z");
}

#[test]
fn a_certificate_with_two_identities_or_none_is_nobodys() {
    let ca = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let one = uri(&member_home("orders-1"));
    for uris in [vec![], vec![one.clone(), uri(&home(PeerIdentity::Operator))]] {
        ca.fill(dir.path(), &uris, Age::Good, &[&ca]);
        let loaded = Tls::load(dir.path(), member_home("orders-1"));
        assert!(matches!(loaded, Err(TlsError::Identity { .. })), "{uris:?}");
    }
    ca.fill(dir.path(), &[one, "https://elsewhere".into()], Age::Good, &[&ca]);
    Tls::load(dir.path(), member_home("orders-1")).unwrap();
}
