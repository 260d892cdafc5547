//! The pair's Secrets: authority, certificates, passwords and connection strings. Made here, because
//! keys and passwords need randomness; each is written only when what it holds must change.
//!
//! **Invariants**
//! 1. A password is made once and never changed here: the store has its verifier.
//! 2. Nothing of a Secret's contents reaches logs, events or status.
//! 3. Secrets are read by name, never listed.

use crate::{
    agents::ClientIdentity,
    certificates::{
        Authority, CertificateError, CertifiedPem, Subject, advance, inspect, is_stale, issue,
        make_authority,
    },
    pair::{
        apply::is_current,
        build::{KubernetesObject, owned},
        names,
        validate::{Identity, ValidatedSpec},
    },
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use rand::RngExt;
use std::{collections::BTreeMap, sync::Arc};
use understudy_agent_api::PORT_SQL;
use understudy_types::MemberName;

/// Characters of a generated password; no others, so that it needs no quoting in a URI.
const PASSWORD_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
/// 28 characters of 55: 160 bits.
const PASSWORD_LENGTH: usize = 28;
/// Annotation: which authority issued the certificate.
const ANNOTATION_ISSUER: &str = "understudy.dev/issuer";
/// Annotation of `<pair>-app`: the user's Secret that name and password are from.
const FROM_SECRET: &str = "understudy.dev/from-secret";
/// Annotation: since when the next authority is trusted.
const ANNOTATION_NEXT_SINCE: &str = "understudy.dev/next-since";

/// Why the Secrets are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refused or could not be asked.
    #[error("failed to read or write Secret {name}")]
    Api {
        /// The Secret.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// A certificate could not be made or read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What was made does not fit together.
    #[error("the operator's certificate for the pair cannot be used")]
    Identity(#[source] rustls::Error),
    /// The user's Secret lacks something.
    #[error("Secret {name} lacks {key}")]
    Lacks {
        /// The Secret.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// The pair was deleted or changed since it was read.
    #[error("Secret {0} is not made: the pair is not what it was when it was read")]
    Outdated(String),
}

/// What the rest of a reconciliation needs of the Secrets.
#[derive(Clone)]
pub struct Secured {
    /// The operator towards this pair.
    pub client: Arc<ClientIdentity>,
    /// Earliest end of a certificate.
    pub not_after: Timestamp,
}

/// Whom the Secrets are for.
#[derive(Debug, Clone, Copy)]
pub struct Holders<'a> {
    /// The pair.
    pub identity: &'a Identity,
    /// Its spec.
    pub spec: &'a ValidatedSpec,
    /// Its voters.
    pub voters: &'a [MemberName],
}

/// Reads and mends every Secret of a pair.
///
/// # Errors
/// When one cannot be read, made or written.
pub async fn secure(
    client: &Client,
    holders: Holders<'_>,
    now: Timestamp,
) -> Result<Secured, SecretError> {
    let Holders { identity, spec, voters } = holders;
    let api = Api::namespaced(client.clone(), &identity.namespace);
    let secrets = Secrets { client, api, identity, now };
    let authority = secrets.authority(spec.ca_secret.as_deref()).await?;
    let trusted = authority.trusted();
    let mut not_after = inspect(&authority.issuing.certificate, "the pair's authority")?.not_after;
    let operator = Subject::operator(identity);
    let name = names::operator_tls_secret(&identity.name);
    let (own, end) = secrets.certificate(name, &operator, &authority).await?;
    not_after = not_after.min(end);
    let subscribers =
        (1..=spec.subscribers).map(|number| names::subscriber(&identity.name, number));
    for member in voters.iter().cloned().chain(subscribers) {
        let subject = Subject::member(identity, &member);
        let name = names::member_tls_secret(&member);
        let (_, end) = secrets.certificate(name, &subject, &authority).await?;
        not_after = not_after.min(end);
    }
    secrets.admin(spec).await?;
    secrets.app(spec, voters, &trusted).await?;
    let client = ClientIdentity::new(identity.clone(), &own, &trusted);
    Ok(Secured { client: Arc::new(client.map_err(SecretError::Identity)?), not_after })
}

/// What was made before, for a pair whose spec cannot be carried out now; `None` when there is nothing.
///
/// # Errors
/// When the Secret cannot be read or used.
pub async fn recall(client: &Client, identity: &Identity) -> Result<Option<Secured>, SecretError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &identity.namespace);
    let name = names::operator_tls_secret(&identity.name);
    let found = api.get_opt(&name).await;
    let found = found.map_err(|source| SecretError::Api { name: name.clone(), source })?;
    let Some(secret) = found else { return Ok(None) };
    let own = certified(&secret, &name)?;
    let trusted = required(&secret, &name, "ca.crt")?;
    let not_after = inspect(&own.certificate, &name)?.not_after;
    let client = ClientIdentity::new(identity.clone(), &own, &trusted);
    Ok(Some(Secured { client: Arc::new(client.map_err(SecretError::Identity)?), not_after }))
}

