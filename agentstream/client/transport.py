"""How a client reaches the daemon: an address becomes a stream, and an HTTP GET goes over it.

h11 directly over a Trio stream, because it is here anyway (below wsproto and Hypercorn), because the client's HTTP is a handful
of GETs with JSON answers, and because an HTTP client library would bring a second event-loop layer and know no Unix sockets.
One connection per call: no pool, nothing to keep alive, nothing that a cancelled call could leave half-read.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

import attrs
import h11
import trio

from agentstream.client.cursor import error_of
from agentstream.errors import AgentstreamError, InvalidMessage, ParseFailed, TooLarge, Unreachable
from agentstream.model import wire

#: Seconds for TCP, TLS and, in `websocket`, the handshake: a host that is there answers well within.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds between two pieces of an answer.
_READ_TIMEOUT: Final = 60.0
#: Bytes of a JSON answer; a tool call's whole result may be several MB. Raw logs are streamed and not bounded.
_MAX_ANSWER: Final = 64 * 1024 * 1024
_CHUNK: Final = 64 * 1024


@attrs.frozen
class Address:
    """Where a daemon listens: TCP, with or without TLS, or a Unix socket; ``prefix`` is the path that a proxy gives it."""

    host: str
    port: int
    tls: bool = False
    unix_path: str | None = None
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """``http(s)://HOST[:PORT][/PREFIX]`` (also ``ws(s)``), ``unix:/PATH`` or ``http+unix://%2FPATH``."""
        wrong = InvalidMessage(
            f"{url!r} is no daemon's address; give http://HOST:PORT, https://HOST:PORT or unix:/PATH"
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        match parts.scheme:
            case "http" | "https" | "ws" | "wss" if parts.hostname:
                tls = parts.scheme in ("https", "wss")
                return cls(parts.hostname, port or (443 if tls else 80), tls, prefix=parts.path.rstrip("/"))
            case "unix" if parts.path.startswith("/") and not parts.netloc:
                return cls("localhost", 80, unix_path=unquote(parts.path))
            case "http+unix" if unquote(parts.netloc).startswith("/"):
                return cls("localhost", 80, unix_path=unquote(parts.netloc), prefix=parts.path.rstrip("/"))
            case _:
                raise wrong

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"{'https' if self.tls else 'http'}://{self.host_header}{self.prefix}"

    @property
    def host_header(self) -> str:
        """What goes into ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


async def open_stream(address: Address, ssl_context: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """A connected stream. Raises `Unreachable`, also after `CONNECT_TIMEOUT`."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            if address.unix_path is not None:
                return await trio.open_unix_socket(address.unix_path)
            if not address.tls:
                return await trio.open_tcp_stream(address.host, address.port)
            context = ssl_context or ssl.create_default_context()
            return await _open_tls(address, context)
    except trio.TooSlowError:
        raise Unreachable(f"{address} does not answer") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise Unreachable(f"no daemon answers at {address}: {_reason(error)}") from None


async def _open_tls(address: Address, context: ssl.SSLContext) -> trio.abc.Stream:
    stream = await trio.open_ssl_over_tcp_stream(address.host, address.port, ssl_context=context, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _reason(error: BaseException) -> str:
    """In words, without the addresses and numbers that the layers put around it."""
    cause = error.__cause__
    if isinstance(error, trio.BrokenResourceError) and cause is not None:
        return _reason(cause)
    if isinstance(cause, BaseExceptionGroup):
        # What open_tcp_stream raises when none of a host's addresses answers.
        return _reason(cause.exceptions[0])
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError | socket.gaierror):
        return error.strerror or str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


class Answer:
    """An HTTP answer whose body is read piece by piece."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection, head: h11.Response) -> None:
        self._stream = stream
        self._connection = connection
        self.status = head.status_code

    async def read(self) -> bytes:
        """The next piece of the body, ``b""`` at its end. Raises `Unreachable` where it breaks off."""
        event = await _next_event(self._stream, self._connection)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read_all(self) -> bytes:
        """The rest of the body, at most 64 MiB: else `TooLarge`."""
        body = bytearray()
        while piece := await self.read():
            body += piece
            if len(body) > _MAX_ANSWER:
                raise TooLarge(f"the daemon's answer is larger than {_MAX_ANSWER} bytes")
        return bytes(body)


async def _next_event(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Event:
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                with trio.fail_after(_READ_TIMEOUT):
                    connection.receive_data(bytes(await stream.receive_some(_CHUNK)))
            elif isinstance(event, h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed):
                return event
    except (trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
        raise Unreachable(f"the daemon's answer broke off: {_reason(error)}") from None


@attrs.frozen
class Api:
    """HTTP calls of one daemon. Every method raises `Unreachable`, or the error that the daemon answers."""

    address: Address
    token: str | None = attrs.field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None

    async def get(self, path: str, **query: str | int | None) -> Any:
        """``data`` of ``GET /api/v1`` + ``path``. Query parameters that are None are left out."""
        async with self.open(path, **query) as answer:
            return _data(answer.status, await answer.read_all())

    @asynccontextmanager
    async def open(self, path: str, **query: str | int | None) -> AsyncIterator[Answer]:
        """An answer whose body is no JSON and may be of any size: the raw streams. An error answer is raised here."""
        given = {key: value for key, value in query.items() if value is not None}
        target = f"{self.address.prefix}/api/v1{path}" + (f"?{urlencode(given)}" if given else "")
        headers = [("Host", self.address.host_header), ("Connection", "close"), ("User-Agent", "agentstream")]
        if self.token is not None:
            headers.append(("Authorization", f"Bearer {self.token}"))
        stream = await open_stream(self.address, self.ssl_context)
        try:
            connection = h11.Connection(h11.CLIENT)
            request = h11.Request(method="GET", target=target, headers=headers)
            try:
                await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            except trio.BrokenResourceError as error:
                raise Unreachable(f"{self.address} hung up: {_reason(error)}") from None
            head = await _next_event(stream, connection)
            if not isinstance(head, h11.Response):
                raise Unreachable(f"{self.address} hung up without an answer")
            answer = Answer(stream, connection, head)
            if answer.status >= 400:
                _data(answer.status, await answer.read_all())
            yield answer
        finally:
            await trio.aclose_forcefully(stream)


def segment(value: str) -> str:
    """A value as one segment of a path."""
    return quote(value, safe="")


def _data(status: int, body: bytes) -> Any:
    try:
        envelope = wire.json_object(body)
    except ParseFailed:
        envelope = {}
    if envelope.get("success") is True and status < 400:
        return envelope.get("data")
    error = envelope.get("error")
    if not isinstance(error, dict):
        raise AgentstreamError(f"what answers there is not agentstream (HTTP status {status}); check the address")
    raise error_of(str(error.get("code")), str(error.get("message")), error.get("details"))
