"""A disk that fails: nobody's events are lost on the way to those who watch, all is told, and it heals by itself."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path

import orjson
import pytest
import structlog.testing
import trio

from agentstream.errors import JournalError
from agentstream.journal import disk
from agentstream.journal.base import Record
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.model.events import AgentError
from tests.journal.helpers import (
    NOON,
    Subscriber,
    attempt,
    contents,
    journal_path,
    order,
    output,
    outputs,
    seqs,
)

#: So often that a test doesn't wait, so seldom that it doesn't keep a core busy.
PROBE = (0.02, 0.05)


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(30):
        while True:
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await trio.sleep(0.01)


def marked(record: Record) -> bool:
    return orjson.loads(record.body).get("journalled") is False


def check_the_story(subscriber: Subscriber, total: int) -> None:
    """Everything came, in order; what has no number says so, and numbers ascend."""
    assert contents(subscriber.records) == [str(number) for number in range(1, total + 1)]
    assert all(marked(record) == (record.seq is None) for record in subscriber.records)
    numbers = [record.seq for record in subscriber.records if record.seq is not None]
    assert numbers == sorted(set(numbers))


async def check_what_was_kept(path: Path, subscriber: Subscriber) -> None:
    """The journal, opened again, has exactly the events that were published with a number."""
    async with open_journal(path, publish=Subscriber()) as journal:
        kept = await journal.read(0, limit=1_000_000)
    assert [(record.seq, record.body) for record in kept] == [
        (record.seq, record.body) for record in subscriber.records if record.seq is not None
    ]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program has the database in a transaction: real, and possible for every user."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
        while True:
            rest.write(b"x" * 4096)


async def fill_and_free(journal: SqliteJournal, subscriber: Subscriber, free: Callable[[], None]) -> int:
    """Append until the disk refuses, go on for a while, make room, wait for it to heal, go on; the number of events."""
    number = 0
    while journal.statistics().trouble is None:
        number += 1
        assert number < 10_000
        await journal.append([output(number)])
    for _ in range(10):
        number += 1
        await journal.append([output(number)])
    assert marked(subscriber.records[-1])
    assert journal.statistics().not_journalled >= 10
    free()
    await until(lambda: journal.statistics().trouble is None)
    for _ in range(10):
        number += 1
        await journal.append([output(number)])
    assert not marked(subscriber.records[-1])
    return number


async def test_a_full_disk_is_told_once_and_heals_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_500_000)
    subscriber = Subscriber()
    path = journal_path(small_disk)
    with structlog.testing.capture_logs() as logs:
        async with open_journal(path, publish=subscriber, probe_seconds=PROBE) as journal:
            fill(small_disk)

            def free() -> None:
                trouble = journal.statistics().trouble
                assert trouble is not None
                assert trouble.startswith(("the disk is full", "the disk reports an error"))
                ballast.unlink()

            total = await fill_and_free(journal, subscriber, free)
    check_the_story(subscriber, total)
    await check_what_was_kept(path, subscriber)
    assert [entry["log_level"] for entry in logs] == ["error", "info"]


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The same without a mount: the process may write no larger files for a while."""
    subscriber = Subscriber()
    path = journal_path(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        async with open_journal(path, publish=subscriber, probe_seconds=PROBE) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
            total = await fill_and_free(
                journal, subscriber, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_the_story(subscriber, total)
    await check_what_was_kept(path, subscriber)


async def test_a_locked_database_heals_when_the_lock_goes(tmp_path: Path) -> None:
    subscriber = Subscriber()
    path = journal_path(tmp_path)
    with structlog.testing.capture_logs() as logs:
        async with open_journal(path, publish=subscriber, probe_seconds=PROBE) as journal:
            await journal.append(outputs(1, 2))
            with locked(path):
                await journal.append(outputs(3, 4))
                assert journal.statistics().trouble == "another program holds a lock on the file; end it (SQLITE_BUSY)"
                assert contents(await journal.read(0)) == ["1", "2"]
                await journal.append(outputs(5, 6))
            await until(lambda: journal.statistics().trouble is None)
            await journal.append(outputs(7, 8))
            assert journal.statistics().not_journalled == 4
    check_the_story(subscriber, 8)
    await check_what_was_kept(path, subscriber)
    assert [entry["log_level"] for entry in logs] == ["error", "info"]


async def test_a_database_that_can_only_be_read(tmp_path: Path) -> None:
    """Root may write to everything, so the connection is told not to."""
    subscriber = Subscriber()
    path = journal_path(tmp_path)
    async with open_journal(path, publish=subscriber, probe_seconds=PROBE) as journal:
        connection = journal._store.writer._connection
        await journal.append(outputs(1, 2))
        connection.execute("PRAGMA query_only = ON")
        await journal.append(outputs(3, 4))
        assert "can't be written; check its owner, its mode" in (journal.statistics().trouble or "")
        connection.execute("PRAGMA query_only = OFF")
        await until(lambda: journal.statistics().trouble is None)
        await journal.append(outputs(5, 6))
    check_the_story(subscriber, 6)
    await check_what_was_kept(path, subscriber)


async def test_what_became_of_work_orders_meanwhile_is_known_and_saved_afterwards(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    async with open_journal(path, publish=Subscriber(), probe_seconds=PROBE) as journal:
        await journal.append([], work_orders=[order("w1"), order("w2")], runs=[attempt("r1", "w1")])
        with locked(path):
            await journal.append(
                [output(1)],
                work_orders=[order("w1", "running"), order("w3")],
                runs=[attempt("r1", "w1", "failed"), attempt("r2", "w1", number=2)],
            )
            await journal.append([], work_orders=[order("w1", "succeeded")])
            assert await journal.work_order("w1") == order("w1", "succeeded")
            assert {item.id for item in (await journal.work_orders()).items} == {"w1", "w2", "w3"}
            assert [item.id for item in (await journal.work_orders(status="queued")).items] == ["w3", "w2"]
            assert await journal.run("r1") == attempt("r1", "w1", "failed")
            assert [run.id for run in await journal.runs("w1")] == ["r1", "r2"]
        await until(lambda: journal.statistics().trouble is None)
    async with open_journal(path, publish=Subscriber()) as journal:
        assert await journal.work_order("w1") == order("w1", "succeeded")
        assert await journal.work_order("w3") == order("w3")
        assert await journal.run("r1") == attempt("r1", "w1", "failed")
        assert await journal.runs("w1") == [attempt("r1", "w1", "failed"), attempt("r2", "w1", number=2)]


async def test_errors_come_through_as_well(tmp_path: Path) -> None:
    subscriber = Subscriber()
    path = journal_path(tmp_path)
    async with open_journal(path, publish=subscriber) as journal:
        with locked(path):
            await journal.append(
                [AgentError(work_order_id="w1", timestamp=NOON, run_id="r1", message="m", code="C", source="agent")]
            )
    assert orjson.loads(subscriber.records[0].body) == {
        "journalled": False,
        "type": "agent_error",
        "workOrderId": "w1",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "runId": "r1",
        "message": "m",
        "code": "C",
        "source": "agent",
    }


async def test_the_end_comes_also_while_the_disk_is_in_trouble(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    subscriber = Subscriber()
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(open_journal(path, publish=subscriber))
        await journal.append(outputs(1, 3))
        with locked(path):
            await journal.append(outputs(4, 5))
            await stack.aclose()
    async with open_journal(path, publish=subscriber) as journal:
        assert contents(await journal.read(0)) == ["1", "2", "3"]
        await journal.append([output(6)])
        # It did not end in order, so numbers go on above the block; none is used twice.
        assert journal.head > 5
    assert contents(subscriber.records) == ["1", "2", "3", "4", "5", "6"]


def damage(path: Path) -> None:
    """Overwrite the root of the index by work order: opening doesn't look at it, appending and replaying do."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_by_stream'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


async def damaged_journal(path: Path, subscriber: Subscriber) -> str:
    async with open_journal(path, publish=subscriber) as journal:
        await journal.append(outputs(1, 1000))
    damage(path)
    return journal.epoch


async def test_a_reader_that_meets_damage_gets_the_new_files_answer(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    subscriber = Subscriber()
    epoch = await damaged_journal(path, subscriber)
    with structlog.testing.capture_logs() as logs:
        async with open_journal(path, publish=subscriber) as journal:
            assert journal.epoch == epoch
            answers: list[list[Record]] = []

            async def ask() -> None:
                answers.append(await journal.read(0, work_order_ids=["w1"]))

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)
            assert answers == [[]] * 10
            assert journal.epoch != epoch
            (aside,) = journal.set_aside
            assert journal.statistics().trouble is None
            await journal.append(outputs(1001, 1010))
            assert contents(await journal.read(0)) == [str(number) for number in range(1001, 1011)]
    assert [entry.get("set_aside") for entry in logs] == [aside]
    check_the_story(subscriber, 1010)
    with closing(sqlite3.connect(aside)) as old:
        assert old.execute("SELECT count(*) FROM events NOT INDEXED").fetchone() == (1000,)


async def test_the_group_that_meets_damage_is_journalled_in_the_new_file(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    subscriber = Subscriber()
    epoch = await damaged_journal(path, subscriber)
    async with open_journal(path, publish=subscriber) as journal:
        await journal.append(outputs(1001, 1001), work_orders=[order("w1", "running")])
        assert journal.epoch != epoch
        assert len(journal.set_aside) == 1
        assert journal.statistics().not_journalled == 0
        assert await journal.work_order("w1") == order("w1", "running")
        assert contents(await journal.read(0)) == ["1001"]
        # A client that was away since before finds a gap.
        assert await journal.oldest("w1") > 1000
    check_the_story(subscriber, 1001)


async def test_files_that_are_damaged_again_and_again_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journal_path(tmp_path)
    subscriber = Subscriber()
    await damaged_journal(path, subscriber)
    async with open_journal(path, publish=subscriber, probe_seconds=PROBE) as journal:
        await journal.append(outputs(1001, 1010))
        assert len(journal.set_aside) == 1
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(path)
        with pytest.raises(JournalError, match=r"the file is damaged .* soon after the last one; look at the disk"):
            await journal.read(0, work_order_ids=["w1"])
        await journal.append(outputs(1011, 1020))
        assert journal.statistics().not_journalled == 10
        assert len(journal.set_aside) == 1
        monkeypatch.setattr(disk, "_REPLACE_SECONDS", 0.0)
        await until(lambda: journal.statistics().trouble is None)
        await journal.append(outputs(1021, 1030))
        assert contents(await journal.read(0)) == [str(number) for number in range(1021, 1031)]
    assert len([name for name in os.listdir(tmp_path) if "corrupt" in name and name.endswith("Z")]) == 2
    check_the_story(subscriber, 1030)


async def test_a_cursor_from_before_the_damage_finds_a_gap_and_nothing_twice(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    subscriber = Subscriber()
    async with open_journal(path, publish=subscriber) as journal:
        await journal.append(outputs(1, 1000))
        epoch, cursor = journal.epoch, 500
        os.rename(path, tmp_path / "moved")
        await journal.append(outputs(1001, 1001))
        await until(lambda: journal.epoch != epoch)
        await journal.append(outputs(1002, 1010))
        assert await journal.oldest("w1") > cursor + 1
        assert await journal.oldest(None) > cursor + 1
        replayed = await journal.read(cursor)
        assert contents(replayed) == [str(number) for number in range(1002, 1011)]
    numbers = [number for number in seqs(subscriber.records) if number is not None]
    assert numbers == sorted(set(numbers))
    check_the_story(subscriber, 1010)


async def test_a_directory_that_was_deleted_is_trouble_until_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    subscriber = Subscriber()
    async with open_journal(journal_path(home), publish=subscriber, probe_seconds=PROBE) as journal:
        await journal.append(outputs(1, 2))
        shutil.rmtree(home)
        await until(lambda: journal.statistics().trouble is not None)
        await journal.append(outputs(3, 4))
        with pytest.raises(JournalError, match="can't be read"):
            await journal.read(0)
        home.mkdir()
        await until(lambda: journal.statistics().trouble is None)
        await journal.append(outputs(5, 6))
        assert contents(await journal.read(0)) == ["5", "6"]
    check_the_story(subscriber, 6)
