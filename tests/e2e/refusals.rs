//! Bad input of every kind: each is refused in words, and loses nothing.

use crate::{
    flows::refusal,
    pair::{Namespace, Outcome, pair_object},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// The table of objects that a real API server must take or refuse.
const TABLE: &str = include_str!("../../crds/tests/validation.yaml");

/// Longest time until a pair says what is wrong with it.
const SAID: Duration = Duration::from_secs(60);

/// Wrong resources: refused by the API server, or told on the object.
pub(crate) fn resources(_: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let cases: Vec<Value> = serde_yaml::from_str(TABLE)?;
    for (number, case) in cases.iter().enumerate() {
        judge(namespace, number, case).with_context(|| format!("{}", case["case"]))?;
    }
    let told = [
        (json!({"image": "localhost/understudy/nothing:0"}), "image"),
        (json!({"authentication": {"adminSecretName": "missing"}}), "missing"),
        (json!({"storage": {"data": {"storageClassName": "nowhere"}}}), "nowhere"),
    ];
    for (number, (spec, words)) in told.into_iter().enumerate() {
        let name = format!("bad-{number}");
        namespace.apply(&pair_object(&name, spec))?;
        wait_for(&format!("{name} says {words}"), SAID, || {
            let object = namespace.object("asp", &name)?.context("it is gone")?;
            let stalled = object["status"]["conditions"].as_array().and_then(|all| {
                all.iter().find(|c| c["type"] == "Stalled" && c["status"] == "True")
            });
            Ok(stalled.filter(|c| c.to_string().to_lowercase().contains(words)).map(drop))
        })?;
        namespace.kubectl(&["delete", "asp", &name, "--timeout=60s"])?;
    }
    Ok(Outcome { note: format!("{} objects judged, 3 told", cases.len()), ..Outcome::default() })
}

/// One row of the table. A changed object is made for real, so that there is something to change.
fn judge(namespace: &Namespace<'_>, number: usize, case: &Value) -> anyhow::Result<()> {
    let generated = format!("case-{number}");
    let name = case["name"].as_str().unwrap_or(&generated);
    let object = |spec: &Value| {
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "ActiveStandbyPair",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    let answer = match case.get("change") {
        None => namespace
            .kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object(&case["spec"])),
        Some(change) => {
            namespace.kubectl_with(&["create", "-f", "-"], &object(&case["spec"]))?;
            let answer = namespace
                .kubectl_with(&["replace", "--dry-run=server", "-f", "-"], &object(change));
            namespace.kubectl(&["delete", "asp", name, "--timeout=60s"])?;
            answer
        }
    };
    match case["refused"].as_str() {
        None => answer.map(drop),
        Some(words) => {
            let error = refusal(answer)?;
            ensure!(error.contains(words), "it is refused with: {error}");
            Ok(())
        }
    }
}

/// Garbage on every port, frames that no member sends, and another pair's certificate: nothing is
/// answered, nobody restarts, and the clients of the pair go on.
pub(crate) fn strangers(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    let pair = namespace.pair("orders", json!({}))?;
    let other = namespace.pair("other", json!({}))?;
    let (active, standby) = (pair.active()?, pair.standby()?);
    let own = namespace.files_of_secret(&format!("{standby}-tls"))?;
    let foreign = namespace.files_of_secret(&format!("{}-tls", other.standby()?))?;
    let before = (pair.incarnation(&active)?, pair.incarnation(&standby)?);
    let recording = pair.record(30)?;
    for member in [&active, &standby] {
        let host = format!("{member}.orders-members.{}.svc", namespace.name);
        let said = shell.inside(
            &[],
            &["/usr/bin/python3", "-c", include_str!("strangers.py"), &host, &own, &foreign],
        )?;
        ensure!(said.trim() == "done", "a member answered strangers: {said}");
    }
    let outcome = recording.finish()?;
    let after = (pair.incarnation(&active)?, pair.incarnation(&standby)?);
    ensure!(after == before, "a process ended: {before:?} became {after:?}");
    ensure!(pair.active()? == active, "the active changed");
    pair.wait_whole()?;
    Ok(outcome)
}
