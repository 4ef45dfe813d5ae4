"""What goes is what the settings say, oldest first; what is in use stays; what is gone is known to be gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import trio

from agentstream.journal.retention import Retention
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.model.events import WorkOrderStatus
from tests.journal.helpers import NOON, Subscriber, attempt, contents, journal_path, order, outputs, seqs

NOW = NOON.timestamp() + 100_000
FOREVER = Retention(max_age_seconds=None, max_bytes=None, max_events_per_work_order=None, interval_seconds=10_000)


async def put(journal: SqliteJournal, name: str, count: int, status: WorkOrderStatus, *, seconds: int = 0) -> None:
    await journal.append(
        outputs(seconds, seconds + count - 1, work_order=name),
        work_orders=[order(name, status, seconds=seconds)],
        runs=[attempt(f"run-of-{name}", name, "succeeded")],
    )


async def left(journal: SqliteJournal, *names: str) -> list[int]:
    return [len(await journal.read(0, work_order_ids=[name], limit=100_000)) for name in names]


class Removed:
    def __init__(self) -> None:
        self.directories: list[str] = []

    async def __call__(self, directories: Sequence[str]) -> None:
        self.directories += directories


async def test_age_takes_ended_work_orders_whole(tmp_path: Path) -> None:
    removed = Removed()
    retention = attrs.evolve(FOREVER, max_age_seconds=50_000.0)
    async with open_journal(
        journal_path(tmp_path), publish=Subscriber(), retention=retention, remove_directories=removed
    ) as journal:
        await put(journal, "old", 1500, "succeeded")
        await put(journal, "old but running", 10, "running")
        await put(journal, "old but queued", 10, "queued")
        await put(journal, "young", 10, "failed", seconds=60_000)
        assert await journal.retain(now=NOW) == 1500
        assert await left(journal, "old", "old but running", "old but queued", "young") == [0, 10, 10, 10]
        assert removed.directories == ["runs/run-of-old"]
        assert await journal.work_order("old") is None
        assert await journal.runs("old") == []
        assert await journal.oldest("old") == 1501
        assert await journal.oldest("young") == 1
        assert await journal.oldest(None) == journal.statistics().oldest_seq == 1501
        assert journal.statistics().events == 30
        assert await journal.retain(now=NOW) == 0
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=FOREVER) as journal:
        assert await journal.oldest("old") == 1501
        assert journal.statistics().events == 30


async def test_age_counts_from_the_last_event_or_change(tmp_path: Path) -> None:
    retention = attrs.evolve(FOREVER, max_age_seconds=50_000.0)
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=retention) as journal:
        await put(journal, "touched", 10, "succeeded")
        await journal.append([], work_orders=[order("touched", "failed", seconds=90_000)])
        assert await journal.retain(now=NOW) == 0
        assert await journal.retain(now=NOW + 50_000) == 10


async def test_count_takes_the_oldest_events_and_leaves_the_rest(tmp_path: Path) -> None:
    removed = Removed()
    retention = attrs.evolve(FOREVER, max_events_per_work_order=100)
    async with open_journal(
        journal_path(tmp_path), publish=Subscriber(), retention=retention, remove_directories=removed
    ) as journal:
        await put(journal, "chatty", 2300, "succeeded")
        await put(journal, "chatty but running", 300, "running")
        await put(journal, "quiet", 100, "succeeded")
        assert await journal.retain(now=NOW) == 2200
        assert await left(journal, "chatty", "chatty but running", "quiet") == [100, 300, 100]
        kept = await journal.read(0, work_order_ids=["chatty"])
        assert seqs(kept) == list(range(2201, 2301))
        assert await journal.oldest("chatty") == 2201
        assert await journal.work_order("chatty") is not None
        assert removed.directories == []


async def test_size_takes_the_longest_untouched_first_and_no_more_than_needed(tmp_path: Path) -> None:
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=FOREVER) as journal:
        for number in range(10):
            await put(journal, f"w{number}", 2000, "succeeded", seconds=number * 3000)
        await put(journal, "running", 2000, "running")
        size = journal.statistics().size_bytes
    retention = attrs.evolve(FOREVER, max_bytes=size // 2)
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=retention) as journal:
        await journal.retain(now=NOW)
        remaining = await left(journal, *(f"w{number}" for number in range(10)), "running")
        gone = remaining.count(0)
        assert 4 <= gone <= 7
        assert remaining == [0] * gone + [2000] * (11 - gone)
        # What was freed went back to the file system as well.
        assert journal.statistics().size_bytes < size * 0.75


async def test_when_only_what_is_in_use_is_left_it_stays_however_large(tmp_path: Path) -> None:
    retention = attrs.evolve(FOREVER, max_bytes=1, max_age_seconds=1.0, max_events_per_work_order=1)
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=retention) as journal:
        await put(journal, "running", 1000, "running")
        await put(journal, "ended", 1000, "canceled")
        await journal.retain(now=NOW)
        assert await left(journal, "running", "ended") == [1000, 0]


async def test_a_work_order_that_is_queued_again_in_the_middle_of_a_round_keeps_the_rest(tmp_path: Path) -> None:
    retention = attrs.evolve(FOREVER, max_age_seconds=50_000.0)
    removed = Removed()
    async with open_journal(
        journal_path(tmp_path), publish=Subscriber(), retention=retention, remove_directories=removed
    ) as journal:
        await put(journal, "w1", 5000, "failed")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: journal.retain(now=NOW))
            while journal.statistics().events == 5000:  # noqa: ASYNC110 - a round has no event for its middle
                await trio.sleep(0.001)
            await journal.append([], work_orders=[order("w1", "queued", seconds=10)])
        (remaining,) = await left(journal, "w1")
        assert 0 < remaining < 5000
        assert await journal.oldest("w1") == 5000 - remaining + 1
        assert removed.directories == []
        assert await journal.work_order("w1") is not None


async def test_appends_pass_between_the_steps(tmp_path: Path) -> None:
    retention = attrs.evolve(FOREVER, max_age_seconds=50_000.0)
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber, retention=retention) as journal:
        await put(journal, "old", 10_000, "failed")
        during: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: journal.retain(now=NOW))
            while await journal.work_order("old") is not None:
                await journal.append(outputs(90_000, 90_000, work_order="new"))
                during.append(journal.statistics().events)
        assert len(set(during)) > 5
        assert contents(subscriber.records[-1:]) == ["90000"]


async def test_rounds_come_by_themselves(tmp_path: Path) -> None:
    retention = Retention(interval_seconds=0.05)
    async with open_journal(journal_path(tmp_path), publish=Subscriber(), retention=retention) as journal:
        await put(journal, "w1", 10, "succeeded", seconds=-400 * 86_400)
        with trio.fail_after(30):
            while journal.statistics().events:  # noqa: ASYNC110 - a round has no event for its end
                await trio.sleep(0.01)


@pytest.mark.parametrize("name", ["max_age_seconds", "max_bytes", "max_events_per_work_order", "interval_seconds"])
def test_settings_that_would_keep_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0"):
        Retention(**{name: 0})
