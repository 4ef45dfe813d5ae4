"""A cgroup v2 group for each run, where the daemon has a group of its own to give from: limits that hold for a whole run.

Theory (cgroups(7), systemd's CGROUP_DELEGATION.md). A group that hands controllers down may hold no process itself, so the daemon
moves itself into a leaf, ``daemon``, and enables the controllers for the siblings. The group of a run is made, killed
(``cgroup.kill``: at once, and no fork is quicker) and removed by the run's supervisor, so that the daemon's death changes
nothing; the agent joins before exec. Whoever can't have this gets rlimits, which hold each process by itself.

Only a group that was given to us is touched: the one in the settings, or ours if systemd says that it delegated it. Taking any
that is writable was rejected: root may write in all of them, and a shell's belongs to the shell.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs

from agentstream.errors import ConfigError
from agentstream.runs.spec import GroupFiles
from agentstream.settings import LimitSettings

#: Those that limits need. Others (io, cpuset) stay where they are.
CONTROLLERS: Final = ("memory", "pids", "cpu")
#: The daemon's own group, beside those of the runs.
LEAF: Final = "daemon"
#: How systemd marks a delegated group; the first is for root's eyes.
_MARKS: Final = ("trusted.delegate", "user.delegate")


@attrs.frozen
class Groups:
    """Where the groups of runs are made, and which controllers they have."""

    parent: Path
    controllers: frozenset[str]


def own_directory(cgroup: str, mountinfo: str) -> Path | None:
    """Our cgroup v2 directory, from the texts of ``/proc/self/cgroup`` and ``/proc/self/mountinfo``; None without one. Pure."""
    path = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), None)
    if path is None:
        return None
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields = mount.split()
        if len(fields) > 4 and source.startswith("cgroup2 "):
            root, point = fields[3], fields[4]
            if Path(path).is_relative_to(root):
                return Path(point) / Path(path).relative_to(root)
    return None


def divide(limits: LimitSettings, controllers: Collection[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Who enforces what: rlimits by the names of the `resource` module, and the files of a run's group. Pure."""
    resources: dict[str, int] = {}
    files: dict[str, str] = {}
    if "cpu" in controllers:
        files["cpu.weight"] = str(limits.cpu_weight)
    if limits.processes is not None:
        if "pids" in controllers:
            files["pids.max"] = str(limits.processes)
        else:
            resources["RLIMIT_NPROC"] = limits.processes
    if limits.memory_bytes is not None:
        if "memory" in controllers:
            files["memory.max"] = str(limits.memory_bytes)
        else:
            # Not RLIMIT_AS: just-in-time compilers reserve far more addresses than they use.
            resources["RLIMIT_DATA"] = limits.memory_bytes
    if limits.open_files is not None:
        resources["RLIMIT_NOFILE"] = limits.open_files
    if limits.cpu_seconds is not None:
        resources["RLIMIT_CPU"] = limits.cpu_seconds
    return resources, files


def enforce(limits: LimitSettings, groups: Groups | None) -> tuple[dict[str, int], GroupFiles | None]:
    """`divide` for the groups that there are. Pure."""
    resources, files = divide(limits, groups.controllers if groups is not None else ())
    return resources, GroupFiles(parent=str(groups.parent), files=files) if groups is not None else None


def prepare(configured: Path | None) -> Groups | None:
    """Make the daemon's group ready to hold those of runs; None where there is none. Blocking.

    ``configured`` is ``limits.cgroup``. Raises `ConfigError` when that can't be used.
    """
    if configured is not None:
        try:
            return make_ready(configured, os.getpid())
        except OSError as error:
            raise ConfigError(
                f"limits.cgroup: {configured} can't hold the groups of runs: {error.strerror or error}; it must be a "
                "cgroup v2 directory of the daemon's alone that it may write in"
            ) from error
    try:
        own = own_directory(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        return make_ready(own, os.getpid()) if own is not None and _is_delegated(own) else None
    except OSError:
        return None


def make_ready(parent: Path, pid: int) -> Groups:
    """Move the daemon ``pid`` out of the way, enable the controllers, remove groups of a former life. Raises OSError."""
    available = (parent / "cgroup.controllers").read_text().split()
    if str(pid) in (parent / "cgroup.procs").read_text().split():
        (parent / LEAF).mkdir(exist_ok=True)
        (parent / LEAF / "cgroup.procs").write_text(str(pid))
    wanted = [name for name in CONTROLLERS if name in available]
    if wanted:
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    for group in parent.iterdir():
        if group.is_dir() and group.name != LEAF:
            _remove(group)
    return Groups(parent, frozenset(wanted))


def _remove(group: Path) -> None:
    # One that still holds a process stays: its supervisor has not finished yet.
    try:
        group.rmdir()
    except OSError:
        return


def _is_delegated(group: Path) -> bool:
    for name in _MARKS:
        try:
            if os.getxattr(group, name) == b"1":
                return True
        except OSError:
            continue
    return False
