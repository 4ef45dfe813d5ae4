"""Turns a burst of events into few deliveries, without delaying the first one and without losing any.

`Throttle` is pure: events and the time go in, what is to be delivered now comes out. `ThrottledChannel` is the run's memory
channel with a throttle in it: readers send, one pump task delivers.

What happens to an event depends on its kind:

- *Agent output*: the first after 100 ms without any passes at once. What follows within the window waits, is merged in order, text
  joined by a newline, and is released when the window closes.
- *Tool calls*: the same with 50 ms, but each stays an event of its own; only their release is shared.
- *Deltas* of output: the same with 50 ms, joined raw, because they are pieces of one text.
- *All others* pass at once: errors and lifecycle because they must (promise 6), the rest because it is rare, or has to be in its
  place between what came before and after it.

An event of any other kind first releases what waits. So only one kind ever waits, and the order of events is never changed.
Outputs are merged only while their ``message_id`` and ``parent_tool_use_id`` are equal: a merged event of two messages could
name only one of them. The merged event keeps the first one's timestamp, so timestamps don't run backwards either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from agentstream.model.events import AgentOutput, AgentOutputDelta, AgentToolCall, Event
from agentstream.model.limits import encoded_size

#: Seconds in which further events of a kind wait. A delta is what somebody watches being typed: 20 pictures a second are smooth.
_WINDOWS: Final[Mapping[type[Event], float]] = {AgentOutput: 0.1, AgentToolCall: 0.05, AgentOutputDelta: 0.05}
#: How the texts of a kind are joined; a kind without an entry is released together, but not merged.
_SEPARATORS: Final[Mapping[type[Event], str]] = {AgentOutput: "\n", AgentOutputDelta: ""}
_TEXTS: Final = (AgentOutput, AgentOutputDelta)
#: Bytes of JSON that are merged into one event: half of what an event may have on the wire (`limits.MAX_EVENT_BYTES`).
MAX_MERGED_BYTES: Final = 32 * 1024
#: Events that wait at most. An agent makes a handful in 50 ms; a flood gains nothing from larger batches.
MAX_WAITING: Final = 256
#: Events that `ThrottledChannel` holds for the pump before `ThrottledChannel.send` waits, besides the batch that reached it.
CHANNEL_CAPACITY: Final = 1024


class Throttle:
    """The rules above. ``now`` is in seconds of any clock that never goes back."""

    def __init__(self) -> None:
        self._released_at: dict[type[Event], float] = {}
        # All of one kind.
        self._waiting: list[Event] = []
        self._waiting_bytes = 0
        self._deadline = math.inf

    def push(self, event: Event, now: float) -> list[Event]:
        """What is to be delivered now that ``event`` has come, in order."""
        kind = type(event)
        window = _WINDOWS.get(kind)
        if window is None:
            return [*self.flush(now), event] if self._waiting else [event]
        size = encoded_size(event.content) if isinstance(event, _TEXTS) else 0
        released: list[Event] = []
        if self._waiting and (
            type(self._waiting[0]) is not kind
            or now >= self._deadline
            or len(self._waiting) >= MAX_WAITING
            or self._waiting_bytes + size > MAX_MERGED_BYTES
        ):
            released = self.flush(now)
        if not self._waiting:
            self._deadline = self._released_at.get(kind, -math.inf) + window
            if now >= self._deadline:
                self._released_at[kind] = now
                released.append(event)
                return released
        self._waiting.append(event)
        self._waiting_bytes += size
        return released

    def next_deadline(self) -> float | None:
        """When `due` will have something to deliver; None while nothing waits."""
        return self._deadline if self._waiting else None

    def due(self, now: float) -> list[Event]:
        """What is to be delivered because its window has closed."""
        return self.flush(now) if self._waiting and now >= self._deadline else []

    def flush(self, now: float) -> list[Event]:
        """Everything that waits, in order."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not waiting:
            return waiting
        kind = type(waiting[0])
        self._released_at[kind] = now
        separator = _SEPARATORS.get(kind)
        return waiting if separator is None else _merge(waiting, separator)


def _message(event: AgentOutput | AgentOutputDelta) -> tuple[str | None, ...]:
    parent = event.parent_tool_use_id if isinstance(event, AgentOutput) else None
    return event.run_id, event.message_id, parent


def _merge(events: Sequence[Any], separator: str) -> list[Event]:
    merged: list[Event] = []
    for _, group in itertools.groupby(events, key=_message):
        first, *more = group
        text = separator.join([first.content, *(event.content for event in more)])
        merged.append(attrs.evolve(first, content=text) if more else first)
    return merged


@attrs.frozen(kw_only=True)
class ChannelStatistics:
    """A frozen look at a `ThrottledChannel`."""

    #: Events that the pump has not taken yet.
    queued: int
    #: Tasks that wait in `ThrottledChannel.send`.
    senders_waiting: int
    closed: bool


class ThrottledChannel:
    """The bounded memory channel between the tasks of a run that make events, and the one sink that takes them.

    While a sink call is in progress events accumulate and go into the next call together: the slower the sink, the larger its
    batches. Beyond the bound `send` waits. That holds up only our reading of the spool file, never the agent.

    A batch is taken whole or not at all, so at most `CHANNEL_CAPACITY` events plus one batch are held.
    """

    def __init__(self, *, capacity: int = CHANNEL_CAPACITY) -> None:
        self._capacity = capacity
        self._throttle = Throttle()
        self._queue: list[Event] = []
        self._filled = trio.Event()
        self._senders = trio.lowlevel.ParkingLot()
        self._closed = False
        self._broken = False

    def statistics(self) -> ChannelStatistics:
        """A frozen look."""
        return ChannelStatistics(
            queued=len(self._queue), senders_waiting=self._senders.statistics().tasks_waiting, closed=self._closed
        )

    async def send(self, events: Sequence[Event]) -> None:
        """Hand over ``events``, after all that were sent before; waits while the channel is full.

        Raises `trio.ClosedResourceError` after `close`. You do *not* get an error when the sink failed: what is sent then is
        dropped, so that readers can go on to their end while the sink's exception takes its way out of `run`.
        """
        # No checkpoint when there is room: readers have one for each chunk that they read.
        while len(self._queue) >= self._capacity and not self._closed and not self._broken:
            await self._senders.park()
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if events and not self._broken:
            self._queue.extend(events)
            self._filled.set()

    def close(self) -> None:
        """Nothing more will be sent: `run` delivers what is left and returns. Harmless twice. For the one owner of the channel."""
        self._closed = True
        self._filled.set()
        self._senders.unpark_all()

    async def run(
        self,
        sink: Callable[[list[Event]], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver, one `sink` call per batch, until `close`. What the sink raises ends it.

        When it is cancelled, what was not delivered is lost: whoever wants everything calls `close` and lets it end by itself.
        """
        task_status.started()
        try:
            while True:
                self._filled = trio.Event()
                closed = self._closed
                if batch := self._take(trio.current_time()):
                    await sink(batch)
                elif closed:
                    return
                else:
                    deadline = self._throttle.next_deadline()
                    with trio.move_on_at(math.inf if deadline is None else deadline):
                        await self._filled.wait()
        finally:
            self._broken = not self._closed
            self._queue.clear()
            self._senders.unpark_all()

    def _take(self, now: float) -> list[Event]:
        queue, self._queue = self._queue, []
        self._senders.unpark_all()
        throttle = self._throttle
        batch = throttle.due(now)
        for event in queue:
            batch += throttle.push(event, now)
        if self._closed:
            batch += throttle.flush(now)
        return batch
