//! Faults of certificates and of who vouches for them.

use super::arena::Scene;
use crate::{
    pair::Pair,
    shell::{OPERATOR, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::json;
use std::{fs, path::Path, time::Duration};

/// Longest time until the kubelets have brought a changed Secret into the pods: their own period is a minute.
const BROUGHT: Duration = Duration::from_secs(180);

/// The operator makes them anew, and the members go on with what they have loaded until they see them.
pub(crate) fn delete_certificates(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (one, other) = (format!("{}-tls", scene.active), format!("{}-tls", scene.standby));
    scene.pair.namespace.kubectl(&["delete", "secrets", &one, &other]).map(drop)
}

/// Links and sessions that are there live on, new ones do not come about.
pub(crate) fn expire_certificates(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    expire_and(scene, |scene| {
        scene.hold(3, 6);
        Ok(())
    })
}

/// The standby takes over on the link that lives on; the dead one's next process gets no new link.
pub(crate) fn expire_certificates_and_kill(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    expire_and(scene, |scene| {
        ensure!(!scene.pair.lease_record()?["sync"].is_null(), "the standby was given up");
        scene.kill_engine(&scene.active)?;
        scene.await_failover()
    })
}

/// Both have ended long ago, and nobody renews them until something else has happened.
fn expire_and(
    scene: &mut Scene<'_>,
    then: impl FnOnce(&mut Scene<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let operators = scene.shell.kubectl(&operator(&["get", "-o", "jsonpath={.spec.replicas}"]))?;
    scene.scale_operator("0")?;
    let broken = scene.expire_both().and_then(|()| then(scene));
    scene.scale_operator(&operators)?;
    broken
}

fn operator<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let place = ["-n", OPERATOR, words[0], "deployment", "understudy-operator"];
    [&place, &words[1..]].concat()
}

impl Scene<'_> {
    fn scale_operator(&self, replicas: &str) -> anyhow::Result<()> {
        self.shell.kubectl(&operator(&["scale", &format!("--replicas={replicas}")]))?;
        if replicas == "0" {
            let selector = "app.kubernetes.io/name=understudy-operator";
            let wait = ["wait", "--for=delete", "pods", "-l", selector, "--timeout=60s"];
            self.shell.kubectl(&[&["-n", OPERATOR], &wait[..]].concat())?;
        }
        Ok(())
    }

    fn expire_both(&mut self) -> anyhow::Result<()> {
        for member in [&self.active, &self.standby] {
            let file = self.expire(member)?;
            self.hurry(member)?;
            self.await_shown(member, &file)?;
        }
        Ok(())
    }

    /// Puts a certificate that has ended in the place of a member's, with all else as it is; its file.
    fn expire(&self, member: &str) -> anyhow::Result<String> {
        let namespace = self.pair.namespace;
        let secret = format!("{member}-tls");
        let own = namespace.files_of_secret(&secret)?;
        let authority = namespace.files_of_secret(&format!("{}-ca", self.pair.name))?;
        let (config, request) = (format!("{own}/ca.cnf"), format!("{own}/request.pem"));
        let (certificate, ended) = (format!("{own}/tls.crt"), format!("{own}/ended.crt"));
        fs::write(format!("{own}/issued"), "")?;
        fs::write(
            &config,
            format!(
                "[ca]\ndefault_ca=it\n[it]\ndatabase={own}/issued\nnew_certs_dir={own}\n\
                 rand_serial=yes\nunique_subject=no\ndefault_md=sha256\npolicy=any\n\
                 copy_extensions=copyall\ncertificate={authority}/tls.crt\n\
                 private_key={authority}/tls.key\n[any]\ncommonName=supplied\n"
            ),
        )?;
        let key = format!("{own}/tls.key");
        let ask = ["x509", "-x509toreq", "-copy_extensions", "copyall", "-in", &certificate];
        self.shell.openssl(&[&ask[..], &["-signkey", &key, "-out", &request]].concat())?;
        let sign = ["ca", "-batch", "-notext", "-config", &config, "-in", &request, "-out", &ended];
        let life = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"];
        self.shell.openssl(&[&sign[..], &life].concat())?;
        let data = json!({"stringData": {"tls.crt": fs::read_to_string(&ended)?}}).to_string();
        namespace.kubectl(&["patch", "secret", &secret, "--type=merge", "-p", &data])?;
        Ok(ended)
    }

    /// Kubelets look at the Secrets of a pod that was changed at once, else within a minute or two.
    fn hurry(&self, member: &str) -> anyhow::Result<()> {
        let now = format!("tests.understudy.dev/hurried={:?}", std::time::SystemTime::now());
        let now = now.replace(|c: char| !c.is_ascii_alphanumeric() && !"./=-".contains(c), "-");
        self.pair.namespace.kubectl(&["annotate", "--overwrite", "pod", member, &now]).map(drop)
    }

    /// Waits until a member shows this certificate to clients.
    fn await_shown(&self, member: &str, file: &str) -> anyhow::Result<()> {
        let wanted = self.shell.openssl(&["x509", "-noout", "-serial", "-in", file])?;
        let host = format!("{member}.{}.svc:5432", self.pair.namespace.name);
        let ask = format!(
            "openssl s_client -starttls postgres -connect {host} </dev/null 2>&1 | \
             openssl x509 -noout -serial"
        );
        wait_for("the certificate is shown", BROUGHT, || {
            Ok((self.shell.inside(&[], &["sh", "-c", &ask])? == wanted).then_some(()))
        })
    }
}

/// Another authority, which clients trust from the beginning.
pub(crate) fn make_authority(pair: &Pair<'_>) -> anyhow::Result<()> {
    let place = pair.next_authority();
    fs::create_dir_all(&place)?;
    let file = |name: &str| place.join(name).display().to_string();
    let subject = format!("/CN=another authority of {}", pair.name);
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let life = ["-nodes", "-days", "30", "-subj", &subject];
    let uses = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    let files = ["-keyout", &file("tls.key"), "-out", &file("tls.crt")];
    pair.shell().openssl(&[&new[..], &life, &uses, &files].concat()).map(drop)
}

/// A person writes another authority over the pair's, without a time in which both are trusted. One member
/// has the new certificates first; the standby dies then, and has to find the active again.
pub(crate) fn replace_authority(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let next = scene.pair.next_authority();
    let certificate = read(&next, "tls.crt")?;
    let key = read(&next, "tls.key")?;
    let data = json!({"tls.crt": certificate, "tls.key": key, "ca.crt": certificate});
    let patch = json!({"stringData": data}).to_string();
    let (secret, namespace) = (format!("{}-ca", scene.pair.name), scene.pair.namespace);
    namespace.kubectl(&["patch", "secret", &secret, "--type=merge", "-p", &patch])?;
    let first = if scene.dice.below(2) == 0 { &scene.active } else { &scene.standby };
    let file = scene.await_issued(first, &next)?;
    scene.hurry(first)?;
    scene.await_shown(first, &file)?;
    let note = format!("{first} first");
    scene.kill_engine(&scene.standby)?;
    scene.note(&note);
    scene.hold(1, 5);
    scene.hurry(&scene.active)?;
    scene.hurry(&scene.standby)
}

fn read(directory: &Path, name: &str) -> anyhow::Result<String> {
    let path = directory.join(name);
    fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
}

impl Scene<'_> {
    /// Waits until a member's Secret has a certificate of this authority; its file.
    fn await_issued(&self, member: &str, authority: &Path) -> anyhow::Result<String> {
        let trust = authority.join("tls.crt").display().to_string();
        wait_for("the Secret is made anew", BROUGHT, || {
            let directory = self.pair.namespace.files_of_secret(&format!("{member}-tls"))?;
            let file = format!("{directory}/tls.crt");
            let verified = self.shell.openssl(&["verify", "-CAfile", &trust, &file]);
            Ok(verified.is_ok().then_some(file))
        })
    }
}

/// What both members show to clients is what the new Secrets hold; no process was started for it.
pub(crate) fn serves_its_new_certificates(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for member in [&scene.active, &scene.standby] {
        // The operator looks at Secrets once a minute.
        let secret = format!("{member}-tls");
        let file = wait_for("the Secret is made anew", BROUGHT, || {
            let directory = scene.pair.namespace.files_of_secret(&secret)?;
            let file = format!("{directory}/tls.crt");
            scene.shell.openssl(&["x509", "-noout", "-checkend", "0", "-in", &file])?;
            Ok(Some(file))
        })?;
        scene.await_shown(member, &file)?;
    }
    Ok(())
}
