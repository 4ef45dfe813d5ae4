"""Whether others wait for a subscriber that stopped reading: the delay of 20 subscribers without and with such a one beside them.

The delay is from an event's append to the recv(), 100 events a second with a transaction each, in our server: far below what the
machine can do, so that waiting would show. The one that stopped reading has taken nothing of 7 MB when the measurement begins, so
that its socket is full and its backlog was dropped. Without and with it in turn; the least of the rounds.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.duel import ask, child, subscribers, tell
from bench.latency import delays, late, middle
from bench.peers import Peers, ours
from bench.report import Goal, Result, number

ALONE, BESIDE = "agentstream", "agentstream, beside one that stopped reading"


def run(_peers: Peers, *, clients: int = 20, events: int = 200, rate: int = 100, rounds: int = 3) -> Result:
    """Measure it."""
    best: dict[str, tuple[float, float]] = {}
    with child([*ours("single"), str(events), str(rate), "300", str(clients)]) as server:
        port = int(ask(server))
        for name in (ALONE, BESIDE) * rounds:
            with ExitStack() as stack:
                if name == BESIDE:
                    stack.enter_context(subscribers(port, 1, mode="asleep"))
                tell(server, "flood")
                ask(server)
                crowd = stack.enter_context(subscribers(port, clients, mode="latency"))
                tell(server, "go")
                tell(server, "cpu")
                # It is answered when all are appended.
                ask(server)
                time.sleep(0.5)
                times = delays(crowd.stop(), events)
            known = best.get(name, (times[-1], times[-1]))
            best[name] = min(known[0], middle(times)), min(known[1], late(times))
    p50, p99 = (best[BESIDE][index] / best[ALONE][index] for index in (0, 1))
    return Result(
        title="Nobody waits for a subscriber that stopped reading",
        story=__doc__ or "",
        columns=("", "p50 ms", "p99 ms"),
        rows=[(name, *map(number, one)) for name, one in best.items()],
        unit="p50 in milliseconds, less is better",
        bars=[(name, one[0]) for name, one in best.items()],
        ratios=[
            f"beside one that stopped reading: {number(p50)} times the p50, {number(p99)} times the p99 of the others"
        ],
        goals=[
            Goal(
                what="a subscriber that stopped reading leaves the others' p50 within 10%",
                reached=f"{number(p50)} times",
                met=p50 <= 1.1,
            )
        ],
    )
