"""`python -m bench`: run the workloads, print their ratios, write docs/benchmarks.md. Exit status 1: a step of ours got dearer."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from bench import burst, connections, growth, guard, hotpath, latency, lines, paced, replay, runs, stopped
from bench.peers import Peers
from bench.report import Result, write

ROOT = Path(__file__).parent.parent
#: Open files of a process, for 10,000 connections and what else it has.
FILES = 16 * 1024


@attrs.frozen
class Workload:
    """``run`` with these sizes besides its own; ``tiny``: to see that it runs, not to measure."""

    run: Callable[..., Result]
    tiny: dict[str, Any]
    full: dict[str, Any] = attrs.field(factory=dict)


#: In the order of the page.
WORKLOADS: dict[str, Workload] = {
    "paced": Workload(paced.run, {"crowds": (2,), "events": 50, "window": 0.2, "rounds": 1}),
    "burst": Workload(burst.run, {"clients": 3, "events": 50, "rounds": 1}),
    "burst-wide": Workload(
        burst.run, {"clients": 5, "events": 20, "rounds": 1}, {"clients": 1000, "events": 200, "rounds": 2}
    ),
    "latency": Workload(latency.run, {"sizes": ((1, 2),), "lines": 5}),
    "stopped": Workload(stopped.run, {"clients": 2, "events": 20, "rounds": 1}),
    "lines": Workload(lines.run, {"lines": 100, "rounds": 1}),
    "runs": Workload(runs.run, {"counts": (1, 2), "window": 1.0}),
    "connections": Workload(connections.run, {"others": 20, "active": 2, "events": 20, "rounds": 1}),
    "growth": Workload(growth.run, {"sizes": ((0, 1), (2000, 20)), "turns": 2}),
    "replay": Workload(replay.run, {"events": 2000, "orders": 20}),
    "hotpath": Workload(hotpath.run, {"times": 200}),
    "guard": Workload(guard.run, {"times": 2}),
}


def facts(peers: Peers, load: str, seconds: dict[str, float]) -> list[tuple[str, str]]:
    """The machine, without names."""
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    return [
        ("day", f"{datetime.now(UTC):%Y-%m-%d}"),
        (
            "cores",
            f"{len(os.sched_getaffinity(0))} ({platform.machine()}, {platform.system()} {platform.release().split('-')[0]})",
        ),
        ("load average before and after", f"{load} and {_load()}"),
        ("Python, SQLite", f"{platform.python_version()}, {sqlite3.sqlite_version}"),
        ("peers", versions),
        (
            "seconds",
            f"{sum(seconds.values()):.0f}: " + ", ".join(f"{name} {one:.0f}" for name, one in seconds.items()),
        ),
    ]


def _load() -> str:
    return " / ".join(f"{one:.1f}" for one in os.getloadavg())


def main() -> int:
    """See --help."""
    options = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks, side by side with peers.")
    options.add_argument(
        "--only",
        action="append",
        choices=list(WORKLOADS),
        help="this workload (may be repeated); prints, writes no page",
    )
    options.add_argument("--tiny", action="store_true", help="as small as can be: only shows that it runs")
    options.add_argument("--node-modules", type=Path, default=ROOT / ".tools" / "node_modules", help="where ws is")
    options.add_argument("--docs", type=Path, help="where to write the page (default: docs, unless --only or --tiny)")
    given = options.parse_args()
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES if allowed == resource.RLIM_INFINITY else min(FILES, allowed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, allowed))
    load = _load()
    results: dict[str, Result] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        peers = Peers(given.node_modules.absolute(), Path(temporary))
        for name in given.only or WORKLOADS:
            workload, start = WORKLOADS[name], time.monotonic()
            result = results[name] = workload.run(peers, **(workload.tiny if given.tiny else workload.full))
            seconds[name] = time.monotonic() - start
            print(f"{result.title}  [{name}: {seconds[name]:.0f} s]")
            for ratio in result.ratios:
                print(f"  {ratio}")
            for absent in result.absent:
                print(f"  absent: {absent}")
            sys.stdout.flush()
        docs = given.docs or (None if given.only or given.tiny else ROOT / "docs")
        if docs is not None:
            write(docs, facts(peers, load, seconds), results)
            print(f"written: {docs / 'benchmarks.md'}")
    print(f"{sum(seconds.values()):.0f} s in all")
    dearer = [one for result in results.values() for one in result.dearer]
    for one in dearer:
        print(f"dearer: {one}")
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
