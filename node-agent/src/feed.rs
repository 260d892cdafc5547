//! Feeding followers: from the log's own buffers to their links, as far as each may see.
//!
//! Whoever has something to send calls [`Feeds::pump`]; it sends all that is unsent, for all. A second
//! caller leaves its work to the first ("combining"), so no commit waits for a link. Commits are pumped
//! at the end of their loop's turn (`engine/turn.rs`), which makes one send of all commits of the turn.
//!
//! **Invariants.** 1. A standby gets every record, a subscriber only acknowledged ones (R17). 2. Frames
//! are contiguous from the fork on. 3. A slow follower never delays another or a commit.

mod behind;

use crate::{
    clock,
    engine::Progress,
    metrics::Metrics,
    peer::{Flushed, LinkWriter, Writable},
};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::Notify;
use understudy_agent_api::Notice;
use understudy_replication::{FRAME_BYTES_MAX, Follower, FollowerKind, Message};
use understudy_txlog::Log;
use understudy_types::{Incarnation, Lsn, Moment, Span};

/// Most followers: 127 subscribers (seed 003) and the standby.
pub const FOLLOWERS_MAX: usize = 128;

/// Longest silence towards a follower: heartbeats go to the standby alone, and a follower that hears nothing
/// for two seconds looks for another feeder.
const SPEAK_EVERY: Span = Span::millis(500);

/// One follower.
struct Feed {
    follower: Follower,
    kind: FollowerKind,
    writer: LinkWriter,
    next: Lsn,
    told: Lsn,
    /// When it was last told anything.
    spoken: Moment,
    /// What it reported last.
    applied: Lsn,
    received: Lsn,
    /// When it last said anything.
    heard: Moment,
    blocked: bool,
    broken: Option<String>,
    wake: Arc<Notify>,
}

/// A follower's place, for status and for holding the log.
#[derive(Debug, Clone)]
pub struct FeedStatus {
    /// Who.
    pub follower: Follower,
    /// As what.
    pub kind: FollowerKind,
    /// Last record it received.
    pub received: Lsn,
    /// Last record it applied.
    pub applied: Lsn,
    /// When it last said anything.
    pub heard: Moment,
}

/// All followers of this member.
pub struct Feeds {
    log: Log,
    metrics: Metrics,
    feeds: Mutex<Vec<Feed>>,
    /// How many they are, for who only wants to know whether there is any.
    attached: AtomicUsize,
    again: AtomicBool,
    outbox: Mutex<Vec<Message>>,
    distances: Mutex<behind::Distances>,
    /// Who keeps log from being reclaimed.
    holder: Mutex<Option<Notice>>,
}

impl Feeds {
    pub(crate) fn new(log: Log, metrics: Metrics) -> Self {
        Self {
            log,
            metrics,
            feeds: Mutex::default(),
            attached: AtomicUsize::new(0),
            again: AtomicBool::new(false),
            outbox: Mutex::default(),
            distances: Mutex::default(),
            holder: Mutex::default(),
        }
    }

    /// A message for the standby alone.
    pub(crate) fn to_standby(&self, message: Message) {
        self.outbox.lock().push(message);
    }

