"""Where each microsecond of one event goes: every step of the hot path alone, in one process, on one thread.

The yardstick is `json.loads` of the same line in the same process: a step's ratio to it depends little on the machine. Steps
marked "per batch of 200" are shared by the events of a batch, and told per event. The last steps are for each subscriber, not for
each event: ours, into a file that takes everything, and the kernel's, which on loopback is also the receiver's half of TCP.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import attrs
import orjson
import trio

from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.broadcast.batch import Batch
from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.frames import event_frame
from agentstream.broadcast.outlet import Outlet
from agentstream.broadcast.subscriber import Subscriber
from agentstream.journal.base import Record
from agentstream.journal.committer import encode
from agentstream.journal.store import Store
from agentstream.model import wire
from agentstream.model.limits import fit
from agentstream.model.messages import Filters
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
YARDSTICK = "json.loads of the line"
#: Events of a batch, as many as a run parses between two checkpoints; and writes to a socket before it is read.
BATCH, WRITES = 200, 64


@attrs.frozen(kw_only=True)
class Step:
    """``work`` does it for ``events`` at once. ``less``: the step that is in it too and told by itself."""

    work: Callable[[], object]
    events: int = 1
    less: str | None = None
    #: Whether its instructions are ours to count (`bench.guard`).
    ours: bool = True


@contextmanager
def steps() -> Iterator[dict[str, Step]]:
    """By name, in the order of the way; the yardstick first."""
    request = RunRequest(prompt="p", cwd="/", work_order_id="w", run_id="r")
    # A fixed time, so that its text is always as long.
    parser, moment = ClaudeCodeAdapter().parser(request), Moment(datetime(2026, 1, 1, 1, 1, 1, 111_000, UTC), 0.0)
    (event,) = parser.parse(LINE, moment)
    events = [event] * BATCH
    body = wire.event_body(event)
    records = [Record(number, "w", event.type, body) for number in range(1, BATCH + 1)]
    framer, many = LineFramer(), (LINE + b"\n") * BATCH
    one = Batch(records[:1])
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        store = Store.open(Path(directory) / "journal.sqlite")
        writer, numbers = store.writer, count(1)
        stack.callback(lambda: store.close(next(numbers) - 1))

        def commit(size: int) -> None:
            writer.commit([(next(numbers), "w", event.type, 0, body) for _ in range(size)], [], [])

        subscriber = trio.run(_subscriber, stack.enter_context(open(os.devnull, "wb")))
        left, right = _pair(stack)
        frame = event_frame(records[0])

        def write() -> None:
            for _ in range(WRITES):
                os.write(left, frame)
            os.read(right, 1 << 20)

        yield {
            YARDSTICK: Step(work=lambda: json.loads(LINE)),
            "framing (per batch of 200 lines)": Step(work=lambda: framer.push(many), events=BATCH),
            "parse: JSON and event": Step(work=lambda: parser.parse(LINE, moment)),
            "fit: small enough for the wire?": Step(work=lambda: fit(event)),
            "encode: the event's JSON text": Step(work=lambda: wire.event_body(event)),
            "journal's own bookkeeping (per batch of 200)": Step(
                work=lambda: encode(events, (), (), 0.0), events=BATCH, less="encode: the event's JSON text"
            ),
            "SQLite transaction (per batch of 200)": Step(work=lambda: commit(BATCH), events=BATCH),
            "(SQLite transaction of one event)": Step(work=lambda: commit(1)),
            "frame: seq and header": Step(work=lambda: event_frame(records[0])),
            "batch and chunk (per batch of 200)": Step(
                work=lambda: Batch(records).join(records), events=BATCH, less="frame: seq and header"
            ),
            "deliver: one event to one subscriber": Step(work=lambda: subscriber.deliver(one, "w")),
            "write() to one loopback socket": Step(work=write, events=WRITES, ours=False),
        }


async def _subscriber(file: object) -> Subscriber:
    """One whose socket is a file that takes everything."""
    _, receive = trio.open_memory_channel[list[Record]](1)
    broadcaster = EventBroadcaster(receive, SimpleNamespace(head=0))  # type: ignore[arg-type] # no past is asked for
    outlet = Outlet(SimpleNamespace(socket=file), None, stall_limit=60.0)  # type: ignore[arg-type] # it is never full
    subscriber = broadcaster.connect(outlet)
    broadcaster.subscribe(subscriber, "w", Filters())
    return subscriber


def _pair(stack: ExitStack) -> tuple[int, int]:
    """Descriptors of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = stack.enter_context(socket.create_connection(listener.getsockname()))
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        right = stack.enter_context(listener.accept()[0])
    return left.fileno(), right.fileno()


def timed(work: Callable[[], object], times: int, rounds: int = 5) -> float:
    """Microseconds for one call: the least of some rounds, which is what it takes undisturbed."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def alone(costs: dict[str, float], every: dict[str, Step]) -> dict[str, float]:
    """Of the cost of each step what is its own, per event."""
    per_event = {name: cost / every[name].events for name, cost in costs.items()}
    return {
        name: max(0.0, cost - (per_event[less] if (less := every[name].less) else 0.0))
        for name, cost in per_event.items()
    }


def run(_peers: Peers, *, times: int = 10_000) -> Result:
    """Measure it."""
    with steps() as every:
        costs = {name: timed(step.work, max(1, times // step.events // 2)) for name, step in every.items()}
        found = alone(costs, every)
    yardstick = found.pop(YARDSTICK)
    return Result(
        title="Where the time of one event goes",
        story=f"{(__doc__ or '').strip()}\n"
        f"The line is an assistant's text of {len(LINE)} bytes; the yardstick took {number(yardstick)} us.",
        columns=("step", "us per event", "times json.loads"),
        rows=[(name, number(us), number(us / yardstick)) for name, us in found.items()],
        unit="microseconds per event",
        bars=[(f"agentstream, {name}", us) for name, us in found.items()],
        ratios=[f"{name}: {number(us / yardstick)} times json.loads of the line" for name, us in found.items()],
    )
