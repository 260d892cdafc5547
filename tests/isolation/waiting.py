"""READ COMMITTED: what a statement does that meets another session's change, and whether it waits for it.

Runs on the server that PGHOST and PGPORT name, and prints one JSON object: for each case whether the
statement waited, its answer, and what is left in the end. A case is what the first session does, how it
ends, and the statement of the second, which meets it.
"""

import json

import psycopg

from session import Session

ALL = "UPDATE item SET value = value + 10"
FIRST = "UPDATE item SET value = 100 WHERE id = 1"
SECOND = "UPDATE item SET value = 15 WHERE id = 2"
CASES = {
    "a row that stops to match, another that begins to": (ALL, "DELETE FROM item WHERE value = 20 RETURNING id"),
    "values are computed from the newest row": (ALL, "UPDATE item SET value = value * 2 WHERE value >= 20 RETURNING *"),
    "a row that comes is not looked for": (
        f"{FIRST}; INSERT INTO item VALUES (9, 90)",
        "UPDATE item SET value = value + 1 RETURNING *",
    ),
    "a row that goes": ("DELETE FROM item WHERE id = 2", "UPDATE item SET value = value + 1 RETURNING *"),
    "a key that leaves the range": (
        "UPDATE item SET id = 12 WHERE id = 2",
        "UPDATE item SET value = 0 WHERE id BETWEEN 2 AND 4 RETURNING *",
    ),
    "a key that stays in the range": (
        "UPDATE item SET id = 12 WHERE id = 2",
        "UPDATE item SET value = 0 WHERE id >= 2 RETURNING *",
    ),
    "a key that is looked up": ("UPDATE item SET id = 12 WHERE id = 2", "DELETE FROM item WHERE id = 2 RETURNING *"),
    "a key of a list": ("UPDATE item SET id = 12 WHERE id = 2", "DELETE FROM item WHERE id IN (2, 4) RETURNING *"),
    "an indexed value": (SECOND, "DELETE FROM item WHERE tag = 'b' RETURNING *"),
    "an indexed value that changes": (
        "UPDATE item SET tag = 'c' WHERE id = 2",
        "UPDATE item SET value = 0 WHERE tag >= 'b' AND tag < 'c' RETURNING *",
    ),
    "a subquery keeps its snapshot": (ALL, "UPDATE item SET value = 0 WHERE value < (SELECT max(value) FROM item) RETURNING *"),
    "a correlated subquery": (
        ALL,
        "DELETE FROM item WHERE EXISTS (SELECT FROM part WHERE part.item = item.id AND part.size = item.value) RETURNING *",
    ),
    "a join that breaks": (
        "UPDATE item SET tag = 'z' WHERE id = 2",
        "UPDATE item SET value = part.size FROM part WHERE part.tag = item.tag RETURNING item.id, item.value, part.id",
    ),
    "a join with another partner": (
        "UPDATE item SET tag = 'c' WHERE id = 2",
        "UPDATE item SET value = part.size FROM part WHERE part.tag = item.tag RETURNING item.id, item.value, part.id",
    ),
    "a join that holds": (
        SECOND,
        "DELETE FROM item USING part WHERE part.item = item.id AND part.size < item.value RETURNING item.*, part.id",
    ),
    "a lock": (SECOND, "SELECT * FROM item WHERE value > 10 ORDER BY value FOR UPDATE"),
    "a lock of what stops to match": (SECOND, "SELECT * FROM item WHERE value >= 20 ORDER BY id FOR UPDATE"),
    "a limit goes on behind a row that stops to match": (
        SECOND,
        "SELECT * FROM item WHERE value >= 20 ORDER BY id LIMIT 1 FOR UPDATE",
    ),
    "an order that is no more": (FIRST, "SELECT * FROM item ORDER BY value LIMIT 2 FOR UPDATE"),
    "a lock of one table of a join": (
        SECOND,
        "SELECT item.*, part.size FROM item JOIN part ON part.item = item.id ORDER BY part.id FOR UPDATE OF item",
    ),
    "a lock of both tables of a join": (
        "UPDATE part SET size = 7 WHERE id = 2; " + SECOND,
        "SELECT item.*, part.size FROM item JOIN part ON part.item = item.id ORDER BY part.id FOR UPDATE",
    ),
    "a lock of a table joined to itself": (
        SECOND,
        "SELECT a.*, b.* FROM item a JOIN item b ON b.id = a.id + 1 ORDER BY a.id FOR UPDATE",
    ),
    "a lock beside what is missing": (
        SECOND,
        "SELECT item.*, part.id FROM item LEFT JOIN part ON part.item = item.id AND part.size > 15 "
        "ORDER BY item.id FOR UPDATE OF item",
    ),
    "a lock of a row that goes": ("DELETE FROM item WHERE id = 2", "SELECT * FROM item ORDER BY id LIMIT 2 FOR UPDATE"),
    "a key that another takes": (
        "UPDATE item SET id = 7 WHERE id = 1",
        "UPDATE item SET id = 7 WHERE id = 2",
    ),
    "a key that another gives up": (
        "UPDATE item SET id = 7 WHERE id = 1",
        "UPDATE item SET id = 1 WHERE id = 2",
    ),
    "a key that is inserted": ("INSERT INTO item VALUES (7, 70)", "INSERT INTO item VALUES (7, 71)"),
    "on conflict do nothing": (
        "INSERT INTO item VALUES (7, 70)",
        "INSERT INTO item VALUES (7, 71) ON CONFLICT DO NOTHING RETURNING *",
    ),
    "on conflict do update": (
        "INSERT INTO item VALUES (7, 70)",
        "INSERT INTO item VALUES (7, 71) ON CONFLICT (id) DO UPDATE SET value = item.value + excluded.value RETURNING *",
    ),
    "on conflict with a row that changes": (
        SECOND,
        "INSERT INTO item VALUES (2, 1) ON CONFLICT (id) DO UPDATE SET value = item.value + excluded.value RETURNING *",
    ),
    "a query that is inserted keeps its snapshot": (
        "INSERT INTO item VALUES (7, 70); UPDATE part SET size = 99",
        "INSERT INTO item SELECT id + 6, size FROM part WHERE id < 3 ON CONFLICT (id) DO UPDATE "
        "SET value = item.value + excluded.value RETURNING *",
    ),
}

