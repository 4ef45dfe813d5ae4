"""Fan-out at a pace: 1,000 events of 300 bytes a second to 100 subscribers; the server's CPU for each delivery.

At this pace nothing can be coalesced: whoever delivers at once makes a system call for each event and socket. The floor is
therefore a program that does nothing but `write()` the same bytes to as many sockets. Ours comes with an append for each event
(a transaction each, in the writer thread), with what is due appended together, and without the journal, which compares fan-out
alone.

A server that needs longer than the pace gives (the last column) was behind, and what is behind is sent together by ours: its
CPU per delivery is then that of a burst, not of the pace.
"""

from __future__ import annotations

from bench.burst import BATCH, NODE, contestants
from bench.duel import interleaved
from bench.peers import Peers
from bench.report import Goal, Result, number


def run(
    peers: Peers, *, clients: int = 100, events: int = 1000, rate: int = 1000, size: int = 300, rounds: int = 2
) -> Result:
    """Measure it."""
    floor = f"bare write() loop ({peers.write_loop()[1]})"
    found, absent = contestants(peers, floor)
    best = interleaved(found, rounds, clients=clients, events=events, rate=rate, size=size)
    base = best[floor].cpu_us
    rows = [(name, number(one.cpu_us), number(one.cpu_us / base), number(one.seconds)) for name, one in best.items()]
    with_journal, without = best[BATCH].cpu_us, best["agentstream, no journal"].cpu_us
    single = best["agentstream, one by one"].cpu_us
    goals = [
        Goal(
            what=f"a: paced to {clients}: CPU per delivery at most 1.25 times the bare loop",
            reached=f"{number(single / base)} times appended one by one, {number(with_journal / base)} times where what was "
            f"due went together, {number(without / base)} times one by one without the journal",
            # Only in all three: what goes together needs fewer system calls than the bare loop makes.
            met=max(single, with_journal, without) / base <= 1.25,
        )
    ]
    peers_there = [name for name in (NODE, "websockets") if name in best]
    if peers_there:
        goals.append(
            Goal(
                what="a: below node ws, websockets with uvloop, and nchan",
                reached=", ".join(f"{number(with_journal / best[name].cpu_us)} times {name}" for name in peers_there)
                + "; uvloop and nchan are not installed here",
                met=False if any(with_journal >= best[name].cpu_us for name in peers_there) else None,
            )
        )
    return Result(
        name="paced",
        title=f"a. {rate:,} events a second to {clients} subscribers",
        story=__doc__ or "",
        columns=("", "CPU us each", "times the bare loop", f"seconds for {events:,} events"),
        rows=rows,
        unit="CPU microseconds per delivery, less is better",
        bars=[(name, one.cpu_us) for name, one in best.items()],
        ratios=[
            f"agentstream: {number(with_journal / one.cpu_us)} times the CPU of {name} with the journal, "
            f"{number(without / one.cpu_us)} times without"
            for name, one in best.items()
            if not name.startswith("agentstream")
        ],
        goals=goals,
        absent=[*absent, "uvloop"],
    )
