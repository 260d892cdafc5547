//! The feeder's half of the replication port: judges who attaches, then reads what followers say.
//!
//! Runs on the first session loop, so that an acknowledgement releases that loop's sessions without a
//! wake-up across cores.

use crate::{
    engine::Engine,
    feed::FeedState,
    node::{Node, lease_link::chain},
    peer::{FollowerWaiting, LinkReader, Received},
};
use std::sync::Arc;
use tokio::sync::Notify;
use understudy_replication::{
    Attached, FeederLog, Follower, FollowerKind, Input, Message, Report, answer_attach,
};
use understudy_types::Role;

/// Serves one follower until its link ends.
pub(crate) async fn serve(node: Arc<Node>, waiting: FollowerWaiting) {
    let attach = waiting.attach.clone();
    let follower = attach.follower.clone();
    let kind = attach.kind;
    let answer = judge(&node, &waiting);
    let Attached::Follow { fork, .. } = answer else {
        tracing::info!(member = %follower.member, answer = ?answer, "a follower was not taken");
        let _ = waiting.answer(&answer).await;
        return;
    };
    let link = match waiting.answer(&answer).await {
        Ok(link) => link,
        Err(error) => {
            tracing::info!(member = %follower.member, error = %chain(&error), "a follower left");
            return;
        }
    };
    let (reader, writer) = link.split();
    let engine = Arc::clone(&node.engine);
    let wake = match engine.feeds.attach(follower.clone(), kind, writer, fork) {
        Ok(wake) => wake,
        Err(why) => {
            tracing::warn!(member = %follower.member, why, "a follower was not taken");
            return;
        }
    };
    tracing::info!(member = %follower.member, ?kind, fork = %fork, "a follower attached");
    node.duplicates.attached(&follower.member);
    if kind == FollowerKind::Standby {
        engine.step(Input::StandbyAttached(follower.clone()));
        engine.step(Input::Refused(attach.promised));
    }
    engine.feeds.pump(&engine.progress());
    let why = tokio::select! {
        why = listen(&engine, &follower, kind, reader) => why,
        why = watch_socket(&engine, &follower, wake) => why,
    };
    tracing::info!(member = %follower.member, why, "a follower detached");
    engine.feeds.detach(follower.incarnation);
    if kind == FollowerKind::Standby {
        engine.step(Input::StandbyLost(follower.incarnation));
    }
}

/// Who may follow here, and from where.
fn judge(node: &Node, waiting: &FollowerWaiting) -> Attached {
    let engine = &node.engine;
    let attach = &waiting.attach;
    let (active_epoch, followed, active, dbid, me, first_known) = engine.with_section(|s| {
        let standing = s.member.standing(crate::clock::now());
        let feeds_subscribers =
            standing.role == Role::Standby && attach.kind == FollowerKind::Subscriber;
        let active = s.member.view().record().and_then(|r| r.holder.as_ref());
        (
            s.member.active_epoch(),
            feeds_subscribers,
            active.map(|h| h.member.clone()),
            s.member.control().dbid,
            s.member.me().incarnation,
            engine.log.first_lsn(),
        )
    });
    let refused =
        |reason: &str| Attached::Refused { reason: reason.into(), active: active.clone() };
    if attach.kind == FollowerKind::Standby && !node.is_voter(&attach.follower.member) {
        return refused("only a voter follows as standby");
    }
    let history = engine.log.history();
    let epoch = match (active_epoch, followed) {
        (Some(epoch), _) => epoch,
        (None, true) => history.last_epoch(),
        (None, false) => return refused("this member is not the active"),
    };
    if active_epoch.is_some() && history.last_epoch() != epoch {
        return refused("the epoch is being opened");
    }
    let Some(dbid) = dbid else { return refused("there is no database here yet") };
    let log = FeederLog {
        dbid,
        epoch,
        feeder: me,
        history: &history,
        end: engine.log.end(),
        first_available: first_known,
        active,
    };
    answer_attach(&log, attach, |lsn| engine.log.hash_at(lsn))
}

/// Reads until the link ends; returns why it did.
async fn listen(
    engine: &Engine,
    follower: &Follower,
    kind: FollowerKind,
    mut reader: LinkReader,
) -> String {
    let mut batch = Vec::new();
    loop {
        let ended = reader.receive(&mut batch).await.err();
        engine.feeds.heard(follower.incarnation, crate::clock::now());
        for received in batch.drain(..) {
            hear(engine, follower, kind, received);
        }
        engine.feeds.pump(&engine.progress());
        if let Some(error) = ended {
            return chain(&error);
        }
    }
}

fn hear(engine: &Engine, follower: &Follower, kind: FollowerKind, received: Received) {
    let votes = kind == FollowerKind::Standby;
    match received.message {
        Message::Ack { epoch, incarnation, store, received, durable, applied } => {
            engine.feeds.reported(follower.incarnation, received, applied);
            if votes {
                let report = Report { received, durable, applied };
                engine.step(Input::Ack { epoch, incarnation, store, report });
            }
        }
        Message::Grant { epoch, nonce, standby } if votes => {
            let store = follower.store;
            engine.step(Input::Grant { epoch, nonce, standby, store });
        }
        Message::Refused { promised } if votes => engine.step(Input::Refused(promised)),
        Message::ApplyFailed { lsn, reason, .. } => {
            tracing::error!(member = %follower.member, lsn = %lsn, reason, "a follower cannot apply");
            if votes {
                engine.step(Input::ApplyFailed(follower.incarnation));
            }
        }
        Message::Grant { .. }
        | Message::Refused { .. }
        | Message::Frame { .. }
        | Message::Acknowledged { .. }
        | Message::Heartbeat { .. } => {
            tracing::warn!(member = %follower.member, "a follower sent what only a feeder sends");
        }
    }
}

/// Goes on sending when a full socket drains; returns when the link is of no use any more.
async fn watch_socket(engine: &Engine, follower: &Follower, wake: Arc<Notify>) -> String {
    loop {
        wake.notified().await;
        match engine.feeds.state(follower.incarnation) {
            FeedState::Open => {}
            FeedState::Blocked(writable) => {
                writable.wait().await;
                engine.feeds.pump(&engine.progress());
                // Look again: it may be blocked still, or have failed meanwhile.
                wake.notify_one();
            }
            FeedState::Broken(why) => return why,
            FeedState::Gone => return "another link took its place".into(),
        }
    }
}
