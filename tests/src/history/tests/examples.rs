//! One small history for each anomaly; each is clean at the level that allows it.

use super::{aborted, during, last, txn, unknown};
use crate::history::{
    Kind, Level,
    Level::{ReadCommitted, Serializable, Snapshot},
    Order, Transaction, Verdict, check, read, write,
};

fn kinds(verdict: &Verdict) -> Vec<Kind> {
    verdict.counts.keys().copied().collect()
}

/// What is found at a level, time aside. Every count is told, and nothing is lost.
fn found(history: &[Transaction], level: Level) -> Vec<Kind> {
    let verdict = check(history, level, Order::Any);
    assert_eq!(verdict.lost, [], "{verdict:#?}");
    assert_eq!(verdict.anomalies.len() as u64, verdict.counts.values().sum::<u64>());
    kinds(&verdict)
}

#[test]
fn a_clean_history_is_clean_at_every_level() {
    let history = [
        during(0, 9, txn("a1:1 r2:")),
        during(10, 19, txn("r1:1 a1:2 r1:1,2 a2:3")),
        during(20, 29, txn("r2:3 r1:1,2 r1:1,2")),
        during(20, 29, aborted("r1:1 a1:4")),
        during(20, 29, unknown("a1:5")),
        last("r1:1,2 r2:3"),
    ];
    for level in [ReadCommitted, Snapshot, Serializable] {
        for order in [Order::Any, Order::RealTime] {
            let verdict = check(&history, level, order);
            assert!(verdict.is_clean(), "{level:?} {order:?}: {verdict:#?}");
        }
    }
}

#[test]
fn g0_is_two_lists_written_in_opposite_orders() {
    let history = [txn("a1:10 a2:10"), txn("a1:11 a2:11"), last("r1:10,11 r2:11,10")];
    assert_eq!(found(&history, ReadCommitted), [Kind::G0]);
    let verdict = check(&history, ReadCommitted, Order::Any);
    assert_eq!(verdict.anomalies[0].transactions, [0, 1]);
    let told = &verdict.anomalies[0].told;
    assert!(told.starts_with(
        "T0 appended 10 to list 1 right before T1 appended 11; \
         T1 appended 11 to list 2 right before T0 appended 10 | T0 (session 0, "
    ));
}

#[test]
fn g1a_is_a_read_of_what_was_aborted() {
    let history = [aborted("a1:1"), txn("r1:1")];
    assert_eq!(found(&history, ReadCommitted), [Kind::G1a]);
    assert_eq!(found(&[aborted("a1:1"), aborted("r1:1"), txn("r1:")], Serializable), []);
}

#[test]
fn g1b_is_a_read_in_the_midst_of_a_transaction() {
    let history = [txn("a1:1 a1:2"), txn("r1:1"), last("r1:1,2")];
    assert_eq!(found(&history, ReadCommitted), [Kind::G1b]);
}

#[test]
fn g1c_is_two_transactions_that_read_each_other() {
    let history = [txn("a1:1 r2:2"), txn("a2:2 r1:1")];
    assert_eq!(found(&history, ReadCommitted), [Kind::G1c]);
}

#[test]
fn g_single_is_a_snapshot_that_moved_between_two_lists() {
    let history = [txn("r1: r2:5"), txn("a1:4 a2:5"), last("r1:4 r2:5")];
    assert_eq!(found(&history, ReadCommitted), []);
    assert_eq!(found(&history, Snapshot), [Kind::GSingle]);
    assert_eq!(found(&history, Serializable), [Kind::GSingle]);
}

#[test]
fn g_nonadjacent_is_two_observers_who_disagree() {
    let history = [
        txn("r1: r4:4"),
        txn("a1:1 a2:2"),
        txn("r2:2 r3:"),
        txn("a3:3 a4:4"),
        last("r1:1 r2:2 r3:3 r4:4"),
    ];
    assert_eq!(found(&history, ReadCommitted), []);
    assert_eq!(found(&history, Snapshot), [Kind::GNonadjacent]);
    assert_eq!(found(&history, Serializable), [Kind::GNonadjacent]);
}

#[test]
fn g2_is_write_skew_and_snapshots_allow_it() {
    let history = [txn("r1: a2:1"), txn("r2: a1:2"), last("r1:2 r2:1")];
    assert_eq!(found(&history, Snapshot), []);
    assert_eq!(found(&history, Serializable), [Kind::G2Item]);
}

