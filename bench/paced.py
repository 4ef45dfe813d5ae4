"""Fan-out at a pace: 1,000 events of 300 bytes a second to 10, 50 and 100 subscribers; the server's CPU for each delivery.

Whoever delivers each of them at once makes a system call for each event and socket. The yardstick is therefore a program that does
nothing but `write()` the same bytes to as many sockets. The peers make their events themselves; to nchan they come as HTTP
requests, those that are due together. The CPU that does not depend on the number of subscribers, such as an event's transaction
or request, is shared by fewer deliveries where there are few of them.

Ours is first a whole daemon with one agent that prints a line 1,000 times a second (some 360 bytes on the wire): reading, parsing
and journal included. A stream that never stops is read every 20 ms, and what was read together travels together. The other rows are
the fan-out by itself, without that: an append for each event (a transaction each, in the writer thread), what is due appended
together, and no journal.

A server that reaches fewer events a second (the last column) was behind, and what is behind is sent together by ours: its CPU per
delivery is then that of a burst, not of the pace. The agent sleeps for a thousandth of a second after each line, and so makes some
900.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import proc
from bench.daemon import Gate, daemon
from bench.duel import OURS, Outcome, interleaved, subscribers
from bench.latency import delays
from bench.peers import BATCH, NCHAN, NO_JOURNAL, NODE, SINGLE, Peers
from bench.report import Goal, Result, number

#: The whole daemon.
RUN = "agentstream, a run's lines"
#: Seconds of talking before what is measured, and after it.
MARGIN = 0.4


def of_daemon(clients: int, rate: int, window: float) -> Outcome:
    """A whole daemon with one agent. Raises RuntimeError when a subscriber missed a line."""
    lines = int(rate * (window + 2 * MARGIN))
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        with (
            daemon(Path(directory), agent=gate.talker(rate, lines)) as one,
            subscribers(one.port, clients, mode="latency") as crowd,
        ):
            one.submit(["talk"])
            gate.open_for(1)
            time.sleep(MARGIN)
            before, cpu, began = one.published(), proc.cpu(one.pid), time.monotonic()
            time.sleep(window)
            cpu, seconds = proc.cpu(one.pid) - cpu, time.monotonic() - began
            events = one.published() - before
            one.wait(["talk"])
            delays(crowd.stop(), lines)
    return Outcome(seconds, cpu, events * clients)


def run(
    peers: Peers,
    *,
    crowds: Sequence[int] = (10, 50, 100),
    events: int = 1000,
    rate: int = 1000,
    size: int = 300,
    window: float = 2.0,
    rounds: int = 2,
) -> Result:
    """Measure it."""
    found, absent = peers.fan_out()
    best: dict[int, dict[str, Outcome]] = {}
    for clients in crowds:
        ours = min((of_daemon(clients, rate, window) for _ in range(rounds)), key=lambda one: one.cpu_us)
        best[clients] = {RUN: ours} | interleaved(found, rounds, clients=clients, events=events, rate=rate, size=size)

    def times(name: str, other: str) -> list[float]:
        return [best[clients][name].cpu_us / best[clients][other].cpu_us for clients in crowds]

    def told(ratios: Sequence[float]) -> str:
        return " / ".join(map(number, ratios))

    floor, most = peers.floor, crowds[-1]
    to = f"to {' / '.join(map(str, crowds))}"

    def reached(other: str) -> str:
        whole, single, batch, bare = (told(times(name, other)) for name in (RUN, SINGLE, BATCH, NO_JOURNAL))
        return (
            f"{whole} times {other} by the whole daemon (the fan-out alone {single} one by one, {batch} where what is due "
            f"goes together, {bare} one by one without the journal)"
        )

    goals = [
        Goal(
            what=f"a: paced {to}: CPU per delivery at most 1.25 times the bare loop",
            reached=reached(floor),
            met=max(times(RUN, floor)) <= 1.25,
        )
    ]
    others = [name for name in (NODE, peers.websockets, NCHAN) if name in found]
    if others:
        worse = any(max(times(RUN, name)) >= 1 for name in others)
        goals.append(
            Goal(
                what=f"a: paced {to}: CPU per delivery below node ws, websockets on uvloop, and nchan",
                reached="by the whole daemon "
                + ", ".join(f"{told(times(RUN, name))} times {name}" for name in others)
                + (f"; absent: {', '.join(absent)}" if absent else ""),
                met=False if worse else None if absent else True,
            )
        )
    return Result(
        title=f"a. {rate:,} events a second {to} subscribers",
        story=__doc__ or "",
        columns=(
            "CPU us for each delivery",
            *(f"to {clients}" for clients in crowds),
            f"times the bare loop, to {most}",
            f"events/s to {most}",
        ),
        rows=[
            (
                name,
                *(number(best[clients][name].cpu_us) for clients in crowds),
                number(times(name, floor)[-1]),
                number(best[most][name].per_second / most),
            )
            for name in best[most]
        ],
        unit=f"CPU microseconds per delivery to {most}, less is better",
        bars=[(name, best[most][name].cpu_us) for name in best[most]],
        ratios=[f"agentstream {to}: {reached(name)}" for name in found if not name.startswith(OURS)],
        goals=goals,
        absent=absent,
    )
