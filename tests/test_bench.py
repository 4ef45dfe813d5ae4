"""The benchmarks run, with tiny sizes; what they measure then says nothing, and nothing of it is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Only a hang meets it. In seconds.
PATIENCE = 300.0


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--tiny", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("workload", ["burst", "paced", "latency", "lines", "growth", "replay", "hotpath"])
def test_a_workload_runs_and_tells_ratios_and_who_is_absent(workload: str, tmp_path: Path) -> None:
    told = bench("--only", workload, "--node-modules", str(tmp_path), "--docs", str(tmp_path))
    # Without ws the relay of the latency is absent, and there is nobody else to compare with.
    assert " times " in told or workload == "latency"
    if workload in ("burst", "paced"):
        assert "absent: node ws" in told
    page = (tmp_path / "benchmarks.md").read_text()
    assert "## Goals" in page
    assert f"(benchmarks/{workload}.svg)" in page
    assert (tmp_path / "benchmarks" / f"{workload}.svg").read_text().startswith("<svg")
