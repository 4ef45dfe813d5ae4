"""A tail gives every byte of a file that somebody else is writing, as soon as it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from agentstream.runs.inotify import InotifyHub
from agentstream.runs.tail import SpoolTail


@asynccontextmanager
async def optional_hub(kind: str) -> AsyncIterator[InotifyHub | None]:
    if kind == "poll":
        yield None
        return
    async with trio.open_nursery() as nursery:
        hub = InotifyHub()
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["inotify", "poll"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "stdout"
    path.touch()
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def rest_of(tail: SpoolTail) -> bytes:
    with trio.fail_after(60):
        return b"".join([chunk async for chunk in tail])


async def collect(tail: SpoolTail, chunks: trio.MemorySendChannel[bytes]) -> None:
    async for chunk in tail:
        await chunks.send(chunk)


async def test_growth_wakes_the_reader(spool: Path, kind: str) -> None:
    async with optional_hub(kind) as hub:
        tail = SpoolTail(spool, hub)
        with trio.fail_after(60):
            for number in range(20):
                append(spool, b"line %d\n" % number)
                assert await tail.read_chunk() == b"line %d\n" % number
        tail.close()


async def test_a_waiting_reader_is_woken(spool: Path, kind: str) -> None:
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        tail = SpoolTail(spool, hub)
        chunks: list[bytes] = []
        got = trio.Event()

        async def read() -> None:
            chunks.append(await tail.read_chunk())
            got.set()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        append(spool, b"at last")
        with trio.fail_after(60):
            await got.wait()
        assert chunks == [b"at last"]
        tail.close()


async def test_finish_reads_to_the_end_and_ends(spool: Path, kind: str) -> None:
    async with optional_hub(kind) as hub:
        tail = SpoolTail(spool, hub)
        append(spool, b"x" * 3_000_000)
        tail.finish()
        tail.finish()
        assert await rest_of(tail) == b"x" * 3_000_000
        assert await tail.read_chunk() == b""
        assert tail.offset == 3_000_000
        tail.close()
        tail.close()


async def test_finish_ends_a_reader_that_waits(spool: Path, kind: str) -> None:
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        tail = SpoolTail(spool, hub)
        nursery.start_soon(rest_of, tail)
        await trio.testing.wait_all_tasks_blocked()
        tail.finish()


async def test_a_writer_that_goes_on_after_finish_cant_hold_the_end_back(spool: Path) -> None:
    tail = SpoolTail(spool)
    append(spool, b"before")
    tail.finish()
    append(spool, b" after")
    assert await rest_of(tail) == b"before"
    tail.close()


async def test_a_cancelled_read_has_read_nothing(spool: Path, kind: str) -> None:
    async with optional_hub(kind) as hub:
        tail = SpoolTail(spool, hub)
        append(spool, b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await tail.read_chunk()
        tail.finish()
        assert await rest_of(tail) == b"kept"
        tail.close()


async def test_without_its_hub_a_tail_goes_on_by_polling(spool: Path) -> None:
    async with optional_hub("inotify") as hub:
        tail = SpoolTail(spool, hub)
    append(spool, b"still read")
    with trio.fail_after(60):
        assert await tail.read_chunk() == b"still read"
    tail.close()


async def test_a_file_that_was_emptied_is_read_from_its_beginning(spool: Path, kind: str) -> None:
    """What a shell script does to its own output with ``echo text > /dev/stdout``."""
    async with optional_hub(kind) as hub:
        tail = SpoolTail(spool, hub)
        append(spool, b"a long first line\n")
        with trio.fail_after(60):
            assert await tail.read_chunk() == b"a long first line\n"
            rewrite(spool, b"short\n")
            assert await tail.read_chunk() == b"short\n"
        rewrite(spool, b"end\n")
        tail.finish()
        assert await rest_of(tail) == b"end\n"
        tail.close()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SpoolTail(tmp_path / "missing")


CHILD = """
import os
for number in range(4000):
    os.write(1, b"%08d" % number + b"x" * 1015 + b"\\n")
os.write(1, b"the last line\\n")
"""


async def test_what_a_child_wrote_before_it_exited_is_complete_however_long_the_event_loop_was_blocked(
    spool: Path, kind: str
) -> None:
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        tail = SpoolTail(spool, hub)
        chunks: list[bytes] = []

        async def read() -> None:
            async for chunk in tail:
                chunks.append(chunk)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        fd = os.open(spool, os.O_WRONLY | os.O_APPEND)
        # Blocks the event loop until the child has written everything and is gone.
        subprocess.run([sys.executable, "-c", CHILD], stdout=fd, check=True, timeout=120)  # noqa: ASYNC221
        os.close(fd)
        tail.finish()
    lines = b"".join(chunks).split(b"\n")
    assert len(lines) == 4002
    assert lines[-2:] == [b"the last line", b""]
    assert [int(line[:8]) for line in lines[:4000]] == list(range(4000))
    tail.close()


async def test_a_busy_reader_lets_others_run(spool: Path) -> None:
    append(spool, b"x" * 5_000_000)
    tail = SpoolTail(spool)
    tail.finish()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        chunks = [chunk async for chunk in tail]
        nursery.cancel_scope.cancel()
    assert len(chunks) > 10
    assert turns > 10
    tail.close()


async def busy_tail(spool: Path, hub: InotifyHub) -> SpoolTail:
    """One that has just brought a line after the other, each within the hour of the one before."""
    tail = SpoolTail(spool, hub, poll_seconds=3600)
    with trio.fail_after(60):
        for number in range(10):
            append(spool, b"line %d\n" % number)
            assert await tail.read_chunk()
            if not hub.statistics().watches:
                return tail
    raise AssertionError("still watched")


async def test_what_a_stream_that_never_stops_brings_meanwhile_is_read_together(
    spool: Path, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        tail = await busy_tail(spool, hub)
        send, chunks = trio.open_memory_channel[bytes](10)
        nursery.start_soon(collect, tail, send)
        for piece in (b"one ", b"two ", b"three"):
            append(spool, piece)
            await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3600)
        with trio.fail_after(60):
            assert await chunks.receive() == b"one two three"
        tail.finish()
    tail.close()


async def test_a_stream_that_paused_is_watched_again(spool: Path, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 1
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        tail = await busy_tail(spool, hub)
        send, chunks = trio.open_memory_channel[bytes](10)
        nursery.start_soon(collect, tail, send)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3600)
        await trio.testing.wait_all_tasks_blocked()
        append(spool, b"at once")
        with trio.fail_after(60):
            assert await chunks.receive() == b"at once"
        tail.finish()
    tail.close()


async def test_the_end_of_a_stream_that_never_stopped_is_not_waited_for(spool: Path) -> None:
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        tail = await busy_tail(spool, hub)
        send, chunks = trio.open_memory_channel[bytes](10)
        nursery.start_soon(collect, tail, send)
        await trio.testing.wait_all_tasks_blocked()
        append(spool, b"the last line\n")
        tail.finish()
        with trio.fail_after(60):
            assert await chunks.receive() == b"the last line\n"
    tail.close()
