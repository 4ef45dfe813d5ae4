"""What an error means is told from SQLite's code, and told in words that say what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from agentstream.journal.trouble import Kind, explain, kind_of, probe_delays


def raised(path: Path, *statements: str) -> sqlite3.Error:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        *before, last = statements
        for statement in before:
            connection.execute(statement)
        with pytest.raises(sqlite3.Error) as caught:
            connection.execute(last)
    return caught.value


def test_a_full_database(tmp_path: Path) -> None:
    error = raised(
        tmp_path / "a", "CREATE TABLE t (x)", "PRAGMA max_page_count = 2", "INSERT INTO t VALUES (zeroblob(99999))"
    )
    assert kind_of(error) is Kind.DISK
    assert explain(error) == "the disk is full; free some space (SQLITE_FULL)"


def test_a_read_only_database(tmp_path: Path) -> None:
    error = raised(tmp_path / "a", "CREATE TABLE t (x)", "PRAGMA query_only = ON", "INSERT INTO t VALUES (1)")
    assert kind_of(error) is Kind.DISK
    assert "can't be written; check its owner, its mode" in explain(error)


def test_a_locked_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = raised(tmp_path / "a", "BEGIN IMMEDIATE")
    assert kind_of(error) is Kind.DISK
    assert explain(error) == "another program holds a lock on the file; end it (SQLITE_BUSY)"


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no database" * 1000)
    error = raised(tmp_path / "a", "SELECT * FROM sqlite_master")
    assert kind_of(error) is Kind.CORRUPT
    assert explain(error) == "the file is damaged (SQLITE_NOTADB)"


def test_everything_else_is_ours(tmp_path: Path) -> None:
    assert kind_of(raised(tmp_path / "a", "SELECT * FROM missing")) is Kind.BUG
    assert kind_of(sqlite3.ProgrammingError("Cannot operate on a closed database.")) is Kind.BUG


def test_looks_become_rarer_up_to_a_limit() -> None:
    assert list(islice(probe_delays(1.0, 5.0), 5)) == [1.0, 2.0, 4.0, 5.0, 5.0]
