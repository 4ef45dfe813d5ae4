"""One for the daemon: takes what the journal published and hands it to everybody who wants it. Nobody is waited for.

`EventBroadcaster.run` takes all batches that wait in the memory channel as one, so that under load more events share each
system call. An index by work order id leads straight to who is concerned: connections that are not cost nothing.

``position`` is the highest ``seq`` whose delivery has begun; together with the list of those concerned, it is fixed in one
step. Delivery itself gives way to other tasks every few milliseconds. Who subscribes in between begins after ``position``,
so the batch on its way doesn't concern him; who ends or changes a subscription in between is asked again when his turn
comes (`agentstream.broadcast.subscription`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import structlog
import trio

from agentstream.broadcast.batch import ALL, CREATED, Batch
from agentstream.broadcast.emitter import Emitter
from agentstream.broadcast.outlet import Outlet
from agentstream.broadcast.subscriber import Subscriber
from agentstream.journal.base import Journal, Record
from agentstream.model.messages import Filters

log = structlog.get_logger()

#: Bytes that may wait for one connection before it has to catch up from the journal.
DEFAULT_BACKLOG: Final = 1024 * 1024
#: Records and bytes of bodies of one batch (it may exceed them by one record). They bound how long one delivery takes, and
#: how much a connection's backlog can grow in one step.
_BATCH_RECORDS: Final = 1024
_BATCH_BYTES: Final = 256 * 1024
#: Seconds after which a delivery gives way. The promise is 5 ms; one more delivery may begin just before this.
_SLICE: Final = 0.002
#: Deliveries between two looks at the clock, and bytes: 10 us a delivery, and the kernel copies some 2 GB/s.
_LOOK: Final = 8
_LOOK_BYTES: Final = 256 * 1024
#: Pages that may be in memory whole at the same time: 192 KiB each, or one record of 64 KiB more.
_PAGES: Final = 8
#: Created work orders that are remembered for connections that catch up, in records and in bytes: what is older they read again.
_ANNOUNCED: Final = 1000
_ANNOUNCED_BYTES: Final = 4 * 1024 * 1024

Tap = Callable[[Sequence[Record]], None]
DeltasWanted = Callable[[str, bool], None]


@attrs.frozen(kw_only=True)
class BroadcastStatistics:
    """A frozen look at the broadcaster, for health and metrics."""

    #: Open connections, and what they subscribed to.
    subscribers: int
    subscriptions: int
    #: Bytes that wait in memory, of all connections (frames that several wait for counted for each).
    backlog_bytes: int
    #: Connections that read from the journal now, and how often one fell back to it.
    catching_up: int
    catch_ups: int
    #: Connections that were closed because they took nothing.
    stalled: int
    #: Live frames handed over.
    delivered: int
    #: Records taken from the journal, ephemeral ones among them.
    published: int


class EventBroadcaster(Emitter):
    """Delivers to subscribers what a journal publishes; ``emit_...`` and ``broadcast`` put events into that journal.

    ``taps`` are called with each batch before anybody gets it; they must not block or raise. ``deltas_wanted(id, wanted)`` is
    called when the first subscription with ``includeDeltas`` comes and when the last one goes. ``observe_latency`` gets the seconds
    from reading the agent's line to the sockets, of the oldest record in each delivery.
    """

    def __init__(
        self,
        receive_channel: trio.MemoryReceiveChannel[Sequence[Record]],
        journal: Journal,
        *,
        backlog_limit: int = DEFAULT_BACKLOG,
        taps: Sequence[Tap] = (),
        deltas_wanted: DeltasWanted = lambda _work_order_id, _wanted: None,
        observe_latency: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(journal)
        self._receive = receive_channel
        self._backlog_limit = backlog_limit
        self._taps = tuple(taps)
        self._deltas_wanted = deltas_wanted
        self._observe_latency = observe_latency
        self._position = journal.head
        self._all: dict[Subscriber, None] = {}
        self._index: dict[str, dict[Subscriber, None]] = {}
        self._with_deltas: dict[str, set[Subscriber]] = {}
        self._announced: deque[Record] = deque()
        self._announced_bytes = 0
        self._announced_from = self._position + 1
        self._page_limiter = trio.CapacityLimiter(_PAGES)
        self._catch_ups = self._stalled = self._delivered = self._published = 0

    # --- what a subscriber needs (`subscriber.Hub`) -----------------------------------------------------------------

    @property
    def position(self) -> int:
        """The highest ``seq`` whose delivery has begun."""
        return self._position

    @property
    def journal(self) -> Journal:
        """The journal whose records these are."""
        return self._journal

    @property
    def page_limiter(self) -> trio.CapacityLimiter:
        """How many pages are in memory whole at the same time."""
        return self._page_limiter

    def announced(self) -> tuple[int, Sequence[Record]]:
        """The work orders that were created lately, and the ``seq`` from which on these are all."""
        return self._announced_from, self._announced

    def fell_back(self) -> None:
        """A subscriber's backlog was dropped."""
        self._catch_ups += 1

    # --- connections -----------------------------------------------------------------------------------------------

    def connect(self, outlet: Outlet) -> Subscriber:
        """An authenticated connection; it gets every `WorkOrderCreated` from now on. End it with `disconnect`."""
        subscriber = Subscriber(self, outlet, self._backlog_limit)
        self._all[subscriber] = None
        return subscriber

    def disconnect(self, subscriber: Subscriber) -> None:
        """Forget a connection; harmless when it is forgotten already."""
        if subscriber not in self._all:
            return
        del self._all[subscriber]
        subscriber.let_go()
        if subscriber.outlet.stalled:
            self._stalled += 1
        for subscription in subscriber.course.subscriptions():
            self._leave(subscription.work_order_id, subscriber)
            self._want_deltas(subscription.work_order_id, subscriber, False)

    def subscribe(
        self,
        subscriber: Subscriber,
        work_order_id: str,
        filters: Filters,
        *,
        since: int | None = None,
        max_events_per_second: float | None = None,
    ) -> None:
        """Let a connection have a work order's events (``"*"``: all), from now on or after a replay of what came after ``since``.

        Say the confirmation first, in the same step. Subscribing again replaces the filters.
        """
        subscriber.subscribe(work_order_id, filters, since=since, max_events_per_second=max_events_per_second)
        self._index.setdefault(work_order_id, {})[subscriber] = None
        self._want_deltas(work_order_id, subscriber, filters.include_deltas and filters.include_output)

    def unsubscribe(self, subscriber: Subscriber, work_order_id: str) -> bool:
        """End a subscription; False when there was none."""
        ended = subscriber.unsubscribe(work_order_id)
        if ended:
            self._want_deltas(work_order_id, subscriber, False)
            # A remainder (`subscription`) needs no entry of its own: "*" has one.
            self._leave(work_order_id, subscriber)
        return ended

    def _leave(self, work_order_id: str, subscriber: Subscriber) -> None:
        those = self._index.get(work_order_id)
        if those is not None:
            those.pop(subscriber, None)
            if not those:
                del self._index[work_order_id]

    def _want_deltas(self, work_order_id: str, subscriber: Subscriber, wanted: bool) -> None:
        those = self._with_deltas.get(work_order_id)
        if wanted:
            if those is None:
                those = self._with_deltas[work_order_id] = set()
                self._deltas_wanted(work_order_id, True)
            those.add(subscriber)
        elif those is not None and subscriber in those:
            those.remove(subscriber)
            if not those:
                del self._with_deltas[work_order_id]
                self._deltas_wanted(work_order_id, False)

    def statistics(self) -> BroadcastStatistics:
        """A frozen look."""
        return BroadcastStatistics(
            subscribers=len(self._all),
            subscriptions=sum(len(one.course.subscriptions()) for one in self._all),
            backlog_bytes=sum(one.outlet.waiting for one in self._all),
            catching_up=sum(one.course.catching_up for one in self._all),
            catch_ups=self._catch_ups,
            stalled=self._stalled,
            delivered=self._delivered,
            published=self._published,
        )

    # --- delivery --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what comes through the channel, until its sending side is closed."""
        task_status.started()
        async with self._receive:
            async for records in self._receive:
                waiting = list(records)
                # What is waiting already travels with it. Bounded by the channel's own bound.
                while True:
                    try:
                        waiting += self._receive.receive_nowait()
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                for batch in _batches(waiting):
                    await self._deliver(batch)

    async def _deliver(self, batch: Batch) -> None:
        until = time.perf_counter() + _SLICE
        for tap in self._taps:
            tap(batch.records)
        self._remember(batch)
        self._position = max(self._position, batch.last)
        look = max(1, min(_LOOK, _LOOK_BYTES // max(1, batch.size)))
        delivered = number = 0
        for only, subscribers in self._concerned(batch):
            for subscriber in subscribers:
                try:
                    delivered += subscriber.deliver(batch, only)
                except Exception:
                    # A fault of ours with one connection must not stop the others' events.
                    log.exception("a delivery failed; its connection is closed")
                    subscriber.outlet.abort()
                number += 1
                if not number % look and time.perf_counter() > until:
                    await trio.lowlevel.checkpoint()
                    until = time.perf_counter() + _SLICE
        self._published += len(batch.records)
        self._delivered += delivered
        if delivered and self._observe_latency is not None:
            born = next((record.born for record in batch.records if record.born), None)
            if born is not None:
                self._observe_latency(trio.current_time() - born)

    def _concerned(self, batch: Batch) -> list[tuple[str | None, list[Subscriber]]]:
        """Whom the batch concerns, by which of their subscriptions; None: by several, or it announces a work order."""
        hit = [(key, self._index[key]) for key in (*batch.by_id, ALL) if key in self._index]
        if len(hit) == 1 and not batch.has_created:
            return [(key, list(those)) for key, those in hit]
        concerned: dict[Subscriber, str | None] = {}
        for key, those in hit:
            for subscriber in those:
                concerned[subscriber] = None if subscriber in concerned else key
        if batch.has_created:
            for subscriber in self._all:
                if concerned.get(subscriber) != ALL:
                    concerned[subscriber] = None
        groups: dict[str | None, list[Subscriber]] = {}
        for subscriber, only in concerned.items():
            groups.setdefault(only, []).append(subscriber)
        return list(groups.items())

    def _remember(self, batch: Batch) -> None:
        if not batch.has_created:
            return
        for record in batch.records:
            if record.type == CREATED and record.seq is not None:
                self._announced.append(record)
                self._announced_bytes += len(record.body)
        while len(self._announced) > _ANNOUNCED or self._announced_bytes > _ANNOUNCED_BYTES:
            forgotten = self._announced.popleft()
            self._announced_bytes -= len(forgotten.body)
            assert forgotten.seq is not None
            self._announced_from = forgotten.seq + 1


def _batches(records: list[Record]) -> list[Batch]:
    batches: list[Batch] = []
    start = size = 0
    for end, record in enumerate(records, 1):
        size += len(record.body)
        if size >= _BATCH_BYTES or end - start >= _BATCH_RECORDS:
            batches.append(Batch(records[start:end]))
            start, size = end, 0
    if start < len(records):
        batches.append(Batch(records[start:]))
    return batches
