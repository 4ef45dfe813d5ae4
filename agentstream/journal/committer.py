"""The one task that numbers, commits and publishes: group commit.

Calls join a queue and wait. The committer takes everything that is queued, gives it the next numbers and hands it to
the writer thread as one transaction; while the thread commits, the next group gathers. So a lone event waits for one
thread hop, and a busy journal pays one commit for thousands of events. After the commit the records are published in
order and the callers go on. Nobody else numbers, commits or publishes: that is all there is to promises 2 (durable
before visible) and 3 (one order).

While the disk is in trouble, events are published at once, without ``seq`` and marked as not journalled, and the latest
of each work order and run is kept here, to be committed first when the disk is well again.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, TypeVar

import attrs
import trio

from agentstream.journal.base import Publish, Record
from agentstream.journal.disk import Disk
from agentstream.journal.store import NotOpen, Store
from agentstream.journal.writer import EventRow, RunRow, WorkOrderRow, Writer
from agentstream.model import wire
from agentstream.model.events import Event
from agentstream.model.orders import Run, WorkOrder

V = TypeVar("V")

#: One transaction: 4,000 events take some 20 ms, which is what the next group waits. A single call with more still gets one
#: transaction, as `Journal.append` promises.
_GROUP_EVENTS: Final = 4_000
_GROUP_BYTES: Final = 8 * 1024 * 1024
#: Queued but not yet committed: four groups. Over it `append` waits, so that a stuck disk holds back whoever produces.
PENDING_BYTES: Final = 32 * 1024 * 1024
#: What one queued event takes besides its body.
_OVERHEAD: Final = 200
#: Work orders (and runs) kept in memory while they can't be saved; the oldest are given up beyond.
_MAX_UNSAVED: Final = 10_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

#: Work order id, type, timestamp in milliseconds (None: ephemeral), body. A tuple, because there are so many.
Item = tuple[str, str, int | None, bytes]


@lru_cache(maxsize=16)
def milliseconds(moment: datetime) -> int:
    """Milliseconds of Unix time."""
    return (moment - _EPOCH) // _MILLISECOND


@attrs.define(eq=False)
class Batch:
    """One call of `append` on its way. Encoded by its caller, so that what can't be encoded hurts nobody else."""

    items: list[Item]
    orders: Mapping[str, tuple[WorkOrder, WorkOrderRow]]
    runs: Mapping[str, tuple[Run, RunRow]]
    born: float
    weight: int
    admitted: trio.Event = attrs.field(factory=trio.Event)
    done: trio.Event = attrs.field(factory=trio.Event)
    #: The journal ended before it could be carried out.
    failed: bool = False


def encode(events: Sequence[Event], work_orders: Sequence[WorkOrder], runs: Sequence[Run], born: float) -> Batch:
    """Everything that a call brings, as it will be stored. Raises ``TypeError`` for what is no JSON."""
    items: list[Item] = []
    weight = 0
    for event in events:
        body = wire.event_body(event)
        weight += len(body) + _OVERHEAD
        at = None if event.ephemeral else milliseconds(event.timestamp)
        items.append((event.work_order_id, event.type, at, body))
    order_rows = {
        order.id: (
            order,
            WorkOrderRow(order.id, order.status, milliseconds(order.updated_at), wire.to_json(order)),
        )
        for order in work_orders
    }
    run_rows = {
        run.id: (run, RunRow(run.id, run.work_order_id, run.run_number, run.status, wire.to_json(run))) for run in runs
    }
    return Batch(items, order_rows, run_rows, born, weight)


