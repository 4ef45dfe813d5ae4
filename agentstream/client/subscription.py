"""One subscription, iterated: events in the order of ``seq``, across as many connections as it takes.

It does its work in the task that iterates: no task or queue of ours is between the socket and the consumer, and a cancelled
``__anext__`` has lost nothing, because the cursor moves only with an event that is returned. Rejected: an async generator, since
one that is left by ``break`` holds its connection until the event loop ends it.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

import attrs
import trio

from agentstream.client.cursor import Backoff, Cursor
from agentstream.client.transport import Address
from agentstream.client.websocket import Connection
from agentstream.errors import Gap, RateLimited, Unreachable
from agentstream.model import wire
from agentstream.model.events import Event

#: What to do on a gap: raise it, go on behind it, or be told and go on.
OnGap = Literal["raise", "continue"] | Callable[[Gap], None]


@attrs.frozen
class Retry:
    """A connection was lost, or could not be made: ``reason`` says why, the next attempt comes after ``delay`` seconds."""

    reason: str
    delay: float
    #: Failures in a row, from 1.
    failures: int


@attrs.frozen(kw_only=True)
class Link:
    """How to reach the daemon, and how patiently: what all connections of one client share."""

    address: Address
    token: str | None = attrs.field(repr=False)
    ssl_context: ssl.SSLContext | None
    backoff: Backoff
    on_retry: Callable[[Retry], None] | None

    async def open(self, nursery: trio.Nursery) -> Connection:
        return await Connection.open(nursery, self.address, self.token, self.ssl_context)


class Subscription:
    """Iterate it once, in one task. ``async with`` closes it on leaving; without, it is closed when nothing refers to it any
    more, and with the client at the latest.
    """

    def __init__(self, nursery: trio.Nursery, link: Link, cursor: Cursor, *, on_gap: OnGap, follow: bool) -> None:
        self._nursery = nursery
        self._link = link
        self._cursor = cursor
        self._on_gap = on_gap
        self._follow = follow
        self._connection: Connection | None = None
        self._failures = 0
        self._busy = False
        self._closed = False
        self._trio = trio.lowlevel.current_trio_token()
        self._text = ""

    @property
    def seq(self) -> int | None:
        """Keep it, with `epoch`, to resume in another life: ``subscribe(…, since=seq, epoch=epoch)``."""
        return self._cursor.seq

    @property
    def epoch(self) -> str | None:
        """Names the journal in which `seq` counts; None before the first confirmation."""
        return self._cursor.epoch

    @property
    def text(self) -> str:
        """The JSON text of the event that came last, exactly as on the wire."""
        return self._text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Raises `Gap`, or what the daemon refuses the subscription with; then it is over."""
        if self._busy:
            raise trio.BusyResourceError("another task iterates this subscription")
        if self._closed:
            raise StopAsyncIteration
        self._busy = True
        try:
            event = await self._next()
        except trio.Cancelled:
            raise
        except BaseException:
            self._abandon()
            raise
        finally:
            self._busy = False
        if event is None:
            await self.aclose()
            raise StopAsyncIteration
        return event

    async def _next(self) -> Event | None:
        while True:
            try:
                connection = self._connection or await self._subscribe()
                text = await connection.receive()
                found = self._cursor.take(wire.json_object(text))
            except (Unreachable, RateLimited) as error:
                await self._back_off(error)
                continue
            if isinstance(found, Gap):
                self._tell(found)
            elif found is not None:
                # Only now, not with the handshake: a daemon that takes everybody and then falls is not to be run down.
                self._failures = 0
                self._text = text
                return found
            if not self._follow and not self._cursor.replaying:
                return None

    async def _subscribe(self) -> Connection:
        connection = await self._link.open(self._nursery)
        try:
            await connection.send(wire.to_json(self._cursor.request(uuid4().hex)))
        except BaseException:
            connection.drop()
            raise
        self._connection = connection
        return connection

    async def _back_off(self, error: Unreachable | RateLimited) -> None:
        self._drop()
        self._failures += 1
        delay = self._link.backoff.delay(self._failures, random.random())
        if isinstance(error, RateLimited):
            delay += float((error.details or {}).get("retryAfterSeconds", 0))
        if self._link.on_retry is not None:
            self._link.on_retry(Retry(error.message, delay, self._failures))
        await trio.sleep(delay)

    def _tell(self, gap: Gap) -> None:
        if self._on_gap == "raise":
            raise gap
        if self._on_gap != "continue":
            self._on_gap(gap)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def _abandon(self) -> None:
        self._closed = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription; harmless when it has ended."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def __del__(self) -> None:
        # `async for event in client.subscribe(…)` that is left by `break` ends here. Any thread may collect garbage, so the
        # connection is dropped by way of Trio, whose `run_sync_soon` is made to be called from here.
        if self._connection is not None:
            with suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(self._connection.drop)
