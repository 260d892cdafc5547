//! Sessions, byte by byte, over a pair of sockets: what is sent, in which order, and when.

use crate::pg::{
    ClientTls, Database,
    listener::{Front, ListenerOptions},
    session,
    socket::Socket,
    startup::Started,
    stream::Stream,
    testing::{MemoryDatabase, USER},
};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// Longest wait of a test for what has to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One message of the server: its tag and body.
pub(super) type Reply = (char, Vec<u8>);

/// A client that writes bytes and reads messages.
pub(super) struct Wire {
    stream: UnixStream,
    pub(super) pid: i32,
    secret: i32,
    pub(super) session: JoinHandle<()>,
}

/// What a socket holds of an answer: less than a piece of a large one, so that each piece waits for its reader.
const SOCKET_BYTES: usize = 8 << 10;

/// A client's end of a connection, and a session's.
pub(in crate::pg) fn connected(
    database: &Arc<MemoryDatabase>,
    user: &str,
) -> (UnixStream, Started, Arc<Front>) {
    let (near, far) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&far, SOCKET_BYTES).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let options = ListenerOptions::tcp(address, ClientTls::none());
    let front = Arc::new(Front::for_tests(Arc::clone(database) as Arc<dyn Database>, options));
    let started = Started {
        // The client is on this loop, too.
        stream: Stream::Unix(Socket::new(far.into_std().unwrap(), Arc::new(2.into())).unwrap()),
        guard: database.sessions().register(42).unwrap(),
        user: user.to_owned(),
        settings: Vec::new(),
        greeting: Vec::new(),
    };
    (near, started, front)
}

impl Wire {
    /// A session past its start-up; the greeting has been read.
    pub(super) async fn open(database: &Arc<MemoryDatabase>) -> Wire {
        Wire::open_as(database, USER).await
    }

