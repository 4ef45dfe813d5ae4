"""A hostile client: it sends too much, too slowly, too often, or nothing that makes sense."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentstream.server.listener import MAX_HALF_OPEN
from tests.end_to_end.house import PATIENCE, Daemon

MIB = 1024 * 1024
#: What the daemon may grow by under an attack, in bytes: some messages of the largest size, and what Python keeps of them.
ROOM = 96 * MIB


def connect(daemon: Daemon) -> socket.socket:
    host, _, port = daemon.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def memory(daemon: Daemon) -> int:
    """What the daemon takes now, in bytes."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.fixture(autouse=True)
def _memory_is_bounded(daemon: Daemon) -> Iterator[None]:
    assert daemon.process is not None
    # The high-water mark, from now on (proc(5)).
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    before = memory(daemon)
    yield
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    assert peak - before < ROOM


def everything(client: socket.socket) -> bytes:
    """What comes until the daemon hangs up, in whatever way."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            answer += data
    return answer


def send_until_refused(client: socket.socket, pieces: Callable[[], bytes]) -> None:
    """Send on until the daemon hangs up. It may read on for a moment, so that the peer can read why: `Outlet.linger`."""
    with contextlib.suppress(ConnectionError):
        while True:
            client.sendall(pieces())


# --- too much ----------------------------------------------------------------------------------------------------------


def websocket(daemon: Daemon, *, token: bool = True) -> socket.socket:
    """A WebSocket after its handshake, as a bare socket."""
    client = connect(daemon)
    lines = [
        *("GET /ws HTTP/1.1", f"Host: {daemon.address.removeprefix('http://')}", "Upgrade: websocket"),
        *("Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
        *([f"Authorization: Bearer {daemon.token}"] if token else []),
    ]
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return client


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, length: int | None = None) -> bytes:
    """A client's frame, masked with zeros. ``length``: what it claims."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


def close_code(data: bytes) -> int | None:
    """The code of the close frame at the end of what came."""
    position = data.rfind(b"\x88")
    return struct.unpack("!H", data[position + 2 : position + 4])[0] if position >= 0 else None


@pytest.mark.parametrize("token", [True, False], ids=["admitted", "stranger"])
def test_a_message_of_a_gigabyte_is_not_taken(daemon: Daemon, token: bool) -> None:
    with websocket(daemon, token=token) as client:
        client.sendall(frame(b"", length=1 << 40))
        send_until_refused(client, lambda: bytes(65536))
    with websocket(daemon, token=token) as client:
        client.sendall(frame(b"x" * (MIB + 1)))
        assert close_code(everything(client)) == 1009


def test_a_message_in_endless_pieces_is_not_taken(daemon: Daemon) -> None:
    with websocket(daemon) as client:
        client.sendall(frame(b"{", fin=False))
        send_until_refused(client, lambda: frame(b" " * 60_000, 0, fin=False))
    with websocket(daemon) as client:
        # Pieces without any content, of which a message may have many.
        client.sendall(frame(b"{", fin=False))
        client.sendall(frame(b"", 0, fin=False) * 200_000)
        client.sendall(frame(b'"type": "ping"}', 0))
        client.sendall(frame(b'{"type": "ping", "id": "alive"}'))
        while b"alive" not in client.recv(65536):
            pass


def test_pieces_without_content_end_too(tmp_path: Path) -> None:
    with Daemon(tmp_path, env={"AGENTSTREAM_SERVER_MAX_MESSAGE_BYTES": "8192"}) as small:
        for end in (b"", frame(b"ping", 9)):
            with websocket(small) as client:
                client.sendall(frame(b"{", fin=False))
                send_until_refused(client, lambda end=end: frame(b"", 0, fin=False) * 1000 + end)  # type: ignore[misc]
        # Who says something now and then may say as much as it likes.
        with websocket(small) as client:
            for _ in range(100):
                client.sendall(frame(b'{"type": "ping", "id": "' + b"x" * 8000 + b'"}'))
            client.sendall(frame(b'{"type": "ping", "id": "alive"}'))
            told = b""
            while b"alive" not in told:
                data = client.recv(65536)
                assert data
                told += data


