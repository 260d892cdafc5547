//! Supervision of real child processes. The engines are shell scripts that speak over standard input,
//! as the real one does.

use super::*;
use std::{
    fs,
    sync::Mutex,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::watch;
use understudy_agent_api::names_incarnation;

/// Reports its life as the n-th start of its directory, waits for leave, then does `act`.
const BEGIN: &str = r#"
start=$(($(cat "$DIR/starts" 2>/dev/null || echo 0) + 1)); echo $start > "$DIR/starts"
printf '{"incarnation":{"start":%d,"id":"%s"}}\n' $start "$UNDERSTUDY_INCARNATION_ID" >&0
read -r leave <&0 || exit 70
case "$leave" in '{"go":'*) ;; *) exit 71;; esac
echo "$leave" > "$DIR/leave-$start"
cp "$DIR/termination" "$DIR/seen-$start" 2>/dev/null
echo $$ > "$DIR/acting-$start.tmp"; mv "$DIR/acting-$start.tmp" "$DIR/acting-$start"
"#;

/// Ends well when told to; set before the engine acts, so that nobody asks too early.
const ON_TERM: &str = "trap 'exit 0' TERM\n";

/// Lives until it is told to end.
const LIVE: &str = "while :; do sleep 0.02; done\n";

/// Collects deaths.
struct Mourner {
    deaths: Mutex<Vec<Death>>,
    count: watch::Sender<usize>,
    voters: watch::Sender<Vec<MemberAddress>>,
}

#[async_trait]
impl Witness for Mourner {
    fn voters(&self, voters: Vec<MemberAddress>) {
        self.voters.send_replace(voters);
    }
    async fn tell(&self, death: Death) {
        self.deaths.lock().unwrap().push(death);
        self.count.send_modify(|count| *count += 1);
    }
}

struct Supervised {
    dir: TempDir,
    mourner: Arc<Mourner>,
    stop: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<Result<i32, SupervisorError>>,
}

fn supervise(script: &str, grace: Duration) -> Supervised {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let script = format!("DIR={}\n{script}", path.display());
    fs::write(path.join("termination"), "").unwrap();
    let settings = Settings {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        run_dir: path.clone(),
        termination_log: path.join("termination"),
        grace,
        linger: Duration::ZERO,
        pause: Duration::from_millis(10),
    };
    let mourner = Arc::new(Mourner {
        deaths: Mutex::default(),
        count: watch::Sender::new(0),
        voters: watch::Sender::new(Vec::new()),
    });
    let (stop, stops) = mpsc::channel(1);
    let task = tokio::spawn(run_until(settings, Arc::clone(&mourner) as _, stops));
    Supervised { dir, mourner, stop, task }
}