    pub(super) async fn open_as(database: &Arc<MemoryDatabase>, user: &str) -> Wire {
        let (near, started, front) = connected(database, user);
        let (pid, secret) = (started.guard.pid(), started.guard.secret());
        let session = tokio::spawn(async move {
            // A broken connection is an end like any other here.
            let _ = session::run(started, &front).await;
        });
        let mut wire = Wire { stream: near, pid, secret, session };
        wire.until_ready().await;
        wire
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; None when the server has closed the connection.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        let read = async {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((head[0] as char, body))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Everything up to ReadyForQuery or the end.
    pub(super) async fn until_ready(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.next().await {
            let is_ready = reply.0 == 'Z';
            replies.push(reply);
            if is_ready {
                break;
            }
        }
        replies
    }

    /// Begins a COPY FROM STDIN.
    pub(super) async fn begin_copy(&mut self, text: &str) {
        self.send(&query(text)).await;
        let begun = self.next().await.expect("the session goes on");
        assert_eq!(begun.0, 'G', "{text}");
    }

    /// Asks the server, beside the connection, to cancel what the session does.
    pub(super) fn cancel(&self, database: &MemoryDatabase) {
        database.sessions().cancel(self.pid, self.secret);
    }

    /// Sends a Query and reads its answer.
    pub(super) async fn query(&mut self, text: &str) -> Vec<Reply> {
        self.send(&query(text)).await;
        self.until_ready().await
    }

    /// Whether nothing arrives although the server had every chance to send it.
    pub(super) async fn is_silent(&mut self) -> bool {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut byte = [0];
        match self.stream.try_read(&mut byte) {
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }
}

pub(in crate::pg) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(in crate::pg) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

/// The data of a COPY, cut like this, and its end.
pub(super) fn copied(parts: &[&str]) -> Vec<u8> {
    let data = parts.iter().map(|part| message(b'd', part.as_bytes()));
    data.chain([message(b'c', b"")]).collect::<Vec<_>>().concat()
}

pub(in crate::pg) fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat())
}

/// A Bind of text parameters to the unnamed portal.
pub(in crate::pg) fn bind(statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = [b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
    for parameter in parameters {
        body.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
        body.extend_from_slice(parameter.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

/// A Bind without parameters to a portal of that name.
pub(super) fn bind_portal(portal: &str, statement: &str) -> Vec<u8> {
    let names = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0"].concat();
    message(b'B', &[&names[..], &[0; 6]].concat())
}

/// An Execute of one row.
pub(super) fn fetch(portal: &str) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0\0\0\0\x01"].concat())
}

pub(in crate::pg) fn execute(rows_max: i32) -> Vec<u8> {
    message(b'E', &[b"\0", &rows_max.to_be_bytes()[..]].concat())
}

pub(in crate::pg) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(in crate::pg) fn describe() -> Vec<u8> {
    message(b'D', b"P\0")
}

/// Bind, Describe, Execute, Sync.
pub(in crate::pg) fn batch(statement: &str, parameters: &[&str]) -> Vec<u8> {
    [bind(statement, parameters), describe(), execute(0), sync()].concat()
}

pub(super) fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|(tag, _)| *tag).collect()
}

/// A field of the first error or notice.
pub(super) fn field(replies: &[Reply], code: char) -> Option<String> {
    let (_, body) = replies.iter().find(|(tag, _)| matches!(tag, 'E' | 'N'))?;
    let mut fields = body.split(|byte| *byte == 0);
    let text = fields.find(|text| text.first() == Some(&(code as u8)))?;
    Some(String::from_utf8(text[1..].to_vec()).unwrap())
}

/// The text of the first column of every row.
pub(super) fn rows(replies: &[Reply]) -> Vec<String> {
    cells(replies).into_iter().map(|mut row| row.remove(0)).collect()
}

/// Every value of every row.
pub(super) fn cells(replies: &[Reply]) -> Vec<Vec<String>> {
    let data = replies.iter().filter(|(tag, _)| *tag == 'D');
    data.map(|(_, body)| {
        let count = u16::from_be_bytes(body[..2].try_into().unwrap());
        let mut rest = &body[2..];
        let values = (0..count).map(|_| {
            let (length, after) = rest.split_at(4);
            // A NULL has length -1, and no bytes.
            let length = i32::from_be_bytes(length.try_into().unwrap());
            let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
            rest = after;
            String::from_utf8(value.to_vec()).unwrap()
        });
        values.collect()
    })
    .collect()
}

/// The letter of the last ReadyForQuery.
pub(super) fn status(replies: &[Reply]) -> Option<char> {
    replies.iter().rev().find(|(tag, _)| *tag == 'Z').map(|(_, body)| body[0] as char)
}

pub(super) async fn with_table(database: &Arc<MemoryDatabase>) -> Wire {
    let mut wire = Wire::open(database).await;
    let made = wire
        .query("create table t (id int primary key, v int not null); insert into t values (1, 10), (2, 20)")
        .await;
    assert_eq!(tags(&made), "CCZ", "{made:?}");
    wire
}

#[test]
fn a_known_batch_and_the_same_messages_one_by_one_give_the_same_answer() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        wire.send(&[parse("s", "select v from t where id = $1"), sync()].concat()).await;
        assert_eq!(tags(&wire.until_ready().await), "1Z");
        wire.send(&batch("s", &["2"])).await;
        let at_once = wire.until_ready().await;
        for part in [bind("s", &["2"]), describe(), execute(0)] {
            wire.send(&part).await;
            assert!(wire.is_silent().await, "nothing is sent before Sync");
        }
        wire.send(&sync()).await;
        assert_eq!(wire.until_ready().await, at_once);
        assert_eq!(tags(&at_once), "2TDCZ");
        assert_eq!(rows(&at_once), ["20"]);
    });
}

