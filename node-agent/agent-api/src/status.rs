//! What an agent says of itself. Figures may change with load; the operator copies none of those
//! into the pair's status (nothing is written at rest).

use serde::{Deserialize, Serialize};
use understudy_types::{Dbid, Epoch, Incarnation, Lsn, MemberName, Role, StoreId};

/// The finer state within a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// The process started and looks at its directory and the Lease.
    Starting,
    /// Replays its own log.
    Recovering,
    /// Builds its store from a feeder.
    Duplicating,
    /// Waits to be named initialiser, or for an active to appear.
    Waiting,
    /// Follows, and is not yet recorded in sync.
    CatchingUp,
    /// Follows and is recorded in sync on the Lease.
    InSync,
    /// Runs for active (R7–R9).
    Candidate,
    /// Active and acknowledging.
    Serving,
    /// Active without authority: acknowledges nothing.
    Lapsed,
    /// Active and handing over: acknowledges nothing new.
    Transferring,
    /// Cannot go on by itself; `AgentStatus::problem` says why.
    Failed,
}

/// How far a long task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done, in words.
    pub step: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 when not known yet.
    pub total_bytes: u64,
}

/// Authority of an active (R4, R5, R6a), as time left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Milliseconds of authority by the Lease; `None` when lapsed or not active.
    pub lease_left_ms: Option<u64>,
    /// Milliseconds of authority by the standby's grant.
    pub grant_left_ms: Option<u64>,
    /// Whether this member may acknowledge alone now (R15 `solo`).
    pub solo: bool,
}

/// Positions in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PositionStatus {
    /// Epoch of the last record.
    pub epoch: Epoch,
    /// Last record.
    pub end_lsn: Lsn,
    /// Last record on the own disk.
    pub durable_lsn: Lsn,
    /// Last record applied to the store.
    pub applied_lsn: Lsn,
    /// Everything at or below is acknowledged and visible (R17).
    pub acknowledged_lsn: Lsn,
}

/// The link to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The other end.
    pub peer: MemberName,
    /// Whether it is attached.
    pub up: bool,
    /// Milliseconds since the last message from it, or since it was first dialled; `None` when it never was.
    pub silent_ms: Option<u64>,
    /// Positions that the peer reported (a follower), or that it sent (a feeder).
    pub peer_received: Lsn,
    /// See `peer_received`.
    pub peer_applied: Lsn,
    /// Why it is down.
    pub error: Option<String>,
}

/// Whether the standby is recorded in sync, seen from this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// The Lease names this standby's incarnation.
    InSync,
    /// It follows, and is not recorded.
    CatchingUp,
    /// The active acknowledges alone.
    Alone,
    /// Not known here.
    Unknown,
}

/// What the agent last read or wrote on the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// Epoch.
    pub epoch: Epoch,
    /// Sequence number of the record.
    pub seq: u64,
    /// Holder, when there is one.
    pub holder: Option<MemberName>,
    /// A consistent read showed it older than what this member has seen: it was restored (R21).
    pub regressed: bool,
    /// Milliseconds since this agent last talked with the API server successfully.
    pub silent_ms: u64,
}

/// Times of the last takeover by this member, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakeoverTimes {
    /// The epoch that it opened.
    pub epoch: Epoch,
    /// What made it a candidate, in words.
    pub because: String,
    /// What it saw when it decided: one fact a line.
    pub saw: Vec<String>,
    /// Wall-clock time of the first sign, RFC 3339.
    pub detected_at: String,
    /// First sign → candidacy.
    pub decide_ms: u64,
    /// Waiting for grants to run out and the log to be durable.
    pub fence_ms: u64,
    /// Acquire sent → serving.
    pub promote_ms: u64,
}

/// An exported tail of an old epoch (R19).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrappedStatus {
    /// Epoch that the tail belongs to.
    pub epoch: Epoch,
    /// The fork: the first trapped record is the next one.
    pub above_lsn: Lsn,
    /// How many transactions.
    pub transactions: u64,
    /// File on the data volume, relative to it.
    pub file: String,
}

/// The data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Identity of the directory.
    pub store: StoreId,
    /// The database in it; `None` before initialisation.
    pub dbid: Option<Dbid>,
    /// Highest epoch promised (R1).
    pub promised: Epoch,
    /// D_max: the longest lease duration seen, in milliseconds (R1).
    pub lease_longest_ms: u64,
}

