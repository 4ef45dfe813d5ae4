"""A run's file changes are told while it runs, and completely at its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from agentstream.model import wire
from agentstream.model.events import AgentError, Event, FileChanged
from agentstream.runs.inotify import InotifyHub, Watch
from agentstream.runs.workspace import WorkspaceWatcher

Told = tuple[str, str, int | None]


@attrs.define
class Heard:
    """What was emitted."""

    events: list[Event] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, events: list[Event]) -> None:
        self.events += events
        self.changed.set()
        self.changed = trio.Event()

    @property
    def told(self) -> list[Told]:
        return [(event.path, event.action, event.size_bytes) for event in self.events if isinstance(event, FileChanged)]

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not condition():
                await self.changed.wait()

    async def until_told(self, *expected: Told) -> None:
        await self.until(lambda: set(expected) <= set(self.told))


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


def watcher_of(root: Path, heard: Heard, hub: InotifyHub | None) -> WorkspaceWatcher:
    return WorkspaceWatcher(root, "w", "r", heard, hub=hub, poll_seconds=0.05)


@pytest.fixture(params=["inotify", "poll"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def test_changes_are_told_while_the_run_goes_on(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "edited.py", "before")
    write(tmp_path / "gone.py", "x")
    heard = Heard()
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        assert watcher.watching == (kind == "inotify")
        await nursery.start(watcher.run)
        write(tmp_path / "new.py", "12345")
        await heard.until_told(("new.py", "created", 5))
        write(tmp_path / "edited.py", "first edit")
        (tmp_path / "gone.py").unlink()
        await heard.until_told(("edited.py", "modified", 10), ("gone.py", "deleted", None))
        await watcher.finish()
        await watcher.finish()
    assert len(heard.events) == 3
    assert {(event.work_order_id, getattr(event, "run_id", "")) for event in heard.events} == {("w", "r")}


async def test_what_is_new_in_new_directories_is_told_at_once(tmp_path: Path, kind: str) -> None:
    heard = Heard()
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)
        for number in range(5):
            write(tmp_path / f"a{number}/b/c/early", "x")
        await heard.until_told(*((f"a{number}/b/c/early", "created", 1) for number in range(5)))
        write(tmp_path / "a0/b/c/late", "xx")
        await heard.until_told(("a0/b/c/late", "created", 2))
        await watcher.finish()
    assert len(heard.told) == 6


async def test_a_burst_is_told_once(tmp_path: Path, kind: str) -> None:
    heard = Heard()
    async with optional_hub(kind) as hub:
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        for number in range(1, 100):
            write(tmp_path / "file", "x" * number)
        write(tmp_path / "temporary", "x")
        (tmp_path / "temporary").unlink()
        await watcher.finish()
    assert heard.told == [("file", "created", 99)]


async def test_a_file_that_is_written_all_the_time_is_told_all_the_same(tmp_path: Path) -> None:
    heard = Heard()
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)

        async def write_on() -> None:
            with (tmp_path / "log").open("a") as file:
                while True:
                    file.write("line\n")
                    file.flush()
                    await trio.sleep(0.005)

        async with trio.open_nursery() as writing:
            writing.start_soon(write_on)
            await heard.until(lambda: len(heard.told) >= 3)
            writing.cancel_scope.cancel()
        await watcher.finish()
    assert [action for _, action, _ in heard.told][:3] == ["created", "modified", "modified"]


async def test_what_is_pending_is_told_before_the_end_also_without_run(tmp_path: Path) -> None:
    heard = Heard()
    async with optional_hub("inotify") as hub:
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        write(tmp_path / "late", "x")
        await watcher.finish()
        assert heard.told == [("late", "created", 1)]
        assert hub is not None
        assert hub.statistics().watches == 0


async def test_ignored_directories_take_no_watches(tmp_path: Path) -> None:
    write(tmp_path / ".gitignore", "build/\n")
    for name in (".git/objects/00", "node_modules/x/y", ".venv/lib", "a/__pycache__", "build/deep", "src"):
        (tmp_path / name).mkdir(parents=True)
    heard = Heard()
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)
        assert hub.statistics().watches == 3  # the workspace, a and src
        write(tmp_path / "node_modules/x/y/z", "x")
        write(tmp_path / "build/deep/x", "x")
        write(tmp_path / "src/x", "x")
        await heard.until_told(("src/x", "created", 1))
        await watcher.finish()
        assert hub.statistics().watches == 0
    assert len(heard.told) == 1


async def test_directories_that_are_moved_or_made_again_are_watched_where_they_are(tmp_path: Path) -> None:
    write(tmp_path / "a/x", "1")
    write(tmp_path / "b/x", "1")
    heard = Heard()
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)
        (tmp_path / "a").rename(tmp_path / "c")
        shutil.rmtree(tmp_path / "b")
        write(tmp_path / "b/y", "1")
        await heard.until_told(
            ("a/x", "deleted", None), ("c/x", "created", 1), ("b/x", "deleted", None), ("b/y", "created", 1)
        )
        assert hub.statistics().watches == 3
        write(tmp_path / "c/x", "22")
        write(tmp_path / "b/y", "22")
        await heard.until_told(("c/x", "modified", 2), ("b/y", "modified", 2))
        await watcher.finish()
    assert len(heard.told) == 6


async def test_a_workspace_that_vanishes_is_told_and_may_come_back(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    write(root / "a", "x")
    write(root / "sub/b", "x")
    heard = Heard()
    async with optional_hub(kind) as hub, trio.open_nursery() as nursery:
        watcher = watcher_of(root, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)
        shutil.rmtree(root)
        await heard.until_told(("a", "deleted", None), ("sub/b", "deleted", None))
        write(root / "sub/b", "back")
        await heard.until_told(("sub/b", "created", 4))
        await watcher.finish()


async def test_names_and_links_and_fifos_of_a_hostile_workspace(tmp_path: Path, kind: str) -> None:
    heard = Heard()
    (tmp_path / "root").mkdir()
    write(tmp_path / "outside/secret", "x")
    async with optional_hub(kind) as hub:
        watcher = watcher_of(tmp_path / "root", heard, hub)
        await watcher.start()
        root = os.fsencode(tmp_path / "root")
        for name in (b"caf\xe9", b"new\nline"):
            os.close(os.open(root + b"/" + name, os.O_CREAT))
        os.mkfifo(root + b"/fifo")
        os.symlink(b"../outside", root + b"/link")
        await watcher.finish()
    assert [(path, action) for path, action, _ in heard.told] == [
        ("caf\ufffd", "created"),
        ("link", "created"),
        ("new\nline", "created"),
    ]
    assert all(wire.event_body(event) for event in heard.events)


async def test_a_workspace_that_is_too_large_is_said_once(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}", "x")
    heard = Heard()
    watcher = WorkspaceWatcher(tmp_path, "w", "r", heard, max_files=5)
    await watcher.start()
    (error,) = heard.events
    assert isinstance(error, AgentError)
    assert (error.code, error.source) == ("WORKSPACE_TOO_LARGE", "daemon")
    shutil.rmtree(tmp_path)
    await watcher.finish()
    assert [action for _, action, _ in heard.told] == ["deleted"] * 5
    assert len(heard.events) == 6


class FullHub(InotifyHub):
    """A hub whose user has no watch left after the second one; the kernel's limit itself is the whole machine's."""

    def watch(self, *args: object, **kwargs: object) -> Watch:
        if self.statistics().watches >= 2:
            raise OSError(28, "no inotify watch is left")
        return super().watch(*args, **kwargs)  # type: ignore[arg-type]


async def test_without_watches_it_goes_on_by_polling_and_gives_back_what_it_had(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / name / "file", "x")
    heard = Heard()
    async with trio.open_nursery() as nursery:
        hub = FullHub()
        await nursery.start(hub.run)
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        assert not watcher.watching
        assert hub.statistics().watches == 0
        await nursery.start(watcher.run)
        write(tmp_path / "d/file", "changed")
        await heard.until_told(("d/file", "modified", 7))
        await watcher.finish()
        nursery.cancel_scope.cancel()


async def test_when_the_hub_ends_it_goes_on_by_polling(tmp_path: Path) -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        async with optional_hub("inotify") as hub:
            watcher = watcher_of(tmp_path, heard, hub)
            await watcher.start()
            await nursery.start(watcher.run)
        write(tmp_path / "file", "x")
        await heard.until_told(("file", "created", 1))
        await watcher.finish()


async def test_an_overflow_costs_nothing_but_a_scan(tmp_path: Path) -> None:
    limit = int(await trio.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (tmp_path / "busy").mkdir()
    (tmp_path / "quiet").mkdir()
    heard = Heard()
    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        assert hub is not None
        watcher = watcher_of(tmp_path, heard, hub)
        await watcher.start()
        await nursery.start(watcher.run)
        for _ in range(limit // 2 + 1):
            (tmp_path / "busy/x").touch()
            (tmp_path / "busy/x").unlink()
        write(tmp_path / "quiet/file", "x")
        await heard.until_told(("quiet/file", "created", 1))
        assert hub.statistics().overflows == 1
        await watcher.finish()


async def test_cancelling_gives_the_watches_back(tmp_path: Path) -> None:
    async with optional_hub("inotify") as hub:
        assert hub is not None
        watcher = watcher_of(tmp_path, Heard(), hub)
        await watcher.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            nursery.cancel_scope.cancel()
        assert hub.statistics().watches == 0
        other = watcher_of(tmp_path, Heard(), hub)
        await other.start()
        other.close()
        assert hub.statistics().watches == 0


async def test_a_slow_taker_of_events_loses_none(tmp_path: Path) -> None:
    heard, gate = Heard(), trio.Event()

    async def slowly(events: list[Event]) -> None:
        await gate.wait()
        await heard(events)

    async with optional_hub("inotify") as hub, trio.open_nursery() as nursery:
        watcher = WorkspaceWatcher(tmp_path, "w", "r", slowly, hub=hub)
        await watcher.start()
        await nursery.start(watcher.run)
        for number in range(300):
            write(tmp_path / f"early{number}", "x")
        nursery.start_soon(watcher.finish)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert len(heard.told) == 300
