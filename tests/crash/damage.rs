//! Bytes that changed on a disk: a log or a checkpoint that cannot be read whole is refused, by file, by
//! byte, and with the way out; or everything is there. There is no third.

use crate::{
    load::{self, Record, Shared},
    runtime, verdict,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};
use understudy_tests::alone::Place;

/// Bytes that are changed, one after the other.
const TRIES: u32 = 10;

/// A database with some load behind it, stopped; `checkpoints` of them are taken on the way, each behind
/// enough log for a segment to end.
fn stopped(checkpoints: u32) -> (Place, Record) {
    let place = Arc::new(Place::new(&["--memory", "128Mi", "--log-size", "256Mi"]).unwrap());
    let mut alone = place.start().unwrap();
    let record = runtime().block_on(async {
        let mut record = load::prepare(&place).await.unwrap();
        let shared = Shared::new(0, false);
        let run = load::run(&place, &shared, 7, &mut record);
        let end = async {
            assert!(shared.is_busy(300).await, "nothing is acknowledged");
            shared.ends.store(true, Ordering::Relaxed);
        };
        tokio::join!(run, end);
        let client = place.connect().await.unwrap();
        for _ in 0..checkpoints {
            for _ in 0..8 {
                client.batch_execute("UPDATE filler SET v = repeat('z', 400)").await.unwrap();
            }
            client.batch_execute("CALL ttCkpt()").await.unwrap();
        }
        verdict::check(&client, &mut record).await.unwrap();
        record
    });
    alone.stop().unwrap();
    drop(alone);
    (Arc::into_inner(place).expect("all clients have gone"), record)
}

fn files(place: &Place, extension: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.extension().is_some_and(|e| e == extension);
    place.files().unwrap().into_iter().filter(named).collect()
}

/// Changes one byte; the file as it was.
fn change(path: &Path, at: usize) -> Vec<u8> {
    let was = fs::read(path).unwrap();
    let mut bytes = was.clone();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
    was
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// What it says names each file, a byte in it, and what to do.
fn names_the_way_out(told: &str, damaged: &[&Path]) {
    // Its last words are what a person reads; the lines before are its log.
    let told = told.lines().find(|line| line.starts_with("understudy: ")).unwrap_or(told);
    for path in damaged {
        assert!(told.contains(&name(path)), "{} is not named: {told}", path.display());
    }
    assert!(told.contains("byte "), "no offset: {told}");
    assert!(told.contains("nothing was changed") && told.contains("from a copy"), "{told}");
}

fn everything_is_there(place: &Place, record: &mut Record) {
    let mut alone = place.start().unwrap();
    runtime().block_on(async {
        verdict::check(&place.connect().await.unwrap(), record).await.unwrap();
    });
    alone.stop().unwrap();
}

#[test]
fn a_damaged_log_is_refused_by_file_and_byte_or_nothing_is_missing() {
    let (place, mut record) = stopped(0);
    let segments = files(&place, "seg");
    let segment = segments.first().expect("there is a segment");
    let used = fs::read(segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..TRIES {
        // Behind the head, and before what may count as the torn end.
        let at = random.random_range(64..used - 4096);
        let was = change(segment, at);
        let told = place.refused().unwrap();
        names_the_way_out(&told, &[segment]);
        fs::write(segment, was).unwrap();
    }
    everything_is_there(&place, &mut record);
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
    let (place, mut record) = stopped(2);
    let checkpoints = files(&place, "ckp");
    let [_, newest] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    let middle = fs::metadata(newest).unwrap().len() / 2;
    change(newest, usize::try_from(middle).unwrap());
    everything_is_there(&place, &mut record);
}

/// Found by this test: the refusal said from where the log was needed, and nothing of the checkpoints
/// that made it so.
#[test]
fn damaged_checkpoints_are_refused_by_file_and_byte_where_the_log_does_not_reach_back() {
    let (place, mut record) = stopped(3);
    let first = files(&place, "seg").first().map(|path| name(path)).unwrap();
    assert_ne!(first, "log-0000000000000001.seg", "no log was given back");
    let checkpoints = files(&place, "ckp");
    let was: Vec<_> = checkpoints.iter().map(|path| change(path, 5_000)).collect();
    let told = place.refused().unwrap();
    let damaged: Vec<&Path> = checkpoints.iter().map(PathBuf::as_path).collect();
    names_the_way_out(&told, &damaged);
    for (path, was) in checkpoints.iter().zip(was) {
        fs::write(path, was).unwrap();
    }
    everything_is_there(&place, &mut record);
}
