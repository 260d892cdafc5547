//! The pair's certificate authority and the certificates it issues. Keys are made here, so this is the
//! effect side; *when* to renew and whom to trust are pure functions of what exists and of the time.
//!
//! ```text
//!   authority:  issuing ──(1/3 of life left, or the user brings another)──▶ issuing + next, both trusted
//!                       ──(every mount surely shows both)──────────────────▶ next issues, old one trusted
//!                       ──(old one ended)──────────────────────────────────▶ issuing
//! ```
//!
//! **Invariants**
//! 1. A certificate is presented only after its authority was trusted everywhere for [`OVERLAP`].
//! 2. An authority is trusted until it ends, so no certificate of it is cut off early.
//! 3. Identity is the URI of namespace, pair UID and member; DNS names are for SQL clients.

use crate::pair::{build::stable_hash, names, validate::Identity};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::time::Duration;
use understudy_agent_api::names as shared;
use understudy_types::MemberName;
use x509_parser::{
    extensions::GeneralName,
    pem::parse_x509_pem,
    prelude::{FromDer, X509Certificate},
};

/// Life of an authority made here.
const AUTHORITY_DAYS: i64 = 3650;
/// Life of a certificate.
const CERTIFICATE_DAYS: i64 = 90;
/// A certificate is valid from before it was made: the clock of one node may be an hour behind, and a
/// young pair must not lose its link by that.
const BACKDATED: SignedDuration = SignedDuration::from_hours(2);
/// How long a new authority is trusted before it issues: kubelets refresh mounts within two minutes.
pub const OVERLAP: SignedDuration = SignedDuration::from_mins(5);

/// A certificate with its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedPem {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for CertifiedPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertifiedPem")
    }
}

/// The authority of a pair, as its Secret holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Issues now.
    pub issuing: CertifiedPem,
    /// Is trusted, and will issue; since when.
    pub next: Option<(CertifiedPem, Timestamp)>,
    /// Issued before, and is trusted until it ends.
    pub previous: Option<String>,
}

impl Authority {
    /// Every authority to be trusted now.
    #[must_use]
    pub fn trusted(&self) -> String {
        let next = self.next.as_ref().map(|(next, _)| next.certificate.as_str());
        let all = [Some(self.issuing.certificate.as_str()), next, self.previous.as_deref()];
        let ends = |pem: &str| if pem.ends_with('\n') { "" } else { "\n" };
        all.into_iter().flatten().map(|pem| format!("{pem}{}", ends(pem))).collect()
    }

    /// Marks the certificates that this authority issued.
    #[must_use]
    pub fn mark(&self) -> String {
        stable_hash(&self.issuing.certificate)
    }
}

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused.
    #[error("failed to make a certificate for {subject}")]
    Make {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A Secret holds no certificate.
    #[error("{0} holds no certificate in PEM form")]
    Unreadable(String),
}

/// What a certificate says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Beginning.
    pub not_before: Timestamp,
    /// End.
    pub not_after: Timestamp,
    /// URIs in it.
    pub uris: Vec<String>,
    /// DNS names in it.
    pub dns: Vec<String>,
}

impl Facts {
    /// Whether a third of its life or less is left.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second() - self.not_before.as_second();
        self.not_after.as_second() - now.as_second() <= life / 3
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Common name, for people.
    pub name: String,
    /// The identity.
    pub uri: String,
    /// Names under which SQL clients come.
    pub dns: Vec<String>,
}

impl Subject {
    /// A member of a pair: reachable by its own names and by those of every role that it may have.
    #[must_use]
    pub fn member(identity: &Identity, member: &MemberName) -> Self {
        let Identity { namespace, name, uid, .. } = identity;
        let mut dns = vec![
            "localhost".to_owned(),
            shared::member_host(namespace, name, member.as_str()),
            format!("{}.cluster.local", shared::member_host(namespace, name, member.as_str())),
        ];
        let roles = names::ROLE_SERVICES.iter().map(|(suffix, _)| format!("{name}{suffix}"));
        for service in roles.chain([member.to_string()]) {
            dns.push(service.clone());
            dns.push(format!("{service}.{namespace}"));
            dns.push(format!("{service}.{namespace}.svc"));
            dns.push(format!("{service}.{namespace}.svc.cluster.local"));
        }
        Self {
            name: member.to_string(),
            uri: shared::member_uri(namespace, uid, member.as_str()),
            dns,
        }
    }

