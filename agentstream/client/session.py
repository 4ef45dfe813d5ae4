"""`connect`, and what one can do then: send commands, ask questions, and subscribe.

Commands share one connection that is opened first, so that a wrong address or token shows at once. Each subscription has a
connection of its own. Rejected: one connection for all, because a consumer that pauses over one subscription would then hold up
the others, or need a queue without a bound. So the daemon sees the true pace of each consumer and applies its own policy to it.
"""

from __future__ import annotations

import itertools
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import attrs
import orjson
import trio

from agentstream.client.cursor import Backoff, Cursor, error_from
from agentstream.client.nursery import open_helpers
from agentstream.client.subscription import Link, OnGap, Retry, Subscription
from agentstream.client.transport import Address, Api, segment
from agentstream.client.websocket import Connection
from agentstream.errors import AgentstreamError, Unreachable
from agentstream.model import wire
from agentstream.model.events import Decision
from agentstream.model.messages import (
    Cancel,
    ClientMessage,
    CloseInput,
    Filters,
    Interrupt,
    Ping,
    ResolveApproval,
    SendMessage,
)
from agentstream.model.orders import WorkOrderRequest


@asynccontextmanager
async def connect(
    url: str,
    token: str | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    on_retry: Callable[[Retry], None] | None = None,
) -> AsyncIterator[Client]:
    """Connect to the daemon at ``url`` (see `Address.parse`).

    The first connection is tried once: raises `Unreachable`, `Unauthorized` or `Forbidden`. After that, subscriptions
    reconnect for as long as it takes, and ``on_retry`` is told before each wait; a refused token is final. Leaving the block
    closes everything; an exception of the block comes out as it is, not in a group.
    """
    link = Link(address=Address.parse(url), token=token, ssl_context=ssl_context, backoff=backoff, on_retry=on_retry)
    async with open_helpers() as nursery:
        client = Client(nursery, link)
        # A round trip, since a refused token is told only after the handshake: a browser's page can't read more of that than
        # whether it succeeded.
        await client.ping()
        yield client