def test_messages_faster_than_they_can_be_handled_are_refused_one_by_one(daemon: Daemon) -> None:
    with websocket(daemon) as client:
        client.sendall(frame(b'{"type": "ping"}') * 5000 + frame(b'{"type": "ping"}', 8))
        told = everything(client)
        assert told.count(b'"pong"') >= 1000
        assert b"RATE_LIMITED" in told


def test_a_body_of_a_gigabyte_is_not_read(daemon: Daemon) -> None:
    head = (
        f"POST /api/v1/work-orders HTTP/1.1\r\nHost: {daemon.address.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {daemon.token}\r\nContent-Type: application/json\r\n"
    )
    with connect(daemon) as client:
        client.sendall(f"{head}Content-Length: {1024 * MIB}\r\n\r\n".encode())
        assert b" 413 " in client.recv(65536)
        send_until_refused(client, lambda: bytes(65536))
    with connect(daemon) as client:
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        send_until_refused(client, lambda: piece)


def head_of_many_lines(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(count))


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"GET /" + b"a" * 8 * MIB, id="request line"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 8 * MIB, id="header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a" * 8 * MIB + b": b", id="header name"),
        pytest.param(head_of_many_lines(500_000), id="headers"),
        pytest.param(b"\r\n" * 4 * MIB, id="empty lines"),
        pytest.param(bytes(8 * MIB), id="zeros"),
    ],
)
def test_heads_without_end_are_not_taken(daemon: Daemon, bomb: bytes) -> None:
    with connect(daemon) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(bomb)
        answer = everything(client)
        assert not answer or answer.startswith(b"HTTP/1.1 4")


# --- too slowly, too many ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01"])
def test_who_never_finishes_asking_is_sent_away(daemon: Daemon, said: bytes) -> None:
    with connect(daemon) as client:
        client.sendall(said)
        assert everything(client) == b"" or said == b"\x16\x03\x01"


def test_who_drips_is_sent_away_too(daemon: Daemon) -> None:
    with connect(daemon) as client:
        client.settimeout(0.05)
        sent = 0
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 10_000:
                client.sendall(bytes([byte]))
                sent += 1
                with contextlib.suppress(TimeoutError):
                    if client.recv(1) == b"":
                        break
        # Two seconds at twenty bytes each, generously.
        assert sent < 1000


def test_who_never_shows_a_token_is_sent_away(daemon: Daemon) -> None:
    with websocket(daemon, token=False) as client:
        assert close_code(everything(client)) == 1008


