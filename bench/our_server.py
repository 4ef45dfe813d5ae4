"""Our side of a fan-out: the real door, WebSocket server, broadcaster and journal, with the benchmark in the agents' place.

argv is MODE EVENTS RATE SIZE CLIENTS; the protocol is told in bench/duel.py. MODE says what the events go through:

* ``batch``: one `Journal.append` for all that is due, as a run appends what its throttle releases together;
* ``single``: an append for each event, from ten tasks in a burst (ten runs), awaited;
* ``nojournal``: records go straight into the broadcaster's channel, one by one. Not what a user gets: for comparing fan-out alone.

Besides the protocol: ``go`` may come again and may name a work order (else ``w``); ``cpu`` prints the CPU seconds since the last
``go``; ``flood`` is more than a socket and a backlog hold, and prints a line; ``watch`` begins to look how long the event loop is
held (`Held`; ``collector``: how long by garbage collections, which takes no time itself), and ``held`` prints what was seen. Events
carry the mark that `bench.subscribers` takes delays from.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import trio

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.collector import short_collections
from agentstream.journal.base import Record
from agentstream.journal.sqlite import open_journal
from agentstream.model import wire
from agentstream.model.events import AgentOutput
from agentstream.server.auth import Rules
from agentstream.server.listener import Door, Entrance, open_tcp
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.server.websocket import WebSocketLimits, WebSocketServer
from agentstream.settings import ServerSettings

TASKS = 10
#: Room for `seq` in the text of an event: ``,"seq":1234``.
SEQ = 11
#: The subscribers here answer no pings. Seconds.
NEVER = 3600.0
#: Events of `flood`, and their bytes.
FLOOD = (120, 60_000)
NUMBERS = count(1)


@attrs.define(eq=False)
class Held(trio.abc.Instrument):
    """How long the event loop was held, in seconds: the longest task step by the clock, and by the CPU that it took itself.

    On a busy machine the first has others' time in it. ``turn`` is from one look at the sockets to the next, many tasks' steps;
    ``collector`` the longest garbage collection, which is in somebody's step.
    """

    step: float = 0.0
    step_of: str = ""
    cpu: float = 0.0
    cpu_of: str = ""
    turn: float = 0.0
    collector: float = 0.0
    _began: tuple[float, float] = attrs.field(factory=lambda: (time.perf_counter(), time.thread_time()))
    _turned: float = attrs.field(factory=time.perf_counter)
    _collecting: float = 0.0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self._began = time.perf_counter(), time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        step, cpu = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
        if step > self.step:
            self.step, self.step_of = step, task.name
        if cpu > self.cpu:
            self.cpu, self.cpu_of = cpu, task.name

    def after_io_wait(self, _timeout: float) -> None:
        """See trio.abc.Instrument."""
        self._turned = time.perf_counter()

    def before_io_wait(self, _timeout: float) -> None:
        """See trio.abc.Instrument."""
        self.turn = max(self.turn, time.perf_counter() - self._turned)

    def collected(self, phase: str, _info: Any) -> None:
        """For `gc.callbacks`."""
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self.collector = max(self.collector, time.perf_counter() - self._collecting)

    def told(self) -> str:
        """As JSON."""
        return json.dumps(attrs.asdict(self, filter=lambda field, _value: not field.name.startswith("_")))


def event(size: int, key: str = "w", *, last: bool = False) -> AgentOutput:
    """An event of about ``size`` bytes on the wire."""
    mark = f"@{time.monotonic_ns()}@{next(NUMBERS)}@"
    room = size - overhead(key) - len(mark)
    content = mark + ("x" * (room - 5) + "~END~" if last else "x" * room)
    return AgentOutput(work_order_id=key, run_id="r", timestamp=datetime.now(UTC), content=content)


@cache
def overhead(key: str) -> int:
    """Bytes of an event on the wire besides its text."""
    bare = AgentOutput(work_order_id=key, run_id="r", timestamp=datetime.now(UTC), content="")
    return len(wire.event_body(bare)) + SEQ


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """No HTTP here."""


@attrs.frozen
class Agents:
    """Who makes the events."""

    mode: str
    events: int
    rate: int
    size: int
    journal: Any
    send: trio.MemorySendChannel[Sequence[Record]]

    def made(self, key: str, first: int, after: int) -> list[AgentOutput]:
        """Some of a round's events, by their numbers."""
        return [event(self.size, key, last=number == self.events - 1) for number in range(first, after)]

    async def go(self, key: str) -> None:
        """One round."""
        await (self._paced(key) if self.rate else self._burst(key))

    async def _hand_in(self, made: Sequence[AgentOutput]) -> None:
        if self.mode == "batch":
            await self.journal.append(made)
        for one in made:
            if self.mode == "single":
                await self.journal.append([one])
            elif self.mode == "nojournal":
                # As the journal publishes it.
                await self.send.send([Record(next(NUMBERS), one.work_order_id, one.type, wire.event_body(one))])

    async def _burst(self, key: str) -> None:
        if self.mode == "single":
            async with trio.open_nursery() as nursery:
                for number in range(TASKS):
                    share = (self.events - 1) // TASKS + (number < (self.events - 1) % TASKS)
                    nursery.start_soon(self._hand_in, self.made(key, 0, share))
            await self._hand_in(self.made(key, self.events - 1, self.events))
        else:
            await self._hand_in(self.made(key, 0, self.events))

    async def _paced(self, key: str) -> None:
        """``rate`` a second; what is due goes together in ``batch``, by itself otherwise."""
        start, done = trio.current_time(), 0
        while done < self.events:
            await trio.sleep_until(start + (done + 1) / self.rate)
            due = max(done + 1, min(self.events, int((trio.current_time() - start) * self.rate)))
            await self._hand_in(self.made(key, done, due))
            done = due


