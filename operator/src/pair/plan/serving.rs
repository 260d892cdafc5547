//! Rules while an active serves: they differ by where the standby is. Pure.

use super::{
    ActiveSight, Picture, StandbySight, Verdict, VoterSight, exit,
    members::{is_persistent, next_voter},
    picture::START_SECONDS,
    stalled, waiting,
};
use crate::pair::{action::Action, observation::ContainerSight, validate::NodeLoss};
use understudy_crds::Phase;
use understudy_types::MemberName;

const ALONE: &str = "commits acknowledged while alone are on the active only";

/// The active acknowledges commits.
pub(super) fn active_serves(picture: &Picture<'_>) -> Option<Verdict> {
    if picture.active() != ActiveSight::Serving {
        return None;
    }
    let active = &picture.holder()?.member;
    let Some(voter) = picture.other() else { return Some(no_second_voter(picture)) };
    let standby = &voter.member;
    Some(match picture.standby(voter) {
        StandbySight::InSync => normal("in-sync"),
        StandbySight::CatchingUp if picture.is_unpromised() => normal("following-unpromised"),
        StandbySight::CatchingUp => standby_on_its_way(
            picture,
            "standby-catchup",
            Phase::StandbyCatchup,
            ("StandbyCatchingUp", format!("{standby} follows and is not yet recorded in sync")),
            format!("record {standby} in sync when it has everything"),
        ),
        StandbySight::LinkCut => link_cut(picture, active, standby),
        StandbySight::Duplicating => standby_on_its_way(
            picture,
            "standby-duplicate",
            Phase::StandbyStarting,
            ("StandbyDuplicating", format!("{standby} builds its store from {active}")),
            format!("{standby} catches up from the log"),
        ),
        StandbySight::Recovering => standby_on_its_way(
            picture,
            "standby-recover",
            Phase::StandbyStarting,
            ("StandbyRecovering", format!("{standby} replays its own log")),
            format!("{standby} catches up from the log of {active}"),
        ),
        StandbySight::Starting | StandbySight::Down(..) if is_node_lost(picture, voter) => {
            node_lost(picture, voter)
        }
        StandbySight::Candidate | StandbySight::Starting | StandbySight::Missing => {
            standby_on_its_way(
                picture,
                "standby-start",
                Phase::StandbyStarting,
                ("StandbyStarting", format!("{standby} starts")),
                format!("{standby} recovers its log, or builds its store from {active}"),
            )
        }
        StandbySight::VolumeLost => standby_volume_lost(picture, standby),
        StandbySight::Down(reason, message) => standby_down(picture, standby, reason, message),
    })
}

fn normal(rule: &'static str) -> Verdict {
    Verdict {
        rule,
        phase: Phase::Normal,
        actions: Vec::new(),
        waiting: None,
        exit: None,
        is_frozen: false,
    }
}

