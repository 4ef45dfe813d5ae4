"""Who may open a journal, and that a damaged one is set aside whole and never deleted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentstream.errors import JournalError
from agentstream.journal.store import NotOpen, Store
from agentstream.journal.trouble import Kind, kind_of
from tests.journal.helpers import abandon, journal_path, rows


def test_the_epoch_names_the_file(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    epoch = store.epoch
    store.close(0)
    again = Store.open(journal_path(tmp_path))
    assert again.epoch == epoch
    again.close(0)
    other = Store.open(tmp_path / "other.sqlite")
    assert other.epoch != epoch
    other.close(0)


def test_only_one_has_it(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    store = Store.open(path)
    with pytest.raises(JournalError, match="another agentstream uses this journal"):
        Store.open(path)
    store.close(0)
    Store.open(path).close(0)


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    store.writer.commit(rows(1, 1), [], [])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"journal.sqlite{suffix}" for suffix in ("", "-wal", "-shm", ".lock")}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close(1)


def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"missing/journal\.sqlite: the journal can't be opened: No such file"):
        Store.open(tmp_path / "missing" / "journal.sqlite")


def test_a_directory_in_place_of_the_file_is_a_clear_error(tmp_path: Path) -> None:
    journal_path(tmp_path).mkdir()
    with pytest.raises(JournalError, match="can't be opened"):
        Store.open(journal_path(tmp_path))
    with pytest.raises(JournalError, match="can't be opened"):  # And no lock was left behind.
        Store.open(journal_path(tmp_path))


def test_an_orderly_end_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    store.writer.commit(rows(1, 100), [], [])
    store.read(lambda reader: reader.oldest(None))
    store.close(100)
    assert {path.name for path in tmp_path.iterdir()} == {"journal.sqlite", "journal.sqlite.lock"}


@pytest.mark.parametrize(
    ("offset", "junk"),
    [(0, b"\xde\xad" * 4096), (100, b"\xff" * 4096), (0, b"not a database at all")],
    ids=["everything", "first page", "text"],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, offset: int, junk: bytes) -> None:
    path = journal_path(tmp_path)
    store = Store.open(path)
    old_epoch = store.epoch
    store.writer.commit(rows(1, 1000), [], [])
    store.close(1000)
    data = bytearray(path.read_bytes())
    data[offset : offset + len(junk)] = junk
    path.write_bytes(data)
    store = Store.open(path)
    (aside,) = store.set_aside
    assert aside.startswith(f"{path}.corrupt-2")
    assert Path(aside).read_bytes() == data
    assert store.epoch != old_epoch
    assert store.writer.next_seq == 1
    store.writer.commit(rows(1, 3), [], [])
    store.close(3)
    again = Store.open(path)
    assert again.set_aside == ()
    assert again.writer.head == 3
    again.close(3)


def test_the_companions_of_a_damaged_file_are_set_aside_with_it(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    path.write_bytes(b"garbage" * 1000)
    Path(f"{path}-wal").write_bytes(b"half a log" * 1000)
    store = Store.open(path)
    (aside,) = store.set_aside
    assert Path(aside).read_bytes() == b"garbage" * 1000
    assert Path(f"{aside}-wal").read_bytes() == b"half a log" * 1000
    assert store.writer.events == 0
    store.close(0)


def test_the_next_database_begins_above_the_last_one(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    store = Store.open(path)
    store.writer.commit(rows(1, 10), [], [])
    store.read(lambda reader: reader.oldest(None))
    generation, epoch = store.generation, store.epoch
    store.begin_anew(floor=10, floor_at=77)
    assert store.epoch != epoch
    assert store.writer.next_seq == 11
    assert store.read(lambda reader: [reader.oldest(name) for name in (None, "w1")]) == [11, 11]
    # Closing the old connections must not have touched the new files.
    store.writer.commit(rows(11, 12), [], [])
    assert [record.seq for record in store.read(lambda reader: reader.page(0, 99, None, 9, None))] == [11, 12]
    with pytest.raises(NotOpen):
        store.write(generation, lambda writer: writer.trim(1, 0))
    (aside,) = store.set_aside
    abandon(store)
    with closing(sqlite3.connect(aside)) as old:
        assert old.execute("SELECT count(*), max(seq) FROM events").fetchone() == (10, 10)
        assert old.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_moved_or_deleted_file_is_noticed(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    store = Store.open(path)
    assert not store.gone()
    os.rename(path, f"{path}.away")
    assert store.gone()
    path.write_bytes(b"")
    assert store.gone()
    store.release()


def test_a_reader_that_asked_something_impossible_is_used_again(tmp_path: Path) -> None:
    store = Store.open(journal_path(tmp_path))
    with pytest.raises(sqlite3.OperationalError) as caught:
        store.read(lambda reader: reader._connection.execute("SELECT nonsense"))
    assert kind_of(caught.value) is Kind.BUG
    with pytest.raises(ZeroDivisionError):
        store.read(lambda _: 1 / 0)
    assert store.read(lambda reader: reader.oldest(None)) == 1
    store.release()
