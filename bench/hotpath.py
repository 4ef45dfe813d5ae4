"""Where each microsecond of one event goes: every step of the hot path alone, in one process, on one thread.

The yardstick is `json.loads` of the same line in the same process: a step's ratio to it depends little on the machine, and
a change that makes a step slower shows in the ratio. Steps marked "per batch of 200" are shared by the events of a batch,
and told per event.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import orjson

from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.broadcast.batch import Batch
from agentstream.broadcast.frames import event_frame
from agentstream.journal.base import Record
from agentstream.journal.committer import encode
from agentstream.journal.store import Store
from agentstream.model import wire
from agentstream.model.limits import fit
from agentstream.runs.framing import LineFramer
from bench.peers import Peers
from bench.report import Result, number

TEXT = "The test passes now. " * 8
LINE = orjson.dumps(
    {
        "type": "assistant",
        "message": {"id": "msg_1", "role": "assistant", "content": [{"type": "text", "text": TEXT}]},
        "parent_tool_use_id": None,
        "session_id": "00000000-0000-0000-0000-000000000000",
    }
)


def timed(work: Callable[[], object], times: int, rounds: int = 5) -> float:
    """Microseconds for one call: the least of some rounds, which is what it takes undisturbed."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def steps(times: int) -> dict[str, float]:
    """Microseconds per event, in the order of the way."""
    request = RunRequest(prompt="p", cwd="/", work_order_id="w", run_id="r")
    parser, moment = ClaudeCodeAdapter().parser(request), Moment(datetime.now(UTC), 0.0)
    (event,) = parser.parse(LINE, moment)
    events = [event] * 200
    body = wire.event_body(event)
    records = [Record(number, "w", event.type, body) for number in range(1, 201)]
    framer, many = LineFramer(), (LINE + b"\n") * 200
    found = {
        "framing (per batch of 200 lines)": timed(lambda: framer.push(many), max(1, times // 200)) / 200,
        "parse: JSON and event": timed(lambda: parser.parse(LINE, moment), times),
        "fit: small enough for the wire?": timed(lambda: fit(event), times),
        "encode: the event's JSON text": timed(lambda: wire.event_body(event), times),
        "journal's own bookkeeping (per batch of 200)": 0.0,
    }
    per_encode = timed(lambda: encode(events, (), (), 0.0), max(1, times // 200)) / 200
    found["journal's own bookkeeping (per batch of 200)"] = max(
        0.0, per_encode - found["encode: the event's JSON text"]
    )
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "journal.sqlite")
        writer = store.writer
        numbers = count(1)

        def commit(size: int) -> Callable[[], object]:
            def once() -> None:
                rows = [(next(numbers), "w", event.type, 0, body) for _ in range(size)]
                writer.commit(rows, [], [])

            return once

        found["SQLite transaction (per batch of 200)"] = timed(commit(200), max(1, times // 200)) / 200
        alone = timed(commit(1), max(1, times // 10))
        store.close(next(numbers) - 1)
    found["frame: seq and header"] = timed(lambda: event_frame(records[0]), times)
    found["batch and chunk (per batch of 200)"] = (
        timed(lambda: Batch(records).join(records), max(1, times // 200)) / 200
    ) - found["frame: seq and header"]
    # Over loopback TCP the sender also pays for the receiver's side of the kernel, as in real fan-out on one machine.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        right, _ = listener.accept()
    try:
        data, fd, other = event_frame(records[0]), left.fileno(), right.fileno()

        def write() -> None:
            os.write(fd, data)

        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(100):
                write()
            best = min(best, (time.perf_counter() - start) / 100 * 1e6)
            os.read(other, 1 << 20)
        found["write() to one loopback socket"] = best
    finally:
        left.close()
        right.close()
    found["(SQLite transaction of one event)"] = alone
    return found


def run(_peers: Peers, *, times: int = 20_000) -> Result:
    """Measure it."""
    found = steps(times)
    yardstick = timed(lambda: json.loads(LINE), times)
    return Result(
        name="hotpath",
        title="Where the time of one event goes",
        story=f"{(__doc__ or '').strip()}\n"
        f"The line is an assistant's text of {len(LINE)} bytes; the yardstick took {number(yardstick)} us.",
        columns=("step", "us per event", "times json.loads"),
        rows=[(name, number(us), number(us / yardstick)) for name, us in found.items()],
        unit="microseconds per event",
        bars=list(found.items()),
        ratios=[f"{name}: {number(us / yardstick)} times json.loads of the line" for name, us in found.items()],
    )
