"""One fan-out of one server to subscribers in another process, timed from outside.

The protocol that every server here speaks: it prints its port; at the line ``go`` on stdin it sends EVENTS texts of SIZE
bytes to all that are connected (RATE a second; 0: as fast as it can), the last one with ``~END~`` in it; at the line
``stop`` it prints the CPU seconds since ``go`` (all threads, user and system) and exits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence

import attrs

#: Seconds for any one of these; only a hang meets it.
PATIENCE = 120.0


@attrs.frozen
class Outcome:
    """``seconds`` from the word go to the last subscriber's last event; ``cpu`` seconds of the server."""

    seconds: float
    cpu: float
    deliveries: int

    @property
    def per_second(self) -> float:
        """Deliveries a second of wall-clock time."""
        return self.deliveries / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU for each delivery."""
        return self.cpu / self.deliveries * 1e6


def ask(process: subprocess.Popen[str]) -> str:
    """The next line of a child."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} ended with {process.wait(PATIENCE)}")
    return line


def tell(process: subprocess.Popen[str], line: str) -> None:
    """A line for a child."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def start(argv: Sequence[str], *, quiet: bool = False) -> subprocess.Popen[str]:
    """A child with pipes; use it as a context, and kill it. ``quiet``: what it logs is thrown away."""
    stderr = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)


def subscribers(port: int, count: int, *, subscribe: bool, mode: str) -> subprocess.Popen[str]:
    """`bench.subscribers`, connected."""
    child = start([sys.executable, "-m", "bench.subscribers", str(port), str(count), str(int(subscribe)), mode])
    try:
        ask(child)
    except RuntimeError:
        child.kill()
        raise
    return child


def duel(server: Sequence[str], *, clients: int, events: int, rate: int, size: int, ours: bool = False) -> Outcome:
    """Run it once. Raises RuntimeError when a subscriber missed an event."""
    with start(
        [*server, str(events), str(rate), str(size)] + ([str(clients)] if "write_loop" in server[-1] else [])
    ) as one:
        try:
            with subscribers(int(ask(one)), clients, subscribe=ours, mode="count") as other:
                try:
                    began = time.monotonic()
                    tell(one, "go")
                    seen = json.loads(ask(other))
                    tell(one, "stop")
                    cpu = float(ask(one))
                finally:
                    other.kill()
        finally:
            one.kill()
    if seen["frames"] != events:
        raise RuntimeError(f"{server}: a subscriber got {seen['frames']} of {events} events")
    return Outcome(seen["at"] - began, cpu, clients * events)


def interleaved(contestants: dict[str, Sequence[str]], rounds: int, **sizes: int) -> dict[str, Outcome]:
    """Each in turn, ``rounds`` times, so that a busy moment of the machine hits all; the least time and the least CPU of each."""
    best: dict[str, Outcome] = {}
    for _ in range(rounds):
        for name, server in contestants.items():
            outcome = duel(server, ours="bench.our_server" in server, **sizes)
            print(f"  {name}: {outcome.seconds:.2f} s, {outcome.cpu_us:.2f} us each", file=sys.stderr, flush=True)
            known = best.get(name, outcome)
            best[name] = Outcome(min(known.seconds, outcome.seconds), min(known.cpu, outcome.cpu), outcome.deliveries)
    return best


def ours(mode: str) -> tuple[str, ...]:
    """How to start our server; see `bench.our_server`."""
    return (sys.executable, "-m", "bench.our_server", mode)
