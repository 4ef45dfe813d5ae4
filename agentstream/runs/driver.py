"""Drivers: an adapter (what an agent program speaks, pure) put together with this machine (where the program is, which
environment it gets) and the run nursery.

A driver can be asked whether its agent can run here, and runs it: `Driver.run` for those who only want the result,
`Driver.prepare` for those who also want to steer the run while it works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from agentstream.agents.base import Adapter, Capabilities, Launch, RunRequest
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.agents.claude_code_subscription import ClaudeCodeSubscriptionAdapter
from agentstream.agents.registry import registry
from agentstream.config import child_environment, process_environment
from agentstream.errors import AgentUnavailable
from agentstream.model.result import ExecutionResult
from agentstream.runs.executor import OnBatch, OnEvent, StreamingExecutor
from agentstream.runs.inotify import InotifyHub
from agentstream.runs.sandbox import Sandbox
from agentstream.runs.spec import RunLimits

#: Seconds that ``PROGRAM --version`` may take. A cold start of a Node program takes two on a busy machine.
_VERSION_PATIENCE: Final = 20.0
#: A login file larger than this is none. In bytes.
_MAX_LOGIN_FILE: Final = 1024 * 1024


@attrs.frozen(kw_only=True)
class Availability:
    """Whether an agent can run here; true in a condition when it can."""

    installed: bool
    #: The program's path, or its name when it was not found.
    program: str
    #: Which login would be used, in words; never a secret.
    login: str | None
    #: Why it can't run, and what to do; None when it can.
    problem: str | None

    def __bool__(self) -> bool:
        return self.problem is None


@attrs.frozen(kw_only=True)
class PreparedRun:
    """A run that is ready to start. ``executor`` may be cancelled, or handed to others, before `execute` is awaited."""

    executor: StreamingExecutor
    launch: Launch
    request: RunRequest

    async def execute(self) -> ExecutionResult:
        """See `StreamingExecutor.execute`."""
        program, *args = self.launch.argv
        return await self.executor.execute(
            program,
            args,
            cwd=self.request.cwd,
            env=self.launch.env,
            timeout=self.request.timeout_seconds,
            stdin=self.launch.stdin,
        )


class Driver:
    """Runs one agent program. ``environ`` is what the agent's environment is chosen from (default: this process's own).

    Only an allow-list of it and the adapter's own variables reach the agent; ``env`` is added. ``sandbox``: its runs are shut in.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        environ: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: RunLimits | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self.adapter = adapter
        self.limits = limits or RunLimits()
        self.sandbox = sandbox
        self._base_env = {
            **child_environment(process_environment() if environ is None else environ, adapter.variables),
            **(env or {}),
        }

    @property
    def agent_type(self) -> str:
        """The ``agentType`` of the protocol."""
        return self.adapter.agent_type

    def capabilities(self) -> Capabilities:
        """What the agent can do through us."""
        return self.adapter.capabilities()

    def is_available(self, env: Mapping[str, str] | None = None) -> Availability:
        """Whether the program is installed and, as far as can be told without starting it, somebody is logged in.

        ``env`` is the request's own environment. Looks at the file system; starts nothing.
        """
        environment = {**self._base_env, **(env or {})}
        name = self.adapter.command[0]
        program = shutil.which(name, path=environment.get("PATH"))
        files = {
            path: text for path in self.adapter.login_files(environment) if (text := _login_file(path)) is not None
        }
        login = self.adapter.login(environment, files)
        problem = None
        if program is None:
            problem = (
                f"{self.adapter.label}: the program {name!r} was not found; install it, or set "
                f'[agents.{self.agent_type}] command = ["/its/path"]'
            )
        elif login is None and self.adapter.login_hint() is not None:
            problem = self.adapter.login_hint()
        return Availability(installed=program is not None, program=program or name, login=login, problem=problem)

    async def version(self) -> str | None:
        """What the program tells as its version; None when it can't be asked."""
        argv = self.adapter.version_command()
        if argv is None or shutil.which(argv[0], path=self._base_env.get("PATH")) is None:
            return None
        try:
            with trio.move_on_after(_VERSION_PATIENCE):
                done = await trio.run_process(
                    argv, env=self._base_env, capture_stdout=True, capture_stderr=True, check=False
                )
                text = done.stdout.decode(errors="replace").strip()
                return text.splitlines()[0][:200] if done.returncode == 0 and text else None
        except (OSError, subprocess.SubprocessError):
            return None
        return None

    def prepare(
        self,
        request: RunRequest,
        on_event: OnEvent | None = None,
        *,
        on_batch: OnBatch | None = None,
        run_number: int = 1,
        run_directory: Path | None = None,
        watch_exclude: Sequence[Path] = (),
        hub: InotifyHub | None = None,
        redact: Callable[[bytes], bytes] | None = None,
        limits: RunLimits | None = None,
    ) -> PreparedRun:
        """Make a run ready. Raises `AgentUnavailable`, and `InvalidMessage` for a request that the agent can't carry out."""
        available = self.is_available(request.env)
        if not available:
            raise AgentUnavailable(available.problem or "this agent can't run here")
        request = attrs.evolve(request, cwd=os.path.abspath(request.cwd))
        bounds = limits or self.limits
        if request.idle_timeout_seconds is not None:
            bounds = attrs.evolve(bounds, idle_timeout=request.idle_timeout_seconds)
        launch = self.adapter.launch(request, self._base_env)
        if self.sandbox is not None:
            # Of our own environment: a work order's variables must not make the sandbox wider.
            state = {os.path.realpath(Path(path).parent) for path in self.adapter.login_files(self._base_env)}
            launch = self.sandbox.shut_in(launch, workspace=request.cwd, state=sorted(state))
            bounds = attrs.evolve(bounds, sandboxed=True)
        executor = StreamingExecutor(
            request.work_order_id,
            request.run_id,
            on_event,
            request.streaming,
            on_batch=on_batch,
            adapter=self.adapter,
            # What the options leave out is left out by the run, after it was counted for progress and result.
            request=attrs.evolve(request, streaming=type(request.streaming)()),
            limits=bounds,
            run_number=run_number,
            run_directory=run_directory,
            watch_exclude=watch_exclude,
            hub=hub,
            redact=redact,
        )
        return PreparedRun(executor=executor, launch=launch, request=request)

    async def run(self, request: RunRequest, on_event: OnEvent | None = None) -> ExecutionResult:
        """Run the agent once. Raises like `prepare` and `StreamingExecutor.execute`."""
        return await self.prepare(request, on_event).execute()