    /// The operator, towards this pair.
    #[must_use]
    pub fn operator(identity: &Identity) -> Self {
        Self {
            name: names::MANAGER.to_owned(),
            uri: shared::operator_uri(&identity.namespace, &identity.uid),
            dns: Vec::new(),
        }
    }
}

/// Makes an authority.
///
/// # Errors
/// When the library refuses.
pub fn make_authority(pair: &str, now: Timestamp) -> Result<CertifiedPem, CertificateError> {
    let subject = format!("understudy authority of {pair}");
    let make = || {
        let key = KeyPair::generate()?;
        let mut params = params(&subject, now, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(CertifiedPem { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    make().map_err(|source| CertificateError::Make { subject: subject.clone(), source })
}

/// Issues a certificate for both ends of a connection.
///
/// # Errors
/// When the authority cannot be used.
pub fn issue(
    authority: &CertifiedPem,
    subject: &Subject,
    now: Timestamp,
) -> Result<CertifiedPem, CertificateError> {
    let make = || {
        let issuer =
            Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let key = KeyPair::generate()?;
        let mut params = params(&subject.name, now, CERTIFICATE_DAYS);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(subject.uri.as_str().try_into()?)];
        for name in &subject.dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(CertifiedPem { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    make().map_err(|source| CertificateError::Make { subject: subject.name.clone(), source })
}

fn params(name: &str, now: Timestamp, days: i64) -> CertificateParams {
    let at = |moment: Timestamp| {
        let seconds = u64::try_from(moment.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    let shifted = |by: SignedDuration| now.checked_add(by).unwrap_or(now);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(shifted(-BACKDATED));
    params.not_after = at(shifted(SignedDuration::from_hours(24 * days)));
    params
}

/// Reads the first certificate of a PEM text; `place` is for the error.
///
/// # Errors
/// When there is none.
pub fn inspect(pem: &str, place: &str) -> Result<Facts, CertificateError> {
    let unreadable = || CertificateError::Unreadable(place.to_owned());
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| unreadable())?;
    facts(&block.contents).ok_or_else(unreadable)
}

/// Reads a certificate in DER form.
#[must_use]
pub fn facts(der: &[u8]) -> Option<Facts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut facts = Facts {
        not_before: Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        uris: Vec::new(),
        dns: Vec::new(),
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::URI(uri) = name {
            facts.uris.push((*uri).to_owned());
        }
        if let GeneralName::DNSName(dns) = name {
            facts.dns.push((*dns).to_owned());
        }
    }
    Some(facts)
}

/// Whether a member's certificate must be issued anew.
#[must_use]
pub fn is_stale(found: &Facts, subject: &Subject, now: Timestamp) -> bool {
    let mut wanted = subject.dns.clone();
    let mut dns = found.dns.clone();
    wanted.sort_unstable();
    dns.sort_unstable();
    found.is_due(now) || found.uris != [subject.uri.clone()] || dns != wanted
}

/// One step of the authority's life; `None` when nothing changes. `provided` is the user's own.
///
/// # Errors
/// When a certificate cannot be read or made.
pub fn advance(
    authority: &Authority,
    provided: Option<&CertifiedPem>,
    pair: &str,
    now: Timestamp,
) -> Result<Option<Authority>, CertificateError> {
    if let Some((next, since)) = &authority.next {
        let is_trusted_long_enough = now.duration_since(*since) >= OVERLAP;
        return Ok(is_trusted_long_enough.then(|| Authority {
            issuing: next.clone(),
            next: None,
            previous: Some(authority.issuing.certificate.clone()),
        }));
    }
    if let Some(provided) = provided {
        if *provided != authority.issuing {
            inspect(&provided.certificate, "the Secret of tls.caSecretName")?;
            let next = Some((provided.clone(), now));
            return Ok(Some(Authority { next, ..authority.clone() }));
        }
    } else if inspect(&authority.issuing.certificate, "the pair's authority")?.is_due(now) {
        let next = Some((make_authority(pair, now)?, now));
        return Ok(Some(Authority { next, ..authority.clone() }));
    }
    if let Some(previous) = &authority.previous {
        let is_over = inspect(previous, "the former authority").is_ok_and(|f| f.not_after <= now);
        return Ok(is_over.then(|| Authority { previous: None, ..authority.clone() }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn days(days: i64) -> Timestamp {
        now().checked_add(SignedDuration::from_hours(24 * days)).unwrap()
    }

    fn identity() -> Identity {
        Identity {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            uid: "5f0c".to_owned(),
            generation: 1,
            created_unix: 0,
        }
    }

    fn authority() -> Authority {
        let issuing = make_authority("orders", now()).unwrap();
        Authority { issuing, next: None, previous: None }
    }

    #[test]
    fn a_certificate_names_its_member_and_every_service() {
        let subject = Subject::member(&identity(), &MemberName::new("orders-1").unwrap());
        let made = issue(&authority().issuing, &subject, now()).unwrap();
        let facts = inspect(&made.certificate, "here").unwrap();
        assert_eq!(facts.uris, ["understudy://shop/5f0c/member/orders-1"]);
        for name in ["orders-active.shop.svc", "orders-1.shop", "orders-1.orders-members.shop.svc"]
        {
            assert!(facts.dns.iter().any(|dns| dns == name), "{name} is missing");
        }
        assert!(!is_stale(&facts, &subject, now()));
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let subject = Subject::operator(&identity());
        let made = issue(&authority().issuing, &subject, now()).unwrap();
        let facts = inspect(&made.certificate, "here").unwrap();
        assert!(!is_stale(&facts, &subject, days(59)));
        assert!(is_stale(&facts, &subject, days(61)));
    }

    #[test]
    fn a_certificate_of_an_earlier_pair_object_is_stale() {
        let subject = Subject::operator(&identity());
        let made = issue(&authority().issuing, &subject, now()).unwrap();
        let facts = inspect(&made.certificate, "here").unwrap();
        let again = Identity { uid: "another".to_owned(), ..identity() };
        assert!(is_stale(&facts, &Subject::operator(&again), now()));
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_issues_and_the_old_one_until_it_ends() {
        let old = authority();
        assert_eq!(advance(&old, None, "orders", days(10)).unwrap(), None);

        let due = days(2500);
        let both = advance(&old, None, "orders", due).unwrap().unwrap();
        assert_eq!(both.issuing, old.issuing);
        assert_eq!(both.trusted().matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(advance(&both, None, "orders", due).unwrap(), None, "too early to issue");

        let later = due.checked_add(OVERLAP).unwrap();
        let new = advance(&both, None, "orders", later).unwrap().unwrap();
        assert_ne!(new.issuing, old.issuing);
        assert!(new.trusted().contains(old.issuing.certificate.trim_end()));

        let over = days(3651);
        let alone = advance(&new, None, "orders", over).unwrap().unwrap();
        assert_eq!(alone.previous, None);
    }

    #[test]
    fn an_authority_that_the_user_brings_takes_over_the_same_way() {
        let own = authority();
        let theirs = make_authority("company", now()).unwrap();
        let both = advance(&own, Some(&theirs), "orders", now()).unwrap().unwrap();
        assert!(both.trusted().contains(theirs.certificate.trim_end()));
        let later = now().checked_add(OVERLAP).unwrap();
        let new = advance(&both, Some(&theirs), "orders", later).unwrap().unwrap();
        assert_eq!(new.issuing, theirs);
        assert_eq!(advance(&new, Some(&theirs), "orders", later).unwrap(), None);
    }
}
