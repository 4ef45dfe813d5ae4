"""A peer that speaks the protocol by script, so that a connection can be cut at any chosen point.

Each connection that subscribes runs the next script; one that doesn't is for commands, each of which goes to `Peer.answer`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import trio
import trio_websocket

from agentstream.client.nursery import open_helpers

NOW = "2026-01-31T12:00:00.000Z"


class Socket:
    """The daemon's end of one subscribing connection."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, subscribe: dict[str, Any]) -> None:
        self._websocket = websocket
        self.subscribe = subscribe

    async def send(self, **message: Any) -> None:
        await self._websocket.send_message(orjson.dumps({"timestamp": NOW, **message}).decode())

    async def confirm(self, seq: int, *, epoch: str = "e1") -> None:
        await self.send(
            type="subscription_confirmed", workOrderId=self.subscribe["workOrderId"], epoch=epoch, seq=seq, filters={}
        )

    async def outputs(self, *seqs: int, work_order_id: str = "w") -> None:
        for seq in seqs:
            await self.send(type="agent_output", workOrderId=work_order_id, runId="r", seq=seq, content=f"line {seq}")

    async def replayed(self, seq: int) -> None:
        await self.send(type="replay_complete", workOrderId="w", seq=seq)

    async def cut(self) -> None:
        """As when the daemon is killed: no closing handshake."""
        await self._websocket._stream.aclose()

    async def close(self, code: int, reason: str = "") -> None:
        await self._websocket.aclose(code, reason)

    async def wait_closed(self) -> None:
        """Until the client is gone."""
        try:
            while True:
                await self._websocket.get_message()
        except trio_websocket.ConnectionClosed:
            pass


Script = Callable[[Socket], Awaitable[None]]


class Peer:
    """What the peer saw and what it will do."""

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.url = ""
        self.subscribes: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        #: The next handshakes that are refused, with these HTTP statuses.
        self.refusals: list[int] = []
        #: Close codes for the next connections, right after their handshakes.
        self.farewells: list[int] = []
        #: Answers a command other than a ping; None hangs up without an answer.
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda message: {"type": "ok"}
        self.open = 0
        self.changed = trio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a connection brings about."""
        async with self.changed:
            while not condition():
                await self.changed.wait()

    async def _notify(self, change: int) -> None:
        with trio.CancelScope(shield=True):  # at the end of the test, when all is cancelled; nothing blocks here
            async with self.changed:
                self.open += change
                self.changed.notify_all()

    async def handle(self, request: trio_websocket.WebSocketRequest) -> None:
        headers = {key.lower(): value for key, value in request.headers}
        authorization = headers.get(b"authorization")
        self.tokens.append(authorization.decode() if authorization else None)
        if self.refusals:
            await request.reject(self.refusals.pop(0), body=b'{"success":false,"error":{"message":"no, because"}}')
            return
        websocket = await request.accept()
        if self.farewells:
            await websocket.aclose(self.farewells.pop(0), "no, because")
            return
        await self._notify(+1)
        try:
            await self._serve(websocket)
        except trio_websocket.ConnectionClosed:
            pass
        finally:
            await self._notify(-1)  # noqa: ASYNC102 - never blocks

    async def _serve(self, websocket: trio_websocket.WebSocketConnection) -> None:
        while True:
            message = orjson.loads(await websocket.get_message())
            if message["type"] == "subscribe":
                self.subscribes.append(message)
                await self._notify(0)
                await self.scripts.pop(0)(Socket(websocket, message))
                return
            if message["type"] == "ping":
                answer: dict[str, Any] | None = {"type": "pong"}
            else:
                self.commands.append(message)
                answer = self.answer(message)
            if answer is None:
                await websocket._stream.aclose()
                return
            stamped = {"timestamp": NOW, "id": message["id"], **answer}
            await websocket.send_message(orjson.dumps(stamped).decode())


@asynccontextmanager
async def peer(*scripts: Script) -> AsyncIterator[Peer]:
    """A peer on a free port."""
    self = Peer(list(scripts))
    async with open_helpers() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, self.handle, "127.0.0.1", 0, None)
        self.url = f"http://127.0.0.1:{server.port}"
        with trio.fail_after(30):  # noqa: ASYNC100 - for the body of the test
            yield self


def moment() -> datetime:
    """A time with a zone."""
    return datetime(2026, 1, 31, 12, tzinfo=UTC)