class _Answer:
    """What becomes of one command: the daemon's answer, or why there will be none."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self._message: dict[str, Any] | AgentstreamError = {}

    def arrive(self, message: dict[str, Any] | AgentstreamError) -> None:
        self._message = message
        self.arrived.set()

    def outcome(self) -> dict[str, Any]:
        if isinstance(self._message, AgentstreamError):
            raise self._message
        if self._message.get("type") == "error":
            raise error_from(self._message)
        return self._message


class Client:
    """A connected client; made by `connect`. Any number of tasks may use it.

    Commands raise the `AgentstreamError` that the daemon answers. They are not repeated when the connection is lost before the
    answer came, because the daemon may have carried them out: `Unreachable` says so. `submit` and `cancel` are, as
    doing them twice is the same as doing them once.
    """

    def __init__(self, nursery: trio.Nursery, link: Link) -> None:
        self._nursery = nursery
        self._link = link
        self._commands: Connection | None = None
        self._connecting = trio.Lock()
        # Bounded by the number of tasks that wait for an answer.
        self._waiting: dict[str, _Answer] = {}
        #: HTTP calls beyond those that have a method here.
        self.api = Api(link.address, link.token, link.ssl_context)

    # --- events

    def subscribe(
        self,
        work_order_id: str,
        *,
        since: int | datetime | None = None,
        last: int | None = None,
        epoch: str | None = None,
        filters: Filters | None = None,
        max_events_per_second: float | None = None,
        on_gap: OnGap = "raise",
        follow: bool = True,
    ) -> Subscription:
        """Events of a work order (``"*"``: of all), for ``async for``.

        ``since`` (a ``seq`` or a time) or ``last`` (a count) asks for a replay first; without them only what happens from now on
        comes. ``epoch`` goes with a ``seq`` that was kept. With ``follow=False`` the iteration ends where the replay does
        (of everything, unless told otherwise). A gap raises `Gap`, unless ``on_gap`` is ``"continue"`` or a function that is told.
        """
        if not follow and since is None and last is None:
            since = 0
        cursor = Cursor(
            work_order_id,
            filters=filters or Filters(),
            seq=since if isinstance(since, int) else None,
            epoch=epoch,
            replay_since=since if isinstance(since, datetime) else None,
            replay_count=last,
            max_events_per_second=max_events_per_second,
        )
        return Subscription(self._nursery, self._link, cursor, on_gap=on_gap, follow=follow)

    # --- commands

    async def submit(self, request: WorkOrderRequest) -> str:
        """Submit a work order and return its id. One without an id gets one here, so that a repeated submission is the same."""
        request = request if request.id is not None else attrs.evolve(request, id=f"wo-{uuid4().hex}")
        answer = await self._ask(lambda key: {**wire.to_dict(request), **_envelope(request, key)}, repeat=True)
        return str(answer["workOrderId"])

    async def cancel(
        self, work_order_id: str | None = None, *, run_id: str | None = None, reason: str | None = None
    ) -> None:
        """Cancel a work order, or the one that a run belongs to; returns once that is done."""
        await self._send(Cancel(work_order_id=work_order_id, run_id=run_id, reason=reason), repeat=True)

    async def send_message(self, run_id: str, text: str) -> None:
        """A follow-up to a run that takes input."""
        await self._send(SendMessage(run_id=run_id, text=text))

    async def interrupt(self, run_id: str) -> None:
        """Stop the current turn, keep the run."""
        await self._send(Interrupt(run_id=run_id))

    async def close_input(self, run_id: str) -> None:
        """No more messages: the run ends after its turn."""
        await self._send(CloseInput(run_id=run_id))

    async def resolve_approval(
        self,
        request_id: str,
        decision: Decision,
        *,
        message: str | None = None,
        updated_input: dict[str, Any] | None = None,
    ) -> None:
        """Answer a permission request."""
        await self._send(
            ResolveApproval(request_id=request_id, decision=decision, message=message, updated_input=updated_input)
        )

    async def ping(self) -> None:
        """A round trip through the daemon."""
        await self._send(Ping())

    # --- questions; the answers are ``data`` as PROTOCOL says

    async def work_orders(
        self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Any:
        """A page of work orders, newest first."""
        return await self.api.get("/work-orders", status=status, limit=limit, cursor=cursor)

    async def work_order(self, work_order_id: str) -> Any:
        """One work order."""
        return await self.api.get(f"/work-orders/{segment(work_order_id)}")

    async def runs(self, work_order_id: str) -> Any:
        """The runs of a work order, by number."""
        return await self.api.get("/runs", workOrderId=work_order_id)

    async def run(self, run_id: str) -> Any:
        """One run, with its final result once it ended."""
        return await self.api.get(f"/runs/{segment(run_id)}")

    async def agents(self) -> Any:
        """The agent types, and whether each is installed."""
        return await self.api.get("/agents")

    async def approvals(self) -> Any:
        """Permission requests that wait for an answer."""
        return await self.api.get("/approvals")

    # --- the connection for commands

    async def _send(self, message: ClientMessage, *, repeat: bool = False) -> None:
        await self._ask(lambda key: wire.to_dict(attrs.evolve(message, id=key)), repeat=repeat)

    async def _ask(self, make: Callable[[str], dict[str, Any]], *, repeat: bool = False) -> dict[str, Any]:
        key = uuid4().hex
        text = orjson.dumps(make(key))
        for failures in itertools.count(1):
            connection = await self._connected()
            answer = self._waiting[key] = _Answer()
            try:
                await connection.send(text)
                await answer.arrived.wait()
                return answer.outcome()
            except Unreachable:
                if not repeat:
                    raise
            finally:
                del self._waiting[key]
            await trio.sleep(self._link.backoff.delay(failures, random.random()))
        raise AssertionError("count() has no end")

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._commands is None:
                self._commands = await self._link.open(self._nursery)
                self._nursery.start_soon(self._deliver_answers, self._commands)
            return self._commands

    async def _deliver_answers(self, connection: Connection) -> None:
        reason: AgentstreamError = Unreachable("the client was closed")
        try:
            while True:
                message = wire.json_object(await connection.receive())
                answer = self._waiting.get(str(message.get("id")))
                if answer is not None:
                    answer.arrive(message)
        except Unreachable as error:
            reason = Unreachable(f"{error.message}, before it answered: whether it did what was asked is not known")
        except AgentstreamError as error:
            reason = error
        finally:
            connection.drop()
            self._commands = None
            for answer in self._waiting.values():
                answer.arrive(reason)


def _envelope(request: WorkOrderRequest, key: str) -> dict[str, Any]:
    return {"type": "submit", "id": key, "workOrderId": request.id}
