"""What the journal's file looks like inside, and how an older one becomes a newer one.

``PRAGMA user_version`` is the number of steps that a file has been through; ``PRAGMA application_id`` tells our files
from other people's. A step is never edited once released: a change is one more step at the end, and a frozen copy of
each version's schema in the tests proves that every older file still gets here. A file of a *newer* version is refused:
running an old program on it would lose what it doesn't know of.

``meta`` holds what there is one of. ``streams`` has one small row for each work order that the journal ever heard of:
it turns the id into a small integer for ``events``, counts, and remembers what was trimmed. The documents, which are
large and change seldom, live apart in ``work_orders`` and ``runs``, so that counting doesn't rewrite them.
``events.at`` is the largest timestamp so far (milliseconds of Unix time), not the event's own, which makes it ascend
with ``seq``: a moment is found by bisection without an index, and nothing at or after the moment can lie before the
place that was found, even when runs overlap or the clock was set back. ``events_by_stream`` is the only index on
events; SQLite appends the ``seq`` to it by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from agentstream.errors import JournalError

#: "agst", in the file's header.
APPLICATION_ID: Final = 0x61677374

Step = Sequence[str]

STEPS: Final[tuple[Step, ...]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE streams (
            number INTEGER PRIMARY KEY,
            work_order_id TEXT NOT NULL UNIQUE,
            events INTEGER NOT NULL DEFAULT 0,
            last_at INTEGER NOT NULL DEFAULT 0,
            trimmed INTEGER NOT NULL DEFAULT 0,
            trimmed_at INTEGER NOT NULL DEFAULT 0
        )""",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL,
            type TEXT NOT NULL,
            at INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX events_by_stream ON events (stream)",
        """CREATE TABLE work_orders (
            position INTEGER PRIMARY KEY,
            stream INTEGER NOT NULL UNIQUE,
            status TEXT NOT NULL,
            document BLOB NOT NULL
        )""",
        "CREATE INDEX work_orders_by_status ON work_orders (status)",
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY,
            stream INTEGER NOT NULL,
            run_number INTEGER NOT NULL,
            status TEXT NOT NULL,
            document BLOB NOT NULL
        )""",
        "CREATE INDEX runs_by_stream ON runs (stream, run_number)",
        "CREATE INDEX runs_running ON runs (status) WHERE status = 'running'",
    ),
)


def migrate(connection: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> int:
    """Bring a file to the version that ``steps`` lead to, each step in a transaction of its own; returns how many were taken.

    A new, empty file takes them all. Raises `JournalError` for a newer version and for a database that is not a journal.
    """
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or objects):
        raise JournalError("this is a database of another program; choose another data directory")
    if version > len(steps):
        raise JournalError(
            f"the journal has schema version {version}, this agentstream knows {len(steps)}: it was written by a newer "
            "one. Run that one, or choose another data directory"
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in step:
                connection.execute(statement)
            # Both are in the file's header and part of the transaction: a crash leaves the old version or the new one.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(steps) - version
