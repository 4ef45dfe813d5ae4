"""OpenTelemetry: a span of each run and of each of its tool calls, by the GenAI conventions. Optional: ``agentstream[otel]``.

Traces watch, as metrics do. The orchestrator asks for a run's trace context just before the run starts, because the agent gets it
as ``TRACEPARENT``; all else is read from the journalled events, with their timestamps. Nothing in here waits or raises (the SDK
promises not to): ended spans go into the SDK's bounded queue (2048; what comes then is lost), from which a thread of its own
sends them. A collector that is down costs a line in the log when it begins and one when it ends.

Spans say who did what, for how long and how it ended. Nothing that was said, to the agent or by it, is in them, nor what tools
were given or gave back.

https://github.com/open-telemetry/semantic-conventions-genai: the agent is a program of its own, so that its span is a client's;
input tokens include those of caches; ``tool_error`` is what the conventions for MCP call a tool that says it failed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs
import orjson
import structlog
import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentstream import __version__
from agentstream.journal.base import Record
from agentstream.orchestration.setup import RunSetup

log = structlog.get_logger("agentstream.traces")

#: Whose models the agent programs use; those that use anybody's are named themselves.
_PROVIDERS: Final[Mapping[str, str]] = {
    "claude-code": "anthropic",
    "claude-code-subscription": "anthropic",
    "openai-codex": "openai",
    "gemini-cli": "gcp.gemini",
}
_ENDS: Final = frozenset({"run_completed", "run_failed", "run_canceled"})
#: Event types that say something about a span; the others are not even decoded.
_TOLD: Final = _ENDS | {"agent_session", "agent_usage", "agent_tool_call", "agent_tool_result"}
#: Tool calls of a run whose results are still to come. An agent has a few; one that opens more gets no spans for them.
_MAX_OPEN: Final = 1000
#: Characters of names and ids that an agent chose.
_MAX_TEXT: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.define
class _Run:
    span: Span
    #: Open tool calls, by their ids.
    tools: dict[str, Span] = attrs.field(factory=dict)
    session_id: str | None = None


class Traces:
    """Makes spans of what it is told. ``exporter`` sends them; it is called in a thread of the SDK's."""

    def __init__(self, exporter: SpanExporter) -> None:
        attributes = {"service.name": "agentstream", "service.version": __version__}
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
        resource = Resource.create({**attributes, **OTELResourceDetector().detect().attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Told(exporter)))
        self._tracer = self._provider.get_tracer("agentstream", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._runs: dict[str, _Run] = {}

    def begin(self, setup: RunSetup) -> str | None:
        """A run starts now: its trace context, for its agent. In the trace of who submitted the work order, if that has one."""
        order, run = setup.order, setup.run
        caller = order.request.traceparent
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": _PROVIDERS.get(run.agent_type, run.agent_type),
            "gen_ai.agent.name": run.agent_type,
            "agentstream.work_order.id": order.id,
            "agentstream.run.id": run.id,
            "agentstream.run.number": run.run_number,
        }
        if order.request.model is not None:
            attributes["gen_ai.request.model"] = order.request.model[:_MAX_TEXT]
        span = self._tracer.start_span(
            f"invoke_agent {run.agent_type}",
            context=self._propagator.extract({"traceparent": caller} if caller else {}, context=Context()),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(run.started_at),
        )
        if span.is_recording():
            self._runs[run.id] = _Run(span)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(span, Context()))
        return carrier.get("traceparent")

    def published(self, records: Sequence[Record]) -> None:
        """These events were published."""
        for record in records:
            if self._runs and record.type in _TOLD:
                event = orjson.loads(record.body)
                run = self._runs.get(event["runId"])
                if run is not None:
                    self._tell(run, event)

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long; the rest is lost."""
        with trio.move_on_after(seconds):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)

    def _tell(self, run: _Run, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "agent_session":
                run.session_id = event["sessionId"][:_MAX_TEXT]
                run.span.set_attribute("gen_ai.conversation.id", run.session_id)
                for name, field in (("gen_ai.response.model", "model"), ("gen_ai.agent.version", "agentVersion")):
                    if field in event:
                        run.span.set_attribute(name, event[field][:_MAX_TEXT])
            case "agent_usage":
                _count_tokens(run.span, event)
            case "agent_tool_call":
                self._call(run, event)
            case "agent_tool_result":
                tool = run.tools.pop(event["toolUseId"], None)
                if tool is not None:
                    _end(tool, _time(event), None if event["success"] else "tool_error")
            case _:
                del self._runs[event["runId"]]
                _end_run(run, event)

    def _call(self, run: _Run, event: Mapping[str, Any]) -> None:
        if len(run.tools) >= _MAX_OPEN:
            return
        name = event["toolName"][:_MAX_TEXT]
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": event["toolUseId"][:_MAX_TEXT],
            **({"gen_ai.conversation.id": run.session_id} if run.session_id else {}),
        }
        # A sub-agent's calls belong to the call that it is.
        parent = run.tools.get(event.get("parentToolUseId", ""), run.span)
        run.tools[event["toolUseId"]] = self._tracer.start_span(
            f"execute_tool {name}",
            context=set_span_in_context(parent, Context()),
            attributes=attributes,
            start_time=_time(event),
        )


class _Told(SpanExporter):
    """Another exporter, with one line in the log when spans begin to get lost and one when they arrive again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        # Theirs are several for each attempt; ours say all of it.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces are delivered again", lost_spans=self._lost)
            self._lost = 0
        else:
            if not self._lost:
                log.warning("traces can't be delivered; runs go on, and spans are lost until the collector is back")
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def open_traces(endpoint: str) -> Traces:
    """Traces that go to the OTLP/HTTP collector at this base URL. The ``OTEL_*`` variables, which the SDK reads, say the rest."""
    return Traces(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces"))


def _end_run(run: _Run, event: Mapping[str, Any]) -> None:
    at = _time(event)
    for tool in run.tools.values():
        _end(tool, at, "tool_error")
    outcome = event["type"].removeprefix("run_")
    run.span.set_attribute("agentstream.run.outcome", outcome)
    if "usage" in event:
        _count_tokens(run.span, event["usage"])
    # Who cancels a run gets what he wanted: no error.
    _end(run.span, at, event["errorCode"] if outcome == "failed" else None)


def _end(span: Span, at: int, error: str | None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(at)


def _count_tokens(span: Span, usage: Mapping[str, Any]) -> None:
    cached = {
        f"gen_ai.usage.{name}.input_tokens": usage[field]
        for name, field in (("cache_read", "cacheReadTokens"), ("cache_creation", "cacheCreationTokens"))
        if field in usage
    }
    span.set_attributes(
        {
            "gen_ai.usage.input_tokens": usage["inputTokens"] + sum(cached.values()),
            "gen_ai.usage.output_tokens": usage["outputTokens"],
            **cached,
        }
    )


def _time(event: Mapping[str, Any]) -> int:
    return _nanoseconds(datetime.fromisoformat(event["timestamp"]))


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
