//! `understudy standalone` as a process: real psql, SIGKILL, a second process on the same directory.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// A database of its own in a directory that goes with it.
struct Place {
    directory: tempfile::TempDir,
    port: u16,
    metrics_port: u16,
}

/// A process that runs it; killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Place {
    fn new() -> Self {
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, metrics_port] = free.map(|free| free.local_addr().unwrap().port());
        Self { directory: tempfile::tempdir().unwrap(), port, metrics_port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
        fs::write(self.path("password"), "secret\nnot this\n").unwrap();
        command.arg("standalone").arg("--data-dir").arg(self.path("data"));
        command.arg("--socket-dir").arg(self.directory.path());
        command.args(["--port", &self.port.to_string(), "--admin", "keeper", "--memory", "64Mi"]);
        command.args(["--metrics-port", &self.metrics_port.to_string()]);
        command.arg("--password-file").arg(self.path("password"));
        command
    }

    /// Starts it, and waits until it says that it is ready.
    fn start(&self) -> Process {
        let mut child =
            self.command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let process = Process(child);
        let mut lines = told.lines().map(Result::unwrap);
        let first = lines.next().expect("it ended before it was ready");
        assert!(first.starts_with("ready: psql -h "), "{first}");
        process
    }

    /// Starts it where it must not; what it said.
    fn refused(&self) -> String {
        let mut command = self.command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = child.stderr.take().unwrap();
        let mut process = Process(child);
        assert_eq!(out.lines().next().map(Result::unwrap), None, "it began");
        assert!(!process.0.wait().unwrap().success(), "it ended as if all was well");
        std::io::read_to_string(err).unwrap()
    }

    fn psql(&self, host: &str, password: &str, sql: &str) -> Output {
        let port = self.port.to_string();
        let mut command = Command::new("psql");
        command.args(["-X", "-A", "-t", "-q", "-w", "-h", host, "-p", &port, "-U", "keeper"]);
        command.args(["-c", sql, "understudy"]).env("PGPASSWORD", password);
        command.output().expect("psql is needed for this test")
    }

    /// What the metrics port answers.
    fn asked(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    }

    /// On the Unix socket, as this process's user.
    fn sql(&self, sql: &str) -> String {
        let output = self.psql(&self.directory.path().display().to_string(), "", sql);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A psql that asks for one number after the other until the server is gone.
fn counting(place: &Place) -> Child {
    let (host, port) = (place.directory.path().display().to_string(), place.port.to_string());
    let mut command = Command::new("psql");
    command.args(["-X", "-A", "-t", "-q", "-w", "-h", &host, "-p", &port, "-U", "keeper"]);
    command.args(["-f", "-", "understudy"]).stdin(Stdio::piped());
    let mut psql = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let asked = "insert into t (v) values (1) returning id;\nselect nextval('t_id_seq');\n";
    let mut input = psql.stdin.take().unwrap();
    // It may go before it has read everything.
    std::thread::spawn(move || input.write_all(asked.repeat(50_000).as_bytes()));
    psql
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_was_committed_is_there_after_sigkill_and_after_a_clean_stop() {
    let place = Place::new();
    let mut process = place.start();
    place.sql("create table t (k int primary key, v text); insert into t values (1, 'one')");
    drop(process);
    process = place.start();
    assert_eq!(place.sql("select * from t"), "1|one");
    place.sql("insert into t values (2, 'two')");
    process.signal(Signal::TERM);
    assert!(process.0.wait().unwrap().success(), "a clean stop is no failure");
    let _again = place.start();
    assert_eq!(place.sql("select * from t order by k"), "1|one\n2|two");
}

#[test]
fn no_number_of_a_sequence_comes_twice_after_sigkill() {
    let place = Place::new();
    let mut process = place.start();
    place.sql("create table t (id bigserial primary key, v int)");
    let mut given = BTreeSet::new();
    for round in 1..=3 {
        let clients = [counting(&place), counting(&place), counting(&place)];
        let enough = format!("select last_value > {} from t_id_seq", round * 2_000);
        while place.sql(&enough) != "t" {}
        drop(process);
        for client in clients {
            let output = client.wait_with_output().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let number: u64 = line.parse().unwrap();
                assert!(given.insert(number), "{number} was given twice, in round {round}");
            }
        }
        process = place.start();
        let highest = given.last().copied().unwrap_or(0);
        let next: u64 = place.sql("select nextval('t_id_seq')").parse().unwrap();
        assert!(next > highest, "{next} after {highest}");
        assert!(given.insert(next));
    }
    let kept: usize = place.sql("select count(*) from t").parse().unwrap();
    assert!(kept >= 1_000, "only {kept} rows");
    assert_eq!(
        place.sql("select count(*) from t where id > (select last_value from t_id_seq)"),
        "0"
    );
}

#[test]
fn the_own_user_needs_no_password_on_the_socket_and_everybody_does_on_tcp() {
    let place = Place::new();
    let _process = place.start();
    assert_eq!(place.sql("select current_user"), "keeper");
    let wrong = place.psql("127.0.0.1", "not this", "select 1");
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("password authentication failed for user \"keeper\""), "{told}");
    let right = place.psql("127.0.0.1", "secret", "select 1");
    assert_eq!(String::from_utf8_lossy(&right.stdout).trim(), "1");
}

#[test]
fn figures_and_health_are_asked_for_over_http() {
    let place = Place::new();
    let _process = place.start();
    place.sql("create table t (k int primary key)");
    let before = place.asked("/metrics");
    place.sql("insert into t values (1)");
    let after = place.asked("/metrics");
    let commits = |text: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix("understudy_commits_total "));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    assert_eq!(commits(&after), commits(&before) + 1);
    for line in
        ["understudy_role{role=\"active\"} 1", "understudy_epoch 1", "understudy_log_full 0"]
    {
        assert!(after.lines().any(|told| told == line), "{line} is not in {after}");
    }
    assert!(place.asked("/readyz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let place = Place::new();
    let _process = place.start();
    let told = place.refused();
    assert!(told.contains("is in use by another process"), "{told}");
    assert_eq!(place.sql("select 1"), "1");
}

#[test]
fn a_damaged_log_is_refused_by_name_and_left_as_it_is() {
    let place = Place::new();
    let process = place.start();
    place.sql("create table t (k int primary key); insert into t values (1)");
    place.sql("insert into t select * from generate_series(2, 1000)");
    drop(process);
    let segment = segments(&place.path("data")).into_iter().next().expect("there is a segment");
    let mut bytes = fs::read(&segment).unwrap();
    // Well inside: in the first of several records, behind the segment's head.
    bytes[200] ^= 0xff;
    fs::write(&segment, &bytes).unwrap();
    let told = place.refused();
    let name = segment.file_name().unwrap().to_string_lossy();
    assert!(told.contains(&*name) && told.contains("nothing was changed"), "{told}");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "the evidence was touched");
}
