"""The writer's thread: one, for as long as the journal is open, doing one thing at a time in the order in which it was asked.

Every event waits for it, so every subscriber sees what a hop costs. `trio.to_thread.run_sync` takes two more turns of the event
loop (it takes its limiter with a checkpoint, and its answer comes through Trio's own task for calls from threads), names its
thread anew each time and copies the context: 0.36 ms a hop in a daemon that is otherwise idle, where this takes 0.19, and 0.16
against 0.09 in a busy one. Here the task that asked waits for a pipe, and the thread writes a byte into it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import trio

T = TypeVar("T")


class WriterThread:
    """Does blocking work for Trio tasks. The thread begins with the first work, and ends with `end`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._turn = trio.Lock()
        self._thread: threading.Thread | None = None
        self._told = self._tell = -1
        self._result: Any = None
        self._error: BaseException | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises. Once it was begun it is finished, and waited for, even when this is cancelled.

        Raises `trio.Cancelled` then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            # Taking it with `acquire` would be a turn of the event loop also when it is free.
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            if self._thread is None:
                self._begin()
            self._works.put(work)
            try:
                await trio.lowlevel.wait_readable(self._told)
            except trio.Cancelled:
                # A shield for every wait would be an eighth of what the event loop does for an event.
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(self._told)
                raise
            finally:
                os.read(self._told, 1)
                error, self._error = self._error, None
                result, self._result = self._result, None
        finally:
            self._turn.release()
        if error is not None:
            try:
                raise error
            finally:
                del error  # Its traceback has this frame.
        return cast("T", result)

    def end(self) -> None:
        """Let the thread end. Harmless twice, and when there is none."""
        if self._thread is None or self._turn.locked():
            return  # The latter: a disk hangs. What is left goes with the process.
        self._works.put(None)
        self._thread.join()
        self._thread = None
        os.close(self._told)
        os.close(self._tell)

    def _begin(self) -> None:
        self._told, self._tell = os.pipe()
        # A daemon thread: an interpreter that ends in disorder must not wait for a disk that hangs.
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (work := self._works.get()) is not None:
            try:
                self._result = work()
            except BaseException as error:  # noqa: ASYNC103, BLE001 - for the task that asked
                self._error = error
            del work
            os.write(self._tell, b"\0")
