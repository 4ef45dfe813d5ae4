"""Delivery through a real journal to real sockets: slow subscribers, catching up, fairness, the cost of those not concerned."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
import trio.testing

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.emitter import Emitter
from agentstream.broadcast.frames import frame
from agentstream.broadcast.outlet import Outlet
from agentstream.broadcast.subscriber import Subscriber
from agentstream.journal.base import Record
from agentstream.journal.retention import Retention
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.model import wire
from agentstream.model.events import EVENT_CLASSES, AgentOutput, Event, WorkOrderCreated
from agentstream.model.limits import MAX_EVENT_BYTES
from agentstream.model.messages import Filters

PATIENCE = 120.0


def outputs(work_order_id: str, start: int, count: int, size: int = 100) -> list[Event]:
    at = datetime.now(UTC)
    return [
        AgentOutput(work_order_id=work_order_id, run_id="r", timestamp=at, content=f"{n} ".ljust(size, "x"))
        for n in range(start, start + count)
    ]


def messages(data: bytearray) -> list[dict[str, Any]]:
    """Take the whole frames off the front of ``data``. Half a million of them, so wsproto judges elsewhere (test_frames)."""
    found, at = [], 0
    while len(data) >= at + 2:
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
        elif length == 127:
            length, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
        if len(data) < start + length:
            break
        assert data[at] == 0x81
        found.append(orjson.loads(data[start : start + length]))
        at = start + length
    del data[:at]
    return found


@attrs.define
class Client:
    """A subscriber's socket, read when the test wants it."""

    subscriber: Subscriber
    near: trio.socket.SocketType
    stream: trio.SocketStream
    _data: bytearray = attrs.field(factory=bytearray)
    _heard: list[dict[str, Any]] = attrs.field(factory=list)

    async def hear(self, count: int) -> list[dict[str, Any]]:
        """The next messages."""
        with trio.fail_after(PATIENCE):
            while len(self._heard) < count:
                self._data += await self.stream.receive_some(65536)
                self._heard += messages(self._data)
        heard, self._heard = self._heard[:count], self._heard[count:]
        return heard


@attrs.define
class Hall:
    """A journal, a broadcaster, and the clients of a test."""

    journal: SqliteJournal
    broadcaster: EventBroadcaster
    nursery: trio.Nursery
    latencies: list[float]
    clients: list[Client] = attrs.field(factory=list)

    def client(self, *, stall_limit: float = 600.0) -> Client:
        near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        outlet = Outlet(near, self.nursery, stall_limit=stall_limit)
        self.clients.append(Client(self.broadcaster.connect(outlet), near.socket, far))
        return self.clients[-1]

    def subscribe(self, client: Client, work_order_id: str = "*", since: int | None = None, **filters: bool) -> None:
        self.broadcaster.subscribe(client.subscriber, work_order_id, Filters(**filters), since=since)

    async def publish(self, work_order_id: str, start: int, count: int, size: int = 100) -> None:
        await self.journal.append(outputs(work_order_id, start, count, size))

    async def delivered(self) -> None:
        """Wait until everything that was published is delivered."""
        with trio.fail_after(PATIENCE):
            while self.broadcaster.statistics().published < self.journal.head:  # noqa: ASYNC110 - looked at from outside
                await trio.sleep(0.001)


@asynccontextmanager
async def open_hall(tmp_path: Path, *, retention: Retention | None = None, **options: Any) -> AsyncIterator[Hall]:
    send, receive = trio.open_memory_channel[Sequence[Record]](64)
    latencies: list[float] = []
    async with (
        open_journal(tmp_path / "journal.sqlite", publish=send.send, retention=retention or Retention()) as journal,
        trio.open_nursery() as nursery,
    ):
        broadcaster = EventBroadcaster(receive, journal, observe_latency=latencies.append, **options)
        await nursery.start(broadcaster.run)
        hall = Hall(journal, broadcaster, nursery, latencies)
        try:
            yield hall
        finally:
            for client in hall.clients:
                broadcaster.disconnect(client.subscriber)
                client.subscriber.outlet.abort()
                client.stream.socket.close()
            nursery.cancel_scope.cancel()


