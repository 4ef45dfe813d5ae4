"""One inotify instance for the whole Trio program: who is told when a file or directory changes.

A user has 128 inotify instances by default (fs.inotify.max_user_instances) and a daemon has hundreds of runs, each with
spool files and a workspace to look at. So there is one `InotifyHub`; everybody's watches are in its instance, and one task reads
its events and calls whoever watches. An executor that is used alone makes a hub of its own.

Rejected: watchfiles and watchdog, which take an instance and a thread for each watch.

The kernel names a watch by inode: two watches of one file share a descriptor. So a descriptor has a list of `Watch` here, the
kernel gets the union of their masks, and each is called for its own mask only.

Format and flags: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Final

import attrs
import trio

IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
#: Told to every watch, whatever its mask: the queue ran over and events were lost, of any watch.
IN_Q_OVERFLOW: Final = 0x4000
#: Told to a watch as its last event, whatever its mask: what it watched is gone, or the hub has ended.
IN_IGNORED: Final = 0x8000
#: Flags for `InotifyHub.watch`: only a directory; not through a symbolic link.
IN_ONLYDIR: Final = 0x1000000
IN_DONT_FOLLOW: Final = 0x2000000

_IN_MASK_ADD: Final = 0x20000000
_HEADER: Final = struct.Struct("iIII")
#: About 2,000 events with names. The kernel's own queue holds 16,384 (fs.inotify.max_queued_events).
_READ_BYTES: Final = 64 * 1024
_ADVICE: Final = {
    errno.EMFILE: "no inotify instance is left for this user; raise fs.inotify.max_user_instances",
    errno.ENOSPC: "no inotify watch is left for this user; raise fs.inotify.max_user_watches",
    errno.ENOSYS: "this system has no inotify",
}


@attrs.frozen
class InotifyEvent:
    """What happened: ``mask`` is a set of ``IN_`` flags, ``name`` the entry of a watched directory, otherwise empty."""

    mask: int
    name: bytes


@attrs.define(eq=False)
class Watch:
    """One interest in one path. Made by `InotifyHub.watch`; ends with `InotifyHub.unwatch` or with what it watches."""

    path: str
    mask: int
    callback: Callable[[InotifyEvent], None]
    descriptor: int
    #: False once nothing will be told any more.
    active: bool = True


@attrs.frozen(kw_only=True)
class InotifyStatistics:
    """A frozen look at the hub."""

    watches: int
    #: Kernel watches: what counts against fs.inotify.max_user_watches.
    descriptors: int
    events: int
    overflows: int


class InotifyHub:
    """The one inotify instance. Made, used and closed in the Trio thread.

    Raises OSError where there is no inotify, or no instance is left; callers then do without, by polling.
    """

    def __init__(self) -> None:
        libc = _libc()
        try:
            self._add_watch = libc.inotify_add_watch
            self._rm_watch = libc.inotify_rm_watch
            init = libc.inotify_init1
        except AttributeError:
            raise OSError(errno.ENOSYS, _ADVICE[errno.ENOSYS]) from None
        self._add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._fd: int = init(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _os_error(ctypes.get_errno())
        self._watches: dict[int, list[Watch]] = {}
        self._events = 0
        self._overflows = 0

    def watch(self, path: str | os.PathLike[str], mask: int, callback: Callable[[InotifyEvent], None]) -> Watch:
        """Call ``callback`` for what happens to ``path`` from now on. It is called between Trio's steps, and must not raise.

        Raises OSError: ENOENT and its like for the path, ENOSPC when no watch is left, EBADF when the hub is closed.
        """
        if self._fd < 0:
            raise OSError(errno.EBADF, "the inotify hub is closed")
        place = os.fspath(path)
        # MASK_ADD: without it, watching an inode for the second time would replace the first one's mask.
        descriptor = self._add_watch(self._fd, os.fsencode(place), mask | _IN_MASK_ADD)
        if descriptor < 0:
            raise _os_error(ctypes.get_errno(), place)
        watch = Watch(place, mask, callback, descriptor)
        self._watches.setdefault(descriptor, []).append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Stop calling. Harmless twice, and after the end of what was watched."""
        if not watch.active:
            return
        watch.active = False
        others = self._watches[watch.descriptor]
        others.remove(watch)
        if not others:
            del self._watches[watch.descriptor]
            # Fails if the file has gone in the meantime, and its last event is still to be read: that is all right.
            self._rm_watch(self._fd, watch.descriptor)

    def statistics(self) -> InotifyStatistics:
        """A frozen look."""
        return InotifyStatistics(
            watches=sum(map(len, self._watches.values())),
            descriptors=len(self._watches),
            events=self._events,
            overflows=self._overflows,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read events and call the watches, until cancelled; then `close`."""
        task_status.started()
        try:
            while True:
                await trio.lowlevel.wait_readable(self._fd)
                try:
                    data = os.read(self._fd, _READ_BYTES)
                except BlockingIOError:
                    continue
                self._dispatch(data)
        finally:
            self.close()

    def close(self) -> None:
        """Give the instance back. Watches that are left are told `IN_IGNORED`, so that their owners go on by polling."""
        if self._fd < 0:
            return
        trio.lowlevel.notify_closing(self._fd)
        os.close(self._fd)
        self._fd = -1
        for descriptor in list(self._watches):
            self._ended(descriptor)

    def _dispatch(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            descriptor, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            self._events += 1
            if mask & IN_Q_OVERFLOW:
                self._overflows += 1
                event = InotifyEvent(mask, b"")
                for watch in [watch for watches in self._watches.values() for watch in watches]:
                    watch.callback(event)
            elif mask & IN_IGNORED:
                self._ended(descriptor)
            else:
                event = InotifyEvent(mask, name)
                # A copy: a callback may watch and unwatch.
                for watch in tuple(self._watches.get(descriptor, ())):
                    if watch.active and watch.mask & mask:
                        watch.callback(event)

    def _ended(self, descriptor: int) -> None:
        watches = self._watches.pop(descriptor, [])
        for watch in watches:
            watch.active = False
        for watch in watches:
            watch.callback(InotifyEvent(IN_IGNORED, b""))


@cache
def _libc() -> ctypes.CDLL:
    """Once: it and its functions refer to each other."""
    return ctypes.CDLL(None, use_errno=True)


def _os_error(number: int, path: str | None = None) -> OSError:
    # OSError picks the subclass: FileNotFoundError for ENOENT, and so on.
    return OSError(number, _ADVICE.get(number, os.strerror(number)), path)
