"""The door: one port for HTTP and WebSocket, over TCP (with TLS or without) or a Unix socket.

For each connection the head of its first request is read, within bounds of size, time and number. An upgrade for ``/ws``
goes to the WebSocket side, everything else to the ASGI application on Hypercorn's Trio worker, each over a stream that gives
out what was read once more. The Host is checked here for WebSockets, and by the application for every request of its own:
a kept-alive connection carries many.

One connection that goes wrong is logged and closed; the others and the door never notice.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import stat
import uuid
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, cast

import attrs
import orjson
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from agentstream.server.head import MAX_HEAD, BadHead, Replayed, RequestHead, read_head, replayed
from agentstream.server.principal import HostAllowed

log = structlog.get_logger()

#: Seconds for a TLS handshake and the head of the first request; h2o and nginx have 10 and 60.
HEAD_SECONDS: Final = 10.0
#: Connections that have not sent a whole head yet. One more, and the one that has had the longest time for it is closed.
MAX_HALF_OPEN: Final = 1024
#: Seconds that an HTTP connection may be idle between two requests.
_KEEP_ALIVE: Final = 30.0
#: What listen(2) keeps for us; the kernel caps it (net.core.somaxconn).
_BACKLOG: Final = 4096
#: Seconds to let a refused peer read why.
_LINGER: Final = 1.0

AnyStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class WebSocketSide(Protocol):
    """Who serves ``/ws``; `agentstream.server.websocket.WebSocketServer`."""

    async def serve(self, stream: Replayed) -> None:
        """One connection, until it ends: ``stream.head`` is its request. The stream is closed by the caller."""

    async def close(self, grace: float) -> None:
        """Send everybody what waits for them and close code 1001; drop after ``grace`` seconds who is left."""


@attrs.frozen
class Entrance:
    """A listener, and which Host headers belong to it."""

    listener: trio.SocketListener | trio.SSLListener[trio.SocketStream]
    host_allowed: HostAllowed


@attrs.frozen(kw_only=True)
class DoorStatistics:
    """A frozen look at the door."""

    connections: int
    half_open: int


async def open_tcp(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> list[trio.SocketListener | trio.SSLListener[trio.SocketStream]]:
    """Listen on every address of ``host`` (``port`` 0: a free one, the same for all). Raises `OSError`."""
    first, *rest = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    if port == 0 and rest:
        for listener in rest:
            await listener.aclose()
        number = int(first.socket.getsockname()[1])
        await first.aclose()
        first, *rest = await trio.open_tcp_listeners(number, host=host, backlog=_BACKLOG)
    plain = [first, *rest]
    return [trio.SSLListener(one, tls, https_compatible=True) for one in plain] if tls is not None else [*plain]


async def open_unix(path: str | os.PathLike[str], *, mode: int = 0o600) -> trio.SocketListener:
    """Listen on a Unix socket. A file that nobody listens on any more is replaced; raises `OSError` if somebody does."""
    where = Path(path)
    try:
        left_over = stat.S_ISSOCK(where.lstat().st_mode)  # noqa: ASYNC240 - one stat(2) at the start
    except FileNotFoundError:
        left_over = False
    if left_over:
        try:
            await (await trio.open_unix_socket(str(where))).aclose()
        except OSError:
            where.unlink()  # noqa: ASYNC240 - likewise
        else:
            raise OSError(errno.EADDRINUSE, f"somebody listens on {where}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody can connect before listen(2), so the mode is right in time.
        listening.bind(str(where))
        os.chmod(where, mode)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


class Door:
    """Serves ``app`` (ASGI) and ``websocket`` on any number of entrances.

    ``stall_limit``: seconds after which a peer that takes nothing of an HTTP answer is given up.
    """

    def __init__(
        self,
        *,
        app: Any,
        websocket: WebSocketSide,
        stall_limit: float = 60.0,
        head_seconds: float = HEAD_SECONDS,
        max_half_open: int = MAX_HALF_OPEN,
    ) -> None:
        self._app = ASGIWrapper(app)
        self._websocket = websocket
        self._stall_limit = stall_limit
        self._head_seconds = head_seconds
        self._max_half_open = max_half_open
        self._half_open: dict[trio.CancelScope, None] = {}
        self._streams: set[Replayed] = set()
        #: Those with Hypercorn.
        self._shielded: set[Replayed] = set()
        self._accepting = trio.CancelScope()
        self._life = trio.CancelScope()
        self._ended = trio.Event()
        self._hypercorn = Config()
        self._hypercorn.keep_alive_timeout = _KEEP_ALIVE
        self._hypercorn.h11_max_incomplete_size = MAX_HEAD
        self._hypercorn.include_server_header = False
        self._hypercorn.include_date_header = True
        self._hypercorn.accesslog = None
        self._hypercorn.errorlog = logging.getLogger("agentstream.http")
        self._context = WorkerContext(None)

    def use(self, app: Any) -> None:
        """Serve another application, to connections from now on."""
        self._app = ASGIWrapper(app)

    def statistics(self) -> DoorStatistics:
        """A frozen look."""
        return DoorStatistics(connections=len(self._streams), half_open=len(self._half_open))

    # --- life ------------------------------------------------------------------------------------------------------

    async def serve(
        self, entrances: Sequence[Entrance], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept connections until `stop_accepting`, and serve them until they end or `close` ends them."""
        try:
            with self._life:
                async with trio.open_nursery() as watch:
                    watch.start_soon(self._abort_when_cancelled)
                    async with trio.open_nursery() as connections:
                        with self._accepting:
                            async with trio.open_nursery() as accepting:
                                for entrance in entrances:
                                    accepting.start_soon(
                                        partial(
                                            trio.serve_listeners,
                                            partial(self._connection, entrance),
                                            [entrance.listener],
                                            handler_nursery=connections,
                                        )
                                    )
                                task_status.started()
                    watch.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def _abort_when_cancelled(self) -> None:
        """Hypercorn sends under a shield; what it sends on can still be closed. Not so a WebSocket's: its outlet has the number."""
        try:
            await trio.sleep_forever()
        finally:
            for stream in list(self._shielded):
                stream.abort()

    def stop_accepting(self) -> None:
        """Stop listening. Who is connected stays."""
        self._accepting.cancel()

    async def close(self, grace: float) -> None:
        """Stop listening and end all connections: WebSockets with 1001, HTTP when its answers are out.

        Who is left after ``grace`` seconds is cut off. Returns when `serve` has ended.
        """
        self.stop_accepting()
        deadline = trio.current_time() + grace
        # Idle kept-alive connections are waiting for this.
        await self._context.terminated.set()
        for scope in list(self._half_open):
            scope.cancel()
        await self._websocket.close(grace)
        self._life.deadline = min(self._life.deadline, deadline)
        await self._ended.wait()

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _connection(self, entrance: Entrance, stream: AnyStream) -> None:
        try:
            again = await self._welcome(entrance, stream)
            if again is not None:
                await self._serve(again)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            # The peer went away: nobody is left to tell.
            pass
        except* Exception:
            log.exception("a connection failed")
        finally:
            await trio.aclose_forcefully(stream)
            if isinstance(stream, trio.SSLStream):
                # It refers back to the stream: without this OpenSSL's buffers would wait for the garbage collector.
                vars(stream).pop("_handshook", None)

    async def _serve(self, stream: Replayed) -> None:
        self._streams.add(stream)
        try:
            if stream.head is not None and stream.head.is_websocket:
                await self._websocket.serve(stream)
            else:
                stream.head = None
                self._shielded.add(stream)
                # As Hypercorn's own worker does for each connection. The state is what ASGI's lifespan would have filled.
                server = TCPServer(
                    self._app, self._hypercorn, self._context, {}, cast("trio.SSLStream[trio.SocketStream]", stream)
                )
                try:
                    await server
                finally:
                    # Its protocol refers back to it: without this the garbage collector would have to find the two.
                    vars(server).clear()
        finally:
            self._streams.discard(stream)
            self._shielded.discard(stream)

    async def _welcome(self, entrance: Entrance, stream: AnyStream) -> Replayed | None:
        """Look at the first request; None: it is answered already, or there is none."""
        head = await self._head(stream)
        if head is None:
            return None
        if head.is_websocket:
            hosts = head.values(b"host")
            if len(hosts) != 1 or not entrance.host_allowed(hosts[0]):
                await _refuse(
                    stream,
                    403,
                    "FORBIDDEN",
                    "this Host is not served here; use the address that the daemon listens on, or add the name to "
                    "server.allowed_hosts",
                )
                return None
            if head.path != "/ws":
                await _refuse(stream, 404, "NOT_FOUND", "the WebSocket is at /ws")
                return None
            if not all(value.isascii() for _, value in head.headers):
                # wsproto reads some of them as ASCII, without looking whether they are.
                await _refuse(stream, 400, "INVALID_MESSAGE", "a handshake has nothing but ASCII in its headers")
                return None
        return replayed(stream, head, stall_limit=self._stall_limit)

    async def _head(self, stream: AnyStream) -> RequestHead | None:
        scope = trio.CancelScope(deadline=trio.current_time() + self._head_seconds)
        self._half_open[scope] = None
        if len(self._half_open) > self._max_half_open:
            next(iter(self._half_open)).cancel()
        try:
            with scope:
                if isinstance(stream, trio.SSLStream):
                    await stream.do_handshake()
                try:
                    return await read_head(stream)
                except BadHead as error:
                    await _refuse(stream, error.status, "INVALID_MESSAGE", error.message)
        finally:
            del self._half_open[scope]
        return None


async def _refuse(stream: AnyStream, status: int, code: str, message: str) -> None:
    """Answer in the shape of the HTTP API and end the connection."""
    request_id = uuid.uuid4().hex
    log.debug("a request was refused at the door", status=status, code=code, request_id=request_id)
    body = orjson.dumps({"success": False, "error": {"code": code, "message": message}, "requestId": request_id})
    phrase = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    with trio.move_on_after(_LINGER):
        await stream.send_all(head.encode() + body)
        if isinstance(stream, trio.SocketStream):
            await stream.send_eof()
        # Closing with bytes unread would reset the connection before the peer has read the answer.
        while await stream.receive_some(65536):
            pass
