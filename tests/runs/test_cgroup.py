"""Cgroups: what is written where, on a directory tree that looks like one; and killing and clearing away in a real one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agentstream.errors import ConfigError, ExecutionCancelled
from agentstream.runs.cgroup import Groups, divide, enforce, make_ready, own_directory, prepare
from agentstream.runs.executor import StreamingExecutor
from agentstream.runs.spec import GroupFiles, RunLimits
from agentstream.settings import MIB, LimitSettings

MOUNTS = (
    "25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw\n"
    "29 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)
LIMITS = LimitSettings(processes=50, memory_bytes=64 * MIB, open_files=256, cpu_seconds=60, cpu_weight=50)


@pytest.mark.parametrize(
    ("cgroup", "mounts", "expected"),
    [
        ("0::/system.slice/agentstream.service\n", MOUNTS, "/sys/fs/cgroup/system.slice/agentstream.service"),
        ("4:memory:/x\n0::/\n", MOUNTS.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "), "/sys/fs/cgroup/unified"),
        # In a container that sees a part of the tree.
        ("0::/docker/1/in\n", MOUNTS.replace(" / /sys/fs/cgroup", " /docker/1 /sys/fs/cgroup"), "/sys/fs/cgroup/in"),
        ("0::/elsewhere\n", MOUNTS.replace(" / /sys/fs/cgroup", " /docker/1 /sys/fs/cgroup"), None),
        ("4:memory:/x\n", MOUNTS, None),
        ("0::/x\n", "", None),
    ],
)
def test_our_directory_is_found_in_what_the_kernel_tells(cgroup: str, mounts: str, expected: str | None) -> None:
    assert own_directory(cgroup, mounts) == (Path(expected) if expected else None)


def test_a_group_holds_what_its_controllers_can_and_rlimits_the_rest() -> None:
    assert divide(LIMITS, ("memory", "pids", "cpu")) == (
        {"RLIMIT_NOFILE": 256, "RLIMIT_CPU": 60},
        {"cpu.weight": "50", "pids.max": "50", "memory.max": str(64 * MIB)},
    )
    assert divide(LIMITS, ("memory",)) == (
        {"RLIMIT_NPROC": 50, "RLIMIT_NOFILE": 256, "RLIMIT_CPU": 60},
        {"memory.max": str(64 * MIB)},
    )
    assert divide(LIMITS, ()) == (
        {"RLIMIT_NPROC": 50, "RLIMIT_DATA": 64 * MIB, "RLIMIT_NOFILE": 256, "RLIMIT_CPU": 60},
        {},
    )
    assert divide(LimitSettings(), ()) == ({}, {})


def test_without_a_group_of_ours_there_is_none_for_runs() -> None:
    assert enforce(LimitSettings(), None) == ({}, None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that looks like a delegated group with us in it, and what a killed daemon left."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text("1\n77\n")
    (tmp_path / "run-left").mkdir()
    (tmp_path / "run-busy").mkdir()
    (tmp_path / "run-busy" / "cgroup.procs").write_text("5\n")  # rmdir fails, as it does in a group with processes
    return tmp_path


def test_the_daemon_moves_aside_and_hands_its_controllers_down(tree: Path) -> None:
    assert make_ready(tree, 77) == Groups(tree, frozenset({"memory", "pids", "cpu"}))
    assert (tree / "daemon" / "cgroup.procs").read_text() == "77"
    assert (tree / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert groups_in(tree) == ["daemon", "run-busy"]


def test_who_is_not_in_the_group_does_not_move(tree: Path) -> None:
    make_ready(tree, 78)
    assert not (tree / "daemon").exists()


def test_a_configured_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits\.cgroup: .* can't hold the groups of runs"):
        prepare(tmp_path)


# --- a real one --------------------------------------------------------------------------------------------------------


def hierarchy() -> Path | None:
    """A directory of the real cgroup v2 hierarchy in which groups can be made."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if source.startswith("cgroup2 ") and os.access(mount.split()[4], os.W_OK):
            return Path(mount.split()[4])
    return None


HIERARCHY = hierarchy()
needs_cgroups = pytest.mark.skipif(HIERARCHY is None, reason="no cgroup v2 hierarchy that may be written in")


@pytest.fixture
def real() -> Iterator[Path]:
    assert HIERARCHY is not None
    parent = HIERARCHY / f"agentstream-test-{secrets.token_hex(4)}"
    parent.mkdir()
    yield parent
    parent.rmdir()  # fails when anything is left in it


def groups_in(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.is_dir())


def in_group(parent: Path, run_id: str) -> StreamingExecutor:
    limits = RunLimits(cgroup=GroupFiles(parent=str(parent), files={"cgroup.max.depth": "3"}))
    return StreamingExecutor("w", run_id, limits=limits, watch_workspace=False)


@needs_cgroups
async def test_a_run_is_in_its_group_and_the_group_goes_with_it(real: Path) -> None:
    script = "cat /proc/self/cgroup; d=$1/r1; cat $d/cgroup.max.depth; grep -c $$ $d/cgroup.procs"
    result = await in_group(real, "r1").execute("/bin/sh", ["-c", script, "sh", str(real)])
    lines = result.stdout.splitlines()
    assert any(line.startswith("0::") and line.endswith(f"/{real.name}/r1") for line in lines)
    assert lines[-2:] == ["3", "1"]
    assert groups_in(real) == []


@needs_cgroups
async def test_who_is_killed_in_a_group_leaves_nothing_in_it(real: Path) -> None:
    started = trio.Event()
    executor = in_group(real, "r2")
    executor._on_event = lambda event: started.set() if event.type == "agent_output" else None

    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await started.wait()
            executor.cancel()

        nursery.start_soon(cancel)
        with trio.fail_after(60), pytest.raises(ExecutionCancelled):
            await executor.execute(
                "/bin/sh",
                ["-c", "trap '' INT TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000' &); echo up; sleep 1000"],
            )
    assert groups_in(real) == []


@needs_cgroups
async def test_a_group_that_can_not_be_made_is_told(real: Path) -> None:
    (real / "r3").mkdir()
    result = await in_group(real, "r3").execute("true")
    (real / "r3").rmdir()
    assert result.error_code == "SPAWN_FAILED"
    assert result.error is not None
    assert "control group" in result.error


# --- rlimits -----------------------------------------------------------------------------------------------------------


async def test_rlimits_hold_the_agent_and_not_us() -> None:
    resources, _ = divide(LimitSettings(open_files=77, cpu_seconds=55), ())
    executor = StreamingExecutor("w", "r", limits=RunLimits(resources=resources), watch_workspace=False)
    result = await executor.execute("/bin/sh", ["-c", "ulimit -n; ulimit -t"])
    assert result.stdout == "77\n55\n"


@pytest.mark.skipif(shutil.which("python3") is None, reason="needs python3")
async def test_memory_beyond_the_limit_is_not_given() -> None:
    resources, _ = divide(LimitSettings(memory_bytes=64 * MIB), ())
    executor = StreamingExecutor("w", "r", limits=RunLimits(resources=resources), watch_workspace=False)
    result = await executor.execute("python3", ["-c", "x = bytearray(256 * 1024 * 1024)"])
    assert not result.success
    assert "MemoryError" in result.stderr
