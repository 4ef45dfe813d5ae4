"""All subscribers of one workload in one process: raw sockets that take what comes, so that they cost as little as can be.

argv is PORT COUNT SUBSCRIBE(0|1) MODE. ``count``: until each socket has seen ``~END~``; prints the moment of the last one
(CLOCK_MONOTONIC), all bytes, and the frames that one of the sockets got, counted afterwards. ``latency``: until told on
stdin; prints microseconds from each ``@NANOSECONDS@`` in the text to the recv() that brought it.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

END = b"~END~"
#: Bytes behind which an end is found, whatever the JSON's last members are.
TAIL = 400
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def opened(port: int, subscribe: bool) -> socket.socket:
    """A WebSocket after its handshake and, with ``subscribe``, after the confirmation."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(REQUEST % port)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise ConnectionError(head.decode())
    if subscribe:
        text = json.dumps({"type": "subscribe", "workOrderId": "*"}).encode()
        # A mask of zeros is a mask.
        sock.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        _, size = sock.recv(2, socket.MSG_WAITALL)
        if size == 126:
            size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
        answer = sock.recv(size, socket.MSG_WAITALL)
        if b"subscription_confirmed" not in answer:
            raise ConnectionError(answer.decode())
    return sock


def frames(data: bytes) -> int:
    """How many whole text frames these bytes are."""
    at = count = 0
    while at < len(data):
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        count += data[at] == 0x81
        at += head + size
    return count


def count(sockets: dict[int, socket.socket]) -> None:
    """Take everything until all have their end."""
    poll = select.epoll()
    for number in sockets:
        poll.register(number, select.EPOLLIN)
    buffer = bytearray(256 * 1024)
    view = memoryview(buffer)
    tails = dict.fromkeys(sockets, b"")
    first = next(iter(sockets))
    kept: list[bytes] = []
    total, left, at = 0, len(sockets), 0.0
    while left:
        for number, _ in poll.poll():
            size = sockets[number].recv_into(buffer)
            if not size:
                raise ConnectionError("the server closed a connection")
            total += size
            if number == first:
                kept.append(bytes(view[:size]))
            tail = tails[number] = (tails[number] + bytes(view[max(0, size - TAIL) : size]))[-TAIL:]
            if END in tail:
                poll.unregister(number)
                left -= 1
                at = time.monotonic()
    print(json.dumps({"at": at, "bytes": total, "frames": frames(b"".join(kept))}), flush=True)


def latency(sockets: dict[int, socket.socket]) -> None:
    """Note when each text came."""
    poll = select.epoll()
    for number in (*sockets, sys.stdin.fileno()):
        poll.register(number, select.EPOLLIN)
    told = False
    found: list[tuple[int, bytes]] = []
    while not told:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                told = True
            else:
                data = sockets[number].recv(256 * 1024)
                if not data:
                    raise ConnectionError("the server closed a connection")
                found.append((time.monotonic_ns(), data))
    print(json.dumps([(at - int(sent)) / 1000 for at, data in found for sent in re.findall(rb"@(\d+)@", data)]))


def main(port: int, number: int, subscribe: int, mode: str) -> None:
    """Connect, say ``ready``, take."""
    sockets = {}
    for _ in range(number):
        sock = opened(port, bool(subscribe))
        sockets[sock.fileno()] = sock
    print("ready", flush=True)
    (count if mode == "count" else latency)(sockets)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
