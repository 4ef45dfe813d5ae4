"""Looking at a request's head without taking it away from whoever serves the request.

h11 reads the head, which both sides of the house use underneath anyway (Hypercorn and wsproto); it is bounded, and what was read
is handed on by a stream that gives it out again first.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import trio

#: Bytes of a request line with its headers. nginx has 8 + 32 KiB, Apache 8 KiB a line and 100 lines.
MAX_HEAD: Final = 32 * 1024
_RECEIVE: Final = 16 * 1024
#: Bytes that are offered to the socket before its peer has to have taken some.
_SEND: Final = 64 * 1024
_RESET: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"


class BadHead(Exception):
    """What the peer sent is no HTTP/1.1 request; ``status`` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@attrs.frozen(kw_only=True)
class RequestHead:
    """The first request of a connection. ``raw`` is everything that was read so far, which may be more than the head."""

    method: str
    target: str
    #: Names in lower case, in the order of the wire.
    headers: Sequence[tuple[bytes, bytes]]
    raw: bytes = attrs.field(repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    def query(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = parse_qs(urlsplit(self.target).query).get(name)
        return values[0] if values else None

    def values(self, name: bytes) -> list[str]:
        """The values of a header, as often as it is there."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    def tokens(self, name: bytes) -> list[str]:
        """The comma-separated parts of a header."""
        return [part.strip() for value in self.values(name) for part in value.split(",") if part.strip()]

    @property
    def is_websocket(self) -> bool:
        """Whether it asks to become a WebSocket. RFC 6455, 4.2.1."""
        return (
            self.method == "GET"
            and "websocket" in [value.lower() for value in self.tokens(b"upgrade")]
            and "upgrade" in [value.lower() for value in self.tokens(b"connection")]
        )


async def read_head(stream: trio.abc.ReceiveStream) -> RequestHead | None:
    """The head of the first request; None when the peer hung up before it was whole. Raises `BadHead`."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    raw = bytearray()
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise BadHead(error.error_status_hint, f"not a request: {error}") from None
        if isinstance(event, h11.Request):
            # h11 bounds only what is incomplete; the last piece may have made it longer.
            if len(raw) - len(parser.trailing_data[0]) > MAX_HEAD:
                raise BadHead(431, f"the head of a request has at most {MAX_HEAD} bytes")
            if event.http_version not in (b"1.0", b"1.1"):
                raise BadHead(505, "HTTP/1.1 is spoken here")
            return RequestHead(
                method=event.method.decode("ascii"),
                target=event.target.decode("latin-1"),
                headers=[(name, value) for name, value in event.headers],
                raw=bytes(raw),
            )
        if event is not h11.NEED_DATA:
            return None
        data = await stream.receive_some(_RECEIVE)
        raw += data
        parser.receive_data(bytes(data))


class Replayed(trio.abc.HalfCloseableStream):
    """A connection whose first bytes were looked at already.

    Sending is given up, and the connection reset, when the peer takes nothing for ``stall_limit`` seconds: Hypercorn sends under a
    shield, where no timeout of anybody else reaches it. It also ends our side while the application still sends, when a request
    goes wrong behind its head; hence the lock.
    """

    def __init__(
        self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], head: RequestHead, stall_limit: float
    ) -> None:
        self._stream = stream
        #: The first request. Who has no more use for it sets it to None: ten thousand idle connections need no heads.
        self.head: RequestHead | None = head
        self._again = head.raw
        self._stall_limit = stall_limit
        #: Made when it is needed: a WebSocket without TLS is written to by its outlet.
        self._sending: trio.Lock | None = None
        if isinstance(stream, trio.SocketStream):
            #: Only a connection without TLS has its bytes on the socket.
            self.socket = stream.socket

    def take(self) -> bytes:
        """What was read already: whoever takes it gives it out himself."""
        taken, self._again = self._again, b""
        return taken

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """First what was read already."""
        if self._again:
            await trio.lowlevel.checkpoint()
            first, self._again = self._again[:max_bytes], self._again[max_bytes:] if max_bytes is not None else b""
            return first
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, as long as the peer takes something now and then. Raises `trio.BrokenResourceError` otherwise."""
        view = memoryview(data)
        try:
            async with self._alone():
                for start in range(0, max(len(view), 1), _SEND):
                    with trio.fail_after(self._stall_limit):
                        await self._stream.send_all(view[start : start + _SEND])
        except trio.TooSlowError:
            self.abort()
            raise trio.BrokenResourceError("the peer took nothing for too long") from None

    def _alone(self) -> trio.Lock:
        self._sending = self._sending or trio.Lock()
        return self._sending

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream underneath."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End our side, where the stream underneath can: TLS can't."""
        if isinstance(self._stream, trio.SocketStream):
            async with self._alone():
                await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Reset the connection at once, whoever is using it."""
        plain = self.transport_stream
        with suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        plain.socket.close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    @property
    def transport_stream(self) -> trio.SocketStream:
        """The TCP or Unix connection itself."""
        return self._stream if isinstance(self._stream, trio.SocketStream) else self._stream.transport_stream


class ReplayedTLS(Replayed):
    """The same over TLS: Hypercorn knows by these two that it is."""

    async def do_handshake(self) -> None:
        """It is done: the head came through it."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str | None:
        """What the handshake agreed on."""
        return cast("str | None", cast("trio.SSLStream[trio.SocketStream]", self._stream).selected_alpn_protocol())


def replayed(
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], head: RequestHead, *, stall_limit: float
) -> Replayed:
    """`Replayed`, or its TLS variant."""
    kind = Replayed if isinstance(stream, trio.SocketStream) else ReplayedTLS
    return kind(stream, head, stall_limit)
