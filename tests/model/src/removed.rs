//! Rules taken away, one at a time: each row must find that its property fails, or that somebody sticks.
//! A row that finds nothing is a failure of the test, for then nothing says that the rule is needed.

use crate::{
    model::{ApiFault, Bounds, DurableCommit, Model, Releases, Scenario, WriteWording},
    properties::{
        HOLDER_HAS_ACKNOWLEDGED, LOSS_WITHIN_LAG, NO_GAP, NO_NEEDLESS_FAILOVER,
        NOTHING_READ_VANISHES, ONE_AUTHORITY,
    },
    rows::{
        BOTH, Check, DEAD_DATA_PATH, NO_ANSWER, NO_FAULT, Row, api_outage, forgetting,
        handing_over, lagging, non_durable, under, waived, waived_after_recreation,
    },
    rules::Rule,
    state::Name,
};

const SMALL: Bounds = Bounds::SMALL;
const NO_CRASH: Bounds = Bounds { crashes: 0, ..SMALL };
const FAIL_BACK_NO_CRASH: Bounds = Bounds { crashes: 0, ..Bounds::FAIL_BACK };
const REPLACED: Bounds = Bounds { replacements: 1, ..SMALL };
const RESTORED: Bounds = Bounds { restores: 1, ..NO_CRASH };

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = of_authority();
    rows.extend(of_commits());
    rows.extend(of_hand_overs_and_grants());
    rows.extend(of_lag());
    rows.extend(of_liveness());
    rows
}

fn breaks(name: &'static str, model: Model, rules: &[Rule], property: &'static str) -> Row {
    let what = rules.first().map_or("", |rule| rule.without().1);
    Row::on_demand(name, what, model, Check::Breaks(property)).without(rules).always()
}

fn sticks(name: &'static str, model: Model, rules: &[Rule]) -> Row {
    let what = rules.first().map_or("", |rule| rule.without().1);
    Row::on_demand(name, what, model, Check::Sticks(BOTH)).without(rules).always()
}

fn of_authority() -> Vec<Row> {
    let breaks_authority =
        |name, bounds, rules: &[Rule]| breaks(name, Model::new(bounds), rules, ONE_AUTHORITY);
    vec![
        breaks_authority("operator-acquires", NO_CRASH, &[Rule::OnlyTheCandidateAcquires]),
        breaks_authority(
            "candidate-grants-on",
            NO_CRASH,
            &[Rule::CandidateStopsGranting, Rule::CandidateWaitsForItsGrants],
        ),
        breaks_authority("grants-not-waited-for", NO_CRASH, &[Rule::CandidateWaitsForItsGrants]),
        breaks_authority("grant-from-receipt", NO_CRASH, &[Rule::GrantCountsFromSending]),
        breaks("no-blackout", waived(SMALL), &[Rule::Blackout], ONE_AUTHORITY),
        breaks_authority(
            "replacement-unpromised",
            Bounds { crashes: 0, ..REPLACED },
            &[Rule::PromiseForReplacement],
        ),
        breaks_authority("promise-in-blackout", REPLACED, &[Rule::BlackoutBeforePromise]),
        breaks_authority("refusal-at-activation", FAIL_BACK_NO_CRASH, &[Rule::RefuseFromPromise]),
        breaks_authority(
            "clock-stands-still",
            Bounds { frozen_ticks: 1, ..NO_CRASH },
            &[Rule::ClockRate],
        ),
    ]
}

