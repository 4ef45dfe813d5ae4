"""Where an agent's stdout and stderr go, and how we read them while it runs.

``spool``: append-only files, tailed. Most agent CLIs don't drain a pipe when they exit, so a reader that pauses at the wrong
moment loses the result line with exit status 0 (AGENTS.md, fact 2); a file takes everything, whatever we do meanwhile. ``pipe``:
for callers without a disk, with the largest pipe that the kernel gives without privileges, and a reader that waits for
nothing but the pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal, Protocol

import attrs
import trio

from agentstream.runs.inotify import InotifyHub
from agentstream.runs.tail import SpoolTail

#: The default of fs.pipe-max-size: what F_SETPIPE_SZ gives to everybody.
_PIPE_BYTES: Final = 1024 * 1024
#: What is kept of a pipe before the reader waits after all: about a minute of a busy agent.
_PIPE_BACKLOG: Final = 64 * 1024 * 1024


class Tail(Protocol):
    """The reading side of one stream."""

    async def read_chunk(self) -> bytes:
        """The next bytes, as soon as there are some; empty at the end."""

    def finish(self) -> None:
        """The last writer is gone: `read_chunk` reads what is there, and then tells the end."""


class PipeTail:
    """A pipe, drained by a task of its own into a bounded backlog."""

    def __init__(self, fd: int) -> None:
        self._stream = trio.lowlevel.FdStream(fd)
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = trio.Event()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def drain(self) -> None:
        """Read until the end of the pipe; the task of whoever opened it."""
        async with self._stream:
            while data := await self._stream.receive_some(_PIPE_BYTES):
                self._chunks.append(data)
                self._size += len(data)
                self._notify()
                while self._size > _PIPE_BACKLOG:
                    await self._changed.wait()
        self._ended = True
        self._notify()

    async def read_chunk(self) -> bytes:
        """See `Tail`."""
        while not self._chunks and not self._ended:
            await self._changed.wait()
        if not self._chunks:
            return b""
        data = self._chunks.popleft()
        self._size -= len(data)
        self._notify()
        return data

    def finish(self) -> None:
        """Nothing to do: with its last writer gone, the pipe ends by itself."""


@attrs.frozen
class Capture:
    """File descriptors for the agent, and the tails of what it writes to them."""

    stdout_fd: int
    stderr_fd: int
    stdout: Tail
    stderr: Tail

    def close_writers(self) -> None:
        """Our copies of the descriptors, once the agent has its own."""
        for fd in (self.stdout_fd, self.stderr_fd):
            os.close(fd)


@contextlib.asynccontextmanager
async def open_capture(
    kind: Literal["spool", "pipe"], directory: Path | None, hub: InotifyHub | None, nursery: trio.Nursery
) -> AsyncIterator[Capture]:
    """Open both streams. ``nursery`` is the run's: the pipes' readers live in it.

    Raises OSError when the directory can't be written.
    """
    if kind == "pipe":
        ends = [os.pipe() for _ in range(2)]
        for _, writer in ends:
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        tails = [PipeTail(reader) for reader, _ in ends]
        for tail in tails:
            nursery.start_soon(tail.drain)
        yield Capture(ends[0][1], ends[1][1], *tails)
        return
    temporary = directory is None
    place = Path(tempfile.mkdtemp(prefix="agentstream-")) if directory is None else directory
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = [place / "stdout", place / "stderr"]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fds: list[int] = []
        try:
            for path in paths:
                fds.append(os.open(path, flags, 0o600))
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        spools = [SpoolTail(path, hub) for path in paths]
        try:
            yield Capture(fds[0], fds[1], spools[0], spools[1])
        finally:
            for spool in spools:
                spool.close()
    finally:
        if temporary:
            shutil.rmtree(place, ignore_errors=True)
