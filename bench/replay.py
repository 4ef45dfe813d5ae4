"""Replay: a daemon with 1,000,000 events in its journal, from its start to the last of them in a subscriber's hands.

The daemon is a child process as an operator starts it; ready is the line that it prints once it accepts. The subscriber is a bare
socket that asks for everything and counts until `replay_complete`. Beside it a bare `SELECT` of the same rows by `sqlite3`,
which sends them nowhere.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import trio

from agentstream.journal.sqlite import open_journal
from agentstream.model.events import AgentOutput
from bench.growth import nowhere, select
from bench.peers import Peers
from bench.report import Goal, Result, number

#: Events of one append while the journal is filled.
STEP = 1000


async def fill(path: Path, events: int) -> None:
    """A journal with so many events of about 190 bytes."""
    now = datetime.now(UTC)
    async with open_journal(path, publish=nowhere) as journal:
        for start in range(0, events, STEP):
            texts = (f"line {number} " + "x" * 60 for number in range(start, min(start + STEP, events)))
            batch = [AgentOutput(work_order_id="w", run_id="r", timestamp=now, content=text) for text in texts]
            await journal.append(batch)


def subscribe(address: str, token: str) -> float:
    """Seconds from the subscription to the end of the replay."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as sock:
        key = base64.b64encode(b"0" * 16).decode()
        head = (
            f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        sock.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096)
        text = json.dumps({"type": "subscribe", "workOrderId": "w", "sinceSeq": 0}).encode()
        # One text frame, masked with zeros (RFC 6455, 5.2); the text is shorter than 126 bytes.
        sock.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
        start, tail = time.perf_counter(), b""
        while b"replay_complete" not in tail:
            data = sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the daemon hung up during the replay")
            tail = (tail + data)[-400:]
        return time.perf_counter() - start


def measured(home: Path, events: int) -> tuple[float, float, float]:
    """Seconds until ready, replayed events a second, and rows a second of a bare SELECT."""
    data = home / "data"
    data.mkdir(mode=0o700)
    trio.run(fill, data / "journal.sqlite", events)
    command = [sys.executable, "-m", "agentstream", "serve", "--port", "0"]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--data-dir", str(data), "--workspace-root", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().rpartition("//")[2].strip()
        ready = time.perf_counter() - start
        try:
            seconds = min(subscribe(address, (data / "token").read_text().strip()) for _ in range(2))
        finally:
            daemon.terminate()
    return ready, events / seconds, max(select(data / "journal.sqlite") for _ in range(2))


def run(_peers: Peers, *, events: int = 1_000_000) -> Result:
    """Measure it."""
    with tempfile.TemporaryDirectory() as directory:
        ready, rate, bare = measured(Path(directory), events)
    return Result(
        name="replay",
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
                what="ready in under 1 s with 1,000,000 events in the journal",
                reached=f"{ready:.2f} s with {events:,}",
                met=ready < 1 if events >= 1_000_000 else None,
            ),
            Goal(
                what="replay to one subscriber at 100,000 events/s or more",
                reached=f"{number(rate)} events/s",
                met=rate >= 100_000 if events >= 1_000_000 else None,
            ),
        ],
    )