/// Answers to a block of which every statement is known: all of each batch at once, or message by message.
async fn known_block(wire: &mut Wire, at_once: bool) -> Vec<Vec<Reply>> {
    let batches: [(&str, &[&str]); 5] =
        [("b", &[]), ("u", &["5"]), ("s", &["1"]), ("c", &[]), ("s", &["1"])];
    let mut answers = Vec::new();
    for (statement, parameters) in batches {
        let parts = [bind(statement, parameters), describe(), execute(0), sync()];
        if at_once {
            wire.send(&parts.concat()).await;
        } else {
            for part in parts {
                let is_last = part == sync();
                wire.send(&part).await;
                assert!(is_last || wire.is_silent().await, "nothing is sent before Sync");
            }
        }
        answers.push(wire.until_ready().await);
    }
    answers
}

#[test]
fn a_block_of_known_batches_and_its_messages_one_by_one_give_the_same_answers() {
    runtime().block_on(async {
        let mut seen = Vec::new();
        for at_once in [true, false] {
            let mut wire = with_table(&MemoryDatabase::active()).await;
            let known = [
                parse("b", "begin isolation level repeatable read"),
                parse("u", "update t set v = v + $1 where id = 1"),
                parse("s", "select v from t where id = $1"),
                parse("c", "commit"),
            ];
            wire.send(&[known.concat(), sync()].concat()).await;
            assert_eq!(tags(&wire.until_ready().await), "1111Z");
            seen.push(known_block(&mut wire, at_once).await);
        }
        assert_eq!(seen[0], seen[1]);
        let shape: Vec<_> = seen[0].iter().map(|one| (tags(one), status(one))).collect();
        let expected =
            [("2nCZ", 'T'), ("2nCZ", 'T'), ("2TDCZ", 'T'), ("2nCZ", 'I'), ("2TDCZ", 'I')];
        assert_eq!(shape, expected.map(|(tags, letter)| (tags.to_owned(), Some(letter))));
        assert_eq!(rows(&seen[0][4]), ["15"]);
    });
}

#[test]
fn a_refused_commit_of_a_known_batch_ends_its_block_and_nothing_else() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wires = [with_table(&database).await, Wire::open(&database).await];
        for wire in &mut wires {
            let known = [
                parse("b", "begin isolation level serializable"),
                parse("r", "select sum(v) from t"),
                parse("u", "update t set v = 0 where id = $1"),
                parse("c", "commit"),
            ];
            wire.send(&[known.concat(), batch("b", &[]), batch("r", &[])].concat()).await;
            for _ in 0..2 {
                assert_eq!(status(&wire.until_ready().await), Some('T'));
            }
        }
        let [first, second] = &mut wires;
        for (wire, row) in [(&mut *first, "1"), (&mut *second, "2")] {
            wire.send(&batch("u", &[row])).await;
            assert_eq!(tags(&wire.until_ready().await), "2nCZ");
        }
        first.send(&batch("c", &[])).await;
        assert_eq!(status(&first.until_ready().await), Some('I'));
        // The next batch is there already when the commit is refused: it is not skipped with it.
        second.send(&[batch("c", &[]), batch("r", &[])].concat()).await;
        let refused = second.until_ready().await;
        assert_eq!((tags(&refused).as_str(), status(&refused)), ("2nEZ", Some('I')));
        assert_eq!(field(&refused, 'C').as_deref(), Some("40001"));
        assert_eq!(rows(&second.until_ready().await), ["20"]);
    });
}

#[test]
fn pipelined_batches_are_answered_in_order() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        let update = parse("u", "update t set v = v + $1 where id = 1 returning v");
        wire.send(&[update, batch("u", &["1"]), batch("u", &["2"]), batch("u", &["3"])].concat())
            .await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(rows(&wire.until_ready().await));
        }
        assert_eq!(seen, ["11", "13", "16"]);
    });
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        let broken = [
            parse("", "insert into t values (3, 30)"),
            bind("", &[]),
            execute(0),
            parse("", "select nonsense from t"),
            bind("", &[]),
            execute(0),
            sync(),
        ];
        wire.send(&broken.concat()).await;
        let replies = wire.until_ready().await;
        assert_eq!(tags(&replies), "12CEZ");
        assert_eq!(field(&replies, 'C').as_deref(), Some("42703"));
        let left = wire.query("select id from t where id = 3").await;
        assert_eq!(rows(&left), [""; 0], "the implicit transaction was rolled back");
    });
}

