"""10,000 connected subscribers, of whom 100 are interested: what a connection costs, and what the others cost a delivery.

Our server as in the fan-outs, an append for each event. 100 subscribers of one work order get events at a pace, first alone, then
beside 10,000 who subscribed to another work order. Connecting is timed over all of these, many handshakes at a time, from one
process on the same cores; memory is what became the server's own (anonymous: what no other process can share; the kernel's
buffers are not in it).

Then the other work order has events, and each goes to all 10,000: a trio Instrument in the server notes the longest step of any
task, by the clock and by the CPU that the step took itself. By the clock, a step also has in it what other processes and threads
took of the cores meanwhile. A turn, from one look at the sockets to the next, has many tasks' steps in it.
"""

from __future__ import annotations

import json
import resource

import attrs

from bench import proc
from bench.duel import Crowd, ask, child, subscribers, tell
from bench.peers import Peers, ours
from bench.report import Goal, Result, number

KIB = 1024
#: Open files besides one for each connection.
FILES = 100
#: Seconds that one step may hold the event loop.
PROMISE = 0.005


@attrs.frozen(kw_only=True)
class Found:
    """CPU in microseconds per delivery; memory in bytes a connection; the rest in seconds."""

    alone: float
    beside: float
    memory: float
    connecting: float
    subscribing: float
    #: The longest garbage collection while they connected and subscribed.
    collecting: float
    held: dict[str, float | str]


def measured(others: int, active: int, events: int, rate: int, rounds: int) -> Found:
    """The least of some rounds."""
    with child([*ours("single"), str(events), str(rate), "300", str(active)]) as server:
        port = int(ask(server))

        def go(crowd: Crowd, key: str) -> float:
            tell(server, f"go {key}")
            crowd.wait_for(events)
            tell(server, "cpu")
            tell(crowd.process, "again")
            return float(ask(server)) / (events * crowd.count) * 1e6

        with subscribers(port, active, wish="w") as interested:
            alone = min([go(interested, "w") for _ in range(rounds)])
            before = proc.anonymous(server.pid)
            tell(server, "collector")
            with subscribers(port, others, wish="x") as crowd:
                tell(server, "held")
                collecting = json.loads(ask(server))["collector"]
                memory = (proc.anonymous(server.pid) - before) / others
                beside = min([go(interested, "w") for _ in range(rounds)])
                tell(server, "watch")
                go(crowd, "x")
                tell(server, "held")
                held = json.loads(ask(server))
                return Found(
                    alone=alone,
                    beside=beside,
                    memory=memory,
                    connecting=crowd.connecting,
                    subscribing=crowd.subscribing,
                    collecting=collecting,
                    held=held,
                )


def run(
    _peers: Peers, *, others: int = 10_000, active: int = 100, events: int = 100, rate: int = 100, rounds: int = 5
) -> Result:
    """Measure it; with fewer connections where the system doesn't allow so many open files."""
    others = min(others, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - active - FILES)
    found = measured(others, active, events, rate, rounds)
    ratio, per_second = found.beside / found.alone, others / found.connecting
    step, cpu, turn, collector = (float(found.held[name]) * 1000 for name in ("step", "cpu", "turn", "collector"))
    return Result(
        title=f"f. {others:,} connections, {active} interested",
        story=__doc__ or "",
        columns=("", ""),
        rows=[
            ("memory of a connection, KiB", number(found.memory / KIB)),
            ("handshakes a second", number(per_second)),
            ("subscriptions a second", number(others / found.subscribing)),
            ("longest garbage collection meanwhile, ms", number(found.collecting * 1000)),
            (f"CPU us per delivery to {active}, nobody else connected", number(found.alone)),
            (f"CPU us per delivery to {active}, {others:,} others connected", number(found.beside)),
            (f"fan-out to {others:,}: longest step by the clock, ms ({found.held['step_of']})", number(step)),
            (f"fan-out to {others:,}: longest step by its CPU, ms ({found.held['cpu_of']})", number(cpu)),
            (f"fan-out to {others:,}: longest garbage collection, ms", number(collector)),
            (f"fan-out to {others:,}: longest turn of the event loop, ms", number(turn)),
        ],
        unit="CPU microseconds per delivery, less is better",
        bars=[
            ("agentstream, nobody else connected", found.alone),
            (f"agentstream, {others:,} others connected", found.beside),
        ],
        ratios=[f"beside {others:,} others: {number(ratio)} times the CPU per delivery"],
        goals=[
            Goal(
                what=f"f: at most 20 KiB for each of {others:,} connections",
                reached=f"{number(found.memory / KIB)} KiB",
                met=found.memory <= 20 * KIB,
            ),
            Goal(
                what="f: connecting at 1,000/s or more",
                reached=f"{number(per_second)}/s, the client on the same cores",
                met=per_second >= 1000,
            ),
            Goal(
                what="f: delivery cost depends on the interested ones only (10%)",
                reached=f"{number(ratio)} times beside {others:,} others",
                met=ratio <= 1.1,
            ),
            Goal(
                what=f"a fan-out to {others:,} never holds the event loop for more than 5 ms at a time",
                reached=f"{number(step)} ms by the clock ({found.held['step_of']}), {number(cpu)} ms by the CPU of the step "
                f"({found.held['cpu_of']})",
                met=step <= PROMISE * 1000,
            ),
        ],
    )
