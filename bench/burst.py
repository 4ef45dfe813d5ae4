"""Fan-out of a burst: events of 300 bytes, handed in at once, to many subscribers over loopback sockets.

Ours is the daemon's own door, WebSocket server, broadcaster and journal; each event is committed before anybody sees it,
save in the row that says so. Beside it the same with node and `ws` (a loop of `client.send`), with `websockets` (its
`broadcast()`), with nginx and its module nchan (one worker; the events come in over HTTP, pipelined), and a bare loop of
`write()` that does nothing else. The subscribers are one process of raw sockets that only take bytes. Deliveries a second are
by wall-clock time, from the word go to the last byte at the last subscriber, and so bounded by that process too.
"""

from __future__ import annotations

from bench.duel import OURS, interleaved
from bench.peers import BATCH, NCHAN, NODE, SINGLE, Peers
from bench.report import Goal, Result, number


def run(peers: Peers, *, clients: int = 100, events: int = 1000, size: int = 300, rounds: int = 5) -> Result:
    """Measure it."""
    found, absent = peers.fan_out()
    best = interleaved(found, rounds, clients=clients, events=events, rate=0, size=size)
    rows = [
        (name, number(one.per_second), number(one.seconds * 1000), number(one.cpu_us)) for name, one in best.items()
    ]
    ratios = [
        f"{name}: {number(best[name].per_second / one.per_second)} times the deliveries/s of {peer}, "
        f"at {number(best[name].cpu_us / one.cpu_us)} times its CPU"
        for name in found
        if name.startswith(OURS)
        for peer, one in best.items()
        if not peer.startswith(OURS)
    ]
    goals = []
    for peer, times in ((NODE, 10), (NCHAN, 5)):
        what = f"b: burst of {clients:,} x {events:,}: at least {times} times {peer}"
        if peer not in best:
            goals.append(Goal(what=what, reached=f"{peer} is not installed here", met=None))
            continue
        batch, single = (best[name].per_second / best[peer].per_second for name in (BATCH, SINGLE))
        reached = f"{number(batch)} times as one batch; {number(single)} times appended one by one"
        # Both: a peer has no batches.
        goals.append(Goal(what=what, reached=reached, met=min(batch, single) >= times))
    return Result(
        title=f"b. Burst of {events:,} events to {clients:,} subscribers",
        story=__doc__ or "",
        columns=("", "deliveries/s", "ms in all", "CPU us each"),
        rows=rows,
        unit="deliveries/s, more is better",
        bars=[(name, one.per_second) for name, one in best.items()],
        ratios=ratios,
        goals=goals,
        absent=absent,
    )
