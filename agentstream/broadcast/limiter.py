"""A subscription's rate limit: what is skipped, and the count of it that the client is told. Pure; time is an argument.

A token bucket. Every event takes a token; where there is none left, events of low priority are skipped and all others pass.
Skipping rather than merging: a merged event would have no ``seq`` of its own, and the count with its range of ``seq`` lets a
client fetch what it missed. The count is told before the next event that passes; each run ends with one that does.

A connection that falls behind asks about the same events again, from the journal, and gets the same answer: what passed passes, and
what was skipped is not counted twice.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from agentstream.agents.base import Moment
from agentstream.journal.base import Record
from agentstream.model.events import (
    AgentOutput,
    AgentOutputDelta,
    AgentRaw,
    AgentThinking,
    FileChanged,
    ProgressUpdate,
)
from agentstream.model.messages import EventsSkipped
from agentstream.model.wire import type_of

#: What a client can do without for a while. Never errors, lifecycle, tool calls and results, approvals, usage or plans.
LOW_PRIORITY: Final = frozenset(
    map(type_of, (AgentOutput, AgentOutputDelta, AgentThinking, AgentRaw, FileChanged, ProgressUpdate))
)

#: Ranges of skipped events that are remembered: each was told with an event behind it, and a backlog holds only so many of these.
_RANGES: Final = 1000


class Limiter:
    """At most ``rate`` events a second, in bursts of at most one second's worth (at least one event)."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate)
        self._tokens = self._burst
        self._at = now
        self._skipped = 0
        self._from: int | None = None
        self._to: int | None = None
        #: The highest ``seq`` that was asked about.
        self._decided = 0
        #: The first and last ``seq`` of each range that was told, ascending.
        self._told: list[tuple[int, int]] = []

    def admits(self, record: Record, now: float) -> bool:
        """Whether the event passes; if not, it is counted, once. ``now`` in monotonic seconds."""
        if record.seq is not None:
            if record.seq <= self._decided:
                return record.type not in LOW_PRIORITY or not self._was_skipped(record.seq)
            self._decided = record.seq
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        if record.type not in LOW_PRIORITY:
            self._tokens = 0.0
            return True
        self._skipped += 1
        if record.seq is not None:
            self._to = record.seq
            if self._from is None:
                self._from = record.seq
        return False

    def take_skipped(self, work_order_id: str, before: Record, at: Moment) -> EventsSkipped | None:
        """What to tell before ``before``, which passes, once."""
        if not self._skipped or (before.seq is not None and self._from is not None and self._from > before.seq):
            return None
        told = EventsSkipped(
            timestamp=at.wall, work_order_id=work_order_id, count=self._skipped, from_seq=self._from, to_seq=self._to
        )
        if self._from is not None and self._to is not None:
            self._told.append((self._from, self._to))
            del self._told[:-_RANGES]
        self._skipped = 0
        self._from = self._to = None
        return told

    def _was_skipped(self, seq: int) -> bool:
        # What passes ends a range: between its ends, all of low priority was skipped.
        if self._from is not None and self._from <= seq:
            return True
        at = bisect_left(self._told, seq, key=lambda told: told[1])
        return at < len(self._told) and self._told[at][0] <= seq
