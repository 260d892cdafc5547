//! The rows of a beginning, and what must never happen in one.

use super::{
    Bounds, Model,
    state::{Lease, Naming, State},
};
use crate::{
    rows::{BOTH, Check, Row},
    rules::Rule,
};
use stateright::Property;

/// U1.
pub const NEVER_ANOTHER: &str = "U1 the Lease never names a second database";
/// U2.
pub const ONE_DATABASE: &str = "U2 the holder's store has the database that the Lease names";
const BY_ANOTHER_STORE: &str = "V1 a store makes the database after another was named";
const AFTER_A_CRASH: &str = "V2 a store makes the database that an earlier process had begun";

pub(super) fn properties() -> Vec<Property<Model>> {
    vec![
        Property::always(NEVER_ANOTHER, |_: &Model, state: &State| state.held.count_ones() <= 1),
        Property::always(ONE_DATABASE, holder_has_the_database),
        Property::sometimes(BY_ANOTHER_STORE, |_: &Model, state: &State| {
            let others = state.members.iter().filter(|member| member.dbid.is_some()).count();
            state.held_now().is_some() && others == 2
        }),
        Property::sometimes(AFTER_A_CRASH, |_: &Model, state: &State| {
            let is_first = state.held_now() == Some(1);
            is_first && state.namings == 2 && state.crashes == 1 && state.next_dbid == 2
        }),
    ]
}

fn holder_has_the_database(_: &Model, state: &State) -> bool {
    match state.lease {
        Some(Lease { naming: Naming::Held(by), dbid }) => {
            let holder = &state.members[by.name];
            holder.store != by.store || holder.dbid == dbid
        }
        Some(_) | None => true,
    }
}

const SMALL: Bounds = Bounds { crashes: 1, volumes: 0, silences: 1, deletions: 0, namings: 3 };

pub(crate) fn rows() -> Vec<Row> {
    let seen = Check::Safe(&[BY_ANOTHER_STORE, AFTER_A_CRASH]);
    let middle = Bounds { volumes: 1, ..SMALL };
    let wide = Bounds { crashes: 2, silences: 2, ..middle };
    let deleted = Bounds { deletions: 1, ..SMALL };
    let breaks = |name, bounds, rules: &[Rule], property| {
        let what = rules.first().map_or("", |rule| rule.without().1);
        let model = Model::new(bounds);
        Row::of_beginning(name, what, model, Check::Breaks(property)).without(rules)
    };
    vec![
        Row::of_beginning("beginning", "bootstrap (R20)", Model::new(middle), seen),
        Row::of_beginning(
            "beginning-two-crashes",
            "the same with two crashes and two silences",
            Model::new(wide),
            seen,
        )
        .on_request(),
        Row::of_beginning(
            "beginning-lease-deleted",
            "the same, the Lease deleted once the database is noted",
            Model::new(deleted),
            seen,
        ),
        Row::of_beginning(
            "live-beginning",
            "bootstrap: there can always be a database",
            Model::new(middle),
            Check::Live(BOTH),
        ),
        breaks("named-anyway", SMALL, &[Rule::NamedOnTheJudgedVersion], NEVER_ANOTHER),
        breaks("taken-anyway", SMALL, &[Rule::TakenOnTheNamingVersion], NEVER_ANOTHER),
        breaks(
            "created-again",
            deleted,
            &[Rule::CreatedOnlyOnce, Rule::NamedOnlyOnce],
            NEVER_ANOTHER,
        ),
        breaks("named-again", deleted, &[Rule::NamedOnlyOnce], NEVER_ANOTHER),
        breaks("deleted-before-noted", deleted, &[Rule::NotedBeforeDeletion], NEVER_ANOTHER),
        breaks("database-at-each-attempt", SMALL, &[Rule::DirectoryKeepsItsDatabase], ONE_DATABASE),
        Row::of_beginning(
            "only-empty-stores-named",
            Rule::NamedAgainWithDatabase.without().1,
            Model::new(SMALL),
            Check::Sticks(BOTH),
        )
        .without(&[Rule::NamedAgainWithDatabase]),
    ]
}