# "parent" 1 has a row in "child", 2 in "follower", 3 in "loose", 4 has none.
REFERENCES = {
    "a reference to a row that goes": ("DELETE FROM parent WHERE id = 4", "INSERT INTO child VALUES (7, 4)"),
    "a reference that moves to a row that goes": (
        "DELETE FROM parent WHERE id = 4",
        "UPDATE child SET parent = 4 WHERE id = 1 RETURNING *",
    ),
    "a row that is being referenced goes": ("INSERT INTO child VALUES (7, 4)", "DELETE FROM parent WHERE id = 4"),
    "a row that a reference moves to goes": (
        "UPDATE child SET parent = 4 WHERE id = 1",
        "DELETE FROM parent WHERE id = 4",
    ),
    "a row that a reference moves from goes": (
        "UPDATE child SET parent = 4 WHERE id = 1",
        "DELETE FROM parent WHERE id = 1",
    ),
    "a row whose reference goes": ("DELETE FROM child WHERE id = 1", "DELETE FROM parent WHERE id = 1"),
    "a key that is being referenced changes": (
        "INSERT INTO child VALUES (7, 4)",
        "UPDATE parent SET id = 14 WHERE id = 4",
    ),
    "a value beside a key that is being referenced": (
        "INSERT INTO child VALUES (7, 4)",
        "UPDATE parent SET name = 'x' WHERE id = 4",
    ),
    "a reference to a key that changes": (
        "UPDATE parent SET id = 14 WHERE id = 4",
        "INSERT INTO child VALUES (7, 4)",
    ),
    "a reference to a key that comes": ("UPDATE parent SET id = 14 WHERE id = 4", "INSERT INTO child VALUES (7, 14)"),
    "a reference to a row that comes": ("INSERT INTO parent VALUES (5, 'e')", "INSERT INTO child VALUES (7, 5)"),
    "a reference to a row whose value changes": (
        "UPDATE parent SET name = 'x' WHERE id = 4",
        "INSERT INTO child VALUES (7, 4)",
    ),
    "a reference to a row that is locked": (
        "SELECT * FROM parent WHERE id = 4 FOR UPDATE",
        "INSERT INTO child VALUES (7, 4)",
    ),
    "two references to one row": ("INSERT INTO child VALUES (7, 4)", "INSERT INTO child VALUES (8, 4)"),
    "a row that two reference, one no more": (
        "INSERT INTO child VALUES (7, 4); DELETE FROM child WHERE id = 7",
        "DELETE FROM parent WHERE id = 4",
    ),
    "a follower of a row that goes": ("DELETE FROM parent WHERE id = 2", "INSERT INTO follower VALUES (7, 2)"),
    "a follower that changes, of a row that goes": (
        "DELETE FROM parent WHERE id = 2",
        "UPDATE follower SET parent = 4 WHERE id = 2 RETURNING *",
    ),
    "a row with a follower that comes goes": (
        "INSERT INTO follower VALUES (7, 2)",
        "DELETE FROM parent WHERE id = 2",
    ),
    "a row with a follower that leaves goes": (
        "UPDATE follower SET parent = 4 WHERE id = 2",
        "DELETE FROM parent WHERE id = 2",
    ),
    "a row with a loose reference that comes goes": (
        "INSERT INTO loose VALUES (7, 3)",
        "DELETE FROM parent WHERE id = 3",
    ),
    "a loose reference of a row that goes": (
        "DELETE FROM parent WHERE id = 3",
        "UPDATE loose SET parent = 4 WHERE id = 3 RETURNING *",
    ),
}

