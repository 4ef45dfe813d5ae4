"""Every transaction that changes the journal, on the one connection that writes. Blocking: for the writer thread only.

**``seq`` is never used for two things.** With ``synchronous=NORMAL`` a commit survives ``kill -9`` of the daemon, but
the last ones may be undone by a loss of power, after subscribers saw them. Handing out ``max(seq) + 1`` after that
would give what they saw a second meaning. So numbers are reserved in blocks: before the first number of a block is
used, the block's end is written to ``meta`` in a transaction that is synced to the disk (it carries the events of its
group as well, so it costs one fsync in `RESERVED` events). A start goes on above the reserved end, and an orderly end
takes the rest of the block back, so that only a crash leaves a hole. The number of a failed commit is not used again
either.

**Rows travel in few statements.** Python's sqlite3 lets go of the interpreter lock for each step of a statement, and a
step that inserts one row is so short that a busy event loop may take the lock away each time, for up to 5 ms: a group
of 1,000 rows with ``executemany`` was seen to take 1 to 3 seconds beside a busy loop, and 3 to 37 ms when up to 512
rows are one step. The sizes are powers of two: ten prepared statements serve every group.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Final

import attrs

#: Numbers per fsync. Large enough that the fsync doesn't show (2 a second at 200,000 events/s), small enough that the hole after
#: a crash leaves 2**53, the last integer that JavaScript counts, out of reach for ever.
RESERVED: Final = 100_000
#: One step of trimming, in rows and in bytes of bodies: about 10 ms, which is what an append may have to wait for it.
TRIM_ROWS: Final = 1_000
TRIM_BYTES: Final = 4 * 1024 * 1024
#: A probe asks for this much room, so that it doesn't flap on the last free page of a full disk.
PROBE_BYTES: Final = 256 * 1024
#: Work orders whose number is remembered; some 200 bytes each.
_MAX_NUMBERS: Final = 10_000

_SIZES: Final = tuple(1 << power for power in range(9, -1, -1))
_INSERT: Final = {
    size: "INSERT INTO events (seq, stream, type, at, body) VALUES " + ",".join(["(?,?,?,?,?)"] * size)
    for size in _SIZES
}

#: seq, work order id, type, the largest timestamp so far (ms), body.
EventRow = tuple[int, str, str, int, bytes]


@attrs.frozen
class WorkOrderRow:
    """A work order as it is stored. ``at`` is when it was updated, in milliseconds of Unix time."""

    id: str
    status: str
    at: int
    document: bytes


@attrs.frozen
class RunRow:
    """A run as it is stored."""

    id: str
    work_order_id: str
    run_number: int
    status: str
    document: bytes


class Writer:
    """The transactions. Errors are SQLite's own, and leave no transaction open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = {}
        (self._reserved,) = self._one("SELECT value FROM meta WHERE key = 'reserved'")
        (self.trimmed,) = self._one("SELECT value FROM meta WHERE key = 'trimmed'")
        #: Events in the journal.
        (self.events,) = self._one("SELECT coalesce(sum(events), 0) FROM streams")
        last = connection.execute("SELECT seq, at FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (0, 0)
        #: The largest timestamp in the journal, in milliseconds.
        self.last_at: int = last[1]
        #: The highest number in the journal, or up to which all was trimmed.
        self.head: int = max(last[0], self.trimmed)
        #: The first number that nobody can have seen.
        self.next_seq: int = max(self._reserved, self.head) + 1
        (self._page_size,) = self._one("PRAGMA page_size")
        self._measure()

    def commit(self, events: Sequence[EventRow], work_orders: Sequence[WorkOrderRow], runs: Sequence[RunRow]) -> None:
        """All of it, or nothing. ``events`` ascend by number and by time."""
        last = events[-1][0] if events else 0
        block = last + RESERVED if last > self._reserved else None
        with self._transaction(synced=block is not None) as connection:
            if block is not None:
                connection.execute("UPDATE meta SET value = ? WHERE key = 'reserved'", (block,))
            if events:
                self._insert(connection, events)
            self._put(connection, work_orders, runs)
        if events:
            self._reserved = block or self._reserved
            self.events += len(events)
            self.head, self.last_at = last, events[-1][3]
        self._measure()

    def trim(self, number: int, leave: int, protected: frozenset[str] = frozenset()) -> int:
        """One step: remove the oldest events of a stream but the last ``leave``; returns how many, 0 when done.

        Does nothing for a work order that is queued or running, or ``protected``.
        """
        with self._transaction() as connection:
            excess = self._excess(connection, number, leave, protected)
            if excess <= 0:
                return 0
            oldest = connection.execute(
                "SELECT seq, at, length(body) FROM events WHERE stream = ? ORDER BY seq LIMIT ?",
                (number, min(excess, TRIM_ROWS)),
            ).fetchall()
            sizes = accumulate(length for _, _, length in oldest)
            last, at, _ = oldest[bisect_left(list(sizes), TRIM_BYTES, hi=len(oldest) - 1)]
            removed = connection.execute("DELETE FROM events WHERE stream = ? AND seq <= ?", (number, last)).rowcount
            connection.execute(
                "UPDATE streams SET events = events - ?, trimmed = ?, trimmed_at = ? WHERE number = ?",
                (removed, last, at, number),
            )
            connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'trimmed'", (last,))
            connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'trimmed_at'", (at,))
        self.events -= removed
        self.trimmed = max(self.trimmed, last)
        self._measure()
        return removed

    def may_remove(self, number: int, protected: frozenset[str] = frozenset()) -> bool:
        """Whether `remove` would do something now."""
        return self._excess(self._connection, number, 0, protected) == 0

    def remove(self, number: int, protected: frozenset[str] = frozenset()) -> bool:
        """Remove an ended work order without events, and its runs. Its stream stays, to know what was trimmed."""
        with self._transaction() as connection:
            if self._excess(connection, number, 0, protected) != 0:
                return False
            connection.execute("DELETE FROM runs WHERE stream = ?", (number,))
            connection.execute("DELETE FROM work_orders WHERE stream = ?", (number,))
        return True

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget streams of which nothing is left."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM streams WHERE number = ? AND events = 0"
                " AND NOT EXISTS (SELECT 1 FROM work_orders WHERE stream = number)",
                [(number,) for number in numbers],
            )
        self._numbers.clear()

    def vacuum(self, pages: int) -> bool:
        """Give up to ``pages`` free pages back to the file system; False when there was nothing to be done.

        Less than a quarter of the file is not worth moving pages for: it will be filled again.
        """
        (free,) = self._one("PRAGMA freelist_count")
        (total,) = self._one("PRAGMA page_count")
        if free * 4 < total:
            return False
        # `execute` would end after the first page: it steps a statement without columns only once.
        self._connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")
        self._measure()
        return self._one("PRAGMA page_count") < (total,)

    def probe(self) -> None:
        """Whether the disk takes `PROBE_BYTES`. Raises if not."""
        with self._transaction(synced=True) as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
        with self._transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'probe'")

    def seal(self, last_seq: int) -> None:
        """The orderly end: take back what is left of the block of numbers, and put the WAL into the file."""
        with self._transaction(synced=True) as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'reserved'", (last_seq,))
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def used_bytes(self) -> int:
        """Size of the database without its free pages."""
        (free,) = self._one("PRAGMA freelist_count")
        return self.size_bytes - int(free) * int(self._page_size)

    def _one(self, sql: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._connection.execute(sql).fetchone()
        return row

    def _measure(self) -> None:
        (pages,) = self._one("PRAGMA page_count")
        #: Size of the database file, without its WAL.
        self.size_bytes = int(pages) * int(self._page_size)

    @contextmanager
    def _transaction(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection.in_transaction:  # A roll-back failed with the disk.
            connection.execute("ROLLBACK")
        if synced:
            connection.execute("PRAGMA synchronous = FULL")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._numbers.clear()  # Some may be of this transaction.
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        finally:
            if synced:
                connection.execute("PRAGMA synchronous = NORMAL")

    def _number(self, connection: sqlite3.Connection, work_order_id: str) -> int:
        number = self._numbers.get(work_order_id)
        if number is None:
            row = connection.execute("SELECT number FROM streams WHERE work_order_id = ?", (work_order_id,)).fetchone()
            if row is None:
                cursor = connection.execute("INSERT INTO streams (work_order_id) VALUES (?)", (work_order_id,))
                row = (cursor.lastrowid,)
            if len(self._numbers) >= _MAX_NUMBERS:
                self._numbers.clear()
            number = self._numbers[work_order_id] = int(row[0])
        return number

    def _insert(self, connection: sqlite3.Connection, events: Sequence[EventRow]) -> None:
        streams: dict[str, list[int]] = {}  # number, events, last_at
        values: list[int | str | bytes] = []
        for seq, work_order_id, kind, at, body in events:
            stream = streams.get(work_order_id)
            if stream is None:
                stream = streams[work_order_id] = [self._number(connection, work_order_id), 0, 0]
            stream[1] += 1
            stream[2] = at
            values += (seq, stream[0], kind, at, body)
        start = 0
        for size in _SIZES:
            while len(events) - start >= size:
                connection.execute(_INSERT[size], values[start * 5 : (start + size) * 5])
                start += size
        connection.executemany(
            "UPDATE streams SET events = events + ?, last_at = max(last_at, ?) WHERE number = ?",
            [(count, at, number) for number, count, at in streams.values()],
        )

    def _put(self, connection: sqlite3.Connection, work_orders: Sequence[WorkOrderRow], runs: Sequence[RunRow]) -> None:
        for order in work_orders:
            number = self._number(connection, order.id)
            connection.execute(
                "INSERT INTO work_orders (stream, status, document) VALUES (?, ?, ?) ON CONFLICT (stream) DO UPDATE"
                " SET status = excluded.status, document = excluded.document",
                (number, order.status, order.document),
            )
            connection.execute("UPDATE streams SET last_at = max(last_at, ?) WHERE number = ?", (order.at, number))
        for run in runs:
            connection.execute(
                "INSERT INTO runs (id, stream, run_number, status, document) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET status = excluded.status, document = excluded.document",
                (run.id, self._number(connection, run.work_order_id), run.run_number, run.status, run.document),
            )

    def _excess(self, connection: sqlite3.Connection, number: int, leave: int, protected: frozenset[str]) -> int:
        """Events of a stream beyond the last ``leave``; -1 when it must not be touched."""
        row = connection.execute(
            "SELECT s.work_order_id, s.events, w.status FROM streams s LEFT JOIN work_orders w ON w.stream = s.number"
            " WHERE s.number = ?",
            (number,),
        ).fetchone()
        if row is None or row[0] in protected or row[2] in ("queued", "running"):
            return -1
        return max(0, int(row[1]) - leave)
