"""The benchmarks run, with tiny sizes; what they measure then says nothing, and nothing of it is asserted."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from bench.guard import RECORDED, dearer
from bench.hotpath import YARDSTICK, steps

ROOT = Path(__file__).parent.parent
#: Only a hang meets it. In seconds.
PATIENCE = 300.0
#: All but ``guard``, which takes a quarter of a minute, and a second size of ``burst``.
WORKLOADS = ("paced", "burst", "latency", "stopped", "lines", "runs", "connections", "growth", "replay", "hotpath")
#: Counts nothing, and says of each step that it took as much as the yardstick.
VALGRIND = f"""#!{sys.executable}
import sys
out = next(one.partition("=")[2] for one in sys.argv if one.startswith("--callgrind-out-file="))
for number in range({{steps}}):
    with open(f"{{{{out}}}}.{{{{number + 1}}}}", "w") as file:
        file.write(f"desc: Trigger: Client Request: step {{{{number}}}} calls 2\\ntotals: 2000\\n")
"""


def bench(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it; ``path``: the only directory where it finds programs."""
    return subprocess.run(
        [sys.executable, "-m", "bench", "--tiny", *arguments],
        cwd=ROOT,
        env=None if path is None else {"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_all_workloads_run_and_tell_ratios_and_who_is_absent(tmp_path: Path) -> None:
    only = [f"--only={name}" for name in WORKLOADS]
    done = bench(*only, "--node-modules", str(tmp_path), "--docs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("absent: node ws") == 2
    page = (tmp_path / "benchmarks.md").read_text()
    assert "## Goals" in page
    for name in WORKLOADS:
        assert f"[{name}: " in done.stdout
        assert f"(benchmarks/{name}.svg)" in page
        assert (tmp_path / "benchmarks" / f"{name}.svg").read_text().startswith("<svg")


def test_the_guard_watches_every_step_and_tells_which_got_dearer() -> None:
    recorded = tomllib.loads(RECORDED.read_text())["steps"]
    with steps() as every:
        assert set(recorded) == {name for name, step in every.items() if step.ours} - {YARDSTICK}
    name, cost = next(iter(recorded.items()))
    assert dearer(recorded, recorded) == []
    assert dearer({**recorded, name: cost * 0.5}, recorded) == []
    (told,) = dearer({**recorded, name: cost * 1.2}, recorded)
    assert name in told
    assert "20% more" in told


def test_the_guard_fails_the_whole_when_a_step_got_dearer_and_is_absent_without_valgrind(tmp_path: Path) -> None:
    done = bench("--only", "guard", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "absent: valgrind" in done.stdout
    with steps() as every:
        (tmp_path / "valgrind").write_text(VALGRIND.format(steps=len(every)))
    (tmp_path / "cc").write_text(f"#!{sys.executable}\n")
    for program in ("valgrind", "cc"):
        (tmp_path / program).chmod(0o700)
    done = bench("--only", "guard", path=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "dearer: fit: small enough for the wire?" in done.stdout
