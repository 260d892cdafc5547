//! Transactions told without being applied: what a person reads of a trapped tail.

use crate::database::{Database, row};
use understudy_store::{Isolation, Story, Told};

/// The payloads after the fork, of a store that went on alone; the other store has everything below.
fn fork() -> (Database, Database, usize) {
    let (alone, other) = (Database::filled(3), Database::filled(3));
    let below = alone.log.lock().len();
    (alone, other, below)
}

type Seen = (&'static str, Option<(i64, i64)>, Option<(i64, i64)>);

fn values(told: &Told) -> Seen {
    let pair = crate::database::pair;
    match told {
        Told::Inserted { row, .. } => ("inserted", None, Some(pair(row))),
        Told::Updated { old, new, .. } => ("updated", old.as_ref().map(pair), Some(pair(new))),
        Told::Deleted { old, .. } => ("deleted", old.as_ref().map(pair), None),
        Told::Defined(_) => ("defined", None, None),
        Told::Unknown => ("unknown", None, None),
    }
}

#[test]
fn a_tail_tells_what_came_changed_and_went() {
    let (alone, other, below) = fork();
    let mut txn = alone.begin();
    alone.insert(&mut txn, 9, 900).unwrap();
    alone.commit(txn).unwrap();
    let mut txn = alone.begin();
    alone.set(&mut txn, 1, 111).unwrap();
    alone.remove(&mut txn, 9).unwrap();
    alone.commit(txn).unwrap();

    let mut story = Story::beside(&other.store);
    let log = alone.log.lock();
    let told: Vec<Told> =
        log[below..].iter().flat_map(|(_, payload)| story.tell(payload).unwrap()).collect();
    let seen: Vec<_> = told.iter().map(values).collect();
    assert_eq!(
        seen,
        [
            ("inserted", None, Some((9, 900))),
            ("updated", Some((1, 100)), Some((1, 111))),
            ("deleted", Some((9, 900)), None),
        ]
    );
}

#[test]
fn a_definition_is_told_in_words_and_its_rows_are_known() {
    let (alone, other, below) = fork();
    let mut txn = alone.store.begin(Isolation::ReadCommitted);
    let mut table = crate::database::pairs();
    table.name = "later".to_owned();
    for index in &mut table.indexes {
        index.name = format!("later_{}", index.name);
    }
    let table = alone.store.create_table(&mut txn, table).unwrap();
    alone.store.insert(&mut txn, table, row(5, 50)).unwrap();
    alone.commit(txn).unwrap();
    let log = alone.log.lock();
    let told = Story::beside(&other.store).tell(&log[below].1).unwrap();
    assert_eq!(told[0], Told::Defined("CREATE TABLE public.later".to_owned()));
    assert_eq!(values(&told[1]), ("inserted", None, Some((5, 50))));
}

#[test]
fn garbage_is_an_error() {
    let other = Database::filled(1);
    assert!(Story::beside(&other.store).tell(b"no payload").is_err());
}
