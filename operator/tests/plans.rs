//! Golden scripts of planning: each file in `plans/` tells a story in observations and shows the plan.
//! `UPDATE_GOLDENFILES=1 cargo test -p understudy-operator --test plans` writes them anew; a difference
//! is reviewed like code. Every plan is also checked against the laws of planning, and made twice.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

#[path = "world/mod.rs"]
mod world;

use std::path::Path;
use world::World;

fn run(script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(script);
    goldenscript::run(&mut World::default(), path).unwrap();
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_script_in_the_directory_is_run() {
            let listed = [$(stringify!($name)),*];
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
            for entry in std::fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(listed.contains(&name.as_str()), "{name} is not listed in plans.rs");
            }
        }
    };
}

scripts! {
    a_new_pair_is_initialised_by_exactly_one_member,
    a_standby_is_built_and_catches_up,
    the_active_dies_and_the_standby_takes_over,
    the_active_falls_silent,
    the_active_dies_while_alone,
    a_person_decides_on_failovers,
    a_node_does_not_come_back,
    both_members_are_down,
    the_standby_is_lost,
    a_lost_volume_makes_a_new_member,
    subscribers_follow_the_number_asked_for,
    a_changed_spec_is_rolled_out_one_pod_at_a_time,
    a_paused_pair_is_left_alone,
    a_lease_that_cannot_be_trusted,
    kept_volumes_are_adopted,
    no_return_is_normal_and_never_promoted,
    the_active_hands_over,
    what_the_status_says,
    situations_of_three_in_the_morning,
}
