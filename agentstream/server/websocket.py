"""``/ws``: who may come in, what a client says and is answered, when a connection is given up.

trio-websocket does the handshake, reading, pongs and closing, over an `Outlet` as its stream; what we send goes into the
outlet directly, so an answer and the events around it keep their order (PROTOCOL.md: confirmation, replayed events,
``replay_complete``, live events).

A refused Origin and a wrong token are told by close code 1008 after the handshake, as PROTOCOL.md says: a page can't read
the status of a refused handshake. Nothing else is sent before.

Heartbeats are one task for all connections. Any byte from the peer shows that it lives. It is asked only while nothing waits
for it: one that doesn't take what waits is the stall limit's business, for its pong would be behind what it doesn't read.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, cast

import attrs
import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.connection import ConnectionState
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError

from agentstream.broadcast.batch import ALL
from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.frames import PING, frame
from agentstream.broadcast.outlet import Outlet
from agentstream.broadcast.subscriber import Subscriber
from agentstream.errors import AgentstreamError, Forbidden, InvalidMessage, TooLarge, Unauthorized
from agentstream.journal.base import Journal
from agentstream.model import wire
from agentstream.model.messages import (
    Auth,
    ClientMessage,
    Ok,
    Ping,
    Pong,
    ServerMessage,
    Subscribe,
    SubscriptionConfirmed,
    Unsubscribe,
    UnsubscriptionConfirmed,
)
from agentstream.orchestration.base import Orchestration
from agentstream.server.control import CONTROL_MESSAGES, Lanes, error_message
from agentstream.server.head import Replayed, RequestHead
from agentstream.server.incoming import SUBPROTOCOL, beginning, id_of, message_in, token_of
from agentstream.server.principal import Authenticator, OriginAllowed, Principal
from agentstream.server.ratelimit import RateLimiter

log = structlog.get_logger()

#: Messages that are read ahead of their handling, so that pings are still answered meanwhile: 16 MiB at most.
_READ_AHEAD: Final = 16
#: So many times the largest message may come without a whole one. Pieces of a message may be empty, so that no bound on its size
#: ends one that has no end; but one of single bytes takes seven times its size.
_MAX_UNHEARD: Final = 2 * _READ_AHEAD
_RECEIVE_BYTES: Final = 16 * 1024
#: Subscriptions of one connection; who wants more wants ``*``.
MAX_SUBSCRIPTIONS: Final = 1000
#: Seconds for the peer's half of the closing handshake.
_CLOSE_SECONDS: Final = 5.0
#: Seconds to let a peer that sent too much read why it is closed.
_LINGER: Final = 2.0
_WORTHLESS: Final = "the token was revoked or has expired"
#: Seconds that the heartbeat may hold the event loop.
_SLICE: Final = 0.002


@attrs.frozen(kw_only=True)
class WebSocketLimits:
    """The bounds of each connection; times in seconds, sizes in bytes."""

    #: For the handshake, and for the first message ``auth`` where no token came with it.
    auth_seconds: float = 10.0
    #: Silence after which a peer is pinged, and the time that it has to answer with anything.
    ping_interval: float = 25.0
    ping_timeout: float = 10.0
    #: A peer that takes nothing for so long is closed with 4008.
    stall_limit: float = 60.0
    max_message: int = 1024 * 1024
    #: A client's messages: on average, and at once. A page that subscribes to a thousand work orders may.
    messages_per_second: float = 100.0
    message_burst: int = 1000


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
        self.broadcaster = broadcaster
        self.journal = journal
        self.orchestration = orchestration
        self.authenticator = authenticator
        self.origin_allowed = origin_allowed
        #: May be replaced while it runs.
        self.limits = limits or WebSocketLimits()
        self.rate = RateLimiter(self.limits.messages_per_second, self.limits.message_burst)
        self._connections: dict[_Connection, None] = {}
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
                outlet = Outlet(stream, nursery, stall_limit=self.limits.stall_limit, first=stream.take())
                outlet.max_unheard = _MAX_UNHEARD * self.limits.max_message
                websocket = await self._shake_hands(nursery, outlet)
                if websocket is not None:
                    connection = _Connection(self, outlet, websocket, self._nursery)
                    self._connections[connection] = None
                    try:
                        await connection.run(stream)
                    finally:
                        del self._connections[connection]
                nursery.cancel_scope.cancel()
            if websocket is not None:
                _end_parser(websocket)
        except* (ConnectionClosed, LocalProtocolError):
            # Out of trio-websocket's reader: it answers a ping, or a fault of the peer's, when the connection is closing already.
            pass

    async def _shake_hands(self, nursery: trio.Nursery, outlet: Outlet) -> WebSocketConnection | None:
        # A request that is refused by trio-websocket itself (a missing key) is never handed to us: it closes the stream.
        with trio.move_on_after(self.limits.auth_seconds) as scope:
            outlet.on_closed = scope.cancel
            request = await wrap_server_stream(
                nursery,
                outlet,
                message_queue_size=_READ_AHEAD,
                max_message_size=self.limits.max_message,
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
        limits = self.limits
        pause = min(limits.ping_interval, limits.ping_timeout) / 4
        while True:
            await trio.sleep(pause)
            now = began = trio.current_time()
            for connection in list(self._connections):
                connection.check(now, limits)
                if trio.current_time() - began > _SLICE:
                    await trio.lowlevel.checkpoint()
                    began = trio.current_time()


@attrs.define(eq=False)
class _Connection:
    """One of them, from the handshake to its end."""

    server: WebSocketServer
    outlet: Outlet
    websocket: WebSocketConnection
    #: Outlives the connection.
    nursery: trio.Nursery
    principal: Principal | None = attrs.field(default=None, init=False)
    subscriber: Subscriber | None = attrs.field(default=None, init=False)
    pinged_at: float | None = attrs.field(default=None, init=False)
    #: Set when `say_goodbye` is through with it.
    leaving: trio.Event | None = attrs.field(default=None, init=False)

    # --- coming in ---------------------------------------------------------------------------------------------------

    async def run(self, stream: Replayed) -> None:
        """From the handshake to the end."""
        try:
            assert stream.head is not None
            refusal = await self._admit(stream.head)
            stream.head = None
            if refusal is not None:
                if isinstance(refusal, Unauthorized):
                    self._say(error_message(refusal, None))
                await self._close(1008, refusal.message)
                return
            self.subscriber = self.server.broadcaster.connect(self.outlet)
            try:
                await self._listen(self.subscriber)
            finally:
                self.server.broadcaster.disconnect(self.subscriber)
        except ConnectionClosed:
            closed = self.websocket.closed
            if closed is not None and closed.code == 1009:
                await self.outlet.linger(_LINGER)
            if self.leaving is not None:
                # trio-websocket's reader, which ends with us, is needed for the rest of the closing handshake.
                await self.leaving.wait()

    async def _admit(self, head: RequestHead) -> AgentstreamError | None:
        """Find out who it is; None: welcome."""
        server = self.server
        origins, host = head.values(b"origin"), head.values(b"host")
        token = token_of(head)
        self.principal = server.authenticator.token(token) if token else None
        anonymous = server.authenticator.anonymous() if token is None else None
        has_token = self.principal is not None or anonymous is None
        if len(origins) > 1 or not server.origin_allowed(origins[0] if origins else None, host[0], has_token):
            return Forbidden("this Origin is refused")
        if token is not None:
            return None if self.principal is not None else Unauthorized("the token is unknown, revoked or expired")
        self.principal = anonymous
        if self.principal is None:
            with trio.move_on_after(server.limits.auth_seconds):
                return self._authenticate(await self.websocket.get_message())
            return Unauthorized(f"no token within {server.limits.auth_seconds:g} s")
        return None

    def _authenticate(self, text: str | bytes) -> AgentstreamError | None:
        try:
            message = wire.client_message(text)
        except AgentstreamError:
            message = None
        if not isinstance(message, Auth):
            return Unauthorized(
                'the first message must be {"type": "auth", "token": ...}, as no token came with the handshake'
            )
        self.principal = self.server.authenticator.token(message.token)
        if self.principal is None:
            return Unauthorized("the token is unknown, revoked or expired")
        self._say(Ok(timestamp=_now(), id=message.id))
        return None

    # --- talking -----------------------------------------------------------------------------------------------------

    async def _listen(self, subscriber: Subscriber) -> None:
        lanes = Lanes(self.server.orchestration, self.nursery, self._say)
        while True:
            await self._answer(await self.websocket.get_message(), subscriber, lanes)
            await subscriber.room()

    async def _answer(self, text: str | bytes, subscriber: Subscriber, lanes: Lanes) -> None:
        """One message. Its own function: what it holds is not held until the next one comes. Raises `ConnectionClosed`."""
        self.outlet.unheard = 0
        try:
            message = message_in(text, self.server.rate.take(str(self.websocket), trio.current_time()))
            refusal = await self._handle(message, subscriber, lanes)
        except AgentstreamError as error:
            self._say(error_message(error, id_of(text)))
        except Exception as error:
            log.exception("a message over WebSocket failed")
            self._say(error_message(error, id_of(text)))
        else:
            if refusal is not None:
                self._say(error_message(refusal, message.id))
                await self._close(1008, refusal.message)
                raise ConnectionClosed(self.websocket.closed)

    async def _handle(self, message: ClientMessage, subscriber: Subscriber, lanes: Lanes) -> Unauthorized | None:
        """Carry a message out, or start to; what is returned ends the connection."""
        if message.scope is not None:
            if not self.still_allowed():
                return Unauthorized(_WORTHLESS)
            if self.principal is None or not self.principal.may(message.scope):
                raise Forbidden(f"{message.type} needs a token with the scope {message.scope}")
        match message:
            case Ping():
                self._say(Pong(timestamp=_now(), id=message.id))
            case Subscribe():
                await self._subscribe(message, subscriber)
            case Unsubscribe():
                self.server.broadcaster.unsubscribe(subscriber, message.work_order_id)
                self._say(UnsubscriptionConfirmed(timestamp=_now(), id=message.id, work_order_id=message.work_order_id))
            case Auth():
                known = self.server.authenticator.token(message.token)
                if known is None:
                    return Unauthorized("the token is unknown, revoked or expired")
                self.principal = known
                self._say(Ok(timestamp=_now(), id=message.id))
            case _ if isinstance(message, CONTROL_MESSAGES):
                lanes.start(message)
            case _:
                raise InvalidMessage(f"{message.type} is not served here")
        return None

    async def _subscribe(self, message: Subscribe, subscriber: Subscriber) -> None:
        journal, broadcaster, key = self.server.journal, self.server.broadcaster, message.work_order_id
        if len(subscriber.course) >= MAX_SUBSCRIPTIONS and key not in subscriber.course.ids():
            raise TooLarge(f"a connection has at most {MAX_SUBSCRIPTIONS} subscriptions; {ALL} is all work orders")
        since, gap = await beginning(message, journal)
        # From here on without an await: nothing is published between the confirmation's seq and the subscription.
        self._say(
            SubscriptionConfirmed(
                timestamp=_now(),
                id=message.id,
                work_order_id=key,
                epoch=journal.epoch,
                seq=broadcaster.position,
                filters=message.filters,
            )
        )
        if gap is not None:
            self._say(gap)
        broadcaster.subscribe(
            subscriber, key, message.filters, since=since, max_events_per_second=message.max_events_per_second
        )

    def _say(self, message: ServerMessage) -> None:
        self.outlet.put(frame(wire.to_json(message)))

    # --- going -------------------------------------------------------------------------------------------------------

    def check(self, now: float, limits: WebSocketLimits) -> None:
        """Ping a silent peer, give up a dead one."""
        outlet = self.outlet
        if self.pinged_at is not None and outlet.last_received >= self.pinged_at:
            self.pinged_at = None
        if outlet.waiting:
            self.pinged_at = None
        elif self.pinged_at is not None:
            if now - self.pinged_at >= limits.ping_timeout:
                log.info("a WebSocket peer does not answer", caller=self.principal.name if self.principal else None)
                outlet.abort()
        elif now - outlet.last_received >= limits.ping_interval:
            self.pinged_at = now
            outlet.put(PING)

    def still_allowed(self) -> bool:
        """Whether the one who was let in would be so now."""
        return self.principal is not None and self.server.authenticator.still(self.principal)

    async def throw_out(self) -> None:
        """The token is worth nothing any more: not one event more, and 1008."""
        if self.leaving is not None or self.subscriber is None:
            return
        self.leaving = trio.Event()
        log.info(
            "a WebSocket is closed: its token was revoked or has expired", caller=self.principal and self.principal.name
        )
        try:
            self.server.broadcaster.disconnect(self.subscriber)
            self._say(error_message(Unauthorized(_WORTHLESS), None))
            await self._close(1008, _WORTHLESS)
        finally:
            self.leaving.set()

    async def say_goodbye(self) -> None:
        """The daemon stops: what waits, then 1001."""
        self.leaving = trio.Event()
        try:
            await self.outlet.idle()
            if self.subscriber is not None:
                self.server.broadcaster.disconnect(self.subscriber)
            await self._close(1001, "the daemon stops")
        finally:
            self.leaving.set()

    async def _close(self, code: int, reason: str) -> None:
        with trio.move_on_after(_CLOSE_SECONDS):
            await self.websocket.aclose(code, reason)


class _Past:
    """A handshake of which nothing is left, for all connections."""

    state: Final = ConnectionState.OPEN

    def events(self) -> tuple[()]:
        """There will be none."""
        return ()


_PAST: Final = _Past()


def _forget_handshake(websocket: WebSocketConnection) -> None:
    """wsproto and trio-websocket keep h11's connection and the request for ever: a seventh of what a connection takes."""
    with suppress(AttributeError):  # Of a release that has them elsewhere: then they stay.
        websocket._wsproto.handshake = cast("H11Handshake", _PAST)
        websocket._handshake_headers = ()


def _end_parser(websocket: WebSocketConnection) -> None:
    """wsproto's parser of frames is a generator of an object that has it: only the garbage collector would free the two."""
    with suppress(AttributeError):  # Likewise.
        frames: Any = websocket._wsproto.connection
        frames._proto._parse_more.close()


def _nobody_asked() -> None:
    pass


def _now() -> datetime:
    return datetime.now(UTC)