struct Secrets<'a> {
    client: &'a Client,
    api: Api<Secret>,
    identity: &'a Identity,
    now: Timestamp,
}

impl Secrets<'_> {
    async fn read(&self, name: &str) -> Result<Option<Secret>, SecretError> {
        let found = self.api.get_opt(name).await;
        found.map_err(|source| SecretError::Api { name: name.to_owned(), source })
    }

    async fn is_current(&self, name: &str) -> Result<bool, SecretError> {
        let asked = is_current(self.client, self.identity).await;
        asked.map_err(|source| SecretError::Api { name: name.to_owned(), source })
    }

    async fn write(
        &self,
        name: &str,
        data: &BTreeMap<&'static str, String>,
        annotations: &[(&str, String)],
    ) -> Result<(), SecretError> {
        let mut metadata = owned(self.identity, name.to_owned());
        let noted = annotations.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        metadata.annotations = Some(noted.collect());
        let bytes = |text: &String| ByteString(text.clone().into_bytes());
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), bytes(text))).collect();
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        let body = KubernetesObject::of(&secret).body;
        let params = PatchParams::apply(names::MANAGER).force();
        let written = self.api.patch(name, &params, &Patch::Apply(&body)).await;
        written.map(drop).map_err(|source| SecretError::Api { name: name.to_owned(), source })
    }

    /// The authority, after the step of its life that is due.
    async fn authority(&self, provided: Option<&str>) -> Result<Authority, SecretError> {
        let name = names::ca_secret(&self.identity.name);
        let provided = match provided {
            Some(given) => {
                let secret = self.read(given).await?.unwrap_or_default();
                Some(certified(&secret, given)?)
            }
            None => None,
        };
        let found = self.read(&name).await?.and_then(|secret| stored_authority(&secret));
        let (before, is_new) = match (found, &provided) {
            (Some(found), _) => (found, false),
            (None, Some(given)) => {
                inspect(&given.certificate, "the Secret of tls.caSecretName")?;
                (Authority { issuing: given.clone(), next: None, previous: None }, true)
            }
            (None, None) => {
                let issuing = make_authority(&self.identity.name, self.now)?;
                (Authority { issuing, next: None, previous: None }, true)
            }
        };
        let next = advance(&before, provided.as_ref(), &self.identity.name, self.now)?;
        let must_write = is_new || next.is_some();
        let authority = next.unwrap_or(before);
        if must_write {
            let mut data = BTreeMap::from([
                ("tls.crt", authority.issuing.certificate.clone()),
                ("tls.key", authority.issuing.key.clone()),
                ("ca.crt", authority.trusted()),
            ]);
            let mut annotations = Vec::new();
            if let Some((next, since)) = &authority.next {
                data.insert("next.crt", next.certificate.clone());
                data.insert("next.key", next.key.clone());
                annotations.push((ANNOTATION_NEXT_SINCE, since.to_string()));
            }
            if let Some(previous) = &authority.previous {
                data.insert("previous.crt", previous.clone());
            }
            self.write(&name, &data, &annotations).await?;
        }
        Ok(authority)
    }

    /// A certificate with the trust that goes with it; the end of its life.
    async fn certificate(
        &self,
        name: String,
        subject: &Subject,
        authority: &Authority,
    ) -> Result<(CertifiedPem, Timestamp), SecretError> {
        let trusted = authority.trusted();
        let found = match self.read(&name).await? {
            Some(found) => found,
            None if self.is_current(&name).await? => Secret::default(),
            // Perhaps a subscriber's that was scaled in: with its volumes gone, nobody looks for its Secret.
            None => return Err(SecretError::Outdated(name)),
        };
        let issuer = found.annotations().get(ANNOTATION_ISSUER).cloned();
        let present = certified(&found, &name).ok();
        let facts = present.as_ref().and_then(|p| inspect(&p.certificate, &name).ok());
        let fits = issuer.as_ref() == Some(&authority.mark())
            && facts.as_ref().is_some_and(|facts| !is_stale(facts, subject, self.now));
        let is_trusted = text(&found, "ca.crt").as_ref() == Some(&trusted);
        if let (Some(present), Some(facts), true, true) = (&present, &facts, fits, is_trusted) {
            return Ok((present.clone(), facts.not_after));
        }
        let certified = match present {
            Some(present) if fits => present,
            Some(_) | None => issue(&authority.issuing, subject, self.now)?,
        };
        let data = BTreeMap::from([
            ("tls.crt", certified.certificate.clone()),
            ("tls.key", certified.key.clone()),
            ("ca.crt", trusted),
        ]);
        self.write(&name, &data, &[(ANNOTATION_ISSUER, authority.mark())]).await?;
        let end = inspect(&certified.certificate, &name)?.not_after;
        Ok((certified, end))
    }

    async fn admin(&self, spec: &ValidatedSpec) -> Result<(), SecretError> {
        if spec.admin_secret.is_some() {
            return Ok(());
        }
        let name = names::admin_secret(&self.identity.name);
        let found = self.read(&name).await?.unwrap_or_default();
        if text(&found, "password").is_some() && text(&found, "username").is_some() {
            return Ok(());
        }
        let password = text(&found, "password").unwrap_or_else(password);
        let data = BTreeMap::from([("username", "admin".to_owned()), ("password", password)]);
        self.write(&name, &data, &[]).await
    }

    /// Connection strings that work as they stand, from inside the cluster.
    async fn app(
        &self,
        spec: &ValidatedSpec,
        voters: &[MemberName],
        trusted: &str,
    ) -> Result<(), SecretError> {
        let name = names::app_secret(&self.identity.name);
        let found = self.read(&name).await?.unwrap_or_default();
        let noted = found.metadata.annotations.as_ref().and_then(|all| all.get(FROM_SECRET));
        let is_as_noted = noted == spec.app_secret.as_ref();
        // What a Secret of the user's said goes with its mention in the spec.
        let own = if noted.is_none() { found.clone() } else { Secret::default() };
        let (user, password) = match &spec.app_secret {
            Some(given) => {
                let theirs = self.read(given).await?.unwrap_or_default();
                (required(&theirs, given, "username")?, required(&theirs, given, "password")?)
            }
            None => (
                text(&own, "username").unwrap_or_else(|| "app".to_owned()),
                text(&own, "password").unwrap_or_else(password),
            ),
        };
        let data = connection_strings(self.identity, voters, (&user, &password), trusted);
        let is_right = data.iter().all(|(key, value)| text(&found, key).as_ref() == Some(value))
            && found.data.as_ref().is_some_and(|held| held.len() == data.len());
        if is_right && is_as_noted {
            return Ok(());
        }
        let note = spec.app_secret.iter().map(|given| (FROM_SECRET, given.clone()));
        self.write(&name, &data, &note.collect::<Vec<_>>()).await
    }
}