def test_thousands_of_half_open_connections(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            client = connect(daemon)
            client.sendall(b"GET / HTTP/1.1\r\nX: %d" % number)
            clients.append(client)
        assert daemon.http("GET", "/health")[0] == 200
        with daemon.subscriber() as watcher:
            watcher.send(type="ping")
            assert watcher.until("pong")
        # Who has had the longest time was sent away first, at once.
        for client in clients[: max(0, count - MAX_HALF_OPEN - 1)]:
            assert everything(client) == b""
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- nothing that makes sense --------------------------------------------------------------------------------------------


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with some of it changed, cut, doubled or replaced."""
    out = bytearray(data)
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0:
                out[at : at + 1] = chance.randbytes(1)
            case 1:
                del out[at : at + chance.randrange(1, 20)]
            case 2:
                out[at:at] = out[at : at + chance.randrange(1, 50)]
            case 3:
                out[at:at] = chance.choice(
                    [b"\r\n", b"\0", b"\xff", b"{", b'"', b": ", b"9" * 30, b"\n\n", b"[" * 2000]
                )
            case _:
                out[at:at] = chance.randbytes(chance.randrange(1, 30))
    return bytes(out)


def test_bytes_of_a_fuzzer_on_the_port(daemon: Daemon) -> None:
    chance = random.Random(1)
    host = daemon.address.removeprefix("http://")
    request = (
        f"POST /api/v1/work-orders?x=1 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {daemon.token}\r\n"
        'Content-Type: application/json\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"taskPrompt": ""}'
    ).encode()
    upgrade = (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: bearer.{daemon.token}\r\n\r\n"
    ).encode()
    for number in range(600):
        data = [lambda: chance.randbytes(chance.randrange(2000)), lambda: mutated(request, chance)][number % 2]()
        if number % 3 == 0:
            data = mutated(upgrade, chance) + frame(chance.randbytes(20))
        with connect(daemon) as client:
            with contextlib.suppress(OSError):
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            answer = everything(client)
            assert not answer.startswith(b"HTTP/1.1 5"), data


def test_bytes_of_a_fuzzer_inside_a_websocket(daemon: Daemon) -> None:
    chance = random.Random(2)
    messages = [
        b'{"type": "subscribe", "workOrderId": "a", "filters": {"includeRaw": true}, "sinceSeq": 0}',
        b'{"type": "submit", "id": "i", "taskPrompt": "true", "workspaceSource": {"type": "nowhere"}}',
        b'{"type": "resolve_approval", "requestId": "r", "decision": "deny", "updatedInput": {"a": [1]}}',
        b'{"type": "cancel", "workOrderId": "a"}',
        b'{"type": "ping", "id": "\xf0\x9f\x90\x8d"}',
    ]
    for _ in range(40):
        with websocket(daemon) as client:
            with contextlib.suppress(OSError):
                for _ in range(20):
                    text = mutated(chance.choice(messages), chance)
                    client.sendall(frame(text, chance.choice([1, 1, 1, 2, 0, 8, 9, 10, 11]), fin=chance.random() < 0.9))
                client.sendall(chance.randbytes(chance.randrange(200)))
                client.shutdown(socket.SHUT_WR)
            told = everything(client)
            assert b"INTERNAL_ERROR" not in told


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 500_000,
        b'{"type":"subscribe","workOrderId":' * 20_000,
        b'{"type": "subscribe", "workOrderId": "a", "sinceSeq": ' + b"9" * 5000 + b"}",
        b'{"type": "subscribe", "workOrderId": "a", "sinceSeq": 1e999}',
        b'{"type": "subscribe", "workOrderId": "a", "sinceSeq": -9223372036854775809}',
        b'{"type": "subscribe", "workOrderId": "a", "replayCount": 9223372036854775807}',
        b'{"type": "subscribe", "workOrderId": "a", "replaySince": "9999-99-99T99:99:99Z"}',
        b'{"type": "subscribe", "workOrderId": "\\u0000\\ud800"}',
        b'{"type": {"type": "ping"}}',
        b"null",
        b'"',
        "\ufeff{}".encode(),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_a_nasty_message_is_answered_with_an_error_or_obeyed(daemon: Daemon, text: bytes) -> None:
    with websocket(daemon) as client:
        client.sendall(frame(text) + frame(b'{"type": "ping", "id": "after"}'))
        told = b""
        while b'"after"' not in told:
            data = client.recv(65536)
            assert data, told
            told += data
        assert b"INTERNAL_ERROR" not in told


def test_hundreds_of_subscriptions_to_nothing(daemon: Daemon) -> None:
    with websocket(daemon) as client:
        for number in range(1200):
            message = {"type": "subscribe", "workOrderId": f"w{number}", "sinceSeq": 0}
            client.sendall(frame(json.dumps(message).encode()))
        client.sendall(frame(b'{"type": "ping", "id": "after"}'))
        told = b""
        while b'"after"' not in told and b"RATE_LIMITED" not in told:
            told += client.recv(65536)
