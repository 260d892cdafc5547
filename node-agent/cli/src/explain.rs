//! `understudy explain`: the pair's decisions, in the words of `status.decisions`.

use crate::cluster::{PairArguments, PairInCluster};
use clap::Args;
use std::process::ExitCode;

/// `understudy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pair: PairArguments,
}

/// Prints the decisions, newest first, and the exit of the present phase.
pub(crate) async fn run(arguments: ExplainArguments) -> anyhow::Result<ExitCode> {
    let pair = PairInCluster::connect(&arguments.pair).await?.pair().await?;
    print!("{}", render(&serde_json::to_value(pair.status.unwrap_or_default())?));
    Ok(ExitCode::SUCCESS)
}

fn text<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value.get(key).and_then(serde_json::Value::as_str).unwrap_or("")
}

/// The text for a status.
fn render(status: &serde_json::Value) -> String {
    let mut out = String::new();
    let none = Vec::new();
    let decisions = status.get("decisions").and_then(serde_json::Value::as_array).unwrap_or(&none);
    if decisions.is_empty() {
        out.push_str("no role has changed yet\n");
    }
    for decision in decisions.iter().rev() {
        out.push_str(&tell(decision));
    }
    if let Some(exit) = status.get("exit") {
        let next = text(exit, "nextAutomaticStep");
        if !next.is_empty() {
            out.push_str(&format!(
                "now: {} — next {next}; human action: {}; data at risk: {}\n",
                text(status, "phase"),
                text(exit, "humanAction"),
                text(exit, "dataAtRisk"),
            ));
        }
    }
    out
}

/// One decision. Only the parts of its time that were measured are added up.
fn tell(decision: &serde_json::Value) -> String {
    let facts = decision.get("saw").and_then(serde_json::Value::as_array);
    let facts: Vec<&str> =
        facts.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    let parts: Vec<(&str, i64)> = ["detect", "decide", "fence", "promote", "route"]
        .into_iter()
        .filter_map(|part| {
            let spent =
                decision.get(format!("{part}Millis")).and_then(serde_json::Value::as_i64)?;
            Some((part, spent))
        })
        .collect();
    let mut out = format!(
        "{} {} epoch {}   rule {}\n",
        text(decision, "id"),
        text(decision, "at"),
        decision.get("epoch").and_then(serde_json::Value::as_i64).unwrap_or(0),
        text(decision, "rule"),
    );
    let mut line = |name: &str, words: &str| {
        if !words.is_empty() {
            out.push_str(&format!("  {name:9} {words}\n"));
        }
    };
    line("saw", &facts.join(" · "));
    line("did", text(decision, "did"));
    line("rejected", text(decision, "rejected"));
    if !parts.is_empty() {
        let sum: i64 = parts.iter().map(|(_, spent)| spent).sum();
        let spent: Vec<String> = parts.iter().map(|(part, ms)| format!("{part} {ms}")).collect();
        line("time", &format!("{} = {sum} ms", spent.join(" + ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_with_its_times_and_their_sum() {
        let status = serde_json::json!({"decisions": [{
            "id": "D-1", "at": "t", "epoch": 2, "rule": "active-dead", "saw": ["exit 137", "link reset"],
            "did": "promoted x-2", "rejected": "wait", "detectMillis": 1, "decideMillis": 2,
            "fenceMillis": 3, "promoteMillis": 4, "routeMillis": 5}]});
        let text = render(&status);
        assert!(text.contains("exit 137 · link reset"), "{text}");
        assert!(text.contains("D-1") && text.contains("= 15 ms") && text.contains("promoted x-2"));
    }

    #[test]
    fn a_quiet_pair_says_so() {
        assert_eq!(render(&serde_json::json!({})), "no role has changed yet\n");
    }
}
