//! One status stream: server-sent events, each a whole status. Silence of three beats ends it.

use super::{
    Word,
    connection::{ConnectionError, Door},
};
use crate::pair::observation::Seen;
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

/// What a plan or a status could depend on; figures that change with load are left out.
fn digest(status: &AgentStatus) -> String {
    let links: Vec<_> = status.links.iter().map(|link| (&link.peer, link.up)).collect();
    let used = status.memory_used_bytes / (status.memory_limit_bytes / 100).max(1);
    format!(
        "{:?}",
        (
            (status.incarnation, &status.store, status.role, status.state, status.epoch),
            (status.sync, &status.problem, status.scheme_version, links),
            status.takeover.as_ref().map(|takeover| takeover.epoch),
            status.trapped.len(),
            (used >= 95, used >= 90, status.lease.as_ref().map(|lease| lease.epoch)),
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_network_cuts_them() {
        let mut events = Events::default();
        assert!(events.push(b": beat\n\ndata: {\"bad\"").is_empty());
        assert!(events.push(b": 1}\n").is_empty());
        assert!(events.push(b"\n").is_empty(), "no status, and no panic");
        assert!(events.buffer.is_empty());
    }

    #[test]
    fn an_event_without_end_is_dropped() {
        let mut events = Events::default();
        events.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert!(events.buffer.is_empty());
    }
}