fn connection_strings(
    identity: &Identity,
    voters: &[MemberName],
    (user, password): (&str, &str),
    trusted: &str,
) -> BTreeMap<&'static str, String> {
    let Identity { namespace, name: database, .. } = identity;
    let host = format!("{database}-active.{namespace}.svc");
    let each = |suffix: &str| {
        let of_voters = voters.iter().map(|voter| format!("{voter}.{namespace}.svc{suffix}"));
        // Members are replaced, and a client may hold its string for ever: the last host always leads on.
        of_voters.chain([format!("{host}{suffix}")]).collect::<Vec<_>>().join(",")
    };
    let with_ports = each(&format!(":{PORT_SQL}"));
    let (safe_user, safe_password) = (percent_encoded(user), percent_encoded(password));
    let scheme = format!("postgresql://{safe_user}:{safe_password}@");
    BTreeMap::from([
        ("username", user.to_owned()),
        ("password", password.to_owned()),
        ("host", host.clone()),
        ("hosts", each("")),
        ("port", PORT_SQL.to_string()),
        ("dbname", database.clone()),
        ("uri", format!("{scheme}{host}:{PORT_SQL}/{database}?sslmode=require")),
        (
            "multi-host-uri",
            format!(
                "{scheme}{with_ports}/{database}?target_session_attrs=read-write&sslmode=require&connect_timeout=2"
            ),
        ),
        (
            "jdbc-uri",
            format!(
                "jdbc:postgresql://{with_ports}/{database}?user={safe_user}&password={safe_password}&targetServerType=primary&sslmode=require&connectTimeout=2"
            ),
        ),
        ("ca.crt", trusted.to_owned()),
    ])
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(
            |byte| {
                if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

fn password() -> String {
    let mut random = rand::rng();
    (0..PASSWORD_LENGTH)
        .map(|_| {
            let at = random.random_range(0..PASSWORD_ALPHABET.len());
            char::from(PASSWORD_ALPHABET[at])
        })
        .collect()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}

fn required(secret: &Secret, name: &str, key: &'static str) -> Result<String, SecretError> {
    text(secret, key).ok_or_else(|| SecretError::Lacks { name: name.to_owned(), key })
}

fn certified(secret: &Secret, name: &str) -> Result<CertifiedPem, SecretError> {
    Ok(CertifiedPem {
        certificate: required(secret, name, "tls.crt")?,
        key: required(secret, name, "tls.key")?,
    })
}

fn stored_authority(secret: &Secret) -> Option<Authority> {
    let issuing = certified(secret, "").ok()?;
    let since = secret.annotations().get(ANNOTATION_NEXT_SINCE).and_then(|at| at.parse().ok());
    let next = text(secret, "next.crt").zip(text(secret, "next.key")).zip(since);
    Some(Authority {
        issuing,
        next: next.map(|((certificate, key), at)| (CertifiedPem { certificate, key }, at)),
        previous: text(secret, "previous.crt"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(user: &str, password: &str) -> BTreeMap<&'static str, String> {
        let identity = Identity {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
            uid: "5f0c".to_owned(),
            generation: 1,
            created_unix: 0,
        };
        let voters = [names::voter("orders", 1), names::voter("orders", 3)];
        connection_strings(&identity, &voters, (user, password), "PEM")
    }

    #[test]
    fn connection_strings_name_the_active_and_every_voter() {
        let data = strings("app", "x");
        assert_eq!(
            data["uri"],
            "postgresql://app:x@orders-active.shop.svc:5432/orders?sslmode=require"
        );
        let hosts = "orders-1.shop.svc:5432,orders-3.shop.svc:5432,orders-active.shop.svc:5432";
        assert!(data["multi-host-uri"].contains(&format!("@{hosts}/")));
        assert!(data["multi-host-uri"].contains("target_session_attrs=read-write"));
    }

    #[test]
    fn a_users_own_password_is_quoted() {
        assert!(strings("app", "a/b@c")["uri"].contains("app:a%2Fb%40c@orders-active"));
    }

    #[test]
    fn generated_passwords_differ_and_need_no_quoting() {
        let (one, two) = (password(), password());
        assert_ne!(one, two);
        assert_eq!(percent_encoded(&one), one);
        assert_eq!(one.len(), PASSWORD_LENGTH);
    }
}
