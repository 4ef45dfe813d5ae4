"""Subscribers with equal wishes share one bytes object."""

from __future__ import annotations

import math

from agentstream.broadcast.batch import ALL, CREATED, Batch
from agentstream.broadcast.frames import event_frame
from agentstream.journal.base import Record

RECORDS = [
    Record(4, "a", "agent_output", b'{"n":1}'),
    Record(None, "a", "agent_output_delta", b'{"n":2}'),
    Record(5, "b", CREATED, b'{"n":3}'),
    Record(6, "a", "agent_error", b'{"n":4}'),
]


def test_the_bytes_are_made_once_for_equal_wishes() -> None:
    batch = Batch(RECORDS)
    chunk = batch.chunk(("a", frozenset({"agent_output_delta"})))
    assert chunk is not None
    assert chunk.data == event_frame(RECORDS[0]) + event_frame(RECORDS[3])
    assert chunk.seqs == (4, 6)
    assert sum(chunk.lengths) == len(chunk.data)
    assert batch.chunk(("a", frozenset({"agent_output_delta"}))) is chunk


def test_all_and_nothing() -> None:
    batch = Batch(RECORDS)
    everything = batch.chunk((ALL, frozenset()))
    assert everything is not None
    assert everything.seqs == (4, None, 5, 6)
    assert batch.chunk(("nobody", frozenset())) is None
    announced = batch.announcements()
    assert announced is not None
    assert announced.seqs == (5,)


def test_the_range_of_a_batch() -> None:
    assert (Batch(RECORDS).first, Batch(RECORDS).last) == (4, 6)
    assert (Batch(RECORDS[1:2]).first, Batch(RECORDS[1:2]).last) == (math.inf, 0)
