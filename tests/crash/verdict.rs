//! What the database holds after a life, against the record of its clients.

use crate::load::{ACCOUNTS, BALANCE, BATCH, BATCHES, Fate, LIST, Record, SESSIONS};
use anyhow::{Context, ensure};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Looks at everything. Afterwards nothing is open in `record`: what was, is kept or gone now.
pub(crate) async fn check(client: &Client, record: &mut Record) -> anyhow::Result<()> {
    let ledger = numbers_are_there(client, record).await?;
    balances_follow_from_the_ledger(client, &ledger).await?;
    indexes_agree(client, &ledger).await?;
    lists_agree(client, &ledger).await?;
    queue_holds_one_row_of_each(client, record).await?;
    additions_are_there(client, record).await
}

/// Source, target and amount by number.
type Ledger = BTreeMap<i64, (i32, i32, i64)>;

async fn numbers_are_there(client: &Client, record: &mut Record) -> anyhow::Result<Ledger> {
    let rows = client.query("SELECT n, source, target, amount FROM ledger", &[]).await?;
    let rows = rows.iter().map(|r| (r.get(0), (r.get(1), r.get(2), r.get(3))));
    let mut ledger = Ledger::new();
    for (n, transfer) in rows {
        ensure!(ledger.insert(n, transfer).is_none(), "transfer {n} is there twice");
        ensure!(record.transfers.contains_key(&n), "transfer {n} is there, and nobody sent it");
    }
    for (n, fate) in &mut record.transfers {
        let is_there = ledger.contains_key(n);
        match fate {
            Fate::Kept => ensure!(is_there, "transfer {n} was acknowledged, and is lost"),
            Fate::Gone => ensure!(!is_there, "transfer {n} was refused, and is there"),
            Fate::Open => *fate = if is_there { Fate::Kept } else { Fate::Gone },
        }
    }
    Ok(ledger)
}

async fn balances_follow_from_the_ledger(client: &Client, ledger: &Ledger) -> anyhow::Result<()> {
    let mut expected: BTreeMap<i32, i64> = (0..ACCOUNTS).map(|id| (id, BALANCE)).collect();
    for (source, target, amount) in ledger.values() {
        *expected.entry(*source).or_default() -= amount;
        *expected.entry(*target).or_default() += amount;
    }
    let rows = client.query("SELECT id, balance FROM accounts", &[]).await?;
    let found: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(found == expected, "balances are {found:?}, by the ledger {expected:?}");
    Ok(())
}

/// The scan of the table knows what each index knows.
async fn indexes_agree(client: &Client, ledger: &Ledger) -> anyhow::Result<()> {
    let mut by_source = BTreeSet::new();
    for source in 0..ACCOUNTS {
        let rows = client.query("SELECT n FROM ledger WHERE source = $1", &[&source]).await?;
        by_source.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
    }
    let all: BTreeSet<i64> = ledger.keys().copied().collect();
    ensure!(by_source == all, "the index on source and the table part: {:?}", &by_source ^ &all);
    let ordered = client.query("SELECT n FROM ledger WHERE n >= 0 ORDER BY n", &[]).await?;
    let ordered: Vec<i64> = ordered.iter().map(|row| row.get(0)).collect();
    ensure!(ordered.iter().eq(ledger.keys()), "the key's order and the table part");
    let point = client.prepare("SELECT amount FROM ledger WHERE n = $1").await?;
    for (n, (_, _, amount)) in ledger.iter().rev().take(200) {
        let row = client.query_opt(&point, &[n]).await?;
        let row =
            row.with_context(|| format!("transfer {n} is in the table, not under its key"))?;
        ensure!(row.get::<_, i64>(0) == *amount, "transfer {n} has two amounts");
    }
    Ok(())
}

async fn lists_agree(client: &Client, ledger: &Ledger) -> anyhow::Result<()> {
    let rows = client.query("SELECT k, v FROM lists", &[]).await?;
    let mut found = BTreeSet::new();
    for row in rows {
        let (list, text): (i64, &str) = (row.get(0), row.get(1));
        for n in text.split(',') {
            let n: i64 = n.parse().with_context(|| format!("list {list} is {text}"))?;
            ensure!(n / LIST == list, "{n} is in list {list}");
            ensure!(found.insert(n), "{n} is twice in list {list}");
        }
    }
    let expected: BTreeSet<i64> = ledger.keys().copied().collect();
    ensure!(found == expected, "lists and ledger part: {:?}", &found ^ &expected);
    Ok(())
}

async fn queue_holds_one_row_of_each(client: &Client, record: &mut Record) -> anyhow::Result<()> {
    let rows = client.query("SELECT n, tag FROM queue ORDER BY n", &[]).await?;
    ensure!(rows.len() == SESSIONS.unsigned_abs() as usize, "{} rows in the queue", rows.len());
    for (session, places) in &mut record.queue {
        let tag = format!("s{session}");
        let row = client.query_opt("SELECT n FROM queue WHERE tag = $1", &[&tag]).await?;
        let n: i64 = row.with_context(|| format!("{tag} is not in the queue"))?.get(0);
        ensure!(places.contains(&n), "{tag} is at {n}, and can only be at one of {places:?}");
        let scanned = rows.iter().find(|row| row.get::<_, &str>(1) == tag).map(|r| r.get(0));
        ensure!(scanned == Some(n), "{tag} is at {n} by its index, at {scanned:?} by the table");
        *places = vec![n];
    }
    Ok(())
}

async fn additions_are_there(client: &Client, record: &mut Record) -> anyhow::Result<()> {
    for row in client.query("SELECT k, hits FROM counters", &[]).await? {
        settle(record.counts.entry(row.get(0)).or_default(), row.get(1), "counter", row.get(0))?;
    }
    let sql = "SELECT k / $1 AS batch, min(n), max(n), count(*) FROM filler GROUP BY 1";
    let rows = client.query(sql, &[&BATCH]).await?;
    ensure!(rows.len() == BATCHES.unsigned_abs() as usize, "{} batches", rows.len());
    for row in rows {
        let (batch, least, most, count): (i32, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        ensure!(count == i64::from(BATCH), "batch {batch} has {count} rows");
        ensure!(least == most, "batch {batch} was changed by halves: {least} and {most}");
        settle(record.batches.entry(batch).or_default(), most, "batch", batch)?;
    }
    Ok(())
}

fn settle(told: &mut (i64, i64), found: i64, what: &str, number: i32) -> anyhow::Result<()> {
    let (kept, open) = *told;
    let may_be = kept..=kept + open;
    ensure!(may_be.contains(&found), "{what} {number} is {found}, and may be {may_be:?} only");
    *told = (found, 0);
    Ok(())
}