class Committer:
    """The queue and the task behind it."""

    def __init__(
        self,
        store: Store,
        publish: Publish,
        probe_seconds: tuple[float, float],
        observe_commit: Callable[[float], None] | None = None,
    ) -> None:
        #: The highest number that was published, or is being published this moment.
        self.head = store.writer.head
        self.not_journalled = 0
        self.pending_events = 0
        self.disk = Disk(
            store,
            floor=lambda: (self.next_seq - 1, self._last_at),
            recovered=self._save_unsaved,
            probe_seconds=probe_seconds,
        )
        #: What the disk doesn't have, as it is now; the oldest first.
        self.unsaved_orders: dict[str, tuple[WorkOrder, WorkOrderRow]] = {}
        self.unsaved_runs: dict[str, tuple[Run, RunRow]] = {}
        self.next_seq = store.writer.next_seq
        self._last_at = store.writer.last_at
        self._publish = publish
        self._observe_commit = observe_commit
        self._pending_bytes = 0
        self._queue: deque[Batch] = deque()
        #: Calls that wait for room, first come first served.
        self._line: deque[Batch] = deque()
        self._work = trio.Event()
        self._ended = False

    async def carry_out(self, batch: Batch) -> None:
        """Queue it and wait until it was published. Cancelled while it waits for room, it has done nothing; later, it is
        carried out nevertheless. Raises `trio.ClosedResourceError` when the journal ends before."""
        self._line.append(batch)
        self._admit()
        if not batch.admitted.is_set():
            try:
                await batch.admitted.wait()
            except trio.Cancelled:
                if not batch.admitted.is_set():
                    self._line.remove(batch)
                raise
        await batch.done.wait()
        if batch.failed:
            raise trio.ClosedResourceError("the journal ended before this was committed")

    async def run(self) -> None:
        """Commit group after group, for ever."""
        try:
            while True:
                await self._work.wait()
                group = self._next_group()
                if not self._queue:
                    self._work = trio.Event()
                try:
                    await self._deliver(group)
                except BaseException:
                    _fail(group)
                    raise
                for batch in group:
                    batch.done.set()
                    self.pending_events -= len(batch.items)
                    self._pending_bytes -= batch.weight
                self._admit()
        finally:
            self._ended = True
            _fail([*self._queue, *self._line])

    def _admit(self) -> None:
        if self._ended:
            _fail(self._line)
            self._line.clear()
        # What comes alone is always let in.
        while self._line and (not self._pending_bytes or self._pending_bytes + self._line[0].weight <= PENDING_BYTES):
            batch = self._line.popleft()
            self._queue.append(batch)
            self._pending_bytes += batch.weight
            self.pending_events += len(batch.items)
            batch.admitted.set()
        if self._queue:
            self._work.set()

    def _next_group(self) -> list[Batch]:
        group = [self._queue.popleft()]
        events, size = len(group[0].items), group[0].weight
        while self._queue:
            events += len(self._queue[0].items)
            size += self._queue[0].weight
            if events > _GROUP_EVENTS or size > _GROUP_BYTES:
                break
            group.append(self._queue.popleft())
        return group

    async def _deliver(self, group: list[Batch]) -> None:
        rows = await self._save(group)
        records: list[Record] = []
        numbers = iter(rows or ())
        for batch in group:
            born = batch.born
            for work_order_id, kind, at, body in batch.items:
                if at is None:
                    records.append(Record(None, work_order_id, kind, body, born))
                elif rows is None:
                    self.not_journalled += 1
                    records.append(Record(None, work_order_id, kind, wire.not_journalled(body), born))
                else:
                    records.append(Record(next(numbers)[0], work_order_id, kind, body, born))
        if rows:
            # Before publishing: who goes by `head` must never miss what a subscriber has already seen.
            self.head = rows[-1][0]
        if records:
            await self._publish(records)

    async def _save(self, group: list[Batch]) -> list[EventRow] | None:
        """The rows as they were committed, or None when the disk takes nothing."""
        orders = {name: order for batch in group for name, order in batch.orders.items()}
        runs = {name: run for batch in group for name, run in batch.runs.items()}
        if not orders and not runs and all(at is None for batch in group for _, _, at, _ in batch.items):
            return []
        disk = self.disk
        while disk.trouble is None:
            generation = disk.store.generation
            rows = self._number(group)
            began = trio.current_time()
            try:
                await disk.change(generation, _commit(rows, _rows(orders), _rows(runs)))
            except NotOpen:
                continue  # A reader met damage first. Once more, in the new database, with numbers above its floor.
            except sqlite3.Error as error:
                await disk.failed(error, generation)
                continue
            if self._observe_commit is not None:
                self._observe_commit(trio.current_time() - began)
            for name in orders:
                self.unsaved_orders.pop(name, None)
            for name in runs:
                self.unsaved_runs.pop(name, None)
            return rows
        _keep(self.unsaved_orders, orders)
        _keep(self.unsaved_runs, runs)
        return None

    def _number(self, group: list[Batch]) -> list[EventRow]:
        """Rows with the next numbers. A number is used up here, whatever becomes of the commit."""
        rows: list[EventRow] = []
        seq, latest = self.next_seq, self._last_at
        for batch in group:
            for work_order_id, kind, at, body in batch.items:
                if at is not None:
                    if at > latest:
                        latest = at
                    rows.append((seq, work_order_id, kind, latest, body))
                    seq += 1
        self.next_seq, self._last_at = seq, latest
        return rows

    def _save_unsaved(self) -> None:
        if self.unsaved_orders or self.unsaved_runs:
            self._line.append(Batch([], dict(self.unsaved_orders), dict(self.unsaved_runs), 0.0, 0))
            self._admit()


def _commit(
    events: Sequence[EventRow], work_orders: Sequence[WorkOrderRow], runs: Sequence[RunRow]
) -> Callable[[Writer], None]:
    return lambda writer: writer.commit(events, work_orders, runs)


def _rows(latest: Mapping[str, tuple[object, V]]) -> list[V]:
    return [row for _, row in latest.values()]


def _keep(unsaved: dict[str, V], latest: Mapping[str, V]) -> None:
    for name, value in latest.items():
        unsaved.pop(name, None)
        unsaved[name] = value
    while len(unsaved) > _MAX_UNSAVED:
        del unsaved[next(iter(unsaved))]


def _fail(batches: Sequence[Batch] | deque[Batch]) -> None:
    for batch in batches:
        batch.failed = True
        batch.admitted.set()
        batch.done.set()
