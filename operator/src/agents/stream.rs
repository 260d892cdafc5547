//! One status stream: server-sent events, each a whole status. Silence of three beats ends it.

use super::{
    Word,
    connection::{ConnectionError, Door},
};
use crate::pair::{observation::Seen, plan::is_cut};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use jiff::Timestamp;
use std::{error::Error as _, fmt::Write as _, sync::PoisonError, time::Duration};
use tokio::time::{sleep, timeout};
use understudy_agent_api::{AgentStatus, STATUS_STREAM, STREAM_BEAT_MS};

/// Silence after which the stream counts as broken.
const SILENCE: Duration = Duration::from_millis(3 * STREAM_BEAT_MS);
/// First pause before it is opened again, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a member that comes back is heard within it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Longest event that is kept: a status with 127 links is far below.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Follows one agent for ever.
pub(super) async fn follow(door: Door, word: Word, changed: impl Fn() + Send + Sync) {
    let mut pause = PAUSE_MIN;
    loop {
        let mut heard = false;
        let end = listen(&door, |status| {
            heard = true;
            note(&word, status, &changed);
        })
        .await;
        silence(&word, &chain(&end), &changed);
        pause = if heard { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        sleep(pause).await;
    }
}

async fn listen(door: &Door, mut heard: impl FnMut(AgentStatus) + Send) -> ConnectionError {
    let mut open = match door.open().await {
        Ok(open) => open,
        Err(error) => return error,
    };
    let request = door.request("GET", STATUS_STREAM, Bytes::new());
    let answer = match timeout(SILENCE, open.send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return error,
        Err(_) => return ConnectionError::TimedOut,
    };
    if !answer.status().is_success() {
        let reason = "it gives no status".to_owned();
        return ConnectionError::Refused { status: answer.status(), reason };
    }
    let mut body = answer.into_body();
    let mut events = Events::default();
    loop {
        match timeout(SILENCE, body.frame()).await {
            Err(_) => return ConnectionError::TimedOut,
            Ok(None) => {
                let ended = std::io::Error::other("the agent ended the stream");
                return ConnectionError::Connect(ended);
            }
            Ok(Some(Err(error))) => return ConnectionError::Http(error),
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    events.push(data).into_iter().for_each(&mut heard);
                }
            }
        }
    }
}

/// Cuts a stream of server-sent events into statuses.
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> Vec<AgentStatus> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > EVENT_BYTES_MAX {
            self.buffer.clear();
        }
        let mut statuses = Vec::new();
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            let data: String = text
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim_start)
                .collect();
            match serde_json::from_str(&data) {
                Ok(status) => statuses.push(status),
                // An agent of another version may add what this one does not know; silence follows.
                Err(error) if !data.is_empty() => {
                    tracing::warn!(%error, "an agent sent a status that cannot be read");
                }
                Err(_) => {}
            }
        }
        statuses
    }
}

fn note(word: &Word, status: AgentStatus, changed: &impl Fn()) {
    let mut word = word.write().unwrap_or_else(PoisonError::into_inner);
    let is_news = word.known().is_none_or(|before| digest(before) != digest(&status));
    *word = Seen::Known(status);
    drop(word);
    if is_news {
        changed();
    }
}

fn silence(word: &Word, why: &str, changed: &impl Fn()) {
    let mut word = word.write().unwrap_or_else(PoisonError::into_inner);
    let was_known = word.known().is_some();
    let since = match &*word {
        Seen::Known(_) => Timestamp::now(),
        Seen::Unknown { since, .. } => *since,
    };
    *word = Seen::Unknown { since, why: why.to_owned() };
    drop(word);
    if was_known {
        changed();
    }
}

fn chain(error: &ConnectionError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// What a plan or a status could depend on; figures that change with load are left out. Every field is named,
/// so that a new one is judged here before anybody waits for words that are never said.
fn digest(status: &AgentStatus) -> String {
    let AgentStatus {
        member: _,
        incarnation,
        version: _,
        store,
        role,
        state,
        epoch,
        authority: _,
        positions: _,
        links,
        sync,
        lease,
        progress: _,
        problem,
        takeover,
        trapped,
        scheme_version,
        pending_commits: _,
        sessions: _,
        memory_used_bytes,
        memory_limit_bytes,
        certificate_not_after: _,
        log_full,
        notices,
    } = status;
    let links: Vec<_> = links.iter().map(|l| (&l.peer, l.up, is_cut(l))).collect();
    let used = memory_used_bytes / (memory_limit_bytes / 100).max(1);
    format!(
        "{:?}",
        (
            (incarnation, store, role, state, epoch),
            (sync, problem, scheme_version, links),
            takeover.as_ref().map(|takeover| takeover.epoch),
            (trapped.len(), log_full, notices),
            (used >= 95, used >= 90, lease.as_ref().map(|lease| lease.epoch)),
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_agent_api::{LinkStatus, Notice};
    use understudy_types::{Incarnation, Lsn, MemberName};

    #[test]
    fn events_are_cut_wherever_the_network_cuts_them() {
        let mut events = Events::default();
        assert!(events.push(b": beat\n\ndata: {\"bad\"").is_empty());
        assert!(events.push(b": 1}\n").is_empty());
        assert!(events.push(b"\n").is_empty(), "no status, and no panic");
        assert!(events.buffer.is_empty());
    }

    #[test]
    fn what_a_condition_says_is_news_and_load_is_not() {
        let member = MemberName::new("orders-1").expect("a name");
        let incarnation = Incarnation { start: 1, id: uuid::Uuid::nil() };
        let mut quiet = AgentStatus::starting(member.clone(), incarnation);
        quiet.links.push(LinkStatus {
            peer: member,
            up: false,
            silent_ms: Some(0),
            peer_received: Lsn::ZERO,
            peer_applied: Lsn::ZERO,
            error: None,
        });
        let news = |change: fn(&mut AgentStatus)| {
            let mut other = quiet.clone();
            change(&mut other);
            digest(&other) != digest(&quiet)
        };
        assert!(news(|s| s.log_full = true));
        assert!(news(|s| s.notices.push(Notice::DiskFailed)));
        assert!(news(|s| s.links[0].silent_ms = Some(3_000)));
        assert!(news(|s| (s.memory_used_bytes, s.memory_limit_bytes) = (99, 100)));
        assert!(!news(|s| s.links[0].silent_ms = Some(2_999)));
        assert!(!news(|s| s.pending_commits += 1));
        assert!(!news(|s| s.positions.end_lsn = Lsn(1)));
    }

    #[test]
    fn an_event_without_end_is_dropped() {
        let mut events = Events::default();
        events.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert!(events.buffer.is_empty());
    }
}
