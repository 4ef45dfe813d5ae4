"""Numbers are never used twice, groups of any size arrive whole, and trimming goes in steps and leaves what is in use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentstream.journal.store import Store
from agentstream.journal.writer import RESERVED, TRIM_BYTES, TRIM_ROWS, WorkOrderRow
from agentstream.model import wire
from agentstream.model.events import WorkOrderStatus
from tests.journal.helpers import abandon, journal_path, order, rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(journal_path(tmp_path))
    yield store
    store.release()


def stored(store: Store, *ids: str) -> list[int | None]:
    page = store.read(lambda reader: reader.page(0, 2**53, list(ids) or None, 100_000, None))
    return [record.seq for record in page]


def put(store: Store, name: str, status: WorkOrderStatus) -> None:
    store.writer.commit([], [WorkOrderRow(name, status, 0, wire.to_json(order(name, status)))], [])


@pytest.mark.parametrize("size", [1, 2, 3, 511, 512, 513, 1023, 2500])
def test_a_group_of_any_size_arrives_whole(store: Store, size: int) -> None:
    store.writer.commit(rows(1, size), [], [])
    page = store.read(lambda reader: reader.page(0, size, None, size + 1, None))
    assert [(record.seq, record.body) for record in page] == [(row[0], row[4]) for row in rows(1, size)]
    assert store.writer.events == size


def test_a_group_that_fails_leaves_nothing(store: Store) -> None:
    store.writer.commit(rows(1, 3, work_order="a"), [], [])
    with pytest.raises(sqlite3.IntegrityError):
        store.writer.commit([*rows(4, 5, work_order="new"), *rows(3, 3, work_order="new")], [], [])
    assert stored(store) == [1, 2, 3]
    assert store.writer.events == 3
    store.writer.commit(rows(6, 7, work_order="new"), [], [])
    assert stored(store, "new") == [6, 7]


def test_after_an_orderly_end_numbers_go_on_without_a_hole(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    store.writer.commit(rows(1, 3), [], [])
    store.close(3)
    again = Store.open(journal_path(tmp_path))
    assert (again.writer.head, again.writer.next_seq) == (3, 4)
    again.release()


def test_after_a_crash_numbers_go_on_above_whatever_was_visible(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    store.writer.commit(rows(1, 3), [], [])
    abandon(store)
    again = Store.open(journal_path(tmp_path))
    assert again.writer.head == 3
    assert again.writer.next_seq == 3 + RESERVED + 1
    again.release()


def test_a_commit_that_a_loss_of_power_undid_does_not_free_its_number(tmp_path: Path) -> None:
    # What SQLite may undo is what was not yet synced: here the file and its WAL as they were after the first commit.
    path = journal_path(tmp_path)
    store = Store.open(path)
    store.writer.commit(rows(1, 1), [], [])
    synced = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    store.writer.commit(rows(2, 9), [], [])
    abandon(store)
    Path(f"{path}-shm").unlink(missing_ok=True)
    for suffix, data in synced.items():
        Path(f"{path}{suffix}").write_bytes(data)
    again = Store.open(path)
    assert again.writer.head == 1
    assert again.writer.next_seq > 9
    again.release()


def test_a_crash_before_the_first_event_wastes_nothing(tmp_path: Path) -> None:
    abandon(Store.open(journal_path(tmp_path)))
    again = Store.open(journal_path(tmp_path))
    assert again.writer.next_seq == 1
    again.release()


def test_further_blocks_are_reserved_as_numbers_are_used(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    store.writer.commit(rows(1, 1), [], [])
    store.writer.commit(rows(RESERVED + 1, RESERVED + 2), [], [])
    abandon(store)
    again = Store.open(journal_path(tmp_path))
    assert again.writer.next_seq > RESERVED + 2 + RESERVED - 1
    again.release()


def test_trimming_takes_the_oldest_in_bounded_steps_and_remembers(store: Store) -> None:
    store.writer.commit([*rows(1, 2500), *rows(2501, 2510, work_order="w2")], [], [])
    number = store.read(lambda reader: reader.ended(more_than=100))[0].number
    steps = []
    while removed := store.writer.trim(number, leave=200):
        steps.append(removed)
    assert steps == [TRIM_ROWS, TRIM_ROWS, 300]
    assert stored(store, "w1") == list(range(2301, 2501))
    assert len(stored(store, "w2")) == 10
    assert store.read(lambda reader: [reader.oldest(name) for name in ("w1", "w2", None)]) == [2301, 1, 2301]
    assert store.writer.events == 210


def test_a_step_is_bounded_in_bytes_too(store: Store) -> None:
    big = [(seq, "w1", "t", 1, b"x" * (TRIM_BYTES // 2)) for seq in range(1, 6)]
    store.writer.commit(big, [], [])
    assert [store.writer.trim(1, leave=0) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("status", ["queued", "running"])
def test_what_is_in_use_is_never_trimmed(store: Store, status: WorkOrderStatus) -> None:
    store.writer.commit(rows(1, 10), [], [])
    put(store, "w1", status)
    assert store.writer.trim(1, leave=0) == 0
    assert not store.writer.remove(1)
    assert stored(store) == list(range(1, 11))


def test_what_is_protected_is_never_trimmed(store: Store) -> None:
    store.writer.commit(rows(1, 10), [], [])
    put(store, "w1", "failed")
    assert store.writer.trim(1, 0, frozenset({"w1"})) == 0
    assert store.writer.trim(1, 0) == 10


def test_only_what_is_empty_is_removed_and_its_trim_mark_stays(store: Store) -> None:
    store.writer.commit(rows(1, 10), [], [])
    put(store, "w1", "succeeded")
    assert not store.writer.remove(1)
    store.writer.trim(1, 0)
    assert store.writer.remove(1)
    assert store.read(lambda reader: reader.work_order("w1")) is None
    assert store.read(lambda reader: reader.oldest("w1")) == 11
    # The same id again: it goes on where it was, and knows what it lost.
    store.writer.commit(rows(11, 12), [], [])
    assert store.read(lambda reader: reader.oldest("w1")) == 11
    assert stored(store, "w1") == [11, 12]


def test_only_traces_of_what_is_gone_are_forgotten(store: Store) -> None:
    store.writer.commit([*rows(1, 1, work_order="gone"), *rows(2, 2, work_order="here")], [], [])
    put(store, "documented", "failed")
    store.writer.trim(1, 0)
    assert store.read(lambda reader: reader.forgettable(0)) == [1]
    assert store.read(lambda reader: reader.forgettable(1)) == []
    store.writer.forget([1, 2, 3])
    assert store.read(lambda reader: reader.oldest("gone")) == 1
    assert stored(store, "here") == [2]
    assert store.read(lambda reader: reader.work_order("documented")) is not None


def test_free_pages_are_given_back_when_they_are_many(store: Store, tmp_path: Path) -> None:
    store.writer.commit([(seq, "w1", "t", 1, b"x" * 4000) for seq in range(1, 3001)], [], [])
    before = store.writer.size_bytes
    while store.writer.trim(1, leave=10):
        pass
    assert store.writer.used_bytes < before / 10
    full = store.writer.size_bytes
    assert store.writer.vacuum(100)
    assert full - store.writer.size_bytes >= 100 * 4096
    while store.writer.vacuum(100):
        pass
    assert store.writer.size_bytes < before / 2
    assert stored(store) == list(range(2991, 3001))
