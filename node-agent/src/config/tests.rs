//! Tests of the environment.

use super::*;
use std::collections::BTreeMap;
use understudy_types::{Durability, FailoverPolicy, ReturnService, WhenStandbyLost};

pub(crate) fn address_of(member: &str, host: &str) -> MemberAddress {
    MemberAddress { member: MemberName::new(member).unwrap(), host: host.into() }
}

pub(crate) fn usual_scheme() -> Scheme {
    Scheme {
        version: 1,
        voters: vec![address_of("orders-1", "127.0.0.1"), address_of("orders-2", "127.0.0.2")],
        subscribers: vec![address_of("orders-s1", "127.0.0.3")],
        return_service: ReturnService::Twosafe,
        durability: Durability::LocalDisk,
        when_standby_lost: WhenStandbyLost::Continue,
        lease_duration_ms: 4000,
        replication_port: 4444,
        automatic: true,
        failover: FailoverPolicy::Automatic,
        max_loss: None,
    }
}

fn usual() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (names::ENV_PAIR, "orders".to_owned()),
        (names::ENV_PAIR_UID, "5f0c".to_owned()),
        (names::ENV_NAMESPACE, "shop".to_owned()),
        (names::ENV_MEMBER, "orders-1".to_owned()),
        (names::ENV_KIND, "voter".to_owned()),
        (names::ENV_DATA_DIR, "/data".to_owned()),
        (names::ENV_LOG_DIR, "/log".to_owned()),
        (names::ENV_TLS_DIR, "/tls".to_owned()),
        (names::ENV_ADMIN_DIR, "/admin".to_owned()),
        (names::ENV_APP_DIR, "/app".to_owned()),
        (names::ENV_PERMANENT_BYTES, (1u64 << 30).to_string()),
        (names::ENV_TEMPORARY_BYTES, (1u64 << 28).to_string()),
        (names::ENV_LOG_BYTES, (1u64 << 31).to_string()),
        (names::ENV_SCHEME, serde_json::to_string(&usual_scheme()).unwrap()),
    ])
}

fn config_of(variables: &BTreeMap<&'static str, String>) -> Result<Config, ConfigError> {
    Config::from_lookup(|name| variables.get(name).cloned())
}

#[test]
fn a_whole_environment_is_understood_with_its_defaults() {
    let config = config_of(&usual()).unwrap();
    assert_eq!(config.member.as_str(), "orders-1");
    assert_eq!(config.kind, MemberKind::Voter);
    assert_eq!(config.sizes.permanent_bytes, 1 << 30);
    assert_eq!(config.lease_name(), "orders-authority");
    assert_eq!(config.termination_log, PathBuf::from("/dev/termination-log"));
    assert_eq!(config.run_dir, PathBuf::from("/run/understudy"));
    assert_eq!(config.grace, Duration::from_secs(25));
}

#[test]
fn an_empty_environment_names_every_variable_at_once() {
    let error = config_of(&BTreeMap::new()).unwrap_err();
    assert_eq!(error.0.len(), usual().len());
    let text = error.to_string();
    for variable in usual().keys() {
        assert!(text.contains(&format!("{variable} is not set; write ")), "{variable}: {text}");
    }
}

#[test]
fn a_wrong_value_names_its_variable_and_what_to_write() {
    let cases = [
        (names::ENV_MEMBER, "Orders_1", "1 to 63"),
        (names::ENV_KIND, "king", "`voter` or `subscriber`"),
        (names::ENV_DATA_DIR, "data", "absolute path"),
        (names::ENV_PERMANENT_BYTES, "1Gi", "number of bytes"),
        (names::ENV_PERMANENT_BYTES, "1000", "67108864 is the least"),
        (names::ENV_LOG_BYTES, "1", "268435456 is the least"),
        (names::ENV_SCHEME, "{}", "JSON of a scheme"),
        (ENV_GRACE_SECONDS, "0", "1 to 3600"),
        (ENV_LISTEN, "everywhere", "an IP address"),
    ];
    for (variable, value, hint) in cases {
        let mut variables = usual();
        variables.insert(variable, value.to_owned());
        let error = config_of(&variables).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.0.len(), 1, "{text}");
        assert!(text.contains(variable) && text.contains(hint), "{text}");
    }
}

#[test]
fn a_scheme_that_contradicts_itself_is_refused() {
    let good = usual_scheme();
    assert_eq!(check_scheme(&good), Ok(()));
    let many = |count: usize| {
        (1..=count).map(|n| address_of(&format!("orders-s{n}"), "host")).collect::<Vec<_>>()
    };
    let full = Scheme { subscribers: many(127), ..good.clone() };
    assert_eq!(check_scheme(&full), Ok(()));
    let cases = [
        (Scheme { voters: vec![], ..good.clone() }, SchemeError::Voters(0)),
        (Scheme { subscribers: many(128), ..good.clone() }, SchemeError::Subscribers(128)),
        (Scheme { lease_duration_ms: 2999, ..good.clone() }, SchemeError::Lease(2999)),
        (Scheme { replication_port: 0, ..good.clone() }, SchemeError::Port),
        (
            Scheme { subscribers: vec![good.voters[0].clone()], ..good.clone() },
            SchemeError::Twice(good.voters[0].member.clone()),
        ),
    ];
    for (scheme, error) in cases {
        assert_eq!(check_scheme(&scheme), Err(error));
    }
    for host in ["", "a host", "http://x/", &"x".repeat(254)] {
        let scheme = Scheme { voters: vec![address_of("orders-1", host)], ..good.clone() };
        assert!(matches!(check_scheme(&scheme), Err(SchemeError::Host { .. })), "{host}");
    }
}

#[test]
fn the_newer_scheme_holds_if_it_is_a_sound_one() {
    let made_with = || config_of(&usual()).unwrap();
    let said = |version| Scheme { version, automatic: false, ..usual_scheme() };
    assert!(made_with().with_newer(None).scheme.automatic);
    assert!(!made_with().with_newer(Some(said(2))).scheme.automatic);
    assert!(made_with().with_newer(Some(said(1))).scheme.automatic, "no newer one");
    let unsound = Scheme { lease_duration_ms: 1, ..said(2) };
    assert!(made_with().with_newer(Some(unsound)).scheme.automatic);
}
