//! The members' agents as the operator hears them: one status stream per member, opened again when it
//! breaks, and requests over the same mutual TLS.
//!
//! **Invariants**
//! 1. A member that cannot be asked is `Unknown` with the moment since when, never absent (law 5).
//! 2. A new word is announced only when something changed that a plan could depend on.
//! 3. The other end must show the certificate of exactly the member that was meant.

mod connection;
mod stream;

pub use connection::{ClientIdentity, ConnectionError};

use crate::pair::observation::{NOT_ASKED, Seen};
use connection::Door;
use futures::channel::mpsc::UnboundedSender;
use jiff::Timestamp;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::task::AbortHandle;
use understudy_agent_api::AgentStatus;
use understudy_types::MemberName;

/// Namespace and name of a pair.
pub type PairKey = (String, String);

/// Where a member's agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address of its pod.
    pub address: IpAddr,
    /// UID of its pod: another pod may come back with the same address.
    pub pod_uid: String,
}

pub(crate) type Word = Arc<RwLock<Seen<AgentStatus>>>;

struct Followed {
    target: Target,
    word: Word,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct PairAgents {
    identity: Option<Arc<ClientIdentity>>,
    members: BTreeMap<MemberName, Followed>,
}

/// All agents of all pairs.
pub struct Agents {
    pairs: Mutex<HashMap<PairKey, PairAgents>>,
    announce: UnboundedSender<PairKey>,
}

impl Agents {
    /// Nobody yet; pairs with news are sent to `announce`.
    #[must_use]
    pub fn new(announce: UnboundedSender<PairKey>) -> Self {
        Self { pairs: Mutex::default(), announce }
    }

    /// Follows exactly these members, and says what is known of each.
    pub fn follow(
        &self,
        pair: &PairKey,
        identity: &Arc<ClientIdentity>,
        targets: &BTreeMap<MemberName, Target>,
    ) -> BTreeMap<MemberName, Seen<AgentStatus>> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pairs.entry(pair.clone()).or_default();
        let is_new_identity = known.identity.as_ref().is_none_or(|i| i.mark != identity.mark);
        if is_new_identity {
            known.identity = Some(Arc::clone(identity));
        }
        known.members.retain(|member, followed| {
            !is_new_identity && targets.get(member) == Some(&followed.target)
        });
        for (member, target) in targets {
            if !known.members.contains_key(member) {
                let followed = self.open(pair, identity, member, target);
                known.members.insert(member.clone(), followed);
            }
        }
        let word = |followed: &Followed| {
            followed.word.read().unwrap_or_else(PoisonError::into_inner).clone()
        };
        known.members.iter().map(|(member, f)| (member.clone(), word(f))).collect()
    }

    fn open(
        &self,
        pair: &PairKey,
        identity: &Arc<ClientIdentity>,
        member: &MemberName,
        target: &Target,
    ) -> Followed {
        let why = NOT_ASKED.to_owned();
        let word: Word = Arc::new(RwLock::new(Seen::Unknown { since: Timestamp::now(), why }));
        let door = Door::new(Arc::clone(identity), member.clone(), target.address);
        let announce = self.announce.clone();
        let pair = pair.clone();
        let changed = move || drop(announce.unbounded_send(pair.clone()));
        let task = tokio::spawn(stream::follow(door, Arc::clone(&word), changed)).abort_handle();
        Followed { target: target.clone(), word, task }
    }

    /// Sends a request to a member's agent.
    ///
    /// # Errors
    /// When the agent cannot be reached, or refuses.
    pub async fn request<B: Serialize + Sync>(
        &self,
        pair: &PairKey,
        member: &MemberName,
        path: &'static str,
        body: &B,
    ) -> Result<(), ConnectionError> {
        let door = {
            let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
            let found = pairs.get(pair).and_then(|known| {
                let followed = known.members.get(member)?;
                let identity = Arc::clone(known.identity.as_ref()?);
                Some(Door::new(identity, member.clone(), followed.target.address))
            });
            found.ok_or(ConnectionError::NotFollowed)?
        };
        door.post(path, body).await
    }

    /// Forgets a pair that is gone.
    pub fn forget(&self, pair: &PairKey) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).remove(pair);
    }
}
