"""Addresses, and HTTP over streams that break in every way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentstream.client.transport import Address, Api, segment
from agentstream.errors import AgentstreamError, InvalidMessage, NotFound, Unreachable


@pytest.mark.parametrize(
    ("url", "address", "text"),
    [
        ("http://127.0.0.1:7171", Address("127.0.0.1", 7171), "http://127.0.0.1:7171"),
        ("http://127.0.0.1:7171/", Address("127.0.0.1", 7171), "http://127.0.0.1:7171"),
        ("ws://localhost:1", Address("localhost", 1), "http://localhost:1"),
        ("https://agents.example", Address("agents.example", 443, tls=True), "https://agents.example"),
        ("wss://a.example:8443/x/", Address("a.example", 8443, tls=True, prefix="/x"), "https://a.example:8443/x"),
        ("http://[::1]:80", Address("::1", 80), "http://[::1]"),
        ("unix:/run/a.sock", Address("localhost", 80, unix_path="/run/a.sock"), "unix:/run/a.sock"),
        ("http+unix://%2Frun%2Fa.sock", Address("localhost", 80, unix_path="/run/a.sock"), "unix:/run/a.sock"),
    ],
)
def test_addresses(url: str, address: Address, text: str) -> None:
    assert Address.parse(url) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "url", ["", "localhost:7171", "ftp://x", "http://", "http://x:port", "unix:relative", "http+unix://x"]
)
def test_what_is_no_address_says_so(url: str) -> None:
    with pytest.raises(InvalidMessage, match="is no daemon's address; give http://HOST:PORT"):
        Address.parse(url)


def test_a_value_stays_one_segment_of_the_path() -> None:
    assert segment("a/../b?c") == "a%2F..%2Fb%3Fc"


@asynccontextmanager
async def answering(answer: bytes, asked: list[bytes], path: Path | None = None) -> AsyncIterator[Address]:
    """A server that reads one request head, answers these bytes, and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some()
        asked.append(head)
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        if path is None:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])
        else:
            socket = trio.socket.socket(trio.socket.AF_UNIX)
            await socket.bind(str(path))
            socket.listen()
            listeners = [trio.SocketListener(socket)]
            address = Address.parse(f"unix:{path}")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with trio.fail_after(30):  # noqa: ASYNC100 - for the body of the test
            yield address
        nursery.cancel_scope.cancel()


def response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_get_asks_and_opens_the_envelope(tmp_path: Path) -> None:
    asked: list[bytes] = []
    body = b'{"success":true,"data":{"items":[1]},"requestId":"q"}'
    for path in (None, tmp_path / "s"):
        async with answering(response(body), asked, path) as address:
            assert await Api(address, "t0ken").get("/work-orders", status="queued", limit=5, cursor=None) == {
                "items": [1]
            }
    for head in asked:
        assert head.startswith(b"GET /api/v1/work-orders?status=queued&limit=5 HTTP/1.1\r\n")
        assert b"authorization: Bearer t0ken" in head.lower().replace(b"bearer", b"Bearer")


async def test_an_error_answer_is_raised_as_what_it_is() -> None:
    body = b'{"success":false,"error":{"code":"NOT_FOUND","message":"no such run"},"requestId":"q"}'
    async with answering(response(body, b"404 Not Found"), []) as address:
        with pytest.raises(NotFound, match="no such run"):
            await Api(address).get("/runs/x")


@pytest.mark.parametrize(("status", "body"), [(b"200 OK", b"<html>"), (b"502 Bad", b"[]"), (b"200 OK", b"{}")])
async def test_another_program_at_that_address_is_told(status: bytes, body: bytes) -> None:
    async with answering(response(body, status), []) as address:
        with pytest.raises(AgentstreamError, match="is not agentstream"):
            await Api(address).get("/agents")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"\x15\x03\x01\x00\x02", b"HTTP/1.1 2"]
)
async def test_an_answer_that_breaks_off_is_unreachable(answer: bytes) -> None:
    async with answering(answer, []) as address:
        with pytest.raises(Unreachable):
            await Api(address).get("/agents")


async def test_a_raw_stream_is_read_piece_by_piece() -> None:
    body = b"x" * 300_000
    async with answering(response(body), []) as address:
        async with Api(address).open("/runs/r/stdout") as answer:
            pieces = []
            while piece := await answer.read():
                pieces.append(piece)
    assert len(pieces) > 1
    assert b"".join(pieces) == body


async def test_a_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"no daemon answers at unix:.*No such file"):
        await Api(Address.parse(f"unix:{tmp_path}/none")).get("/agents")