#[test]
fn lost_update_is_two_who_append_to_the_same_state() {
    let history = [txn("r1: a1:1"), txn("r1: a1:2"), last("r1:1,2")];
    assert_eq!(found(&history, ReadCommitted), []);
    assert_eq!(found(&history, Snapshot), [Kind::GSingle, Kind::LostUpdate]);
    let only_one_read_first = [txn("a1:1 r1:1"), txn("r1: a1:2"), last("r1:1,2")];
    assert_eq!(found(&only_one_read_first, Snapshot), [Kind::GSingle]);
    let one_after_the_other = [txn("r1: a1:1"), txn("r1:1 a1:2"), last("r1:1,2")];
    assert_eq!(found(&one_after_the_other, Serializable), []);
}

#[test]
fn orders_are_incompatible_when_no_read_is_the_beginning_of_the_other() {
    let writes = [txn("a1:1"), txn("a1:2")];
    let reads = [txn("r1:1,2"), txn("r1:2")];
    assert_eq!(found(&[writes, reads].concat(), ReadCommitted), [Kind::IncompatibleOrders]);
}

#[test]
fn a_value_twice_in_a_list_is_found() {
    assert_eq!(found(&[txn("a1:1"), txn("r1:1,1")], ReadCommitted), [Kind::DuplicateElements]);
}

#[test]
fn a_value_from_nowhere_is_found() {
    assert_eq!(found(&[txn("a1:1"), txn("r1:1,9")], ReadCommitted), [Kind::Garbage]);
    assert_eq!(found(&[txn("a2:9"), txn("r1:9")], ReadCommitted), [Kind::Garbage]);
}

#[test]
fn a_history_with_a_value_appended_twice_is_refused() {
    assert_eq!(found(&[txn("a1:1"), txn("a1:1")], ReadCommitted), [Kind::AmbiguousHistory]);
    assert_eq!(found(&[txn("a1:1 a1:1")], ReadCommitted), [Kind::AmbiguousHistory]);
    assert_eq!(found(&[txn("a1:1"), txn("a2:1")], ReadCommitted), []);
}

#[test]
fn a_transaction_must_see_its_own_appends_once_made() {
    for history in ["a1:1 r1:", "a1:1 a1:2 r1:1", "r1:1 a1:1", "a1:1 a1:2 r1:2,1"] {
        assert_eq!(found(&[txn(history)], ReadCommitted), [Kind::Internal], "{history}");
    }
}

#[test]
fn a_snapshot_does_not_move_within_a_transaction() {
    let history = [txn("a1:1"), txn("r1: r1:1")];
    assert_eq!(found(&history, ReadCommitted), []);
    assert_eq!(found(&history, Snapshot), [Kind::GSingle, Kind::Internal]);
    let with_own = [txn("a1:1"), txn("r1: a1:2 r1:1,2")];
    assert_eq!(found(&with_own, ReadCommitted), []);
    assert_eq!(found(&with_own, Snapshot), [Kind::GSingle, Kind::Internal]);
}

#[test]
fn an_acknowledged_append_that_is_not_there_at_the_end_is_lost() {
    let history = [txn("a1:1"), txn("a1:2"), aborted("a1:3"), unknown("a1:4"), last("r1:2 r2:")];
    let verdict = check(&history, ReadCommitted, Order::Any);
    assert_eq!(kinds(&verdict), []);
    let lost: Vec<_> = verdict.lost.iter().map(|l| (l.key, l.value, l.transaction)).collect();
    assert_eq!(lost, [(1, 1, 0)]);
    assert!(verdict.lost[0].is_acknowledged && !verdict.is_clean());
}

#[test]
fn an_append_that_was_seen_before_is_lost_all_the_same() {
    let history = [txn("a1:1"), txn("r1:1"), last("r1:")];
    assert_eq!(check(&history, ReadCommitted, Order::Any).lost.len(), 1);
}

#[test]
fn an_unknown_transaction_has_happened_when_a_part_of_it_is_seen() {
    let half = [unknown("a1:1 a2:2"), last("r1:1 r2:")];
    let verdict = check(&half, ReadCommitted, Order::Any);
    assert_eq!((verdict.lost.len(), verdict.unknown_committed), (1, 1));
    assert!(!verdict.lost[0].is_acknowledged);
    // Seen by one who is himself only known by what another saw.
    let chain = [unknown("a1:1 r2:2"), unknown("a2:2 r1:1 a3:3"), txn("r3:3")];
    assert_eq!(found(&chain, ReadCommitted), [Kind::G1c]);
    let unseen = [unknown("a1:1 r2:2"), unknown("a2:2 r1:1 a3:3"), txn("r3:")];
    assert_eq!(found(&unseen, ReadCommitted), []);
}

