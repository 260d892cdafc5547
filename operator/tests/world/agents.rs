//! What agents say in the golden scripts.

use super::{DBID, Outcome, incarnation, member, store};
use goldenscript::{ArgumentConsumer, Command};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use understudy_agent_api::{
    AgentStatus, LeaseStatus, LinkStatus, MemberState, Notice, PositionStatus, StoreStatus,
    TrappedStatus,
};
use understudy_operator::pair::observation::Seen;
use understudy_types::{Dbid, Epoch, Lsn, MemberName, Role, StoreId};
use uuid::Uuid;

/// `agent M none | silent for=S | ROLE STATE inc=N epoch=E` with `empty` (no database), `full`
/// (its log), `foreign` (another database), `hears=M` (a link that is up), `cut=M` (one that is down),
/// `trapped=N` (exported transactions), `notices=WORD[:M],...` (disk, damage, apply, distrusts:M, behind:M, holds:M), `scheme=V`, `problem=TEXT`, `end=LSN`, `promised=E`, and
/// `regressed=E/SEQ` (it calls the Lease with this record older than what it has seen).
pub(crate) fn set(
    agents: &mut BTreeMap<MemberName, Seen<AgentStatus>>,
    now: Timestamp,
    command: &Command,
) -> Outcome {
    let mut args = command.consume_args();
    let name = args.next_pos().ok_or("whose agent?")?;
    let first = args.next_pos().ok_or("what does it say?")?;
    match first {
        "none" => drop(agents.remove(&member(name))),
        "silent" => {
            let seconds: i64 = args.take_key("for").unwrap_or("1").parse()?;
            let since = now.checked_sub(SignedDuration::from_secs(seconds))?;
            let why = "timed out".to_owned();
            agents.insert(member(name), Seen::Unknown { since, why });
        }
        role => {
            let state = state(args.next_pos().ok_or("in which state?")?)?;
            let mut status = usual(name, self::role(role)?, state);
            if let Some(start) = args.take_key("inc") {
                status.incarnation = incarnation(name, start.parse()?);
            }
            if let Some(epoch) = args.take_key("epoch") {
                status.epoch = Epoch(epoch.parse()?);
                status.positions.epoch = status.epoch;
            }
            if let Some(version) = args.take_key("scheme") {
                status.scheme_version = version.parse()?;
            }
            if let Some(end) = args.take_key("end") {
                status.positions.end_lsn = Lsn(end.parse()?);
            }
            if let Some(number) = args.take_key("store") {
                let store = status.store.as_mut().ok_or("no store")?;
                store.store = StoreId(Uuid::from_u128(number.parse()?));
            }
            if let Some(promised) = args.take_key("promised") {
                let store = status.store.as_mut().ok_or("no store")?;
                store.promised = Epoch(promised.parse()?);
            }
            if let Some(read) = args.take_key("regressed") {
                let (epoch, seq) = read.split_once('/').ok_or("write epoch/seq")?;
                status.lease = Some(LeaseStatus {
                    epoch: Epoch(epoch.parse()?),
                    seq: seq.parse()?,
                    holder: None,
                    regressed: true,
                    silent_ms: 0,
                });
            }
            status.problem = args.take_key("problem").map(str::to_owned);
            if let Some(peer) = args.take_key("hears") {
                status.links.push(link(peer));
            }
            tell_more(&mut status, &mut args)?;
            while let Some(word) = args.next_pos() {
                let store = status.store.as_mut().ok_or("no store")?;
                match word {
                    "empty" => {
                        store.dbid = None;
                        status.positions.epoch = Epoch::ZERO;
                        status.epoch = Epoch::ZERO;
                    }
                    "full" => status.log_full = true,
                    "foreign" => store.dbid = Some(Dbid(Uuid::from_u128(0xff))),
                    other => return Err(format!("unknown word {other}").into()),
                }
            }
            agents.insert(member(name), Seen::Known(status));
        }
    }
    args.reject_next()
}