/// What a member has noticed that a condition of the pair says in words (contract §4). Figures in it change
/// once a minute at most, for a condition is written when they do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Notice {
    /// A write or fsync of the log failed, or the system refused a file: nothing on that disk is trusted.
    DiskFailed,
    /// The disk failed an earlier process of this member within the last hour; the store was built anew on
    /// the same volume since.
    DiskFailedBefore {
        /// When, by the wall clock.
        at: String,
        /// What the system said.
        why: String,
    },
    /// What the disk holds cannot be read as the log or checkpoint that it was.
    LogDamaged,
    /// A record of the feeder cannot be applied here.
    ApplyBlocked,
    /// This member and its feeder refuse each other's certificates.
    PeerUntrusted {
        /// The other one.
        peer: MemberName,
    },
    /// A follower is told of more commits than it takes, for a minute or longer.
    FallingBehind {
        /// Which one.
        follower: MemberName,
        /// How many records it was behind at the last full minute.
        records: u64,
        /// How many more than a minute before.
        grown: u64,
    },
    /// Log is kept for a follower that has not received it.
    HoldingLog {
        /// Which one.
        follower: MemberName,
        /// Share of the log volume in use, in tenths: 7 is 70 %.
        tenths: u64,
    },
}

/// Everything an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// This member.
    pub member: MemberName,
    /// This process.
    pub incarnation: Incarnation,
    /// Version of the program.
    pub version: String,
    /// The directory; `None` before it was read.
    pub store: Option<StoreStatus>,
    /// Role now.
    pub role: Role,
    /// Finer state now.
    pub state: MemberState,
    /// Epoch that this member serves or follows.
    pub epoch: Epoch,
    /// Authority, when active.
    pub authority: AuthorityStatus,
    /// Positions in the log.
    pub positions: PositionStatus,
    /// Links to followers or to the feeder.
    pub links: Vec<LinkStatus>,
    /// Whether the standby is in sync.
    pub sync: SyncState,
    /// The Lease, as last seen.
    pub lease: Option<LeaseStatus>,
    /// A long task under way.
    pub progress: Option<Progress>,
    /// Why the member cannot do what it should, in words, with the way out.
    pub problem: Option<String>,
    /// Last takeover by this process.
    pub takeover: Option<TakeoverTimes>,
    /// Exported tails kept here.
    pub trapped: Vec<TrappedStatus>,
    /// Version of the scheme in force.
    pub scheme_version: u64,
    /// Commits sent and not yet acknowledged.
    pub pending_commits: u64,
    /// Client sessions.
    pub sessions: u64,
    /// Bytes of permanent memory in use, and its limit.
    pub memory_used_bytes: u64,
    /// See `memory_used_bytes`.
    pub memory_limit_bytes: u64,
    /// End of this member's certificate, RFC 3339.
    pub certificate_not_after: Option<String>,
    /// The log has no room for another commit: writes are refused, reads go on.
    #[serde(default)]
    pub log_full: bool,
    /// What conditions of the pair should say.
    #[serde(default)]
    pub notices: Vec<Notice>,
}

impl AgentStatus {
    /// What a process says before its first look at anything.
    #[must_use]
    pub fn starting(member: MemberName, incarnation: Incarnation) -> Self {
        Self {
            member,
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: None,
            role: Role::Recovering,
            state: MemberState::Starting,
            epoch: Epoch::ZERO,
            authority: AuthorityStatus::default(),
            positions: PositionStatus::default(),
            links: Vec::new(),
            sync: SyncState::Unknown,
            lease: None,
            progress: None,
            problem: None,
            takeover: None,
            trapped: Vec::new(),
            scheme_version: 0,
            pending_commits: 0,
            sessions: 0,
            memory_used_bytes: 0,
            memory_limit_bytes: 0,
            certificate_not_after: None,
            log_full: false,
            notices: Vec::new(),
        }
    }

    /// Whether this member judged the record of this (epoch, seq) to be older than what it has seen.
    #[must_use]
    pub fn calls_regressed(&self, (epoch, seq): (Epoch, u64)) -> bool {
        self.lease.as_ref().is_some_and(|l| l.regressed && (l.epoch, l.seq) == (epoch, seq))
    }
}
