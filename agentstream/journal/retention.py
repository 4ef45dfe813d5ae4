"""What the journal keeps, and how the rest goes: in the background, in small steps, one work order at a time.

Age and size take whole work orders, the longest untouched first: its events, then its rows, and its runs' raw logs
(which the caller removes: the journal knows only their names). The count takes the oldest events of a work order that
has too many. A work order that is queued or running is never touched; each step looks again within its own transaction,
because a further run may have been queued since the round began. Between steps the writer is free for appends.

What was trimmed stays known for each work order (`Journal.oldest`), in a row of some 60 bytes, for the `TOMBSTONES`
work orders that were trimmed last. A client that comes back even later to one of the others is told that there is
nothing, not that something is missing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import attrs
import trio

from agentstream.journal.reader import Reader, Victim
from agentstream.journal.writer import Writer

T = TypeVar("T")

#: Streams without events that are remembered: 6 MB.
TOMBSTONES: Final = 100_000
#: Seconds between two steps of a round, several times what a step takes: trimming has a small part of the disk's time.
_PAUSE: Final = 0.05
#: Free pages (4 KiB) given back to the file system in one step.
_VACUUM_PAGES: Final = 500

RemoveDirectories = Callable[[Sequence[str]], Awaitable[None]]


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{attribute.name} must be > 0: {value}")


@attrs.frozen(kw_only=True)
class Retention:
    """What is kept; None: no limit. Whatever is queued or running is kept besides."""

    #: Seconds since the last event or change of an ended work order.
    max_age_seconds: float | None = attrs.field(default=30 * 86_400.0, validator=_positive)
    #: Bytes of the database in use. Raw logs are not counted.
    max_bytes: int | None = attrs.field(default=4 * 1024**3, validator=_positive)
    #: Events of one ended work order.
    max_events_per_work_order: int | None = attrs.field(default=1_000_000, validator=_positive)
    #: Seconds from the end of a round to the next.
    interval_seconds: float = attrs.field(default=60.0, validator=_positive)


DEFAULT_RETENTION: Final = Retention()


class Database(Protocol):
    """What a round needs of the journal. Raises `NotOpen` when the database is not the one any more that the round began on."""

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """A question, in a reader's thread."""

    async def change(self, work: Callable[[Writer], T]) -> T:
        """A transaction, in the writer's thread."""

    def protected(self) -> frozenset[str]:
        """Work orders whose present state the disk doesn't have."""


async def run_round(
    retention: Retention, database: Database, remove_directories: RemoveDirectories | None, *, now: float | None = None
) -> int:
    """One round; returns how many events were removed. ``now`` is Unix time in seconds."""
    round_ = _Round(database, remove_directories)
    if (age := retention.max_age_seconds) is not None:
        before = int(((time.time() if now is None else now) - age) * 1000)
        while victims := await database.ask(lambda reader: reader.ended(before=before)):
            if not [victim for victim in victims if await round_.remove(victim)]:
                break  # All of them are in use again.
    if (most := retention.max_events_per_work_order) is not None:
        for victim in await database.ask(lambda reader: reader.ended(more_than=most)):
            await round_.trim(victim, leave=most)
    if (size := retention.max_bytes) is not None:
        while await database.change(lambda writer: writer.used_bytes) > size:
            victims = await database.ask(lambda reader: reader.ended(limit=1))
            if not victims or not await round_.remove(victims[0]):
                break
    await round_.tidy()
    return round_.removed


class _Round:
    def __init__(self, database: Database, remove_directories: RemoveDirectories | None) -> None:
        self._database = database
        self._remove_directories = remove_directories
        self.removed = 0

    async def trim(self, victim: Victim, *, leave: int) -> None:
        """Remove all events but the last ``leave``."""
        protected = self._database.protected()
        while removed := await self._database.change(lambda writer: writer.trim(victim.number, leave, protected)):
            self.removed += removed
            await trio.sleep(_PAUSE)

    async def remove(self, victim: Victim) -> bool:
        """Remove a work order; False when it is in use again."""
        await self.trim(victim, leave=0)
        directories = await self._database.ask(lambda reader: reader.directories(victim.number))
        protected = self._database.protected()
        if not await self._database.change(lambda writer: writer.may_remove(victim.number, protected)):
            return False
        # The rows go last: where this is cut short, the next round finds the directories again.
        if directories and self._remove_directories is not None:
            await self._remove_directories(directories)
        return await self._database.change(lambda writer: writer.remove(victim.number, protected))

    async def tidy(self) -> None:
        """Forget what was trimmed longest ago, and give free pages back."""
        numbers = await self._database.ask(lambda reader: reader.forgettable(TOMBSTONES))
        if numbers:
            await self._database.change(lambda writer: writer.forget(numbers))
        while await self._database.change(lambda writer: writer.vacuum(_VACUUM_PAGES)):  # noqa: ASYNC110
            await trio.sleep(_PAUSE)  # It waits for nothing: it leaves the writer to others.