async def converse(agents: Agents) -> None:
    """Do what stdin says, until ``stop``."""
    before, held = 0.0, None
    while True:
        command, *key = (await trio.to_thread.run_sync(sys.stdin.readline)).split()
        if command == "go":
            before = time.process_time()
            await agents.go(*key or ["w"])
        elif command == "flood":
            for _ in range(FLOOD[0]):
                await agents.journal.append([event(FLOOD[1])])
            print(flush=True)
        elif command in ("watch", "collector"):
            held = Held()
            gc.callbacks.append(held.collected)
            if command == "watch":
                trio.lowlevel.add_instrument(held)
        elif command == "held" and held is not None:
            print(held.told(), flush=True)
        else:
            print(time.process_time() - before, flush=True)
            if command == "stop":
                return


async def main(mode: str, events: int, rate: int, size: int) -> None:
    """Serve until told to stop."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        prepare_data_dir(data)
        settings = ServerSettings(data_dir=data, auth=False)
        send, receive = trio.open_memory_channel[Sequence[Record]](256)
        async with open_journal(data / "journal.sqlite", publish=send.send) as journal, trio.open_nursery() as nursery:
            broadcaster = EventBroadcaster(receive, journal)
            rules = Rules.of(settings)
            websocket = WebSocketServer(
                broadcaster=broadcaster,
                journal=journal,
                orchestration=None,  # type: ignore[arg-type] # nobody asks for runs here
                authenticator=TokenStore(data, auth=False),
                origin_allowed=rules.origin_check(),
                limits=WebSocketLimits(ping_interval=NEVER),
            )
            door = Door(app=nothing, websocket=websocket)
            await nursery.start(broadcaster.run)
            await nursery.start(websocket.run)
            (listener,) = await open_tcp("127.0.0.1", 0)
            port = listener.socket.getsockname()[1]  # type: ignore[union-attr] # no TLS
            await nursery.start(door.serve, [Entrance(listener, rules.host_check(port, secure=False))])
            print(port, flush=True)
            await converse(Agents(mode, events, rate, size, journal, send))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    # As `agentstream serve` does.
    with short_collections():
        trio.run(main, sys.argv[1], *map(int, sys.argv[2:5]))
