//! TATP, the telecom benchmark, as pgbench scripts: four tables, seven transactions by their weights
//! (research/anchors-reliability-performance §2.7 F; the mix is from its specification).

use crate::pgbench::psql;
use understudy_tests::servers::Server;

/// What the tables hold at first.
const TABLES: &[&str] = &[
    "CREATE TABLE subscriber (s_id INT PRIMARY KEY, sub_nbr VARCHAR(15) NOT NULL, bit_1 SMALLINT, \
     hex_1 SMALLINT, byte2_1 SMALLINT, msc_location INT, vlr_location INT)",
    "CREATE UNIQUE INDEX subscriber_nbr ON subscriber (sub_nbr)",
    "CREATE TABLE access_info (s_id INT NOT NULL, ai_type SMALLINT NOT NULL, data1 SMALLINT, \
     data2 SMALLINT, data3 CHAR(3), data4 CHAR(5), PRIMARY KEY (s_id, ai_type))",
    "CREATE TABLE special_facility (s_id INT NOT NULL, sf_type SMALLINT NOT NULL, \
     is_active SMALLINT NOT NULL, error_cntrl SMALLINT, data_a SMALLINT, data_b CHAR(5), \
     PRIMARY KEY (s_id, sf_type))",
    "CREATE TABLE call_forwarding (s_id INT NOT NULL, sf_type SMALLINT NOT NULL, \
     start_time SMALLINT NOT NULL, end_time SMALLINT, numberx VARCHAR(15), \
     PRIMARY KEY (s_id, sf_type, start_time))",
    "INSERT INTO subscriber SELECT s, lpad(s::text, 15, '0'), s % 2, s % 16, s % 256, s, s \
     FROM generate_series(1, 100000) s",
    "INSERT INTO access_info SELECT s, t, s % 256, t, 'abc', 'abcde' \
     FROM generate_series(1, 100000) s, generate_series(1, 4) t WHERE t <= 1 + s % 4",
    "INSERT INTO special_facility SELECT s, t, CASE WHEN (s + t) % 20 < 17 THEN 1 ELSE 0 END, \
     s % 256, t, 'abcde' FROM generate_series(1, 100000) s, generate_series(1, 4) t \
     WHERE t <= 1 + s % 4",
    "INSERT INTO call_forwarding SELECT s, t, 8 * h, 8 * h + 8, lpad(s::text, 15, '0') \
     FROM generate_series(1, 100000) s, generate_series(1, 4) t, generate_series(0, 2) h \
     WHERE t <= 1 + s % 4 AND h < (s + t) % 4",
    "ANALYZE",
];

/// Name, weight and script of each transaction.
pub(crate) const MIX: &[(&str, u32, &str)] = &[
    (
        "get-subscriber",
        35,
        "\\set s random(1, 100000)
SELECT s_id, sub_nbr, bit_1, hex_1, byte2_1, msc_location, vlr_location FROM subscriber WHERE s_id = :s;
",
    ),
    (
        "get-new-destination",
        10,
        "\\set s random(1, 100000)
\\set f random(1, 4)
\\set b random(0, 2) * 8
\\set e random(1, 24)
SELECT cf.numberx FROM special_facility sf, call_forwarding cf WHERE sf.s_id = :s AND sf.sf_type = :f AND sf.is_active = 1 AND cf.s_id = sf.s_id AND cf.sf_type = sf.sf_type AND cf.start_time <= :b AND cf.end_time > :e;
",
    ),
    (
        "get-access",
        35,
        "\\set s random(1, 100000)
\\set t random(1, 4)
SELECT data1, data2, data3, data4 FROM access_info WHERE s_id = :s AND ai_type = :t;
",
    ),
    (
        "update-subscriber",
        2,
        "\\set s random(1, 100000)
\\set f random(1, 4)
\\set bit random(0, 1)
\\set a random(0, 255)
BEGIN;
UPDATE subscriber SET bit_1 = :bit WHERE s_id = :s;
UPDATE special_facility SET data_a = :a WHERE s_id = :s AND sf_type = :f;
END;
",
    ),
    (
        "update-location",
        14,
        "\\set s random(1, 100000)
\\set l random(1, 1000000)
UPDATE subscriber SET vlr_location = :l WHERE sub_nbr = lpad(:s::text, 15, '0');
",
    ),
    (
        "insert-forwarding",
        2,
        "\\set s random(1, 100000)
\\set f random(1, 4)
\\set b random(0, 2) * 8
BEGIN;
SELECT s_id FROM subscriber WHERE sub_nbr = lpad(:s::text, 15, '0');
SELECT sf_type FROM special_facility WHERE s_id = :s;
INSERT INTO call_forwarding VALUES (:s, :f, :b, :b + 8, '000000000000001') ON CONFLICT DO NOTHING;
END;
",
    ),
    (
        "delete-forwarding",
        2,
        "\\set s random(1, 100000)
\\set f random(1, 4)
\\set b random(0, 2) * 8
BEGIN;
SELECT s_id FROM subscriber WHERE sub_nbr = lpad(:s::text, 15, '0');
DELETE FROM call_forwarding WHERE s_id = :s AND sf_type = :f AND start_time = :b;
END;
",
    ),
];

/// Makes and fills the tables.
pub(crate) fn fill(server: &Server) -> anyhow::Result<()> {
    for statement in TABLES {
        psql(server, statement)?;
    }
    Ok(())
}
