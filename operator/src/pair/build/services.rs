//! Services: by role, one per voter, and the headless one that gives every member its DNS name. Pure.

use super::{Blueprint, KubernetesObject, owned};
use crate::pair::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use understudy_agent_api::{PORT_CONTROL, PORT_SQL, names as shared};
use understudy_types::MemberName;

/// Every Service of the pair.
pub(super) fn services(blueprint: &Blueprint<'_>) -> Vec<KubernetesObject> {
    let name = &blueprint.identity().name;
    let mut services = vec![headless(blueprint)];
    for (suffix, role) in names::ROLE_SERVICES {
        let selector = role.map(|role| (shared::LABEL_ROLE.to_owned(), role.to_owned()));
        services.push(sql(blueprint, format!("{name}{suffix}"), selector));
    }
    services.extend(blueprint.voters.iter().map(|voter| member(blueprint, voter)));
    services.iter().map(KubernetesObject::of).collect()
}

fn pair_selector(blueprint: &Blueprint<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([(shared::LABEL_PAIR.to_owned(), blueprint.identity().name.clone())])
}

fn sql(blueprint: &Blueprint<'_>, name: String, narrowed: Option<(String, String)>) -> Service {
    let mut selector = pair_selector(blueprint);
    selector.extend(narrowed);
    Service {
        metadata: owned(blueprint.identity(), name),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(vec![port("sql", PORT_SQL)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn member(blueprint: &Blueprint<'_>, voter: &MemberName) -> Service {
    let narrowed = (shared::LABEL_MEMBER.to_owned(), voter.to_string());
    sql(blueprint, voter.to_string(), Some(narrowed))
}

/// Names members before they are ready: a standby that starts must find its feeder.
fn headless(blueprint: &Blueprint<'_>) -> Service {
    Service {
        metadata: owned(blueprint.identity(), names::members_service(&blueprint.identity().name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(pair_selector(blueprint)),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![
                port("sql", PORT_SQL),
                port("replication", blueprint.spec.replication_port),
                port("control", PORT_CONTROL),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
