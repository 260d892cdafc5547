//! The quick rows: everything safe and live with every rule in force, and no rule that can be missed.

use understudy_model::{
    model::{Bounds, Model},
    rows::{self, Check, Row, Subject, When},
    rules::Rule,
    run::{Outcome, run},
    state::Name,
};

/// Runs the rows that are tested and of this kind, prints them, and gives what is not as it must be.
fn objections(is_of_kind: impl Fn(&Check) -> bool) -> Vec<String> {
    let chosen = rows::all().into_iter().filter(|row| row.when == When::Always);
    let chosen: Vec<Row> = chosen.filter(|row| is_of_kind(&row.check)).collect();
    assert!(!chosen.is_empty(), "there is something to test");
    chosen
        .iter()
        .filter_map(|row| tell(row).objection.map(|why| format!("{}: {why}", row.name)))
        .collect()
}

fn tell(row: &Row) -> Outcome {
    let outcome = run(row).expect("rows name properties that exist");
    println!("{} {}: {outcome}", row.name, row.subject.bounds());
    for line in &outcome.story {
        println!("  {line}");
    }
    outcome
}

fn row(name: &str) -> Row {
    rows::all().into_iter().find(|row| row.name == name).expect("there is such a row")
}

/// The count is the model's fingerprint: whoever changes it on purpose writes the new one here.
#[test]
fn with_every_rule_nothing_breaks() {
    let outcome = tell(&row("all-rules"));
    assert_eq!(outcome.objection, None);
    assert_eq!(outcome.states, 8_622_808);
}

#[test]
fn smaller_rows_are_safe_too() {
    check_counts(&[
        ("restored-lease", 2_063_762),
        ("loss-waiver", 177_520),
        ("recreated-waiver", 1_300_537),
        ("dead-grants-two-epochs", 825_642),
        ("api-outage", 8_088),
    ]);
}

#[test]
fn a_hand_over_is_safe_and_so_is_async_within_its_lag() {
    check_counts(&[("hand-over", 2_098_684), ("async-no-crash", 1_522_738)]);
}

#[test]
fn there_is_never_a_second_database() {
    check_counts(&[("beginning", 400_692), ("beginning-lease-deleted", 178_712)]);
}

fn check_counts(expected: &[(&str, usize)]) {
    let mut wrong = Vec::new();
    for (name, states) in expected {
        let outcome = tell(&row(name));
        wrong.extend(outcome.objection.map(|why| format!("{name}: {why}")));
        if outcome.states != *states {
            wrong.push(format!("{name}: {} states, not {states}", outcome.states));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_tested_row_that_is_safe_has_its_count() {
    let is_safe = |row: &Row| matches!(row.check, Check::Safe(_)) && row.when == When::Always;
    assert_eq!(rows::all().iter().filter(|row| is_safe(row)).count(), 10, "name it above");
}

#[test]
fn no_rule_about_authority_or_commits_can_be_missed() {
    let wrong = objections(|check| matches!(check, Check::Breaks(_)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_rule_about_liveness_can_be_missed() {
    let wrong = objections(|check| matches!(check, Check::Sticks(_)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn somebody_can_always_serve_again() {
    let wrong = objections(|check| matches!(check, Check::Live(_)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_missing_rule_that_breaks_nothing_is_a_failure() {
    let without_commits = Bounds { commits: 0, crashes: 0, ..Bounds::SMALL };
    let model = Model::new(without_commits).without(&[Rule::SyncNamesIncarnation]);
    let row = Row { subject: Subject::Pair(model), ..row("sync-without-incarnation") };
    assert!(run(&row).unwrap().objection.is_some(), "nothing is lost where nothing is committed");
}

#[test]
fn a_row_that_never_fails_over_is_a_failure() {
    let only_one_epoch = Bounds { epochs: 1, crashes: 0, ..Bounds::SMALL };
    let row = Row { subject: Subject::Pair(Model::new(only_one_epoch)), ..row("all-rules") };
    assert!(run(&row).unwrap().objection.is_some(), "without a second epoch B never serves");
}

#[test]
fn a_liveness_row_that_judges_no_state_is_a_failure() {
    let only_one_epoch = Bounds { epochs: 1, crashes: 0, ..Bounds::SMALL };
    let row = Row { subject: Subject::Pair(Model::new(only_one_epoch)), ..row("live-two-epochs") };
    assert!(run(&row).unwrap().objection.is_some(), "no epoch is below the bound");
}

#[test]
fn a_story_says_who_serves() {
    let outcome = tell(&row("clock-stands-still"));
    let both_serve =
        |line: &&String| Name::ALL.iter().all(|name| line.contains(&format!("{name:?} serves")));
    assert_eq!(outcome.story.iter().filter(both_serve).count(), 1, "{:#?}", outcome.story);
}
