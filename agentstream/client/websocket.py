"""One WebSocket connection of the client; the only file here that knows trio-websocket.

trio-websocket starts its reader in a nursery that it is handed, and waits for the handshake without a look at that reader: when
the daemon hangs up in the middle of the handshake, that wait has no end. So what it is handed is `Connection` itself, which
starts the reader inside a scope of its own and knows when it is over. That scope is also how a connection is dropped: at once,
and from synchronous code.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import trio
import trio_websocket

from agentstream.client.cursor import error_of
from agentstream.client.transport import CONNECT_TIMEOUT, Address, open_stream
from agentstream.errors import AgentstreamError, InvalidMessage, ParseFailed, TooLarge, Unauthorized, Unreachable
from agentstream.model import wire

#: Messages read ahead of the consumer, so that pings are answered while it works on one: at most 16 MiB, as events have 64 KiB.
_READ_AHEAD: Final = 256
_RECEIVE_BYTES: Final = 64 * 1024
#: Seconds without a message until the daemon is pinged; its own pings come every 25 s, so a silent one is rare.
_QUIET: Final = 30.0
#: Seconds until a pong must have come, or a closing handshake be over.
_PONG: Final = 10.0
_CLOSE: Final = 1.0


class Connection:
    """An open connection. Only one task may call `receive` at a time."""

    def __init__(self, nursery: trio.Nursery, stream: trio.abc.Stream, address: Address) -> None:
        self._nursery = nursery
        self._stream = stream
        self._address = address
        self._scope = trio.CancelScope()
        self._handshake = trio.CancelScope()
        self._failure: Exception | None = None
        self._websocket: trio_websocket.WebSocketConnection | None = None

    @classmethod
    async def open(
        cls, nursery: trio.Nursery, address: Address, token: str | None, ssl_context: ssl.SSLContext | None = None
    ) -> Connection:
        """Connect to ``/ws``. Raises `Unreachable` (worth another try), or why the daemon refuses (not worth one)."""
        return await cls.over(nursery, await open_stream(address, ssl_context), address, token)

    @classmethod
    async def over(
        cls, nursery: trio.Nursery, stream: trio.abc.Stream, address: Address, token: str | None
    ) -> Connection:
        """`open` over a stream that is there already, and is closed with the connection."""
        self = cls(nursery, stream, address)
        self._handshake.deadline = trio.current_time() + CONNECT_TIMEOUT
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        try:
            with self._handshake:
                self._websocket = await trio_websocket.wrap_client_stream(
                    cast("trio.Nursery", self),
                    cast("trio.SocketStream", stream),
                    address.host_header,
                    f"{address.prefix}/ws",
                    extra_headers=headers,
                    message_queue_size=_READ_AHEAD,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
        finally:
            if self._websocket is None:
                self.drop()
                await trio.aclose_forcefully(stream)
        if self._websocket is None:
            raise self._refusal()
        return self

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        """The one method of a nursery that trio-websocket calls."""
        self._nursery.start_soon(self._read, reader)

    async def _read(self, reader: Callable[[], Awaitable[None]]) -> None:
        with self._scope:
            try:
                await reader()
            except Exception as error:  # noqa: BLE001 - whatever breaks the reader, the connection is lost, not the client
                self._failure = error
            finally:
                self._handshake.cancel()
                await trio.aclose_forcefully(self._stream)

    def _refusal(self) -> AgentstreamError:
        failure = self._failure
        if not isinstance(failure, trio_websocket.ConnectionRejected):
            return Unreachable(f"{self._address} hung up before the WebSocket was open")
        status = failure.status_code
        message = _rejection(failure.body) or f"the daemon refused the WebSocket (HTTP status {status})"
        if status in (408, 429) or status >= 500:
            return Unreachable(message)
        return error_of({401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}.get(status, ""), message)

    async def send(self, message: bytes) -> None:
        """Send JSON text. A send that was cut short has spoiled the stream, so the connection is dropped."""
        assert self._websocket is not None
        try:
            await self._websocket.send_message(message.decode())
        except trio_websocket.ConnectionClosed:
            raise self._lost() from None
        except BaseException:
            self.drop()
            raise

    async def receive(self) -> str:
        """The next message. Safe to cancel: none is lost. Raises `Unreachable` when the connection is lost."""
        assert self._websocket is not None
        try:
            while True:
                with trio.move_on_after(_QUIET):
                    return _text(await self._websocket.get_message())
                # In a task of its own: the pong comes behind whatever the daemon sends now, so receiving must go on.
                self._nursery.start_soon(self._probe)
        except trio_websocket.ConnectionClosed:
            raise self._lost() from None

    async def _probe(self) -> None:
        assert self._websocket is not None
        try:
            with trio.fail_after(_PONG):
                await self._websocket.ping()
        except trio.TooSlowError:
            self._failure = Unreachable(f"{self._address} stopped answering")
            self.drop()
        except trio_websocket.ConnectionClosed:
            pass  # `receive` finds it too, and says so

    def _lost(self) -> AgentstreamError:
        assert self._websocket is not None
        if isinstance(self._failure, Unreachable):
            return self._failure
        closed = self._websocket.closed
        code, reason = (closed.code, closed.reason) if closed is not None else (None, None)
        match code:
            case 1008:
                return Unauthorized(reason or "the daemon does not accept this token")
            case 1009:
                return TooLarge(reason or "a message to the daemon may have 1 MiB")
            case 1001:
                return Unreachable("the daemon stopped")
            case 4008:
                return Unreachable("the daemon gave up on a subscriber that took nothing")
            case _:
                return Unreachable(f"lost the connection to {self._address}")

    def drop(self) -> None:
        """End the connection at once, without a closing handshake."""
        self._scope.cancel()

    async def aclose(self) -> None:
        """Close in good order, within a second."""
        if self._websocket is not None:
            with trio.move_on_after(_CLOSE):
                await self._websocket.aclose()
        self.drop()


def _text(message: str | bytes) -> str:
    if isinstance(message, bytes):
        raise InvalidMessage("the daemon sent a binary message; it must be another program")
    return message


def _rejection(body: bytes | None) -> str | None:
    """The message of an error answer in the HTTP envelope."""
    try:
        error: Any = wire.json_object(body or b"").get("error")
    except ParseFailed:
        return None
    return str(error["message"]) if isinstance(error, dict) and "message" in error else None
