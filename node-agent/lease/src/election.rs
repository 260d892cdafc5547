//! Election of one among the operator's pods, on an ordinary coordination Lease.
//!
//! The rules are those of the pair's Lease, one size smaller: every write is a replace on the version
//! last read; a rival's record counts as expired only after this process itself saw it unchanged for
//! longer than its duration; the winner counts from before it sent; shutting down lets go at once.
//!
//! **Invariant.** [`Leadership::holds`] reads the clock, so it is false from the deadline on even when
//! the task that renews is stuck.
//!
//! Deliberately absent: fencing by this Lease. What the operator does is safe without it (epochs and
//! compare-and-swap); the election only saves work and noise.

use crate::{
    ReadError, Timeouts, boot_time,
    outcome::{Failure, classify_read, classify_write},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use understudy_types::{Moment, Span};

/// What is elected, and who stands.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the Lease.
    pub lease: String,
    /// This process: unique per start, for example pod name and a fresh UUID.
    pub identity: String,
    /// How long a confirmed renewal lasts; at least one second.
    pub duration: Span,
    /// Limits of one request.
    pub timeouts: Timeouts,
}

/// Shortest duration: the field on the Lease counts whole seconds.
const DURATION_MIN: Span = Span::seconds(1);

/// The view of the one who works only while elected.
#[derive(Debug, Clone)]
pub struct Leadership {
    announced: watch::Receiver<bool>,
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// Whether this process is elected, by the clock, now.
    #[must_use]
    pub fn holds(&self) -> bool {
        boot_time() < Moment(self.until.load(Ordering::Acquire))
    }

    /// Announcements of winning and losing, for `select!`; [`Leadership::holds`] is the check.
    #[must_use]
    pub fn announcements(&self) -> watch::Receiver<bool> {
        self.announced.clone()
    }

    /// Waits until elected; false when the election itself ended.
    pub async fn won(&mut self) -> bool {
        self.announced.wait_for(|held| *held).await.is_ok()
    }

    /// Waits until not elected any more, or the election itself ended.
    pub async fn lost(&mut self) {
        // An error means that the sender is gone: nobody renews, so it is lost as well.
        let _ = self.announced.wait_for(|held| !*held).await;
    }
}

