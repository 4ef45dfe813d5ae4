"""Fan-out at a pace: 1,000 events of 300 bytes a second to 10, 50 and 100 subscribers; the server's CPU for each delivery.

At this pace nothing can be coalesced: whoever delivers at once makes a system call for each event and socket. The floor is
therefore a program that does nothing but `write()` the same bytes to as many sockets. Ours comes with an append for each event
(a transaction each, in the writer thread), with what is due appended together, and without the journal, which compares fan-out
alone; to nchan the events come as HTTP requests, those that are due together. The CPU that does not depend on the number of
subscribers, such as an event's transaction or request, is shared by fewer deliveries where there are few of them.

A server that needs longer than the pace gives (the last column) was behind, and what is behind is sent together by ours: its
CPU per delivery is then that of a burst, not of the pace.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.duel import OURS, interleaved
from bench.peers import BATCH, NCHAN, NO_JOURNAL, NODE, SINGLE, Peers
from bench.report import Goal, Result, number


def run(
    peers: Peers,
    *,
    crowds: Sequence[int] = (10, 50, 100),
    events: int = 1000,
    rate: int = 1000,
    size: int = 300,
    rounds: int = 2,
) -> Result:
    """Measure it."""
    found, absent = peers.fan_out()
    best = {
        clients: interleaved(found, rounds, clients=clients, events=events, rate=rate, size=size) for clients in crowds
    }

    def times(name: str, other: str) -> list[float]:
        return [best[clients][name].cpu_us / best[clients][other].cpu_us for clients in crowds]

    def told(ratios: Sequence[float]) -> str:
        return " / ".join(map(number, ratios))

    floor, most = peers.floor, crowds[-1]
    to = f"to {' / '.join(map(str, crowds))}"
    above = {name: times(name, floor) for name in (SINGLE, BATCH, NO_JOURNAL)}
    goals = [
        Goal(
            what=f"a: paced {to}: CPU per delivery at most 1.25 times the bare loop",
            reached=f"{told(above[SINGLE])} times appended one by one, {told(above[BATCH])} times where what was due went "
            f"together, {told(above[NO_JOURNAL])} times one by one without the journal",
            # Only in all three: what goes together needs fewer system calls than the bare loop makes.
            met=max(max(ratios) for ratios in above.values()) <= 1.25,
        )
    ]
    below = {name: times(SINGLE, name) for name in (NODE, peers.websockets, NCHAN) if name in found}
    if below:
        worse = any(max(ratios) >= 1 for ratios in below.values())
        goals.append(
            Goal(
                what=f"a: paced {to}: CPU per delivery below node ws, websockets on uvloop, and nchan",
                reached="appended one by one "
                + ", ".join(f"{told(ratios)} times {name}" for name, ratios in below.items())
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
            f"seconds for {events:,} events to {most}",
        ),
        rows=[
            (
                name,
                *(number(best[clients][name].cpu_us) for clients in crowds),
                number(times(name, floor)[-1]),
                number(best[most][name].seconds),
            )
            for name in found
        ],
        unit=f"CPU microseconds per delivery to {most}, less is better",
        bars=[(name, best[most][name].cpu_us) for name in found],
        ratios=[
            f"agentstream: {told(times(SINGLE, name))} times the CPU of {name} one by one, "
            f"{told(times(BATCH, name))} times together, {told(times(NO_JOURNAL, name))} times without the journal ({to})"
            for name in found
            if not name.startswith(OURS)
        ],
        goals=goals,
        absent=absent,
    )
