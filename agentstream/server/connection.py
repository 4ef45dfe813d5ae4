"""One WebSocket connection: who may come in, what a client says and is answered, how it is ended.

What is sent goes into the `Outlet` directly, so an answer and the events around it keep their order (PROTOCOL.md: confirmation,
replayed events, ``replay_complete``, live events).

A refused Origin and a wrong token are told by close code 1008 after the handshake, as PROTOCOL.md says: a page can't read
the status of a refused handshake. Nothing else is sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import attrs
import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from agentstream.broadcast.batch import ALL
from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.frames import PING, frame
from agentstream.broadcast.outlet import Outlet
from agentstream.broadcast.subscriber import Subscriber
from agentstream.errors import AgentstreamError, Forbidden, InvalidMessage, RateLimited, TooLarge, Unauthorized
from agentstream.journal.base import Journal
from agentstream.model import wire
from agentstream.model.messages import (
    Auth,
    ClientMessage,
    Gap,
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
from agentstream.server.auth import bearer
from agentstream.server.control import CONTROL_MESSAGES, Lanes, error_message
from agentstream.server.head import Replayed, RequestHead
from agentstream.server.principal import Authenticator, OriginAllowed, Principal
from agentstream.server.ratelimit import RateLimiter

log = structlog.get_logger()

#: In the WebSocket's subprotocols: a page can't set headers.
SUBPROTOCOL: Final = "bearer."
#: Subscriptions of one connection; who wants more wants ``*``.
MAX_SUBSCRIPTIONS: Final = 1000
#: Characters of a work order id, as `WorkOrderRequest.id`.
_MAX_ID: Final = 128
#: Seconds for the peer's half of the closing handshake.
_CLOSE_SECONDS: Final = 5.0
#: Seconds to let a peer that sent too much read why it is closed.
_LINGER: Final = 2.0
_WORTHLESS: Final = "the token was revoked or has expired"


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


@attrs.define(kw_only=True)
class Services:
    """What connections need of the daemon."""

    broadcaster: EventBroadcaster
    journal: Journal
    orchestration: Orchestration
    authenticator: Authenticator
    origin_allowed: OriginAllowed
    limits: WebSocketLimits
    #: By connection.
    rate: RateLimiter


@attrs.define(eq=False)
class Connection:
    """One WebSocket, from the handshake to its end. Made by `agentstream.server.websocket.WebSocketServer`."""

    server: Services
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
        token = _token(head)
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
            message = _message(text, self.server.rate.take(str(self.websocket), trio.current_time()))
            refusal = await self._handle(message, subscriber, lanes)
        except AgentstreamError as error:
            self._say(error_message(error, _id_of(text)))
        except Exception as error:
            log.exception("a message over WebSocket failed")
            self._say(error_message(error, _id_of(text)))
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
        if len(key) > _MAX_ID:
            raise InvalidMessage(
                f"workOrderId: expected at most {_MAX_ID} characters", details={"field": "workOrderId"}
            )
        if len(subscriber.course) >= MAX_SUBSCRIPTIONS and key not in subscriber.course.ids():
            raise TooLarge(f"a connection has at most {MAX_SUBSCRIPTIONS} subscriptions; {ALL} is all work orders")
        asked = (message.since_seq, message.replay_since, message.replay_count)
        if sum(one is not None for one in asked) > 1:
            raise InvalidMessage(
                "sinceSeq: expected only one of sinceSeq, replaySince and replayCount", details={"field": "sinceSeq"}
            )
        of = None if key == ALL else key
        since, gap = message.since_seq, None
        if since is not None:
            if since > journal.head if message.epoch is None else message.epoch != journal.epoch:
                # A seq beyond the head can only be of another journal.
                gap = Gap(timestamp=_now(), work_order_id=key, from_seq=0, to_seq=since, reason="epoch")
                since = 0
            since = min(since, journal.head)
        elif message.replay_since is not None:
            since = await journal.seq_before_time(message.replay_since, of)
        elif message.replay_count is not None:
            since = await journal.seq_before_last(message.replay_count, of)
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


def _now() -> datetime:
    return datetime.now(UTC)


def _message(text: str | bytes, wait: float) -> ClientMessage:
    if wait:
        raise RateLimited(
            f"too many messages; come back in {wait:.2f} s", details={"retryAfterSeconds": round(wait, 3)}
        )
    if isinstance(text, bytes):
        raise InvalidMessage("expected a text message, got a binary one")
    return wire.client_message(text)


def _token(head: RequestHead) -> str | None:
    """The token that came with the handshake, from where it is found first."""
    places: tuple[Callable[[], str | None], ...] = (
        lambda: next((found for value in head.values(b"authorization") if (found := bearer(value))), None),
        lambda: next(
            (
                one.removeprefix(SUBPROTOCOL)
                for one in head.tokens(b"sec-websocket-protocol")
                if one.startswith(SUBPROTOCOL)
            ),
            None,
        ),
        lambda: head.query("token"),
    )
    return next((token for place in places if (token := place())), None)


def _id_of(text: str | bytes) -> str | None:
    """The ``id`` of a message that could not be understood."""
    try:
        found = wire.json_object(text).get("id")
    except AgentstreamError:
        return None
    return found if isinstance(found, str) else None
