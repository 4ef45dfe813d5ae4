"""One connection, over memory streams and a virtual clock: what a peer that says nothing leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
import trio.testing
import trio_websocket

from agentstream.client.nursery import open_helpers
from agentstream.client.transport import Address
from agentstream.client.websocket import Connection
from agentstream.errors import InvalidMessage, TooLarge, Unauthorized, Unreachable

ADDRESS = Address("127.0.0.1", 7171)


class Peer:
    """The other end. It answers until it is `mute`, and even then the stream stays open."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.websocket: trio_websocket.WebSocketConnection

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        """What trio-websocket calls to start its reader."""
        self._nursery.start_soon(self._read, reader)

    async def _read(self, reader: Callable[[], Awaitable[None]]) -> None:
        with self._scope:
            await reader()

    async def accept(self, stream: trio.abc.Stream) -> None:
        request = await trio_websocket.wrap_server_stream(cast("trio.Nursery", self), cast("trio.SocketStream", stream))
        self.websocket = await request.accept()

    def mute(self) -> None:
        self._scope.cancel()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Peer]]:
    """A connection and its other end."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_helpers() as nursery:
        peer = Peer(nursery)
        nursery.start_soon(peer.accept, theirs)
        connection = await Connection.over(nursery, ours, ADDRESS, "secret")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(100_000):  # noqa: ASYNC100 - for the body of the test
            yield connection, peer


async def test_a_peer_that_went_silent_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (connection, peer):
        peer.mute()
        started = trio.current_time()
        with pytest.raises(Unreachable, match="stopped answering"):
            await connection.receive()
        assert trio.current_time() - started == pytest.approx(40)


async def test_a_quiet_peer_that_answers_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (connection, peer), trio.open_nursery() as nursery:

        async def speak_late() -> None:
            await trio.sleep(3600)
            await peer.websocket.send_message("at last")

        nursery.start_soon(speak_late)
        assert await connection.receive() == "at last"


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        (1008, Unauthorized, "because"),
        (1009, TooLarge, "because"),
        (1001, Unreachable, "the daemon stopped"),
        (4008, Unreachable, "took nothing"),
        (1011, Unreachable, "lost the connection"),
    ],
)
async def test_how_the_daemon_closes_decides_whether_to_come_back(
    code: int, expected: type[Exception], text: str
) -> None:
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.websocket.aclose, code, "because")
        with pytest.raises(expected, match=text):
            await connection.receive()


async def test_what_came_before_the_end_is_received_first() -> None:
    async with connected() as (connection, peer), trio.open_nursery() as nursery:
        await peer.websocket.send_message("last words")
        nursery.start_soon(peer.websocket.aclose, 1001)
        await trio.testing.wait_all_tasks_blocked()
        assert await connection.receive() == "last words"
        with pytest.raises(Unreachable):
            await connection.receive()


async def test_a_binary_message_is_not_the_daemons() -> None:
    async with connected() as (connection, peer):
        await peer.websocket.send_message(b"\x00")
        with pytest.raises(InvalidMessage, match="another program"):
            await connection.receive()


async def test_closing_takes_at_most_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (connection, peer):
        peer.mute()
        started = trio.current_time()
        await connection.aclose()
        assert trio.current_time() - started == pytest.approx(1)


async def test_a_dropped_connection_receives_and_sends_nothing_more() -> None:
    async with connected() as (connection, _):
        connection.drop()
        with pytest.raises(Unreachable):
            await connection.receive()
        with pytest.raises(Unreachable):
            await connection.send(b"{}")
