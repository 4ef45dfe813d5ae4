"""Records that are delivered together, and the bytes that subscribers with equal wishes share. Pure.

A batch travels as a batch: every record is framed at most once, on first need; subscribers that want the same records of the
same work order get the same joined bytes object, in one system call each. A hundred backlogs that hold it hold one copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from agentstream.broadcast.frames import event_frame
from agentstream.journal.base import Record
from agentstream.model.events import WorkOrderCreated
from agentstream.model.wire import type_of

#: Stands for all work orders in a subscription.
ALL: Final = "*"
#: Goes to every authenticated client.
CREATED: Final = type_of(WorkOrderCreated)


#: A work order id or `ALL`, and the event types that are not wanted of it.
Wish = tuple[str, frozenset[str]]


@attrs.frozen
class Chunk:
    """Whole frames that are written together. ``lengths`` and ``seqs`` say where each frame ends and which record it was."""

    data: bytes
    lengths: tuple[int, ...]
    #: None for what the journal doesn't have.
    seqs: tuple[int | None, ...]


class Batch:
    """Consecutive records of the journal, with ephemeral ones in their places."""

    __slots__ = ("_frames", "by_id", "chunks", "first", "has_created", "last", "records", "size")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        seqs = [record.seq for record in records if record.seq is not None]
        #: The lowest and highest ``seq``; infinity and 0 when nothing here is journalled.
        self.first: float = seqs[0] if seqs else math.inf
        self.last = seqs[-1] if seqs else 0
        self.by_id: dict[str, list[Record]] = {}
        self.has_created = False
        #: Bytes of all bodies.
        self.size = 0
        for record in records:
            self.by_id.setdefault(record.work_order_id, []).append(record)
            self.size += len(record.body)
            if record.type == CREATED:
                self.has_created = True
        self._frames: dict[int, bytes] = {}
        #: What `chunk` has made so far.
        self.chunks: dict[Wish, Chunk | None] = {}

    def frame(self, record: Record) -> bytes:
        """The frame of a record of this batch."""
        # Keyed by identity: hashing a record would hash its text, and the batch keeps its records alive.
        made = self._frames.get(id(record))
        if made is None:
            made = self._frames[id(record)] = event_frame(record)
        return made

    def chunk(self, wish: Wish) -> Chunk | None:
        """What a subscriber with this wish gets; None: nothing."""
        try:
            return self.chunks[wish]
        except KeyError:
            work_order_id, unwanted = wish
            records = self.records if work_order_id == ALL else self.by_id.get(work_order_id, ())
            chunk = self.chunks[wish] = self.join(record for record in records if record.type not in unwanted)
            return chunk

    def announcements(self) -> Chunk | None:
        """What somebody without a subscription gets."""
        key: Wish = ("", frozenset())
        if key not in self.chunks:
            self.chunks[key] = self.join(record for record in self.records if record.type == CREATED)
        return self.chunks[key]

    def join(self, records: Iterable[Record]) -> Chunk | None:
        """Any records of this batch as one chunk."""
        chosen = list(records)
        if not chosen:
            return None
        frames = [self.frame(record) for record in chosen]
        return Chunk(
            frames[0] if len(frames) == 1 else b"".join(frames),
            tuple(map(len, frames)),
            tuple([record.seq for record in chosen]),
        )
