//! The list of faults: what breaks, under which promises, and what is reached for.

use super::{
    arena::{Promise, Scene},
    authority, certificates, clocks, disks, network, processes,
};
use crate::pair::Pair;
use std::time::Duration;

/// One fault of the campaign.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Run n has the n-th of these.
    pub(crate) promises: &'static [Promise],
    /// How long the recorder writes; the fault comes within its first seconds.
    pub(crate) load_seconds: u32,
    /// Longest gap that clients are to see; reported, not judged: the machine may be busy.
    pub(crate) gap_max_ms: Option<u64>,
    /// Which log volumes the pair has.
    pub(crate) log: LogVolume,
    /// What becomes of the pair.
    pub(crate) end: End,
    /// Gets ready what the fault needs, before the load.
    pub(crate) before: fn(&Pair<'_>) -> anyhow::Result<()>,
    /// Breaks something, and ends what would not end by itself.
    pub(crate) inject: fn(&mut Scene<'_>) -> anyhow::Result<()>,
    /// What the pair's object must say meanwhile, in the words of contract §4: see `words.rs`.
    pub(crate) says: &'static [&'static str],
    /// From where the operator must look to say it.
    pub(crate) vantage: Vantage,
    /// What must be true of the whole pair afterwards, beside that nothing is lost.
    pub(crate) check: fn(&mut Scene<'_>) -> anyhow::Result<()>,
}

/// What a run takes beside its load: a pair that is whole before and after, and told so.
const AROUND_LOAD: Duration = Duration::from_secs(20);

impl Fault {
    /// How long a run takes on a quiet machine.
    pub(crate) fn takes_about(&self) -> Duration {
        Duration::from_secs(self.load_seconds.into()) + AROUND_LOAD
    }
}

/// The log volumes of a pair under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogVolume {
    /// As large as the disk below them.
    Large,
    /// File systems of the least size that a pair may have.
    Small,
}

/// Where the operator is when it tells of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vantage {
    /// The fault does not touch it.
    Anywhere,
    /// On the node of neither member: what breaks their nodes' network breaks the operator's there, too.
    ThirdNode,
}

/// What becomes of a pair by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is whole again by itself, with all that was acknowledged.
    Whole,
    /// It is whole, and tells of the fault for an hour: the next run gets another pair.
    Marked,
    /// Its data is gone; the pair is of no further use.
    Destroyed,
}

const fn promise(returns: &'static str, durability: &'static str) -> Promise {
    Promise { returns, durability, standby_lost: "Continue" }
}

/// Promises that survive the loss of either member.
const ANY: &[Promise] = &[
    promise("Twosafe", "LocalDisk"),
    promise("Receipt", "LocalDisk"),
    promise("Twosafe", "BothDisks"),
    promise("Twosafe", "Memory"),
];
/// Promises that survive the restart of both at once as well.
const DURABLE: &[Promise] = &[
    promise("Twosafe", "LocalDisk"),
    promise("Receipt", "LocalDisk"),
    promise("Twosafe", "BothDisks"),
];
/// No commit without the standby.
const BLOCKING: &[Promise] = &[
    Promise { standby_lost: "Block", ..promise("Twosafe", "LocalDisk") },
    Promise { standby_lost: "Block", ..promise("Receipt", "LocalDisk") },
    Promise { standby_lost: "Block", ..promise("Twosafe", "Memory") },
];
/// The active alone decides, and no other is ever promoted by itself.
const NO_RETURN: &[Promise] = &[promise("NoReturn", "LocalDisk")];

const fn fault(
    name: &'static str,
    what: &'static str,
    inject: fn(&mut Scene<'_>) -> anyhow::Result<()>,
) -> Fault {
    Fault {
        name,
        what,
        promises: ANY,
        load_seconds: 10,
        gap_max_ms: None,
        log: LogVolume::Large,
        end: End::Whole,
        before: |_| Ok(()),
        inject,
        says: &[],
        vantage: Vantage::Anywhere,
        check: |_| Ok(()),
    }
}

const fn failover(fault: Fault) -> Fault {
    Fault { check: |scene| scene.assert_failed_over(), ..fault }
}

const fn within(gap_max_ms: u64, fault: Fault) -> Fault {
    Fault { gap_max_ms: Some(gap_max_ms), ..fault }
}

const fn lasting(load_seconds: u32, fault: Fault) -> Fault {
    Fault { load_seconds, ..fault }
}

const fn durable(fault: Fault) -> Fault {
    Fault { promises: DURABLE, ..fault }
}

const fn under(promises: &'static [Promise], fault: Fault) -> Fault {
    Fault { promises, ..fault }
}

const fn saying_from_afar(says: &'static [&'static str], fault: Fault) -> Fault {
    Fault { says, vantage: Vantage::ThirdNode, ..fault }
}

const fn failing_disk(fault: Fault) -> Fault {
    Fault { end: End::Marked, ..saying(&["StorageHealthy=False FsyncFailed"], fault) }
}

const fn saying(says: &'static [&'static str], fault: Fault) -> Fault {
    Fault { says, ..fault }
}

