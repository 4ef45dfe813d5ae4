"""Every Python block of the documentation does what it says, against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.house import PATIENCE, Daemon
from tests.test_docs import PROSE, ROOT

#: Generated from docstrings and signatures, which other tests look after.
GENERATED = ROOT / "docs" / "reference"
BLOCKS = [
    pytest.param(path, number, id=f"{path.relative_to(ROOT)}-{number}")
    for path in PROSE
    if not path.is_relative_to(GENERATED)
    for number, _ in enumerate(re.findall(r"^```python$", path.read_text(), flags=re.MULTILINE))
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("house")) as started:
        yield started


@pytest.mark.parametrize(("path", "number"), BLOCKS)
def test_it_runs(path: Path, number: int, daemon: Daemon, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", blocks[number]],
        cwd=tmp_path,
        env={**os.environ, "AGENTSTREAM_URL": daemon.address, "AGENTSTREAM_TOKEN": daemon.token},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
