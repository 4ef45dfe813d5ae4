"""What a run is set up with: the work order's wishes, the operator's bounds, and what the agent can do. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from agentstream.agents.base import RunRequest
from agentstream.model.orders import Run, WorkOrder
from agentstream.orchestration.recovery import RestartPolicy
from agentstream.runs.driver import Driver
from agentstream.runs.spec import RunLimits

#: Permission modes in which the agent decides by itself, so nobody is asked.
_UNATTENDED: Final = frozenset({"bypassPermissions", "dontAsk", "auto"})


@attrs.frozen(kw_only=True)
class OrchestratorOptions:
    """What the operator set. Times in seconds."""

    workspace_roots: tuple[Path, ...]
    #: Holds ``runs/`` and ``workspaces/``.
    data_dir: Path
    max_concurrent_runs: int = 8
    timeout: float | None = 6 * 3600.0
    idle_timeout: float | None = 1800.0
    restart_policy: RestartPolicy = "fail"
    limits: RunLimits = attrs.field(factory=RunLimits)


@attrs.frozen(kw_only=True)
class RunSetup:
    """One run, ready to be carried out."""

    order: WorkOrder
    run: Run
    request: RunRequest
    driver: Driver
    directory: Path
    limits: RunLimits
    redact: Callable[[bytes], bytes] | None
    watch_exclude: tuple[Path, ...]


def traced(setup: RunSetup, trace: Callable[[RunSetup], str | None] | None) -> RunSetup:
    """``setup`` with the trace context that the agent's own spans continue: what ``trace`` says, or who submitted the work order.

    A variable of the work order wins over it.
    """
    traceparent = trace(setup) if trace is not None else setup.order.request.traceparent
    if traceparent is None:
        return setup
    env = {"TRACEPARENT": traceparent, **setup.request.env}
    return attrs.evolve(setup, request=attrs.evolve(setup.request, env=env))


def set_up(
    order: WorkOrder,
    driver: Driver,
    options: OrchestratorOptions,
    *,
    deltas: bool,
    redact: Callable[[bytes], bytes] | None,
) -> RunSetup:
    """The next run of a work order. What the last run left for this one (prompt, session) is used up."""
    asked = order.request
    run_id = f"run-{secrets.token_hex(8)}"
    prompt = order.next_prompt or asked.task_prompt
    session_id = order.next_session_id or asked.resume_session_id
    capabilities = driver.capabilities()
    return RunSetup(
        order=attrs.evolve(
            order,
            run_count=order.run_count + 1,
            attempt=order.attempt + 1,
            next_prompt=None,
            next_session_id=None,
            error=None,
            error_code=None,
        ),
        run=Run(
            id=run_id,
            work_order_id=order.id,
            run_number=order.run_count + 1,
            agent_type=asked.agent_type,
            status="running",
            started_at=datetime.now(UTC),
            prompt=prompt,
            resumed_session_id=session_id,
            directory=f"runs/{run_id}",
        ),
        request=RunRequest(
            prompt=prompt,
            cwd=order.workspace,
            work_order_id=order.id,
            run_id=run_id,
            model=asked.model,
            max_turns=asked.max_turns,
            permission_mode=asked.permission_mode,
            allowed_tools=asked.allowed_tools,
            disallowed_tools=asked.disallowed_tools,
            system_prompt=asked.system_prompt,
            resume_session_id=session_id,
            timeout_seconds=asked.timeout_seconds or options.timeout,
            idle_timeout_seconds=asked.idle_timeout_seconds or options.idle_timeout,
            env=asked.env or {},
            interactive=asked.interactive,
            ask_approvals=capabilities.approvals and asked.permission_mode not in _UNATTENDED,
            include_deltas=capabilities.deltas and (asked.include_deltas or deltas),
            streaming=asked.streaming,
        ),
        driver=driver,
        directory=options.data_dir / "runs" / run_id,
        limits=options.limits,
        redact=redact,
        watch_exclude=(options.data_dir,),
    )
