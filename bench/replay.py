"""Replay: a daemon with 1,000,000 events in its journal, from its start to the last of them in a subscriber's hands.

The daemon is a child process as an operator starts it; ready is the line that it prints once it accepts. The subscriber is a bare
socket that asks for everything and counts until `replay_complete`. Beside it a bare `SELECT` of the same rows by `sqlite3`,
which sends them nowhere.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from pathlib import Path

from bench.daemon import daemon
from bench.growth import filled
from bench.peers import Peers
from bench.report import Goal, Result, number
from bench.subscribers import connected


def select(path: Path) -> tuple[int, float]:
    """Rows, and rows a second."""
    with sqlite3.connect(path) as connection:
        start = time.perf_counter()
        rows = sum(1 for _ in connection.execute("SELECT seq, stream, type, body FROM events ORDER BY seq"))
        seconds = time.perf_counter() - start
    connection.close()
    return rows, rows / seconds


def subscribe(port: int) -> float:
    """Seconds from the subscription to the end of the replay."""
    (sock,) = connected(port, 1, small=False)
    with sock:
        text = json.dumps({"type": "subscribe", "workOrderId": "*", "sinceSeq": 0}).encode()
        # One text frame, masked with zeros (RFC 6455, 5.2); the text is shorter than 126 bytes.
        sock.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
        start, tail = time.perf_counter(), b""
        while b"replay_complete" not in tail:
            data = sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the daemon hung up during the replay")
            tail = (tail + data)[-400:]
        return time.perf_counter() - start


def run(peers: Peers, *, events: int = 1_000_000, orders: int = 10_000) -> Result:
    """Measure it, on the largest journal of the growth workload."""
    data = filled(peers, events, orders)
    there, bare = select(data / "journal.sqlite")
    with tempfile.TemporaryDirectory() as directory, daemon(Path(directory), data=data) as one:
        seconds = min(subscribe(one.port) for _ in range(2))
        ready = one.ready
    rate = there / seconds
    return Result(
        title=f"Replay of {events:,} events",
        story=__doc__ or "",
        columns=("", ""),
        rows=[
            ("ready after, seconds", number(ready)),
            ("replay to one subscriber, events/s", number(rate)),
            ("bare SELECT, rows/s", number(bare)),
        ],
        unit="events/s, more is better",
        bars=[("agentstream, to a subscriber's socket", rate), ("bare SELECT", bare)],
        ratios=[f"replay to a subscriber: {number(rate / bare)} times the rate of a bare SELECT"],
        goals=[
            Goal(
                what=f"ready in under 1 s with {events:,} events in the journal",
                reached=f"{ready:.2f} s",
                met=ready < 1,
            ),
            Goal(
                what="replay to one subscriber at 100,000 events/s or more",
                reached=f"{number(rate)} events/s",
                met=rate >= 100_000,
            ),
        ],
    )
