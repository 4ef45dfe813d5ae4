"""What replay asks for is exact: pages, trimmed ends, moments and counts, also where clocks went back and runs overlap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentstream.errors import InvalidMessage
from agentstream.journal.store import Store
from agentstream.journal.writer import EventRow, RunRow, WorkOrderRow
from agentstream.model import wire
from agentstream.model.events import WorkOrderStatus
from tests.journal.helpers import NOON_MS, attempt, journal_path, order, rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(journal_path(tmp_path))
    yield store
    store.release()


def page(
    store: Store,
    after: int = 0,
    up_to: int = 2**53,
    ids: list[str] | None = None,
    limit: int = 1000,
    max_bytes: int | None = None,
) -> list[int | None]:
    return [record.seq for record in store.read(lambda reader: reader.page(after, up_to, ids, limit, max_bytes))]


def put(store: Store, name: str, status: WorkOrderStatus) -> None:
    store.writer.commit([], [WorkOrderRow(name, status, 0, wire.to_json(order(name, status)))], [])


def mixed(last: int, names: int) -> list[EventRow]:
    return [row for seq in range(1, last + 1) for row in rows(seq, seq, work_order=f"w{seq % names}")]


def test_a_page_has_its_bounds(store: Store) -> None:
    store.writer.commit(rows(1, 20), [], [])
    assert page(store, 3, 8) == [4, 5, 6, 7, 8]
    assert page(store, 3, 8, limit=2) == [4, 5]
    assert page(store, 20) == []
    assert page(store, 8, 3) == []
    assert page(store, limit=0) == []


def test_a_page_ends_with_the_record_that_fills_it(store: Store) -> None:
    store.writer.commit([(seq, "w1", "t", 1, b"x" * 100) for seq in range(1, 11)], [], [])
    assert page(store, max_bytes=1) == [1]
    assert page(store, max_bytes=100) == [1]
    assert page(store, max_bytes=101) == [1, 2]
    assert page(store, max_bytes=10_000) == list(range(1, 11))


@pytest.mark.parametrize("names", [1, 2, 16, 17, 40])
def test_pages_of_some_work_orders_join_to_all_of_theirs(store: Store, names: int) -> None:
    store.writer.commit(mixed(400, 41), [], [])
    wanted = [f"w{number}" for number in range(names)]
    got: list[int | None] = []
    while more := page(store, after=(got[-1] or 0) if got else 0, ids=[*wanted, "unknown"], limit=7):
        got += more
    assert got == [seq for seq in range(1, 401) if seq % 41 < names]


def test_unknown_work_orders_have_nothing(store: Store) -> None:
    store.writer.commit(rows(1, 3), [], [])
    assert page(store, ids=["nobody"]) == []
    assert page(store, ids=[]) == []
    assert store.read(lambda reader: reader.oldest("nobody")) == 1
    assert store.read(lambda reader: reader.before_last(5, "nobody", 3)) == 3


def test_the_last_events(store: Store) -> None:
    store.writer.commit(mixed(10, 2), [], [])

    def before(count: int, name: str | None) -> int:
        return store.read(lambda reader: reader.before_last(count, name, 10))

    assert page(store, before(3, None)) == [8, 9, 10]
    assert page(store, before(2, "w1"), ids=["w1"]) == [7, 9]
    assert page(store, before(0, "w1"), ids=["w1"]) == []
    assert page(store, before(99, "w1"), ids=["w1"]) == [1, 3, 5, 7, 9]
    assert before(99, None) == 0


def test_the_last_events_of_a_trimmed_work_order_are_no_gap_when_they_are_there(store: Store) -> None:
    store.writer.commit(mixed(10, 2), [], [])
    number = store.read(lambda reader: reader.ended())[-1].number
    store.writer.trim(number, leave=2)
    (name,) = {record.work_order_id for record in store.read(lambda reader: reader.page(9, 10, None, 9, None))}
    oldest = store.read(lambda reader: reader.oldest(name))
    for count in (1, 2, 3, 99):
        assert store.read(lambda reader: reader.before_last(count, name, 10)) + 1 >= oldest  # noqa: B023


def test_a_moment_before_what_was_trimmed_lies_in_the_gap(store: Store) -> None:
    store.writer.commit(rows(1, 10), [], [])
    store.writer.trim(1, leave=4)

    def gap(moment: int, name: str | None) -> bool:
        since = store.read(lambda reader: reader.before_time(moment, name, 10))
        return since + 1 < store.read(lambda reader: reader.oldest(name))

    for name in ("w1", None):
        assert gap(NOON_MS + 3000, name)
        assert gap(NOON_MS + 6000, name)
        assert not gap(NOON_MS + 7000, name)
        assert not gap(NOON_MS + 99_000, name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    holes=st.sets(st.integers(0, 29)),
    moment=st.integers(-1, 52),
)
def test_a_moment_finds_all_that_came_at_it_or_after(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], holes: set[int], moment: int
) -> None:
    """Timestamps in any order (clocks go back, runs overlap), holes between the numbers."""
    store = Store.open(tmp_path_factory.mktemp("moment") / "journal.sqlite")
    try:
        latest, seq, real = 0, 0, {}
        for index, at in enumerate(times):
            latest = max(latest, at)
            seq += 1000 if index in holes else 1
            real[seq] = at
            store.writer.commit([(seq, "w", "t", latest, b"{}")], [], [])
        since = store.read(lambda reader: reader.before_time(moment, None, seq))
        assert all(number > since for number, at in real.items() if at >= moment)
        if times == sorted(times):
            assert not [number for number, at in real.items() if at < moment and number > since]
    finally:
        store.release()


def test_work_orders_come_newest_first_page_by_page(store: Store) -> None:
    for number in range(1, 8):
        put(store, f"w{number}", "failed" if number % 2 else "queued")
    put(store, "w1", "running")  # A change doesn't make it newer.

    def everything(status: WorkOrderStatus | None) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while True:
            part = store.read(lambda reader: reader.work_orders(status, 2, cursor))  # noqa: B023
            assert len(part.items) <= 2
            names += [item.id for item in part.items]
            cursor = part.cursor
            if cursor is None:
                return names

    assert everything(None) == ["w7", "w6", "w5", "w4", "w3", "w2", "w1"]
    assert everything("failed") == ["w7", "w5", "w3"]
    assert everything("running") == ["w1"]
    assert everything("canceled") == []


@pytest.mark.parametrize("cursor", ["", "7", "before-", "before-x", "before--1", "before-1; DROP TABLE events"])
def test_a_cursor_of_somebody_else_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidMessage, match="cursor: expected one that an earlier page"):
        store.read(lambda reader: reader.work_orders(None, 5, cursor))
    assert page(store) == []


def test_documents_come_back_as_they_were(store: Store) -> None:
    job = order("w1", "running")
    runs = [
        attrs.evolve(attempt("r2", "w1", number=2), details={"any": [1, None, "x"]}),
        attempt("r1", "w1", "failed", number=1),
    ]
    store.writer.commit(
        [],
        [WorkOrderRow(job.id, job.status, 0, wire.to_json(job))],
        [RunRow(run.id, run.work_order_id, run.run_number, run.status, wire.to_json(run)) for run in runs],
    )
    assert store.read(lambda reader: reader.work_order("w1")) == job
    assert store.read(lambda reader: reader.runs("w1")) == [runs[1], runs[0]]
    assert store.read(lambda reader: reader.run("r2")) == runs[0]
    assert store.read(lambda reader: reader.run("r3")) is None
    assert store.read(lambda reader: reader.unfinished()) == ([job], [runs[0]])