    /// Takes a follower whose log forks from ours at `fork`. An older link of the same member ends.
    pub fn attach(
        &self,
        follower: Follower,
        kind: FollowerKind,
        writer: LinkWriter,
        fork: Lsn,
    ) -> Result<Arc<Notify>, &'static str> {
        let mut feeds = self.feeds.lock();
        feeds.retain(|f| f.follower.member != follower.member);
        if feeds.len() >= FOLLOWERS_MAX {
            return Err("128 followers are attached already");
        }
        let wake = Arc::new(Notify::new());
        feeds.push(Feed {
            follower,
            kind,
            writer,
            next: fork.next(),
            told: Lsn::ZERO,
            spoken: clock::now(),
            applied: fork,
            received: fork,
            heard: clock::now(),
            blocked: false,
            broken: None,
            wake: Arc::clone(&wake),
        });
        self.attached.store(feeds.len(), Ordering::Release);
        Ok(wake)
    }

    /// Lets a follower go.
    pub fn detach(&self, incarnation: Incarnation) {
        let mut feeds = self.feeds.lock();
        feeds.retain(|f| f.follower.incarnation != incarnation);
        self.attached.store(feeds.len(), Ordering::Release);
    }

    /// Lets all go: the epoch changed, and each must attach again.
    pub fn detach_all(&self) {
        let mut feeds = self.feeds.lock();
        let gone = std::mem::take(&mut *feeds);
        self.attached.store(0, Ordering::Release);
        drop(feeds);
        for feed in gone {
            feed.wake.notify_one();
            feed.writer.close();
        }
    }

    /// Whether a commit that was just appended may be left to whoever comes: nobody is attached. Who
    /// attaches looks at the log's end afterwards, in the section that the commit has left.
    #[must_use]
    pub(crate) fn are_none(&self) -> bool {
        self.attached.load(Ordering::Acquire) == 0
    }

    /// Notes that a follower said something.
    pub fn heard(&self, incarnation: Incarnation, now: Moment) {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.iter_mut().find(|f| f.follower.incarnation == incarnation) {
            feed.heard = now;
        }
    }

    /// Notes what a follower reported.
    pub fn reported(&self, incarnation: Incarnation, received: Lsn, applied: Lsn) {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.iter_mut().find(|f| f.follower.incarnation == incarnation) {
            feed.received = received;
            feed.applied = applied;
        }
    }

    /// Everybody's place.
    #[must_use]
    pub fn status(&self) -> Vec<FeedStatus> {
        let feeds = self.feeds.lock();
        feeds
            .iter()
            .map(|f| FeedStatus {
                follower: f.follower.clone(),
                kind: f.kind,
                received: f.received,
                applied: f.applied,
                heard: f.heard,
            })
            .collect()
    }

    /// The attached follower that needs the oldest record, and that record.
    #[must_use]
    pub fn slowest(&self) -> Option<(Follower, Lsn)> {
        let feeds = self.feeds.lock();
        feeds.iter().min_by_key(|f| f.received).map(|f| (f.follower.clone(), f.received))
    }

    /// The attached followers, and the last record that each received.
    #[must_use]
    pub fn received(&self) -> Vec<(Follower, Lsn)> {
        self.feeds.lock().iter().map(|f| (f.follower.clone(), f.received)).collect()
    }

    /// Notes who keeps log from being reclaimed.
    pub(crate) fn note_holder(&self, holder: Option<Notice>) {
        *self.holder.lock() = holder;
    }

    /// Looks at how far followers are behind.
    pub(crate) fn watch(&self, now: Moment) {
        let end = self.log.end();
        let feeds = self.feeds.lock();
        let places: Vec<_> =
            feeds.iter().map(|f| (f.follower.member.clone(), end.since(f.received))).collect();
        drop(feeds);
        self.distances.lock().look(now, &places);
    }

    /// Who falls behind, and who holds log.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        let mut all = self.distances.lock().notices();
        all.extend(self.holder.lock().clone());
        all
    }

    /// Whether this follower's link is still in use, and what to wait for when its socket is full.
    #[must_use]
    pub fn state(&self, incarnation: Incarnation) -> FeedState {
        let feeds = self.feeds.lock();
        match feeds.iter().find(|f| f.follower.incarnation == incarnation) {
            None => FeedState::Gone,
            Some(f) => match (&f.broken, f.blocked) {
                (Some(why), _) => FeedState::Broken(why.clone()),
                (None, true) => FeedState::Blocked(f.writer.writable()),
                (None, false) => FeedState::Open,
            },
        }
    }

    /// Sends all that is unsent. Never waits: a full socket is left to the link's task.
    pub fn pump(&self, progress: &Progress) {
        self.again.store(true, Ordering::Release);
        while self.again.load(Ordering::Acquire) {
            let Some(mut feeds) = self.feeds.try_lock() else { return };
            self.again.store(false, Ordering::Release);
            let outbox = std::mem::take(&mut *self.outbox.lock());
            let round =
                Round { log: &self.log, metrics: &self.metrics, progress, now: clock::now() };
            for feed in feeds.iter_mut().filter(|f| f.broken.is_none()) {
                let own: &[Message] =
                    if feed.kind == FollowerKind::Standby { &outbox } else { &[] };
                if let Err(why) = feed.pump(&round, own) {
                    feed.broken = Some(why);
                    feed.wake.notify_one();
                } else if feed.blocked {
                    feed.wake.notify_one();
                }
            }
        }
    }
}

