//! `understudy trapped`: the transactions that an old active had and the pair went on without. Shown as
//! SQL, done again on the active, or thrown away; until then the member keeps them on its volume.

use crate::{
    cluster::{PairArguments, PairInCluster},
    demo::Target,
    status,
};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use understudy_agent_api::{
    self as api, AgentStatus, TrappedPage, TrappedQuery, TrappedStatus, TrappedTransaction, names,
};
use understudy_types::Lsn;

/// `understudy trapped`.
#[derive(Debug, Args)]
pub(crate) struct TrappedArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the transactions as SQL
    Show(Tail),
    /// Do them again on the active, each as one transaction; those that do not fit are told and left out
    Replay(Tail),
    /// Throw them away
    Discard {
        #[command(flatten)]
        tail: Tail,
        /// Nobody needs them any more
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Tail {
    /// Member and epoch, as in orders-1-e6; with --local the file's name
    tail: String,
    /// The pair's namespace [default: the kubeconfig's]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Ask this pod's own agent
    #[arg(long)]
    local: bool,
}

/// Runs one of them.
pub(crate) async fn run(arguments: TrappedArguments) -> anyhow::Result<ExitCode> {
    match arguments.what {
        What::Show(tail) if tail.local => {
            let transactions = read_all(&tail.tail).await?;
            println!("{}", serde_json::to_string(&transactions)?);
        }
        What::Discard { tail, yes } if tail.local => {
            ensure!(yes, "say --yes: what is thrown away is on no other member");
            let query = TrappedQuery { file: tail.tail, after: Lsn::ZERO };
            status::own_agent()?.post(api::TRAPPED_DISCARD, &query).await?;
            println!("thrown away");
        }
        What::Replay(tail) if tail.local => bail!("replay works outside the pod"),
        What::Show(tail) => {
            for transaction in Kept::find(&tail).await?.read().await? {
                print!("{}", text(&transaction));
            }
        }
        What::Replay(tail) => return replay(Kept::find(&tail).await?).await,
        What::Discard { tail, yes } => {
            let kept = Kept::find(&tail).await?;
            let count: u64 = kept.tails.iter().map(|t| t.transactions).sum();
            ensure!(
                yes,
                "{count} transactions are on no other member; `understudy trapped show {}` prints them, --yes throws them away",
                tail.tail
            );
            for one in &kept.tails {
                let command =
                    ["understudy", "trapped", "discard", "--local", "--yes", one.file.as_str()];
                kept.pair.output_of(&kept.member, &command).await?;
            }
            println!("{count} transactions were thrown away");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The tails of one member and epoch.
struct Kept {
    pair: PairInCluster,
    member: String,
    tails: Vec<TrappedStatus>,
}

impl Kept {
    async fn find(tail: &Tail) -> anyhow::Result<Self> {
        let (member, epoch) = parse(&tail.tail)?;
        // The pod says which pair it belongs to.
        let unnamed = PairArguments { pair: String::new(), namespace: tail.namespace.clone() };
        let mut pair = PairInCluster::connect(&unnamed).await?;
        let pod = pair.pods().get(&member).await.with_context(|| format!("no member {member}"))?;
        let name = pod.metadata.labels.and_then(|mut labels| labels.remove(names::LABEL_PAIR));
        pair.name = name.with_context(|| format!("pod {member} is no member of a pair"))?;
        let said = pair.output_of(&member, &["understudy", "status", "--local", "--json"]).await?;
        let said: Vec<AgentStatus> = serde_json::from_str(&said)?;
        let all = said.into_iter().next().context("the agent says nothing")?.trapped;
        let tails: Vec<TrappedStatus> = all.into_iter().filter(|t| t.epoch.0 == epoch).collect();
        ensure!(!tails.is_empty(), "{member} keeps nothing of epoch {epoch}");
        Ok(Self { pair, member, tails })
    }

    async fn read(&self) -> anyhow::Result<Vec<TrappedTransaction>> {
        let mut all = Vec::new();
        for tail in &self.tails {
            let command = ["understudy", "trapped", "show", "--local", tail.file.as_str()];
            let text = self.pair.output_of(&self.member, &command).await?;
            let read: Vec<TrappedTransaction> = serde_json::from_str(&text)
                .with_context(|| format!("{} answered something else", self.member))?;
            all.extend(read);
        }
        Ok(all)
    }
}

/// `orders-1-e6`: the member, and the epoch after the last `-e`.
fn parse(tail: &str) -> anyhow::Result<(String, u64)> {
    let parts = tail.rsplit_once("-e");
    let (member, epoch) =
        parts.with_context(|| format!("{tail}: write MEMBER-eEPOCH, as in orders-1-e6"))?;
    let epoch = epoch.parse().with_context(|| format!("{tail}: {epoch} is no epoch"))?;
    Ok((member.to_owned(), epoch))
}

/// Every page of a file, from the own agent.
async fn read_all(file: &str) -> anyhow::Result<Vec<TrappedTransaction>> {
    let agent = status::own_agent()?;
    let mut query = TrappedQuery { file: file.to_owned(), after: Lsn::ZERO };
    let mut all: Vec<TrappedTransaction> = Vec::new();
    loop {
        let page: TrappedPage = agent.ask(api::TRAPPED, &query).await?;
        all.extend(page.transactions);
        if page.is_last {
            return Ok(all);
        }
        query.after = all.last().context("an empty page in between")?.lsn;
    }
}

fn text(transaction: &TrappedTransaction) -> String {
    let statements: String = transaction.statements.iter().map(|s| format!("{s};\n")).collect();
    format!("-- transaction {}\nBEGIN;\n{statements}COMMIT;\n", transaction.lsn)
}

async fn replay(kept: Kept) -> anyhow::Result<ExitCode> {
    let transactions = kept.read().await?;
    let arguments = PairArguments {
        pair: kept.pair.name.clone(),
        namespace: Some(kept.pair.namespace.clone()),
    };
    let client = Target::by_cluster(&arguments).await?.connect().await?;
    let mut refused = 0;
    for transaction in &transactions {
        if let Err(why) = again(&client, transaction).await {
            refused += 1;
            client.batch_execute("ROLLBACK").await.context("the session is lost")?;
            println!("-- left out, {why}\n{}", text(transaction));
        }
    }
    println!("{} done again, {refused} left out", transactions.len() - refused);
    println!("they stay on {} until `understudy trapped discard`", kept.member);
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One transaction; refused when a statement finds no row, or more than one.
async fn again(
    client: &tokio_postgres::Client,
    transaction: &TrappedTransaction,
) -> Result<(), String> {
    let told = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(db) => db.message().to_owned(),
        None => error.to_string(),
    };
    client.batch_execute("BEGIN").await.map_err(told)?;
    for statement in &transaction.statements {
        if statement.starts_with("--") {
            return Err("a part of it is no statement: see below".to_owned());
        }
        let rows = client.execute(statement, &[]).await.map_err(told)?;
        if rows != 1 {
            return Err(format!("{rows} rows instead of one: {statement}"));
        }
    }
    client.batch_execute("COMMIT").await.map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_named_by_member_and_epoch() {
        assert_eq!(parse("orders-1-e6").unwrap(), ("orders-1".to_owned(), 6));
        assert_eq!(parse("a-east-2-e12").unwrap(), ("a-east-2".to_owned(), 12));
        assert!(parse("orders-1").is_err());
        assert!(parse("orders-1-ex").is_err());
    }

    #[test]
    fn a_transaction_reads_as_a_script() {
        let transaction =
            TrappedTransaction { lsn: Lsn(7), statements: vec!["DELETE FROM t".to_owned()] };
        assert_eq!(text(&transaction), "-- transaction 0/7\nBEGIN;\nDELETE FROM t;\nCOMMIT;\n");
    }
}
