"""Lines a second of one run that prints stream-json as fast as it can: from the bytes of its output to journalled, encoded frames.

The lines are recordings of the real Claude Code (tests/recordings), over and over. Ours cuts them into lines, parses them
into events, makes each fit the wire, appends them to a real journal, 200 lines at a time as a run does, and frames what the
journal publishes; the process, the spool file and the throttle are left out. Beside it programs that only parse:
`json.loads` and `orjson.loads` of each line, and node's `readline` with `JSON.parse` (its start not counted).
claude-agent-sdk's reader, which is the one of the goal, uses `json.loads` too.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
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
OURS, NODE = "agentstream, to the frames", "node readline + JSON.parse"
SDK = "claude-agent-sdk's reader"


def recorded(count: int) -> bytes:
    """At least ``count`` recorded lines."""
    once = b"".join(path.read_bytes() for path in sorted(RECORDINGS.glob("*.jsonl")))
    return once * -(-count // once.count(b"\n"))


async def whole_way(data: bytes) -> float:
    """Seconds from bytes to frames."""
    framed = 0

    async def publish(records: Sequence[Record]) -> None:
        nonlocal framed
        chunk = Batch(records).join(records)
        framed += 0 if chunk is None else len(chunk.lengths)

    request = RunRequest(prompt="p", cwd="/", work_order_id="w", run_id="r")
    with tempfile.TemporaryDirectory() as directory:
        async with open_journal(Path(directory) / "journal.sqlite", publish=publish) as journal:
            start = time.perf_counter()
            parser, framer, made = ClaudeCodeAdapter().parser(request), LineFramer(), 0
            for at in range(0, len(data), CHUNK):
                lines = framer.push(data[at : at + CHUNK])
                for first in range(0, len(lines), LINES):
                    moment = Moment(datetime.now(UTC), trio.current_time())
                    events: list[Event] = []
                    for line in lines[first : first + LINES]:
                        made_of_it = parser.parse(line.data, moment)
                        if line.length > SURELY_SMALL:
                            made_of_it = [piece for event in made_of_it for piece in fit(event)]
                        events += made_of_it
                    made += sum(not event.ephemeral for event in events)
                    await journal.append(events)
            seconds = time.perf_counter() - start
    if framed < made:
        raise RuntimeError(f"{framed} of {made} events were framed")
    return seconds


def only_parse(data: bytes, parse: object) -> float:
    """Seconds for splitting and parsing."""
    assert callable(parse)
    start = time.perf_counter()
    for line in data.split(b"\n"):
        with suppress(ValueError):
            parse(line)
    return time.perf_counter() - start


def run(peers: Peers, *, lines: int = 20_000, rounds: int = 3) -> Result:
    """Measure it; the least time of each."""
    data = recorded(lines)
    count = data.count(b"\n")
    best: dict[str, float] = {}

    def note(name: str, seconds: float) -> None:
        best[name] = min(best.get(name, seconds), seconds)

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for _ in range(rounds):
            note(OURS, trio.run(whole_way, data))
            note("json.loads only", only_parse(data, json.loads))
            note("orjson.loads only", only_parse(data, orjson.loads))
            if peers.node:
                argv = [peers.node, str(SOURCES / "parse.cjs"), file.name]
                done = subprocess.run(argv, capture_output=True, text=True, check=True)
                note(NODE, float(done.stdout.split()[1]))
    rate = {name: count / seconds for name, seconds in best.items()}
    loads = rate[OURS] / rate["json.loads only"]
    goals = [
        Goal(
            what="d: at least 3 times the lines/s of claude-agent-sdk's reader",
            reached=f"not installed here; {number(loads)} times a bare json.loads of each line, which is less than it does",
            met=None,
        )
    ]
    if NODE in rate:
        ratio = rate[OURS] / rate[NODE]
        goals.append(Goal(what="d: above node readline + JSON.parse", reached=f"{number(ratio)} times", met=ratio > 1))
    return Result(
        name="lines",
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
            f"agentstream: {number(rate[OURS] / rate[name])} times the lines/s of {name}"
            for name in rate
            if name != OURS
        ],
        goals=goals,
        absent=[SDK, *([] if NODE in rate else [NODE])],
    )