# --- slow subscribers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [200_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
async def test_who_stops_reading_loses_nothing_and_delays_nobody(tmp_path: Path, total: int) -> None:
    step = 1000
    async with open_hall(tmp_path) as hall:
        slow, quick = hall.client(), hall.client()
        hall.subscribe(slow)
        hall.subscribe(quick)
        backlog = 0
        for start in range(0, total, step):
            await hall.publish("w", start, step)
            # The slow one has not read a byte, and the quick one has everything that was published.
            heard = await quick.hear(step)
            assert [one["seq"] for one in heard] == list(range(start + 1, start + step + 1))
            backlog = max(backlog, hall.broadcaster.statistics().backlog_bytes)
        assert backlog <= 2 * 1024 * 1024
        assert hall.broadcaster.statistics().catch_ups == 1
        expected = 0
        for _ in range(total // step):
            for one in await slow.hear(step):
                assert one["seq"] == expected + 1
                assert int(one["content"].split()[0]) == expected
                expected += 1
        # Live again: what comes now needs no journal.
        with trio.fail_after(PATIENCE):
            await slow.subscriber.outlet.idle()
        assert not slow.subscriber.course.catching_up
        await hall.publish("w", total, 1)
        assert (await slow.hear(1))[0]["seq"] == total + 1


async def test_many_stalled_subscribers_hold_next_to_nothing(tmp_path: Path) -> None:
    async with open_hall(tmp_path, backlog_limit=256 * 1024) as hall:
        stalled = [hall.client() for _ in range(200)]
        for number, client in enumerate(stalled):
            # Half of them share no bytes with anybody.
            hall.subscribe(client, "*" if number % 2 else "w", include_progress=bool(number % 3))
        for start in range(0, 20_000, 500):
            await hall.publish("w", start, 500)
        await hall.delivered()
        now = hall.broadcaster.statistics()
        assert now.catching_up == 200
        # Of each a frame that was begun, at most.
        assert now.backlog_bytes <= 200 * MAX_EVENT_BYTES / 50
        for client in (stalled[0], stalled[1], stalled[199]):
            heard = await client.hear(20_000)
            assert [one["seq"] for one in heard] == list(range(1, 20_001))


async def test_who_is_stalled_holds_no_page_though_not_a_byte_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_hall(tmp_path, backlog_limit=100_000) as hall:
        pages: list[int] = []
        real = hall.journal.read

        async def read(after: int, **options: Any) -> list[Record]:
            pages.append(after)
            return await real(after, **options)

        monkeypatch.setattr(hall.journal, "read", read)
        client = hall.client()
        hall.subscribe(client)
        # Small writes are taken whole or not at all: the socket is full, and nothing waits.
        filled = 0
        small = frame(b'{"type":"pong"}')
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(client.near.fileno(), small)
                filled += 1
        await hall.publish("w", 0, 2000)
        await hall.delivered()
        await trio.testing.wait_all_tasks_blocked()
        assert hall.broadcaster.statistics().catching_up == 1
        assert (hall.broadcaster.statistics().backlog_bytes, pages) == (0, [])
        heard = await client.hear(filled + 2000)
        assert [one["seq"] for one in heard[filled:]] == list(range(1, 2001))


async def test_a_stalled_subscriber_is_closed_and_counted(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        client = hall.client(stall_limit=0.05)
        hall.subscribe(client)
        closed = trio.Event()
        client.subscriber.outlet.on_closed = closed.set
        await hall.publish("w", 0, 20_000)
        with trio.fail_after(PATIENCE):
            await closed.wait()
        hall.broadcaster.disconnect(client.subscriber)
        now = hall.broadcaster.statistics()
        assert (now.stalled, now.subscribers, now.backlog_bytes) == (1, 0, 0)


async def test_answers_and_other_subscriptions_survive_the_backlog_being_dropped(tmp_path: Path) -> None:
    async with open_hall(tmp_path, backlog_limit=100_000) as hall:
        client = hall.client()
        hall.subscribe(client, "w")
        hall.subscribe(client, "v", since=0)
        for start in range(0, 10_000, 100):
            await hall.publish("w", start, 50)
            await hall.publish("v", start, 50)
        await hall.delivered()
        assert hall.broadcaster.statistics().catch_ups == 1
        heard = await client.hear(10_001)
        assert [one["type"] for one in heard].count("replay_complete") == 1
        events = [one for one in heard if one["type"] == "agent_output"]
        for work_order_id in "wv":
            seqs = [one["seq"] for one in events if one["workOrderId"] == work_order_id]
            assert len(seqs) == 5000
            assert seqs == sorted(set(seqs))


async def test_a_replay_whose_first_page_was_slow_and_empty_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_hall(tmp_path, backlog_limit=100_000) as hall:
        asked, answer, oldest = trio.Event(), trio.Event(), hall.journal.oldest

        async def slow(work_order_id: str | None) -> int:
            asked.set()
            await answer.wait()
            return await oldest(work_order_id)

        monkeypatch.setattr(hall.journal, "oldest", slow)
        client = hall.client()
        hall.subscribe(client, "w")
        hall.subscribe(client, "v", since=0)
        with trio.fail_after(PATIENCE):
            await asked.wait()
        # All of this is live, and more than the socket takes, before the page is there.
        for start in range(0, 5000, 500):
            await hall.publish("w", start, 500)
            await hall.publish("v", start, 500)
        await hall.delivered()
        answer.set()
        heard = await client.hear(10_001)
        assert sorted(one["seq"] for one in heard if one["type"] == "agent_output") == list(range(1, 10_001))


async def test_a_work_order_created_while_somebody_was_behind_is_told_in_its_place(tmp_path: Path) -> None:
    async with open_hall(tmp_path, backlog_limit=50_000) as hall:
        client = hall.client()
        hall.subscribe(client, "w")
        await hall.publish("w", 0, 5000)
        await hall.delivered()
        created = WorkOrderCreated(work_order_id="v", timestamp=datetime.now(UTC), task_prompt="p", status="queued")
        await hall.journal.append([created])
        await hall.publish("w", 5000, 10)
        heard = await client.hear(5011)
        assert [one["seq"] for one in heard] == list(range(1, 5012))
        assert heard[5000]["type"] == "work_order_created"


async def test_retention_while_somebody_was_behind_is_a_gap(tmp_path: Path) -> None:
    retention = Retention(max_events_per_work_order=1000, interval_seconds=0.02)
    async with open_hall(tmp_path, backlog_limit=50_000, retention=retention) as hall:
        client = hall.client()
        hall.subscribe(client, "w")
        await hall.publish("w", 0, 20_000)
        await hall.delivered()
        with trio.fail_after(PATIENCE):
            while await hall.journal.oldest("w") <= 19_000:  # noqa: ASYNC110 - looked at from outside
                await trio.sleep(0.01)
        heard = [(await client.hear(1))[0]]
        while heard[-1].get("seq") != 20_000:
            heard += await client.hear(1)
        (gap,) = [n for n, one in enumerate(heard) if one["type"] == "gap"]
        before, after = heard[:gap], heard[gap + 1 :]
        assert [one["seq"] for one in before] == list(range(1, len(before) + 1))
        assert heard[gap]["fromSeq"] == len(before) + 1
        assert [one["seq"] for one in after] == list(range(heard[gap]["toSeq"] + 1, 20_001))


# --- fairness and cost -----------------------------------------------------------------------------------------------


async def test_other_tasks_run_during_a_large_fan_out(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        clients = [hall.client() for _ in range(300)]
        for client in clients:
            hall.subscribe(client)
        turns: list[int] = []

        async def look() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                turns.append(sum(one.subscriber.outlet.waiting > 0 for one in clients))

        hall.nursery.start_soon(look)
        for _ in range(20):
            await hall.publish("w", 0, 500, 500)
        await hall.delivered()
        # Somebody looked while the delivery had come to some and not to others.
        assert any(0 < seen < 300 for seen in turns)


async def test_who_is_not_concerned_is_not_visited(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        clients = [hall.client() for _ in range(100)]
        for number, client in enumerate(clients):
            hall.subscribe(client, f"w{number}")
        await hall.publish("w7", 0, 10)
        assert [one["workOrderId"] for one in await clients[7].hear(10)] == ["w7"] * 10
        await hall.delivered()
        now = hall.broadcaster.statistics()
        assert (now.delivered, now.subscribers, now.subscriptions) == (10, 100, 100)
        hall.broadcaster.unsubscribe(clients[7].subscriber, "w7")
        await hall.publish("w7", 0, 10)
        await hall.delivered()
        assert hall.broadcaster.statistics().delivered == 10


async def test_several_subscriptions_of_one_connection_in_one_batch(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        client = hall.client()
        for work_order_id in "abc":
            hall.subscribe(client, work_order_id)
        events = [event for n in range(5) for wid in "axbc" for event in outputs(wid, n, 1)]
        await hall.journal.append(events)
        heard = await client.hear(15)
        assert [one["workOrderId"] for one in heard] == list("abc" * 5)
        assert [one["seq"] for one in heard] == sorted(one["seq"] for one in heard)


async def test_the_latency_of_a_line_is_observed(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        client = hall.client()
        hall.subscribe(client)
        born = trio.current_time()
        await hall.journal.append(outputs("w", 0, 1), born=born)
        await client.hear(1)
        await hall.delivered()
        (latency,) = hall.latencies
        assert 0 <= latency <= trio.current_time() - born


# --- emitting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=wire.type_of)
def test_there_is_an_emit_for_every_event(cls: type[Event]) -> None:
    emit = getattr(Emitter, f"emit_{wire.type_of(cls)}")
    parameters = inspect.signature(emit).parameters
    own = {field.name for field in attrs.fields(cls)} - {"type", "timestamp", "seq", "journalled", "truncated"}
    assert own <= set(parameters)
    assert inspect.iscoroutinefunction(emit)
    assert emit.__doc__


async def test_what_is_emitted_is_durable_and_delivered(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        client = hall.client()
        hall.subscribe(client, "w", include_deltas=True)
        emit = hall.broadcaster
        await emit.emit_run_started("w", "r", run_number=1, agent_type="demo")
        await emit.emit_agent_tool_call("w", "r", tool_use_id="t", tool="Read", tool_name="Read", input={"path": "a"})
        await emit.emit_agent_tool_result(
            "w", "r", tool_use_id="t", success=True, content_preview="c", content_length=1, duration_ms=3
        )
        await emit.emit_agent_output_delta("w", "r", content="h")
        await emit.emit_agent_output("w", "r", content="hello")
        await emit.emit_file_changed("w", "r", path="a", action="modified", size_bytes=1)
        await emit.emit_progress_update(
            "w", "r", percentage=100, current_phase="Finalizing", tool_call_count=1, elapsed_seconds=1.5
        )
        await emit.broadcast(outputs("elsewhere", 0, 1)[0], "w")
        await emit.emit_work_order_updated("w", status="succeeded")
        heard = await client.hear(9)
        assert [(one["type"], one.get("seq")) for one in heard] == [
            ("run_started", 1),
            ("agent_tool_call", 2),
            ("agent_tool_result", 3),
            ("agent_output_delta", None),
            ("agent_output", 4),
            ("file_changed", 5),
            ("progress_update", 6),
            ("agent_output", 7),
            ("work_order_updated", 8),
        ]
        assert heard[0]["agentType"] == "demo"
        assert len(await hall.journal.read(0)) == 8


async def test_what_is_too_long_is_split(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        client = hall.client()
        hall.subscribe(client)
        content = "é" * 100_000
        await hall.broadcaster.emit_agent_output("w", "r", content=content)
        heard = await client.hear(len(await hall.journal.read(0)))
        assert len(heard) > 1
        assert "".join(one["content"] for one in heard) == content


async def test_wrong_fields_are_refused_at_once(tmp_path: Path) -> None:
    async with open_hall(tmp_path) as hall:
        with pytest.raises(TypeError, match="agent_type"):
            await hall.broadcaster.emit_run_started("w", "r", run_number=1)
        with pytest.raises(TypeError, match="nonsense"):
            await hall.broadcaster.emit_run_started("w", "r", run_number=1, agent_type="demo", nonsense=1)