/// Stands for election until `shutdown`, then lets go. The future must be polled (spawn it).
pub fn stand(
    api: Api<Lease>,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> (Leadership, impl Future<Output = ()> + Send) {
    let (announce, announced) = watch::channel(false);
    let until = Arc::new(AtomicU64::new(0));
    let leadership = Leadership { announced, until: Arc::clone(&until) };
    let settings = Settings { duration: settings.duration.max(DURATION_MIN), ..settings };
    let election = Election { api, settings, announce, until, known: Known::Nothing };
    (leadership, election.run(shutdown))
}

/// What this process knows of the Lease.
enum Known {
    /// Read it first.
    Nothing,
    /// It does not exist.
    Absent,
    /// A rival's or a free one, first seen in this version at `since`.
    Foreign { lease: Box<Lease>, since: Moment },
    /// This process's own confirmed write.
    Own { lease: Box<Lease> },
}

struct Election {
    api: Api<Lease>,
    settings: Settings,
    announce: watch::Sender<bool>,
    until: Arc<AtomicU64>,
    known: Known,
}

impl Election {
    async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let deadline = Moment(self.until.load(Ordering::Acquire));
            let held = self.tell();
            let turn = self.turn();
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = pause_until(deadline), if held => {}
                () = turn => {}
            }
        }
        self.release().await;
    }

    /// Announces whether it holds, if that is news.
    fn tell(&self) -> bool {
        let held = boot_time() < Moment(self.until.load(Ordering::Acquire));
        self.announce.send_if_modified(|now| std::mem::replace(now, held) != held);
        held
    }

    /// One look or one write, then a pause.
    async fn turn(&mut self) {
        let now = boot_time();
        match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Nothing => self.look(None).await,
            Known::Absent => self.take(None).await,
            Known::Own { lease } => {
                self.take(Some(*lease)).await;
            }
            Known::Foreign { lease, since }
                if self.is_mine(&lease) || is_free(&lease, since, now) =>
            {
                self.take(Some(*lease)).await;
            }
            Known::Foreign { lease, since } => {
                self.look(Some((&lease, since))).await;
            }
        }
        // Who has just won need not wait for the next turn to hear of it.
        self.tell();
        tokio::time::sleep(self.pause()).await;
    }

    /// Written by this very process, though its answer was lost: one more confirmed write is needed.
    fn is_mine(&self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
        holder == Some(&self.settings.identity)
    }

    /// Renewals and looks: five in one duration.
    fn pause(&self) -> Duration {
        match self.known {
            Known::Foreign { ref lease, since } if is_free(lease, since, boot_time()) => {
                Duration::ZERO
            }
            Known::Own { .. } | Known::Foreign { .. } => self.settings.duration.scaled(1, 5).into(),
            // Something failed or changed: look again soon.
            Known::Nothing | Known::Absent => self.settings.duration.scaled(1, 20).into(),
        }
    }

    async fn look(&mut self, before: Option<(&Lease, Moment)>) {
        let get = self.api.get(&self.settings.lease);
        let answer = match tokio::time::timeout(self.settings.timeouts.whole, get).await {
            Ok(answer) => answer.map_err(classify_read),
            Err(_) => Err(ReadError::TimedOut(self.settings.timeouts.whole)),
        };
        self.known = match answer {
            Ok(lease) => {
                let seen = boot_time();
                let unchanged = before.filter(|(old, _)| version(old) == version(&lease));
                let since = unchanged.map_or(seen, |(_, since)| since);
                Known::Foreign { lease: Box::new(lease), since }
            }
            Err(ReadError::Absent) => Known::Absent,
            Err(error) => {
                tracing::warn!(lease = %self.settings.lease, error = %error, "cannot read the election's Lease");
                // The sight of the rival is kept: time goes on for it while the API server is away,
                // and nothing is taken without a write that the API server compares.
                match before {
                    Some((lease, since)) => {
                        Known::Foreign { lease: Box::new(lease.clone()), since }
                    }
                    None => Known::Nothing,
                }
            }
        };
    }

    /// Takes, renews or creates: one write.
    async fn take(&mut self, base: Option<Lease>) {
        let next = self.filled_in(base.as_ref());
        let sent = boot_time();
        self.known = match self.write(base.is_some(), &next).await {
            Ok(lease) => {
                let duration = self.settings.duration;
                let guard = Span::millis(50).max(duration.scaled(1, 50));
                self.until.store((sent + duration - guard).0, Ordering::Release);
                Known::Own { lease: Box::new(lease) }
            }
            // Read again; a rival that took over meanwhile is timed from that sight on.
            Err(Failure::Conflict) => Known::Nothing,
            Err(Failure::Refused(why)) => {
                tracing::warn!(lease = %self.settings.lease, error = %why, "the election's Lease was not written");
                Known::Nothing
            }
            Err(Failure::Unknown(why)) => {
                tracing::warn!(lease = %self.settings.lease, error = %why, "the election's Lease was perhaps not written");
                Known::Nothing
            }
        };
    }

    async fn write(&self, exists: bool, next: &Lease) -> Result<Lease, Failure> {
        let params = PostParams::default();
        let timeout = self.settings.timeouts.whole;
        let request = async {
            match exists {
                true => self.api.replace(&self.settings.lease, &params, next).await,
                false => self.api.create(&params, next).await,
            }
        };
        match tokio::time::timeout(timeout, request).await {
            Ok(answer) => answer.map_err(classify_write),
            Err(_) => Err(Failure::Unknown(crate::Doubt::TimedOut(timeout))),
        }
    }

    fn filled_in(&self, base: Option<&Lease>) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let spec = base.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_mine = spec.holder_identity.as_ref() == Some(&self.settings.identity);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let mut metadata = base.map_or_else(
            || ObjectMeta { name: Some(self.settings.lease.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        metadata.managed_fields = None;
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: Some(whole_seconds(self.settings.duration)),
                lease_transitions: Some(transitions.saturating_add(i32::from(!is_mine))),
                acquire_time: spec.acquire_time.filter(|_| is_mine).or_else(|| Some(now.clone())),
                renew_time: Some(now),
                ..spec
            }),
        }
    }

    /// Lets go, if the Lease is still this process's own version; one attempt.
    async fn release(&mut self) {
        self.until.store(0, Ordering::Release);
        self.announce.send_replace(false);
        let Known::Own { lease } = std::mem::replace(&mut self.known, Known::Nothing) else {
            return;
        };
        let mut next = *lease;
        next.metadata.managed_fields = None;
        next.spec.get_or_insert_default().holder_identity = None;
        if let Err(why) = self.write(true, &next).await {
            // The rival waits the duration out instead: slower, and just as safe.
            tracing::info!(lease = %self.settings.lease, ?why, "the election's Lease was not released");
        }
    }
}

