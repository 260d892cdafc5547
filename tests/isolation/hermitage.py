"""The Hermitage cases (Martin Kleppmann, github.com/ept/hermitage): which anomalies a level lets through.

Runs on the server that PGHOST and PGPORT name, and prints one JSON object: for each level and case either
what was seen of the anomaly, or what prevented it. A case is a function of sessions that have begun; it
returns true if the anomaly came about. A session that is refused for the others' sake (SQLSTATE 40001 or
40P01) prevents it.
"""

import json

import psycopg

from session import Session

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


def rows(session, condition="true"):
    return dict(session.run(f"SELECT id, value FROM test WHERE {condition} ORDER BY id"))


def value(session, key):
    return rows(session, f"id = {key}")[key]


def put(key, new):
    return f"UPDATE test SET value = {new} WHERE id = {key}"


def g0(t1, t2, t3):
    """Write cycles: each row keeps another transaction's write."""
    t1.run(put(1, 11))
    t2.start(put(1, 12))
    t1.run(put(2, 21))
    t1.commit()
    t2.wait()
    t2.run(put(2, 22))
    t2.commit()
    return rows(t3) != {1: 12, 2: 22}


def g1a(t1, t2, t3):
    """Aborted reads."""
    t1.run(put(1, 101))
    before = value(t2, 1)
    t1.rollback()
    return 101 in (before, value(t2, 1))


def g1b(t1, t2, t3):
    """Intermediate reads."""
    t1.run(put(1, 101))
    before = value(t2, 1)
    t1.run(put(1, 11))
    t1.commit()
    return 101 in (before, value(t2, 1))


def g1c(t1, t2, t3):
    """Circular information flow."""
    t1.run(put(1, 11))
    t2.run(put(2, 22))
    seen = (value(t1, 2), value(t2, 1))
    t1.commit()
    t2.commit()
    return seen == (22, 11)


def otv(t1, t2, t3):
    """Observed transaction vanishes."""
    t1.run(put(1, 11))
    t1.run(put(2, 19))
    t2.start(put(1, 12))
    t1.commit()
    t2.wait()
    first = value(t3, 1)
    t2.run(put(2, 18))
    second = value(t3, 2)
    t2.commit()
    return (first, second, value(t3, 2), value(t3, 1)) == (11, 19, 18, 11)


def pmp(t1, t2, t3):
    """Predicate-many-preceders: a predicate that matched nothing matches."""
    rows(t1, "value = 30")
    t2.run("INSERT INTO test VALUES (3, 30)")
    t2.commit()
    return bool(rows(t1, "value % 3 = 0"))


def pmp_write(t1, t2, t3):
    """The same for a DELETE that waits for a row which no longer matches, while another one came to."""
    t1.run("UPDATE test SET value = value + 10")
    t2.start("DELETE FROM test WHERE value = 20")
    t1.commit()
    t2.wait()
    left = rows(t2, "value = 20")
    t2.commit()
    return bool(left)


def p4(t1, t2, t3):
    """Lost update."""
    value(t1, 1), value(t2, 1)
    t1.run(put(1, 11))
    t2.start(put(1, 11))
    t1.commit()
    t2.wait()
    t2.commit()
    return True


def g_single(t1, t2, t3):
    """Read skew."""
    value(t1, 1)
    t2.run(put(1, 12))
    t2.run(put(2, 18))
    t2.commit()
    return value(t1, 2) == 18


def g_single_predicate(t1, t2, t3):
    """Read skew by a predicate."""
    rows(t1, "value % 5 = 0")
    t2.run("UPDATE test SET value = 12 WHERE value = 10")
    t2.commit()
    return bool(rows(t1, "value % 3 = 0"))


def g_single_write(t1, t2, t3):
    """Read skew by a predicate that writes."""
    value(t1, 1)
    t2.run(put(1, 12))
    t2.run(put(2, 18))
    t2.commit()
    t1.run("DELETE FROM test WHERE value = 20")
    return value(t1, 2) == 18


def g2_item(t1, t2, t3):
    """Write skew on two rows."""
    rows(t1, "id IN (1, 2)"), rows(t2, "id IN (1, 2)")
    t1.run(put(1, 11))
    t2.run(put(2, 21))
    t1.commit()
    t2.commit()
    return True


def g2(t1, t2, t3):
    """Write skew by a predicate."""
    rows(t1, "value % 3 = 0"), rows(t2, "value % 3 = 0")
    t1.run("INSERT INTO test VALUES (3, 30)")
    t2.run("INSERT INTO test VALUES (4, 42)")
    t1.commit()
    t2.commit()
    return True


def g2_two_edges(t1, t2, t3):
    """A reader makes the circle: Fekete's read-only anomaly."""
    rows(t1)
    t2.run("UPDATE test SET value = value + 5 WHERE id = 2")
    t2.commit()
    seen = rows(t3)
    t3.commit()
    t1.run(put(1, 0))
    t1.commit()
    return seen == {1: 10, 2: 25}


CASES = {
    "G0": g0,
    "G1a": g1a,
    "G1b": g1b,
    "G1c": g1c,
    "OTV": otv,
    "PMP": pmp,
    "PMP-write": pmp_write,
    "P4": p4,
    "G-single": g_single,
    "G-single-predicate": g_single_predicate,
    "G-single-write": g_single_write,
    "G2-item": g2_item,
    "G2": g2,
    "G2-two-edges": g2_two_edges,
}


def prepare():
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS test")
        connection.execute("CREATE TABLE test (id int PRIMARY KEY, value int)")
        connection.execute("INSERT INTO test VALUES (1, 10), (2, 20)")


def try_case(case, level):
    prepare()
    sessions = []
    try:
        sessions.extend(Session(level) for _ in range(3))
        return "allowed" if case(*sessions) else "prevented"
    except psycopg.Error as error:
        if error.sqlstate not in ("40001", "40P01"):
            raise
        return "prevented"
    finally:
        for session in sessions:
            session.end()


print(json.dumps({level: {name: try_case(case, level) for name, case in CASES.items()} for level in LEVELS}))