SEQUENCES = {
    "a number beside one that is taken": ("SELECT nextval('numbers')", "SELECT nextval('numbers')"),
    "a number of a sequence that is set": ("SELECT setval('numbers', 100)", "SELECT nextval('numbers')"),
    "a number of a sequence that is altered": (
        "ALTER SEQUENCE numbers RESTART WITH 100",
        "SELECT nextval('numbers')",
    ),
    "a number of a sequence with another step": (
        "ALTER SEQUENCE numbers INCREMENT BY 10",
        "SELECT nextval('numbers')",
    ),
    "a row of a sequence that is altered": (
        "ALTER SEQUENCE numbers RESTART WITH 100",
        "INSERT INTO numbered VALUES (DEFAULT) RETURNING id",
    ),
    "a sequence that is altered is set": (
        "ALTER SEQUENCE numbers RESTART WITH 100",
        "SELECT setval('numbers', 200)",
    ),
    "a sequence that is set is altered": (
        "SELECT setval('numbers', 100)",
        "ALTER SEQUENCE numbers RESTART WITH 200",
    ),
    "a sequence whose number is taken is altered": (
        "SELECT nextval('numbers')",
        "ALTER SEQUENCE numbers RESTART WITH 200",
    ),
    "a sequence that is altered twice": (
        "ALTER SEQUENCE numbers RESTART WITH 100",
        "ALTER SEQUENCE numbers RESTART WITH 200",
    ),
}

# Of each group: its cases, how its tables are made, and what is looked at in the end.
GROUPS = (
    (
        CASES,
        (
            "DROP TABLE IF EXISTS item",
            "DROP TABLE IF EXISTS part",
            "CREATE TABLE item (id int PRIMARY KEY, value int, tag text)",
            "CREATE INDEX item_tag ON item (tag)",
            "CREATE TABLE part (id int PRIMARY KEY, item int, size int, tag text)",
            "INSERT INTO item VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'), (4, 40, 'd')",
            "INSERT INTO part VALUES (1, 1, 11, 'a'), (2, 2, 20, 'b'), (3, 2, 12, 'x'), (4, 3, 33, 'c')",
        ),
        ("SELECT * FROM item ORDER BY id", "SELECT * FROM part ORDER BY id"),
    ),
    (
        REFERENCES,
        (
            "DROP TABLE IF EXISTS child",
            "DROP TABLE IF EXISTS follower",
            "DROP TABLE IF EXISTS loose",
            "DROP TABLE IF EXISTS parent",
            "CREATE TABLE parent (id int PRIMARY KEY, name text)",
            "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
            "CREATE TABLE follower (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE)",
            "CREATE TABLE loose (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL)",
            "INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
            "INSERT INTO child VALUES (1, 1)",
            "INSERT INTO follower VALUES (2, 2)",
            "INSERT INTO loose VALUES (3, 3)",
        ),
        tuple(f"SELECT * FROM {table} ORDER BY id" for table in ("parent", "child", "follower", "loose")),
    ),
    (
        SEQUENCES,
        (
            "DROP TABLE IF EXISTS numbered",
            "DROP SEQUENCE IF EXISTS numbers",
            "CREATE SEQUENCE numbers",
            "CREATE TABLE numbered (id int PRIMARY KEY DEFAULT nextval('numbers'))",
        ),
        ("SELECT * FROM numbered ORDER BY id", "SELECT nextval('numbers')"),
    ),
)


def run_all(statements):
    with psycopg.connect(autocommit=True) as connection:
        for sql in statements:
            connection.execute(sql)


def try_case(changes, end, statement, looks):
    first, second = Session("READ COMMITTED"), Session("READ COMMITTED")
    try:
        for change in filter(str.strip, changes.split(";")):
            first.run(change)
        waited = second.start(statement)
        first.run(end)
        try:
            answer = second.wait()
            second.commit()
        except psycopg.Error as error:
            answer = f"{error.sqlstate} {error.diag.message_primary}"
            second.rollback()
        left = [first.run(look) for look in looks]
        return {"waited": waited, "answer": answer, "left": left}
    finally:
        first.end()
        second.end()


def try_all():
    told = {}
    for cases, make, looks in GROUPS:
        for name, (changes, statement) in cases.items():
            for end in ("COMMIT", "ROLLBACK"):
                run_all(make)
                told[f"{name}, {end.lower()}"] = try_case(changes, end, statement, looks)
    return told


print(json.dumps(try_all()))
