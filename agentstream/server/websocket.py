"""``/ws``: the handshake, the heartbeats and the end of all connections.

trio-websocket does the handshake, reading, pongs and closing, over an `Outlet` as its stream; what is said on a connection is
`agentstream.server.connection`'s.

Heartbeats are one task for all connections. Any byte from the peer shows that it lives. It is asked only while nothing waits
for it: one that doesn't take what waits is the stall limit's business, for its pong would be behind what it doesn't read.
"""

from __future__ import annotations

from typing import Final, cast

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.connection import ConnectionState
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.outlet import Outlet
from agentstream.journal.base import Journal
from agentstream.orchestration.base import Orchestration
from agentstream.server.connection import SUBPROTOCOL, Connection, Services, WebSocketLimits
from agentstream.server.head import Replayed
from agentstream.server.principal import Authenticator, OriginAllowed
from agentstream.server.ratelimit import RateLimiter

#: Messages that are read ahead of their handling, so that pings are still answered meanwhile: 16 MiB at most.
_READ_AHEAD: Final = 16
#: So many times the largest message may come without a whole one. Pieces of a message may be empty, so that no bound on its size
#: ends one that has no end; but one of single bytes takes seven times its size.
_MAX_UNHEARD: Final = 2 * _READ_AHEAD
_RECEIVE_BYTES: Final = 16 * 1024
#: Seconds that the heartbeat may hold the event loop.
_SLICE: Final = 0.002


class WebSocketServer:
    """Serves ``/ws`` on streams that the listener hands over. `run` must be running."""

    def __init__(
        self,
        *,
        broadcaster: EventBroadcaster,
        journal: Journal,
        orchestration: Orchestration,
        authenticator: Authenticator,
        origin_allowed: OriginAllowed,
        limits: WebSocketLimits | None = None,
    ) -> None:
        limits = limits or WebSocketLimits()
        #: For all connections. Its limits may be replaced meanwhile.
        self.services = Services(
            broadcaster=broadcaster,
            journal=journal,
            orchestration=orchestration,
            authenticator=authenticator,
            origin_allowed=origin_allowed,
            limits=limits,
            rate=RateLimiter(limits.messages_per_second, limits.message_burst),
        )
        self._connections: dict[Connection, None] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ping silent peers, and carry out what clients asked for, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self._heartbeat()

    async def serve(self, stream: Replayed) -> None:
        """One connection, until it ends: ``stream.head`` is its request. The stream is closed by the caller."""
        if self._nursery is None:
            raise RuntimeError("WebSocketServer.run is not running")
        try:
            async with trio.open_nursery() as nursery:
                outlet = Outlet(stream, nursery, stall_limit=self.services.limits.stall_limit, first=stream.take())
                outlet.max_unheard = _MAX_UNHEARD * self.services.limits.max_message
                websocket = await self._shake_hands(nursery, outlet)
                if websocket is not None:
                    connection = Connection(self.services, outlet, websocket, self._nursery)
                    self._connections[connection] = None
                    try:
                        await connection.run(stream)
                    finally:
                        del self._connections[connection]
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, LocalProtocolError):
            # Out of trio-websocket's reader: it answers a ping, or a fault of the peer's, when the connection is closing already.
            pass

    async def _shake_hands(self, nursery: trio.Nursery, outlet: Outlet) -> WebSocketConnection | None:
        # A request that is refused by trio-websocket itself (a missing key) is never handed to us: it closes the stream.
        with trio.move_on_after(self.services.limits.auth_seconds) as scope:
            outlet.on_closed = scope.cancel
            request = await wrap_server_stream(
                nursery,
                outlet,
                message_queue_size=_READ_AHEAD,
                max_message_size=self.services.limits.max_message,
                receive_buffer_size=_RECEIVE_BYTES,
            )
            # A browser that offers a subprotocol fails unless one of its own is chosen.
            offered = next((one for one in request.proposed_subprotocols if one.startswith(SUBPROTOCOL)), None)
            try:
                websocket = await request.accept(subprotocol=offered)
            except ConnectionClosed:
                return None
            outlet.on_closed = _nobody_asked
            _forget_handshake(websocket)
            return websocket
        return None

    def recheck(self) -> None:
        """Close the connections whose token is worth nothing any more, with 1008."""
        assert self._nursery is not None
        for connection in list(self._connections):
            if connection.subscriber is not None and not connection.still_allowed():
                self._nursery.start_soon(connection.throw_out)

    async def close(self, grace: float) -> None:
        """Send everybody what waits for them and close code 1001; cut off after ``grace`` seconds who is left."""
        connections = list(self._connections)
        with trio.move_on_after(grace):
            async with trio.open_nursery() as nursery:
                for connection in connections:
                    nursery.start_soon(connection.say_goodbye)
        for connection in connections:
            connection.outlet.abort()

    async def _heartbeat(self) -> None:
        limits = self.services.limits
        pause = min(limits.ping_interval, limits.ping_timeout) / 4
        while True:
            await trio.sleep(pause)
            now = began = trio.current_time()
            for connection in list(self._connections):
                connection.check(now, limits)
                if trio.current_time() - began > _SLICE:
                    await trio.lowlevel.checkpoint()
                    began = trio.current_time()


class _Past:
    """A handshake of which nothing is left, for all connections."""

    state: Final = ConnectionState.OPEN

    def events(self) -> tuple[()]:
        """There will be none."""
        return ()


_PAST: Final = _Past()


def _forget_handshake(websocket: WebSocketConnection) -> None:
    """wsproto and trio-websocket keep h11's connection and the request for ever: a seventh of what a connection takes."""
    websocket._wsproto.handshake = cast("H11Handshake", _PAST)
    websocket._handshake_headers = ()


def _nobody_asked() -> None:
    pass
