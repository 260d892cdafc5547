//! Faults of certificates and of who vouches for them.

use super::arena::Scene;
use crate::shell::wait_for;
use std::time::Duration;

/// Longest time until the kubelets have brought a changed Secret into the pods: their own period is a minute.
const BROUGHT: Duration = Duration::from_secs(180);

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
