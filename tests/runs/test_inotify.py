"""One inotify instance serves everybody, and says when it can't."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from agentstream.runs.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_MODIFY,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    InotifyEvent,
    InotifyHub,
)


@attrs.define
class Heard:
    """What a watch was told."""

    events: list[InotifyEvent] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    def __call__(self, event: InotifyEvent) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not condition():
                await self.changed.wait()

    @property
    def names(self) -> list[bytes]:
        return [event.name for event in self.events]


@asynccontextmanager
async def running_hub() -> AsyncIterator[InotifyHub]:
    async with trio.open_nursery() as nursery:
        hub = InotifyHub()
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


async def test_a_watch_is_told_what_it_asked_for(tmp_path: Path) -> None:
    heard = Heard()
    async with running_hub() as hub:
        hub.watch(tmp_path, IN_CREATE | IN_DELETE, heard)
        (tmp_path / "ä").write_bytes(b"not asked for: a change")
        (tmp_path / "ä").unlink()
        await heard.until(lambda: len(heard.events) == 2)
    assert heard.events[:2] == [InotifyEvent(IN_CREATE, "ä".encode()), InotifyEvent(IN_DELETE, "ä".encode())]


async def test_watches_of_one_path_share_a_kernel_watch_and_end_independently(tmp_path: Path) -> None:
    creations, deletions, both = Heard(), Heard(), Heard()
    async with running_hub() as hub:
        first = hub.watch(tmp_path, IN_CREATE, creations)
        hub.watch(tmp_path, IN_DELETE, deletions)
        hub.watch(tmp_path, IN_CREATE | IN_DELETE, both)
        assert (hub.statistics().watches, hub.statistics().descriptors) == (3, 1)
        (tmp_path / "a").touch()
        await both.until(lambda: both.names == [b"a"])
        hub.unwatch(first)
        hub.unwatch(first)
        (tmp_path / "b").touch()
        (tmp_path / "a").unlink()
        await both.until(lambda: both.names == [b"a", b"b", b"a"])
        assert creations.names == [b"a"]
        assert deletions.names == [b"a"]


async def test_the_last_watch_of_a_path_gives_the_kernel_watch_back(tmp_path: Path) -> None:
    async with running_hub() as hub:
        watches = [hub.watch(tmp_path, IN_CREATE, Heard()) for _ in range(3)]
        for watch in watches:
            hub.unwatch(watch)
        assert hub.statistics().descriptors == 0
        heard = Heard()
        hub.watch(tmp_path, IN_CREATE, heard)
        (tmp_path / "a").touch()
        await heard.until(lambda: heard.names == [b"a"])


async def test_what_is_watched_may_vanish_and_come_back(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    heard = Heard()
    async with running_hub() as hub:
        watch = hub.watch(place, IN_CREATE, heard)
        place.rmdir()
        await heard.until(lambda: heard.events[-1:] == [InotifyEvent(IN_IGNORED, b"")])
        assert not watch.active
        assert hub.statistics().watches == 0
        hub.unwatch(watch)
        place.mkdir()
        hub.watch(place, IN_CREATE, heard)
        (place / "again").touch()
        await heard.until(lambda: heard.names[-1:] == [b"again"])


async def test_a_callback_may_unwatch_the_others(tmp_path: Path) -> None:
    async with running_hub() as hub:
        later = Heard()

        def stop(event: InotifyEvent) -> None:
            hub.unwatch(other)

        hub.watch(tmp_path, IN_CREATE, stop)
        other = hub.watch(tmp_path, IN_CREATE, later)
        last = Heard()
        hub.watch(tmp_path, IN_CREATE, last)
        (tmp_path / "a").touch()
        await last.until(lambda: last.names == [b"a"])
        assert later.events == []


async def test_everybody_is_told_of_an_overflow(tmp_path: Path) -> None:
    limit = int(await trio.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    busy, quiet = tmp_path / "busy", tmp_path / "quiet"
    busy.mkdir()
    quiet.mkdir()
    heard_busy, heard_quiet = Heard(), Heard()
    async with running_hub() as hub:
        hub.watch(busy, IN_CREATE | IN_DELETE, heard_busy)
        hub.watch(quiet, IN_CREATE, heard_quiet)
        for _ in range(limit // 2 + 1):
            (busy / "x").touch()
            (busy / "x").unlink()
        await heard_quiet.until(lambda: bool(heard_quiet.events))
        assert heard_quiet.events[0].mask & IN_Q_OVERFLOW
        assert any(event.mask & IN_Q_OVERFLOW for event in heard_busy.events)
        assert hub.statistics().overflows == 1


async def test_the_end_of_the_hub_is_told(tmp_path: Path) -> None:
    heard = Heard()
    async with running_hub() as hub:
        watch = hub.watch(tmp_path, IN_CREATE, heard)
    assert heard.events == [InotifyEvent(IN_IGNORED, b"")]
    assert not watch.active
    hub.unwatch(watch)
    hub.close()
    with pytest.raises(OSError, match="closed"):
        hub.watch(tmp_path, IN_CREATE, heard)


async def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with running_hub() as hub:
        with pytest.raises(FileNotFoundError):
            hub.watch(tmp_path / "missing", IN_MODIFY, Heard())
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            hub.watch(tmp_path / "file", IN_CREATE | IN_ONLYDIR, Heard())
        assert hub.statistics().watches == 0


def test_no_instance_left_is_a_clear_error() -> None:
    """With no descriptor left inotify says EMFILE, just as with no instance left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_fd = os.dup(0)
    os.close(next_fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
    try:
        with pytest.raises(OSError, match="max_user_instances") as caught:
            InotifyHub()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
