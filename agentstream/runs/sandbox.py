"""An agent in a sandbox made by bubblewrap (bwrap(1)): it sees the machine, and can write to nothing but its workspace.

What stands between an agent and the daemon, who are the same user, is the PID namespace: without one ``/proc/PID/root`` of
the daemon would be a way out. The daemon's own data (tokens, journal) is hidden, and so is ``/run``, whose sockets (Docker's,
D-Bus's) can be connected to through a read-only mount.

The supervisor stays outside, so nothing in the sandbox can reach it, and signals what is inside. `Sandbox` is pure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Final

import attrs

from agentstream.agents.base import Launch
from agentstream.errors import ConfigError
from agentstream.settings import SandboxSettings

#: Seconds that ``bwrap true`` may take on a busy machine.
_TRIAL_PATIENCE: Final = 20.0
#: Variables that the dynamic loader heeds (ld.so(8)).
_LOADER: Final = ("LD_", "GLIBC_TUNABLES")
#: Where /etc/resolv.conf points on machines with systemd-resolved.
_RESOLVER: Final = "/run/systemd/resolve"


@attrs.frozen(kw_only=True)
class Sandbox:
    """How runs are shut in. All paths are absolute, without symbolic links."""

    program: str
    network: bool = False
    #: Writable besides the workspace; those that do not exist are left out.
    writable: Sequence[str] = ()
    #: Directories of which nothing is seen, save for a workspace that lies below.
    hidden: Sequence[str] = ()

    def shut_in(self, launch: Launch, *, workspace: str, state: Iterable[str] = ()) -> Launch:
        """The same launch in the sandbox. ``state``: where the agent keeps its own data, such as ``~/.claude``."""
        mounts: list[tuple[str, tuple[str, ...]]] = [
            ("/", ("--ro-bind", "/", "/")),
            ("/dev", ("--dev", "/dev")),
            ("/proc", ("--proc", "/proc")),
            ("/tmp", ("--tmpfs", "/tmp")),
            ("/run", ("--tmpfs", "/run")),
            *((path, ("--bind-try", path, path)) for path in (*state, *self.writable)),
            (workspace, ("--bind", workspace, workspace)),
            *((path, ("--tmpfs", path)) for path in self.hidden),
        ]
        if self.network:
            mounts.append((_RESOLVER, ("--ro-bind-try", _RESOLVER, _RESOLVER)))
        # The deeper ones on top, whatever lies in what.
        mounts.sort(key=lambda mount: len(PurePath(mount[0]).parts))
        # A work order's variables must not make the loader run foreign code in bubblewrap, which is still outside.
        inside = {name: value for name, value in launch.env.items() if name.startswith(_LOADER)} | {"TMPDIR": "/tmp"}
        argv = (
            self.program,
            *(word for _, words in mounts for word in words),
            *("--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *(() if self.network else ("--unshare-net",)),
            *("--cap-drop", "ALL", "--die-with-parent", "--chdir", workspace),
            *(word for name, value in inside.items() for word in ("--setenv", name, value)),
            "--",
            *launch.argv,
        )
        env = {name: value for name, value in launch.env.items() if name not in inside}
        return attrs.evolve(launch, argv=argv, env=env)


def open_sandbox(settings: SandboxSettings, *, hidden: Sequence[Path]) -> Sandbox:
    """The sandbox of these settings, tried once. Blocking. Raises `ConfigError` that says why there can be none here."""
    program = shutil.which("bwrap")
    if program is None:
        raise ConfigError("sandbox.enabled: the program bwrap was not found; install bubblewrap, or set it to false")
    sandbox = Sandbox(
        # Found once: a work order's own PATH must not name another one.
        program=program,
        network=settings.network,
        writable=tuple(os.path.realpath(path) for path in settings.writable),
        hidden=tuple(os.path.realpath(path) for path in hidden),
    )
    trial = sandbox.shut_in(Launch(argv=("true",), env={"PATH": os.defpath}), workspace="/tmp")
    try:
        done = subprocess.run(
            trial.argv, env=dict(trial.env), capture_output=True, timeout=_TRIAL_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"sandbox.enabled: {program} can't be run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise ConfigError(
            f"sandbox.enabled: no sandbox can be made here: {said}; user namespaces may be forbidden on this machine, in "
            "this container, or by the service's unit (RestrictNamespaces=)"
        )
    return sandbox
