"""One agent process under its supervisor (`runs/supervisor.py`, which holds the theory of "nothing is left").

`AgentProcess` is our end of the supervisor's control socket: it starts the agent, signals it, tells how it ended, and knows when
the last process of the run is gone. It decides nothing about when to stop: that is the executor's.

Who may wait for what: ``exited`` is the agent's own end, ``gone`` the end of all its descendants. What the agent wrote is
in the spool file when ``exited`` is set, what its descendants wrote when ``gone`` is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import trio

from agentstream.agents.base import Exit
from agentstream.errors import SpawnFailed
from agentstream.runs.spec import RunLimits

#: Every process of a run carries it, unless it emptied its environment.
RUN_ID_VARIABLE: Final = "AGENTSTREAM_RUN_ID"

_SUPERVISOR: Final = str(Path(__file__).with_name("supervisor.py"))
#: Longer than the supervisor's own patience (KILL_PATIENCE) by what a loaded machine may need.
_GONE_PATIENCE: Final = 20.0
#: One line of the control protocol; only "failed" holds foreign text, a path (PATH_MAX is 4,096 bytes).
_MAX_CONTROL_BYTES: Final = 64 * 1024


class AgentProcess:
    """One agent process. Make it with `spawn`; it lives until `wait_gone` returned or `aclose` was called."""

    def __init__(
        self, run_id: str, supervisor: trio.Process, control: trio.SocketStream, stdin: trio.lowlevel.FdStream | None
    ):
        self.run_id = run_id
        self.stdin = stdin
        self.pid: int | None = None
        self.exit: Exit | None = None
        self.exited = trio.Event()
        self.gone = trio.Event()
        #: Descendants that outlived the agent and were stopped.
        self.swept = 0
        self._supervisor = supervisor
        self._control = control
        self._buffer = bytearray()

    async def _messages(self) -> list[dict[str, Any]]:
        """The next messages of the supervisor; an empty list when it is gone."""
        while b"\n" not in self._buffer and len(self._buffer) < _MAX_CONTROL_BYTES:
            try:
                data = await self._control.receive_some(4096)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return []
            self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [orjson.loads(line) for line in lines]

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what the supervisor tells until it is gone. ``started()`` when the agent runs.

        Raises `SpawnFailed` when it could not be started; then nothing of it exists.
        """
        told = False
        while messages := await self._messages():
            for message in messages:
                match message:
                    case {"started": int(pid)}:
                        self.pid = pid
                        task_status.started()
                    case {"failed": dict(failure)}:
                        self.exited.set()
                        self.gone.set()
                        raise _spawn_failed(failure)
                    case {"exited": {"code": int(code)}}:
                        self._ended(Exit(code=code))
                    case {"exited": {"signal": str(name)}}:
                        self._ended(Exit(signal=name))
                    case {"gone": {"swept": int(swept)}}:
                        self.swept, told = swept, True
        # Without "gone", somebody killed the supervisor: the agent died with it, the rest is found by its environment.
        with trio.CancelScope(shield=True):
            await self._supervisor.wait()
            if not told:
                await trio.to_thread.run_sync(sweep, {self.run_id})
        self._ended(Exit(signal="SIGKILL"))
        self.gone.set()

    def _ended(self, end: Exit) -> None:
        if self.exit is None:
            self.exit = end
        self.exited.set()

    async def signal(self, name: str, *, group: bool = False) -> None:
        """Signal the agent, or its process group. Does nothing when it has ended."""
        await self._tell({"signal": name, "to": "group" if group else "agent"})

    async def kill(self) -> None:
        """SIGKILL to the agent and all its descendants."""
        await self._tell({"kill": True})

    async def _tell(self, message: dict[str, Any]) -> None:
        # Broken or closed: the supervisor is gone, and with it everything that could be signalled.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._control.send_all(orjson.dumps(message) + b"\n")

    async def wait_gone(self) -> bool:
        """Wait until the last process of the run is gone; False when one could not be killed in time (kernel trouble)."""
        with trio.move_on_after(_GONE_PATIENCE) as scope:
            await self.gone.wait()
        return not scope.cancelled_caught

    async def aclose(self) -> None:
        """Close our ends. The supervisor takes that for the daemon's death, kills what is left, and is reaped here."""
        self._control.socket.close()
        with trio.move_on_after(_GONE_PATIENCE, shield=True):
            if self.stdin is not None:
                await self.stdin.aclose()
            await self._supervisor.wait()


