"""A whole connection under any interleaving: course, subscriber, outlet and socket, with a journal that answers when it is told to.

`test_subscription` shows the decisions; this shows that what was decided arrives, whatever the socket took meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import attrs
import orjson
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.broadcast.outlet import Outlet
from agentstream.journal.base import Record
from agentstream.model.messages import Filters

PATIENCE = 30.0
#: What the journal is asked in a row for one page, and more than a test ever waits for.
_ANSWERS = 10_000


class Shelf:
    """What a connection needs of a journal. A question is answered when the test says so."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.trimmed = 0
        self.answers = trio.Semaphore(0)

    @property
    def head(self) -> int:
        return len(self.records)

    async def read(
        self,
        after: int,
        *,
        up_to: int | None = None,
        work_order_ids: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int | None = None,
    ) -> list[Record]:
        await self.answers.acquire()
        page: list[Record] = []
        size = 0
        for record in self.records[max(after, self.trimmed) : up_to]:
            if work_order_ids is None or record.work_order_id in work_order_ids:
                page.append(record)
                size += len(record.body)
            if len(page) == limit or (max_bytes is not None and size >= max_bytes):
                break
        return page

    async def oldest(self, work_order_id: str | None) -> int:
        await self.answers.acquire()
        return self.trimmed + 1


@attrs.define
class World:
    """One connection, and what its client should have seen."""

    shelf: Shelf
    broadcaster: EventBroadcaster
    send: trio.MemorySendChannel[Sequence[Record]]
    far: socket.socket
    subscriber: Any
    #: By work order: after which ``seq`` the client asked.
    asked: dict[str, int] = attrs.field(factory=dict)
    heard: bytearray = attrs.field(factory=bytearray)

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("publish", ids, count, size):
                batch = []
                for _ in range(count):
                    for work_order_id in ids:
                        seq = self.shelf.head + 1
                        body = orjson.dumps({"type": "agent_output", "workOrderId": work_order_id, "x": "x" * size})
                        batch.append(Record(seq, work_order_id, "agent_output", body))
                        self.shelf.records.append(batch[-1])
                await self.send.send(batch)
            case ("subscribe", work_order_id, since):
                if work_order_id not in self.asked:
                    after = None if since is None else min(since, self.broadcaster.position)
                    self.asked[work_order_id] = self.broadcaster.position if after is None else after
                    self.broadcaster.subscribe(self.subscriber, work_order_id, Filters(), since=after)
            case ("answer",):
                if self.shelf.answers.statistics().tasks_waiting:
                    self.shelf.answers.release()
            case ("read", size):
                self.hear(size)
            case ("trim",):
                self.shelf.trimmed = self.shelf.head

    def hear(self, size: int) -> bool:
        try:
            data = self.far.recv(size)
        except BlockingIOError:
            return False
        assert data, "the connection was closed"
        self.heard += data
        return True

    async def finish(self) -> None:
        """Answer everything and read everything, until nothing more comes by itself."""
        for _ in range(_ANSWERS):
            self.shelf.answers.release()
        with trio.fail_after(PATIENCE):
            while True:
                while self.hear(1 << 20):
                    pass
                if self.broadcaster.position == self.shelf.head and self.subscriber.settled and not self.hear(1):
                    break
                await trio.testing.wait_all_tasks_blocked(0.0)

    def check(self) -> None:
        seen: dict[str, list[int]] = {one: [] for one in self.asked}
        completed: list[str] = []
        at = 0
        while at < len(self.heard):
            length, start = self.heard[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(self.heard[at + 2 : at + 4]), at + 4
            message = orjson.loads(self.heard[start : start + length])
            at = start + length
            match message["type"]:
                case "agent_output":
                    seen[message["workOrderId"]].append(message["seq"])
                case "gap":
                    seen[message["workOrderId"]] += range(message["fromSeq"], message["toSeq"] + 1)
                case "replay_complete":
                    completed.append(message["workOrderId"])
        assert len(completed) == len(set(completed))
        for work_order_id, after in self.asked.items():
            those = seen[work_order_id]
            assert those == sorted(set(those)), work_order_id
            wanted = {
                one.seq for one in self.shelf.records if one.work_order_id == work_order_id and (one.seq or 0) > after
            }
            assert wanted <= set(those)
            assert min(those, default=after + 1) > after


IDS = st.sampled_from(["v", "w"])
#: Mostly what fills the socket and the backlog, and questions that stay open meanwhile: that is where the difficult states are.
STEP = st.one_of(
    st.tuples(
        st.just("publish"),
        st.sampled_from([("v",), ("w",), ("v", "w")]),
        st.sampled_from([1, 3, 10, 30]),
        st.sampled_from([10, 3000]),
    ),
    st.tuples(st.just("subscribe"), IDS, st.none() | st.integers(0, 60)),
    st.just(("answer",)),
    st.tuples(st.just("read"), st.sampled_from([1000, 100_000])),
    st.just(("trim",)),
)
#: With all tasks run as far as they can, or together with the next step.
STEPS = st.lists(st.tuples(STEP, st.booleans()), min_size=12, max_size=40)


@given(STEPS)
@settings(max_examples=300, deadline=None)
async def test_what_a_client_asked_for_arrives_once_and_in_order_whatever_the_socket_took(
    steps: list[tuple[tuple[Any, ...], bool]],
) -> None:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    far.setblocking(False)
    shelf = Shelf()
    send, receive = trio.open_memory_channel[Sequence[Record]](1000)
    async with trio.open_nursery() as nursery:
        broadcaster = EventBroadcaster(receive, shelf, backlog_limit=20_000)  # type: ignore[arg-type]
        await nursery.start(broadcaster.run)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        subscriber = broadcaster.connect(Outlet(stream, nursery, stall_limit=600.0))
        world = World(shelf, broadcaster, send, far, subscriber)
        for step, settle in [(("subscribe", "w", None), False), *steps]:
            await world.do(step)
            if settle:
                await trio.testing.wait_all_tasks_blocked()
        await world.finish()
        nursery.cancel_scope.cancel()
        subscriber.outlet.abort()
        far.close()
    world.check()
