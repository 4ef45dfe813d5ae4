"""One connection's outgoing side: its `Course` decides what goes out, its `Outlet` writes it, the journal has the rest.

Caught up, a batch is written directly, without blocking (`deliver`, called by the broadcaster). What the socket doesn't take
waits in the outlet, up to the backlog limit. Over it, the backlog is dropped: what it held is in the journal. From then on
the connection holds nothing but a frame that was begun, whatever passes; when its socket takes again, it reads pages from the
journal after the last ``seq`` that was handed over, and joins live again in the same step that finds it at the head.

So a thousand stalled connections cost a thousand cursors, and up to the limit each of bytes that are shared among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import attrs
import structlog
import trio

from agentstream.agents.base import Moment
from agentstream.broadcast.batch import ALL, Batch, Chunk
from agentstream.broadcast.frames import event_frame, frame
from agentstream.broadcast.limiter import Limiter
from agentstream.broadcast.outlet import Outlet, nothing_more
from agentstream.broadcast.subscription import Course, Mixed, Notice, Read
from agentstream.errors import JournalError
from agentstream.journal.base import Journal, Record
from agentstream.model import wire
from agentstream.model.messages import Filters, ServerMessage

log = structlog.get_logger()

#: Records of one page. A page costs a thread hop (0.1 to 0.3 ms), which this many make small beside their encoding.
PAGE_RECORDS: Final = 512
#: Bytes of bodies with which a page ends (it may exceed them by one record): what a connection holds while it is sent.
PAGE_BYTES: Final = 192 * 1024
#: Bytes of answers and pages that may wait before a client's next message is looked at.
ANSWER_BYTES: Final = 256 * 1024
#: Seconds until the journal is asked again when it could not be read.
_RETRY_SECONDS: Final = 1.0


def moment() -> Moment:
    """Now, by both clocks."""
    return Moment(datetime.now(UTC), trio.current_time())


class Hub(Protocol):
    """What a subscriber needs of its broadcaster."""

    @property
    def position(self) -> int:
        """The highest ``seq`` whose delivery has begun."""

    @property
    def journal(self) -> Journal:
        """Where the past is."""

    @property
    def page_limiter(self) -> trio.CapacityLimiter:
        """How many pages are in memory whole at the same time."""

    def announced(self) -> tuple[int, Sequence[Record]]:
        """The work orders that were created lately, and the ``seq`` from which on these are all."""

    def fell_back(self) -> None:
        """A subscriber's backlog was dropped."""


