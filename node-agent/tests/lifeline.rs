//! The supervisor and an engine as two real processes: this program plays both, as `understudy` does,
//! so that signals, parent-death and adoption are the kernel's own. Run without words it is the test.

#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};
use understudy_agent_api::MemberAddress;
use understudy_node_agent::supervisor::{
    self, Death, EXIT_AGAIN, Lifeline, Settings, Witness, kill_engine, running_engine,
};
use understudy_types::Incarnation;

const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1..3) {
        Some([role, dir]) if role == "supervisor" => play_supervisor(Path::new(dir)),
        Some([role, dir]) if role == "engine" => play_engine(Path::new(dir)),
        _ => {
            an_engine_dies_with_its_supervisor();
            signals_reach_the_engine_and_its_code_comes_back();
            orphans_of_a_dead_engine_are_taken_in();
            an_engine_without_a_supervisor_has_no_lifeline();
            println!("4 passed");
            ExitCode::SUCCESS
        }
    }
}

/// Notes deaths in a file.
struct Chronicle(PathBuf);

#[async_trait]
impl Witness for Chronicle {
    fn voters(&self, _: Vec<MemberAddress>) {}
    async fn tell(&self, death: Death) {
        let line = format!("{} {}\n", death.incarnation, death.exit_code);
        fs::write(self.0.join(format!("death-{}", death.number)), line).unwrap();
    }
}

fn play_supervisor(dir: &Path) -> ExitCode {
    let settings = Settings {
        program: std::env::current_exe().unwrap(),
        arguments: vec!["engine".into(), dir.into()],
        run_dir: dir.to_owned(),
        termination_log: dir.join("termination"),
        grace: LIMIT,
        linger: Duration::ZERO,
        pause: Duration::from_millis(10),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = runtime.block_on(supervisor::run(settings, Arc::new(Chronicle(dir.to_owned()))));
    ExitCode::from(u8::try_from(code.unwrap()).unwrap())
}

#[expect(clippy::zombie_processes, reason = "the supervisor takes it in, which is the test")]
fn play_engine(dir: &Path) -> ExitCode {
    let start = fs::read_dir(dir).unwrap().count() as u64;
    let mut lifeline = Lifeline::take().unwrap().expect("started by a supervisor");
    let own = Incarnation { start, id: lifeline.id() };
    let dead = lifeline.begin(own).unwrap();
    let lines: String = dead.iter().map(|life| format!("{life}\n")).collect();
    fs::write(dir.join("dead"), lines).unwrap();
    let named = fs::read_to_string(dir.join("termination")).unwrap();
    assert!(named.starts_with(&own.to_string()), "acts before it is named: {named}");
    // An orphan-to-be; its parent, this engine, never waits for it.
    Command::new("/bin/sh").args(["-c", "sleep 0.3"]).spawn().unwrap();
    fs::write(dir.join("acting"), own.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind).unwrap().recv().await;
    });
    ExitCode::from(9)
}

struct Stage {
    dir: tempfile::TempDir,
    supervisor: Child,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["supervisor".as_ref(), dir.path().as_os_str()])
        .spawn()
        .unwrap();
    let stage = Stage { dir, supervisor };
    wait_for("the engine to act", || stage.dir.path().join("acting").exists());
    stage
}

impl Stage {
    fn engine(&self) -> Pid {
        running_engine(self.dir.path()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.supervisor), signal).unwrap();
    }
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Gone, or only its exit code is left.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

fn an_engine_dies_with_its_supervisor() {
    let mut stage = stage();
    let engine = stage.engine();
    assert!(!is_dead(engine));
    stage.signal(Signal::KILL);
    wait_for("the engine to die", || is_dead(engine));
    stage.supervisor.wait().unwrap();
}

fn signals_reach_the_engine_and_its_code_comes_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut stage = stage();
        stage.signal(signal);
        assert_eq!(stage.supervisor.wait().unwrap().code(), Some(9));
        assert!(stage.dir.path().join("death-1").exists());
    }
}

fn orphans_of_a_dead_engine_are_taken_in() {
    let mut stage = stage();
    let first = stage.engine();
    fs::remove_file(stage.dir.path().join("acting")).unwrap();
    assert_eq!(kill_engine(stage.dir.path()).unwrap(), first);
    wait_for("the next engine to act", || stage.dir.path().join("acting").exists());
    let told = fs::read_to_string(stage.dir.path().join("death-1")).unwrap();
    assert!(told.trim().ends_with(" 137"), "{told}");
    let known = fs::read_to_string(stage.dir.path().join("dead")).unwrap();
    assert!(told.starts_with(known.trim()) && !known.is_empty(), "{told} against {known}");
    let supervisor = stage.supervisor.id();
    let children = || {
        let file = format!("/proc/{supervisor}/task/{supervisor}/children");
        fs::read_to_string(file).unwrap().split_whitespace().count()
    };
    // The new engine alone: the dead one and its orphan have been waited for.
    wait_for("the orphan to be taken in", || children() == 1);
    stage.signal(Signal::TERM);
    assert_eq!(stage.supervisor.wait().unwrap().code(), Some(9));
    assert_ne!(EXIT_AGAIN, 9, "the code of this test's engine means something else");
}

fn an_engine_without_a_supervisor_has_no_lifeline() {
    assert!(Lifeline::take().unwrap().is_none());
}
