//! A member for tests: a store without log and peers, whose acknowledgements, role and authority the
//! test decides. Its commit section gives LSNs as the engine's does.

use super::{
    AckWait, CheckpointWait, ClientTls, CommitRefused, Database, EndReason, HoldKind, Listener,
    ListenerOptions, LogHold, OutcomeUnknown, ReadRefused, RoleWait, ServerIdentity,
    SessionRegistry, Standing, auth,
    tokens::{self, Known, OpenToken, OpenTokens, Outcome},
};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};
use tokio::sync::oneshot;
use understudy_replication::NotSettable;
use understudy_store::{Isolation, MemoryLimits, Store, Txn, UserDef};
use understudy_types::{CommitToken, Epoch, Lsn, MemberName, Role};

type Waiter = (Lsn, oneshot::Sender<Result<(), OutcomeUnknown>>);

/// See the module.
pub(super) struct MemoryDatabase {
    store: Arc<Store>,
    sessions: Arc<SessionRegistry>,
    /// The newest LSN; its lock is the commit section.
    end: Mutex<u64>,
    acknowledged: AtomicU64,
    holds_back: AtomicBool,
    stalls_checkpoints: AtomicBool,
    log_is_behind: AtomicBool,
    has_authority: AtomicBool,
    standing: Mutex<Standing>,
    waiters: Mutex<Vec<Waiter>>,
    tokens: Arc<OpenTokens>,
}

/// The administrator that every test database has.
pub(super) const USER: &str = "admin";
/// Its password.
pub(super) const PASSWORD: &str = "correct horse";

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a DNS label")
}

/// The user of that name.
pub(super) fn administrator() -> UserDef {
    let scram = Some(auth::derive_verifier(PASSWORD, b"0123456789abcdef", 4096));
    UserDef { name: USER.to_owned(), scram, admin: true }
}

impl MemoryDatabase {
    /// An active with one user.
    pub(super) fn active() -> Arc<MemoryDatabase> {
        MemoryDatabase::with_sessions(100)
    }

    /// As [`MemoryDatabase::active`], admitting so many sessions.
    pub(super) fn with_sessions(limit: usize) -> Arc<MemoryDatabase> {
        let limits = MemoryLimits { permanent_bytes: 1 << 30, temporary_bytes: 1 << 30 };
        let database = MemoryDatabase::of(Store::new(limits), limit);
        let mut txn = database.store.begin(Isolation::ReadCommitted);
        database.store.create_user(&mut txn, administrator()).expect("the store is empty");
        database.commit(txn).expect("an active takes commits");
        Arc::new(database)
    }

    /// A standby that has this store from its log, and was not told yet what of it is acknowledged.
    pub(super) fn recovered(store: Store) -> Arc<MemoryDatabase> {
        let database = MemoryDatabase::of(store, 100);
        database.acknowledged.store(0, SeqCst);
        database.standing.lock().role = Role::Standby;
        Arc::new(database)
    }

    fn of(store: Store, limit: usize) -> MemoryDatabase {
        let (role, epoch, active) = (Role::Active, Epoch(1), Some(name("orders-1")));
        MemoryDatabase {
            sessions: Arc::new(SessionRegistry::new(limit)),
            end: Mutex::new(store.committed().0),
            acknowledged: AtomicU64::new(store.acknowledged().0),
            store: Arc::new(store),
            holds_back: AtomicBool::new(false),
            stalls_checkpoints: AtomicBool::new(false),
            log_is_behind: AtomicBool::new(false),
            has_authority: AtomicBool::new(true),
            standing: Mutex::new(Standing { role, epoch, active }),
            waiters: Mutex::new(Vec::new()),
            tokens: Arc::default(),
        }
    }

    /// From now on commits are acknowledged by [`MemoryDatabase::acknowledge`] only.
    pub(super) fn hold_back(&self) {
        self.holds_back.store(true, SeqCst);
    }

    /// From now on no checkpoint ends.
    pub(super) fn stall_checkpoints(&self) {
        self.stalls_checkpoints.store(true, SeqCst);
    }

    /// Whether there is much to write before the next commit.
    pub(super) fn set_behind(&self, is_behind: bool) {
        self.log_is_behind.store(is_behind, SeqCst);
    }

    /// Acknowledges everything committed so far.
    pub(super) fn acknowledge(&self) {
        let end = *self.end.lock();
        self.store.set_visible(Lsn(end));
        self.acknowledged.fetch_max(end, SeqCst);
        let mut waiters = self.waiters.lock();
        for (_, waiter) in waiters.extract_if(.., |(lsn, _)| lsn.0 <= end) {
            // The session may have given up.
            let _ = waiter.send(Ok(()));
        }
    }