@attrs.define(eq=False)
class Subscriber:
    """One connection, from authentication to its end. Made by `EventBroadcaster.connect`."""

    hub: Hub
    outlet: Outlet
    backlog_limit: int
    course: Course = attrs.field(factory=Course)

    def __attrs_post_init__(self) -> None:
        self.outlet.refill = self._refill

    def let_go(self) -> None:
        """Nothing more is delivered. What refers to us no longer does, so that a connection is gone as soon as it has ended."""
        self.outlet.refill = nothing_more

    # --- live ------------------------------------------------------------------------------------------------------

    def deliver(self, batch: Batch, only: str | None) -> int:
        """What of the batch this connection wants, now or as soon as can be; how many frames. Never blocks."""
        # The first branch is `Course.select` with its calls opened up: it runs for each event and subscriber.
        course, chunk = self.course, None
        ready = course.ready.get(only or "")
        if ready is not None and batch.first > ready[1] and ready[0] in batch.chunks:
            chunk = batch.chunks[ready[0]]
            course.served = batch.last or course.served
        else:
            try:
                chunk = course.select(batch, only)
            except Mixed:
                return self._deliver_chosen(batch, course.choose(batch, moment()))
        if chunk is None:
            return 0
        outlet = self.outlet
        outlet.put(chunk.data, chunk)
        if outlet.waiting > self.backlog_limit:
            self._fall_behind()
        return len(chunk.lengths)

    def _deliver_chosen(self, batch: Batch, chosen: list[Record | Notice]) -> int:
        run: list[Record] = []
        for one in [*chosen, None]:
            if isinstance(one, Record):
                run.append(one)
                continue
            chunk = batch.join(run)
            if chunk is not None:
                self._put(chunk)
            run = []
            if one is not None:
                # A notice can't be read again from the journal, so it is never dropped.
                self.outlet.put(frame(wire.to_json(one)))
        return len(chosen)

    def _put(self, chunk: Chunk) -> None:
        # An earlier part of the same batch may have been too much already; then this one is in the journal.
        if not self.course.behind:
            self.outlet.put(chunk.data, chunk)
            if self.outlet.waiting > self.backlog_limit:
                self._fall_behind()

    def _fall_behind(self) -> None:
        lowest = self.outlet.drop()
        if lowest is not None:
            self.course.fall_behind(lowest - 1)
            self.hub.fell_back()

    # --- answers ---------------------------------------------------------------------------------------------------

    def say(self, message: ServerMessage) -> None:
        """Send a message after what waits already, without blocking."""
        self.outlet.put(frame(wire.to_json(message)))

    async def room(self) -> None:
        """Wait while more than `ANSWER_BYTES` wait: a client that sends without reading waits for itself."""
        await self.outlet.room(max(ANSWER_BYTES, self.backlog_limit))

    def subscribe(
        self, work_order_id: str, filters: Filters, *, since: int | None, max_events_per_second: float | None
    ) -> None:
        """As `Course.subscribe`; call `EventBroadcaster.subscribe`, which also sees to the index."""
        limiter = None if max_events_per_second is None else Limiter(max_events_per_second, trio.current_time())
        self.outlet.keep()
        self.course.subscribe(work_order_id, filters, head=self.hub.position, since=since, limiter=limiter)
        if self.course.catching_up:
            self.outlet.wake()

    def unsubscribe(self, work_order_id: str) -> bool:
        """As `Course.unsubscribe`; call `EventBroadcaster.unsubscribe`."""
        self.outlet.keep()
        return self.course.unsubscribe(work_order_id)

    @property
    def settled(self) -> bool:
        """Everything that was published has been handed to the kernel."""
        return not self.outlet.open or not (self.outlet.busy or self.course.catching_up)

    # --- from the journal ------------------------------------------------------------------------------------------

    async def _refill(self) -> bool:
        """Queue the next page; False when all is live. Awaited by the outlet's pump, when nothing waits."""
        if not self.course.catching_up:
            return False
        # A stalled connection must not hold a page, also when what was dropped left nothing to be written.
        await self.outlet.writable()
        announced_from, announced = self.hub.announced()
        read = self.course.next_read(self.hub.position, announced_from=announced_from)
        if read is None:
            return False
        try:
            page, complete, oldest = await self._read(read)
        except JournalError as error:
            # Who is live goes on; who is behind waits until the disk is back.
            log.warning("a page for a subscriber could not be read", error=error.message)
            self.outlet.wake_later(_RETRY_SECONDS)
            return False
        chosen = self.course.take(
            read,
            page,
            complete=complete,
            head=self.hub.position,
            oldest=oldest,
            at=moment(),
            announced=announced if read.subscription is None else (),
        )
        # In one piece with `take`: what is published from now on is queued behind it.
        self.outlet.put(b"".join([event_frame(x) if isinstance(x, Record) else frame(wire.to_json(x)) for x in chosen]))
        return True

    async def _read(self, read: Read) -> tuple[list[Record], bool, dict[str, int]]:
        """A page, whether it is all there is, and what was trimmed of its subjects when it was read."""
        ids = None if read.work_order_ids is None else list(read.work_order_ids)
        journal = self.hub.journal
        async with self.hub.page_limiter:
            trimmed: dict[str, int] | None = None
            while True:
                page: list[Record] = []
                if read.after < read.up_to and ids != []:
                    page = await journal.read(
                        read.after, up_to=read.up_to, work_order_ids=ids, limit=PAGE_RECORDS, max_bytes=PAGE_BYTES
                    )
                known, trimmed = trimmed, await self._trimmed(read)
                # Was that trimmed before the page was read, or after? Only where nothing more was, the page tells.
                if not trimmed or trimmed == known:
                    break
        complete = len(page) < PAGE_RECORDS and sum([len(record.body) for record in page]) < PAGE_BYTES
        return page, complete, trimmed

    async def _trimmed(self, read: Read) -> dict[str, int]:
        """`Journal.oldest` of the page's subjects; empty when it can't concern the page."""
        journal = self.hub.journal
        everything = await journal.oldest(None)
        if everything <= read.after + 1:
            return {}
        return {key: everything if key == ALL else await journal.oldest(key) for key in read.subjects}
