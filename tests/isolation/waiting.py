"""READ COMMITTED: what a statement does that waited for another session's change.

Runs on the server that PGHOST and PGPORT name, and prints one JSON object: for each case the waiting
statement's answer and both tables at the end. A case is what the first session does, how it ends, and the
statement of the second, which meets it.
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


def prepare():
    with psycopg.connect(autocommit=True) as connection:
        for sql in (
            "DROP TABLE IF EXISTS item",
            "DROP TABLE IF EXISTS part",
            "CREATE TABLE item (id int PRIMARY KEY, value int, tag text)",
            "CREATE INDEX item_tag ON item (tag)",
            "CREATE TABLE part (id int PRIMARY KEY, item int, size int, tag text)",
            "INSERT INTO item VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'), (4, 40, 'd')",
            "INSERT INTO part VALUES (1, 1, 11, 'a'), (2, 2, 20, 'b'), (3, 2, 12, 'x'), (4, 3, 33, 'c')",
        ):
            connection.execute(sql)


def try_case(changes, end, statement):
    prepare()
    first, second = Session("READ COMMITTED"), Session("READ COMMITTED")
    try:
        for change in filter(str.strip, changes.split(";")):
            first.run(change)
        second.start(statement)
        first.run(end)
        try:
            answer = second.wait()
            second.commit()
        except psycopg.Error as error:
            answer = f"{error.sqlstate} {error.diag.message_primary}"
            second.rollback()
        tables = [first.run(f"SELECT * FROM {table} ORDER BY id") for table in ("item", "part")]
        return {"answer": answer, "tables": tables}
    finally:
        first.end()
        second.end()


print(json.dumps({
    f"{name}, {end.lower()}": try_case(changes, end, statement)
    for name, (changes, statement) in CASES.items()
    for end in ("COMMIT", "ROLLBACK")
}))