/// Sends messages that commit, and returns when the commit waits for its acknowledgement.
pub(super) async fn send_and_hold(database: &MemoryDatabase, wire: &mut Wire, messages: &[u8]) {
    database.hold_back();
    wire.send(messages).await;
    until_waiting(database, 1).await;
}

/// Until so many sessions wait for an acknowledgement.
pub(super) async fn until_waiting(database: &MemoryDatabase, sessions: usize) {
    let waiting = async {
        while database.waiting() < sessions {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("they wait");
}

#[test]
fn a_commit_is_answered_only_when_it_is_acknowledged() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let mut other = Wire::open(&database).await;
        wire.send(&parse("u", "update t set v = v + 1 where id = $1")).await;
        send_and_hold(&database, &mut wire, &batch("u", &["1"])).await;
        assert!(wire.is_silent().await, "the reply has left before the acknowledgement");
        let seen = other.query("select v from t where id = 1").await;
        assert_eq!(rows(&seen), ["10"], "others see only what is acknowledged");
        database.acknowledge();
        assert_eq!(tags(&wire.until_ready().await), "12nCZ");
        assert_eq!(rows(&other.query("select v from t where id = 1").await), ["11"]);
    });
}

#[test]
fn a_demoted_member_reports_an_unknown_outcome_and_ends_the_session() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        send_and_hold(&database, &mut wire, &query("update t set v = 0 where id = 1")).await;
        database.demote("orders-2");
        let replies = wire.until_ready().await;
        assert_eq!(tags(&replies), "EE", "two errors and no word of success");
        assert_eq!(field(&replies[..1], 'C').as_deref(), Some("40003"));
        assert_eq!(field(&replies[1..], 'C').as_deref(), Some("57P01"));
        assert_eq!(field(&replies[1..], 'H').as_deref(), Some("The active is orders-2."));
        assert_eq!(wire.next().await, None);
        wire.session.await.unwrap();
    });
}

#[test]
fn a_silent_session_of_a_demoted_member_is_told_and_ended() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        database.demote("orders-2");
        let replies = wire.until_ready().await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("57P01"));
        assert_eq!(field(&replies, 'S').as_deref(), Some("FATAL"));
    });
}

#[test]
fn a_cancelled_wait_for_an_acknowledgement_leaves_the_commit_in_doubt() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        send_and_hold(&database, &mut wire, &query("update t set v = 0 where id = 1")).await;
        wire.cancel(&database);
        let replies = wire.until_ready().await;
        assert_eq!(tags(&replies), "EZ");
        assert_eq!(field(&replies, 'C').as_deref(), Some("40003"));
        database.acknowledge();
        assert_eq!(rows(&wire.query("select v from t where id = 1").await), ["0"]);
    });
}

#[test]
fn a_named_commit_is_unknown_while_it_waits_and_committed_once_it_is_acknowledged() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        wire.query("begin").await;
        let token = rows(&wire.query("call ttRepXactTokenGet()").await).remove(0);
        let again = rows(&wire.query("call ttRepXactTokenGet()").await);
        assert_eq!(again.concat(), token, "another token for the same transaction");
        wire.query("update t set v = 0 where id = 1").await;
        send_and_hold(&database, &mut wire, &query("commit")).await;
        let mut other = Wire::open(&database).await;
        let ask = format!("call ttRepXactStatus('{token}')");
        let open = rows(&other.query(&ask).await).concat();
        assert!(open.starts_with("unknown"), "{open}");
        wire.cancel(&database);
        let replies = wire.until_ready().await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("40003"));
        assert!(field(&replies, 'H').is_some_and(|hint| hint.contains(&token)), "{token}");
        database.acknowledge();
        assert!(rows(&other.query(&ask).await).concat().starts_with("committed"));
        // A later commit has another fate, and no name.
        wire.send(&[parse("u", "update t set v = 1 where id = 1"), sync()].concat()).await;
        wire.until_ready().await;
        wire.send(&batch("u", &[])).await;
        until_waiting(&database, 1).await;
        wire.cancel(&database);
        let replies = wire.until_ready().await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("40003"));
        assert!(field(&replies, 'H').is_some_and(|hint| !hint.contains(&token)), "{replies:?}");
    });
}

