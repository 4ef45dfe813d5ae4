"""`StreamingExecutor`: run one command, and get typed events while it works. The public face of the run nursery.

The nursery (`runs/nursery.py`) is shielded: a cancellation from outside must not tear its readers away together with the agent.
So `execute` waits outside the shield, hands a cancellation that reaches it on to the run's one cancel scope, and waits, within a
bound, until the run has cleaned up after itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import trio

from agentstream.agents.base import Adapter, RunRequest
from agentstream.config import process_environment
from agentstream.errors import Conflict, ExecutionCancelled
from agentstream.model.events import ApprovalRequested, Decision, Event
from agentstream.model.orders import StreamingOptions
from agentstream.model.result import ExecutionResult
from agentstream.runs.inotify import InotifyHub
from agentstream.runs.nursery import RunNursery
from agentstream.runs.spec import RunLimits, RunSpec
from agentstream.runs.stop import Cause

OnEvent = Callable[[Event], Awaitable[None] | None]
OnBatch = Callable[[Sequence[Event]], Awaitable[None]]

#: Seconds a run may take to clean up after the caller of `execute` was cancelled: more than all stop steps together. Only a
#: callback that blocks for ever meets it; it is then cancelled too.
_CLEANUP_PATIENCE: Final = 45.0


class StreamingExecutor:
    """Runs one command once, and turns what it prints into events while it works.

    ``on_event`` gets each event in order, sync or async; if it raises, the run is stopped cleanly and the exception reaches
    the caller of `execute`. ``on_batch`` gets the same events as the throttle releases them, for callers that store them
    together. ``adapter`` knows the agent (how it speaks, how to stop it, what its end means), and ``request`` is what it was
    asked; without an adapter any command is taken: JSON lines are read as stream-json, other text becomes `AgentOutput`, and the
    exit status decides. ``run_directory`` keeps ``stdout`` and ``stderr`` raw; without one they are in a temporary directory
    during the run. ``capture="pipe"`` needs no disk, at the price that a program may lose output when this process is stalled
    for long. ``redact`` is applied to every line before anything else sees it.
    """

    def __init__(
        self,
        work_order_id: str,
        run_id: str,
        on_event: OnEvent | None = None,
        options: StreamingOptions | None = None,
        *,
        on_batch: OnBatch | None = None,
        adapter: Adapter | None = None,
        request: RunRequest | None = None,
        limits: RunLimits | None = None,
        run_number: int = 1,
        run_directory: Path | None = None,
        capture: Literal["spool", "pipe"] = "spool",
        watch_workspace: bool = True,
        watch_exclude: Sequence[Path] = (),
        hub: InotifyHub | None = None,
        redact: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.work_order_id = work_order_id
        self.run_id = run_id
        self.options = options or StreamingOptions()
        self._on_event = on_event
        self._on_batch = on_batch
        self._adapter = adapter
        self._request = request
        self._limits = limits or RunLimits()
        self._run_number = run_number
        self._run_directory = run_directory
        self._capture: Literal["spool", "pipe"] = capture
        self._watch_workspace = watch_workspace
        self._watch_exclude = tuple(watch_exclude)
        self._hub = hub
        self._redact = redact
        self._used = False
        self._cancelled_early: tuple[str | None] | None = None
        self._run: RunNursery | None = None
        self._done = trio.Event()
        self._shield = trio.CancelScope(shield=True)
        self._result: ExecutionResult | None = None

    # --- what others may do to a run -------------------------------------------------------------------------------

    def cancel(self, reason: str | None = None) -> None:
        """Stop the run. Harmless twice and after the end; before the start it keeps `execute` from starting anything."""
        if self._run is not None:
            self._run.stop.throw(Cause.CANCEL, reason)
        elif self._cancelled_early is None:
            self._cancelled_early = (reason,)

    async def send_message(self, text: str) -> None:
        """A follow-up to a run that takes input. Raises `Conflict` when it takes none (any more)."""
        run = self._running()
        await run.conversation.send_message(text)
        run.note_message()

    async def interrupt(self) -> None:
        """Stop the agent's current turn, keep the run. Raises `Conflict` where that can't be done."""
        await self._running().conversation.interrupt()

    def close_input(self) -> None:
        """No more messages: the run ends after its turn. The input is closed once nothing is in flight in the agent."""
        self._running().request_close()

    async def resolve_approval(
        self,
        request_id: str,
        decision: Decision,
        *,
        message: str | None = None,
        updated_input: dict[str, Any] | None = None,
    ) -> None:
        """Answer a permission request. Raises `NotFound` when it is not open (any more)."""
        await self._running().resolve(request_id, decision, message=message, updated_input=updated_input)

    @property
    def approvals(self) -> list[ApprovalRequested]:
        """Permission requests that wait for an answer, oldest first."""
        return self._run.conversation.approvals if self._run is not None else []

    def _running(self) -> RunNursery:
        if self._run is None or self._done.is_set():
            raise Conflict("this run is not running")
        return self._run

    # --- the run ---------------------------------------------------------------------------------------------------

    async def execute(
        self,
        command: str,
        args: Sequence[str] = (),
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bytes | str | None = None,
    ) -> ExecutionResult:
        """Run ``command`` with ``args`` to its end, and return what became of it.

        ``env`` is the whole environment; None: this process's own. ``timeout`` in seconds. ``stdin`` is what the program can
        read (nothing by default); behind it stdin stays open if the request is interactive or asks for approvals. The workspace
        ``cwd`` is watched for changes of files; without one it is this process's, and not watched.

        Raises `ExecutionCancelled` after `cancel`, and whatever the callback raised. You do *not* get an exception for a program
        that fails, can't be started, or takes too long: the result says so, with an ``error_code``.
        """
        if self._used:
            raise RuntimeError("a StreamingExecutor runs one command once; make another one")
        self._used = True
        # Absolute: the agent is started by a process that works elsewhere.
        directory = str(Path.cwd() / (cwd or ""))
        request = self._request or RunRequest(
            prompt="", cwd=directory, work_order_id=self.work_order_id, run_id=self.run_id
        )
        spec = RunSpec(
            work_order_id=self.work_order_id,
            run_id=self.run_id,
            run_number=self._run_number,
            argv=(command, *args),
            cwd=directory,
            env=process_environment() if env is None else env,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin or b"",
            keep_stdin_open=request.interactive or request.ask_approvals,
            timeout=timeout,
            adapter=self._adapter,
            request=request,
            options=self.options,
            limits=self._limits,
            directory=self._run_directory,
            capture=self._capture,
            watch_workspace=self._watch_workspace and cwd is not None,
            watch_exclude=self._watch_exclude,
        )
        run = self._run = RunNursery(spec, self._deliver, hub=self._hub, redact=self._redact)
        if self._cancelled_early is not None:
            run.stop.throw(Cause.CANCEL, self._cancelled_early[0])
        await self._wait_outside_the_shield(run)
        if run.failure is not None:
            raise run.failure
        if self._result is None:
            raise RuntimeError("the run ended without a result")
        if self._result.cancelled:
            raise ExecutionCancelled(run.stop.reason, self._result)
        return self._result

    async def _wait_outside_the_shield(self, run: RunNursery) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_behind_shield, run)
            try:
                await self._done.wait()
            except trio.Cancelled:
                run.stop.throw(Cause.SURROUNDING, "the surrounding scope was cancelled")
                with trio.move_on_after(_CLEANUP_PATIENCE, shield=True) as patience:
                    await self._done.wait()
                if patience.cancelled_caught:
                    self._shield.cancel()
                raise

    async def _run_behind_shield(self, run: RunNursery) -> None:
        try:
            with self._shield:
                self._result = await run.run()
        finally:
            self._done.set()

    async def _deliver(self, batch: Sequence[Event]) -> None:
        if self._on_batch is not None:
            await self._on_batch(batch)
        if self._on_event is not None:
            for event in batch:
                answer = self._on_event(event)
                if inspect.isawaitable(answer):
                    await answer