    /// How many sessions wait for an acknowledgement.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.lock().iter().filter(|(_, waiter)| !waiter.is_closed()).count()
    }

    /// This member becomes the standby of `active`; waiting commits have an unknown outcome.
    pub(super) fn demote(&self, active: &str) {
        *self.standing.lock() =
            Standing { role: Role::Standby, epoch: Epoch(2), active: Some(name(active)) };
        let hint = format!("The active is {active}.");
        let reason = EndReason { message: "this member was demoted".to_owned(), hint: Some(hint) };
        self.sessions.end_all(&reason);
        for (_, waiter) in self.waiters.lock().drain(..) {
            let _ = waiter.send(Err(OutcomeUnknown { reason: "demoted".to_owned() }));
        }
    }

    /// Nobody is followed, and nobody served.
    pub(super) fn idle(&self) {
        self.standing.lock().role = Role::Idle;
    }

    /// Neither Lease nor grant any more.
    pub(super) fn lose_authority(&self) {
        self.has_authority.store(false, SeqCst);
    }

    /// Authority is back.
    pub(super) fn regain_authority(&self) {
        self.has_authority.store(true, SeqCst);
    }

    /// A listener on a free port of loopback.
    pub(super) fn listen(self: &Arc<Self>, tls: ClientTls) -> Listener {
        let address = "127.0.0.1:0".parse().expect("an address");
        let options = ListenerOptions::tcp(address, tls);
        Listener::start(Arc::clone(self) as Arc<dyn Database>, options).expect("loopback is there")
    }
}

impl Database for MemoryDatabase {
    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    fn identity(&self) -> ServerIdentity {
        ServerIdentity { member: name("orders-1"), pair: "orders".to_owned(), version: "0.0.0" }
    }

    fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    fn commit(&self, txn: Txn) -> Result<Lsn, CommitRefused> {
        let standing = self.standing();
        if standing.role != Role::Active {
            return Err(CommitRefused::ReadOnly { active: standing.active });
        }
        if !self.has_authority.load(SeqCst) {
            return Err(CommitRefused::NoAuthority);
        }
        let mut end = self.end.lock();
        self.store.validate(&txn).map_err(|_| CommitRefused::Serialization)?;
        *end += 1;
        let lsn = Lsn(*end);
        self.store.commit(txn, lsn);
        if !self.holds_back.load(SeqCst) {
            self.store.set_visible(lsn);
            self.acknowledged.store(lsn.0, SeqCst);
        }
        Ok(lsn)
    }

    fn log_is_behind(&self) -> bool {
        self.log_is_behind.load(SeqCst)
    }

    fn acknowledged_lsn(&self) -> Lsn {
        Lsn(self.acknowledged.load(SeqCst))
    }

    fn acknowledged(&self, lsn: Lsn) -> AckWait {
        let (sender, receiver) = oneshot::channel();
        self.waiters.lock().push((lsn, sender));
        if self.acknowledged_lsn() >= lsn {
            self.acknowledge();
        }
        Box::pin(async move { receiver.await.expect("the test database outlives its sessions") })
    }

    fn confirms_reads(&self) -> Result<(), ReadRefused> {
        if self.has_authority.load(SeqCst) || self.role() != Role::Active {
            return Ok(());
        }
        Err(ReadRefused { reason: "no authority".to_owned() })
    }

    fn give_token(&self) -> Result<OpenToken, CommitRefused> {
        Ok(self.tokens.give(self.standing().epoch))
    }

    fn outcome(&self, token: CommitToken) -> Outcome {
        let standing = self.standing();
        let known = Known {
            serving: (standing.role == Role::Active).then_some(standing.epoch),
            open: &self.tokens,
            acknowledged: self.acknowledged_lsn(),
            lossy: self.store.lossy_epoch(),
        };
        tokens::outcome(token, &known, |token| self.store.fate_of(token))
    }

    fn set_active(&self) -> Result<RoleWait, NotSettable> {
        let mut standing = self.standing.lock();
        if standing.role == Role::Active {
            return Err(NotSettable::IsActive);
        }
        standing.role = Role::Active;
        Ok(Box::pin(std::future::ready(())))
    }

    fn checkpoint(&self) -> CheckpointWait {
        if self.stalls_checkpoints.load(SeqCst) {
            return Box::pin(std::future::pending());
        }
        let lsn = self.acknowledged_lsn();
        let taken = if self.has_authority.load(SeqCst) { Ok(lsn) } else { Err("full".to_owned()) };
        Box::pin(std::future::ready(taken))
    }

    fn log_holds(&self) -> Result<Vec<LogHold>, String> {
        let description = "orders-2".to_owned();
        let first_lsn = self.acknowledged_lsn().next();
        Ok(vec![LogHold { first_lsn, kind: HoldKind::Replication, description }])
    }

    fn sessions(&self) -> &Arc<SessionRegistry> {
        &self.sessions
    }
}