async def spawn(
    argv: Sequence[str],
    *,
    run_id: str,
    env: Mapping[str, str],
    cwd: str,
    stdin: bytes | None,
    stdout: int,
    stderr: int,
    limits: RunLimits | None = None,
) -> AgentProcess:
    """Start a supervisor and have it start the agent.

    ``stdin``: bytes that the agent can read, then end of file (they are handed over as a memory file, so there is no writer to
    wait for and no bound); None: a pipe, `AgentProcess.stdin`. ``stdout`` and ``stderr`` are file descriptors. Of
    ``limits`` those count that hold for processes. `AgentProcess.watch` must be started next: only there one learns
    whether the agent could be started.
    """
    limits = limits or RunLimits()
    group = limits.cgroup
    ours, theirs = socket.socketpair()
    pipe: int | None = None
    try:
        if stdin is None:
            source, pipe = os.pipe()
        elif stdin:
            source = os.memfd_create("agentstream-stdin")
            view = memoryview(stdin)
            while view:
                view = view[os.write(source, view) :]
            os.lseek(source, 0, os.SEEK_SET)
        else:
            source = os.open(os.devnull, os.O_RDONLY)
        try:
            supervisor = await trio.lowlevel.open_process(
                [sys.executable, "-I", "-S", _SUPERVISOR, str(theirs.fileno())],
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": env.get("PATH", os.defpath)},
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            raise SpawnFailed(
                f"no process could be started: {error.strerror or error}; see ulimit -u and ulimit -n"
            ) from error
        finally:
            os.close(source)
    except BaseException:
        ours.close()
        if pipe is not None:
            os.close(pipe)
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    control = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    process = AgentProcess(run_id, supervisor, control, trio.lowlevel.FdStream(pipe) if pipe is not None else None)
    spec = {
        "argv": list(argv),
        "env": {**env, RUN_ID_VARIABLE: run_id},
        "cwd": cwd,
        "limits": dict(limits.resources),
        "cgroup": {"path": f"{group.parent}/{run_id}", "files": dict(group.files)} if group else None,
        "sandboxed": limits.sandboxed,
    }
    try:
        await control.send_all(orjson.dumps(spec) + b"\n")
    except BaseException:
        await process.aclose()
        raise
    return process


def _spawn_failed(failure: Mapping[str, Any]) -> SpawnFailed:
    number, filename = failure.get("errno", 0), failure.get("filename", "")
    reason = os.strerror(number) if number else str(failure.get("text", "unknown"))
    match failure.get("what"), number:
        case "cwd", errno.ENOENT:
            text = f"the working directory {filename} does not exist; create it or name another one"
        case "cwd", _:
            text = f"the working directory {filename} can't be entered: {reason}"
        case "cgroup", _:
            text = f"the run's control group {filename} can't be made or joined: {reason}; see limits.cgroup"
        case "program", errno.ENOENT:
            text = f"the program {filename!r} was not found; install it, or set its path in the configuration"
        case "program", errno.EACCES:
            text = f"the program {filename!r} may not be executed; check its permissions"
        case "program", errno.E2BIG:
            text = f"the arguments of {filename!r} are too long for the system: {reason}"
        case what, _:
            text = f"the program could not be started ({what}): {reason}"
    return SpawnFailed(text, details={"errno": number})


def run_id_of(pid: int) -> str | None:
    """The run that a process carries in its environment; None when it carries none, is gone, or is somebody else's."""
    try:
        environ = Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return None
    marker = RUN_ID_VARIABLE.encode() + b"="
    return next((os.fsdecode(entry[len(marker) :]) for entry in environ.split(b"\0") if entry.startswith(marker)), None)


def find_processes() -> dict[int, str]:
    """All processes that carry a run id, by pid. Blocking: reads ``/proc``."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return {pid: run_id for pid in pids if (run_id := run_id_of(pid)) is not None}


def sweep(run_ids: Collection[str]) -> int:
    """SIGKILL to every process that carries one of the run ids, until there is none; returns how many there were. Blocking.

    For what a supervisor could not do because it was killed itself. Bounded: 50 looks.
    """
    killed: set[int] = set()
    for _ in range(50):
        found = [pid for pid, run_id in find_processes().items() if run_id in run_ids]
        if not found:
            break
        for pid in found:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                # Looked at again behind the pidfd: the id may have been reused since.
                if run_id_of(pid) in run_ids:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    killed.add(pid)
            except (ProcessLookupError, PermissionError):
                pass
            finally:
                os.close(fd)
    return len(killed)
