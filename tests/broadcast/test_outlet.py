"""Two writers on one stream: frames are never torn, whatever the socket takes and whoever is cancelled."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Event, Ping, Pong, TextMessage

from agentstream.broadcast.batch import Chunk
from agentstream.broadcast.frames import PING, close_frame, frame
from agentstream.broadcast.outlet import Outlet

PATIENCE = 30.0


@attrs.define
class Pipe:
    """An outlet on a socket with small buffers, and its other end."""

    outlet: Outlet
    #: Of the descriptor.
    number: int
    far: trio.SocketStream
    nursery: trio.Nursery

    def state(self) -> tuple[bool, bool]:
        return self.outlet.stalled, self.outlet.open

    async def read(self, until: Callable[[list[Event]], bool]) -> list[Event]:
        """What a WebSocket client understands of it."""
        client = Connection(ConnectionType.CLIENT)
        heard: list[Event] = []
        partial = ""
        with trio.fail_after(PATIENCE):
            while not until(heard):
                data = await self.far.receive_some(4096)
                if not data:
                    break
                client.receive_data(bytes(data))
                for event in client.events():
                    if isinstance(event, TextMessage):
                        partial += event.data
                        if event.message_finished:
                            heard.append(TextMessage(partial))
                            partial = ""
                    else:
                        heard.append(event)
        return heard


@asynccontextmanager
async def open_pipe(*, stall_limit: float = 60.0, direct: bool = True) -> AsyncIterator[Pipe]:
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    far_stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
    if not direct:
        stream = trio.StapledStream(stream, stream)  # hides the socket, as TLS does
    async with trio.open_nursery() as nursery:
        outlet = Outlet(stream, nursery, stall_limit=stall_limit)
        try:
            yield Pipe(outlet, near.fileno(), far_stream, nursery)
        finally:
            await outlet.aclose()
            await trio.aclose_forcefully(stream)
            await far_stream.aclose()
            nursery.cancel_scope.cancel()


def chunk(start: int, count: int, size: int = 500) -> Chunk:
    frames = [frame(b"%d " % seq + b"x" * size) for seq in range(start, start + count)]
    return Chunk(b"".join(frames), tuple(map(len, frames)), tuple(range(start, start + count)))


def numbers(heard: list[Event]) -> list[int]:
    return [int(one.data.split()[0]) for one in heard if isinstance(one, TextMessage)]


@pytest.mark.parametrize("direct", [True, False])
async def test_order_is_kept_when_the_socket_is_full(direct: bool) -> None:
    async with open_pipe(direct=direct) as pipe:
        for start in range(0, 200, 10):
            made = chunk(start, 10)
            pipe.outlet.put(made.data, made)
        assert pipe.outlet.waiting > 0
        heard = await pipe.read(lambda heard: len(heard) == 200)
        assert numbers(heard) == list(range(200))
        with trio.fail_after(PATIENCE):
            await pipe.outlet.idle()
        assert pipe.outlet.waiting == 0


@pytest.mark.parametrize("direct", [True, False])
async def test_a_page_with_nothing_for_the_client_behind_a_full_socket_does_not_stop_the_next(direct: bool) -> None:
    async with open_pipe(direct=direct) as pipe:
        live = chunk(0, 100)
        # What becomes live while the first page is read, which fills the socket; then what the pages hold for this client.
        puts: Iterator[list[tuple[bytes, Chunk | None]]] = iter(
            [[(live.data, live), (b"", None)], [(b"", None)], [(frame(b"1000"), None)]]
        )

        async def refill() -> bool:
            page = next(puts, None)
            for data, made in page or ():
                pipe.outlet.put(data, made)
            return page is not None

        pipe.outlet.refill = refill
        pipe.outlet.wake()
        heard = await pipe.read(lambda heard: len(heard) == 101)
        assert numbers(heard) == [*range(100), 1000]
        with trio.fail_after(PATIENCE):
            await pipe.outlet.idle()


@pytest.mark.parametrize("direct", [True, False])
async def test_a_cancelled_control_frame_does_not_tear_the_stream(direct: bool) -> None:
    async with open_pipe(direct=direct) as pipe:
        pipe.outlet.put(frame(b"0 " + b"x" * 30_000))
        with trio.move_on_after(0.01) as scope:
            await pipe.outlet.send_all(PING)
        assert scope.cancelled_caught
        pipe.outlet.put(frame(b"1"))
        heard = await pipe.read(lambda heard: len(heard) == 3)
        assert [type(one) for one in heard] == [TextMessage, Ping, TextMessage]


async def test_nothing_follows_a_close_frame() -> None:
    async with open_pipe() as pipe:
        await pipe.outlet.send_all(close_frame(1001))
        pipe.outlet.put(frame(b"too late"))
        await pipe.outlet.aclose()
        heard = await pipe.read(lambda heard: len(heard) == 2)
        assert [type(one) for one in heard] == [CloseConnection]


async def test_a_closed_outlet_has_nothing_to_do_with_who_got_its_number() -> None:
    async with open_pipe() as pipe:
        pipe.outlet.abort()
        near, far = socket.socketpair()
        with near, far, ExitStack() as stack:
            # Mostly it has the number already: the lowest that is free.
            if near.fileno() != pipe.number:
                os.dup2(near.fileno(), pipe.number)
                stack.callback(os.close, pipe.number)
            far.send(b"for somebody else")
            with trio.fail_after(PATIENCE):
                with pytest.raises(trio.ClosedResourceError):
                    await pipe.outlet.receive_some()
                with pytest.raises(trio.ClosedResourceError):
                    await pipe.outlet.writable()
                with pytest.raises(trio.ClosedResourceError):
                    await pipe.outlet.send_all(PING)
                # Nobody waits for it either, which would hinder its new owner.
                await trio.lowlevel.wait_readable(pipe.number)


async def test_a_pong_between_events() -> None:
    async with open_pipe() as pipe:
        pipe.outlet.put(frame(b"0"))
        await pipe.outlet.send_all(b"\x8a\x00")
        pipe.outlet.put(frame(b"1"))
        heard = await pipe.read(lambda heard: len(heard) == 3)
        assert [type(one) for one in heard] == [TextMessage, Pong, TextMessage]


async def test_a_peer_that_takes_nothing_is_cut_off_at_the_stall_limit(mock_clock: trio.testing.MockClock) -> None:
    async with open_pipe(stall_limit=60) as pipe:
        made = chunk(0, 100)
        pipe.outlet.put(made.data, made)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(59)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.state() == (False, True)
        # It takes a little: the limit begins anew.
        await pipe.far.receive_some(20_000)
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.jump(59)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.state() == (False, True)
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.state() == (True, False)
        assert pipe.outlet.waiting == 0


async def test_the_stall_limit_holds_without_direct_writes(mock_clock: trio.testing.MockClock) -> None:
    async with open_pipe(direct=False) as pipe:
        made = chunk(0, 100)
        pipe.outlet.put(made.data, made)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(61)
        await trio.testing.wait_all_tasks_blocked()
        assert pipe.state() == (True, False)


async def test_writing_to_a_peer_that_is_gone_ends_quietly() -> None:
    async with open_pipe() as pipe:
        closed = trio.Event()
        pipe.outlet.on_closed = closed.set
        await pipe.far.aclose()
        for _ in range(3):
            pipe.outlet.put(frame(b"x"))
        with trio.fail_after(PATIENCE):
            await closed.wait()
            await pipe.outlet.room(0)
            with pytest.raises(trio.ClosedResourceError):
                await pipe.outlet.send_all(PING)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("chunk"), st.integers(1, 6), st.one_of(st.integers(1, 40), st.integers(100, 3000))),
            st.tuples(st.just("drop"), st.just(0), st.just(0)),
            st.tuples(st.just("keep"), st.just(0), st.just(0)),
            st.tuples(st.just("answer"), st.just(0), st.just(0)),
            st.tuples(st.just("read"), st.integers(1, 5000), st.just(0)),
        ),
        max_size=25,
    )
)
def test_what_is_dropped_is_known_exactly(steps: list[tuple[str, int, int]]) -> None:
    """Whatever was written when the backlog is dropped: what the peer gets, and what is said to be lost, is everything, once."""

    async def run() -> None:
        async with open_pipe() as pipe:
            seqs = itertools.count()
            put: list[int] = []
            lost: list[int] = []
            answers = 0
            raw = b""
            for what, count, size in steps:
                if what == "chunk":
                    start = next(seqs)
                    for _ in range(count - 1):
                        next(seqs)
                    made = chunk(start, count, size)
                    put.extend(range(start, start + count))
                    pipe.outlet.put(made.data, made)
                elif what == "answer":
                    answers += 1
                    pipe.outlet.put(frame(b"-1"))
                elif what == "keep":
                    pipe.outlet.keep()
                elif what == "drop":
                    lowest = pipe.outlet.drop()
                    if lowest is not None:
                        lost.append(lowest)
                else:
                    with trio.move_on_after(0):
                        raw += await pipe.far.receive_some(count)
                    await trio.testing.wait_all_tasks_blocked()
            pipe.outlet.put(frame(b"-2"))
            client = Connection(ConnectionType.CLIENT)
            heard: list[int] = []
            text = ""
            with trio.fail_after(PATIENCE):
                while -2 not in heard:
                    client.receive_data(raw or await pipe.far.receive_some(4096))
                    raw = b""
                    for event in client.events():
                        assert isinstance(event, TextMessage)
                        text += event.data
                        if event.message_finished:
                            heard.append(int(text.split()[0]))
                            text = ""
            got = [seq for seq in heard if seq >= 0]
            assert heard.count(-1) == answers
            assert got == sorted(set(got))
            missing = sorted(set(put) - set(got))
            # The lowest of each drop; each missing one is at or above one of them.
            assert set(lost) <= set(missing)
            assert all(any(seq >= low for low in lost) for seq in missing)
            assert (not missing) == (not lost)

    trio.run(run)
