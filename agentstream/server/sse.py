"""Events as server-sent events: read from the journal after a cursor, then wait for the doorbell, then read on.

There is no second path for live events, so there is nothing to join: a stream that is slow, new or resumed is only a cursor
at another place, and neither misses nor repeats anything. What is not in the journal is not on it either: deltas, and what a
failing disk could not take; the WebSocket has those. Messages have no ``event:`` line, so a browser's ``onmessage`` gets them
all and tells them apart by ``type``, as over WebSocket; events alone have an ``id:``, their ``seq``.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final

import trio

from agentstream.errors import JournalError
from agentstream.journal.base import Journal, Record
from agentstream.model import wire
from agentstream.model.messages import Filters, Gap, ReplayComplete, ServerMessage, SubscriptionConfirmed

#: Read from the journal at once, for each stream: what a slow client costs in memory while it is sent to.
_PAGE: Final = 500
_PAGE_BYTES: Final = 256 * 1024
#: Seconds of silence after which a comment shows proxies, and us, that the connection lives.
KEEP_ALIVE: Final = 15.0


class Doorbell:
    """Rung with each batch that the journal published; wakes those who wait for one of its work orders.

    Take the bell (`listen`) before reading the journal: what is published after the read rings it, so nothing is slept through.
    """

    def __init__(self) -> None:
        # Weak: a bell that nobody listens to any more is gone by itself.
        self._bells: weakref.WeakValueDictionary[str, trio.Event] = weakref.WeakValueDictionary()

    def listen(self, work_order_id: str) -> trio.Event:
        """Set at the next batch with an event of ``work_order_id`` (``*``: of any)."""
        bell = self._bells.get(work_order_id)
        if bell is None:
            bell = self._bells[work_order_id] = trio.Event()
        return bell

    def ring(self, records: Sequence[Record]) -> None:
        """Something was published. Never blocks; costs next to nothing while nobody listens."""
        if not self._bells:
            return
        for work_order_id in {"*", *(record.work_order_id for record in records)}:
            bell = self._bells.pop(work_order_id, None)
            if bell is not None:
                bell.set()

    def ring_all(self) -> None:
        """Wake everybody: it is not an event that they are to look for."""
        for bell in list(self._bells.values()):
            bell.set()
        self._bells.clear()


async def start_of(
    journal: Journal, work_order_id: str, *, since: int | None, epoch: str | None, now: datetime
) -> tuple[int, Gap | None]:
    """Where to begin reading for a client that saw everything up to ``since`` of ``epoch``, and what it has missed for good."""
    if since is None:
        return 0, None
    if since > journal.head if epoch is None else epoch != journal.epoch:
        # A ``seq`` beyond the head can only be of another journal.
        gap = Gap(timestamp=now, work_order_id=work_order_id, from_seq=0, to_seq=since, reason="epoch")
        return 0, gap
    return since, await gap_after(journal, work_order_id, since, now)


async def gap_after(journal: Journal, work_order_id: str, seq: int, now: datetime) -> Gap | None:
    """What retention has taken from a reader that has everything up to ``seq``."""
    oldest = await journal.oldest(None if work_order_id == "*" else work_order_id)
    if seq + 1 >= oldest:
        return None
    return Gap(timestamp=now, work_order_id=work_order_id, from_seq=seq + 1, to_seq=oldest - 1, reason="retention")


def names(work_order_id: str) -> list[str] | None:
    """What `Journal.read` calls the same: None for ``*``."""
    return None if work_order_id == "*" else [work_order_id]


async def stream(
    journal: Journal,
    doorbell: Doorbell,
    work_order_id: str,
    *,
    since: int | None,
    epoch: str | None,
    now: Callable[[], datetime],
    allowed: Callable[[], bool] = lambda: True,
) -> AsyncIterator[bytes]:
    """The chunks of an event stream: confirmation, replay, ``replay_complete``, live. Endless, as long as it is ``allowed``.

    Whoever changes the answer of ``allowed`` rings all bells.
    """
    try:
        yield b"retry: 2000\n\n" + _message(
            SubscriptionConfirmed(
                timestamp=now(), work_order_id=work_order_id, epoch=journal.epoch, seq=journal.head, filters=Filters()
            )
        )
        cursor, gap = await start_of(journal, work_order_id, since=since, epoch=epoch, now=now())
        if gap is not None:
            yield _message(gap)
            cursor = gap.to_seq if gap.reason == "retention" else 0
        replaying = True
        while allowed():
            bell = doorbell.listen(work_order_id)
            records = await journal.read(
                cursor, work_order_ids=names(work_order_id), limit=_PAGE, max_bytes=_PAGE_BYTES
            )
            # A slow reader can be overtaken by retention. Looked at after the read: what goes in between is told, not lost.
            gap = await gap_after(journal, work_order_id, cursor, now()) if cursor else None
            if gap is not None:
                yield _message(gap)
            if records:
                yield b"".join(_event(record) for record in records)
                cursor = records[-1].seq or cursor
            elif gap is not None:
                cursor = gap.to_seq
            elif replaying:
                replaying = False
                yield _message(ReplayComplete(timestamp=now(), work_order_id=work_order_id, seq=cursor))
            else:
                with trio.move_on_after(KEEP_ALIVE) as quiet:
                    await bell.wait()
                if quiet.cancelled_caught:
                    yield b": alive\n\n"
    except JournalError:
        # The client comes back with its cursor; `/health` tells what is wrong with the disk.
        yield b": the journal can't be read\n\n"


def _event(record: Record) -> bytes:
    seq = record.seq or 0
    return b"id: %d\ndata: %b\n\n" % (seq, wire.with_seq(record.body, seq))


def _message(message: ServerMessage) -> bytes:
    return b"data: %b\n\n" % wire.to_json(message)
