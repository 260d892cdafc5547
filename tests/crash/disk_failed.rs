//! A disk that fails an fsync or a write, by strace in the real process: nothing more is acknowledged, the
//! process ends, it does not begin again by itself, and what was acknowledged is there when a person
//! lets it.

use crate::{
    COMES, LOOK,
    load::{self, Record, Shared},
    runtime, verdict,
};
use std::{
    fs::{self, File},
    process::{Child, Command},
    sync::Arc,
    time::Instant,
};
use tokio::time::sleep;
use understudy_tests::alone::{Alone, Place};

/// strace on a process; killed when it is dropped, and the process goes on.
struct Tracer(Child);

impl Tracer {
    /// Begins to answer `call` with `fault`; ends when strace has the process.
    async fn attach(place: &Place, alone: &Alone, call: &str, fault: &str) -> Self {
        let told = place.path().join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-p", &alone.pid().to_string()]);
        strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{fault}")]);
        let child = strace.stderr(File::create(&told).unwrap()).spawn();
        let mut tracer = Self(child.expect("strace is needed: tests/run installs it"));
        let until = Instant::now() + COMES;
        loop {
            let words = fs::read_to_string(&told).unwrap();
            if words.contains("attached") {
                return tracer;
            }
            let ended = tracer.0.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "{ended:?} {words}");
            sleep(LOOK).await;
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the process that it traces.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fails(call: &str, fault: &str) {
    let place = Arc::new(Place::new(&["--memory", "128Mi", "--log-size", "256Mi"]).unwrap());
    let mut alone = place.start().unwrap();
    runtime().block_on(async {
        let mut record = load::prepare(&place).await.unwrap();
        let shared = Shared::new(0, true);
        let strace = async {
            assert!(shared.is_busy(100).await, "nothing is acknowledged");
            Tracer::attach(&place, &alone, call, fault).await
        };
        let run = load::run(&place, &shared, 7, &mut record);
        let (tracer, ()) = tokio::join!(strace, run);
        alone.aborted().unwrap_or_else(|error| panic!("{call} {fault}: {error:#}"));
        drop(tracer);
        assert!(alone.told().contains("the log cannot be written; the process ends"));
        begins_when_a_person_lets_it(&place, &mut record).await;
    });
}

async fn begins_when_a_person_lets_it(place: &Place, record: &mut Record) {
    let told = place.refused().unwrap();
    assert!(told.contains("was given up by an earlier process"), "{told}");
    assert!(told.contains("--after-disk-failure"), "{told}");
    let mut alone = place.start_with(&["--after-disk-failure"]).unwrap();
    verdict::check(&place.connect().await.unwrap(), record).await.unwrap();
    alone.stop().unwrap();
    let _again = place.start().unwrap();
    verdict::check(&place.connect().await.unwrap(), record).await.unwrap();
}

#[test]
fn a_failed_fsync_ends_the_process_and_loses_nothing_that_was_acknowledged() {
    fails("fdatasync", "error=EIO:when=20");
}

#[test]
fn a_disk_that_fails_every_fsync_from_now_on_does_the_same() {
    fails("fdatasync", "error=EIO:when=20+");
}

#[test]
fn a_failed_write_does_the_same() {
    fails("pwrite64", "error=EIO:when=30");
    fails("pwrite64", "error=ENOSPC:when=30+");
}
