"""Growth: what the same work costs in a small journal and in large ones.

Journals with so many events of so many work orders do the same things: append one event alone, 200 events of one run
together (both awaited until committed and published; each time for another work order), and read the page of one work order
that a subscription reads, with frames made, its events lying together in the middle of the journal, as a run wrote them. They take
turns after every single append or page, since a machine's speed changes from second to second by more than what is looked for. The
cost is CPU, of all threads, the median of some hundred turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median

import trio

from agentstream.broadcast.frames import event_frame
from agentstream.journal.base import Journal, Record
from agentstream.journal.sqlite import open_journal
from agentstream.model.events import AgentOutput
from agentstream.model.orders import WorkOrder, WorkOrderRequest, WorkspaceSource
from bench.peers import Peers
from bench.report import Goal, Result, number

#: Events that one work order has together in the file: what `page` reads.
TOGETHER = 100
#: Events of one append while a journal is filled, and of one while it is measured.
STEP, BATCH = 1000, 200
#: As a subscription reads (`agentstream.broadcast.subscriber`).
PAGE_BYTES = 192 * 1024


async def nowhere(_records: Sequence[Record]) -> None:
    """Nobody listens."""


def made(key: str, count: int) -> list[AgentOutput]:
    """Events of some 200 bytes."""
    now = datetime.now(UTC)
    return [AgentOutput(work_order_id=key, run_id="r", timestamp=now, content="x" * 80) for _ in range(count)]


def order(key: str) -> WorkOrder:
    """One that ended."""
    request = WorkOrderRequest(task_prompt="p", workspace_source=WorkspaceSource(type="fresh"))
    now = datetime.now(UTC)
    return WorkOrder(id=key, request=request, workspace="/", status="succeeded", created_at=now, updated_at=now)


async def fill(path: Path, events: int, orders: int) -> None:
    """A journal with so many events of ``w0``, ``w1``, ...: `TOGETHER` of one, then of the next."""
    async with open_journal(path, publish=nowhere) as journal:
        for first in range(0, orders, STEP):
            keys = [f"w{number}" for number in range(first, min(first + STEP, orders))]
            await journal.append([], work_orders=[order(key) for key in keys])
        whose = (f"w{number % orders}" for number in count())
        for first in range(0, events, STEP):
            batch: list[AgentOutput] = []
            for at in range(first, min(first + STEP, events), TOGETHER):
                batch += made(next(whose), min(TOGETHER, events - at))
            await journal.append(batch)


def filled(peers: Peers, events: int, orders: int) -> Path:
    """The same, made once; a directory of its own in which a daemon finds it as ``journal.sqlite``."""
    home = peers.temporary / f"journal-{events}-{orders}"
    if not home.exists():
        home.mkdir(mode=0o700)
        trio.run(fill, home / "journal.sqlite", events, orders)
    return home


async def alone(journal: Journal, whose: str) -> int:
    """An append of one event; how many events that were."""
    await journal.append(made(whose, 1))
    return 1


async def together(journal: Journal, whose: str) -> int:
    """An append of `BATCH` events."""
    await journal.append(made(whose, BATCH))
    return BATCH


async def page(journal: Journal, whose: str) -> int:
    """The first page of a subscription."""
    records = await journal.read(0, work_order_ids=[whose], limit=TOGETHER, max_bytes=PAGE_BYTES)
    for record in records:
        event_frame(record)
    return len(records)


#: And how many times as often as given.
WORK: dict[str, tuple[Callable[[Journal, str], Awaitable[int]], int]] = {
    "append: one event": (alone, 5),
    f"append: each of {BATCH} together": (together, 1),
    "read: each of a page of one work order": (page, 2),
}


async def measured(files: Sequence[Path], orders: Sequence[int], turns: int) -> dict[str, list[float]]:
    """CPU microseconds for each event, by the work's name, for each journal; the median of the turns."""
    costs: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(open_journal(file, publish=nowhere)) for file in files]
        # In the smallest journal only the first work order has events.
        middle = [
            f"w{many // 2}" if one.statistics().events > TOGETHER * many // 2 else "w0"
            for one, many in zip(journals, orders, strict=True)
        ]
        for name, (work, times) in WORK.items():
            took: list[list[float]] = [[] for _ in files]
            for turn in range(turns * times):
                # Nobody is always the first, or always after the same one.
                for index in random.sample(range(len(files)), len(files)):
                    whose = middle[index] if work is page else f"w{turn % orders[index]}"
                    start = time.process_time()
                    events = await work(journals[index], whose)
                    took[index].append((time.process_time() - start) / events * 1e6)
            costs[name] = [median(one) for one in took]
    return costs


def run(
    peers: Peers,
    *,
    sizes: Sequence[tuple[int, int]] = ((0, 10), (100_000, 10), (100_000, 10_000), (1_000_000, 10_000)),
    turns: int = 100,
) -> Result:
    """Measure it; ``sizes`` are events and work orders, the first what the others are compared with."""
    # What the page is read from is in every journal.
    files = [filled(peers, max(events, TOGETHER), orders) / "journal.sqlite" for events, orders in sizes]
    found = trio.run(measured, files, [orders for _, orders in sizes], turns)
    names = [f"{events:,} events, {orders:,} work orders" for events, orders in sizes]
    worst, work, where = max(
        (cost / costs[0], work, names[index]) for work, costs in found.items() for index, cost in enumerate(costs)
    )
    return Result(
        title=f"g. Growth to {sizes[-1][0]:,} events",
        story=__doc__ or "",
        columns=("CPU us an event", *names),
        rows=[(work, *map(number, costs)) for work, costs in found.items()],
        unit="CPU microseconds an event, appended alone, less is better",
        bars=[(f"agentstream, {name}", cost) for name, cost in zip(names, found["append: one event"], strict=True)],
        ratios=[
            f"{work}: {' / '.join(number(cost / costs[0]) for cost in costs[1:])} times the cost with {names[0]}"
            for work, costs in found.items()
        ],
        goals=[
            Goal(
                what=f"g: cost per event within 10% up to {sizes[-1][0]:,} events and {sizes[-1][1]:,} work orders",
                reached=f"at most {number(worst)} times ({work}; {where})",
                met=worst <= 1.1,
            )
        ],
    )
