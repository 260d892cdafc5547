//! What must hold in every state (P, N), and what must be seen at least once (S), lest a row that
//! allows too little looks safe.

use crate::{
    log::CommitSet,
    model::{ApiFault, Beyond, Model},
    rules::Rule,
    state::{Member, Name, Role, State},
};
use stateright::Property;

/// P1.
pub const ONE_AUTHORITY: &str = "P1 at most one process has authority";
/// P2.
pub const HOLDER_HAS_ACKNOWLEDGED: &str = "P2 the Lease holder's log has every acknowledged commit";
/// P3.
pub const LOGS_MATCH: &str = "P3 logs that share a record share everything before it";
/// P4.
pub const NO_ACQUIRE_OUTSIDE_SYNC: &str = "P4 nobody outside S acquires";
/// P5.
pub const READERS_SEE_ACKNOWLEDGED: &str =
    "P5 whoever answers current reads has every acknowledged commit";
/// P6.
pub const NOTHING_READ_VANISHES: &str = "P6 nothing read on a standby vanishes";
/// P7.
pub const LOSS_WITHIN_LAG: &str =
    "P7 a promotion under async loses no more than maxLag acknowledged commits";
/// N1.
pub const NO_NEEDLESS_FAILOVER: &str = "N1 the API server away and back: the other never acquires";
/// N2.
pub const NO_GAP: &str = "N2 the API server away and back: the holder serves without a gap";

/// Seen at least once in a row that has failover.
pub const SEEN: [&str; 4] = [FAILOVER_SERVED, FAIL_BACK, ALONE, BY_GRANT];
const FAILOVER_SERVED: &str = "S1 B serves after a commit";
const FAIL_BACK: &str = "S2 A serves again after B";
const ALONE: &str = "S3 A acknowledges alone";
/// Seen in a row with hand-overs.
pub const HANDED_OVER: &str = "S5 B serves after a hand-over";
/// Seen in a row under async.
pub const ACKNOWLEDGED_AHEAD: &str = "S6 A acknowledges what B has not received";
const BY_GRANT: &str = "S4 A acknowledges by grant alone, its Lease expired";

pub(crate) fn all() -> Vec<Property<Model>> {
    vec![
        Property::always(ONE_AUTHORITY, at_most_one_process_has_authority),
        Property::always(HOLDER_HAS_ACKNOWLEDGED, holder_has_acknowledged),
        Property::always(LOGS_MATCH, logs_match),
        Property::always(NO_ACQUIRE_OUTSIDE_SYNC, no_acquire_outside_sync),
        Property::always(READERS_SEE_ACKNOWLEDGED, readers_see_acknowledged),
        Property::always(NOTHING_READ_VANISHES, nothing_read_vanishes),
        Property::always(LOSS_WITHIN_LAG, loss_is_within_lag),
        Property::always(NO_NEEDLESS_FAILOVER, no_needless_failover),
        Property::always(NO_GAP, no_gap),
        Property::sometimes(FAILOVER_SERVED, b_serves_after_a_commit),
        Property::sometimes(FAIL_BACK, a_serves_again),
        Property::sometimes(ALONE, a_acknowledges_alone),
        Property::sometimes(BY_GRANT, a_acknowledges_by_grant_alone),
        Property::sometimes(HANDED_OVER, b_serves_after_a_hand_over),
        Property::sometimes(ACKNOWLEDGED_AHEAD, a_acknowledges_ahead),
    ]
}

/// Clocks that stand still break every bound on time: P1 and P5 hold only where rates are bounded.
fn bounds_clock_rates(model: &Model) -> bool {
    model.bounds.frozen_ticks == 0 || !model.keeps(Rule::ClockRate)
}

fn at_most_one_process_has_authority(model: &Model, state: &State) -> bool {
    let members = state.members.iter().filter(|member| member.has_authority()).count();
    let old = state.old_process.is_some_and(|old| old.has_authority());
    !bounds_clock_rates(model) || members + usize::from(old) <= 1
}

