//! SIGKILL, again and again: under load, in a checkpoint, while it starts. After each, what was
//! acknowledged is there, and what was not is there whole or not at all.

use crate::{
    load::{self, Record, Shared},
    verdict,
};
use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    env,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{task, time::sleep};
use understudy_tests::alone::{Alone, Place};

/// Lives of one directory; then a new one begins.
const LIVES: u64 = 25;
/// Longest load before a kill, in milliseconds.
const LOAD_MS: u64 = 400;
/// Longest start before a kill, in milliseconds: recovery takes about as long.
const START_MS: u64 = 120;
/// How long the slice that runs with all tests may begin new lives.
const SLICE: Duration = Duration::from_secs(25);

/// How far a campaign goes.
struct Limit {
    runs: u64,
    until: Instant,
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let runs = asked("UNDERSTUDY_CRASH_RUNS");
    let seed = asked("UNDERSTUDY_CRASH_SEED").unwrap_or_else(rand::random);
    let long = Duration::from_secs(86_400);
    let until = Instant::now() + runs.map_or(SLICE, |_| long);
    let limit = Limit { runs: runs.unwrap_or(u64::MAX), until };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("seed {seed}");
    let done = runtime.block_on(campaign(seed, limit));
    let again = format!("again: tests/crash/run --runs {} --seed {seed}", runs.unwrap_or(LIVES));
    let told = done.with_context(|| again).unwrap();
    println!("{told}");
}

/// What was killed, and what it had acknowledged.
#[derive(Debug, Default)]
struct Sum {
    kills: u64,
    in_start: u64,
    kept: usize,
    open: usize,
    checkpoints: u64,
}

async fn campaign(seed: u64, limit: Limit) -> anyhow::Result<String> {
    let mut sum = Sum::default();
    while sum.kills < limit.runs && Instant::now() < limit.until {
        // A directory's lives come from the seed and its place alone.
        let seed = seed.wrapping_add(sum.kills / LIVES);
        let lives = LIVES.min(limit.runs - sum.kills);
        let open = sum.kills;
        directory(seed, lives, limit.until, &mut sum)
            .await
            .with_context(|| format!("kills {open} to {}", sum.kills))?;
        println!("{sum:?}");
        if sum.kills < open + lives {
            break;
        }
    }
    anyhow::ensure!(sum.kept > 0 && sum.kills > 0, "nothing was killed: {sum:?}");
    Ok(format!("{sum:?}: nothing lost, nothing by halves"))
}

/// All lives of one directory.
async fn directory(seed: u64, lives: u64, until: Instant, sum: &mut Sum) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let place = Arc::new(Place::new(&["--memory", "256Mi", "--log-size", "256Mi"])?);
    let mut alone = place.start()?;
    let mut record = load::prepare(&place).await?;
    let mut number = 0;
    let (mut life, mut kept, mut open) = (0, 0, 0);
    while life < lives && Instant::now() < until {
        number = one_life(&place, &mut alone, &mut random, number, &mut record, sum).await?;
        open += record.open();
        life += 1;
        while life < lives && random.random_range(0..4) == 0 {
            let mut early = place.launch_with(&[])?;
            sleep(Duration::from_millis(random.random_range(0..START_MS))).await;
            early.kill()?;
            sum.in_start += 1;
            life += 1;
        }
        alone = place.start().with_context(|| format!("after life {life}"))?;
        let client = place.connect().await?;
        verdict::check(&client, &mut record)
            .await
            .with_context(|| format!("directory's seed {seed}, life {life}"))?;
        kept = record.kept();
    }
    sum.kills += life;
    sum.kept += kept;
    sum.open += open;
    Ok(())
}

/// Load, a kill at a random moment, and the clients' last words. Returns the next free number.
async fn one_life(
    place: &Arc<Place>,
    alone: &mut Alone,
    random: &mut StdRng,
    number: i64,
    record: &mut Record,
    sum: &mut Sum,
) -> anyhow::Result<i64> {
    let shared = Shared::new(number, true);
    let after = Duration::from_millis(random.random_range(0..LOAD_MS));
    let seed = random.random();
    let killing = async {
        shared.is_busy(1).await;
        sleep(after).await;
        task::block_in_place(|| alone.kill())
    };
    let (killed, ()) = tokio::join!(killing, load::run(place, &shared, seed, record));
    sum.checkpoints += shared.checkpoints.load(Ordering::Relaxed);
    killed.map(|()| shared.number.load(Ordering::Relaxed))
}

/// What is damaged on purpose, and the words that tell of it.
const DAMAGES: [(&str, &str); 6] = [
    ("DELETE FROM ledger WHERE n = (SELECT max(n) FROM ledger)", "was acknowledged, and is lost"),
    ("INSERT INTO ledger VALUES (1000000, 0, 1, 1)", "is there, and nobody sent it"),
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 0", "by the ledger"),
    ("UPDATE lists SET v = v || ',' || v WHERE k = 0", "is twice in list"),
    ("UPDATE queue SET n = n + 1000000 WHERE tag = 's3'", "can only be at one of"),
    ("UPDATE filler SET n = n + 1 WHERE k = 7", "was changed by halves"),
];

#[test]
fn the_verdict_finds_what_is_lost_too_much_or_by_halves() {
    let place = Arc::new(Place::new(&["--memory", "128Mi", "--log-size", "256Mi"]).unwrap());
    let _alone = place.start().unwrap();
    crate::runtime().block_on(async {
        let mut record = load::prepare(&place).await.unwrap();
        let shared = Shared::new(0, false);
        let end = async {
            assert!(shared.is_busy(200).await, "nothing is acknowledged");
            shared.ends.store(true, Ordering::Relaxed);
        };
        tokio::join!(load::run(&place, &shared, 7, &mut record), end);
        let client = place.connect().await.unwrap();
        verdict::check(&client, &mut record).await.unwrap();
        for (damage, words) in DAMAGES {
            client.batch_execute("BEGIN").await.unwrap();
            client.batch_execute(damage).await.unwrap();
            let told = verdict::check(&client, &mut record).await.unwrap_err();
            assert!(format!("{told:#}").contains(words), "{damage}: {told:#}");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        verdict::check(&client, &mut record).await.unwrap();
    });
}
