"""The journal: the durable, ordered record of what happened, and the source of truth for replay.

Promise 2, durable before visible: `Journal.append` gives each event its ``seq``, commits, and only then hands the records,
strictly in the order of ``seq`` over all runs, to the one ``publish`` function it was opened with (the daemon's memory channel
into the broadcaster). When ``append`` returns, that has happened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

import attrs

from agentstream.model.events import Event, WorkOrderStatus
from agentstream.model.orders import Run, WorkOrder


@attrs.frozen
class Record:
    """One journalled event as it travels: encoded once, never decoded on the way.

    ``seq`` is None for what is not in the journal: ephemeral events, and events that a failing disk could not take (their
    body says ``"journalled":false``).
    """

    seq: int | None
    work_order_id: str
    type: str
    #: JSON text of the event without ``seq`` (`wire.event_body`).
    body: bytes
    #: Monotonic seconds when the agent's line was read; 0.0 on replay. For the latency histogram only.
    born: float = 0.0


Publish = Callable[[Sequence[Record]], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Page:
    """A part of a list, newest first; ``cursor`` fetches the next part and is None at the end."""

    items: tuple[WorkOrder, ...]
    cursor: str | None


@attrs.frozen(kw_only=True)
class JournalStatistics:
    """A frozen look at the journal, for health and metrics."""

    head: int
    oldest_seq: int
    events: int
    size_bytes: int
    #: Events handed over but not yet committed.
    pending: int
    #: None when all is well, otherwise what is wrong with the disk.
    trouble: str | None
    #: Events that could not be journalled since the start.
    not_journalled: int


class Journal(Protocol):
    """What a journal does. All methods are for the one Trio thread; blocking work happens in threads of its own."""

    @property
    def epoch(self) -> str:
        """Names this journal; another one (a new file) has another epoch.

        It changes while the daemon runs when a damaged file is replaced; ``seq`` goes on rising over that, and what the old
        file held counts as trimmed.
        """

    @property
    def head(self) -> int:
        """The highest ``seq`` that was published, or is being published this moment; 0 in an empty journal.

        It rises just before ``publish`` is called, so that replay up to `head` and then live events leave no hole; what comes
        twice is told by its ``seq``.
        """

    def statistics(self) -> JournalStatistics:
        """A frozen look, without touching the disk."""

    async def append(
        self,
        events: Sequence[Event],
        *,
        work_orders: Sequence[WorkOrder] = (),
        runs: Sequence[Run] = (),
        born: float = 0.0,
    ) -> None:
        """Commit events, and the given work orders and runs as they are now, in one transaction; then publish.

        Batches of many callers share a transaction (group commit); the order of calls is the order of ``seq``. A call that
        was cancelled after it was taken up is carried out nevertheless. Events are published also when the disk fails; then
        they say so (`Record`). Ephemeral events are published in their place in the order without being written.
        """

    async def read(
        self,
        after: int,
        *,
        up_to: int | None = None,
        work_order_ids: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int | None = None,
    ) -> list[Record]:
        """Records with ``after < seq <= up_to``, ascending, at most ``limit``; of all work orders, or of those named.

        ``up_to`` None: up to `head`, which no record is ever above. ``max_bytes`` ends the page with the record that reaches so
        many bytes of bodies, so a page that is shorter than ``limit`` need not be the last: an empty one is. Raises
        `JournalError` when the disk can't be read, as do all that follow.
        """

    async def oldest(self, work_order_id: str | None) -> int:
        """The lowest ``seq`` from which on nothing of the work order (None: of any) was trimmed; 1 when nothing ever was.

        A client that saw everything up to ``seq`` has a gap exactly when ``seq + 1 < oldest``.
        """

    async def seq_before_time(self, moment: datetime, work_order_id: str | None) -> int:
        """The ``since_seq`` that replays everything at or after ``moment``, and perhaps a little from before.

        Where some of that was trimmed, it is low enough for the caller to find the gap with `oldest`.
        """

    async def seq_before_last(self, count: int, work_order_id: str | None) -> int:
        """The ``since_seq`` that replays the last ``count`` events."""

    async def work_order(self, work_order_id: str) -> WorkOrder | None:
        """One work order as it was last committed."""

    async def work_orders(
        self, *, status: WorkOrderStatus | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Work orders, newest first. Raises `InvalidMessage` for a cursor that is none of ours."""

    async def unfinished(self) -> tuple[list[WorkOrder], list[Run]]:
        """Work orders that are queued or running, oldest first, and runs that are running: what a restart must look at."""

    async def run(self, run_id: str) -> Run | None:
        """One run as it was last committed."""

    async def runs(self, work_order_id: str) -> list[Run]:
        """The runs of a work order, by number."""

    async def aclose(self) -> None:
        """Commit what is pending, checkpoint, close."""
