"""The orchestrator: work order -> queue -> runs.

All state that changes is here, in the one Trio thread, and only for work orders that are queued or running; the journal has
the rest.
`Orchestrator.run` decides with `planner.plan`, which is pure, and starts each run in its nursery; whatever changes the state
pokes it. A status changes only along the transition tables, and is committed with the event that tells it before anybody
sees it.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from agentstream.agents.base import RunRequest
from agentstream.errors import AgentstreamError, Conflict, InvalidMessage, NotFound
from agentstream.journal.base import Journal
from agentstream.model.events import ApprovalRequested, Decision, WorkOrderCreated
from agentstream.model.limits import fit
from agentstream.model.orders import FINAL_STATUSES, Run, WorkOrder, WorkOrderRequest
from agentstream.model.result import ExecutionResult
from agentstream.orchestration import rawlog, recovery, workspaces
from agentstream.orchestration.base import AgentInfo, OrchestratorStatistics
from agentstream.orchestration.planner import Waiting, plan
from agentstream.orchestration.run_executor import RunExecutor
from agentstream.orchestration.setup import OrchestratorOptions, RunSetup, set_up, traced
from agentstream.orchestration.status import settle, with_status
from agentstream.runs.driver import Driver
from agentstream.runs.executor import StreamingExecutor
from agentstream.runs.inotify import InotifyHub
from agentstream.runs.process import find_processes, sweep

#: Versions of agent programs are asked for again after this, in seconds: each costs a start of the program.
_AGENTS_TTL: Final = 60.0


@attrs.define
class _Live:
    """A work order that is queued or running."""

    order: WorkOrder
    not_before: float = 0.0
    running: RunExecutor | None = None
    #: Set when it has ended.
    ended: trio.Event = attrs.field(factory=trio.Event)


class Orchestrator:
    """Implements `orchestration.base.Orchestration`.

    ``drivers`` by agent type; ``redactor`` makes a run's redaction from the environment that its request adds. ``trace`` is told of
    each run before it starts, and says which trace context its agent gets; without it, that of who submitted the work order.
    """

    def __init__(
        self,
        journal: Journal,
        drivers: Mapping[str, Driver],
        options: OrchestratorOptions,
        *,
        hub: InotifyHub | None = None,
        redactor: Callable[[Mapping[str, str]], Callable[[bytes], bytes] | None] = lambda _: None,
        trace: Callable[[RunSetup], str | None] | None = None,
    ) -> None:
        self._journal = journal
        self._drivers = drivers
        self._options = options
        self._hub = hub
        self._redactor = redactor
        self._trace = trace
        self._live: dict[str, _Live] = {}
        self._submitting = trio.Lock()
        self._poke = trio.Event()
        self._accepting = True
        self._outcomes: dict[str, int] = {"succeeded": 0, "failed": 0, "canceled": 0}
        self._malformed = 0
        self._delta_watchers: dict[str, int] = {}
        self._agents: tuple[float, list[AgentInfo]] = (-math.inf, [])
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("agentstream.orchestrator")

    def reconfigure(
        self,
        drivers: Mapping[str, Driver],
        options: OrchestratorOptions,
        redactor: Callable[[Mapping[str, str]], Callable[[bytes], bytes] | None],
    ) -> None:
        """Runs that start from now on are set up by these; those that run keep what they have."""
        self._drivers, self._options, self._redactor = drivers, options, redactor
        self._agents = (-math.inf, [])
        self._poke.set()

    # --- the background task ---------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover what a former life left, then start runs as long as there are some. Ends only by cancellation."""
        strays = await trio.to_thread.run_sync(find_processes)
        _, unfinished = await self._journal.unfinished()
        former = {run.id for run in unfinished} & set(strays.values())
        if former:
            killed = await trio.to_thread.run_sync(sweep, former)
            self._log.warning("swept agent processes of a former life", processes=killed)
        for order in await recovery.recover(self._journal, self._options.restart_policy):
            self._live[order.id] = _Live(order)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._poke = trio.Event()
                ask_again_at = self._start_due(nursery)
                with trio.move_on_at(math.inf if ask_again_at is None else ask_again_at):
                    await self._poke.wait()

    def _start_due(self, nursery: trio.Nursery) -> float | None:
        if not self._accepting:
            return None
        waiting = [
            Waiting(work_order_id=live.order.id, not_before=live.not_before)
            for live in self._live.values()
            if live.running is None
        ]
        running = {live.order.id for live in self._live.values() if live.running is not None}
        decided = plan(waiting, running, max_concurrent=self._options.max_concurrent_runs, now=trio.current_time())
        for work_order_id in decided.start:
            live = self._live[work_order_id]
            order, driver = live.order, self._drivers[live.order.request.agent_type]
            setup = set_up(
                order,
                driver,
                self._options,
                deltas=self._wants_deltas(order.id),
                redact=self._redactor(order.request.env or {}),
            )
            live.running = RunExecutor(traced(setup, self._trace), self._journal, self._hub)
            nursery.start_soon(self._carry_out, live, live.running)
        return decided.ask_again_at

    async def _carry_out(self, live: _Live, executor: RunExecutor) -> None:
        log = self._log.bind(work_order_id=live.order.id, run_id=executor.setup.run.id)
        outcome: ExecutionResult | AgentstreamError
        try:
            await executor.begin()
            live.order = executor.setup.order
            log.info("run started", agent_type=executor.setup.run.agent_type, run_number=executor.setup.run.run_number)
            await trio.to_thread.run_sync(self._check_workspace, live.order)
            outcome = await executor.execute()
        except AgentstreamError as error:
            outcome = error
        except Exception as error:  # a bug of ours ends this run, not the daemon with all the others
            log.exception("run failed inside")
            outcome = AgentstreamError(f"agentstream itself failed: {error!r}; please report it")
        if isinstance(outcome, ExecutionResult):
            self._malformed += outcome.malformed_lines
        settled = settle(
            live.order,
            executor.setup.run.id,
            outcome,
            now=datetime.now(UTC),
            may_retry=self._accepting,
            random=random.random(),
        )
        live.order = settled.order
        await executor.finish(outcome, live.order, settled.events)
        log.info("run ended", status=live.order.status, error_code=live.order.error_code)
        live.running = None
        if live.order.status in FINAL_STATUSES:
            self._outcomes[live.order.status] += 1
            del self._live[live.order.id]
            live.ended.set()
        else:
            live.not_before = trio.current_time() + settled.delay
        executor.done.set()
        self._poke.set()

    def _check_workspace(self, order: WorkOrder) -> None:
        workspaces.check_again(
            order.workspace, roots=self._options.workspace_roots, fresh=self._options.data_dir / "workspaces"
        )

    async def stop(self, grace: float) -> None:
        """Start no run any more; let those that run finish for ``grace`` seconds, then cancel them; return when all are committed.

        Queued work orders stay queued for the next life.
        """
        self._accepting = False
        running = [live.running for live in self._live.values() if live.running is not None]
        with trio.move_on_after(grace):
            for executor in running:
                await executor.done.wait()
        for executor in running:
            executor.cancel("the daemon stops")
        for executor in running:
            await executor.done.wait()

    # --- orchestration.base.Orchestration --------------------------------------------------------------------------

    def statistics(self) -> OrchestratorStatistics:
        """A frozen look, without I/O."""
        running = sum(live.running is not None for live in self._live.values())
        return OrchestratorStatistics(
            queued=len(self._live) - running,
            running=running,
            max_concurrent_runs=self._options.max_concurrent_runs,
            open_approvals=len(self.approvals()),
            accepting=self._accepting,
            outcomes=dict(self._outcomes),
            malformed_lines=self._malformed,
        )

    async def submit(self, request: WorkOrderRequest) -> tuple[WorkOrder, bool]:
        """See `Orchestration.submit`."""
        self._check_accepting()
        self._driver(request.agent_type)
        work_order_id = request.id or f"wo-{secrets.token_hex(8)}"
        async with self._submitting:
            known = await self._find(work_order_id)
            if known is not None:
                if attrs.evolve(known.request, id=None) != attrs.evolve(request, id=None):
                    raise Conflict(f"the work order {work_order_id} exists with another body; use another id")
                return known, False
            fresh = self._options.data_dir / "workspaces" / work_order_id
            workspace = await trio.to_thread.run_sync(
                lambda: workspaces.resolve(request.workspace_source, roots=self._options.workspace_roots, fresh=fresh)
            )
            now = datetime.now(UTC)
            order = WorkOrder(
                id=work_order_id, request=request, workspace=workspace, status="queued", created_at=now, updated_at=now
            )
            created = WorkOrderCreated(
                work_order_id=work_order_id, timestamp=now, task_prompt=request.task_prompt, status="queued"
            )
            await self._journal.append(fit(created), work_orders=[order])
            self._enqueue(order)
        self._log.info("work order queued", work_order_id=order.id, agent_type=request.agent_type)
        return order, True

    def _enqueue(self, order: WorkOrder) -> None:
        self._live[order.id] = _Live(order)
        self._poke.set()

    async def further_run(self, work_order_id: str, *, task_prompt: str | None, resume: bool) -> WorkOrder:
        """See `Orchestration.further_run`."""
        self._check_accepting()
        async with self._submitting:
            order = await self._known(work_order_id)
            if order.status not in FINAL_STATUSES:
                raise Conflict(f"the work order {work_order_id} is {order.status}; wait for its end, or cancel it")
            if resume and order.session_id is None:
                raise Conflict(f"no session of the work order {work_order_id} is known; run it without resume")
            order, event = with_status(
                order,
                "queued",
                datetime.now(UTC),
                attempt=0,
                next_prompt=task_prompt,
                next_session_id=order.session_id if resume else None,
                error=None,
                error_code=None,
            )
            await self._journal.append([event], work_orders=[order])
            self._enqueue(order)
        self._log.info("further run queued", work_order_id=order.id, resume=resume)
        return order

    async def cancel(
        self, *, work_order_id: str | None = None, run_id: str | None = None, reason: str | None = None
    ) -> WorkOrder:
        """See `Orchestration.cancel`."""
        if work_order_id is None:
            if run_id is None:
                raise NotFound("name the work order or the run to cancel")
            run = await self._journal.run(run_id)
            if run is None:
                raise NotFound(f"no run {run_id}")
            work_order_id = run.work_order_id
        live = self._live.get(work_order_id)
        if live is None:
            return await self._known(work_order_id)
        if run_id is not None and (live.running is None or live.running.setup.run.id != run_id):
            return live.order
        while (executor := live.running) is not None:
            executor.cancel(reason)
            await executor.done.wait()
        if self._live.get(work_order_id) is live:
            # Taken out first: nothing may start it while the journal commits.
            del self._live[work_order_id]
            live.order, event = with_status(
                live.order, "canceled", datetime.now(UTC), error=reason, error_code="CANCELLED"
            )
            await self._journal.append([event], work_orders=[live.order])
            self._outcomes["canceled"] += 1
            self._log.info("work order canceled before it ran", work_order_id=work_order_id)
            live.ended.set()
        return live.order

    async def send_message(self, run_id: str, text: str) -> None:
        """See `Orchestration.send_message`."""
        await (await self._executor(run_id)).send_message(text)

    async def interrupt(self, run_id: str) -> None:
        """See `Orchestration.interrupt`."""
        await (await self._executor(run_id)).interrupt()

    async def close_input(self, run_id: str) -> None:
        """See `Orchestration.close_input`."""
        (await self._executor(run_id)).close_input()

    async def resolve_approval(
        self,
        request_id: str,
        decision: Decision,
        *,
        message: str | None = None,
        updated_input: dict[str, Any] | None = None,
    ) -> None:
        """See `Orchestration.resolve_approval`."""
        for executor in self._executors():
            if any(request.request_id == request_id for request in executor.approvals):
                await executor.resolve_approval(request_id, decision, message=message, updated_input=updated_input)
                return
        raise NotFound(f"no open approval request {request_id}; it was answered, expired or withdrawn")

    def approvals(self) -> list[ApprovalRequested]:
        """See `Orchestration.approvals`."""
        return sorted(
            (request for executor in self._executors() for request in executor.approvals),
            key=lambda request: request.timestamp,
        )

    async def tool_call(self, run_id: str, tool_use_id: str) -> dict[str, Any]:
        """See `Orchestration.tool_call`."""
        run = await self._journal.run(run_id)
        if run is None:
            raise NotFound(f"no run {run_id}")
        adapter = self._driver(run.agent_type).adapter
        request = RunRequest(prompt="", cwd="/", work_order_id=run.work_order_id, run_id=run.id)
        stdout = Path(self.raw_log(run, "stdout"))
        found = await trio.to_thread.run_sync(rawlog.find_tool_call, stdout, adapter, request, tool_use_id)
        return found

    def raw_log(self, run: Run, stream: str) -> str:
        """See `Orchestration.raw_log`."""
        if run.directory is None or stream not in ("stdout", "stderr"):
            raise NotFound(f"run {run.id} has no raw {stream}")
        path = self._options.data_dir / run.directory / stream
        if not path.exists():
            raise NotFound(f"the raw {stream} of run {run.id} is gone, or the run never started")
        return str(path)

    async def agents(self) -> list[AgentInfo]:
        """See `Orchestration.agents`."""
        asked, known = self._agents
        if trio.current_time() - asked < _AGENTS_TTL:
            return known
        found: dict[str, AgentInfo] = {}

        async def look(agent_type: str, driver: Driver) -> None:
            found[agent_type] = await agent_info(driver)

        async with trio.open_nursery() as nursery:
            for agent_type, driver in self._drivers.items():
                nursery.start_soon(look, agent_type, driver)
        infos = [found[agent_type] for agent_type in self._drivers]
        self._agents = (trio.current_time(), infos)
        return infos

    def deltas_wanted(self, work_order_id: str, wanted: bool) -> None:
        """See `Orchestration.deltas_wanted`."""
        count = self._delta_watchers.get(work_order_id, 0) + (1 if wanted else -1)
        if count > 0:
            self._delta_watchers[work_order_id] = count
        else:
            self._delta_watchers.pop(work_order_id, None)

    # --- looking things up -----------------------------------------------------------------------------------------

    def _wants_deltas(self, work_order_id: str) -> bool:
        return bool(self._delta_watchers.get("*") or self._delta_watchers.get(work_order_id))

    def _check_accepting(self) -> None:
        if not self._accepting:
            raise Conflict("the daemon is stopping and takes no new work")

    def _driver(self, agent_type: str) -> Driver:
        try:
            return self._drivers[agent_type]
        except KeyError:
            known = ", ".join(self._drivers)
            raise InvalidMessage(
                f"agentType: expected one of {known}, got {agent_type!r}", details={"field": "agentType"}
            ) from None

    async def _find(self, work_order_id: str) -> WorkOrder | None:
        live = self._live.get(work_order_id)
        return live.order if live is not None else await self._journal.work_order(work_order_id)

    async def _known(self, work_order_id: str) -> WorkOrder:
        order = await self._find(work_order_id)
        if order is None:
            raise NotFound(f"no work order {work_order_id}")
        return order

    def _executors(self) -> Sequence[StreamingExecutor]:
        return [
            live.running.executor
            for live in self._live.values()
            if live.running is not None and live.running.executor is not None
        ]

    async def _executor(self, run_id: str) -> StreamingExecutor:
        for executor in self._executors():
            if executor.run_id == run_id:
                return executor
        if await self._journal.run(run_id) is None:
            raise NotFound(f"no run {run_id}")
        raise Conflict(f"the run {run_id} is not running any more")


async def agent_info(driver: Driver) -> AgentInfo:
    """What there is to tell of an agent on this machine. Starts its program once, for the version."""
    available = await trio.to_thread.run_sync(driver.is_available)
    return AgentInfo(
        agent_type=driver.agent_type,
        label=driver.adapter.label,
        installed=available.installed,
        program=available.program,
        version=await driver.version() if available.installed else None,
        login=available.login,
        problem=available.problem,
        capabilities=driver.capabilities(),
    )
