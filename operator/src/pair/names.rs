//! Names of everything that belongs to a pair, in one place. Pure.
//!
//! Member-level names end in `-N`, `-sN` and those with `-tls`, `-data`, `-log`; pair-level names end
//! in other words. So two pairs of one namespace never meet, even if one is called `a` and one `a-1`.

use understudy_agent_api::names;
use understudy_types::MemberName;

/// Name of the voter with this number.
#[must_use]
pub fn voter(pair: &str, number: u32) -> MemberName {
    MemberName::new(format!("{pair}-{number}"))
        .expect("a pair's name is at most 40 characters of a DNS label")
}

/// Name of the subscriber with this number.
#[must_use]
pub fn subscriber(pair: &str, number: u32) -> MemberName {
    MemberName::new(format!("{pair}-s{number}"))
        .expect("a pair's name is at most 40 characters of a DNS label")
}

/// Number of a voter of `pair`; `None` for other names.
#[must_use]
pub fn voter_number(pair: &str, member: &str) -> Option<u32> {
    member.strip_prefix(pair)?.strip_prefix('-')?.parse().ok()
}

/// Number of a subscriber of `pair`; `None` for other names.
#[must_use]
pub fn subscriber_number(pair: &str, member: &str) -> Option<u32> {
    member.strip_prefix(pair)?.strip_prefix("-s")?.parse().ok()
}

/// The Lease that holds the authority record.
#[must_use]
pub fn lease(pair: &str) -> String {
    format!("{pair}{}", names::LEASE_SUFFIX)
}

/// The headless Service that names every member.
#[must_use]
pub fn members_service(pair: &str) -> String {
    format!("{pair}{}", names::MEMBERS_SUFFIX)
}

/// The volume of checkpoints.
#[must_use]
pub fn data_volume(member: &MemberName) -> String {
    format!("{member}-data")
}

/// The volume of the transaction log.
#[must_use]
pub fn log_volume(member: &MemberName) -> String {
    format!("{member}-log")
}

/// The member's certificate.
#[must_use]
pub fn member_tls_secret(member: &MemberName) -> String {
    format!("{member}-tls")
}

/// The operator's certificate for this pair.
#[must_use]
pub fn operator_tls_secret(pair: &str) -> String {
    format!("{pair}-operator-tls")
}

/// The certificate authority that the operator made.
#[must_use]
pub fn ca_secret(pair: &str) -> String {
    format!("{pair}-ca")
}

/// The administrator's password.
#[must_use]
pub fn admin_secret(pair: &str) -> String {
    format!("{pair}-admin")
}

/// The application's password and connection strings.
#[must_use]
pub fn app_secret(pair: &str) -> String {
    format!("{pair}-app")
}

/// ServiceAccount, Role and RoleBinding of the voters.
#[must_use]
pub fn voter_account(pair: &str) -> String {
    format!("{pair}-voter")
}

/// ServiceAccount, Role and RoleBinding of the subscribers.
#[must_use]
pub fn subscriber_account(pair: &str) -> String {
    format!("{pair}-subscriber")
}

/// Services that select by role: suffix and the value of the role label; `None` selects any member.
pub const ROLE_SERVICES: [(&str, Option<&str>); 4] = [
    ("-active", Some("active")),
    ("-standby", Some("standby")),
    ("-subscribers", Some("subscriber")),
    ("-any", None),
];

/// Value of the kind label of voters.
pub const KIND_VOTER: &str = "voter";
/// Value of the kind label of subscribers.
pub const KIND_SUBSCRIBER: &str = "subscriber";
/// Value of `app.kubernetes.io/managed-by`, and the field manager of everything applied.
pub const MANAGER: &str = "understudy-operator";
/// Annotation with the hash of what was applied.
pub const ANNOTATION_APPLIED: &str = "understudy.dev/applied";
/// Annotation on pods: hash of what a change of needs a new pod for.
pub const ANNOTATION_TEMPLATE: &str = "understudy.dev/template";
/// Annotation on volumes: the database in it, once known.
pub const ANNOTATION_DBID: &str = "understudy.dev/dbid";
/// Finalizer on pairs: their members end in order, while what they need is still there.
pub const FINALIZER_MEMBERS: &str = "understudy.dev/members";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_from_names() {
        assert_eq!(voter_number("orders", voter("orders", 12).as_str()), Some(12));
        assert_eq!(subscriber_number("orders", subscriber("orders", 3).as_str()), Some(3));
        assert_eq!(voter_number("orders", "orders-s3"), None);
        assert_eq!(voter_number("orders", "orders-1-2"), None);
    }
}
