"""Spans of real runs, and of a real daemon with a collector that comes and goes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from agentstream.journal.base import Record
from agentstream.journal.sqlite import open_journal
from agentstream.model.orders import FINAL_STATUSES, WorkOrder, WorkOrderRequest, WorkspaceSource
from agentstream.orchestration.orchestrator import Orchestrator
from agentstream.orchestration.setup import OrchestratorOptions
from agentstream.runs.driver import driver_for
from agentstream.traces import Traces
from tests.agents.claude_lines import DONE, INIT, call, lines, result
from tests.end_to_end.house import PATIENCE, Daemon

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@attrs.define
class House:
    """An orchestrator whose runs are traced into memory. Its Claude Code is a script."""

    orchestrator: Orchestrator
    script: Path
    workspace: Path
    published: list[dict[str, Any]] = attrs.field(factory=list)

    def claude(self, *items: Any, then: str = "") -> None:
        """What Claude Code prints, and a command line that follows."""
        said = self.script.with_suffix(".jsonl")
        said.write_bytes(b"\n".join([*lines(*items), b""]))
        self.script.write_text(f"cat {said}\n{then}\n")

    async def submit(self, prompt: str, agent_type: str, **fields: Any) -> WorkOrder:
        request = WorkOrderRequest(
            task_prompt=prompt,
            agent_type=agent_type,
            workspace_source=WorkspaceSource(type="local", path=str(self.workspace)),
            **fields,
        )
        return (await self.orchestrator.submit(request))[0]

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while True:
                for event in self.published:
                    if condition(event):
                        return event
                await trio.sleep(0.005)

    async def run(self, prompt: str, agent_type: str, **fields: Any) -> None:
        """A work order from its submission to its end."""
        order = await self.submit(prompt, agent_type, **fields)
        await self.until(lambda event: event["workOrderId"] == order.id and event.get("status") in FINAL_STATUSES)


Open = Callable[[], AbstractAsyncContextManager[House]]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def house(tmp_path: Path, exporter: InMemorySpanExporter) -> Open:
    @asynccontextmanager
    async def open_house() -> AsyncIterator[House]:
        traces = Traces(exporter)
        workspace, script = tmp_path / "workspace", tmp_path / "claude.sh"
        workspace.mkdir()

        async def publish(records: Sequence[Record]) -> None:
            traces.published(records)
            here.published.extend(orjson.loads(record.body) for record in records)

        async with (
            open_journal(tmp_path / "journal.sqlite", publish=publish) as journal,
            trio.open_nursery() as nursery,
        ):
            claude = driver_for(
                "claude-code", commands={"claude-code": ["/bin/sh", str(script)]}, env={"ANTHROPIC_API_KEY": "key"}
            )
            orchestrator = Orchestrator(
                journal,
                {"command": driver_for("command"), "demo": driver_for("demo"), "claude-code": claude},
                OrchestratorOptions(workspace_roots=(tmp_path,), data_dir=tmp_path / "data"),
                trace=traces.begin,
            )
            here = House(orchestrator, script, workspace)
            await nursery.start(orchestrator.run)
            yield here
            nursery.cancel_scope.cancel()
        await traces.close(PATIENCE)

    return open_house


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    assert span.attributes is not None
    return dict(span.attributes)


def context_of(traceparent: str) -> tuple[str, str, bool]:
    """Trace, parent, and whether it is sampled; the other flags differ between versions of W3C Trace Context."""
    version, trace_id, span_id, flags = traceparent.split("-")
    assert version == "00"
    return trace_id, span_id, bool(int(flags, 16) & 1)


async def test_a_run_and_its_tool_calls_are_spans(house: Open, exporter: InMemorySpanExporter) -> None:
    async with house() as here:
        await here.run("a secret plan", "demo", model="demo-large", env={"DEMO_PACE": "0.01"})
    run, *others = [span for span in exporter.get_finished_spans() if span.name == "invoke_agent demo"]
    assert others == []
    tools = [span for span in exporter.get_finished_spans() if span.name.startswith("execute_tool ")]
    calls = [event for event in here.published if event["type"] == "agent_tool_call"]
    assert len(tools) == len(calls) > 1
    assert run.kind is SpanKind.CLIENT
    assert run.status.status_code is StatusCode.UNSET
    assert run.parent is None
    told = attributes(run)
    session = next(event for event in here.published if event["type"] == "agent_session")
    end = next(event for event in here.published if event["type"] == "run_completed")
    assert told["gen_ai.operation.name"] == "invoke_agent"
    assert told["gen_ai.agent.name"] == told["gen_ai.provider.name"] == "demo"
    assert told["gen_ai.request.model"] == "demo-large"
    assert told["gen_ai.response.model"] == session["model"]
    assert told["gen_ai.conversation.id"] == session["sessionId"]
    assert told["gen_ai.usage.output_tokens"] == end["usage"]["outputTokens"]
    assert told["agentstream.run.id"] == end["runId"]
    assert told["agentstream.run.outcome"] == "completed"
    assert "error.type" not in told
    results = {event["toolUseId"]: event for event in here.published if event["type"] == "agent_tool_result"}
    assert {event["success"] for event in results.values()} == {True, False}
    for tool, event in zip(tools, calls, strict=True):
        success = results[event["toolUseId"]]["success"]
        assert tool.status.status_code is (StatusCode.UNSET if success else StatusCode.ERROR)
        assert tool.kind is SpanKind.INTERNAL
        assert tool.parent is not None
        assert tool.parent.span_id == run.context.span_id
        assert tool.context.trace_id == run.context.trace_id
        assert attributes(tool) == {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event["toolName"],
            "gen_ai.tool.call.id": event["toolUseId"],
            "gen_ai.conversation.id": session["sessionId"],
            **({} if success else {"error.type": "tool_error"}),
        }
        assert run.start_time is not None
        assert tool.start_time is not None
        assert tool.end_time is not None
        assert run.end_time is not None
        assert run.start_time <= tool.start_time <= tool.end_time <= run.end_time
    # Nothing that was said, by whomever: not the prompt, no input of a tool, no text and no result.
    everything = "".join(span.to_json() for span in (run, *tools))
    said = ["a secret plan", *(e["content"] for e in here.published if e["type"] == "agent_output"), end["result"]]
    said += [str(value) for event in calls for value in event["input"].values()]
    said += [event["contentPreview"] for event in results.values()]
    assert [text for text in said if len(text) > 5 and text in everything] == []


async def test_what_fails_is_an_error_and_sub_agents_are_below_their_call(
    house: Open, exporter: InMemorySpanExporter
) -> None:
    async with house() as here:
        here.claude(
            INIT,
            call("task", "Task"),
            call("inner", "Read", parent="task"),
            result("inner", "no such file", is_error=True),
            result("task"),
            call("open", "Bash"),
            {**DONE, "is_error": True, "subtype": "error_during_execution"},
            then="exit 1",
        )
        await here.run("do it", "claude-code")
    failed = next(event for event in here.published if event["type"] == "run_failed")
    spans = by_name(exporter)
    run, task = spans["invoke_agent claude-code"], spans["execute_tool Task"]
    inner, left = spans["execute_tool Read"], spans["execute_tool Bash"]
    assert attributes(run)["gen_ai.provider.name"] == "anthropic"
    assert attributes(run)["error.type"] == failed["errorCode"]
    assert run.status.status_code is StatusCode.ERROR
    assert run.status.description is None
    assert inner.parent is not None
    assert inner.parent.span_id == task.context.span_id
    assert task.status.status_code is StatusCode.UNSET
    for span in (inner, left):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "tool_error"


async def test_a_canceled_run_is_no_error(house: Open, exporter: InMemorySpanExporter) -> None:
    async with house() as here:
        here.claude(INIT, call("long"), then="exec sleep 1000")
        order = await here.submit("do it", "claude-code")
        await here.until(lambda event: event["type"] == "agent_tool_call")
        await here.orchestrator.cancel(work_order_id=order.id, reason="enough")
    spans = by_name(exporter)
    run = spans["invoke_agent claude-code"]
    assert run.status.status_code is StatusCode.UNSET
    assert attributes(run)["agentstream.run.outcome"] == "canceled"
    assert attributes(spans["execute_tool Bash"])["error.type"] == "tool_error"


async def test_the_agent_is_told_its_place_in_the_callers_trace(house: Open, exporter: InMemorySpanExporter) -> None:
    async with house() as here:
        await here.run("echo $TRACEPARENT", "command")
        await here.run("echo $TRACEPARENT", "command", traceparent=CALLER)
        await here.run("echo $TRACEPARENT", "command", traceparent=CALLER, env={"TRACEPARENT": "my own"})
    said = [event["content"] for event in here.published if event["type"] == "agent_output"]
    first, second, third = exporter.get_finished_spans()
    assert said[2] == "my own"
    for text, span in zip(said[:2], (first, second), strict=True):
        assert context_of(text) == (format_trace_id(span.context.trace_id), format_span_id(span.context.span_id), True)
    assert first.parent is None
    for span in (second, third):
        assert span.parent is not None
        assert (format_trace_id(span.context.trace_id), format_span_id(span.parent.span_id), True) == context_of(CALLER)


async def test_who_does_not_sample_is_not_traced(house: Open, exporter: InMemorySpanExporter) -> None:
    async with house() as here:
        await here.run("echo $TRACEPARENT", "command", traceparent=CALLER[:-1] + "0")
    [said] = [event["content"] for event in here.published if event["type"] == "agent_output"]
    trace_id, _, sampled = context_of(said)
    assert (trace_id, sampled) == (context_of(CALLER)[0], False)
    assert exporter.get_finished_spans() == ()


# --- a real daemon -----------------------------------------------------------------------------------------------------


@contextmanager
def collector(port: int = 0) -> Iterator[tuple[int, list[ExportTraceServiceRequest]]]:
    """An OTLP/HTTP collector: its port, and what it received."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def daemon(tmp_path: Path, port: int) -> Daemon:
    return Daemon(
        tmp_path,
        env={
            "AGENTSTREAM_TELEMETRY_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            # Sent soon, and given up soon.
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        },
    )


