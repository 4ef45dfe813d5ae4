"""Tells which files a run creates, modifies and deletes in its workspace.

A `Snapshot` taken before the agent starts is the truth. Inotify only hints at which directories are worth another look: 100 ms
after the first hint those are scanned again, and the differences are the events. At the run's end everything is scanned once
more, so what is pending then, or was never hinted at, is told before the end. Lost, doubled or reordered inotify events therefore
cost time at most, never truth.

A new directory gets its watch *before* it is listed: what is created in it earlier is found by the listing, what is created later
is hinted at. So directories are taken level by level: watch all of a level, list them, and go on with what was found in them.

Where inotify is missing, or has no watch left, everything is scanned every second instead.

Rejected: watchfiles. It takes a thread and an inotify instance for each watcher, of which a user has 128 by default while a
daemon has hundreds of runs; and it watches what is ignored too, so that one ``npm install`` uses up the watches. It also reports
events where we need states.

Scans run in a worker thread: 100,000 files take a second, for which the event loop must not stop.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import trio

from agentstream.model.events import AgentError, Event, FileChanged
from agentstream.runs.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    InotifyEvent,
    InotifyHub,
    Watch,
)
from agentstream.runs.snapshot import MAX_DIRECTORIES, MAX_FILES, Change, Snapshot

#: Seconds from the first hint to the scan, in which a burst of changes comes together.
WINDOW: Final = 0.1
#: Seconds between two scans of everything, where there is no inotify.
POLL_SECONDS: Final = 1.0
#: Scans may take a fifth of the time, however large the directory that somebody keeps writing to.
_PAUSE_PER_SCAN: Final = 4.0
#: Watches that are set, and events that are emitted, without letting others run: about 1 ms.
_AT_ONCE: Final = 200
_MASK: Final = (
    IN_CREATE
    | IN_DELETE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_MODIFY
    | IN_CLOSE_WRITE
    | IN_ATTRIB
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
    | IN_DONT_FOLLOW
)
#: The directory itself is the trouble, not inotify: its scan will tell.
_NOT_WATCHABLE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.EPERM}
)


class WorkspaceWatcher:
    """Watches the directory ``root`` for one run, from `start` to `finish`.

    ``emit`` gets lists of events, and may wait. ``hub`` None: by polling. ``exclude``: paths below the workspace that are not
    looked at, such as the daemon's own data, or it would report its own writing for ever. ``limiter`` bounds the worker threads of
    all watchers that share it.

    What is watched: regular files and symbolic links, but nothing in ``.git``, ``node_modules``, ``.venv``, ``__pycache__``, nor
    what ``.gitignore`` files name. Beyond ``max_files`` and ``max_directories`` it goes on with what it has, and says so once
    (`AgentError`, code ``WORKSPACE_TOO_LARGE``). A workspace that vanishes is one whose files are all deleted.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        work_order_id: str,
        run_id: str,
        emit: Callable[[list[Event]], Awaitable[None]],
        *,
        hub: InotifyHub | None = None,
        exclude: Iterable[str | os.PathLike[str]] = (),
        limiter: trio.CapacityLimiter | None = None,
        max_files: int = MAX_FILES,
        max_directories: int = MAX_DIRECTORIES,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._root = os.fspath(root)
        self._ids: dict[str, Any] = {"work_order_id": work_order_id, "run_id": run_id}
        self._emit = emit
        self._hub = hub
        self._exclude = [os.fspath(path) for path in exclude]
        self._limiter = limiter or trio.CapacityLimiter(1)
        self._max_files = max_files
        self._max_directories = max_directories
        self._poll_seconds = poll_seconds

        self._snapshot: Snapshot | None = None
        self._watches: dict[str, Watch] = {}
        self._hinted: set[str] = set()
        self._all_hinted = False
        self._woken = trio.Event()
        self._finishing = trio.Event()
        # `finish` may come while `run` is scanning: then it waits for its turn.
        self._scanning = trio.Lock()
        self._told_too_large = False

    async def start(self) -> None:
        """Take the snapshot and set the watches. What changes after it returned is told."""
        self._snapshot = await trio.to_thread.run_sync(self._make_snapshot, limiter=self._limiter)
        await self._look([""])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell changes as they come, until `finish`."""
        task_status.started()
        not_before = -math.inf
        try:
            while not self._finishing.is_set():
                with trio.move_on_after(math.inf if self.watching else self._poll_seconds):
                    await self._woken.wait()
                with trio.move_on_at(max(trio.current_time() + WINDOW, not_before)):
                    await self._finishing.wait()
                    return
                started = trio.current_time()
                await self._look(self._take_hints())
                ended = trio.current_time()
                not_before = ended + _PAUSE_PER_SCAN * (ended - started)
        finally:
            self.close()

    async def finish(self) -> None:
        """Tell what is still to be told, and end `run`. Call it when nobody writes any more. Harmless twice."""
        self._finishing.set()
        self._woken.set()
        self.close()
        if self._snapshot is not None:
            await self._look(self._snapshot.directories())

    def close(self) -> None:
        """Give the watches back. For those who `start` but neither `run` nor `finish`; harmless otherwise."""
        if self._hub is not None:
            for watch in self._watches.values():
                self._hub.unwatch(watch)
        self._watches.clear()
        self._hub = None

    @property
    def watching(self) -> bool:
        """Changes are hinted at by inotify; False: they are looked for by polling."""
        root = self._watches.get("")
        return root is not None and root.active

    def _make_snapshot(self) -> Snapshot:
        return Snapshot(
            os.path.realpath(self._root),
            exclude=[os.path.realpath(path) for path in self._exclude],
            max_files=self._max_files,
            max_directories=self._max_directories,
        )

    # --- hints -----------------------------------------------------------------------------------------------------

    def _hint(self, directory: str, event: InotifyEvent) -> None:
        if event.mask & IN_Q_OVERFLOW:
            self._all_hinted = True
        else:
            self._hinted.add(directory)
        self._woken.set()

    def _take_hints(self) -> Sequence[str]:
        assert self._snapshot is not None
        self._woken = trio.Event()
        hinted, self._hinted = self._hinted, set()
        if self._all_hinted or not self.watching:
            self._all_hinted = False
            return self._snapshot.directories()
        return list(hinted)

    # --- scans -----------------------------------------------------------------------------------------------------

    async def _look(self, directories: Sequence[str]) -> None:
        assert self._snapshot is not None
        snapshot = self._snapshot
        async with self._scanning:
            while directories:
                await self._watch(snapshot, directories)
                scan = await trio.to_thread.run_sync(
                    snapshot.scan, directories, trio.from_thread.check_cancelled, limiter=self._limiter
                )
                self._unwatch(scan.gone)
                directories = scan.found
            await self._tell(snapshot)

    async def _watch(self, snapshot: Snapshot, directories: Sequence[str]) -> None:
        for number, directory in enumerate(directories):
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if self._hub is None:
                return
            watch = self._watches.get(directory)
            if watch is not None and watch.active:
                continue
            try:
                self._watches[directory] = self._hub.watch(
                    snapshot.absolute(directory), _MASK, partial(self._hint, directory)
                )
            except OSError as error:
                if error.errno not in _NOT_WATCHABLE:
                    self.close()  # no watch is left, or the hub has ended: poll

    def _unwatch(self, directories: Iterable[str]) -> None:
        for directory in directories:
            watch = self._watches.pop(directory, None)
            if watch is not None and self._hub is not None:
                self._hub.unwatch(watch)

    async def _tell(self, snapshot: Snapshot) -> None:
        changes = snapshot.take_changes()
        now = datetime.now(UTC)
        events: list[Event] = [self._event(change, now) for change in changes]
        if snapshot.too_large and not self._told_too_large:
            self._told_too_large = True
            events.append(self._too_large(now))
        for at in range(0, len(events), _AT_ONCE):
            await self._emit(events[at : at + _AT_ONCE])

    def _event(self, change: Change, now: datetime) -> FileChanged:
        # A name need not be UTF-8, but JSON must.
        path = os.fsencode(change.path).decode("utf-8", "replace")
        return FileChanged(**self._ids, timestamp=now, path=path, action=change.action, size_bytes=change.size)

    def _too_large(self, now: datetime) -> AgentError:
        return AgentError(
            **self._ids,
            timestamp=now,
            code="WORKSPACE_TOO_LARGE",
            source="daemon",
            message=(
                f"the workspace has more than {self._max_files} files or {self._max_directories} directories; changes of those"
                " beyond are not reported. Name large directories in .gitignore"
            ),
        )
