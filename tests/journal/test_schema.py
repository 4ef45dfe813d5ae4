"""Every older journal becomes a present one, and nobody else's database is touched."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agentstream.errors import JournalError
from agentstream.journal.reader import Reader
from agentstream.journal.schema import APPLICATION_ID, STEPS, migrate
from agentstream.journal.store import Store

#: The schema of each released version, and some rows, as that version wrote them. Never edited: a new version adds one.
FROZEN = sorted(Path(__file__).with_name("schemas").glob("v*.sql"))


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def dump(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """The schema without what formatting is free to change."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    return [(name, "".join(sql.split())) for name, sql in connection.execute(query)]


def test_every_version_has_its_frozen_schema() -> None:
    assert [path.stem for path in FROZEN] == [f"v{number}" for number in range(1, len(STEPS) + 1)]


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_an_older_file_becomes_a_present_one(frozen: Path, database: sqlite3.Connection) -> None:
    database.executescript(frozen.read_text())
    migrate(database)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh)
        assert dump(database) == dump(fresh)


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_an_older_file_keeps_what_was_in_it(frozen: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(frozen.read_text())
    store = Store.open(path)
    try:
        assert store.epoch == "f00d"
        assert store.writer.next_seq == 4
        records = store.read(lambda reader: reader.page(0, 9, None, 9, None))
        assert [(record.seq, record.work_order_id, record.type) for record in records] == [
            (2, "w1", "agent_output"),
            (3, "w1", "agent_error"),
        ]
        assert store.read(lambda reader: reader.oldest("w1")) == 2
        order = store.read(lambda reader: reader.work_order("w1"))
        assert order is not None
        assert order.request.task_prompt == "do it"
        run = store.read(lambda reader: reader.run("r1"))
        assert run is not None
        assert run.directory == "runs/r1"
    finally:
        store.release()


def test_steps_are_taken_once_and_in_order(database: sqlite3.Connection) -> None:
    one = ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)")
    two = ("ALTER TABLE a ADD COLUMN y", "UPDATE a SET y = x + 1")
    assert migrate(database, [one]) == 1
    assert migrate(database, [one, two]) == 1
    assert migrate(database, [one, two]) == 0
    assert database.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
    assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_step_that_fails_leaves_the_version_before_it(database: sqlite3.Connection) -> None:
    one = ("CREATE TABLE a (x)",)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        migrate(database, [one, ("INSERT INTO a VALUES (1)", "INSERT INTO missing VALUES (1)")])
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT count(*) FROM a").fetchone() == (0,)


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Store.open(path).close(0)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"journal\.sqlite: .* written by a newer one"):
        Store.open(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(JournalError, match="a database of another program"):
        Store.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


def test_a_file_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Store.open(path).close(0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


@pytest.mark.parametrize(
    ("ids", "sorts"),
    [(None, 0), (["w1"], 0), (["w1", "w2"], 0), ([f"w{number}" for number in range(40)], 0)],
    ids=["all", "one", "some", "many"],
)
def test_no_page_sorts_or_scans_a_history(tmp_path: Path, ids: list[str] | None, sorts: int) -> None:
    """A page of a long history must cost its own rows only: what a query plan shows, and a small test can't time."""
    store = Store.open(tmp_path / "journal.sqlite")
    try:
        for number in range(40):
            store.writer.commit([(number + 1, f"w{number}", "t", 1, b"{}")], [], [])
        statements: list[str] = []
        connection = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        reader = Reader(connection)
        connection.set_trace_callback(statements.append)
        reader.page(0, 100, ids, 10, None)
        connection.set_trace_callback(None)
        (query,) = [statement for statement in statements if "body" in statement]
        plan = " / ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query))
        assert plan.count("TEMP B-TREE") == sorts, plan
        assert "SCAN" not in plan, plan
        reader.close()
    finally:
        store.release()
