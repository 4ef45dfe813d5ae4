"""The supervisor: a small process between us and one agent, so that nothing of a run can outlive it (promise 7).

Run by its file path (``python -I -S supervisor.py CONTROL_FD``), standard library only; nobody imports it.

Theory. The supervisor makes itself the *child subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER) and then starts the agent.
From then on the kernel keeps one invariant for us: whatever a descendant does (setsid, nohup, double fork, an emptied
environment), when its parent dies it becomes our child. So

- "the run's processes" are exactly our descendants, to be found by walking ``/proc/PID/task/*/children``;
- ``waitpid`` answering ECHILD proves that none is left;
- and when the supervisor has exited, the run is gone.

It holds one end of a socket. A line on it tells what to do; its end of file means that the daemon died, however it died,
and everything is killed at once. So there is no guardian, no bookkeeping of groups and sessions, and no subreaper flag on
a process that embeds us. Rejected: signalling groups and sessions found in ``/proc`` before the first signal (all agent
CLIs put their tools into sessions of their own, and a double fork between two looks is missed); one guardian for all
runs (it can't tell whose orphan it has).

Should somebody kill the supervisor itself, the agent dies with it (PR_SET_PDEATHSIG), and the daemon looks for the rest
by the variable ``AGENTSTREAM_RUN_ID`` (`agentstream.runs.process.sweep`).

A run's cgroup, where there is one, is ours to make, to kill and to remove. In a sandbox the command is bubblewrap, which does not
pass signals on: of them only those inside get any, and its own two processes end with them.

Each line is a JSON object.
To us: first {"argv", "env", "cwd", "limits", "cgroup": {"path", "files"} or null, "sandboxed"}; then {"signal": "SIGINT",
"to": "agent" | "group"} and {"kill": true}.
From us: {"started": PID} or {"failed": {"errno", "filename", "what", "text"}}; {"exited": {"code"} or {"signal"}};
last {"gone": {"swept": N, "left": [PID, ...]}}.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

# prctl(2), linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

#: What a descendant that outlives the agent gets between SIGTERM and SIGKILL, in seconds.
LEFTOVER_GRACE = 0.5
#: SIGKILL acts at once, save for a process in uninterruptible sleep; then we say which are left instead of waiting for ever.
KILL_PATIENCE = 10.0

_libc = ctypes.CDLL(None, use_errno=True)

#: Kernels without CONFIG_PROC_CHILDREN don't have the file; then every process is asked for its parent.
HAVE_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")

Spec = dict[str, Any]


def children(pid: int) -> list[int]:
    """Direct children of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def all_children() -> Callable[[int], list[int]]:
    """The same by way of every process's parent."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (above := parent(int(name))) is not None:
            below.setdefault(above, []).append(int(name))
    return lambda pid: below.get(pid, [])


def parent(pid: int) -> int | None:
    """The parent of a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name is in parentheses and may itself hold any byte.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def group_of(pid: int) -> int | None:
    """The process group of a process, or None when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def descendants() -> list[tuple[int, int]]:
    """(pid, parent) of all descendants, parents first."""
    found: list[tuple[int, int]] = []
    todo = [os.getpid()]
    below = children if HAVE_CHILDREN else all_children()
    while todo:
        above = todo.pop()
        for pid in below(above):
            found.append((pid, above))
            todo.append(pid)
    return found


def send(pid: int, above: int, number: int) -> None:
    """Signal a process if it is still the one that we found: a pidfd can't be reused, and the parent is checked behind it."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if parent(pid) in (above, os.getpid()):
            signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(fd)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def kill_all() -> None:
    """SIGKILL to every descendant. First they are all stopped, so that nothing forks away between the look and the blow."""
    stopped: set[int] = set()
    for _ in range(100):
        fresh = [entry for entry in descendants() if entry[0] not in stopped]
        if not fresh:
            break
        for pid, above in fresh:
            send(pid, above, signal.SIGSTOP)
            stopped.add(pid)
    for pid, above in descendants():
        send(pid, above, signal.SIGKILL)


