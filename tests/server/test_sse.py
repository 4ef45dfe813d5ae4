"""Event streams on a journal that the test holds in its hand: gaps, keep-alives, bells, and any interleaving."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.errors import JournalError
from agentstream.journal.base import Journal, Record
from agentstream.server.sse import KEEP_ALIVE, Doorbell, stream
from tests.support.orchestration import NOON


@attrs.define
class Shelf:
    """The part of a journal that streams read: a list of (seq, work order), trimmed from the front."""

    bell: Doorbell = attrs.field(factory=Doorbell)
    kept: list[tuple[int, str]] = attrs.field(factory=list)
    head: int = 0
    first: int = 1
    broken: bool = False
    epoch: str = "e1"

    def publish(self, *work_orders: str) -> None:
        for work_order_id in work_orders:
            self.head += 1
            self.kept.append((self.head, work_order_id))
        self.bell.ring([self._record(seq, name) for seq, name in self.kept[len(self.kept) - len(work_orders) :]])

    def trim(self, first: int) -> None:
        self.first = max(self.first, min(first, self.head + 1))
        self.kept = [item for item in self.kept if item[0] >= self.first]

    async def read(
        self, after: int, *, work_order_ids: Sequence[str] | None, limit: int, max_bytes: int
    ) -> list[Record]:
        if self.broken:
            raise JournalError("the disk is gone")
        wanted = [item for item in self.kept if item[0] > after and (not work_order_ids or item[1] in work_order_ids)]
        await trio.lowlevel.checkpoint()
        return [self._record(*item) for item in wanted[: min(limit, 3)]]

    async def oldest(self, _work_order_id: str | None) -> int:
        await trio.lowlevel.checkpoint()
        return self.first

    def _record(self, seq: int, name: str) -> Record:
        return Record(seq, name, "agent_output", b'{"type":"agent_output","workOrderId":"%b"}' % name.encode())


def open_stream(
    shelf: Shelf, name: str = "w", since: int | None = None, epoch: str | None = None, **options: Any
) -> AsyncGenerator[bytes, None]:
    chunks = stream(cast("Journal", shelf), shelf.bell, name, since=since, epoch=epoch, now=lambda: NOON, **options)
    return cast("AsyncGenerator[bytes, None]", chunks)


def parsed(chunk: bytes) -> list[Any]:
    lines = [line for line in chunk.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def until_live(chunks: AsyncGenerator[bytes, None]) -> list[Any]:
    """Everything up to ``replay_complete``."""
    seen: list[Any] = []
    while not seen or seen[-1]["type"] != "replay_complete":
        seen += parsed(await anext(chunks))
    return seen


async def test_a_quiet_stream_shows_that_it_lives(autojump_clock: trio.testing.MockClock) -> None:
    async with aclosing(open_stream(Shelf())) as chunks:
        await until_live(chunks)
        began = trio.current_time()
        assert await anext(chunks) == b": alive\n\n"
        assert trio.current_time() - began == KEEP_ALIVE


async def test_who_is_no_longer_allowed_is_not_kept_waiting(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    allowed = [True]
    async with aclosing(open_stream(shelf, allowed=lambda: allowed[-1])) as chunks:
        await until_live(chunks)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _revoke() -> None:
                await trio.testing.wait_all_tasks_blocked()
                allowed.append(False)
                shelf.bell.ring_all()

            assert [chunk async for chunk in chunks] == []
        assert trio.current_time() == began


async def test_events_of_others_do_not_wake_it(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    async with aclosing(open_stream(shelf)) as chunks:
        await until_live(chunks)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _publish() -> None:
                await trio.testing.wait_all_tasks_blocked()
                shelf.publish("other", "other")

            assert await anext(chunks) == b": alive\n\n"


async def test_what_retention_took_is_told(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    shelf.publish(*["w"] * 10)
    shelf.trim(8)
    async with aclosing(open_stream(shelf, since=2)) as chunks:
        seen = await until_live(chunks)
    assert [message["type"] for message in seen[:2]] == ["subscription_confirmed", "gap"]
    assert (seen[1]["fromSeq"], seen[1]["toSeq"], seen[1]["reason"]) == (3, 7, "retention")
    assert [message["seq"] for message in seen[2:-1]] == [8, 9, 10]


async def test_who_claims_nothing_has_no_gap(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    shelf.publish(*["w"] * 10)
    shelf.trim(8)
    async with aclosing(open_stream(shelf)) as chunks:
        assert "gap" not in [message["type"] for message in await until_live(chunks)]


async def test_another_epoch_is_told_and_replayed_from_its_start(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    shelf.publish("w", "w")
    for since, epoch in ((1, "e0"), (50, None)):
        async with aclosing(open_stream(shelf, since=since, epoch=epoch)) as chunks:
            seen = await until_live(chunks)
        assert (seen[1]["type"], seen[1]["reason"], seen[1]["toSeq"]) == ("gap", "epoch", since)
        assert [message["seq"] for message in seen[2:-1]] == [1, 2]


async def test_a_slow_reader_that_retention_overtakes_is_told(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    shelf.publish(*["w"] * 12)
    async with aclosing(open_stream(shelf)) as chunks:
        seen = parsed(await anext(chunks)) + parsed(await anext(chunks))
        shelf.trim(9)
        seen += await until_live(chunks)
    assert [(m["fromSeq"], m["toSeq"]) for m in seen if m["type"] == "gap"] == [(4, 8)]
    assert [m["seq"] for m in seen if m["type"] == "agent_output"] == [1, 2, 3, 9, 10, 11, 12]


async def test_a_journal_that_cannot_be_read_ends_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf()
    async with aclosing(open_stream(shelf)) as chunks:
        await until_live(chunks)
        shelf.broken = True
        shelf.publish("w")
        assert [chunk async for chunk in chunks] == [b": the journal can't be read\n\n"]


def test_a_bell_that_nobody_listens_to_is_gone() -> None:
    bell = Doorbell()
    held = bell.listen("w")
    bell.listen("x")
    assert list(bell._bells) == ["w"]
    bell.ring([])
    assert not held.is_set()
    bell.ring([Record(1, "w", "t", b"{}")])
    assert held.is_set()
    assert not bell._bells


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.lists(st.sampled_from(["w", "other"]), min_size=1, max_size=8)),
            st.tuples(st.just("read"), st.integers(1, 4)),
            st.tuples(st.just("reconnect"), st.none()),
        ),
        max_size=25,
    )
)
def test_any_interleaving_of_publish_read_and_reconnect_gives_each_event_once_and_in_order(
    steps: list[tuple[str, Any]],
) -> None:
    async def scenario() -> None:
        shelf = Shelf()
        seen: list[int] = []
        chunks = open_stream(shelf, since=0)

        async def take() -> bool:
            """One chunk; False when it was a keep-alive: nothing is to be told."""
            chunk = await anext(chunks)
            seen.extend(message["seq"] for message in parsed(chunk) if message["type"] == "agent_output")
            return not chunk.startswith(b":")

        for step, argument in steps:
            match step:
                case "publish":
                    shelf.publish(*argument)
                case "read":
                    for _ in range(argument):
                        await take()
                case _:
                    await chunks.aclose()
                    chunks = open_stream(shelf, since=seen[-1] if seen else 0, epoch=shelf.epoch)
        while await take():
            pass
        await chunks.aclose()
        assert seen == [seq for seq, name in shelf.kept if name == "w"]

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