fn standby_on_its_way(
    picture: &Picture<'_>,
    rule: &'static str,
    phase: Phase,
    (reason, message): (&'static str, String),
    next: String,
) -> Verdict {
    let (human, risk) = meanwhile(picture, "none");
    let way_out = exit(next, human, risk).within(picture, phase, START_SECONDS);
    Verdict {
        rule,
        phase,
        actions: Vec::new(),
        waiting: waiting(reason, message),
        exit: Some(way_out),
        is_frozen: false,
    }
}

/// What a person can do while there is no standby, beside what ends that, and what is at risk.
fn meanwhile(picture: &Picture<'_>, otherwise: &str) -> (String, &'static str) {
    if !picture.is_blocked() {
        return (otherwise.to_owned(), ALONE);
    }
    let identity = &picture.pair.identity;
    let patch = format!(
        "to write before that: kubectl patch activestandbypair {} -n {} --type merge -p '{{\"spec\":{{\"replication\":{{\"whenStandbyLost\":\"Continue\"}}}}}}'",
        identity.name, identity.namespace
    );
    let all = if otherwise == "none" { patch } else { format!("{otherwise}; {patch}") };
    (all, "none: commits wait, and are in doubt until a standby has them")
}

/// Both live, and do not reach each other.
fn link_cut(picture: &Picture<'_>, active: &MemberName, standby: &MemberName) -> Verdict {
    let error = picture.seen.agent(standby).and_then(|agent| {
        let link = agent.links.iter().find(|link| &link.peer == active)?;
        link.error.clone()
    });
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    let human = format!("check network policies and routes between {active} and {standby}");
    let (human, risk) = meanwhile(picture, &human);
    Verdict {
        rule: "link-cut",
        phase: Phase::StandbyDown,
        actions: Vec::new(),
        waiting: waiting(
            "LinkCut",
            format!(
                "{active} and {standby} both live, {active} holds the Lease, and {standby} does not reach it{why}"
            ),
        ),
        exit: Some(exit(
            format!("{standby} dials again several times a second, and catches up; no promotion"),
            human,
            risk,
        )),
        is_frozen: false,
    }
}

/// The old name is never used again: what is left of the old member stays as evidence.
fn standby_volume_lost(picture: &Picture<'_>, standby: &MemberName) -> Verdict {
    let (new, _) = next_voter(picture);
    Verdict {
        rule: "standby-volume-lost",
        phase: Phase::StandbyDown,
        actions: vec![Action::RetireMember { member: standby.clone() }],
        waiting: waiting("StandbyVolumeLost", format!("a volume of {standby} is gone")),
        exit: Some(exit(format!("replace {standby} by {new}, built by duplicate"), "none", ALONE)),
        is_frozen: false,
    }
}

/// Whether nobody has heard of this voter for as long as `failover.nodeLoss` waits. A kubelet that tells
/// of its container is no lost node, whatever the container does.
fn is_node_lost(picture: &Picture<'_>, voter: &VoterSight<'_>) -> bool {
    let Some(NodeLoss::ReplaceAfter { seconds }) = picture.spec().map(|spec| spec.node_loss) else {
        return false;
    };
    let is_left = voter.pod.is_some_and(|pod| {
        let looks_alive = pod.container == ContainerSight::Running && !pod.is_ready;
        pod.node.is_some() && (pod.is_being_deleted || looks_alive)
    });
    is_left && voter.silent_seconds.is_some_and(|silent| silent >= seconds)
}

/// What is left of the old member stays as evidence, and is never used again under its name.
fn node_lost(picture: &Picture<'_>, voter: &VoterSight<'_>) -> Verdict {
    let (new, _) = next_voter(picture);
    let standby = &voter.member;
    let node = voter.pod.and_then(|pod| pod.node.as_deref()).unwrap_or("its node");
    let message = format!("{standby} on {node} has been silent for too long; its volumes are kept");
    Verdict {
        rule: "standby-node-lost",
        phase: Phase::StandbyDown,
        actions: vec![Action::RetireMember { member: standby.clone() }],
        waiting: waiting("StandbyNodeLost", message),
        exit: Some(exit(format!("replace {standby} by {new}, built by duplicate"), "none", ALONE)),
        is_frozen: false,
    }
}

fn standby_down(
    picture: &Picture<'_>,
    standby: &MemberName,
    reason: &'static str,
    message: String,
) -> Verdict {
    let human = match reason {
        "ImageUnavailable" => {
            "correct spec.image, or make the image available on the nodes".to_owned()
        }
        "Unschedulable" => {
            "free or add a node that the pod fits on; or scheduling.spread: Preferred to share one"
                .to_owned()
        }
        "StandbyFailed" => {
            format!("read the reason; to build {standby} anew, delete its volumes and its pod")
        }
        _ => "none".to_owned(),
    };
    let next = match reason {
        "StandbyFailed" => "look again".to_owned(),
        "StandbySilent" | "PodDeleted" => match picture.spec().map(|spec| spec.node_loss) {
            Some(NodeLoss::ReplaceAfter { seconds }) => format!(
                "{standby} catches up when it is back; it is replaced when it was silent for {seconds} s"
            ),
            Some(NodeLoss::Wait) | None => format!("{standby} catches up when it is back"),
        },
        _ => format!("start {standby} again, which then catches up"),
    };
    let wait =
        if is_persistent(reason) { stalled(reason, message) } else { waiting(reason, message) };
    let (human, risk) = meanwhile(picture, &human);
    Verdict {
        rule: "standby-down",
        phase: Phase::StandbyDown,
        actions: Vec::new(),
        waiting: wait,
        exit: Some(exit(next, human, risk).within(picture, Phase::StandbyDown, START_SECONDS)),
        is_frozen: false,
    }
}

fn no_second_voter(picture: &Picture<'_>) -> Verdict {
    let (new, _) = next_voter(picture);
    Verdict {
        rule: "no-second-voter",
        phase: Phase::StandbyDown,
        actions: Vec::new(),
        waiting: waiting("NoStandby", "the pair has one voter only"),
        exit: Some(exit(format!("make {new}"), "none", ALONE)),
        is_frozen: false,
    }
}
