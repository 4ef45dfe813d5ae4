"""Whether a step of ours got dearer than was recorded: by the instructions that it takes, which hardly depend on the machine.

Each step of the hot path runs under valgrind's callgrind, which counts instructions in user mode one by one; two runs give
the same four digits. What is compared is the step's instructions as a multiple of those of `json.loads` of the same line, in
the same process, with what is recorded in bench/guard.toml. Tried and rejected: `perf stat` (virtual machines mostly have no
counters), and ratios of times (beside other programs they vary by a tenth and more, and would hide what they should show).

`python -m bench.guard` records anew: after a step was made cheaper, or got dearer for a reason that the commit message tells.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from bench.hotpath import YARDSTICK, steps
from bench.peers import SOURCES, Peers, python
from bench.report import Goal, Result, number

RECORDED = Path(__file__).parent / "guard.toml"
#: How much dearer a step may become before it is told: other builds of Python, SQLite and the C library differ by less.
TOLERANCE = 0.05
#: Calls of each step that are counted, and before that made: caches fill and code specializes in the first ones.
TIMES, WARM = 200, 10
HEADER = f"""\
# What each step of the hot path takes, in instructions, as a multiple of those of `json.loads` of the same line in the same
# process. `make bench` fails where one takes {TOLERANCE:.0%} more. Written by `python -m bench.guard`; when a step gets dearer
# for a good reason, write it anew and tell the reason in the commit message.
"""


def count(library: Path, times: int) -> None:
    """Run each step, under callgrind, and let it write down what each took."""
    callgrind = ctypes.CDLL(str(library))
    with steps() as every:
        gc.disable()
        callgrind.begin()
        for number, step in enumerate(every.values()):
            # A batch's cost has many events in it already.
            calls = max(4, times // step.events)
            for _ in range(min(WARM, calls)):
                step.work()
            callgrind.forget()
            for _ in range(calls):
                step.work()
            callgrind.write_down(f"step {number} calls {calls}".encode())


def counted(valgrind: str, cc: str, times: int = TIMES) -> dict[str, float]:
    """Instructions of each step per event, as a multiple of the yardstick's."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        library = home / "callgrind.so"
        subprocess.run([cc, "-O2", "-shared", "-fPIC", "-o", library, SOURCES / "callgrind.c"], check=True)
        subprocess.run(
            [
                *(
                    valgrind,
                    "--quiet",
                    "--tool=callgrind",
                    "--instr-atstart=no",
                    f"--callgrind-out-file={home / 'out'}",
                ),
                *(sys.executable, "-m", "bench.guard", str(library), str(times)),
            ],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stderr=subprocess.DEVNULL,
            check=True,
        )
        taken: dict[int, float] = {}
        for path in home.glob("out.*"):
            text = path.read_text()
            which, total = re.search(r"step (\d+) calls (\d+)", text), re.search(r"^totals: (\d+)", text, re.MULTILINE)
            assert which is not None
            assert total is not None
            taken[int(which[1])] = int(total[1]) / int(which[2])
    with steps() as every:
        # With what is told by itself in the table of the hot path: a difference of two would hide in their noise.
        found = {name: taken[number] / step.events for number, (name, step) in enumerate(every.items())}
        return {name: found[name] / found[YARDSTICK] for name, step in every.items() if step.ours and name != YARDSTICK}


def dearer(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """The steps that take more than they may."""
    return [
        f"{name}: {now:.3f} times json.loads in instructions, {now / then - 1:.0%} more than the {then:.3f} recorded"
        for name, now in found.items()
        if (then := recorded.get(name)) is not None and now > then * (1 + TOLERANCE)
    ]


def run(_peers: Peers, *, times: int = TIMES) -> Result:
    """Count, and compare; where valgrind or a C compiler is missing, or with another Python, nothing is told."""
    recorded = tomllib.loads(RECORDED.read_text())
    valgrind, cc = shutil.which("valgrind"), shutil.which("cc")
    found = counted(valgrind, cc, times) if valgrind and cc else {}
    same = recorded["python"] == python()
    worse = dearer(found, recorded["steps"]) if same else []
    reached = "; ".join(worse) or "none did"
    if not found:
        reached = "valgrind or a C compiler is not installed here"
    elif not same:
        reached = f"recorded with {recorded['python']}, this is {python()}"
    return Result(
        title="Guard: instructions of the hot path",
        story=__doc__ or "",
        columns=("step", "instructions, times json.loads", "recorded"),
        rows=[(name, f"{now:.3f}", f"{recorded['steps'].get(name, 0):.3f}") for name, now in found.items()],
        unit="instructions per event, times those of json.loads",
        bars=[(f"agentstream, {name}", now) for name, now in found.items()],
        ratios=[f"{name}: {number(now)} times the instructions of json.loads" for name, now in found.items()],
        goals=[
            Goal(
                what=f"no step of the hot path takes {TOLERANCE:.0%} more instructions than recorded",
                reached=reached,
                met=not worse if found and same else None,
            )
        ],
        absent=[] if found else ["valgrind"],
        dearer=worse,
    )


def record() -> None:
    """Write down what the steps take now."""
    valgrind, cc = shutil.which("valgrind"), shutil.which("cc")
    if not valgrind or not cc:
        raise SystemExit("recording needs valgrind and a C compiler")
    lines = [f'"{name}" = {now:.4f}' for name, now in counted(valgrind, cc).items()]
    RECORDED.write_text("\n".join([f'{HEADER}python = "{python()}"', "", "[steps]", *lines]) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        count(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        record()