#[test]
fn a_commit_is_listed_in_doubt_until_it_is_settled() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let mut other = Wire::open(&database).await;
        let list = "call ttRepXactInDoubt()";
        assert!(rows(&other.query(list).await).is_empty());
        send_and_hold(&database, &mut wire, &query("update t set v = 0 where id = 1")).await;
        let waits = cells(&other.query(list).await).concat();
        assert_eq!(waits.len(), 6, "{waits:?}");
        assert_eq!((&*waits[2], &*waits[4]), (&*wire.pid.to_string(), "waits"));
        wire.cancel(&database);
        wire.until_ready().await;
        let left = cells(&other.query(list).await).concat();
        assert_eq!((&*left[2], &*left[4]), (&*wire.pid.to_string(), "left"));
        database.acknowledge();
        assert!(rows(&other.query(list).await).is_empty());
    });
}

#[test]
fn an_administrator_takes_a_checkpoint_and_everybody_sees_what_holds_the_log() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = Wire::open(&database).await;
        assert_eq!(field(&wire.query("call ttCkpt()").await, 'C'), None);
        database.lose_authority();
        let refused = wire.query("call ttckpt").await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("55000"));
        assert!(field(&refused, 'M').is_some_and(|text| text.ends_with("was taken: full")));
        database.regain_authority();
        let mut other = Wire::open_as(&database, "clerk").await;
        assert_eq!(field(&other.query("call ttCkpt()").await, 'C').as_deref(), Some("42501"));
        let holds = cells(&other.query("call ttLogHolds()").await).concat();
        assert_eq!(holds[1..], ["Replication", "orders-2"]);
    });
}

#[test]
fn a_named_transaction_that_was_undone_is_not_committed() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        for end in ["rollback", "select 1/0; commit"] {
            wire.query("begin").await;
            let token = rows(&wire.query("call ttRepXactTokenGet()").await).remove(0);
            wire.query("update t set v = 0 where id = 1").await;
            wire.query(end).await;
            wire.query("rollback").await;
            let ask = format!("call ttRepXactStatus('{token}')");
            let told = rows(&wire.query(&ask).await).concat();
            assert!(told.starts_with("not committed"), "after {end}: {told}");
        }
    });
}

#[test]
fn an_administrator_sets_a_standby_active_and_nobody_else_does() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        database.demote("orders-2");
        let set = "call ttRepStateSet('ACTIVE')";
        let mut other = Wire::open_as(&database, "clerk").await;
        assert_eq!(field(&other.query(set).await, 'C').as_deref(), Some("42501"));
        let mut wire = Wire::open(&database).await;
        let wrong = wire.query("call ttRepStateSet('STANDBY')").await;
        assert_eq!(field(&wrong, 'C').as_deref(), Some("22023"));
        assert!(field(&wrong, 'H').is_some_and(|hint| hint.contains("ttRepStateGet")));
        assert_eq!(field(&wire.query(set).await, 'C'), None);
        assert_eq!(rows(&wire.query("call ttRepStateGet()").await), ["ACTIVE"]);
        let again = wire.query(set).await;
        assert_eq!(field(&again, 'C').as_deref(), Some("55000"));
        assert!(field(&again, 'M').is_some_and(|text| text.contains("active already")));
    });
}

