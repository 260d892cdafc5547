//! Whatever path the planner takes, the answer is the same: a table with indexes against one without.

#[path = "session/mod.rs"]
mod session;

use proptest::prelude::*;
use session::Database;

/// A row: key, and three columns that are often equal and sometimes null.
type Row = (i32, Option<i32>, Option<i32>, Option<&'static str>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let number = || prop::option::weighted(0.8, -3..4_i32);
    let text = prop::option::weighted(0.8, prop::sample::select(vec!["a", "b", "ab", ""]));
    prop::collection::btree_map(-20..20_i32, (number(), number(), text), 0..25)
        .prop_map(|rows| rows.into_iter().map(|(id, (a, b, c))| (id, a, b, c)).collect())
}

fn operand() -> impl Strategy<Value = String> {
    prop_oneof![
        (-4..5_i32).prop_map(|n| n.to_string()),
        Just("null".to_owned()),
        Just("(select max(a) from plain)".to_owned()),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let column = || prop::sample::select(vec!["id", "a", "b", "a + b"]);
    let op = prop::sample::select(vec!["=", "<", "<=", ">", ">=", "<>"]);
    let leaf = prop_oneof![
        (column(), op, operand()).prop_map(|(c, o, v)| format!("{c} {o} {v}")),
        (column(), prop::collection::vec(-4..5_i32, 1..4)).prop_map(|(c, list)| {
            let list: Vec<String> = list.iter().map(i32::to_string).collect();
            format!("{c} in ({})", list.join(","))
        }),
        (column(), -4..5_i32, -4..5_i32).prop_map(|(c, l, h)| format!("{c} between {l} and {h}")),
        column().prop_map(|c| format!("{c} is null")),
        prop::sample::select(vec![
            "c = 'a'",
            "c > 'a'",
            "c like 'a%'",
            "c <> ''",
            "upper(c) = 'AB'",
            "upper(c) >= 'A'",
            "b is not null",
            "a > 0",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.join(" and ")),
            prop::collection::vec(inner.clone(), 2..3)
                .prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not ({part})")),
        ]
    })
}

fn filled(rows: &[Row]) -> Database {
    let mut database = Database::new();
    let mut run = |sql: &str| database.run("", sql);
    run("create table plain (id int, a int, b int, c text)");
    run("create table indexed (id int primary key, a int, b int, c text)");
    run("create index on indexed (a, b)");
    run("create index on indexed (b)");
    run("create index on indexed (c, a)");
    run("create index on indexed ((a + b))");
    run("create index on indexed (upper(c), b) where a > 0");
    run("create index on indexed (b) where c = 'a'");
    run("create index on indexed (a) where b is not null");
    for (id, a, b, c) in rows {
        let shown = |n: &Option<i32>| n.map_or("null".to_owned(), |n| n.to_string());
        let c = c.map_or("null".to_owned(), |c| format!("'{c}'"));
        for table in ["plain", "indexed"] {
            run(&format!("insert into {table} values ({id}, {}, {}, {c})", shown(a), shown(b)));
        }
    }
    database
}

/// Both answers; anything but rows is a failure of the test itself.
fn both(database: &mut Database, sql: &str) -> (String, String) {
    let answer = |database: &mut Database, table: &str| {
        let answer = database.run("", &sql.replace("TABLE", table));
        assert!(!answer.contains("ERROR"), "{sql}: {answer}");
        answer
    };
    (answer(database, "plain"), answer(database, "indexed"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_index_finds_what_a_scan_finds(rows in rows(), condition in condition()) {
        let mut database = filled(&rows);
        let sql = format!("select * from TABLE where {condition} order by id + 0");
        let (scan, index) = both(&mut database, &sql);
        prop_assert_eq!(scan, index, "{}", sql);
    }

    #[test]
    fn an_index_orders_as_a_sort_does(
        rows in rows(),
        condition in condition(),
        order in prop::sample::select(vec![
            "a, b, id", "a desc, b desc, id desc", "b", "b desc", "id", "id desc", "c, a", "a, b",
            "a + b", "upper(c), b",
        ]),
        limit in 0..6_u32,
    ) {
        let mut database = filled(&rows);
        // Ties are broken by nothing the index knows: only the ordered columns are compared.
        let columns = order.replace(" desc", "");
        let sql = format!(
            "select {columns} from TABLE where {condition} order by {order} limit {limit} offset 1"
        );
        let (scan, index) = both(&mut database, &sql);
        prop_assert_eq!(scan, index, "{}", sql);
    }

    #[test]
    fn a_join_by_index_gives_what_a_loop_gives(rows in rows()) {
        let mut database = filled(&rows);
        let sql = "select l.id, r.id from plain l left join TABLE r on r.a = l.b and r.b >= l.a order by 1, 2";
        let (scan, index) = both(&mut database, sql);
        prop_assert_eq!(scan, index);
    }

    #[test]
    fn a_change_by_index_changes_what_a_scan_changes(rows in rows(), condition in condition()) {
        let mut database = filled(&rows);
        let change = format!("update TABLE set b = coalesce(b, 0) + 1, c = c || 'x' where {condition}");
        let (scan, index) = both(&mut database, &change);
        prop_assert_eq!(scan, index, "{}", change);
        let (scan, index) = both(&mut database, "select * from TABLE order by id + 0");
        prop_assert_eq!(scan, index, "{}", change);
        let again = format!("select * from TABLE where {condition} order by id + 0");
        let (scan, index) = both(&mut database, &again);
        prop_assert_eq!(scan, index, "{} after {}", again, change);
    }
}
