//! An engine on real files, without links and without a Lease.

use super::{Effect, Engine, Parts};
use crate::{
    datadir::{DataDir, StoreDir},
    pg::{ServerIdentity, SessionRegistry},
};
use std::sync::Arc;
use tokio::sync::mpsc;
use understudy_authority::{Holder, Timing};
use understudy_replication::{FollowerKind, Member, Start};
use understudy_store::{MemoryLimits, Store};
use understudy_txlog::{LogOptions, recover};
use understudy_types::{Dbid, Lsn, MemberName, Moment, StoreId};
use uuid::Uuid;

/// A member with a database and no record in it, on two volumes in `place`.
pub(crate) struct Lone {
    pub(crate) engine: Arc<Engine>,
    pub(crate) directory: StoreDir,
    _effects: mpsc::Receiver<Effect>,
    _volumes: DataDir,
}

impl Lone {
    pub(crate) fn new(place: &std::path::Path, options: LogOptions) -> Self {
        let (data, log) = (place.join("data"), place.join("log"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(&log).unwrap();
        let volumes = DataDir::lock(&data, &log, MemberName::new("orders-1").unwrap()).unwrap();
        let store = StoreId(Uuid::from_u128(1));
        let directory = volumes.create(store).unwrap();
        let mut control = directory.control.get();
        control.dbid = Some(Dbid(Uuid::from_u128(2)));
        directory.control.persist(&control).unwrap();
        let incarnation = directory.start(Uuid::from_u128(3)).unwrap();
        let log = recover(directory.disks(), options).unwrap().log;
        let member = volumes.member().clone();
        let start = Start {
            me: Holder { member: member.clone(), store, incarnation },
            kind: FollowerKind::Standby,
            timing: Timing::new(4_000).unwrap(),
            control,
            end: Lsn::ZERO,
            proven_dead: Vec::new(),
        };
        let limits = MemoryLimits { permanent_bytes: 1 << 20, temporary_bytes: 1 << 20 };
        let (engine, effects) = Engine::new(Parts {
            store: Arc::new(Store::new(limits)),
            log,
            member: Member::new(start, Moment(0)),
            control: directory.control.clone(),
            identity: ServerIdentity { member, pair: "orders".to_owned(), version: "0" },
            sessions: Arc::new(SessionRegistry::new(1)),
        });
        Self { engine, directory, _effects: effects, _volumes: volumes }
    }
}
