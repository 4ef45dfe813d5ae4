"""One port: HTTP and WebSocket side by side, over TCP, TLS and a Unix socket; bounds; nothing takes the door down."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from agentstream.server.listener import open_unix
from tests.support.service import PATIENCE, Service, connect, open_service, until


async def exchange(stream: trio.abc.Stream, request: bytes) -> bytes:
    """Send a request and read its answer, by its content-length."""
    with trio.fail_after(PATIENCE):
        await stream.send_all(request)
        return await answer(stream)


async def answer(stream: trio.abc.Stream) -> bytes:
    data = b""
    with trio.fail_after(PATIENCE):
        while True:
            head, found, body = data.partition(b"\r\n\r\n")
            if found:
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if lengths and len(body) >= int(lengths[0].partition(b":")[2]):
                    return data
            more = await stream.receive_some()
            if not more:
                return data
            data += more


def get(service: Service, path: str = "/health", host: str | None = None, extra: str = "") -> bytes:
    host = host if host is not None else f"127.0.0.1:{service.port}"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode()


async def test_http_with_keep_alive_beside_websocket(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        for _ in range(3):
            assert (await exchange(stream, get(service))).startswith(b"HTTP/1.1 200")
        extra = f"Authorization: Bearer {service.token}\r\n"
        listed = await exchange(stream, get(service, "/api/v1/work-orders", extra=extra))
        assert orjson.loads(listed.partition(b"\r\n\r\n")[2])["success"] is True
        await peer.ask("ping", "pong")
        await stream.aclose()


async def test_a_request_in_pieces_and_two_in_one(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        request = get(service)
        for byte in request[:-1]:
            await stream.send_all(bytes([byte]))
        first = await exchange(stream, request[-1:] + request)
        assert first.startswith(b"HTTP/1.1 200")
        if first.count(b"HTTP/1.1 200") < 2:
            assert (await answer(stream)).startswith(b"HTTP/1.1 200")
        await stream.aclose()


async def test_a_body_that_came_with_the_head_is_not_lost(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        body = orjson.dumps({"taskPrompt": "x", "workspaceSource": {"type": "fresh"}, "agentType": "demo"})
        made = await exchange(
            stream,
            (
                f"POST /api/v1/work-orders HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
                f"Authorization: Bearer {service.token}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body,
        )
        assert made.startswith(b"HTTP/1.1 201")
        await stream.aclose()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /ws HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 403),
        ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /else HTTP/1.1\r\nHost: {own}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 404),
        ("GET /ws HTTP/1.1\r\nHost: {own}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("nonsense\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: {own}\r\nX: " + "x" * 40_000 + "\r\n\r\n", 431),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\x16\x03\x01 a TLS hello", 400),
    ],
)
async def test_what_is_refused(tmp_path: Path, request_text: str, status: int) -> None:
    async with open_service(tmp_path) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        request = request_text.replace("{own}", f"127.0.0.1:{service.port}").encode("latin-1")
        if not request.endswith(b"\r\n\r\n"):
            request += b"\r\n\r\n"
        refused = await exchange(stream, request)
        assert refused.startswith(b"HTTP/1.1 %d " % status), refused
        if b"application/json" in refused:
            head, _, body = refused.partition(b"\r\n\r\n")
            problem = orjson.loads(body)
            assert problem["success"] is False
            assert b"x-request-id: " + problem["requestId"].encode() in head.lower()
        await stream.aclose()
        again = await trio.open_tcp_stream("127.0.0.1", service.port)
        assert (await exchange(again, get(service))).startswith(b"HTTP/1.1 200")
        await again.aclose()


async def test_a_slow_head_is_not_waited_for(tmp_path: Path) -> None:
    async with open_service(tmp_path, door_options={"head_seconds": 0.05}) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        await stream.send_all(b"GET /health HT")
        with trio.fail_after(PATIENCE):
            assert await stream.receive_some() == b""
        await stream.aclose()


async def test_of_too_many_half_open_connections_the_oldest_goes(tmp_path: Path) -> None:
    async with open_service(tmp_path, door_options={"max_half_open": 10}) as service:
        streams = [await trio.open_tcp_stream("127.0.0.1", service.port) for _ in range(11)]
        with trio.fail_after(PATIENCE):
            gone = await streams[0].receive_some()
        assert gone == b""
        assert (await exchange(streams[10], get(service))).startswith(b"HTTP/1.1 200")
        for stream in streams:
            await stream.aclose()


async def test_peers_that_vanish_at_any_moment_leave_the_door_open(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        handshake = get(
            service,
            "/ws",
            extra="Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {service.token}\r\n",
        )
        hostile = handshake + b"\xff\xff\xff\xff\xff\xff"
        for request in (b"", b"GET", get(service), handshake[:50], handshake, hostile):
            for _ in range(3):
                stream = await trio.open_tcp_stream("127.0.0.1", service.port)
                if request:
                    await stream.send_all(request)
                await stream.aclose()
        async with service.connect() as peer:
            await peer.ask("ping", "pong")
        await until(lambda: service.door.statistics().connections == 0)


async def test_a_unix_socket_serves_both(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        assert service.unix.stat().st_mode & 0o777 == 0o600
        stream = await trio.open_unix_socket(str(service.unix))
        assert (await exchange(stream, get(service, host="localhost"))).startswith(b"HTTP/1.1 200")
        await stream.aclose()
        stream = await trio.open_unix_socket(str(service.unix))
        async with connect(service.port, service.token, stream=stream) as peer:
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="*")


async def test_a_socket_file_that_is_left_over_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = await open_unix(path)
    with pytest.raises(OSError, match="somebody listens"):
        await open_unix(path)
    await first.aclose()
    again = await open_unix(path)
    await again.aclose()


async def test_tls_takes_the_same_path(tmp_path: Path, certificate: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=str(certificate))
    async with open_service(tmp_path, tls=server) as service:

        async def dial() -> trio.SSLStream[trio.SocketStream]:
            plain = await trio.open_tcp_stream("127.0.0.1", service.port)
            return trio.SSLStream(plain, client, server_hostname="127.0.0.1", https_compatible=True)

        stream = await dial()
        for _ in range(2):
            assert (await exchange(stream, get(service))).startswith(b"HTTP/1.1 200")
        await stream.aclose()
        async with connect(service.port, service.token, stream=await dial()) as peer:
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", sinceSeq=0)
            await peer.expect("replay_complete")
            from tests.server.test_websocket import publish

            await publish(service, "w", 5000)
            heard: list[dict[str, Any]] = [await peer.expect("agent_output") for _ in range(5000)]
            assert [one["seq"] for one in heard] == list(range(1, 5001))
        plain = await trio.open_tcp_stream("127.0.0.1", service.port)
        await plain.send_all(get(service))
        with trio.fail_after(PATIENCE):
            while await plain.receive_some():
                pass
        await plain.aclose()


async def test_closing_lets_an_answer_finish_and_ends_idle_connections(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        idle = await trio.open_tcp_stream("127.0.0.1", service.port)
        assert (await exchange(idle, get(service))).startswith(b"HTTP/1.1 200")
        half = await trio.open_tcp_stream("127.0.0.1", service.port)
        await half.send_all(b"GET")
        with trio.fail_after(PATIENCE):
            await service.door.close(30)
            assert await idle.receive_some() == b""
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream("127.0.0.1", service.port)
        await idle.aclose()
        await half.aclose()


async def test_closing_does_not_wait_for_an_endless_answer(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        extra = f"Authorization: Bearer {service.token}\r\nAccept: text/event-stream\r\n"
        await stream.send_all(get(service, "/api/v1/work-orders/w/events", extra=extra))
        with trio.fail_after(PATIENCE):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 ")
            await service.door.close(0.2)
        await stream.aclose()
