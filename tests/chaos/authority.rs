//! Faults of the Lease and of the Secrets: a person, or a backup, takes away what the pair stands on.

use super::arena::Scene;
use crate::shell::wait_for;
use anyhow::Context;
use serde_json::{Value, json};
use std::time::Duration;

const ANNOTATION: &str = "understudy.dev/authority";
/// Longest time until the kubelets have brought a changed Secret into the pods: their own period is a minute.
const BROUGHT: Duration = Duration::from_secs(180);

impl Scene<'_> {
    fn lease(&self) -> String {
        format!("{}-authority", self.pair.name)
    }

    /// Writes the annotation as it is given, whatever is there.
    fn write_record(&self, record: &Value) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: record.to_string()}}});
        let arguments = ["patch", "lease", &self.lease(), "--type=merge", "-p", &patch.to_string()];
        self.pair.namespace.kubectl(&arguments).map(drop)
    }
}

/// The finalizer is a person's to remove, too.
pub(crate) fn delete_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let lease = scene.lease();
    scene.pair.namespace.kubectl(&["delete", "lease", &lease, "--wait=false"])?;
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    scene.pair.namespace.kubectl(&["patch", "lease", &lease, "--type=merge", "-p", patch])?;
    Ok(())
}

/// The standby is written in as the holder, as if a label had been moved.
pub(crate) fn edit_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut record = scene.pair.lease_record()?;
    record["holder"] = record["sync"]["standby"].clone();
    record["sync"] = Value::Null;
    let seq = record["seq"].as_u64().context("no sequence number")?;
    record["seq"] = json!(seq + 1);
    scene.write_record(&record)
}

/// The state of an earlier epoch comes back after a failover, in which commits were acknowledged.
pub(crate) fn restore_lease(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let old = scene.pair.lease_record()?;
    scene.kill_engine(&scene.active)?;
    scene.hold(4, 6);
    scene.write_record(&old)
}

/// The operator makes them anew, and the members go on with what they have loaded until they see them.
pub(crate) fn delete_certificates(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (one, other) = (format!("{}-tls", scene.active), format!("{}-tls", scene.standby));
    scene.pair.namespace.kubectl(&["delete", "secrets", &one, &other]).map(drop)
}

/// What both members show to clients is what the new Secrets hold; no process was started for it.
pub(crate) fn serves_its_new_certificates(scene: &Scene<'_>) -> anyhow::Result<()> {
    for member in [&scene.active, &scene.standby] {
        // The operator looks at Secrets once a minute.
        let secret = format!("{member}-tls");
        let directory = wait_for("the Secret is made anew", BROUGHT, || {
            scene.pair.namespace.files_of_secret(&secret).map(Some)
        })?;
        let file = format!("{directory}/tls.crt");
        let serial = |arguments: &str| {
            let script = format!("{arguments} openssl x509 -noout -serial");
            scene.shell.inside(&[], &["sh", "-c", &script])
        };
        let wanted = serial(&format!("cat {file} |"))?;
        let host = format!("{member}.{}.svc:5432", scene.pair.namespace.name);
        let shown =
            format!("openssl s_client -starttls postgres -connect {host} </dev/null 2>&1 |");
        wait_for("the new certificate is shown", BROUGHT, || {
            Ok((serial(&shown)? == wanted).then_some(()))
        })?;
    }
    Ok(())
}
