"""Fan-out of a burst: 1,000 events of 300 bytes, handed in at once, to 100 subscribers over loopback sockets.

Ours is the daemon's own door, WebSocket server, broadcaster and journal; each event is committed before anybody sees it,
save in the row that says so. Beside it the same with node and `ws` (a loop of `client.send`), with `websockets` on asyncio
(its `broadcast()`), and a bare loop of `write()` that does nothing else. The subscribers are one process of raw sockets
that only take bytes. Deliveries a second are by wall-clock time, from the word go to the last byte at the last subscriber,
and so bounded by that process too.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.duel import interleaved, ours
from bench.peers import Peers
from bench.report import Goal, Result, number

BATCH = "agentstream, one batch"
NODE = "node ws"


def contestants(peers: Peers, floor: str) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Who is there, by name, ours first; and who is absent."""
    found: dict[str, Sequence[str]] = {
        BATCH: ours("batch"),
        "agentstream, one by one": ours("single"),
        "agentstream, no journal": ours("nojournal"),
    }
    absent = ["nginx with nchan"]
    for name, argv in ((NODE, peers.node_ws), ("websockets", peers.websockets)):
        if argv is None:
            absent.append(name)
        else:
            found[name] = argv
    found[floor] = peers.write_loop()[0]
    return found, absent


def run(peers: Peers, *, clients: int = 100, events: int = 1000, size: int = 300, rounds: int = 2) -> Result:
    """Measure it."""
    floor = f"bare write() loop ({peers.write_loop()[1]})"
    found, absent = contestants(peers, floor)
    best = interleaved(found, rounds, clients=clients, events=events, rate=0, size=size)
    rows = [
        (name, number(one.per_second), number(one.seconds * 1000), number(one.cpu_us)) for name, one in best.items()
    ]
    ratios = [
        f"{name}: {number(best[name].per_second / one.per_second)} times the deliveries/s of {peer}, "
        f"at {number(best[name].cpu_us / one.cpu_us)} times its CPU"
        for name in list(found)[:3]
        for peer, one in best.items()
        if not peer.startswith("agentstream")
    ]
    goals = [Goal(what="b: at least 5 times nginx with nchan", reached="nchan is not installed here", met=None)]
    if NODE in best:
        ratio = best[BATCH].per_second / best[NODE].per_second
        by_one = best["agentstream, one by one"].per_second / best[NODE].per_second
        goals.insert(
            0,
            Goal(
                what="b: burst of 100 x 1,000: at least 10 times node ws",
                reached=f"{number(ratio)} times as one batch; {number(by_one)} times appended one by one",
                met=min(ratio, by_one) >= 10,
            ),
        )
    return Result(
        name="burst",
        title=f"b. Burst to {clients} subscribers",
        story=__doc__ or "",
        columns=("", "deliveries/s", "ms in all", "CPU us each"),
        rows=rows,
        unit="deliveries/s, more is better",
        bars=[(name, one.per_second) for name, one in best.items()],
        ratios=ratios,
        goals=goals,
        absent=absent,
    )