class Supervisor:
    """One agent and its descendants. Single-threaded, as fork and PR_SET_PDEATHSIG demand."""

    def __init__(self, control: int) -> None:
        self.control = control
        self.agent = 0
        self.agent_running = False
        self.orphaned = False
        self.swept = 0
        self.sandboxed = False
        #: The directory of the run's cgroup.
        self.group = ""
        self.buffer = b""
        os.set_inheritable(control, False)
        self.wake, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: exec resets handlers, but would hand ignored signals on to the agent.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)

    def tell(self, **message: object) -> None:
        if self.orphaned:
            return
        try:
            os.write(self.control, json.dumps(message).encode() + b"\n")
        except OSError:
            self.orphaned = True

    def read_line(self) -> Spec | None:
        """The first line, blocking; None when the daemon is already gone."""
        while b"\n" not in self.buffer:
            data = os.read(self.control, 65536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        spec: Spec = json.loads(line)
        return spec

    def start(self, spec: Spec) -> bool:
        """Fork and exec the agent in a session of its own; its errors before exec come back through a pipe."""
        self.sandboxed = spec["sandboxed"]
        if not self.make_group(spec["cgroup"]):
            return False
        reader, writer = os.pipe()
        supervisor = os.getpid()
        self.agent = os.fork()
        if self.agent == 0:
            self.become_agent(spec, writer, supervisor)
        os.close(writer)
        # Whoever holds stdout open keeps a reader of a pipe waiting; from here on that is the agent alone.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        failure = b""
        while data := os.read(reader, 65536):
            failure += data
        os.close(reader)
        if failure:
            os.waitpid(self.agent, 0)
            self.remove_group()
            self.tell(failed=json.loads(failure))
            return False
        self.agent_running = True
        self.tell(started=self.agent)
        return True

    @staticmethod
    def become_agent(spec: Spec, writer: int, supervisor: int) -> NoReturn:
        what, filename = "cwd", spec["cwd"]
        try:
            os.setsid()
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(127)
            os.chdir(spec["cwd"])
            if spec["cgroup"]:
                what, filename = "cgroup", spec["cgroup"]["path"]
                write(filename + "/cgroup.procs", "0")
            what, filename = "limits", ""
            for name, value in spec["limits"].items():
                number = getattr(resource, name)
                hard = resource.getrlimit(number)[1]
                bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(number, (bound, bound))
            what, filename = "program", spec["argv"][0]
            # Python ignores these, and exec would hand that on.
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except BaseException as error:  # noqa: ASYNC103 - whatever it is, it must not run on as a second supervisor
            number = getattr(error, "errno", None) or 0
            os.write(
                writer, json.dumps({"errno": number, "filename": filename, "what": what, "text": str(error)}).encode()
            )
        os._exit(127)

    def make_group(self, group: Any) -> bool:
        if not group:
            return True
        try:
            os.mkdir(group["path"])
            self.group = group["path"]
            for name, text in group["files"].items():
                write(f"{self.group}/{name}", text)
        except OSError as error:
            self.remove_group()
            self.tell(failed={"errno": error.errno, "filename": group["path"], "what": "cgroup", "text": str(error)})
            return False
        return True

    def remove_group(self) -> None:
        if self.group:
            try:
                os.rmdir(self.group)
            except OSError:
                pass  # the next life of the daemon removes it

    def kill(self) -> None:
        """SIGKILL to everything of the run."""
        if self.group:
            try:
                write(self.group + "/cgroup.kill", "1")
            except OSError:
                pass  # kernels before 5.14 don't have it
        kill_all()

    def reap(self) -> bool:
        """Collect what has died. False when no descendant is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.agent and self.agent_running:
                self.agent_running = False
                if os.WIFSIGNALED(status):
                    self.tell(exited={"signal": signal.Signals(os.WTERMSIG(status)).name})
                else:
                    self.tell(exited={"code": os.WEXITSTATUS(status)})
            else:
                self.swept += 1

    def wait(self, seconds: float | None) -> bool:
        """Sleep until something happens; carry out what we are told. False once everything is to be killed."""
        for fd, _ in self.poll.poll(None if seconds is None else max(0, seconds * 1000)):
            if fd == self.wake:
                try:
                    os.read(self.wake, 4096)
                except BlockingIOError:
                    pass
                continue
            try:
                data = os.read(self.control, 65536)
            except OSError:
                data = b""
            if not data:
                self.orphaned = True
                self.poll.unregister(self.control)
                return False
            self.buffer += data
            while b"\n" in self.buffer:
                line, _, self.buffer = self.buffer.partition(b"\n")
                message = json.loads(line)
                if message.get("kill"):
                    return False
                if self.agent_running:
                    self.signal_agent(signal.Signals[message["signal"]], message["to"])
        return True

    def signal_agent(self, number: int, to: str) -> None:
        inside = self.inside() if self.sandboxed else []
        if inside:
            for pid, above in inside if to == "group" else inside[:1]:
                if group_of(pid) == self.agent:
                    send(pid, above, number)
            return
        # The agent is our child and not yet reaped, so neither its pid nor its group can have been reused.
        try:
            if to == "group":
                os.killpg(self.agent, number)
            else:
                os.kill(self.agent, number)
        except (ProcessLookupError, PermissionError):
            pass

    def inside(self) -> list[tuple[int, int]]:
        """(pid, parent) of what is in the sandbox, the agent first: its first process that is not bubblewrap's own."""
        found = descendants()
        own = {self.agent, *(pid for pid, above in found if above == self.agent)}
        return [entry for entry in found if entry[0] not in own]

    def run(self) -> None:
        # Phase 1: the agent runs, until it ends or we are told to kill it.
        while self.agent_running and self.wait(None):
            self.reap()
        # Phase 2: what the agent left behind is asked to end; not when we are in a hurry.
        alive = self.reap()
        if alive and not self.agent_running and not self.orphaned:
            for pid, above in descendants():
                send(pid, above, signal.SIGTERM)
            deadline = time.monotonic() + LEFTOVER_GRACE
            while alive and (left := deadline - time.monotonic()) > 0 and self.wait(left):
                alive = self.reap()
        # Phase 3: insist.
        deadline = time.monotonic() + KILL_PATIENCE
        pause = 0.001
        while alive and time.monotonic() < deadline:
            self.kill()
            select.select([self.wake], [], [], pause)
            self.wait(0)
            pause = min(pause * 2, 0.1)
            alive = self.reap()
        self.remove_group()
        self.tell(gone={"swept": self.swept, "left": [pid for pid, _ in descendants()] if alive else []})


def main() -> None:
    supervisor = Supervisor(int(sys.argv[1]))
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        supervisor.tell(failed={"errno": ctypes.get_errno(), "filename": "", "what": "subreaper", "text": "prctl"})
        return
    spec = supervisor.read_line()
    if spec is not None and supervisor.start(spec):
        supervisor.run()


if __name__ == "__main__":
    main()
