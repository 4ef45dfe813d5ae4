"""Reads a spool file while the agent is still writing it (DESIGN: "Why a spool file").

Growth is told by inotify, or looked for every 20 ms where there is none, and while it never stops: a stream that brought
something at several wake-ups within 20 ms each is polled until a look finds nothing (interrupt moderation, as network drivers do
it). What comes alone is read at once; an agent that prints a thousand lines a second costs fifty reads, commits and writes instead
of a thousand of each, and its lines up to 20 ms, less than the throttle holds most of them anyway. A stream has no end-of-file of
its own: `SpoolTail.finish` says that the last writer is gone, and then the end is where the file ends at that moment.

No byte is missed because the order is always the same: arm the wake-up, then read, then wait. What is written after the read
sets the wake-up; what is written before it was read.
"""

from __future__ import annotations

import math
import os
from typing import Final, Self

import trio

from agentstream.runs.inotify import IN_MODIFY, InotifyEvent, InotifyHub, Watch

#: Where there is no inotify. A tail then costs 0.4% of a core while nothing comes (measured), and nobody sees a delay of 20 ms.
POLL_SECONDS: Final = 0.02
#: Reads within `POLL_SECONDS` of the one before after which a stream is polled: a few lines in a row are each read at once.
_BUSY_READS: Final = 4
#: The usual read: small enough for malloc's fast lists. A larger one would map and unmap memory for every line.
_CHUNK_BYTES: Final = 64 * 1024
#: The read when there is more. Splitting this into ordinary lines takes 1 ms, for which nobody else gets the event loop.
_LARGE_CHUNK_BYTES: Final = 256 * 1024


class SpoolTail:
    """The reading side of one append-only regular file.

    Reads with `os.pread` on the event loop, not in a thread: the bytes were written a moment ago, so they are in the page cache,
    and copying them takes less than a thread hop (0.1 to 0.3 ms). Only after a stall of gigabytes may the disk be asked.

    Raises OSError when ``path`` can't be opened. One task reads.
    """

    def __init__(
        self, path: str | os.PathLike[str], hub: InotifyHub | None = None, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._hub = hub
        self._poll_seconds = poll_seconds
        self._grown = trio.Event()
        self._offset = 0
        self._end: int | None = None
        self._chunk_bytes = _CHUNK_BYTES
        self._read_at = -math.inf
        self._quick_reads = 0
        self._path = path
        self._watch: Watch | None = None
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._watch_again()

    @property
    def offset(self) -> int:
        """Position in the file up to which it was read, in bytes."""
        return self._offset

    def finish(self) -> None:
        """The last writer is gone: `read_chunk` reads up to where the file ends now, and then tells the end. Harmless twice.

        A writer that is not gone after all can't hold the end back: what it adds is in the file, but not read.
        """
        if self._end is None:
            self._was_truncated()
            self._end = os.fstat(self._fd).st_size
            self._grown.set()

    async def read_chunk(self) -> bytes:
        """The next bytes, at most 256 KiB, as soon as there are some; empty at the end. Cancelled, it has read nothing."""
        # Yields before reading, so that of two busy readers neither starves the other, and a cancellation loses no bytes.
        await trio.lowlevel.checkpoint()
        if self._quick_reads >= _BUSY_READS and self._end is None:
            # A full chunk says that there is more.
            if self._chunk_bytes == _CHUNK_BYTES:
                with trio.move_on_at(self._read_at + self._poll_seconds):
                    await self._grown.wait()
            if data := self._read():
                self._read_at = trio.current_time()
                return data
            self._quick_reads = 0
            self._watch_again()
        while True:
            self._grown = trio.Event()
            if data := self._read():
                self._note_read(trio.current_time())
                return data
            if self._end is not None:
                return b""
            if self._watch is not None and self._watch.active:
                await self._grown.wait()
            else:
                with trio.move_on_after(self._poll_seconds):
                    await self._grown.wait()

    def close(self) -> None:
        """Give back the file and the watch. Not while somebody reads. Harmless twice."""
        self._unwatch()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.read_chunk():
            return data
        raise StopAsyncIteration

    def _note_read(self, now: float) -> None:
        self._quick_reads = self._quick_reads + 1 if now - self._read_at < self._poll_seconds else 0
        self._read_at = now
        if self._quick_reads >= _BUSY_READS:
            self._unwatch()
            self._grown = trio.Event()

    def _watch_again(self) -> None:
        if self._hub is not None:
            try:
                self._watch = self._hub.watch(self._path, IN_MODIFY, self._on_change)
            except OSError:
                self._watch = None  # no watch is left: poll

    def _unwatch(self) -> None:
        # The two refer to each other.
        watch, self._watch = self._watch, None
        if watch is not None and self._hub is not None:
            self._hub.unwatch(watch)

    def _read(self) -> bytes:
        wanted = self._chunk_bytes
        if self._end is not None:
            wanted = min(wanted, self._end - self._offset)
            if wanted <= 0:
                return b""
        data = os.pread(self._fd, wanted, self._offset)
        if not data and self._was_truncated():
            data = os.pread(self._fd, wanted, self._offset)
        self._offset += len(data)
        self._chunk_bytes = _LARGE_CHUNK_BYTES if len(data) >= _CHUNK_BYTES else _CHUNK_BYTES
        return data

    def _was_truncated(self) -> bool:
        # `echo text > /dev/stderr` in a shell script opens our file once more, and empties it. What it held was read, or is lost;
        # what follows is read from the beginning.
        if os.fstat(self._fd).st_size >= self._offset:
            return False
        self._offset = 0
        return True

    def _on_change(self, event: InotifyEvent) -> None:
        self._grown.set()
