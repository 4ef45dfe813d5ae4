"""Our side of a fan-out: the real door, WebSocket server, broadcaster and journal, with the benchmark in the agents' place.

argv is MODE EVENTS RATE SIZE; the protocol is told in bench/duel.py. MODE says what the events go through:

* ``batch``: one `Journal.append` for all that is due, as a run appends what its throttle releases together;
* ``single``: an append for each event, from ten tasks in a burst (ten runs), awaited;
* ``nojournal``: records go straight into the broadcaster's channel, one by one. Not what a user gets: for comparing fan-out alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.journal.base import Record
from agentstream.journal.sqlite import open_journal
from agentstream.model import wire
from agentstream.model.events import AgentOutput
from agentstream.server.auth import Rules
from agentstream.server.listener import Door, Entrance, open_tcp
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.server.websocket import WebSocketServer
from agentstream.settings import ServerSettings

TASKS = 10
#: Room for `seq` in the text of an event: ``,"seq":1234``.
SEQ = 11


def event(size: int, *, last: bool = False) -> AgentOutput:
    """An event of about ``size`` bytes on the wire."""
    bare = AgentOutput(work_order_id="w", run_id="r", timestamp=datetime.now(UTC), content="")
    room = size - len(wire.event_body(bare)) - SEQ
    return AgentOutput(
        work_order_id="w",
        run_id="r",
        timestamp=bare.timestamp,
        content="x" * (room - 5) + "~END~" if last else "x" * room,
    )


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """No HTTP here."""


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
            )
            door = Door(app=nothing, websocket=websocket)
            await nursery.start(broadcaster.run)
            await nursery.start(websocket.run)
            (listener,) = await open_tcp("127.0.0.1", 0)
            port = listener.socket.getsockname()[1]  # type: ignore[union-attr] # no TLS
            await nursery.start(door.serve, [Entrance(listener, rules.host_check(port, secure=False))])
            print(port, flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
            before = time.process_time()
            if rate:
                await paced(mode, events, rate, size, journal, send)
            else:
                await burst(mode, events, size, journal, send)
            await trio.to_thread.run_sync(sys.stdin.readline)
            print(time.process_time() - before, flush=True)
            nursery.cancel_scope.cancel()


def record(number: int, made: AgentOutput) -> Record:
    """As the journal publishes it."""
    return Record(number, "w", made.type, wire.event_body(made))


async def burst(mode: str, events: int, size: int, journal: Any, send: Any) -> None:
    """All at once."""
    if mode == "batch":
        await journal.append([event(size, last=index == events - 1) for index in range(events)])
    elif mode == "nojournal":
        for index in range(events):
            await send.send([record(index + 1, event(size, last=index == events - 1))])
    else:

        async def run(count: int) -> None:
            for _ in range(count):
                await journal.append([event(size)])

        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                share = (events - 1) // TASKS + (number < (events - 1) % TASKS)
                nursery.start_soon(run, share)
        await journal.append([event(size, last=True)])


async def paced(mode: str, events: int, rate: int, size: int, journal: Any, send: Any) -> None:
    """``rate`` a second; what is due goes together in ``batch``, by itself otherwise."""
    start, done = trio.current_time(), 0
    while done < events:
        await trio.sleep_until(start + (done + 1) / rate)
        due = max(done + 1, min(events, int((trio.current_time() - start) * rate)))
        made = [event(size, last=index == events - 1) for index in range(done, due)]
        if mode == "batch":
            await journal.append(made)
        elif mode == "single":
            for one in made:
                await journal.append([one])
        else:
            for number, one in enumerate(made, done + 1):
                await send.send([record(number, one)])
        done = due


if __name__ == "__main__":
    trio.run(main, sys.argv[1], *map(int, sys.argv[2:5]))