/// The active that the Lease names, in the epoch the Lease names, has these commits. A restored Lease
/// names nobody until somebody acquires on it or it is created anew.
fn holder_has(state: &State, commits: CommitSet) -> bool {
    let holder = &state.members[state.lease.holder];
    let is_named = holder.epoch == state.lease.epoch && !state.lease_is_older;
    let serves = holder.role == Role::Active && is_named;
    !serves || holder.log.holds_all(commits)
}

fn holder_has_acknowledged(_: &Model, state: &State) -> bool {
    state.marks.acquired_with_loss || holder_has(state, state.acknowledged)
}

fn logs_match(_: &Model, state: &State) -> bool {
    let [a, b] = state.members.0.map(|member| member.log);
    let same = usize::from(a.common_prefix(&b));
    a.records().zip(b.records()).skip(same).all(|(mine, theirs)| mine != theirs)
}

fn no_acquire_outside_sync(model: &Model, state: &State) -> bool {
    model.beyond == Beyond::Comparison || !state.marks.acquired_outside_sync
}

fn readers_see_acknowledged(model: &Model, state: &State) -> bool {
    let knows = |member: &Member| member.log.holds_all(state.acknowledged);
    !bounds_clock_rates(model)
        || state.marks.acquired_with_loss
        || state.members.iter().filter(|member| member.has_authority()).all(knows)
}

fn nothing_read_vanishes(_: &Model, state: &State) -> bool {
    holder_has(state, state.read_on_standby)
}

fn loss_is_within_lag(_: &Model, state: &State) -> bool {
    !state.marks.lost_beyond_lag
}

/// N1 and N2 speak of an API server that goes away and returns, and of nothing else.
fn is_about_api_outage(model: &Model) -> bool {
    model.scenario.is_some_and(|scenario| scenario.api == ApiFault::AwayFromAll)
        && model.bounds.crashes == 0
}

fn no_needless_failover(model: &Model, state: &State) -> bool {
    !is_about_api_outage(model) || !state.marks.acquired_from_living
}

/// With one tick a heartbeat's period equals T, and nothing can be said.
fn no_gap(model: &Model, state: &State) -> bool {
    !is_about_api_outage(model)
        || model.bounds.ticks < 2
        || state.lease.epoch > 1
        || state.members[Name::A].has_authority()
}

fn b_serves_after_a_commit(_: &Model, state: &State) -> bool {
    state.members[Name::B].has_authority() && has_acknowledged_first(state)
}

fn a_serves_again(_: &Model, state: &State) -> bool {
    let first = &state.members[Name::A];
    first.epoch >= 3 && first.has_authority() && has_acknowledged_first(state)
}

fn a_acknowledges_alone(_: &Model, state: &State) -> bool {
    let first = &state.members[Name::A];
    let acknowledges = first.has_authority() && !state.acknowledged.is_empty();
    acknowledges && first.solo && state.lease.epoch == 1
}

fn a_acknowledges_by_grant_alone(_: &Model, state: &State) -> bool {
    let first = &state.members[Name::A];
    let only_grant = first.lease_ticks == 0 && first.has_authority();
    only_grant && state.lease.ticks == 0 && has_acknowledged_first(state)
}

fn b_serves_after_a_hand_over(_: &Model, state: &State) -> bool {
    let serves = state.members[Name::B].has_authority() && has_acknowledged_first(state);
    serves && state.marks.acquired_by_transfer
}

fn a_acknowledges_ahead(_: &Model, state: &State) -> bool {
    let first = &state.members[Name::A];
    let lacks = !state.members[Name::B].log.holds(1);
    first.has_authority() && !first.solo && lacks && has_acknowledged_first(state)
}

fn has_acknowledged_first(state: &State) -> bool {
    state.acknowledged.contains(1)
}
