//! The follower's half: finds the feeder, attaches, and applies what comes, inline in one loop: read,
//! append, apply, acknowledge (one acknowledgement a read).
//!
//! What cannot be followed ends the process for its successor: a tail above the fork is exported and
//! cut, a log that has no common point is replaced by a duplicate (R18, R19).

use crate::{
    duplicate,
    engine::{FollowError, Frame},
    node::{Node, lease_link::chain, recover::Unfit},
    peer::{self, LinkReader, LinkWriter, PeerError, Received, Target},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use understudy_agent_api::Notice;
use understudy_replication::{
    Attach, Attached, Follower, FollowerKind, Input, Message, WIRE_VERSION,
};
use understudy_store::ApplyError;
use understudy_types::{EpochId, Incarnation, Lsn, MemberName};

/// Time between two attempts to attach.
const AGAIN: Duration = Duration::from_millis(200);
/// Why a follower lets its link go until checkpoints have made room.
const LOG_FULL: &str = "the log volume is full";
/// Longest silence of a feeder before its link counts as dead: heartbeats come every 200 ms at most.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Follows whoever is to be followed, for ever.
pub(crate) async fn follow(node: Arc<Node>) {
    let durable = Arc::new(Notify::new());
    let bell = Arc::clone(&durable);
    node.engine.log.on_durable(Box::new(move |_| bell.notify_one()));
    loop {
        if let Some(feeder) = node.feeder()
            && let Err(parting) = attach_and_follow(&node, &feeder, &durable).await
        {
            node.note_link_error(&feeder, &parting);
            tracing::info!(feeder = %feeder, why = parting.why, "not following");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Why a follower is without its feeder.
pub(crate) struct Parting {
    pub(crate) why: String,
    /// They refuse each other's certificates.
    pub(crate) is_untrusted: bool,
}

impl From<String> for Parting {
    fn from(why: String) -> Self {
        Self { why, is_untrusted: false }
    }
}

impl From<PeerError> for Parting {
    fn from(error: PeerError) -> Self {
        Self { why: chain(&error), is_untrusted: error.is_about_trust() }
    }
}

async fn attach_and_follow(
    node: &Arc<Node>,
    feeder: &MemberName,
    durable: &Notify,
) -> Result<(), Parting> {
    let engine = &node.engine;
    if engine.log.is_full() {
        return Err(LOG_FULL.to_owned().into());
    }
    let attach = engine.with_section(|s| Attach {
        version: WIRE_VERSION,
        follower: Follower {
            member: s.member.me().member.clone(),
            store: s.member.me().store,
            incarnation: s.member.me().incarnation,
        },
        kind: node.kind,
        dbid: s.member.control().dbid.filter(|_| !node.needs_duplicate),
        history: engine.log.history(),
        end: engine.log.end(),
        promised: s.member.control().promised.number,
    });
    let end = attach.end;
    let target = node.target(feeder)?;
    let (answer, link) = peer::dial(&target, node.tls.as_ref(), &attach).await?;
    match answer {
        Attached::Refused { reason, .. } => {
            node.read_lease_soon();
            Err(reason.into())
        }
        Attached::Duplicate { reason } => {
            tracing::warn!(feeder = %feeder, reason, "this store is replaced by a duplicate");
            Ok(duplicate_and_restart(node, &target).await?)
        }
        Attached::Follow { epoch, feeder: process, fork, hash, .. } => {
            if engine.log.hash_at(fork) != Some(hash) {
                tracing::error!(fork = %fork, "the logs differ at their fork: duplicate");
                return Ok(duplicate_and_restart(node, &target).await?);
            }
            if fork < end {
                return Ok(node.cut_and_restart(fork).await?);
            }
            engine.step(Input::FeederAttached(epoch));
            node.link_is_up(feeder);
            let (reader, writer) = link.split();
            let mut following = Following { node, epoch, process, writer, ends: Ends::default() };
            let ended = following.run(reader, durable).await;
            engine.step(Input::FeederLost);
            Err(ended.into())
        }
    }
}

async fn duplicate_and_restart(node: &Arc<Node>, target: &Target) -> Result<(), String> {
    // No problem, so that nobody takes the member for failed: its progress is told with the first bytes.
    node.engine.step(Input::Unfit(Some("a duplicate is being built".into())));
    duplicate::fetch(node.as_ref(), target).await.map_err(|e| chain(&e))?;
    node.restart("the duplicate is complete");
    Ok(())
}

/// What was acknowledged to the feeder last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Ends {
    received: Lsn,
    durable: Lsn,
}

struct Following<'a> {
    node: &'a Node,
    epoch: EpochId,
    process: Incarnation,
    writer: LinkWriter,
    ends: Ends,
}

impl Following<'_> {
    /// Runs until the link ends; returns why it did.
    async fn run(&mut self, mut reader: LinkReader, durable: &Notify) -> String {
        let mut batch = Vec::new();
        if let Err(error) = self.acknowledge(true) {
            return error;
        }
        loop {
            let heard = tokio::select! {
                heard = tokio::time::timeout(SILENCE_MAX, reader.receive(&mut batch)) => heard,
                () = durable.notified() => {
                    if let Err(error) = self.acknowledge(false) {
                        return error;
                    }
                    continue;
                }
            };
            for received in batch.drain(..) {
                if let Err(error) = self.take(&received) {
                    return error;
                }
            }
            if let Err(error) = self.acknowledge(false) {
                return error;
            }
            // What came is kept: the log has room for one more read of a link.
            if self.node.engine.log.is_full() {
                return LOG_FULL.into();
            }
            match heard {
                Ok(Ok(())) => self.node.hears_feeder(),
                Ok(Err(error)) => return chain(&error),
                Err(_) => return "the feeder is silent".into(),
            }
            if self.node.feeder_changed() {
                return "another feeder is to be followed".into();
            }
        }
    }

    fn take(&mut self, received: &Received) -> Result<(), String> {
        let engine = &self.node.engine;
        match &received.message {
            Message::Frame { epoch, acknowledged, .. } => {
                self.check(*epoch)?;
                engine.metrics.replication_received_bytes.inc_by(received.records.len() as u64);
                let frame = Frame {
                    epoch: *epoch,
                    records: &received.records,
                    acknowledged: *acknowledged,
                };
                self.follow(frame)
            }
            Message::Acknowledged { epoch, acknowledged } => {
                self.check(*epoch)?;
                self.follow(Frame { epoch: *epoch, records: &[], acknowledged: *acknowledged })
            }
            Message::Heartbeat { epoch, active, nonce, serving, grant, .. } => {
                self.check(*epoch)?;
                if *active != self.process {
                    return Err("a heartbeat of another process".into());
                }
                engine.step(Input::Heartbeat {
                    epoch: self.epoch,
                    active: *active,
                    nonce: *nonce,
                    serving: *serving,
                    grant: *grant,
                });
                Ok(())
            }
            Message::Grant { .. }
            | Message::Ack { .. }
            | Message::ApplyFailed { .. }
            | Message::Refused { .. } => Err("the feeder sent what only a follower sends".into()),
        }
    }

    fn check(&self, epoch: understudy_types::Epoch) -> Result<(), String> {
        if epoch == self.epoch.number {
            Ok(())
        } else {
            Err(format!("epoch {epoch} on a link of epoch {}", self.epoch.number))
        }
    }

    fn follow(&mut self, frame: Frame<'_>) -> Result<(), String> {
        match self.node.engine.follow(frame) {
            Ok(_) => Ok(()),
            Err(FollowError::Apply(lsn, error)) => {
                let reason = error.to_string();
                let failed =
                    Message::ApplyFailed { epoch: self.epoch.number, lsn, reason: reason.clone() };
                let _ = self.writer.send(&failed, &[]).map(|()| self.writer.try_flush());
                let is_full = matches!(error, ApplyError::OutOfMemory { .. });
                let way_out = if is_full { "; raise memory.permanent" } else { "" };
                let why = format!("record {lsn} cannot be applied: {reason}{way_out}");
                self.node.set_unfit(Unfit { why, notice: Some(Notice::ApplyBlocked) });
                Err(reason)
            }
            Err(
                error @ (FollowError::Epoch(_)
                | FollowError::Cutting
                | FollowError::Append(_)
                | FollowError::Record(_)),
            ) => Err(chain(&error)),
        }
    }

    /// Sends one acknowledgement when anything moved, and whatever the member wants said.
    fn acknowledge(&mut self, always: bool) -> Result<(), String> {
        let engine = &self.node.engine;
        for message in engine.take_messages_for_feeder() {
            self.writer.send(&message, &[]).map_err(|e| e.to_string())?;
        }
        let ends = Ends { received: engine.log.end(), durable: engine.log.durable_lsn() };
        if always || ends != self.ends {
            self.ends = ends;
            let (incarnation, store) =
                engine.with_section(|s| (s.member.me().incarnation, s.member.me().store));
            // Applied inline: whatever is in the log is in the store.
            let ack = Message::Ack {
                epoch: self.epoch.number,
                incarnation,
                store,
                received: ends.received,
                durable: ends.durable,
                applied: ends.received,
            };
            self.writer.send(&ack, &[]).map_err(|e| e.to_string())?;
        }
        self.writer.try_flush().map(|_| ()).map_err(|e| chain(&e))
    }
}

/// A subscriber prefers the standby, so that the active feeds one follower only (seed 003).
#[must_use]
pub(crate) fn preferred(
    kind: FollowerKind,
    active: Option<MemberName>,
    standby: Option<MemberName>,
) -> Option<MemberName> {
    match kind {
        FollowerKind::Standby => active,
        FollowerKind::Subscriber => standby.or(active),
    }
}
