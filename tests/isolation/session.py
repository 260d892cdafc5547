"""One connection of a case, and its statement that waits for another session's.

Such a statement is started on a thread of its own; the next step comes when pg_stat_activity says that it
waits.
"""

import threading
import time

import psycopg

# Longest time until a statement ends or waits, in seconds.
WAITS = 30


class Session:
    """One connection; its transaction begins at the level that is tried."""

    def __init__(self, level):
        self.connection = psycopg.connect(autocommit=True)
        self.thread = None
        self.run(f"BEGIN ISOLATION LEVEL {level}")

    def run(self, sql):
        """Rows of a query, or how many rows a statement changed."""
        cursor = self.connection.execute(sql)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    def start(self, sql):
        """Begins a statement that may have to wait for another session; whether it does."""

        def work():
            try:
                self.outcome = self.run(sql)
            except psycopg.Error as error:
                self.outcome = error

        self.thread = threading.Thread(target=work)
        self.thread.start()
        pid = self.connection.info.backend_pid
        waits = f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {pid}"
        with psycopg.connect(autocommit=True) as watcher:
            deadline = time.monotonic() + WAITS
            while self.thread.is_alive() and watcher.execute(waits).fetchone() != ("Lock",):
                assert time.monotonic() < deadline, f"neither ends nor waits: {sql}"
        return self.thread.is_alive()

    def wait(self):
        """Its end."""
        self.thread.join()
        self.thread = None
        if isinstance(self.outcome, psycopg.Error):
            raise self.outcome
        return self.outcome

    def commit(self):
        self.run("COMMIT")

    def rollback(self):
        self.run("ROLLBACK")

    def end(self):
        """Whatever state it is in."""
        self.connection.cancel()
        if self.thread:
            self.thread.join()
        self.connection.close()