async fn pause_until(deadline: Moment) {
    tokio::time::sleep(boot_time().until(deadline).into()).await;
}

fn version(lease: &Lease) -> (Option<&str>, Option<&str>) {
    (lease.metadata.uid.as_deref(), lease.metadata.resource_version.as_deref())
}

/// Nobody holds it, or its holder was seen not to renew for longer than it may count on.
fn is_free(lease: &Lease, since: Moment, now: Moment) -> bool {
    let Some(spec) = &lease.spec else { return true };
    if spec.holder_identity.as_ref().is_none_or(String::is_empty) {
        return true;
    }
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(1)).unwrap_or(1).max(1);
    // F = 1.25 covers two clocks whose rates differ by 10 % each, as for the pair's Lease (R4).
    now >= since + Span::seconds(seconds).scaled(5, 4)
}

fn whole_seconds(duration: Span) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeApi, Fault};
    use tokio::sync::oneshot;

    fn settings(identity: &str) -> Settings {
        Settings {
            lease: "operator".into(),
            identity: identity.into(),
            duration: Span::seconds(1),
            timeouts: Timeouts { whole: Duration::from_millis(400), ..Timeouts::default() },
        }
    }

    struct Rival {
        leadership: Leadership,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn rival(api: &FakeApi, identity: &str) -> Rival {
        let (stop, stopped) = oneshot::channel();
        let leases = Api::namespaced(api.client(), "ns");
        let (leadership, run) = stand(leases, settings(identity), async move {
            let _ = stopped.await;
        });
        Rival { leadership, stop, task: tokio::spawn(run) }
    }

    #[tokio::test]
    async fn one_of_two_rivals_wins_and_hands_over_when_it_stops() {
        let api = FakeApi::empty();
        let mut first = rival(&api, "a");
        assert!(first.leadership.won().await);
        let mut second = rival(&api, "b");
        api.requests_reach(api.requests() + 6).await;
        assert!(first.leadership.holds() && !second.leadership.holds());

        first.stop.send(()).unwrap();
        first.task.await.unwrap();
        assert!(!first.leadership.holds());
        let released = boot_time();
        assert!(second.leadership.won().await);
        assert!(boot_time().since(released) < Span::millis(1250), "waited for expiry all the same");
        assert_eq!(api.spec()["leaseTransitions"], 2);
    }

    #[tokio::test]
    async fn a_silent_holder_is_replaced_only_after_it_has_lost_by_its_own_clock() {
        let api = FakeApi::empty();
        let (fenced, rest) = (FakeApi::same(&api), FakeApi::same(&api));
        let mut first = rival(&fenced, "a");
        assert!(first.leadership.won().await);
        let mut second = rival(&rest, "b");
        rest.requests_reach(rest.requests() + 2).await;
        fenced.fail_always(Fault::NoConnection);
        assert!(second.leadership.won().await);
        assert!(!first.leadership.holds(), "two hold at once");
        first.leadership.lost().await;
    }

    #[tokio::test]
    async fn a_lost_answer_gives_nothing_until_one_is_confirmed() {
        let api = FakeApi::empty();
        api.fail_next(Fault::None);
        api.fail_next(Fault::AnswerLost);
        let mut only = rival(&api, "a");
        assert!(only.leadership.won().await);
        // look (absent), create (answer lost), look, and the confirmed write.
        assert!(api.requests() >= 4);
    }
}
