"""One run = one Trio nursery (promise 1).

In it live the stdout reader, the stderr reader, the throttled channel's pump, the ticker (progress and time limits), the
workspace watcher, the watch over the supervisor, and the body, which waits for the agent inside *the* cancel scope
(`StopSwitch`). Everything that stops a run cancels that scope. Leaving it early starts the agent's stop steps; then, in every
case, the same path is walked to the end:

    agent exited -> descendants gone -> last reads -> last file changes -> open calls closed -> end event -> nursery empty

The scope is not the nursery's: a reader that is cancelled together with the child loses the child's last output. Every step of
the path is bounded, so whoever awaits the run may shield it (`StreamingExecutor` does).

Events reach the caller through the throttled channel only. With nobody listening the same events are made and collected, so
the result is the same (promise 8).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from agentstream.agents.base import DEFAULT_STOP_STEPS, Exit, StopTarget
from agentstream.errors import Conflict, NotFound, SpawnFailed
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentRaw,
    AgentThinking,
    AgentToolCall,
    ApprovalResolved,
    Decision,
    Event,
    ProgressUpdate,
    RunStarted,
)
from agentstream.model.limits import encoded_size, fit
from agentstream.model.result import ExecutionResult
from agentstream.runs.capture import Capture, open_capture
from agentstream.runs.collect import HeadTail
from agentstream.runs.conversation import Conversation
from agentstream.runs.ending import Ending
from agentstream.runs.inotify import InotifyHub
from agentstream.runs.patience import Due, Patience
from agentstream.runs.process import AgentProcess, spawn
from agentstream.runs.progress import Progress
from agentstream.runs.reading import OutputReader
from agentstream.runs.spec import RunSpec
from agentstream.runs.stop import Cause, StopSwitch
from agentstream.runs.throttle import ThrottledChannel
from agentstream.runs.workspace import WorkspaceWatcher

Sink = Callable[[Sequence[Event]], Awaitable[None]]

#: What a run that was stopped has left to read is read for so long, in seconds: the agent may have been far ahead of us.
_DRAIN_PATIENCE: Final = 10.0
#: What an event counts for in the collected events besides its text, in bytes.
_EVENT_OVERHEAD: Final = 256


class RunNursery:
    """Carries out one `RunSpec`. `run` is called once; the other methods may be called from other tasks meanwhile."""

    def __init__(
        self,
        spec: RunSpec,
        sink: Sink,
        *,
        hub: InotifyHub | None = None,
        redact: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.spec = spec
        self.stop = StopSwitch()
        self.conversation = Conversation(spec.adapter, self.poke)
        #: What the sink raised; the run was stopped for it.
        self.failure: Exception | None = None
        self._sink = sink
        self._hub = hub
        self._redact = redact
        self._channel = ThrottledChannel()
        self._events: HeadTail[Event] = HeadTail(spec.limits.max_collected_bytes)
        self._exit: Exit | None = None
        self._started = 0.0
        self._poke = trio.Event()
        self._pumped = trio.Event()
        self._ticking = trio.CancelScope()
        self._output_bytes = 0
        self._progress: Progress
        self._reader: OutputReader
        self._patience: Patience
        self._told_phase = "Starting"

    # --- the path ------------------------------------------------------------------------------------------------

    async def run(self) -> ExecutionResult:
        """Carry out the run to its end, in whatever way it ends. Raises nothing of the agent's making."""
        self._started = trio.current_time()
        self._progress = Progress(self._started)
        self._reader = OutputReader(
            self.spec,
            self._channel,
            self._progress,
            self.conversation,
            redact=self._redact,
            note=self._note,
            parsed=self._look_at_summary,
        )
        self._patience = Patience(
            idle_timeout=self.spec.limits.idle_timeout,
            result_grace=self.spec.limits.result_grace,
            background_grace=self.spec.limits.background_grace,
            interactive=self.spec.request.interactive,
            last_activity=self._started,
        )
        if self.spec.timeout is not None:
            self.stop.scope.deadline = self._started + self.spec.timeout
        trouble: SpawnFailed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            resumed = True if self.spec.request.resume_session_id else None
            agent_type = self.spec.adapter.agent_type if self.spec.adapter else "command"
            await self.emit(
                RunStarted(
                    **self.spec.envelope(), run_number=self.spec.run_number, agent_type=agent_type, resumed=resumed
                ),
                self._progress_update(),
            )
            if self.stop.cause is None:
                try:
                    if self._hub is None:
                        await self._start_hub(nursery)
                    await self._carry_out(nursery)
                except SpawnFailed as error:
                    trouble = error
            ending = self._ending(trouble)
            await self._emit_end(ending)
            self._channel.close()
            await self._pumped.wait()
            nursery.cancel_scope.cancel()
        result = self._result(ending)
        self._let_go()
        return result

    async def _start_hub(self, nursery: trio.Nursery) -> None:
        """A run by itself has an inotify instance of its own, or polls where there is none left."""
        with contextlib.suppress(OSError):
            self._hub = InotifyHub()
            await nursery.start(self._hub.run)

    async def _carry_out(self, nursery: trio.Nursery) -> None:
        if not await trio.to_thread.run_sync(os.path.isdir, self.spec.cwd):
            raise SpawnFailed(f"the workspace {self.spec.cwd} does not exist or is no directory; create it first")
        watcher: WorkspaceWatcher | None = None
        try:
            async with open_capture(self.spec.capture, self.spec.directory, self._hub, nursery) as capture:
                if self.spec.watch_workspace:
                    watcher = WorkspaceWatcher(
                        self.spec.cwd,
                        self.spec.work_order_id,
                        self.spec.run_id,
                        self._emit_list,
                        hub=self._hub,
                        exclude=self.spec.watch_exclude,
                    )
                    await watcher.start()
                process = await self._start_agent(nursery, capture)
                if watcher is not None:
                    nursery.start_soon(watcher.run)
                nursery.start_soon(self._tick)
                try:
                    async with trio.open_nursery() as readers:
                        readers.start_soon(self._reader.read_stdout, capture.stdout)
                        readers.start_soon(self._reader.read_stderr, capture.stderr)
                        await self._wait_for_agent(process)
                        capture.stdout.finish()
                        capture.stderr.finish()
                        if self.stop.cause not in (None, Cause.FINISHED):
                            readers.cancel_scope.deadline = trio.current_time() + _DRAIN_PATIENCE
                    self._ticking.cancel()
                    if readers.cancel_scope.cancelled_caught:
                        await self.emit(
                            self._error("OUTPUT_DROPPED", "the run was stopped; its last output was not read")
                        )
                finally:
                    await process.aclose()
                if watcher is not None:
                    await watcher.finish()
        except OSError as error:
            raise SpawnFailed(f"the run's output can't be kept: {error}; is the disk full?") from error
        finally:
            if watcher is not None:
                watcher.close()
        await self._reader.close()

    async def _start_agent(self, nursery: trio.Nursery, capture: Capture) -> AgentProcess:
        try:
            process = await spawn(
                self.spec.argv,
                run_id=self.spec.run_id,
                env=self.spec.env,
                cwd=self.spec.cwd,
                stdin=None if self.spec.keep_stdin_open else self.spec.stdin,
                stdout=capture.stdout_fd,
                stderr=capture.stderr_fd,
                limits=self.spec.limits,
            )
        finally:
            capture.close_writers()
        try:
            await nursery.start(process.watch)
        except BaseException:
            await process.aclose()
            raise
        if process.stdin is not None:
            self.conversation.attach(process.stdin)
            if self.spec.stdin:
                nursery.start_soon(self._write_first, self.spec.stdin)
        return process

    async def _write_first(self, data: bytes) -> None:
        try:
            await self.conversation.write(data)
        except Conflict as error:
            await self.emit(self._error("STDIN", f"the prompt could not be handed over: {error}"))

    async def _wait_for_agent(self, process: AgentProcess) -> None:
        with self.stop.scope:
            await process.exited.wait()
        self.stop.settle()
        if process.exit is None:
            await self._ask_to_stop(process)
        await self.conversation.close()
        if not await process.wait_gone():
            await self.emit(
                self._error("LEFT_BEHIND", "processes of this run could not be killed; see the system's log")
            )
        self._exit = process.exit

    async def _ask_to_stop(self, process: AgentProcess) -> None:
        # Who floods the disk is not asked.
        flooding = self.stop.cause is Cause.OUTPUT
        steps = (
            () if flooding else self.spec.adapter.stop_steps if self.spec.adapter is not None else DEFAULT_STOP_STEPS
        )
        for step in steps:
            match step.target:
                case StopTarget.STDIN:
                    if not self.conversation.is_open:
                        continue
                    try:
                        if step.data is not None:
                            await self.conversation.write(step.data)
                        else:
                            await self.conversation.close()
                    except Conflict:
                        continue
                case StopTarget.AGENT | StopTarget.GROUP if step.signal is not None:
                    await process.signal(step.signal, group=step.target is StopTarget.GROUP)
            with trio.move_on_after(step.grace):
                await process.exited.wait()
            if process.exit is not None:
                return
        await process.kill()

    def _let_go(self) -> None:
        """End what refers back to us, so that a run with all that it collected is gone as soon as nobody needs it."""
        self._sink = _nowhere
        self.conversation.on_change = self._reader.parsed = _nobody
        del self._reader.note

    # --- what the readers tell --------------------------------------------------------------------------------------

    def _note(self, data: bytes) -> bool:
        """Count what was read; False when it is too much, and the rest is not worth reading."""
        self._patience.last_activity = trio.current_time()
        self._output_bytes += len(data)
        if self._output_bytes <= self.spec.limits.max_output_bytes:
            return True
        self.stop.throw(Cause.OUTPUT)
        return False

    def _look_at_summary(self) -> None:
        finished = self.spec.adapter is not None and self._reader.parser.summary.finished
        if finished is not (self._patience.finished_at is not None):
            self._patience.finished_at = trio.current_time() if finished else None
            self.poke()
        elif self._progress.phase != self._told_phase:
            self.poke()

    # --- towards the caller ----------------------------------------------------------------------------------------

    async def emit(self, *events: Event) -> None:
        """Send events of our own, in their place in the order."""
        await self._channel.send(list(events))

    async def _emit_list(self, events: Sequence[Event]) -> None:
        await self._channel.send(list(events))

    async def _pump(self) -> None:
        await self._channel.run(self._deliver)
        self._pumped.set()

    async def _deliver(self, batch: list[Event]) -> None:
        for event in batch:
            self._events.add(event, _size(event))
        if self.failure is not None:
            return
        try:
            await self._sink(batch)
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises goes to the caller of execute
            self.failure = error
            self.stop.throw(Cause.CALLBACK)

    # --- time ------------------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Something changed that `Patience` must know: look at the clocks again."""
        self._poke.set()

    def note_message(self) -> None:
        """A message was written: the agent is not finished any more."""
        self._reader.parser.summary.finished = False
        self._patience.last_activity = trio.current_time()
        self._look_at_summary()

    def request_close(self) -> None:
        """Close the input as soon as the turn is over and nothing is in flight."""
        self._patience.close_requested = True
        self.poke()

    async def _tick(self) -> None:
        with self._ticking:
            await self._tick_on()

    async def _tick_on(self) -> None:
        interval = self.spec.options.progress_interval_ms / 1000
        next_progress = self._started + interval
        while True:
            self._update_patience()
            with trio.move_on_at(min(next_progress, self._patience.next_deadline())):
                await self._poke.wait()
            self._poke = trio.Event()
            now = trio.current_time()
            if now >= next_progress or self._progress.phase != self._told_phase:
                self._told_phase = self._progress.phase
                next_progress = now + interval
                await self.emit(self._progress_update())
            self._update_patience()
            for action, request_id in self._patience.due(now):
                await self._carry_out_due(action, request_id, now)

    def _update_patience(self) -> None:
        known = self._patience.approvals
        expiry = trio.current_time() + self.spec.limits.approval_timeout
        self._patience.approvals = {
            request.request_id: known.get(request.request_id, expiry) for request in self.conversation.approvals
        }
        self._patience.input_open = self.conversation.is_open
        self._patience.in_flight = self._reader.parser.summary.in_flight
        self._patience.stopping = self.stop.cause is not None

    async def _carry_out_due(self, action: Due, request_id: str, now: float) -> None:
        match action:
            case Due.EXPIRE_APPROVAL:
                text = f"nobody answered within {self.spec.limits.approval_timeout:g} s, so it was denied"
                with contextlib.suppress(Conflict, NotFound):
                    await self.resolve(request_id, "deny", message=text, updated_input=None)
            case Due.CLOSE_INPUT:
                self._patience.close_requested = True
                if self._patience.in_flight == 0 or now >= self._patience.next_deadline():
                    await self.conversation.close()
                    # The time to exit begins now.
                    if self._patience.finished_at is not None:
                        self._patience.finished_at = now
            case Due.STOP_IDLE:
                self.stop.throw(Cause.IDLE)
            case Due.STOP_FINISHED:
                self.stop.throw(Cause.FINISHED)

    async def resolve(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> None:
        """Answer a permission request, and tell it. Raises `NotFound`, `Conflict`."""
        await self.conversation.answer(request_id, decision, message=message, updated_input=updated_input)
        self._patience.last_activity = trio.current_time()
        await self.emit(
            ApprovalResolved(**self.spec.envelope(), request_id=request_id, decision=decision, message=message)
        )

    # --- events and the end ----------------------------------------------------------------------------------------

    def _error(self, code: str, message: str) -> AgentError:
        return AgentError(**self.spec.envelope(), message=message, code=code, source="daemon")

    def _progress_update(self) -> ProgressUpdate:
        return ProgressUpdate(**self.spec.envelope(), **attrs.asdict(self._progress.update(trio.current_time())))

    def _ending(self, trouble: SpawnFailed | None) -> Ending:
        return Ending(
            spec=self.spec,
            summary=self._reader.parser.summary,
            exit=self._exit,
            cause=self.stop.cause,
            reason=self.stop.reason,
            failure=self.failure,
            trouble=trouble,
            stderr_tail=self._reader.stderr.tail(),
            duration_ms=round((trio.current_time() - self._started) * 1000),
        )

    async def _emit_end(self, ending: Ending) -> None:
        if ending.outcome.success:
            self._progress.complete(trio.current_time())
            await self.emit(self._progress_update())
        await self.emit(*fit(ending.event(**self.spec.envelope())))

    def _result(self, ending: Ending) -> ExecutionResult:
        return ending.result(
            stdout=self._reader.stdout.text(),
            stderr=self._reader.stderr.text(),
            events=(*self._events.head, *self._events.tail),
            truncated=self._reader.stdout.truncated or self._reader.stderr.truncated or self._events.omitted > 0,
        )


async def _nowhere(_events: Sequence[Event]) -> None:
    pass


def _nobody() -> None:
    pass


def _size(event: Event) -> int:
    """About what an event takes, in bytes; the bound of the collected events need not be exact."""
    match event:
        case AgentOutput() | AgentThinking():
            return _EVENT_OVERHEAD + len(event.content)
        case AgentToolCall():
            return _EVENT_OVERHEAD + encoded_size(event.input)
        case AgentRaw():
            return _EVENT_OVERHEAD + encoded_size(event.raw)
        case AgentError():
            return _EVENT_OVERHEAD + len(event.message)
        case _:
            return _EVENT_OVERHEAD