/// See [`Feeds::state`].
#[derive(Debug)]
pub enum FeedState {
    /// In use.
    Open,
    /// The socket is full: wait, then pump again.
    Blocked(Writable),
    /// The link failed; why.
    Broken(String),
    /// Another link of the same member took its place, or the epoch changed.
    Gone,
}

/// What every follower is fed with in one round of the pump.
struct Round<'a> {
    log: &'a Log,
    metrics: &'a Metrics,
    progress: &'a Progress,
    now: Moment,
}

impl Feed {
    fn pump(&mut self, round: &Round<'_>, own: &[Message]) -> Result<(), String> {
        let Round { log, progress, now, .. } = *round;
        for message in own {
            self.writer.send(message, &[]).map_err(|e| e.to_string())?;
            self.spoken = now;
        }
        let limit = match self.kind {
            FollowerKind::Standby => log.end(),
            FollowerKind::Subscriber => progress.acknowledged,
        };
        while self.next <= limit && self.writer.room_bytes() >= FRAME_BYTES_MAX {
            let bytes = self.send_frame(round, limit)?;
            round.metrics.replication_sent_bytes.inc_by(bytes as u64);
        }
        if progress.acknowledged > self.told || now.since(self.spoken) >= SPEAK_EVERY {
            self.told = progress.acknowledged;
            self.spoken = now;
            let message = Message::Acknowledged {
                epoch: progress.epoch,
                acknowledged: progress.acknowledged,
            };
            self.writer.send(&message, &[]).map_err(|e| e.to_string())?;
        }
        match self.writer.try_flush() {
            Ok(Flushed::Everything) => self.blocked = false,
            Ok(Flushed::Blocked) => self.blocked = true,
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Returns the bytes of records that it sent.
    fn send_frame(&mut self, round: &Round<'_>, limit: Lsn) -> Result<usize, String> {
        let Round { log, progress, now, .. } = *round;
        let mut records = Vec::new();
        let mut next =
            log.read_into(self.next, FRAME_BYTES_MAX, &mut records).map_err(|e| e.to_string())?;
        if next > limit.next() {
            // A subscriber sees acknowledged records only: cut the batch at the limit.
            let keep = bytes_up_to(&records, self.next, limit);
            records.truncate(keep);
            next = limit.next();
        }
        let message = Message::Frame {
            epoch: progress.epoch,
            first: self.next,
            last: next.previous(),
            acknowledged: progress.acknowledged,
        };
        self.writer.send(&message, &records).map_err(|e| e.to_string())?;
        self.told = progress.acknowledged;
        self.spoken = now;
        self.next = next;
        Ok(records.len())
    }
}

/// Length of the records of a batch that begins at `first`, up to `limit`.
fn bytes_up_to(records: &[u8], first: Lsn, limit: Lsn) -> usize {
    let count = limit.next().since(first) as usize;
    let mut at = 0;
    for _ in 0..count {
        match understudy_txlog::record::encoded_len(&records[at..]) {
            Ok(Some(length)) => at += length,
            Ok(None) | Err(_) => break,
        }
    }
    at
}
