"""Appending: one order, durable before visible, cancelled or crowded or carried to the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from agentstream.errors import JournalError
from agentstream.journal.base import Journal, Record
from agentstream.journal.committer import PENDING_BYTES
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.model import wire
from agentstream.model.events import AgentRaw
from tests.journal.helpers import (
    NOON,
    Subscriber,
    attempt,
    contents,
    delta,
    journal_path,
    order,
    output,
    outputs,
    rows,
    seqs,
)


def as_journal(journal: SqliteJournal) -> Journal:
    """For mypy: it has all that the interface promises."""
    return journal


async def test_events_are_numbered_published_and_read_back_the_same(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        await journal.append(outputs(1, 3), born=7.5)
        await journal.append(outputs(4, 4, work_order="w2"))
        assert seqs(subscriber.records) == [1, 2, 3, 4]
        assert [record.born for record in subscriber.records] == [7.5, 7.5, 7.5, 0.0]
        assert subscriber.records[3].body == wire.event_body(output(4, work_order="w2", seconds=4))
        replayed = await journal.read(0)
        assert [attrs.evolve(record, born=0.0) for record in subscriber.records] == replayed
        assert (journal.head, journal.statistics().events, journal.statistics().pending) == (4, 4, 0)
        assert seqs(await journal.read(0, work_order_ids=["w2"])) == [4]
        assert await journal.seq_before_time(NOON, None) == 0
        assert await journal.seq_before_last(1, "w1") == 2
        assert await journal.oldest("w1") == 1


async def test_what_was_published_is_already_on_disk(tmp_path: Path) -> None:
    seen: list[int | None] = []

    async def publish(records: Sequence[Record]) -> None:
        assert journal.head == records[-1].seq
        stored = await journal.read(0, limit=10_000)
        seen.extend(seqs(stored))
        assert stored[-len(records) :] == list(records)

    async with open_journal(journal_path(tmp_path), publish=publish) as journal:
        await journal.append(outputs(1, 5))
    assert seen == [1, 2, 3, 4, 5]


async def test_many_callers_share_commits_and_keep_each_ones_order(tmp_path: Path) -> None:
    subscriber = Subscriber()
    callers, rounds = 20, 30

    async def call(name: str) -> None:
        for number in range(rounds):
            await journal.append(outputs(2 * number, 2 * number + 1, work_order=name))

    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal, trio.open_nursery() as nursery:
        for caller in range(callers):
            nursery.start_soon(call, f"w{caller}")
    assert seqs(subscriber.records) == list(range(1, 2 * callers * rounds + 1))
    for caller in range(callers):
        mine = [record for record in subscriber.records if record.work_order_id == f"w{caller}"]
        assert contents(mine) == [str(number) for number in range(2 * rounds)]
    assert len(subscriber.groups) < callers * rounds / 2


async def test_the_order_of_calls_is_the_order_of_numbers(tmp_path: Path) -> None:
    subscriber = Subscriber()
    called: list[str] = []

    async def call(number: int) -> None:
        for turn in range(10):
            called.append(f"{number}.{turn}")
            await journal.append([output(called[-1])])

    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(call, number)
    assert contents(subscriber.records) == called


async def test_ephemeral_events_pass_in_their_place_and_are_not_kept(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        await journal.append([delta("a"), output("one"), delta("b"), output("two")])
        await journal.append([delta("c")])
        assert contents(subscriber.records) == ["a", "one", "b", "two", "c"]
        assert seqs(subscriber.records) == [None, 1, None, 2, None]
        assert contents(await journal.read(0)) == ["one", "two"]


async def test_work_orders_and_runs_are_kept_with_their_events(tmp_path: Path) -> None:
    async with open_journal(journal_path(tmp_path), publish=Subscriber()) as journal:
        await journal.append([output(1)], work_orders=[order("w1")], runs=[attempt("r1", "w1")])
        await journal.append([], work_orders=[order("w1", "running"), order("w2")])
    async with open_journal(journal_path(tmp_path), publish=Subscriber()) as journal:
        assert await journal.work_order("w1") == order("w1", "running")
        assert [item.id for item in (await journal.work_orders()).items] == ["w2", "w1"]
        assert await journal.run("r1") == attempt("r1", "w1")
        assert await journal.runs("w1") == [attempt("r1", "w1")]
        assert await journal.unfinished() == ([order("w1", "running"), order("w2")], [attempt("r1", "w1")])
        assert await journal.work_order("w3") is None


async def test_nothing_to_append_is_nothing(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        with trio.testing.assert_checkpoints():
            await journal.append([])
    assert subscriber.groups == []


async def test_what_is_no_json_hurts_only_its_own_caller(tmp_path: Path) -> None:
    subscriber = Subscriber()
    bad = AgentRaw(work_order_id="w1", run_id="r1", timestamp=NOON, kind="x", raw="\ud800")
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        with pytest.raises(TypeError):
            await journal.append([output(1), bad])
        with pytest.raises(TypeError):
            await journal.append([], runs=[attrs.evolve(attempt("r", "w"), details={"x": object()})])
        await journal.append([output(2)])
    assert contents(subscriber.records) == ["2"]


async def test_a_cancelled_call_that_was_taken_up_is_carried_out(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append([output("last words")])
        assert scope.cancelled_caught
        await journal.append([output("after")])
    assert contents(subscriber.records) == ["last words", "after"]


async def test_a_crowd_waits_in_line_and_who_leaves_it_has_done_nothing(tmp_path: Path) -> None:
    """While ``publish`` stands still nothing is taken up beyond the bound, and nobody overtakes."""
    gate = trio.Event()
    records: list[Record] = []

    async def publish(group: Sequence[Record]) -> None:
        await gate.wait()
        records.extend(group)

    big = "x" * (PENDING_BYTES // 4)
    count = 0

    async def call(number: int, scope: trio.CancelScope) -> None:
        nonlocal count
        with scope:
            await journal.append([output(f"{number}:{big if number < 6 else ''}")])
            count += 1

    async with open_journal(journal_path(tmp_path), publish=publish) as journal, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(10)]
        for number, scope in enumerate(scopes):
            nursery.start_soon(call, number, scope)
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert journal.statistics().pending < 6
        scopes[7].cancel()
        await trio.testing.wait_all_tasks_blocked(0.001)
        gate.set()
    assert [text.partition(":")[0] for text in contents(records)] == ["0", "1", "2", "3", "4", "5", "6", "8", "9"]
    assert count == 9


async def test_a_call_that_is_larger_than_the_bound_passes_alone(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        await journal.append([output("x" * (PENDING_BYTES + 1)), output(2)])
        await journal.append(outputs(1, 20_000))
    assert seqs(subscriber.records) == list(range(1, 20_003))


async def test_last_words_are_journalled_when_the_body_is_cancelled(tmp_path: Path) -> None:
    """A run that is torn down with everything else still has its end to tell."""
    subscriber = Subscriber()
    with trio.CancelScope() as scope:
        async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(30, shield=True) as shield:
                    await journal.append([output("run canceled")])
                assert not shield.cancelled_caught
    assert contents(subscriber.records) == ["run canceled"]
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        assert contents(await journal.read(0)) == ["run canceled"]
        assert journal.head == 1


async def test_the_end_waits_for_what_is_pending(tmp_path: Path) -> None:
    subscriber = Subscriber()

    async def call(number: int) -> None:
        await journal.append([output(number)])

    async with trio.open_nursery() as nursery:
        async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
            for number in range(20):
                nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked(0.0)
    assert sorted(map(int, contents(subscriber.records))) == list(range(20))


async def test_after_the_end_appending_is_an_error(tmp_path: Path) -> None:
    async with open_journal(journal_path(tmp_path), publish=Subscriber()) as journal:
        await journal.aclose()
        await journal.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await journal.append([output(1)])
        with pytest.raises(JournalError, match="closed"):
            await journal.read(0)


async def test_when_publishing_fails_nobody_is_left_waiting(tmp_path: Path) -> None:
    async def publish(_: Sequence[Record]) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("the broadcaster is gone")

    async def call() -> None:
        with trio.CancelScope(shield=True), pytest.raises(trio.ClosedResourceError):
            await journal.append([output(1)])

    failed = False
    try:
        async with open_journal(journal_path(tmp_path), publish=publish) as journal, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
    except* RuntimeError:
        failed = True
    assert failed


async def test_epoch_and_head_survive_a_restart(tmp_path: Path) -> None:
    subscriber = Subscriber()
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        epoch = journal.epoch
        await journal.append(outputs(1, 3))
    async with open_journal(journal_path(tmp_path), publish=subscriber) as journal:
        assert (journal.epoch, journal.head) == (epoch, 3)
        await journal.append(outputs(4, 4))
    assert seqs(subscriber.records) == [1, 2, 3, 4]


async def test_nobody_reads_what_was_not_yet_published(tmp_path: Path) -> None:
    async with open_journal(journal_path(tmp_path), publish=Subscriber()) as journal:
        await journal.append(outputs(1, 3))
        # As between a commit and its publication.
        journal._store.writer.commit(rows(4, 6), [], [])
        assert seqs(await journal.read(0)) == [1, 2, 3]
        assert seqs(await journal.read(0, up_to=99)) == [1, 2, 3]
        assert await journal.seq_before_last(1, None) == 2
