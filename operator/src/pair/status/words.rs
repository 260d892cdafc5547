//! The sentences of a status: what an acknowledged commit survives, and what the spec came to mean.

use super::sync_word;
use crate::pair::{
    names,
    plan::{ActiveSight, Picture},
    validate::{NodeLoss, ValidatedSpec},
};
use understudy_agent_api::names as shared;
use understudy_crds::{EffectiveStatus, SyncWord, from_bytes};
use understudy_types::{Durability, ReturnService};

/// What an acknowledged commit survives now; `None` without a valid spec or a database.
pub(super) fn promise(picture: &Picture<'_>) -> Option<String> {
    let spec = picture.spec()?;
    if picture.active() == ActiveSight::NeverHeld {
        return None;
    }
    if picture.active() != ActiveSight::Serving {
        return Some(
            "no commit is acknowledged now; those acknowledged before keep their promise".into(),
        );
    }
    let alone = "an acknowledged commit survives a restart of the active, not the loss of its disk; no automatic promotion until the standby is in sync";
    if let (ReturnService::NoReturn, Some(most), SyncWord::InSync) =
        (spec.return_service, spec.max_loss, sync_word(picture))
    {
        return Some(format!(
            "an acknowledged commit survives a restart of the active; the loss of its node loses {most}"
        ));
    }
    let text = match (spec.return_service, sync_word(picture)) {
        (ReturnService::NoReturn, _) if spec.max_loss.is_some() => alone,
        (ReturnService::NoReturn, _) => {
            "an acknowledged commit survives a restart of the active, not its loss; returnService: NoReturn means no automatic promotion"
        }
        (_, SyncWord::Alone | SyncWord::CatchingUp) if picture.is_blocked() => {
            "no commit is acknowledged until a standby is in sync; those acknowledged before keep their promise"
        }
        (_, SyncWord::Alone | SyncWord::CatchingUp) => alone,
        (_, SyncWord::Unknown) => "unknown: the Lease could not be read",
        (ReturnService::Receipt | ReturnService::Twosafe, SyncWord::InSync) => {
            match spec.durability {
                Durability::Memory => {
                    "an acknowledged commit survives the loss of either node, not both members restarting at once"
                }
                Durability::LocalDisk => {
                    "an acknowledged commit survives the loss of either node; if both die at once, the active's disk still has it"
                }
                Durability::BothDisks => {
                    "an acknowledged commit survives the loss of either node, and of either disk after both died at once"
                }
            }
        }
    };
    Some(text.to_owned())
}

/// What the spec means.
pub(super) fn effective(picture: &Picture<'_>, spec: &ValidatedSpec) -> EffectiveStatus {
    EffectiveStatus {
        image: spec.image.clone(),
        mode: format!("{:?}", spec.mode),
        return_service: format!("{:?}", spec.return_service),
        durability: format!("{:?}", spec.durability),
        when_standby_lost: format!("{:?}", spec.when_standby_lost),
        data_loss: match spec.max_loss {
            None => "Forbid".to_owned(),
            Some(most) => format!("AllowUpTo: {most}"),
        },
        failover_policy: format!("{:?}", spec.failover),
        node_loss: match spec.node_loss {
            NodeLoss::Wait => "Wait".to_owned(),
            NodeLoss::ReplaceAfter { seconds } => format!("Replace after {seconds} s"),
        },
        lease_duration_seconds: i32::try_from(spec.lease_duration_ms / 1000).unwrap_or(i32::MAX),
        permanent_memory: from_bytes(spec.permanent_bytes).0,
        temporary_memory: from_bytes(spec.temporary_bytes).0,
        container_memory: from_bytes(spec.voter_resources.memory_bytes).0,
        data_size: from_bytes(spec.data.bytes).0,
        log_size: from_bytes(spec.log.bytes).0,
        scheme: scheme(picture, spec),
    }
}

/// The pair as the original's statement would make it.
fn scheme(picture: &Picture<'_>, spec: &ValidatedSpec) -> String {
    let identity = &picture.pair.identity;
    let named = |member: &str| {
        let host = shared::member_host(&identity.namespace, &identity.name, member);
        format!("\"{member}\" ON \"{host}\"")
    };
    let voters: Vec<String> =
        picture.voters.iter().map(|voter| named(voter.member.as_str())).collect();
    let service = match spec.return_service {
        ReturnService::NoReturn => "NO RETURN",
        ReturnService::Receipt => "RETURN RECEIPT",
        ReturnService::Twosafe => "RETURN TWOSAFE",
    };
    let mut text = format!("CREATE ACTIVE STANDBY PAIR {} {service}", voters.join(", "));
    match spec.subscribers {
        0 => {}
        1 => {
            let first = names::subscriber(&identity.name, 1);
            text.push_str(&format!(" SUBSCRIBER {}", named(first.as_str())));
        }
        many => {
            let first = names::subscriber(&identity.name, 1);
            let last = names::subscriber(&identity.name, many);
            text.push_str(&format!(" SUBSCRIBER \"{first}\" … \"{last}\""));
        }
    }
    text
}