class ClaudeCodeDriver(Driver):
    """Claude Code with whatever login there is: an API key wins over a subscription."""

    def __init__(
        self,
        command: Sequence[str] = ("claude",),
        *,
        environ: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: RunLimits | None = None,
    ) -> None:
        super().__init__(ClaudeCodeAdapter(tuple(command)), environ=environ, env=env, limits=limits)


class ClaudeCodeSubscriptionDriver(Driver):
    """Claude Code on a subscription: every API-key variable is kept from it, and it does not start without the login."""

    def __init__(
        self,
        command: Sequence[str] = ("claude",),
        *,
        environ: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: RunLimits | None = None,
    ) -> None:
        super().__init__(ClaudeCodeSubscriptionAdapter(tuple(command)), environ=environ, env=env, limits=limits)


def driver_for(
    agent_type: str,
    *,
    commands: Mapping[str, Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    limits: RunLimits | None = None,
) -> Driver:
    """The driver of an agent type. Raises `InvalidMessage` that lists the known ones."""
    return Driver(registry(commands or {}).get(agent_type), environ=environ, env=env, limits=limits)


def _login_file(path: str) -> str | None:
    try:
        file = Path(path)
        return file.read_text() if file.stat().st_size <= _MAX_LOGIN_FILE else None
    except (OSError, UnicodeDecodeError):
        return None
