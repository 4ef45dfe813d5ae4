"""The journal on SQLite, put together: `open_journal`.

Appending is the committer's (`committer`): one task, one writer thread, group commit. Questions go to a few connections
and threads of their own and never make the writer wait. What happens to a failing disk or a damaged file is `disk`'s;
what the files look like inside is `schema`'s. Retention and checkpoints run beside, in small steps.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final, TypeVar

import attrs
import trio

from agentstream.errors import JournalError
from agentstream.journal.base import JournalStatistics, Page, Publish, Record
from agentstream.journal.committer import Batch, Committer, encode, milliseconds
from agentstream.journal.disk import Disk
from agentstream.journal.reader import Reader
from agentstream.journal.retention import DEFAULT_RETENTION, RemoveDirectories, Retention, run_round
from agentstream.journal.store import NotOpen, Store
from agentstream.journal.writer import Writer
from agentstream.model.events import Event, WorkOrderStatus
from agentstream.model.orders import Run, WorkOrder

T = TypeVar("T")

#: Seconds that the end may take: a commit of what is pending and a checkpoint.
_CLOSE_SECONDS: Final = 10.0


@asynccontextmanager
async def open_journal(
    path: str | os.PathLike[str],
    *,
    publish: Publish,
    retention: Retention = DEFAULT_RETENTION,
    remove_directories: RemoveDirectories | None = None,
    probe_seconds: tuple[float, float] = (1.0, 30.0),
    observe_commit: Callable[[float], None] | None = None,
) -> AsyncIterator[SqliteJournal]:
    """A journal in the file ``path``, made when missing; what is pending is committed at the end.

    ``publish`` gets the records in order; while it blocks, appends wait. ``remove_directories`` gets the `Run.directory` of
    runs that retention removes, before it does, and possibly twice; it must not raise for one that is gone.
    ``probe_seconds``: the first and the longest pause between looks at a failing disk. ``observe_commit`` gets the seconds that
    each transaction took, as those who wait for it see them. Raises `JournalError` when the file can't be opened
    (`Store.open`); a damaged one is no error but set aside (`SqliteJournal.set_aside`).
    """
    store = await trio.to_thread.run_sync(Store.open, path)
    journal = SqliteJournal(
        store,
        publish=publish,
        retention=retention,
        remove_directories=remove_directories,
        probe_seconds=probe_seconds,
        observe_commit=observe_commit,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run_forever)
        try:
            yield journal
        finally:
            await journal.aclose()


class SqliteJournal:
    """`Journal` on SQLite. Made by `open_journal`; `run_forever` must be running for anything else to work."""

    def __init__(
        self,
        store: Store,
        *,
        publish: Publish,
        retention: Retention,
        remove_directories: RemoveDirectories | None,
        probe_seconds: tuple[float, float],
        observe_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._store = store
        self._committer = Committer(store, publish, probe_seconds, observe_commit)
        self._disk = self._committer.disk
        self._retention = retention
        self._remove_directories = remove_directories
        self._life = trio.CancelScope(shield=True)
        self._closing = False
        self._ended = trio.Event()

    async def run_forever(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit, publish, watch the disk and trim, until `aclose`.

        Shielded from the scope it was started in, because what ends there may have last events to append. What bounds it is
        `aclose`, which `open_journal` calls when its body ends in whatever way.
        """
        self._disk.announce()
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._committer.run)
                    nursery.start_soon(self._disk.probe_forever)
                    nursery.start_soon(self._disk.checkpoint_forever)
                    nursery.start_soon(self._retain_forever)
                    task_status.started()
        finally:
            self._closing = True
            try:
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await self._disk.close(self._committer.next_seq - 1)
            finally:
                self._ended.set()

    async def aclose(self) -> None:
        """Commit what is pending, checkpoint, close. Bounded by 20 s; a second call does nothing."""
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            if not self._closing:
                self._closing = True
                with suppress(trio.ClosedResourceError):
                    await self._committer.carry_out(Batch([], {}, {}, 0.0, 0))  # The last in the queue.
        self._life.cancel()
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            await self._ended.wait()

    # --- what there is -------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """Names this journal. Changes while it is open when a damaged file is replaced; ``seq`` goes on rising then."""
        return self._store.epoch

    @property
    def head(self) -> int:
        """The highest ``seq`` that was published, or is being published this moment; 0 in an empty journal."""
        return self._committer.head

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Paths under which damaged databases were set aside since the start."""
        return self._store.set_aside

    def statistics(self) -> JournalStatistics:
        """A frozen look, without touching the disk."""
        writer = self._store.writer
        return JournalStatistics(
            head=self._committer.head,
            oldest_seq=writer.trimmed + 1,
            events=writer.events,
            size_bytes=writer.size_bytes,
            pending=self._committer.pending_events,
            trouble=self._disk.trouble,
            not_journalled=self._committer.not_journalled,
        )

    # --- appending -----------------------------------------------------------------------------------------------------

    async def append(
        self,
        events: Sequence[Event],
        *,
        work_orders: Sequence[WorkOrder] = (),
        runs: Sequence[Run] = (),
        born: float = 0.0,
    ) -> None:
        """Commit, then publish (`Journal.append`).

        While 32 MiB are pending it waits for room first; cancelled then, it has done nothing. Raises ``TypeError`` for what
        is no JSON, and `trio.ClosedResourceError` after `aclose`.
        """
        batch = encode(events, work_orders, runs, born)
        if self._closing:
            raise trio.ClosedResourceError("the journal is closed")
        if batch.items or batch.orders or batch.runs:
            await self._committer.carry_out(batch)
        else:
            await trio.lowlevel.checkpoint()

    # --- asking --------------------------------------------------------------------------------------------------------

    async def read(
        self,
        after: int,
        *,
        up_to: int | None = None,
        work_order_ids: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int | None = None,
    ) -> list[Record]:
        """Records with ``after < seq <= up_to`` (`Journal.read`), never any above `head`."""
        last = self.head if up_to is None else min(up_to, self.head)
        return await self._disk.ask(lambda reader: reader.page(after, last, work_order_ids, limit, max_bytes))

    async def oldest(self, work_order_id: str | None) -> int:
        """The lowest ``seq`` from which on nothing was trimmed (`Journal.oldest`)."""
        return await self._disk.ask(lambda reader: reader.oldest(work_order_id))

    async def seq_before_time(self, moment: datetime, work_order_id: str | None) -> int:
        """The ``since_seq`` that replays everything at or after ``moment``, and perhaps a little from before.

        Where some of that was trimmed, it is low enough for the caller to find the gap.
        """
        at, head = milliseconds(moment), self.head
        return await self._disk.ask(lambda reader: reader.before_time(at, work_order_id, head))

    async def seq_before_last(self, count: int, work_order_id: str | None) -> int:
        """The ``since_seq`` that replays the last ``count`` events, or all that are left."""
        head = self.head
        return await self._disk.ask(lambda reader: reader.before_last(count, work_order_id, head))

    async def work_order(self, work_order_id: str) -> WorkOrder | None:
        """One work order as it was last appended."""
        if (unsaved := self._committer.unsaved_orders.get(work_order_id)) is not None:
            return unsaved[0]
        return await self._disk.ask(lambda reader: reader.work_order(work_order_id))

    async def work_orders(
        self, *, status: WorkOrderStatus | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Work orders, newest first. Raises `InvalidMessage` for a cursor that is none of ours.

        While the disk is in trouble, those that it doesn't have come with the first page besides, and may be in a later one
        as they were before.
        """
        page = await self._disk.ask(lambda reader: reader.work_orders(status, limit, cursor))
        unsaved = {name: order for name, (order, _) in self._committer.unsaved_orders.items()}
        if cursor is not None or not unsaved:
            return page
        latest = [order for order in unsaved.values() if status in (None, order.status)]
        latest.sort(key=lambda order: order.created_at, reverse=True)
        return attrs.evolve(page, items=(*latest, *(order for order in page.items if order.id not in unsaved)))

    async def unfinished(self) -> tuple[list[WorkOrder], list[Run]]:
        """What a restart must look at."""
        return await self._disk.ask(Reader.unfinished)

    async def run(self, run_id: str) -> Run | None:
        """One run as it was last appended."""
        if (unsaved := self._committer.unsaved_runs.get(run_id)) is not None:
            return unsaved[0]
        return await self._disk.ask(lambda reader: reader.run(run_id))

    async def runs(self, work_order_id: str) -> list[Run]:
        """The runs of a work order, by number."""
        runs = {run.id: run for run in await self._disk.ask(lambda reader: reader.runs(work_order_id))}
        for run, _ in self._committer.unsaved_runs.values():
            if run.work_order_id == work_order_id:
                runs[run.id] = run
        return sorted(runs.values(), key=lambda run: run.run_number)

    # --- retention -----------------------------------------------------------------------------------------------------

    async def retain(self, *, now: float | None = None) -> int:
        """One round of retention at once; returns how many events were removed. ``now`` is Unix time in seconds.

        Rounds come by themselves every `Retention.interval_seconds`. One that meets trouble with the disk ends early, with 0.
        """
        database = _Database(self._disk, self._store.generation, self._committer.unsaved_orders)
        try:
            return await run_round(self._retention, database, self._remove_directories, now=now)
        except (NotOpen, JournalError):
            return 0  # Replaced meanwhile, or it can't be read just now. The next round will see.
        except sqlite3.Error as error:
            await self._disk.failed(error, database.generation)
            return 0

    async def _retain_forever(self) -> None:
        while True:
            await trio.sleep(self._retention.interval_seconds)
            if self._disk.trouble is None:
                await self.retain()


@attrs.frozen
class _Database:
    """The `retention.Database` of one round."""

    disk: Disk
    generation: int
    unsaved: Collection[str]

    async def ask(self, question: Callable[[Reader], T]) -> T:
        answer = await self.disk.ask(question)
        if self.disk.store.generation != self.generation:
            raise NotOpen
        return answer

    async def change(self, work: Callable[[Writer], T]) -> T:
        return await self.disk.change(self.generation, work)

    def protected(self) -> frozenset[str]:
        return frozenset(self.unsaved)
