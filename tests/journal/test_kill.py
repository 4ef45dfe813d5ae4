"""`kill -9` at any moment: what subscribers saw is in the journal, under the same number, and no number stands for two things."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest
import trio

from agentstream.journal.sqlite import open_journal
from tests.journal.helpers import Subscriber, content, journal_path
from tests.journal.lives import WORK_ORDERS


@pytest.mark.parametrize("lives", [30, pytest.param(500, marks=pytest.mark.soak)], ids=["30 times", "500 times"])
async def test_nothing_that_was_seen_is_lost_and_no_number_is_used_twice(tmp_path: Path, lives: int) -> None:
    path, seen_file = journal_path(tmp_path), tmp_path / "seen"
    with trio.fail_after(lives * 10):
        await trio.run_process(
            [sys.executable, "-m", "tests.journal.lives", str(path), str(seen_file), str(lives), "7"]
        )

    seen: dict[int, tuple[str, str]] = {}
    order_seen: list[int] = []
    for line in seen_file.read_text().splitlines():
        if not line.endswith(" ."):
            continue
        seq, name, number, _ = line.split()
        assert int(seq) not in seen, f"seq {seq} was published twice"
        seen[int(seq)] = (name, number)
        order_seen.append(int(seq))
    assert order_seen == sorted(order_seen)

    stored: dict[int, tuple[str, str]] = {}
    numbers: dict[str, list[int]] = defaultdict(list)
    async with open_journal(path, publish=Subscriber()) as journal:
        assert journal.set_aside == ()
        after = 0
        while page := await journal.read(after, limit=5000):
            for record in page:
                assert record.seq is not None
                assert record.seq > after
                after = record.seq
                stored[after] = (record.work_order_id, content(record))
                numbers[record.work_order_id].append(int(content(record)))
        unfinished, _ = await journal.unfinished()
    missing = [seq for seq, what in seen.items() if stored.get(seq) != what]
    assert not missing
    # What each caller appended is whole and in order, over all its lives.
    assert sorted(numbers) == sorted(order.id for order in unfinished) == [f"w{index}" for index in range(WORK_ORDERS)]
    for mine in numbers.values():
        assert mine == list(range(1, len(mine) + 1))
    assert len(seen) > lives