/// Everything that load changes, changes.
pub(crate) fn load(agents: &mut BTreeMap<MemberName, Seen<AgentStatus>>) {
    for agent in agents.values_mut() {
        if let Seen::Known(status) = agent {
            status.sessions += 100;
            status.pending_commits += 7;
            status.memory_used_bytes += 1 << 20;
            status.positions.end_lsn = Lsn(1_000_000);
            status.positions.acknowledged_lsn = Lsn(999_999);
        }
    }
}

fn link(peer: &str) -> LinkStatus {
    LinkStatus {
        peer: member(peer),
        up: true,
        silent_ms: Some(100),
        peer_received: Lsn::ZERO,
        peer_applied: Lsn::ZERO,
        error: None,
    }
}

/// What goes beyond role and state.
fn tell_more(status: &mut AgentStatus, args: &mut ArgumentConsumer<'_>) -> Outcome {
    if let Some(peer) = args.take_key("cut") {
        status.links.push(LinkStatus {
            up: false,
            silent_ms: Some(5_000),
            error: Some("no route to host".to_owned()),
            ..link(peer)
        });
    }
    if let Some(transactions) = args.take_key("trapped") {
        status.trapped.push(TrappedStatus {
            epoch: Epoch(1),
            above_lsn: Lsn(40),
            transactions: transactions.parse()?,
            file: "trapped-1".to_owned(),
        });
    }
    let words = args.take_key("notices").map_or("", |words| words).to_owned();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        status.notices.push(notice(word)?);
    }
    Ok(())
}

fn notice(word: &str) -> Result<Notice, String> {
    let (word, whom) = word.split_once(':').unwrap_or((word, ""));
    match word {
        "disk" => Ok(Notice::DiskFailed),
        "failed-before" => Ok(Notice::DiskFailedBefore {
            at: "2026-01-01T00:00:00Z".to_owned(),
            why: "fsync: Input/output error".to_owned(),
        }),
        "damage" => Ok(Notice::LogDamaged),
        "apply" => Ok(Notice::ApplyBlocked),
        "distrusts" => Ok(Notice::PeerUntrusted { peer: member(whom) }),
        "behind" => {
            Ok(Notice::FallingBehind { follower: member(whom), records: 90_000, grown: 30_000 })
        }
        "holds" => Ok(Notice::HoldingLog { follower: member(whom), tenths: 6 }),
        other => Err(format!("unknown notice {other}")),
    }
}

fn role(word: &str) -> Result<Role, String> {
    let all =
        [Role::Active, Role::Standby, Role::Subscriber, Role::Idle, Role::Recovering, Role::Failed];
    all.into_iter().find(|r| r.as_label() == word).ok_or(format!("unknown role {word}"))
}

fn state(word: &str) -> Result<MemberState, String> {
    let all = [
        MemberState::Starting,
        MemberState::Recovering,
        MemberState::Duplicating,
        MemberState::Waiting,
        MemberState::CatchingUp,
        MemberState::InSync,
        MemberState::Candidate,
        MemberState::Serving,
        MemberState::Lapsed,
        MemberState::Transferring,
        MemberState::Failed,
    ];
    let text = word.to_lowercase();
    all.into_iter()
        .find(|s| format!("{s:?}").to_lowercase() == text)
        .ok_or(format!("unknown state {word}"))
}

fn usual(name: &str, role: Role, state: MemberState) -> AgentStatus {
    AgentStatus {
        store: Some(StoreStatus {
            store: store(name),
            dbid: Some(DBID),
            promised: Epoch(1),
            lease_longest_ms: 4_000,
        }),
        role,
        state,
        epoch: Epoch(1),
        positions: PositionStatus { epoch: Epoch(1), ..PositionStatus::default() },
        scheme_version: u64::MAX,
        memory_limit_bytes: 1 << 30,
        ..AgentStatus::starting(member(name), incarnation(name, 1))
    }
}
