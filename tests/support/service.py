"""The daemon's door on a real socket over a real journal, with a test in the agent's place, and a client to talk to it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio
import trio_websocket

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.journal.base import Record
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.server.auth import Rules
from agentstream.server.http import make_app
from agentstream.server.listener import Door, Entrance, open_tcp, open_unix
from agentstream.server.metrics import Metrics
from agentstream.server.sse import Doorbell
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.server.websocket import WebSocketLimits, WebSocketServer
from agentstream.settings import ServerSettings
from tests.support.orchestration import Orchestration

#: Seconds after which a test that waits for something has failed; generous, as the machine may be busy.
PATIENCE = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - looked at from outside, there is no event
            await trio.sleep(0.005)


@attrs.define(kw_only=True)
class Service:
    """What a test needs: where to connect, with which tokens, and the parts behind."""

    port: int
    unix: Path
    token: str
    reader: str
    tokens: TokenStore
    journal: SqliteJournal
    broadcaster: EventBroadcaster
    orchestration: Orchestration
    websocket: WebSocketServer
    door: Door
    deltas: list[tuple[str, bool]]
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def connect(self, token: str | None = "", **options: Any) -> Any:
        """A client; the administrator's token unless another one, or None, is given."""
        return connect(self.port, self.token if token == "" else token, **options)

    async def caught_up(self) -> None:
        """Wait until the broadcaster has begun to deliver all that was published."""
        await until(lambda: self.broadcaster.position >= self.journal.head)


@asynccontextmanager
async def open_service(
    tmp_path: Path,
    *,
    limits: WebSocketLimits | None = None,
    tls: ssl.SSLContext | None = None,
    door_options: dict[str, Any] | None = None,
    broadcaster_options: dict[str, Any] | None = None,
    channel_size: int = 64,
    orchestration_class: type[Orchestration] = Orchestration,
    **server: Any,
) -> AsyncIterator[Service]:
    """Everything from the journal to the listener."""
    data_dir = tmp_path / "data"
    prepare_data_dir(data_dir)
    settings = ServerSettings(data_dir=data_dir, **server)
    tokens = TokenStore(data_dir, auth=settings.auth)
    tokens.ensure_first()
    doorbell, metrics = Doorbell(), Metrics()
    deltas: list[tuple[str, bool]] = []
    send, receive = trio.open_memory_channel[Sequence[Record]](channel_size)
    async with open_journal(data_dir / "journal.sqlite", publish=send.send) as journal, trio.open_nursery() as nursery:
        broadcaster = EventBroadcaster(
            receive,
            journal,
            taps=[metrics.published, doorbell.ring],
            deltas_wanted=lambda work_order_id, wanted: deltas.append((work_order_id, wanted)),
            observe_latency=metrics.delivery.observe,
            **(broadcaster_options or {}),
        )
        orchestration = orchestration_class(journal, data_dir)
        metrics.watch(orchestration=orchestration, journal=journal, broadcast=broadcaster)
        rules = Rules.of(settings)
        websocket = WebSocketServer(
            broadcaster=broadcaster,
            journal=journal,
            orchestration=orchestration,
            authenticator=tokens,
            origin_allowed=rules.origin_check(),
            limits=limits,
        )
        app = make_app(
            orchestration=orchestration,
            journal=journal,
            authenticator=tokens,
            server=settings,
            doorbell=doorbell,
            metrics=metrics,
            dashboard=tmp_path / "nothing",
        )
        door = Door(app=app, websocket=websocket, **(door_options or {}))
        (listener,) = await open_tcp("127.0.0.1", 0, tls)
        plain = listener if isinstance(listener, trio.SocketListener) else listener.transport_listener
        assert isinstance(plain, trio.SocketListener)
        port = int(plain.socket.getsockname()[1])
        unix = tmp_path / "socket"
        entrances = [
            Entrance(listener, rules.host_check(port, secure=tls is not None)),
            Entrance(await open_unix(unix), rules.host_check(None, secure=False)),
        ]
        await nursery.start(broadcaster.run)
        await nursery.start(websocket.run)
        await nursery.start(door.serve, entrances)
        yield Service(
            port=port,
            unix=unix,
            token=(data_dir / "token").read_text().strip(),
            reader=tokens.create("reader", "read"),
            tokens=tokens,
            journal=journal,
            broadcaster=broadcaster,
            orchestration=orchestration,
            websocket=websocket,
            door=door,
            deltas=deltas,
        )
        nursery.cancel_scope.cancel()


@attrs.define
class Peer:
    """A client on trio-websocket."""

    websocket: trio_websocket.WebSocketConnection
    stream: trio.abc.Stream

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        await self.websocket.send_message(orjson.dumps({"type": kind, **fields}).decode())

    async def hear(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        with trio.fail_after(PATIENCE):
            message = orjson.loads(await self.websocket.get_message())
        assert isinstance(message, dict)
        return message

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next message, which must be of this type."""
        message = await self.hear()
        assert message["type"] == kind, message
        return message

    async def ask(self, kind: str, answer: str, **fields: Any) -> dict[str, Any]:
        """Send a message; the next one must be its answer."""
        await self.say(kind, **fields)
        return await self.expect(answer)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All messages up to the next one of this type, and that."""
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def closed(self) -> int:
        """Wait until the connection is closed; its code."""
        try:
            with trio.fail_after(PATIENCE):
                while True:
                    await self.websocket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            reason = closed.reason
        assert reason is not None
        return int(reason.code)


@asynccontextmanager
async def connect(
    port: int,
    token: str | None = None,
    *,
    path: str = "/ws",
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    stream: trio.abc.Stream | None = None,
) -> AsyncIterator[Peer]:
    """A client of whatever listens on ``port``."""
    sent = [*headers, *([("authorization", f"Bearer {token}")] if token else [])]
    if stream is None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # typed for sockets, but any stream is taken
                f"127.0.0.1:{port}",
                path,
                subprotocols=list(subprotocols),
                extra_headers=[(name.encode(), value.encode()) for name, value in sent],
                message_queue_size=100_000,
            )
        try:
            yield Peer(websocket, stream)
        finally:
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