fn of_commits() -> Vec<Row> {
    let loses = |name, model, rules: &[Rule]| breaks(name, model, rules, HOLDER_HAS_ACKNOWLEDGED);
    let non_durable_holder =
        Model { durable_commit: DurableCommit::Off, ..Model::new(Bounds::SMALL) };
    vec![
        loses("sync-without-incarnation", Model::new(SMALL), &[Rule::SyncNamesIncarnation]),
        loses("promise-from-memory", Model::new(Bounds::FAIL_BACK), &[Rule::FsyncBeforePromise]),
        loses("solo-by-reading", Model::new(FAIL_BACK_NO_CRASH), &[Rule::ReadingNeverSetsSolo]),
        loses("solo-unconfirmed", Model::new(NO_CRASH), &[Rule::SoloOnlyConfirmed]),
        loses("sync-while-alone", Model::new(FAIL_BACK_NO_CRASH), &[Rule::StopAloneBeforeSync]),
        loses("active-by-reading", Model::new(FAIL_BACK_NO_CRASH), &[Rule::ReadingNeverActivates]),
        loses("short-holder-alone", non_durable_holder, &[Rule::HolderAloneOnlyIfComplete]),
        loses("memory-while-in-doubt", non_durable(SMALL), &[Rule::MemoryOnlyWhileSyncConfirmed]),
        loses("solo-from-memory", non_durable(SMALL), &[Rule::FsyncBeforeSolo]),
        breaks(
            "standby-shows-applied",
            Model::new(SMALL),
            &[Rule::StandbyShowsAcknowledged],
            NOTHING_READ_VANISHES,
        ),
        loses("older-lease-believed", Model::new(RESTORED), &[Rule::NothingBelowSeen]),
        loses(
            "recreated-for-anybody",
            Model::new(Bounds { epochs: 3, ..RESTORED }),
            &[Rule::RecreationNamesTheActive],
        ),
    ]
}

fn of_hand_overs_and_grants() -> Vec<Row> {
    let breaks_authority = |name, model, rule| breaks(name, model, &[rule], ONE_AUTHORITY);
    let forgotten = forgetting(waived(SMALL));
    vec![
        breaks_authority(
            "serves-after-sending",
            handing_over(NO_CRASH),
            Rule::ServesNoMoreOnceSent,
        ),
        breaks_authority("undo-after-sending", handing_over(NO_CRASH), Rule::NoUndoOnceSent),
        breaks_authority("receiver-forgotten", forgotten.clone(), Rule::ForgetOnlyTheDead),
        breaks_authority("forgotten-early", forgotten, Rule::ForgetOnlyWhenAcquiring),
        breaks_authority(
            "recreation-voids-grants",
            waived_after_recreation(),
            Rule::RecreationIsNoRelease,
        ),
    ]
}

fn of_lag() -> Vec<Row> {
    let two = Bounds { commits: 2, ..NO_CRASH };
    let loses = |name, bounds, rule| breaks(name, lagging(bounds), &[rule], LOSS_WITHIN_LAG);
    vec![
        loses("lag-unrecorded", two, Rule::AloneBeforeLag),
        loses("async-solo-unconfirmed", two, Rule::SoloOnlyConfirmed),
        loses("async-sync-while-alone", Bounds { commits: 3, ..two }, Rule::StopAloneBeforeSync)
            .on_request(),
        loses("async-recorded-far", Bounds { commits: 3, ..two }, Rule::NearBeforeSync),
    ]
}

fn of_liveness() -> Vec<Row> {
    let cut_off = Scenario { deaf: Some(Name::A), api: ApiFault::AwayFromA, ..NO_FAULT };
    let lease_only = Model { write_wording: WriteWording::LeaseAuthority, ..api_outage() };
    let dead_data_path = Model { releases: Releases::Never, ..under(DEAD_DATA_PATH) };
    let no_release = Model { releases: Releases::Never, ..under(NO_ANSWER) };
    vec![
        sticks("heartbeat-without-serving", under(cut_off), &[Rule::HeartbeatSaysServing]),
        sticks("writes-without-authority", no_release, &[Rule::WriteOnlyWithAuthority]),
        sticks("dead-data-path-goes-on", dead_data_path, &[Rule::LogProbe]),
        breaks("no-heartbeat-clause", api_outage(), &[Rule::HeartbeatClause], NO_GAP),
        breaks(
            "no-heartbeat-clause-failover",
            api_outage(),
            &[Rule::HeartbeatClause],
            NO_NEEDLESS_FAILOVER,
        ),
        breaks("lease-writes-no-clause", lease_only, &[Rule::HeartbeatClause], NO_GAP),
    ]
}
