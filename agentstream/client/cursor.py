"""Where one subscription stands: what to ask for on (re)connecting, and what to make of each message that comes. Pure.

The promise is: each event once, in the order of ``seq``, across any number of connections. It rests on three rules.

- ``seq`` is the only cursor. It moves with each event that is handed out, to the head that a confirmation names where no replay
  was asked for, and to the head that ``replay_complete`` names: filters may have hidden everything before it.
- What was asked for once (a time, a count) is asked for again only while nothing has come of it. Then it is ``sinceSeq``.
- ``work_order_created`` of other work orders goes to every connection, whatever it subscribed to, and not in step with this
  subscription's replay. It must never move the cursor, or the rest of the replay would look like duplicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from agentstream.errors import (
    AgentstreamError,
    Conflict,
    Forbidden,
    Gap,
    InvalidMessage,
    NotFound,
    ParseFailed,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from agentstream.model import wire
from agentstream.model.events import Event, UnknownEvent
from agentstream.model.messages import SERVER_MESSAGES, Error, Filters, Subscribe, SubscriptionConfirmed
from agentstream.model.messages import Gap as GapMessage

_ERRORS: Mapping[str, type[AgentstreamError]] = {
    cls.code: cls
    for cls in (InvalidMessage, ParseFailed, NotFound, Conflict, Unauthorized, Forbidden, TooLarge, RateLimited)
}
_NOT_EVENTS = frozenset(wire.type_of(cls) for cls in SERVER_MESSAGES)


def error_of(code: str, message: str, details: dict[str, Any] | None = None) -> AgentstreamError:
    """The exception for an error that the daemon sent; a code that we don't know gives a plain `AgentstreamError`."""
    return _ERRORS.get(code, AgentstreamError)(message, details=details)


def error_from(message: Mapping[str, Any]) -> AgentstreamError:
    """The exception for an ``error`` message."""
    error = wire.structure(message, Error)
    return error_of(error.code, error.message, error.details)


@attrs.frozen
class Backoff:
    """Exponential backoff with full jitter: uniform between 0 and a ceiling that doubles with each failed attempt.

    Full jitter, because all clients of a daemon lose it at the same moment and must not come back at the same moment.
    Both in seconds. 15 s at most: a person who restarts a daemon looks at the page again within that time.
    """

    first: float = 0.25
    most: float = 15.0

    def delay(self, failures: int, random: float) -> float:
        """Seconds to wait after so many failures in a row (from 1); ``random`` is uniform in [0, 1)."""
        # The exponent is bounded so that a client which retries for a year does not overflow a float.
        return random * min(self.most, self.first * 2.0 ** min(failures - 1, 60))


@attrs.define
class Cursor:
    """The state of one subscription over all its connections. ``seq`` and ``epoch`` are public: keep them to resume later."""

    work_order_id: str
    filters: Filters = attrs.field(factory=Filters)
    seq: int | None = None
    epoch: str | None = None
    replay_since: datetime | None = None
    replay_count: int | None = None
    max_events_per_second: float | None = None
    #: True between asking for a replay and its ``replay_complete``.
    replaying: bool = attrs.field(default=False, init=False)
    #: The epoch of the journal that this connection is about.
    _journal: str | None = attrs.field(default=None, init=False)

    def request(self, message_id: str) -> Subscribe:
        """What to send on a fresh connection."""
        resumes = self.seq is not None
        self.replaying = resumes or self.replay_since is not None or self.replay_count is not None
        return Subscribe(
            id=message_id,
            work_order_id=self.work_order_id,
            filters=self.filters,
            since_seq=self.seq,
            epoch=self.epoch if resumes else None,
            replay_since=None if resumes else self.replay_since,
            replay_count=None if resumes else self.replay_count,
            max_events_per_second=self.max_events_per_second,
        )

    def take(self, message: Mapping[str, Any]) -> Event | Gap | None:
        """The event to hand out, the gap to tell of, or None for what moves only the cursor.

        Raises the exception that an ``error`` message stands for.
        """
        match message.get("type"):
            case "subscription_confirmed":
                self._confirmed(wire.structure(message, SubscriptionConfirmed))
            case "replay_complete":
                self.seq = max(self.seq or 0, int(message["seq"]))
                self.replaying = False
            case "gap":
                return self._gap(wire.structure(message, GapMessage))
            case "error":
                raise error_from(message)
            case kind if kind not in _NOT_EVENTS:
                return self._event(message)
        return None

    def _confirmed(self, confirmed: SubscriptionConfirmed) -> None:
        self._journal = confirmed.epoch
        if self.seq is None or self.epoch is None:
            self.epoch = confirmed.epoch
        if not self.replaying:
            self.seq = confirmed.seq

    def _gap(self, gap: GapMessage) -> Gap:
        if gap.reason == "epoch":
            # Another journal, whose numbers start again. Not taken over before now: a connection that is cut between the
            # confirmation and this message must get it again, or nobody would ever be told.
            self.seq, self.epoch = 0, self._journal
        # After retention the cursor stays: what is left of a range that is being trimmed may still come.
        return Gap(work_order_id=gap.work_order_id, from_seq=gap.from_seq, to_seq=gap.to_seq, reason=gap.reason)

    def _event(self, message: Mapping[str, Any]) -> Event | None:
        if self.work_order_id not in ("*", message.get("workOrderId")):
            return None
        event = _structured(message)
        if event.seq is not None:
            if self.seq is not None and event.seq <= self.seq:
                return None
            self.seq = event.seq
        return event


def _structured(message: Mapping[str, Any]) -> Event:
    """A newer daemon may say what our classes refuse (a tool or status of next year): that is unknown, not an error."""
    try:
        return wire.event_from_dict(message)
    except InvalidMessage:
        base = wire.structure(message, Event)
        return UnknownEvent(
            type=str(message.get("type")),
            work_order_id=base.work_order_id,
            timestamp=base.timestamp,
            seq=base.seq,
            data=dict(message),
        )
