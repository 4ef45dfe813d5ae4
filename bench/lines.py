"""Lines a second of one run that prints stream-json as fast as it can: from the bytes of its output to journalled, encoded frames.

The lines are recordings of the real Claude Code (tests/recordings), over and over. Ours cuts them into lines, parses them
into events, makes each fit the wire, appends them to a real journal, 200 lines at a time as a run does, and frames what the
journal publishes; the process, the spool file and the throttle are left out. Beside it programs that only parse: ours up to
the events; claude-agent-sdk's transport and message parser, which read a pipe from a program that prints the file; node's
`readline` with `JSON.parse`; and `json.loads` and `orjson.loads` of each line. Starting programs is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import orjson
import trio

from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.broadcast.batch import Batch
from agentstream.journal.base import Record
from agentstream.journal.sqlite import open_journal
from agentstream.model.events import Event
from agentstream.model.limits import fit
from agentstream.runs.framing import LineFramer
from bench.peers import SOURCES, Peers
from bench.report import Goal, Result, number

RECORDINGS = Path(__file__).parent.parent / "tests" / "recordings" / "claude"
#: What a run reads at once, in bytes, and parses between two checkpoints, in lines.
CHUNK, LINES = 64 * 1024, 200
#: Events of shorter lines fit the wire; a run doesn't look (`agentstream.runs.nursery`).
SURELY_SMALL = 16 * 1024
OURS, PARSE, NODE = "agentstream, to the frames", "agentstream, only parse", "node readline + JSON.parse"
SDK = "claude-agent-sdk's reader"


def recorded(count: int) -> bytes:
    """At least ``count`` recorded lines."""
    once = b"".join(path.read_bytes() for path in sorted(RECORDINGS.glob("*.jsonl")))
    return once * -(-count // once.count(b"\n"))


def parsed(data: bytes) -> Iterator[list[Event]]:
    """Events as a run makes them, so many lines at a time."""
    request = RunRequest(prompt="p", cwd="/", work_order_id="w", run_id="r")
    parser, framer = ClaudeCodeAdapter().parser(request), LineFramer()
    for at in range(0, len(data), CHUNK):
        lines = framer.push(data[at : at + CHUNK])
        for first in range(0, len(lines), LINES):
            moment = Moment(datetime.now(UTC), time.monotonic())
            events: list[Event] = []
            for line in lines[first : first + LINES]:
                made_of_it = parser.parse(line.data, moment)
                if line.length > SURELY_SMALL:
                    made_of_it = [piece for event in made_of_it for piece in fit(event)]
                events += made_of_it
            yield events


async def whole_way(data: bytes) -> float:
    """Seconds from bytes to frames."""
    framed = 0

    async def publish(records: Sequence[Record]) -> None:
        nonlocal framed
        chunk = Batch(records).join(records)
        framed += 0 if chunk is None else len(chunk.lengths)

    with tempfile.TemporaryDirectory() as directory:
        async with open_journal(Path(directory) / "journal.sqlite", publish=publish) as journal:
            start, made = time.perf_counter(), 0
            for events in parsed(data):
                made += sum(not event.ephemeral for event in events)
                await journal.append(events)
            seconds = time.perf_counter() - start
    if framed < made:
        raise RuntimeError(f"{framed} of {made} events were framed")
    return seconds


def to_events(data: bytes) -> float:
    """Seconds from bytes to events."""
    start = time.perf_counter()
    for _ in parsed(data):
        pass
    return time.perf_counter() - start


def only_loads(data: bytes, loads: Callable[[bytes], object]) -> float:
    """Seconds for splitting and parsing."""
    start = time.perf_counter()
    for line in data.split(b"\n"):
        with suppress(ValueError):
            loads(line)
    return time.perf_counter() - start


def run(peers: Peers, *, lines: int = 10_000, rounds: int = 3) -> Result:
    """Measure it; the least time of each."""
    data = recorded(lines)
    count = data.count(b"\n")
    best: dict[str, float] = {}

    def note(name: str, seconds: float) -> None:
        best[name] = min(best.get(name, seconds), seconds)

    programs: dict[str, Sequence[str]] = {}
    if find_spec("claude_agent_sdk"):
        programs[SDK] = (sys.executable, "-m", "bench.sdk_reader")
    if peers.node:
        programs[NODE] = (peers.node, str(SOURCES / "parse.cjs"))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in range(rounds):
            note(OURS, trio.run(whole_way, data))
            note(PARSE, to_events(data))
            for name, argv in programs.items():
                done = subprocess.run([*argv, file.name], capture_output=True, text=True, check=True)
                read, seconds = done.stdout.split()
                if int(read) != count:
                    raise RuntimeError(f"{name} read {read} of {count} lines")
                note(name, float(seconds))
            note("json.loads only", only_loads(data, json.loads))
            note("orjson.loads only", only_loads(data, orjson.loads))
    rate = {name: count / seconds for name, seconds in best.items()}
    goals = []
    for peer, what, times in (
        (SDK, "d: at least 3 times the lines/s of claude-agent-sdk's reader", 3),
        (NODE, "d: above node readline + JSON.parse", 1),
    ):
        if peer not in rate:
            goals.append(Goal(what=what, reached=f"{peer} is not installed here", met=None))
            continue
        whole, parse = rate[OURS] / rate[peer], rate[PARSE] / rate[peer]
        reached = f"{number(whole)} times to the frames; {number(parse)} times where both only parse"
        goals.append(Goal(what=what, reached=reached, met=whole >= times))
    return Result(
        title="d. Lines of one run",
        story=__doc__ or "",
        columns=("", "lines/s", "us a line", "MB/s"),
        rows=[
            (name, number(rate[name]), number(seconds / count * 1e6), number(len(data) / seconds / 1e6))
            for name, seconds in best.items()
        ],
        unit="lines/s, more is better",
        bars=list(rate.items()),
        ratios=[
            f"{ours}: {number(rate[ours] / rate[name])} times the lines/s of {name}"
            for ours in (OURS, PARSE)
            for name in rate
            if name not in (OURS, PARSE)
        ],
        goals=goals,
        absent=[name for name in (SDK, NODE) if name not in rate],
    )