impl Supervised {
    /// Waits until the n-th engine acts; its pid by its own word.
    async fn acting(&self, start: u64) -> i32 {
        let path = self.dir.path().join(format!("acting-{start}"));
        let begun = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(&path) {
                return text.trim().parse().unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "engine {start} never acted");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn deaths(&self, count: usize) -> Vec<Death> {
        self.mourner.count.subscribe().wait_for(|told| *told >= count).await.unwrap();
        self.mourner.deaths.lock().unwrap().clone()
    }

    async fn stopped(self) -> i32 {
        self.stop.send(()).await.unwrap();
        self.task.await.unwrap().unwrap()
    }
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_killed_engine_is_mourned_and_started_again_at_once() {
    let supervised = supervise(&format!("{ON_TERM}{BEGIN}{LIVE}"), LONG);
    let first = supervised.acting(1).await;
    let pid = running_engine(supervised.dir.path()).unwrap();
    assert_eq!(pid.as_raw_pid(), first);
    kill(first);
    let deaths = supervised.deaths(1).await;
    let second = supervised.acting(2).await;
    assert_ne!(first, second);
    assert_eq!(running_engine(supervised.dir.path()).unwrap().as_raw_pid(), second);
    assert_eq!((deaths[0].exit_code, deaths[0].incarnation.start), (137, 1));
    assert!(deaths[0].is_overtaken(), "the second acts and the news still counts as the newest");
    assert_eq!(supervised.stopped().await, 0);
}

#[tokio::test]
async fn the_termination_log_names_an_engine_before_it_acts() {
    let supervised = supervise(&format!("{ON_TERM}{BEGIN}{LIVE}"), LONG);
    kill(supervised.acting(1).await);
    supervised.acting(2).await;
    let first = supervised.deaths(1).await[0].incarnation;
    let seen =
        |n: u64| fs::read_to_string(supervised.dir.path().join(format!("seen-{n}"))).unwrap();
    assert!(names_incarnation(&seen(1), first));
    assert!(seen(2).starts_with("2:") && names_incarnation(&seen(2), first), "{}", seen(2));
    let leave =
        |n: u64| fs::read_to_string(supervised.dir.path().join(format!("leave-{n}"))).unwrap();
    assert_eq!(leave(1).trim(), r#"{"go":{"dead":[]}}"#);
    assert!(leave(2).contains(&first.id.to_string()), "the second was not told: {}", leave(2));
    supervised.stopped().await;
}

#[tokio::test]
async fn an_engine_that_asks_to_be_started_again_is_so_without_pause() {
    let again = format!("{ON_TERM}{BEGIN}[ $start -lt 4 ] && exit 75\n{LIVE}");
    let supervised = supervise(&again, LONG);
    supervised.acting(4).await;
    let deaths = supervised.deaths(3).await;
    let codes: Vec<_> = deaths.iter().map(|death| death.exit_code).collect();
    assert_eq!(codes, [75, 75, 75]);
    supervised.stopped().await;
}

#[tokio::test]
async fn quick_deaths_are_followed_by_longer_and_longer_pauses() {
    let supervised = supervise(&format!("{BEGIN}exit 3\n"), LONG);
    let begun = Instant::now();
    supervised.acting(6).await;
    // 0 + 10 + 20 + 40 + 80 ms.
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    let deaths = supervised.deaths(5).await;
    assert!(deaths.iter().all(|death| death.exit_code == 3));
    supervised.stopped().await;
}

#[tokio::test]
async fn a_request_to_stop_lets_the_engine_hand_over_and_takes_its_code() {
    let hand_over = "trap 'echo done > \"$DIR/handed-over\"; exit 7' TERM\n";
    let supervised = supervise(&format!("{hand_over}{BEGIN}{LIVE}"), LONG);
    supervised.acting(1).await;
    let (dir, mourner) = (supervised.dir.path().to_owned(), Arc::clone(&supervised.mourner));
    supervised.stop.send(()).await.unwrap();
    assert_eq!(supervised.task.await.unwrap().unwrap(), 7);
    assert!(dir.join("handed-over").exists());
    assert_eq!(mourner.deaths.lock().unwrap().len(), 1, "the last death was not told");
    assert!(running_engine(&dir).is_err(), "a pid is left behind");
    assert!(!dir.join("acting-2").exists());
}

#[tokio::test]
async fn an_engine_that_does_not_end_in_time_is_killed() {
    let deaf = "trap '' TERM\n";
    let script = format!("{deaf}{BEGIN}{LIVE}");
    let supervised = supervise(&script, Duration::from_millis(200));
    supervised.acting(1).await;
    let begun = Instant::now();
    assert_eq!(supervised.stopped().await, 137);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_request_to_stop_between_two_lives_starts_no_other() {
    let supervised = supervise("echo x >> \"$DIR/lives\"; exit 3\n", LONG);
    let lives = supervised.dir.path().join("lives");
    let begun = Instant::now();
    // By the tenth quick death the pause is the longest one.
    while fs::read_to_string(&lives).map_or(0, |text| text.lines().count()) < 9 {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mourner = Arc::clone(&supervised.mourner);
    assert_eq!(supervised.stopped().await, 3);
    assert!(mourner.deaths.lock().unwrap().is_empty(), "an engine that never reported was mourned");
}

#[tokio::test]
async fn an_engine_with_a_foreign_life_or_nonsense_never_acts() {
    let foreign = r#"
printf '{"incarnation":{"start":1,"id":"00000000-0000-0000-0000-000000000009"}}\n' >&0
read -r leave <&0 && echo "$leave" > "$DIR/acted"
"#;
    let nonsense =
        "printf 'nonsense\\n' >&0\nread -r leave <&0 && echo x > \"$DIR/acted\"; exit 4\n";
    for script in [foreign, nonsense] {
        let supervised = supervise(&format!("echo x >> \"$DIR/lives\"\n{script}"), LONG);
        let lives = supervised.dir.path().join("lives");
        let begun = Instant::now();
        while fs::read_to_string(&lives).map_or(0, |text| text.lines().count()) < 3 {
            assert!(begun.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(!supervised.dir.path().join("acted").exists());
        supervised.stopped().await;
    }
}

#[tokio::test]
async fn the_voters_that_the_engine_names_reach_the_witness() {
    let name = r#"printf '{"voters":[{"member":"orders-2","host":"h2"}]}\n' >&0
"#;
    let supervised = supervise(&format!("{ON_TERM}{BEGIN}{name}{LIVE}"), LONG);
    let mut voters = supervised.mourner.voters.subscribe();
    let named = voters.wait_for(|voters| !voters.is_empty()).await.unwrap().clone();
    assert_eq!((named[0].member.as_str(), named[0].host.as_str()), ("orders-2", "h2"));
    supervised.stopped().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_an_error_and_no_loop() {
    let settings = Settings {
        program: "/nowhere/engine".into(),
        arguments: Vec::new(),
        run_dir: "/nowhere".into(),
        termination_log: "/nowhere".into(),
        grace: LONG,
        linger: Duration::ZERO,
        pause: LONG,
    };
    let mourner = Arc::new(Mourner {
        deaths: Mutex::default(),
        count: watch::Sender::new(0),
        voters: watch::Sender::new(Vec::new()),
    });
    let (_stop, stops) = mpsc::channel(1);
    let error = run_until(settings, mourner, stops).await.unwrap_err();
    assert!(matches!(error, SupervisorError::Start(_)));
}
