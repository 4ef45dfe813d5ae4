"""The store as Trio tasks see it: which thread does what, what happens when the disk fails, and how it gets well again.

Changes go through one thread at a time, questions through a few others. An error that means trouble with the disk
(`trouble.Kind`) is told once, in ``trouble`` and in one log line; from then on `change` is for nobody but the probe,
which looks ever less often whether the disk takes something again, and tells that once, too. A damaged file, and one
that somebody moved away, is replaced at once, with nobody reading meanwhile.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
import trio

from agentstream.errors import JournalError
from agentstream.journal.reader import Reader
from agentstream.journal.store import NotOpen, Store
from agentstream.journal.thread import WriterThread
from agentstream.journal.trouble import Kind, explain, kind_of, probe_delays
from agentstream.journal.writer import Writer

T = TypeVar("T")

#: Reading connections and threads. More would only wait for the interpreter lock.
READERS: Final = 4
#: Seconds between looks for something to checkpoint; also how soon a deleted file is noticed.
_CHECKPOINT_SECONDS: Final = 2.0
#: A file is replaced at most this often, in seconds: where the disk damages each new one, the old ones must not pile up.
_REPLACE_SECONDS: Final = 60.0

_log = structlog.get_logger("agentstream.journal")


class Disk:
    """Asynchronous access to a `Store`."""

    def __init__(
        self,
        store: Store,
        *,
        floor: Callable[[], tuple[int, int]],
        recovered: Callable[[], None],
        probe_seconds: tuple[float, float],
    ) -> None:
        self.store = store
        #: What is wrong with the disk, None when all is well.
        self.trouble: str | None = None
        self._floor = floor
        self._recovered = recovered
        self._probe_seconds = probe_seconds
        self._troubled = trio.Event()
        self._changed = False
        self._writing = WriterThread("journal")
        self._reading = trio.CapacityLimiter(READERS)
        #: One for each reader; replacing the files takes all of them.
        self._slots = trio.Semaphore(READERS)
        self._replacing = trio.Lock()
        self._replaced_at = -math.inf
        #: Damage that was met too soon after the last to replace the file again.
        self._damage: str | None = None
        self._announced = 0

    async def change(self, generation: int, work: Callable[[Writer], T]) -> T:
        """Do ``work`` in the writer's thread; it is finished even when this is cancelled.

        Raises `NotOpen` unless the database is still of that generation, and SQLite's errors as they are: hand them to `failed`.
        """
        result = await self._writing.do(lambda: self.store.write(generation, work))
        self._changed = True
        return result

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Answer ``question`` in a reader's thread. Raises `JournalError` when the disk does not let it be read.

        When the file turns out to be damaged, the answer is the new one's.
        """
        for _ in range(2):
            generation = self.store.generation
            try:
                async with self._slots:
                    return await trio.to_thread.run_sync(self.store.read, question, limiter=self._reading)
            except NotOpen:
                break
            except sqlite3.Error as error:
                match kind_of(error):
                    case Kind.BUG:
                        raise
                    case Kind.DISK:
                        raise JournalError(f"the journal can't be read: {explain(error)}") from error
                    case Kind.CORRUPT:
                        await self.failed(error, generation)
        raise JournalError(f"the journal can't be read: {self.trouble or 'it is closed'}")

    async def failed(self, error: sqlite3.Error, generation: int) -> None:
        """What a failed `change` means: trouble begins, or the file is replaced. Raises what is a bug."""
        match kind_of(error):
            case Kind.BUG:
                raise error
            case Kind.DISK:
                self._begin_trouble(explain(error))
            case Kind.CORRUPT:
                await self._replace(generation, damage=explain(error))

    async def close(self, last_seq: int) -> None:
        """The orderly end. Numbers above ``last_seq`` were never given to anybody."""
        try:
            await self._writing.do(lambda: self.store.close(last_seq))
        except sqlite3.Error as error:
            if kind_of(error) is Kind.BUG:
                raise
            _log.warning("the journal was not closed in order", reason=explain(error))
        finally:
            self._writing.end()

    def announce(self) -> None:
        """Say once where each damaged file went."""
        for aside in self.store.set_aside[self._announced :]:
            _log.error("the journal was damaged or moved; it was set aside and a new one begun", set_aside=aside)
        self._announced = len(self.store.set_aside)

    async def probe_forever(self) -> None:
        """Wait for trouble, then for its end."""
        while True:
            await self._troubled.wait()
            for delay in probe_delays(*self._probe_seconds):
                await trio.sleep(delay)
                if await self._probe():
                    break

    async def checkpoint_forever(self) -> None:
        """Keep the WAL short in quiet moments, so that commits need not; and notice when the file is gone."""
        while True:
            await trio.sleep(_CHECKPOINT_SECONDS)
            if not self._changed or self.trouble is not None:
                continue
            generation = self.store.generation
            if await trio.to_thread.run_sync(self.store.gone):
                await self._replace(generation)
            else:
                self._changed = False
                try:
                    await self.ask(Reader.checkpoint)
                except JournalError as error:
                    # A disk that is full for the database may still have room in the WAL. The next commit will tell.
                    _log.warning("the journal's checkpoint failed", reason=error.message)

    # --- within ------------------------------------------------------------------------------------------------------

    def _begin_trouble(self, reason: str) -> None:
        if self.trouble is None:
            _log.error("events are delivered but not journalled until the disk is well again", reason=reason)
            self._troubled.set()
        self.trouble = reason

    async def _probe(self) -> bool:
        if self._damage is not None:
            await self._replace(self.store.generation, damage=self._damage)
            if self._damage is not None:
                return False
        generation = self.store.generation
        try:
            await self._writing.do(self._probe_in_thread)
        except (OSError, JournalError) as error:
            self._begin_trouble(str(error))
            return False
        except sqlite3.Error as error:
            await self.failed(error, generation)
            if self.trouble is not None and generation == self.store.generation:
                return False
        self.trouble = None
        self._troubled = trio.Event()
        _log.info("the journal works again")
        self._recovered()
        return True

    def _probe_in_thread(self) -> None:
        self.store.probe(*self._floor())

    async def _replace(self, generation: int, *, damage: str | None = None) -> None:
        """Begin a new file in place of one that is damaged, or gone."""
        with trio.CancelScope(shield=True):  # Bounded by the questions under way and a few file operations.
            async with self._replacing:
                if generation != self.store.generation:
                    return
                if damage is not None and trio.current_time() - self._replaced_at < _REPLACE_SECONDS:
                    self._damage = damage
                    self._begin_trouble(f"{damage}, soon after the last one; look at the disk")
                    return
                self._damage = None
                self._replaced_at = trio.current_time()
                for _ in range(READERS):
                    await self._slots.acquire()
                try:
                    await self._writing.do(self._begin_anew_in_thread)
                except (sqlite3.Error, OSError, JournalError) as error:
                    self._begin_trouble(f"{damage or 'the file is gone'}, and a new one can't be made: {error}")
                finally:
                    for _ in range(READERS):
                        self._slots.release()
                    self.announce()

    def _begin_anew_in_thread(self) -> None:
        # Asked for in the writer's thread, where nothing is being committed: what is published already lies below.
        self.store.begin_anew(*self._floor())
