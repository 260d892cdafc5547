//! What operator, supervisor, command line and agent say to each other over the control port (8443,
//! mTLS, JSON). Plain data, versioned by the path prefix [`PREFIX`]; no I/O.
//!
//! A request is never an act of authority (A1.1): it asks, informs or vetoes, and the agent decides
//! by the rules of the protocol. Every request that depends on an epoch names it.

mod request;
mod status;
mod termination;

pub use request::{
    CandidacyRequest, DeathEvidence, DeathReport, MemberAddress, PledgeAnswer, PledgeRequest,
    Refusal, Scheme, TransferRequest, TrappedPage, TrappedQuery, TrappedTransaction,
};
pub use status::{
    AgentStatus, AuthorityStatus, LeaseStatus, LinkStatus, MemberState, Notice, PositionStatus,
    Progress, StoreStatus, SyncState, TakeoverTimes, TrappedStatus,
};
pub use termination::{names_incarnation, termination_message};

/// Prefix of every path; a breaking change makes a new one.
pub const PREFIX: &str = "/v1";
/// `GET`: one [`AgentStatus`].
pub const STATUS: &str = "/v1/status";
/// `GET`: server-sent events, one [`AgentStatus`] per change and at least every [`STREAM_BEAT_MS`].
pub const STATUS_STREAM: &str = "/v1/status/stream";
/// `POST` [`Scheme`]: what the pair is; an older version than the one held is refused.
pub const SCHEME: &str = "/v1/scheme";
/// `POST` [`CandidacyRequest`]: asks the agent to consider a candidacy now.
pub const CANDIDACY: &str = "/v1/candidacy";
/// `POST` [`DeathReport`]: offers a proof of death (R10).
pub const DEATH: &str = "/v1/death";
/// `POST` [`TransferRequest`]: asks the active to hand over (R22).
pub const TRANSFER: &str = "/v1/transfer";
/// `POST` [`PledgeRequest`]: a voter asks another for its word; the answer is a [`PledgeAnswer`] (R11,
/// R13c).
pub const PLEDGE: &str = "/v1/pledge";
/// `POST` [`TrappedQuery`]: transactions of a trapped tail, as SQL; the answer is a [`TrappedPage`].
pub const TRAPPED: &str = "/v1/trapped";
/// `POST` [`TrappedQuery`]: throws a trapped tail away.
pub const TRAPPED_DISCARD: &str = "/v1/trapped/discard";
/// Longest silence on the status stream in milliseconds.
pub const STREAM_BEAT_MS: u64 = 500;

/// Port of the SQL front end.
pub const PORT_SQL: u16 = 5432;
/// Port of replication.
pub const PORT_REPLICATION: u16 = 4444;
/// Port of the control API.
pub const PORT_CONTROL: u16 = 8443;
/// Port of metrics and health.
pub const PORT_METRICS: u16 = 9090;

/// Names that operator and agents agree on.
pub mod names {
    /// Label on pods and volumes: the pair.
    pub const LABEL_PAIR: &str = "understudy.dev/pair";
    /// Label on pods and volumes: the member.
    pub const LABEL_MEMBER: &str = "understudy.dev/member";
    /// Label on pods: voter or subscriber.
    pub const LABEL_KIND: &str = "understudy.dev/kind";
    /// Label on pods, written by agents: the role, `Role::as_label`.
    pub const LABEL_ROLE: &str = "understudy.dev/role";
    /// Annotation of the Lease that holds the whole authority record (R3).
    pub const ANNOTATION_AUTHORITY: &str = "understudy.dev/authority";
    /// Annotation of a pair: the epoch at which a person accepts that commits are lost (R13d). It counts
    /// for that epoch alone.
    pub const ANNOTATION_ACCEPT_LOSS: &str = "understudy.dev/accept-loss";
    /// Annotation of a pair: the epoch after which a person wants the other member to go on
    /// (`failover.policy: Manual`). It counts for that epoch alone.
    pub const ANNOTATION_FAILOVER: &str = "understudy.dev/failover";
    /// Finalizer of the Lease (A1.13).
    pub const FINALIZER_AUTHORITY: &str = "understudy.dev/authority";
    /// Suffix of the Lease's name after the pair's.
    pub const LEASE_SUFFIX: &str = "-authority";
    /// Suffix of the headless Service that names every member.
    pub const MEMBERS_SUFFIX: &str = "-members";

    /// Environment of an agent's container: the pair's name.
    pub const ENV_PAIR: &str = "UNDERSTUDY_PAIR";
    /// The pair's UID.
    pub const ENV_PAIR_UID: &str = "UNDERSTUDY_PAIR_UID";
    /// The pod's UID: earlier processes of the same pod are dead once a later container runs (R10).
    pub const ENV_POD_UID: &str = "UNDERSTUDY_POD_UID";
    /// The pod's namespace.
    pub const ENV_NAMESPACE: &str = "UNDERSTUDY_NAMESPACE";
    /// The member: the pod's name.
    pub const ENV_MEMBER: &str = "UNDERSTUDY_MEMBER";
    /// `voter` or `subscriber`.
    pub const ENV_KIND: &str = "UNDERSTUDY_KIND";
    /// Directory of the data volume.
    pub const ENV_DATA_DIR: &str = "UNDERSTUDY_DATA_DIR";
    /// Directory of the log volume.
    pub const ENV_LOG_DIR: &str = "UNDERSTUDY_LOG_DIR";
    /// Directory with `tls.crt`, `tls.key` and `ca.crt` (all CAs trusted at this time).
    pub const ENV_TLS_DIR: &str = "UNDERSTUDY_TLS_DIR";
    /// Directory with `username` and `password` of the administrator.
    pub const ENV_ADMIN_DIR: &str = "UNDERSTUDY_ADMIN_DIR";
    /// Directory with `username` and `password` of the application's user.
    pub const ENV_APP_DIR: &str = "UNDERSTUDY_APP_DIR";
    /// Permanent memory in bytes.
    pub const ENV_PERMANENT_BYTES: &str = "UNDERSTUDY_PERMANENT_BYTES";
    /// Temporary memory in bytes.
    pub const ENV_TEMPORARY_BYTES: &str = "UNDERSTUDY_TEMPORARY_BYTES";
    /// Size of the log volume in bytes.
    pub const ENV_LOG_BYTES: &str = "UNDERSTUDY_LOG_BYTES";
    /// `require` or `allow`: whether SQL clients must use TLS; absent means `require`.
    pub const ENV_CLIENT_TLS: &str = "UNDERSTUDY_CLIENT_TLS";
    /// JSON of the [`super::Scheme`] at the time the pod was made.
    pub const ENV_SCHEME: &str = "UNDERSTUDY_SCHEME";

    /// URI in the certificate of a member: identity is (namespace, pair UID, member).
    #[must_use]
    pub fn member_uri(namespace: &str, pair_uid: &str, member: &str) -> String {
        format!("understudy://{namespace}/{pair_uid}/member/{member}")
    }

    /// URI in the certificate of the operator for one pair.
    #[must_use]
    pub fn operator_uri(namespace: &str, pair_uid: &str) -> String {
        format!("understudy://{namespace}/{pair_uid}/operator")
    }

    /// DNS name of a member within the cluster.
    #[must_use]
    pub fn member_host(namespace: &str, pair: &str, member: &str) -> String {
        format!("{member}.{pair}{MEMBERS_SUFFIX}.{namespace}.svc")
    }
}
