//! `understudy failover`: a person's word that the other member shall go on: under `failover.policy: Manual`,
//! or without the commits of an active that does not come back (R13d). Whether it is needed, and what it
//! costs, is the operator's judgement in the status.

use crate::cluster::{PairArguments, PairInCluster};
use anyhow::{Context, bail, ensure};
use clap::Args;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use understudy_agent_api::names::{ANNOTATION_ACCEPT_LOSS, ANNOTATION_FAILOVER};
use understudy_crds::ActiveStandbyPair;

/// Longest wait for the new active: Lease and grants run out, and the operator looks.
const TAKEN_OVER: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// `understudy failover`.
#[derive(Debug, Args)]
pub(crate) struct FailoverArguments {
    #[command(flatten)]
    pair: PairArguments,
    /// Go on without the commits that only the lost active has
    #[arg(long)]
    accept_loss: bool,
}

/// Gives the word for the epoch that the status tells, and waits for the new active.
pub(crate) async fn run(arguments: FailoverArguments) -> anyhow::Result<ExitCode> {
    let pair = PairInCluster::connect(&arguments.pair).await?;
    let status = status_of(&pair).await?;
    let risk = text(&status["exit"], "dataAtRisk");
    let Need { epoch, loses } = need(&status)?;
    if loses && !arguments.accept_loss {
        println!(
            "{}: {}\nat risk: {risk}\nto go on without them: add --accept-loss",
            pair.name,
            stalled(&status).map_or("", |condition| text(condition, "message")),
        );
        return Ok(ExitCode::FAILURE);
    }
    let api: Api<ActiveStandbyPair> = Api::namespaced(pair.client.clone(), &pair.namespace);
    let annotation = if loses { ANNOTATION_ACCEPT_LOSS } else { ANNOTATION_FAILOVER };
    let word = json!({"metadata": {"annotations": {annotation: epoch.to_string()}}});
    api.patch(&pair.name, &PatchParams::default(), &Patch::Merge(word))
        .await
        .context("cannot note it on the pair")?;
    if loses {
        println!("accepted for epoch {epoch}; lost, if the old active never returns: {risk}");
    } else {
        println!("asked after epoch {epoch}; at risk: {risk}");
    }
    let end = Instant::now() + TAKEN_OVER;
    loop {
        tokio::time::sleep(LOOK).await;
        let status = status_of(&pair).await?;
        let now = status["epoch"].as_i64().unwrap_or(0);
        if now > epoch && is_true(&status, "Available") {
            println!("{} serves with epoch {now}", text(&status, "active"));
            return Ok(ExitCode::SUCCESS);
        }
        ensure!(
            Instant::now() < end,
            "nobody serves after {} s; now: {}",
            TAKEN_OVER.as_secs(),
            text(&status["exit"], "nextAutomaticStep")
        );
    }
}

async fn status_of(pair: &PairInCluster) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(pair.pair().await?.status.unwrap_or_default())?)
}

/// What the operator waits for.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    /// The epoch that the word is for.
    epoch: i64,
    /// Commits would be given up.
    loses: bool,
}

/// An error when the word would change nothing.
fn need(status: &Value) -> anyhow::Result<Need> {
    let reason = stalled(status).map_or("", |condition| text(condition, "reason"));
    let loses = match reason {
        "FailoverIsManual" => false,
        "StandbyNotInSync" | "OneLogLost" | "ActiveFailed" => true,
        _ => bail!(
            "no word is awaited: the pair is {}; next: {}",
            text(status, "phase"),
            match text(&status["exit"], "nextAutomaticStep") {
                "" => "nothing",
                next => next,
            }
        ),
    };
    let epoch = status["epoch"].as_i64().context("the status tells no epoch")?;
    Ok(Need { epoch, loses })
}

fn stalled(status: &Value) -> Option<&Value> {
    condition(status, "Stalled").filter(|condition| condition["status"] == "True")
}

fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition["status"] == "True")
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reason: &str, is_stalled: &str) -> Value {
        json!({
            "phase": "ActiveDown", "epoch": 7,
            "conditions": [{"type": "Stalled", "status": is_stalled, "reason": reason}],
            "exit": {"nextAutomaticStep": "promote orders-2 at once"},
        })
    }

    #[test]
    fn a_loss_is_accepted_only_where_the_operator_waits_for_that_word() {
        let lossy = Need { epoch: 7, loses: true };
        assert_eq!(need(&status("StandbyNotInSync", "True")).unwrap(), lossy);
        assert_eq!(need(&status("OneLogLost", "True")).unwrap(), lossy);
        assert_eq!(need(&status("ActiveFailed", "True")).unwrap(), lossy);
        let planned = Need { epoch: 7, loses: false };
        assert_eq!(need(&status("FailoverIsManual", "True")).unwrap(), planned);
        let refused = need(&status("NotStalled", "False")).unwrap_err().to_string();
        assert!(refused.contains("promote orders-2 at once"), "{refused}");
        assert!(need(&status("StandbyNotInSync", "False")).is_err());
        assert!(need(&json!({})).is_err());
    }
}
