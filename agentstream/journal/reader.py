"""Every question to the journal, on a connection that only reads. Blocking: for the readers' threads.

A question is one short transaction that ends before it returns: an open one would keep the WAL from being reset. Events
of several work orders are read as one compound statement, which SQLite merges lazily by ``seq`` from the index of each,
so that a page costs its own rows and not those of the whole history.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs

from agentstream.errors import InvalidMessage
from agentstream.journal.base import Page, Record
from agentstream.model import wire
from agentstream.model.events import WorkOrderStatus
from agentstream.model.orders import Run, WorkOrder

#: Streams whose name is remembered; some 200 bytes each.
_MAX_NAMES: Final = 10_000
#: Over this a scan in order of ``seq`` is cheaper than merging (and SQLite takes no more than 500 terms).
_MAX_MERGED: Final = 16
_CURSOR: Final = re.compile(r"before-([0-9]{1,18})")


@attrs.frozen
class Victim:
    """A work order that retention may touch: it has ended, or has no row at all."""

    number: int
    events: int


class Reader:
    """The questions. Errors are SQLite's own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names: dict[int, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # --- events ----------------------------------------------------------------------------------------------------

    def page(
        self, after: int, up_to: int, work_order_ids: Sequence[str] | None, limit: int, max_bytes: int | None
    ) -> list[Record]:
        """Records with ``after < seq <= up_to``, ascending; ends with the one that reaches ``max_bytes`` of bodies."""
        if after >= up_to or limit <= 0:
            return []
        columns = "SELECT seq, stream, type, body FROM events"
        window: list[int] = [after, up_to]
        if work_order_ids is None:
            sql, values = f"{columns} WHERE seq > ? AND seq <= ? ORDER BY seq", window
        else:
            numbers = self._numbers(work_order_ids)
            if not numbers:
                return []
            if len(numbers) <= _MAX_MERGED:
                one = f"{columns} WHERE stream = ? AND seq > ? AND seq <= ?"
                sql = " UNION ALL ".join([one] * len(numbers)) + " ORDER BY seq"
                values = [value for number in numbers for value in (number, *window)]
            else:
                # The + keeps SQLite from using the index, which would make it sort the whole history for each page.
                marks = ",".join("?" * len(numbers))
                sql = f"{columns} WHERE seq > ? AND seq <= ? AND +stream IN ({marks}) ORDER BY seq"
                values = window + numbers
        room = max_bytes if max_bytes is not None else up_to * limit  # None: more than can ever be reached
        names = self._names
        types: dict[str, str] = {}  # One string for each type, not for each record.
        records: list[Record] = []
        with self._transaction() as connection:
            cursor = connection.execute(sql + " LIMIT ?", [*values, limit])
            unbounded = max_bytes is None
            for seq, stream, kind, body in cursor:
                name = names.get(stream) or self._name(stream)
                records.append(Record(seq, name, types.setdefault(kind, kind), body))
                if not unbounded:
                    room -= len(body)
                    if room <= 0:
                        break
            cursor.close()
        return records

    def oldest(self, work_order_id: str | None) -> int:
        """The lowest ``seq`` from which on nothing was trimmed."""
        with self._transaction():
            return self._trimmed(work_order_id)[0] + 1

    def before_time(self, moment: int, work_order_id: str | None, head: int) -> int:
        """The ``since_seq`` for everything at or after ``moment`` (milliseconds), by bisection: `events.at` ascends.

        It is the same for all work orders. Where something at or after the moment was trimmed, it lies below what was, so
        that the caller finds a gap.
        """
        with self._transaction() as connection:
            low, high = 1, head + 1  # Everything below `low` is before the moment, nothing from `high` on is.
            while low < high:
                middle = (low + high) // 2
                row = connection.execute("SELECT seq, at FROM events WHERE seq >= ? LIMIT 1", (middle,)).fetchone()
                if row is None or row[1] >= moment:
                    high = middle
                else:
                    low = row[0] + 1
            first = connection.execute("SELECT seq FROM events WHERE seq >= ? LIMIT 1", (low,)).fetchone()
            trimmed, trimmed_at = self._trimmed(work_order_id)
        since = min(int(first[0]) - 1, head) if first is not None else head
        return min(since, trimmed - 1) if trimmed and moment <= trimmed_at else since

    def before_last(self, count: int, work_order_id: str | None, head: int) -> int:
        """The ``since_seq`` for the last ``count`` events, or for all that are left when they are fewer."""
        if count <= 0:
            return head
        where, values = "seq <= ?", [head]
        with self._transaction() as connection:
            if work_order_id is not None:
                numbers = self._numbers([work_order_id])
                if not numbers:
                    return head
                where, values = "stream = ? AND seq <= ?", [numbers[0], head]
            row = connection.execute(
                f"SELECT seq FROM events WHERE {where} ORDER BY seq DESC LIMIT 1 OFFSET ?", [*values, count]
            ).fetchone()
            if row is not None:
                return int(row[0])
            (first,) = connection.execute(f"SELECT min(seq) FROM events WHERE {where}", values).fetchone()
            trimmed, _ = self._trimmed(work_order_id)
        return min(first - 1, trimmed) if first is not None else head

    # --- work orders and runs -----------------------------------------------------------------------------------------

    def work_order(self, work_order_id: str) -> WorkOrder | None:
        """One work order."""
        row = self._connection.execute(
            "SELECT document FROM work_orders WHERE stream = (SELECT number FROM streams WHERE work_order_id = ?)",
            (work_order_id,),
        ).fetchone()
        return _work_order(row[0]) if row else None

    def work_orders(self, status: WorkOrderStatus | None, limit: int, cursor: str | None) -> Page:
        """A page of work orders, newest first."""
        before = 2**62
        if cursor is not None:
            match = _CURSOR.fullmatch(cursor)
            if match is None:
                raise InvalidMessage(
                    "cursor: expected one that an earlier page of this list gave",
                    details={"field": "cursor", "expected": "the cursor of an earlier page"},
                )
            before = int(match[1])
        where, values = ("status = ? AND ", [status]) if status is not None else ("", [])
        rows = self._connection.execute(
            f"SELECT position, document FROM work_orders WHERE {where}position < ? ORDER BY position DESC LIMIT ?",
            [*values, before, limit + 1],
        ).fetchall()
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(
            items=tuple(_work_order(document) for _, document in rows),
            cursor=f"before-{rows[-1][0]}" if more and rows else None,
        )

    def unfinished(self) -> tuple[list[WorkOrder], list[Run]]:
        """What a restart must look at."""
        with self._transaction() as connection:
            orders = connection.execute(
                "SELECT document FROM work_orders WHERE status IN ('queued', 'running') ORDER BY position"
            ).fetchall()
            runs = connection.execute("SELECT document FROM runs WHERE status = 'running' ORDER BY rowid").fetchall()
        return [_work_order(row[0]) for row in orders], [_run(row[0]) for row in runs]

    def run(self, run_id: str) -> Run | None:
        """One run."""
        row = self._connection.execute("SELECT document FROM runs WHERE id = ?", (run_id,)).fetchone()
        return _run(row[0]) if row else None

    def runs(self, work_order_id: str) -> list[Run]:
        """The runs of a work order, by number."""
        rows = self._connection.execute(
            "SELECT document FROM runs WHERE stream = (SELECT number FROM streams WHERE work_order_id = ?)"
            " ORDER BY run_number",
            (work_order_id,),
        ).fetchall()
        return [_run(row[0]) for row in rows]

    # --- retention ------------------------------------------------------------------------------------------------------

    def ended(self, *, before: int | None = None, more_than: int = -1, limit: int = 100) -> list[Victim]:
        """Ended work orders of which something is left, the longest untouched first.

        Only those last touched before ``before`` (milliseconds), and only those with more than ``more_than`` events.
        """
        rows = self._connection.execute(
            "SELECT s.number, s.events FROM streams s LEFT JOIN work_orders w ON w.stream = s.number"
            " WHERE (w.status IS NULL OR w.status NOT IN ('queued', 'running'))"
            " AND (s.events > 0 OR w.stream IS NOT NULL) AND s.last_at < ? AND s.events > ?"
            " ORDER BY s.last_at LIMIT ?",
            (before if before is not None else 2**62, more_than, limit),
        ).fetchall()
        return [Victim(number, events) for number, events in rows]

    def directories(self, number: int) -> tuple[str, ...]:
        """Where the raw logs of a stream's runs are, below the data directory."""
        rows = self._connection.execute("SELECT document FROM runs WHERE stream = ?", (number,)).fetchall()
        return tuple(run.directory for run in (_run(row[0]) for row in rows) if run.directory)

    def forgettable(self, keep: int, limit: int = 1000) -> list[int]:
        """Streams of which nothing is left, beyond the ``keep`` that were trimmed last."""
        rows = self._connection.execute(
            "SELECT number FROM streams WHERE events = 0 AND NOT EXISTS (SELECT 1 FROM work_orders WHERE stream = number)"
            " ORDER BY trimmed DESC LIMIT ? OFFSET ?",
            (limit, keep),
        ).fetchall()
        return [int(row[0]) for row in rows]

    def checkpoint(self) -> None:
        """Copy what is committed from the WAL into the database, without making anybody wait."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # --- within -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            if connection.in_transaction:  # SQLite ends it by itself on some errors.
                connection.execute("ROLLBACK")

    def _numbers(self, work_order_ids: Sequence[str]) -> list[int]:
        unique = sorted(set(work_order_ids))
        marks = ",".join("?" * len(unique))
        rows: list[Any] = self._connection.execute(
            f"SELECT number FROM streams WHERE work_order_id IN ({marks})", unique
        ).fetchall()
        return [int(row[0]) for row in rows]

    def _name(self, number: int) -> str:
        (name,) = self._connection.execute("SELECT work_order_id FROM streams WHERE number = ?", (number,)).fetchone()
        if len(self._names) >= _MAX_NAMES:
            self._names.clear()
        self._names[number] = name
        return str(name)

    def _trimmed(self, work_order_id: str | None) -> tuple[int, int]:
        """The highest number that was trimmed, and its time."""
        if work_order_id is None:
            trimmed, trimmed_at = (self._meta(key) for key in ("trimmed", "trimmed_at"))
            return trimmed, trimmed_at
        floor, floor_at = (self._meta(key) for key in ("floor", "floor_at"))
        row = self._connection.execute(
            "SELECT trimmed, trimmed_at FROM streams WHERE work_order_id = ?", (work_order_id,)
        ).fetchone() or (0, 0)
        return max(floor, int(row[0])), max(floor_at, int(row[1]))

    def _meta(self, key: str) -> int:
        (value,) = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(value)


def _work_order(document: bytes) -> WorkOrder:
    return wire.structure(wire.json_object(document), WorkOrder)


def _run(document: bytes) -> Run:
    return wire.structure(wire.json_object(document), Run)