#[test]
fn a_token_is_given_in_an_open_transaction_of_the_active_only() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        let replies = wire.query("call ttRepXactTokenGet()").await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("25P01"));
        let replies = wire.query("call ttRepXactStatus('seven')").await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("22P02"));
        let replies = wire.query("call ttRepXactStatus()").await;
        assert_eq!(field(&replies, 'C').as_deref(), Some("42883"));
        assert!(field(&replies, 'H').is_some_and(|hint| hint.contains("ttRepXactStatus('TOKEN')")));
    });
}

#[test]
fn a_read_without_authority_is_refused_in_an_open_session() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let mut wire = with_table(&database).await;
        wire.send(&[parse("s", "select v from t where id = $1"), sync()].concat()).await;
        wire.until_ready().await;
        database.lose_authority();
        wire.send(&batch("s", &["1"])).await;
        let replies = wire.until_ready().await;
        assert_eq!(rows(&replies), [""; 0], "rows left without authority");
        assert_eq!(field(&replies, 'C').as_deref(), Some("57P03"));
        let refused = wire.query("update t set v = 5 where id = 1").await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("57P03"));
        database.regain_authority();
        assert_eq!(rows(&wire.query("select v from t where id = 1").await), ["10"]);
    });
}

#[test]
fn a_portal_is_read_in_pieces() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        wire.query("insert into t values (3, 30)").await;
        let all = parse("", "select id from t order by id");
        wire.send(&[all, bind("", &[]), execute(2), execute(2), sync()].concat()).await;
        let replies = wire.until_ready().await;
        assert_eq!(tags(&replies), "12DDsDCZ");
        assert_eq!(rows(&replies), ["1", "2", "3"]);
    });
}

#[test]
fn a_setting_that_is_undone_is_told_again() {
    runtime().block_on(async {
        let mut wire = Wire::open(&MemoryDatabase::active()).await;
        wire.query("set application_name = 'till'").await;
        for (set, end) in
            [("set", "rollback"), ("set local", "commit"), ("set", "select 1/0; commit")]
        {
            let text = format!("begin; {set} application_name = 'other'");
            assert_eq!(tags(&wire.query(&text).await), "CSCZ");
            let mut told = wire.query(end).await;
            told.extend(wire.query("rollback").await);
            let again = told.iter().find(|(tag, _)| *tag == 'S').expect("it is told");
            assert_eq!(again.1, b"application_name\0till\0");
        }
        assert_eq!(tags(&wire.query("reset all").await), "SCZ");
    });
}

#[test]
fn statements_of_one_text_are_one_transaction() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        let replies = wire.query("insert into t values (5, 1); insert into t values (1, 1)").await;
        assert_eq!(tags(&replies), "CEZ");
        assert_eq!(field(&replies, 'C').as_deref(), Some("23505"));
        assert_eq!(rows(&wire.query("select id from t where id = 5").await), [""; 0]);
        let kept = wire.query("begin; insert into t values (5, 1); commit; select 1/0").await;
        assert_eq!(status(&kept), Some('I'));
        assert_eq!(rows(&wire.query("select id from t where id = 5").await), ["5"]);
    });
}

#[test]
fn the_status_letter_follows_the_block() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        assert_eq!(status(&wire.query("begin").await), Some('T'));
        assert_eq!(status(&wire.query("select 1/0").await), Some('E'));
        let refused = wire.query("select 1").await;
        assert_eq!(field(&refused, 'C').as_deref(), Some("25P02"));
        let ended = wire.query("commit").await;
        assert_eq!((tags(&ended), status(&ended)), ("CZ".to_owned(), Some('I')));
        assert_eq!(ended[0].1, b"ROLLBACK\0");
        let warned = wire.query("rollback").await;
        assert_eq!(
            (tags(&warned), field(&warned, 'C').as_deref()),
            ("NCZ".to_owned(), Some("25P01"))
        );
    });
}

