//! The front end through PostgreSQL's own programs. They are part of the machine that tests run on (see
//! the README); a test without them fails and says so.

use crate::pg::{
    ClientTls, Listener, PlainConnections,
    testing::{MemoryDatabase, PASSWORD, USER},
};
use std::{
    process::{Command, Output},
    sync::Arc,
};

/// A program that connects to the listener.
fn program(name: &str, listener: &Listener) -> Command {
    let mut command = Command::new(name);
    command.env_clear();
    for kept in ["PATH", "HOME"] {
        command.env(kept, std::env::var_os(kept).unwrap_or_default());
    }
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", listener.address().unwrap().port().to_string())
        .env("PGUSER", USER)
        .env("PGPASSWORD", PASSWORD)
        .env("PGDATABASE", "orders");
    command
}

fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{name} is needed for this test: {error}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What psql prints for a script, without decoration; errors included.
fn psql(listener: &Listener, script: &str) -> String {
    let mut command = program("psql", listener);
    command.args(["-X", "-A", "-t", "-q"]);
    for line in script.lines() {
        command.args(["-c", line]);
    }
    let output = run(&mut command);
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn psql_shows_rows_errors_and_notices() {
    let listener = MemoryDatabase::active().listen(ClientTls::none());
    let shown = psql(
        &listener,
        "create table t (k int primary key, v text)
insert into t values (1, 'one'), (2, null)
select * from t order by k
select nonsense
rollback",
    );
    assert!(shown.contains("1|one\n2|\n"), "{shown}");
    assert!(shown.contains("ERROR:  column \"nonsense\" does not exist\nLINE 1:"), "{shown}");
    assert!(shown.contains("WARNING:  there is no transaction in progress"), "{shown}");
}

#[test]
fn psql_copies_a_file_in_and_out() {
    let listener = MemoryDatabase::active().listen(ClientTls::none());
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("in.csv"), directory.path().join("out.csv"));
    let lines: String = (0..20_000).map(|k| format!("{k},\"value {k}\"\n")).collect();
    std::fs::write(&from, &lines).unwrap();
    let script = format!(
        "create table f (k int primary key, v text)
\\copy f from '{}' csv
\\copy (select * from f order by k) to '{}' (format csv, force_quote (v))",
        from.display(),
        to.display()
    );
    let shown = psql(&listener, &script.replace(", force_quote (v)", ""));
    let copied = std::fs::read_to_string(&to).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(copied, lines.replace('"', ""));
}

#[test]
fn psql_speaks_tls() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .map(Arc::new)
        .unwrap();
    let source: crate::pg::TlsSource = Arc::new(move || Some(Arc::clone(&config)));
    let listener =
        MemoryDatabase::active().listen(ClientTls { source, plain: PlainConnections::Refuse });
    let with = |mode: &str| {
        let output =
            run(program("psql", &listener).env("PGSSLMODE", mode).args(["-XAtc", "select 'in'"]));
        text(&output.stdout) + &text(&output.stderr)
    };
    assert_eq!(with("require"), "in\n");
    let plain = with("disable");
    assert!(plain.contains("HINT:  Connect with sslmode=require"), "{plain}");
}

#[test]
fn libpq_finds_the_member_that_takes_writes() {
    let standby = MemoryDatabase::active();
    let first = standby.listen(ClientTls::none());
    standby.demote("orders-2");
    let second = MemoryDatabase::active().listen(ClientTls::none());
    let ports = format!("{},{}", first.address().unwrap().port(), second.address().unwrap().port());
    let with = |wanted: &str| {
        let mut command = program("psql", &first);
        command
            .env("PGHOST", "127.0.0.1,127.0.0.1")
            .env("PGPORT", &ports)
            .env("PGTARGETSESSIONATTRS", wanted)
            .args(["-XAtc", "select pg_is_in_recovery()"]);
        text(&run(&mut command).stdout)
    };
    assert_eq!(with("read-write"), "f\n");
    assert_eq!(with("primary"), "f\n");
    assert_eq!(with("standby"), "t\n");
    assert_eq!(with("any"), "t\n");
}

#[test]
fn pgbench_fills_its_tables_and_runs_in_every_protocol() {
    let listener = MemoryDatabase::active().listen(ClientTls::none());
    let filled = run(program("pgbench", &listener).args(["-i", "-s", "1", "-q"]));
    assert!(filled.status.success(), "{}", text(&filled.stderr));
    for mode in ["simple", "extended", "prepared"] {
        for kind in [&["-N"][..], &["-S"], &[]] {
            let mut command = program("pgbench", &listener);
            command.args(["-n", "-M", mode, "-c", "4", "-t", "50"]).args(kind);
            let ran = run(&mut command);
            let (out, err) = (text(&ran.stdout), text(&ran.stderr));
            assert!(ran.status.success(), "{mode} {kind:?}: {out}{err}");
            assert!(out.contains("actually processed: 200/200"), "{mode} {kind:?}: {out}{err}");
        }
    }
    let sums = psql(
        &listener,
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)",
    );
    assert!(sums.starts_with('t'), "{sums}");
}
