"""Making events: one ``emit_...`` for each event class, for embedders and the orchestrator.

Each builds its event with the time of now and appends it to the journal, which gives it its ``seq`` and publishes it: when the call
returns, the event is durable and on its way to every subscriber. Events over 64 KiB are split or cut (`agentstream.model.limits`).

The five that everybody knows are written out. The others are made from their classes, whose fields they take as keyword
arguments: ``emit_run_started(work_order_id, run_id, run_number=1, agent_type="demo")``. Their signatures are real (`inspect` and
editors that read docstrings see them); a type checker sees ``**fields``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from agentstream.journal.base import Journal
from agentstream.model import events, wire
from agentstream.model.events import Event, FileAction, Phase, RunEvent, ToolName
from agentstream.model.limits import fit


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


_Emit = Callable[..., Coroutine[Any, Any, None]]

#: What every emit function gives its event itself.
_GIVEN: Final = frozenset({"type", "work_order_id", "run_id", "timestamp", "seq", "journalled"})


def _emits(cls: type[Event]) -> _Emit:
    """``async emit(self, work_order_id[, run_id], *, <the fields of cls>)``."""
    leading = ["self", "work_order_id", *(["run_id"] if issubclass(cls, RunEvent) else [])]

    async def emit(self: Emitter, *ids: str, **fields: Any) -> None:
        given = signature.bind(self, *ids, **fields).arguments
        given.pop("self")
        await self.append(cls(timestamp=now(), **given))

    fields = [field for field in attrs.fields(cls) if field.name not in _GIVEN]
    signature = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str) for name in leading]
        + [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=field.type,
                default=inspect.Parameter.empty if field.default is attrs.NOTHING else field.default,
            )
            for field in fields
        ]
    )
    emit.__signature__ = signature  # type: ignore[attr-defined]  # what `inspect.signature` looks for
    emit.__name__ = f"emit_{wire.type_of(cls)}"
    emit.__qualname__ = f"Emitter.{emit.__name__}"
    emit.__doc__ = f"Emit a `{cls.__name__}`. {inspect.getdoc(cls) or ''}"
    return emit


class Emitter:
    """Appends events to a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def append(self, event: Event) -> None:
        """Journal an event, and so publish it."""
        await self._journal.append(fit(event))

    async def broadcast(self, event: Event, work_order_id: str) -> None:
        """Publish an event to all that subscribed to ``work_order_id``, which becomes the event's own."""
        if event.work_order_id != work_order_id:
            event = attrs.evolve(event, work_order_id=work_order_id)
        await self.append(event)

    async def emit_agent_tool_call(
        self,
        work_order_id: str,
        run_id: str,
        *,
        tool_use_id: str,
        tool: ToolName,
        tool_name: str,
        input: dict[str, Any],  # noqa: A002 - the field's name on the wire
        parent_tool_use_id: str | None = None,
    ) -> None:
        """The agent calls a tool."""
        await self.append(
            events.AgentToolCall(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=now(),
                tool_use_id=tool_use_id,
                tool=tool,
                tool_name=tool_name,
                input=input,
                parent_tool_use_id=parent_tool_use_id,
            )
        )

    async def emit_agent_tool_result(
        self,
        work_order_id: str,
        run_id: str,
        *,
        tool_use_id: str,
        success: bool,
        content_preview: str,
        content_length: int,
        duration_ms: int,
        parent_tool_use_id: str | None = None,
    ) -> None:
        """A tool call's result; ``content_length`` in characters."""
        await self.append(
            events.AgentToolResult(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=now(),
                tool_use_id=tool_use_id,
                success=success,
                content_preview=content_preview,
                content_length=content_length,
                duration_ms=duration_ms,
                parent_tool_use_id=parent_tool_use_id,
            )
        )

    async def emit_agent_output(
        self,
        work_order_id: str,
        run_id: str,
        *,
        content: str,
        message_id: str | None = None,
        parent_tool_use_id: str | None = None,
    ) -> None:
        """Text that the agent says."""
        await self.append(
            events.AgentOutput(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=now(),
                content=content,
                message_id=message_id,
                parent_tool_use_id=parent_tool_use_id,
            )
        )

    async def emit_file_changed(
        self, work_order_id: str, run_id: str, *, path: str, action: FileAction, size_bytes: int | None = None
    ) -> None:
        """A file of the workspace changed; ``path`` is relative to it."""
        await self.append(
            events.FileChanged(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=now(),
                path=path,
                action=action,
                size_bytes=size_bytes,
            )
        )

    async def emit_progress_update(
        self,
        work_order_id: str,
        run_id: str,
        *,
        percentage: int,
        current_phase: Phase,
        tool_call_count: int,
        elapsed_seconds: float,
        estimated_remaining_seconds: float | None = None,
    ) -> None:
        """An estimate of how far the run is; ``percentage`` from 0 to 100."""
        await self.append(
            events.ProgressUpdate(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=now(),
                percentage=percentage,
                current_phase=current_phase,
                tool_call_count=tool_call_count,
                elapsed_seconds=elapsed_seconds,
                estimated_remaining_seconds=estimated_remaining_seconds,
            )
        )

    emit_work_order_created = _emits(events.WorkOrderCreated)
    emit_work_order_updated = _emits(events.WorkOrderUpdated)
    emit_run_started = _emits(events.RunStarted)
    emit_run_completed = _emits(events.RunCompleted)
    emit_run_failed = _emits(events.RunFailed)
    emit_run_canceled = _emits(events.RunCanceled)
    emit_run_retry_scheduled = _emits(events.RunRetryScheduled)
    emit_agent_session = _emits(events.AgentSession)
    emit_agent_thinking = _emits(events.AgentThinking)
    emit_agent_output_delta = _emits(events.AgentOutputDelta)
    emit_agent_error = _emits(events.AgentError)
    emit_agent_usage = _emits(events.AgentUsage)
    emit_agent_plan = _emits(events.AgentPlan)
    emit_agent_rate_limit = _emits(events.AgentRateLimit)
    emit_agent_status = _emits(events.AgentStatus)
    emit_agent_raw = _emits(events.AgentRaw)
    emit_approval_requested = _emits(events.ApprovalRequested)
    emit_approval_resolved = _emits(events.ApprovalResolved)
