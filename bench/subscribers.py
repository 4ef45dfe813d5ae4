"""All subscribers of one workload in one process: raw sockets that take what comes, so that they cost as little as can be.

argv is PORT COUNT WISH MODE. WISH is the work order to subscribe to, with ``%d`` for the subscriber's number; empty: a server
that sends everything to all. Prints the seconds that all handshakes took, and all subscriptions; then, by MODE:

* ``count``: when all have seen ``~END~``: the moment of the last one (CLOCK_MONOTONIC), the least and most bytes that one of
  them got, and the frames of one of them, counted afterwards; again after each line on stdin;
* ``latency``: when told so on stdin: microseconds from each mark ``@NANOSECONDS@WHOSE@`` in the text to the recv() that
  brought it, and for each subscriber how many came, how many of them were different, and whether in the order of their times;
* ``asleep``: nothing, and nothing is ever read.

COUNT sockets to one port are fewer than the local ports that Linux has for them (28,000), so that one address is enough.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import sys
import time
from itertools import pairwise

END = b"~END~"
#: Bytes behind which an end is found, whatever the JSON's last members are.
TAIL = 400
#: Handshakes at a time: enough that the server never waits for us; asyncio's servers have room for 100.
IN_FLIGHT = 64
#: Of one that never reads, so that it is full soon.
SMALL_BUFFER = 4096
#: Bytes of a mark that two recv() may share, at most.
MARK = 48
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connected(port: int, number: int, small: bool) -> list[socket.socket]:
    """WebSockets after their handshakes, many of which are under way at a time."""
    poll, found, opening, heads = select.epoll(), [], {}, {}
    while len(found) < number:
        while len(opening) < IN_FLIGHT and len(found) + len(opening) < number:
            sock = socket.socket()
            sock.setblocking(False)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.connect_ex(("127.0.0.1", port))
            poll.register(sock, select.EPOLLOUT)
            opening[sock.fileno()] = sock
        for fd, _ in poll.poll():
            sock = opening[fd]
            if fd not in heads:
                heads[fd] = b""
                sock.sendall(REQUEST % port)
                poll.modify(fd, select.EPOLLIN)
                continue
            data = sock.recv(4096)
            head = heads[fd] = heads[fd] + data
            if head.endswith(b"\r\n\r\n") and b" 101 " in head.split(b"\r\n")[0]:
                poll.unregister(fd)
                sock.setblocking(True)
                found.append(opening.pop(fd))
                del heads[fd]
            elif not data or b"\r\n\r\n" in head:
                raise ConnectionError(head.decode())
    return found


def subscribe(sockets: list[socket.socket], wish: str) -> None:
    """Send all subscriptions, then take all confirmations."""
    for number, sock in enumerate(sockets):
        text = json.dumps({"type": "subscribe", "workOrderId": wish.replace("%d", str(number))}).encode()
        # A mask of zeros is a mask.
        sock.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    for sock in sockets:
        _, size = sock.recv(2, socket.MSG_WAITALL)
        if size == 126:
            size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
        answer = sock.recv(size, socket.MSG_WAITALL)
        if b"subscription_confirmed" not in answer:
            raise ConnectionError(answer.decode())


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
    totals = dict.fromkeys(sockets, 0)
    first = next(iter(sockets))
    kept: list[bytes] = []
    left, at = len(sockets), 0.0
    while left:
        for number, _ in poll.poll():
            size = sockets[number].recv_into(buffer)
            if not size:
                raise ConnectionError("the server closed a connection")
            totals[number] += size
            if number == first:
                kept.append(bytes(view[:size]))
            tail = tails[number] = (tails[number] + bytes(view[max(0, size - TAIL) : size]))[-TAIL:]
            # The closing brace, so that the next round begins with a frame.
            if END in tail and tail.endswith(b"}"):
                poll.unregister(number)
                left -= 1
                at = time.monotonic()
    found = {"at": at, "least": min(totals.values()), "most": max(totals.values()), "frames": frames(b"".join(kept))}
    print(json.dumps(found), flush=True)


def latency(sockets: dict[int, socket.socket]) -> None:
    """Note when each text came; all else is done when it is over."""
    poll = select.epoll()
    for number in (*sockets, sys.stdin.fileno()):
        poll.register(number, select.EPOLLIN)
    buffer = bytearray(256 * 1024)
    view = memoryview(buffer)
    told = False
    found: dict[int, list[tuple[int, bytes]]] = {number: [] for number in sockets}
    while not told:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                told = True
                continue
            size = sockets[number].recv_into(buffer)
            if not size:
                raise ConnectionError("the server closed a connection")
            found[number].append((time.monotonic_ns(), bytes(view[:size])))
    delays: list[int] = []
    seen: list[tuple[int, int, bool]] = []
    for pieces in found.values():
        rest, marks = b"", []
        for at, data in pieces:
            for mark in re.finditer(rb"@(\d+)@(\d+)@", text := rest + data):
                # Two agents may write in the same nanosecond.
                marks.append((int(mark[1]), mark[2]))
                delays.append((at - marks[-1][0]) // 1000)
            cut = re.search(rb"@\d*(@\d*)?\Z", text[-MARK:])
            rest = cut[0] if cut else b""
        seen.append((len(marks), len(set(marks)), all(a < b for a, b in pairwise(marks))))
    print(json.dumps({"us": delays, "seen": seen}), flush=True)


def main(port: int, number: int, wish: str, mode: str) -> None:
    """Connect, say how long that took, take."""
    # What `latency` keeps would be looked at again and again.
    gc.disable()
    began = time.monotonic()
    opened = connected(port, number, mode == "asleep")
    shaken = time.monotonic()
    if wish:
        subscribe(opened, wish)
    print(json.dumps([shaken - began, time.monotonic() - shaken]), flush=True)
    sockets = {sock.fileno(): sock for sock in opened}
    if mode == "asleep":
        sys.stdin.readline()
    elif mode == "latency":
        latency(sockets)
    else:
        count(sockets)
        while sys.stdin.readline():
            count(sockets)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