/// All of them, in the order of their running.
pub(crate) const ALL: &[Fault] = &[
    within(
        1_000,
        failover(fault(
            "engine-killed",
            "SIGKILL to the active's engine",
            processes::kill_active_engine,
        )),
    ),
    within(
        3_000,
        failover(fault(
            "container-killed",
            "SIGKILL to everything in the active's container",
            processes::kill_active_container,
        )),
    ),
    within(
        500,
        failover(fault("hand-over", "kubectl delete pod of the active", processes::delete_active)),
    ),
    within(
        500,
        failover(lasting(
            15,
            fault("drained", "kubectl drain of the active's node", network::drain_active),
        )),
    ),
    failover(fault(
        "force-deleted",
        "the active's pod is force-deleted: no proof of its death",
        processes::force_delete_active,
    )),
    failover(lasting(
        42,
        fault(
            "frozen",
            "SIGSTOP to the active's container for 30 s, then SIGCONT",
            processes::freeze_active,
        ),
    )),
    lasting(
        20,
        saying(
            &["Redundant=False StandbySilent"],
            fault(
                "standby-frozen",
                "SIGSTOP to the standby's container, then SIGCONT",
                processes::freeze_standby,
            ),
        ),
    ),
    fault("standby-killed", "SIGKILL to the standby's engine", processes::kill_standby_engine),
    fault(
        "standby-out-of-memory",
        "the kernel kills the standby's container for memory",
        processes::starve_standby,
    ),
    under(
        BLOCKING,
        lasting(
            20,
            saying(
                &["Available=False WaitingForStandby"],
                fault(
                    "standby-frozen-blocking",
                    "SIGSTOP to the standby's container under Block, then SIGCONT",
                    processes::freeze_standby,
                ),
            ),
        ),
    ),
    under(
        BLOCKING,
        fault(
            "standby-killed-blocking",
            "SIGKILL to the standby's engine under Block",
            processes::kill_standby_engine,
        ),
    ),
    under(
        NO_RETURN,
        Fault {
            check: |scene| scene.assert_stayed(),
            ..fault(
                "engine-killed-no-return",
                "SIGKILL to the active's engine under NO RETURN",
                processes::kill_active_engine,
            )
        },
    ),
    durable(fault(
        "both-killed-active-first",
        "both engines, the active's first",
        processes::kill_active_then_standby,
    )),
    durable(fault(
        "both-killed-standby-first",
        "both engines, the standby's first",
        processes::kill_standby_then_active,
    )),
    // No words are certain: a kubelet may start one again before the other kubelet sees that its own died.
    durable(lasting(
        20,
        fault("both-containers-killed", "both containers at once", processes::kill_both_containers),
    )),
    durable(fault(
        "killed-in-catch-up",
        "the active dies while its standby comes back",
        processes::kill_in_catch_up,
    )),
    durable(lasting(
        20,
        fault(
            "killed-in-duplicate",
            "the active dies while its standby is built anew",
            processes::kill_in_duplicate,
        ),
    )),
    failover(fault(
        "killed-in-checkpoint",
        "the active dies while it writes a checkpoint",
        processes::kill_in_checkpoint,
    )),
    failover(fault(
        "operator-and-active",
        "the operator's pods are deleted as the active dies",
        processes::kill_operator_and_active,
    )),
    lasting(
        25,
        fault(
            "standby-volume-lost",
            "the standby's volumes and pod are deleted",
            disks::lose_standby,
        ),
    ),
    failover(lasting(
        25,
        fault("active-volume-lost", "the active's volumes and pod are deleted", disks::lose_active),
    )),
    Fault {
        check: certificates::serves_its_new_certificates,
        ..lasting(
            20,
            fault(
                "certificates-deleted",
                "the Secrets of both members' certificates are deleted",
                certificates::delete_certificates,
            ),
        )
    },
    Fault {
        check: certificates::serves_its_new_certificates,
        ..lasting(
            60,
            fault(
                "certificates-expired",
                "both members' certificates have ended while the operator is away",
                certificates::expire_certificates,
            ),
        )
    },
    Fault {
        check: certificates::serves_its_new_certificates,
        ..lasting(
            60,
            saying(
                &["CertificatesValid=False PeerUntrusted"],
                fault(
                    "certificates-expired-and-active",
                    "both members' certificates have ended while the operator is away, and the active dies",
                    certificates::expire_certificates_and_kill,
                ),
            ),
        )
    },
    Fault {
        before: certificates::make_authority,
        check: certificates::serves_its_new_certificates,
        ..lasting(
            60,
            fault(
                "authority-replaced",
                "another certificate authority at once, and the standby dies between two trusts",
                certificates::replace_authority,
            ),
        )
    },
    within(
        6_000,
        failover(lasting(
            30,
            saying_from_afar(
                &["phase ActiveDown", "Available=False ActiveSilent"],
                fault("node-off", "the active's node loses its power", network::active_node_off),
            ),
        )),
    ),
    lasting(
        20,
        saying_from_afar(
            &["Available=True ServingAlone"],
            fault(
                "standby-node-off",
                "the standby's node loses its power",
                network::standby_node_off,
            ),
        ),
    ),
    within(
        6_000,
        failover(lasting(
            18,
            saying_from_afar(
                &["phase ActiveDown", "Available=False ActiveSilent"],
                fault("cut", "the active is cut from everything", network::cut_active),
            ),
        )),
    ),
    lasting(18, fault("cut-in", "nothing arrives at the active's node", network::cut_active_in)),
    lasting(18, fault("cut-out", "nothing leaves the active's node", network::cut_active_out)),
    lasting(
        18,
        fault("lossy", "the active's node loses 20 % of its packets", network::lossy_active),
    ),
    lasting(18, fault("cut-api", "the active is cut from the API server", network::cut_active_api)),
    lasting(
        18,
        fault(
            "cut-api-in",
            "the API server's answers do not arrive at the active",
            network::cut_active_api_in,
        ),
    ),
    lasting(
        18,
        fault(
            "cut-api-out",
            "the active's requests do not arrive at the API server",
            network::cut_active_api_out,
        ),
    ),
    lasting(
        18,
        saying_from_afar(
            &["Redundant=False LinkCut", "Available=True ServingAlone"],
            fault("cut-link", "the active is cut from the standby", network::cut_link),
        ),
    ),
    lasting(18, fault("cut-link-in", "the standby's answers do not arrive", network::cut_link_in)),
    lasting(18, fault("cut-link-out", "the active's records do not arrive", network::cut_link_out)),
    lasting(18, fault("lossy-link", "the link loses 20 % of its packets", network::lossy_link)),
    lasting(
        30,
        fault(
            "twin",
            "the active's pod is force-deleted while its node is cut from the API server",
            network::twin,
        ),
    ),
    within(
        1_000,
        lasting(70, fault("api-stopped", "the API server is stopped for 60 s", network::stop_api)),
    ),
    within(
        1_000,
        lasting(70, fault("api-paused", "the API server hangs for 60 s", network::pause_api)),
    ),
    durable(lasting(
        75,
        fault(
            "api-and-active",
            "the API server is stopped for 60 s, and the active dies",
            network::stop_api_and_kill_active,
        ),
    )),
    durable(lasting(
        75,
        fault(
            "api-and-standby",
            "the API server is stopped for 60 s, and the standby dies",
            network::stop_api_and_kill_standby,
        ),
    )),
    within(
        1_000,
        fault(
            "clock-forward",
            "the wall clock of either member jumps an hour ahead, and back",
            clocks::jump_forward,
        ),
    ),
    within(
        1_000,
        fault(
            "clock-back",
            "the wall clock of either member jumps an hour back, and ahead",
            clocks::jump_back,
        ),
    ),
    lasting(
        28,
        fault(
            "clock-slow",
            "the active's clocks are 8 % slow, and it is cut from everything",
            clocks::slow_then_cut,
        ),
    ),
    lasting(40, fault("lease-deleted", "a person deletes the Lease", authority::delete_lease)),
    lasting(30, fault("lease-edited", "a person writes another holder", authority::edit_lease)),
    lasting(
        40,
        saying(
            &["FencingHealthy=False LeaseRegressed"],
            fault("lease-older", "the Lease goes back to an older state", authority::restore_lease),
        ),
    ),
    Fault {
        check: authority::is_reinstated,
        ..lasting(
            45,
            fault(
                "etcd-restored",
                "etcd goes back to a backup of seconds ago",
                authority::restore_etcd,
            ),
        )
    },
    failover(failing_disk(fault(
        "fsync-error",
        "the active's fdatasync fails with EIO",
        disks::fail_active_fsync,
    ))),
    failing_disk(fault(
        "standby-fsync-error",
        "the standby's fdatasync fails with EIO",
        disks::fail_standby_fsync,
    )),
    within(
        10_000,
        failover(lasting(
            30,
            fault("fsync-hangs", "the active's fdatasync hangs for 15 s", disks::hang_active_fsync),
        )),
    ),
    lasting(
        30,
        fault(
            "standby-fsync-hangs",
            "the standby's fdatasync hangs for 15 s",
            disks::hang_standby_fsync,
        ),
    ),
    Fault {
        log: LogVolume::Small,
        ..lasting(
            50,
            saying(
                &["Available=False LogFull", "StorageHealthy=False LogFull"],
                fault(
                    "log-full",
                    "the active's log volume is full to the last byte",
                    disks::fill_active,
                ),
            ),
        )
    },
    Fault {
        log: LogVolume::Small,
        ..lasting(
            50,
            saying(
                &["StorageHealthy=False LogFull"],
                fault(
                    "standby-log-full",
                    "the standby's log volume is full to the last byte",
                    disks::fill_standby,
                ),
            ),
        )
    },
    Fault {
        end: End::Destroyed,
        check: disks::nobody_serves_an_empty_database,
        ..saying(
            &["Stalled=True EveryLogLost", "phase ManualInterventionRequired"],
            fault(
                "both-volumes-lost",
                "the volumes and pods of both members are deleted; nobody may begin anew by itself",
                disks::lose_both,
            ),
        )
    },
];