#[test]
fn what_was_acknowledged_is_seen_by_all_who_begin_later() {
    let history = [during(0, 10, txn("a1:1")), during(20, 30, txn("r1:")), last("r1:1")];
    assert_eq!(found(&history, Serializable), []);
    let strict = |history: &[_], level| kinds(&check(history, level, Order::RealTime));
    assert_eq!(strict(&history, ReadCommitted), [Kind::StaleRead]);
    assert_eq!(strict(&history, Snapshot), [Kind::RealTime, Kind::StaleRead]);
    assert_eq!(strict(&history, Serializable), [Kind::RealTime, Kind::StaleRead]);
    // While they overlap, or while nobody knows when it took effect, either order is right.
    let overlap = [during(0, 20, txn("a1:1")), during(20, 30, txn("r1:")), last("r1:1")];
    assert_eq!(strict(&overlap, Serializable), []);
    let unsure = [during(0, 10, unknown("a1:1")), during(20, 30, txn("r1:")), last("r1:1")];
    assert_eq!(strict(&unsure, Serializable), []);
}

#[test]
fn time_closes_circles_over_many_moments() {
    // The shortest circle has two transactions and forty moments between them; another one goes by
    // the third transaction and two moments.
    let mut history = vec![during(0, 10, txn("r1:1")), during(900, 910, txn("a1:1 r3:1"))];
    history.extend((1..40).map(|n| during(n * 20, n * 20 + 10, txn(&format!("a2:{n}")))));
    history[2].operations.push(super::operation("a3:1"));
    let all: Vec<String> = (1..40).map(|n| n.to_string()).collect();
    history.push(last(&format!("r1:1 r2:{} r3:1", all.join(","))));
    let verdict = check(&history, ReadCommitted, Order::RealTime);
    assert_eq!(kinds(&verdict), [Kind::RealTime]);
    assert_eq!(verdict.anomalies[0].transactions, [0, 1], "{verdict:#?}");
    let told = &verdict.anomalies[0].told;
    assert!(told.starts_with("T0 was acknowledged before T1 began; T0 read 1 in list 1"), "{told}");
}

#[test]
fn the_shortest_circle_of_a_knot_is_told() {
    // Ten in a circle of wr, and a shortcut from the fourth to the first.
    let mut history: Vec<_> =
        (0..10).map(|n| txn(&format!("a{n}:1 r{}:1", (n + 9) % 10))).collect();
    history[0].operations.push(super::operation("r3:1"));
    let verdict = check(&history, ReadCommitted, Order::Any);
    assert_eq!(kinds(&verdict), [Kind::G1c]);
    let mut places = verdict.anomalies[0].transactions.clone();
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3]);
}

#[test]
fn every_knot_counts_and_eight_are_told() {
    let skews = (0..20u32).flat_map(|n| {
        let (a, b) = (2 * n, 2 * n + 1);
        [
            txn(&format!("r{a}: a{b}:1")),
            txn(&format!("r{b}: a{a}:2")),
            txn(&format!("r{a}:2 r{b}:1")),
        ]
    });
    let verdict = check(&skews.collect::<Vec<_>>(), Serializable, Order::Any);
    assert_eq!(verdict.counts.get(&Kind::G2Item), Some(&20));
    assert_eq!(verdict.anomalies.len(), 8);
}

#[test]
fn a_long_chain_does_not_exhaust_the_stack() {
    // One list's writers, a hundred thousand in a row, and the last is read by the first.
    let count: u32 = 100_000;
    let mut history: Vec<_> = (1..count).map(|n| txn(&format!("r{}:1 a{n}:1", n - 1))).collect();
    history.push(txn(&format!("a0:1 r{}:1", count - 1)));
    let verdict = check(&history, Serializable, Order::Any);
    assert_eq!(kinds(&verdict), [Kind::G1c]);
    assert_eq!(verdict.anomalies[0].transactions.len(), count as usize);
    history.pop();
    history.push(txn("a0:1"));
    assert!(check(&history, Serializable, Order::Any).is_clean());
}

#[test]
fn a_history_survives_its_file() {
    let history = vec![txn("a1:1 r2:"), aborted("r1:1,2"), unknown("a2:3"), last("r1:1 r2:")];
    let mut file = Vec::new();
    write(&history, &mut file).unwrap();
    assert_eq!(read(&file[..]).unwrap(), history);
    let line = String::from_utf8(file).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(
        line,
        r#"{"process":0,"begun_ns":0,"ended_ns":100,"operations":[{"append":{"key":1,"value":1}},{"read":{"key":2,"values":[]}}],"outcome":"committed"}"#
    );
    let error = read("{}\n".as_bytes()).unwrap_err();
    assert!(format!("{error:#}").starts_with("line 1 is no transaction"), "{error:#}");
}
