"""Growth: what an append costs in an empty journal and in one with 100,000 events, and how fast a replay reads them.

An append is awaited until its events are committed and published: one event alone, and 200 together. The replay is the
journal's own paged read, with frames made as for a subscriber; beside it a bare `SELECT` of the same columns by `sqlite3`,
which neither pages nor makes anything. Both journals are measured in turn.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import trio

from agentstream.broadcast.frames import event_frame
from agentstream.journal.base import Journal, Record
from agentstream.journal.sqlite import open_journal
from agentstream.model.events import AgentOutput
from bench.peers import Peers
from bench.report import Goal, Result, number

ROUNDS = 5


async def nowhere(_records: Sequence[Record]) -> None:
    """Nobody listens."""


def made(count: int) -> list[AgentOutput]:
    """Events of some 300 bytes."""
    now = datetime.now(UTC)
    return [AgentOutput(work_order_id="w", run_id="r", timestamp=now, content="x" * 200) for _ in range(count)]


async def single(journal: Journal, count: int) -> float:
    """Microseconds for each of ``count`` appends of one event."""
    start = time.perf_counter()
    for event in made(count):
        await journal.append([event])
    return (time.perf_counter() - start) / count * 1e6


async def together(journal: Journal, appends: int) -> float:
    """Microseconds for each event in appends of 200."""
    events = made(200)
    start = time.perf_counter()
    for _ in range(appends):
        await journal.append(events)
    return (time.perf_counter() - start) / (appends * 200) * 1e6


async def replay(journal: Journal) -> float:
    """Events a second."""
    start, after = time.perf_counter(), 0
    while page := await journal.read(after, limit=512, max_bytes=192 * 1024):
        for record in page:
            event_frame(record)
        assert page[-1].seq is not None
        after = page[-1].seq
    return after / (time.perf_counter() - start)


def select(path: Path) -> float:
    """Rows a second."""
    with sqlite3.connect(path) as connection:
        start = time.perf_counter()
        rows = sum(1 for _ in connection.execute("SELECT seq, stream, type, body FROM events ORDER BY seq"))
        seconds = time.perf_counter() - start
    connection.close()
    return rows / seconds


async def measured(events: int, appends: int) -> tuple[dict[str, list[float]], float, float]:
    """The least of some rounds: microseconds by name for the empty and the full journal; replay and SELECT rates."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        async with (
            open_journal(home / "empty.sqlite", publish=nowhere) as empty,
            open_journal(home / "full.sqlite", publish=nowhere) as full,
        ):
            for _ in range(max(1, events // 1000)):
                await full.append(made(min(1000, events)))
            found: dict[str, list[float]] = {"one event": [1e9, 1e9], "each of 200 together": [1e9, 1e9]}
            for _ in range(ROUNDS):
                for index, journal in enumerate((empty, full)):
                    for name, how in (("one event", single), ("each of 200 together", together)):
                        count = appends if how is single else max(1, appends // 20)
                        found[name][index] = min(found[name][index], await how(journal, count))
            rate = max([await replay(full) for _ in range(2)])
            bare = max([select(home / "full.sqlite") for _ in range(2)])
        return found, rate, bare


def run(_peers: Peers, *, events: int = 100_000, appends: int = 200) -> Result:
    """Measure it."""
    found, rate, bare = trio.run(measured, events, appends)
    change = {name: full / empty for name, (empty, full) in found.items()}
    worst = max(abs(ratio - 1) for ratio in change.values())
    return Result(
        name="growth",
        title=f"g. Growth to {events:,} events",
        story=__doc__ or "",
        columns=("", "empty journal", f"{events:,} events", "ratio"),
        rows=[
            *((f"append, us: {name}", number(a), number(b), number(b / a)) for name, (a, b) in found.items()),
            ("replay with frames, events/s", "", number(rate), ""),
            ("bare SELECT, rows/s", "", number(bare), ""),
        ],
        unit="events/s, more is better",
        bars=[("agentstream replay, with frames", rate), ("bare SELECT", bare)],
        ratios=[
            *(f"append, {name}: {number(ratio)} times the cost in the empty journal" for name, ratio in change.items()),
            f"replay: {number(rate / bare)} times the rate of a bare SELECT",
        ],
        goals=[
            Goal(
                what="g: cost per event within 10% from 0 to 1,000,000 events and 10,000 work orders",
                reached=f"largest difference {worst:.0%} from 0 to {events:,} events; the rest is not measured yet",
                met=False if worst > 0.1 else None,
            )
        ],
    )