def test_a_daemon_sends_its_spans_to_a_collector(tmp_path: Path) -> None:
    with collector() as (port, received):
        with daemon(tmp_path, port) as here, here.subscriber() as watcher:
            watcher.subscribe("traced")
            body = {
                "id": "traced",
                "taskPrompt": "echo $TRACEPARENT",
                "workspaceSource": {"type": "fresh"},
                "agentType": "command",
            }
            for header in (CALLER, CALLER.replace("00f0", "00f1"), "nonsense"):
                # Sent again, as after a lost answer: by a caller whose span is another one now.
                status, answer = here.http("POST", "/api/v1/work-orders", body, headers={"traceparent": header})
                assert (status, answer["data"]["request"]["traceparent"]) == (201 if header == CALLER else 200, CALLER)
            watcher.until_ended("traced")
            assert here.stop() == 0
        [said] = [event["content"] for event in watcher.events("agent_output")]
        [resource] = [sent for request in received for sent in request.resource_spans]
        [span] = [span for scope in resource.scope_spans for span in scope.spans]
    assert context_of(said) == (span.trace_id.hex(), span.span_id.hex(), True)
    assert context_of(CALLER) == (span.trace_id.hex(), span.parent_span_id.hex(), True)
    told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert told["service.name"] == "agentstream"
    assert told["deployment.environment.name"] == "test"


def test_a_collector_that_is_down_disturbs_nobody_and_costs_two_lines(tmp_path: Path) -> None:
    with collector() as (port, _):
        pass
    with daemon(tmp_path, port) as here, here.subscriber() as watcher:
        watcher.subscribe("*")
        for number in range(3):
            here.submit("true", id=f"lost-{number}")
            watcher.until_ended(f"lost-{number}")
        assert '"level":"warning"' in here.logged("traces can't be delivered")
        with collector(port) as (_, received):
            here.submit("true", id="heard")
            watcher.until_ended("heard")
            assert '"lost_spans":' in here.logged("traces are delivered again")
            assert len(received) > 0
        here.submit("true", id="last")
        watcher.until_ended("last")
        assert here.stop() == 0
        about_it = [line for line in here.errors if "trace" in line.lower() or "opentelemetry" in line.lower()]
        # The third tells of the last run, if its span was still tried to be sent.
        assert 2 <= len(about_it) <= 3


def test_without_the_extra_the_daemon_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; from agentstream.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--workspace-root", str(tmp_path)],
        env={"AGENTSTREAM_TELEMETRY_OTLP_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install 'agentstream[otel]'" in done.stderr
    assert "Traceback" not in done.stderr