#[test]
fn a_savepoint_takes_back_an_error() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        wire.query("begin; insert into t values (7, 7); savepoint a; insert into t values (8, 8)")
            .await;
        assert_eq!(status(&wire.query("insert into t values (1, 1)").await), Some('E'));
        assert_eq!(status(&wire.query("rollback to a").await), Some('T'));
        assert_eq!(status(&wire.query("commit").await), Some('I'));
        assert_eq!(rows(&wire.query("select id from t where id > 2").await), ["7"]);
    });
}

#[test]
fn copy_puts_lines_in_and_gets_them_out() {
    runtime().block_on(async {
        let mut wire = with_table(&MemoryDatabase::active()).await;
        wire.begin_copy("copy t from stdin").await;
        // The line is cut in the middle, as networks do.
        wire.send(&copied(&["3\t30\n4\t", "40\n"])).await;
        let replies = wire.until_ready().await;
        assert_eq!(replies[0], ('C', b"COPY 2\0".to_vec()));
        let out = wire.query("copy t to stdout").await;
        assert_eq!(tags(&out), "HddddcCZ");
        assert_eq!(out[4].1, b"4\t40\n");
        wire.begin_copy("copy t from stdin").await;
        wire.send(&copied(&["5\tx\n", "6\t6\n"])).await;
        let failed = wire.until_ready().await;
        assert_eq!(field(&failed, 'C').as_deref(), Some("22P02"));
        assert_eq!(field(&failed, 'W').as_deref(), Some("COPY t, line 1"));
        assert_eq!(rows(&wire.query("select 1").await), ["1"], "stray data is passed over");
    });
}

#[test]
fn a_broken_message_ends_the_session_with_a_word() {
    runtime().block_on(async {
        let database = MemoryDatabase::active();
        let endings: [&[u8]; 4] =
            [b"Q\0\0\0\x01", b"Q\x7f\xff\xff\xff", b"\x01\0\0\0\x04", b"GET / HTTP/1.1\r\n\r\n"];
        for bytes in endings {
            let mut wire = Wire::open(&database).await;
            wire.send(bytes).await;
            let replies = wire.until_ready().await;
            assert_eq!(field(&replies, 'C').as_deref(), Some("08P01"), "{bytes:?}");
            assert_eq!(field(&replies, 'S').as_deref(), Some("FATAL"));
            wire.session.await.unwrap();
        }
        let mut wire = Wire::open(&database).await;
        wire.send(&[message(b'B', b"\0\0\xff\xff"), sync()].concat()).await;
        let replies = wire.until_ready().await;
        assert_eq!(tags(&replies), "EZ", "a broken body leaves the stream in order");
        assert_eq!(rows(&wire.query("select 1").await), ["1"]);
        assert_eq!(database.sessions().count(), 1, "ended sessions are forgotten");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Well-formed frames with any tag and body, and bare garbage: the session answers or ends, and the
    /// member serves the next client.
    #[test]
    fn garbage_never_harms_the_member(
        frames in proptest::collection::vec(
            (prop::sample::select(&b"QPBDECHSFdcfXp\0Zz"[..]), proptest::collection::vec(any::<u8>(), 0..30)),
            0..6,
        ),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        runtime().block_on(async {
            let database = MemoryDatabase::active();
            let mut wire = Wire::open(&database).await;
            let mut bytes = Vec::new();
            for (tag, body) in &frames {
                bytes.extend(message(*tag, body));
            }
            bytes.extend_from_slice(&tail);
            // The session may have ended before it read everything.
            let _ = wire.stream.write_all(&bytes).await;
            let _ = wire.stream.shutdown().await;
            tokio::time::timeout(PATIENCE, &mut wire.session).await.unwrap().unwrap();
            let mut next = Wire::open(&database).await;
            assert_eq!(rows(&next.query("select 1").await), ["1"]);
        });
    }
}
