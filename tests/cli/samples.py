"""One event of each class."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentstream.model import events
from agentstream.model.events import Event

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
ORDER: dict[str, Any] = {"work_order_id": "w-1", "timestamp": MOMENT}
RUN: dict[str, Any] = {**ORDER, "run_id": "r-1"}

#: With what a line about it must show.
SAMPLES: tuple[tuple[Event, str], ...] = (
    (events.WorkOrderCreated(**ORDER, task_prompt="mend the\ntests", status="queued"), "queued mend the tests"),
    (events.WorkOrderUpdated(**ORDER, status="running", previous_status="queued"), "running"),
    (events.RunStarted(**RUN, run_number=2, agent_type="claude-code", resumed=True), "run 2 claude-code · resumed"),
    (
        events.RunCompleted(
            **RUN,
            duration_ms=65_000,
            turns=3,
            usage=events.Usage(input_tokens=12_000, output_tokens=345),
            total_cost_usd=0.25,
            pr_url="https://example.org/pr/1",
        ),
        "completed 1:05 · 3 turns · 12.3k tokens · $0.25 · https://example.org/pr/1",
    ),
    (
        events.RunFailed(**RUN, error="log in first", error_code="NOT_LOGGED_IN", exit_code=1, duration_ms=900),
        "failed log in first · NOT_LOGGED_IN · exit status 1 · 0.9 s",
    ),
    (events.RunCanceled(**RUN, reason="enough", duration_ms=1), "canceled enough"),
    (
        events.RunRetryScheduled(
            **RUN, attempt=2, max_attempts=3, error_code="RATE_LIMITED", delay_seconds=5.0, retry_at=MOMENT
        ),
        "retry attempt 2 of 3 in 5.0 s · RATE_LIMITED",
    ),
    (events.AgentSession(**RUN, session_id="s-1", model="m-1"), "session s-1 · m-1"),
    (
        events.AgentToolCall(**RUN, tool_use_id="t", tool="Bash", tool_name="Bash", input={"command": "make\ntest"}),
        "$ Bash make test",
    ),
    (
        events.AgentToolResult(
            **RUN, tool_use_id="t", success=False, content_preview="no rule", content_length=7, duration_ms=340
        ),
        "✗ 0.3 s no rule",
    ),
    (events.AgentOutput(**RUN, content="first\nsecond"), "first\nsecond"),
    (events.AgentThinking(**RUN, content="let me\nsee"), "… let me see"),
    (events.AgentOutputDelta(**RUN, content="fir"), "fir"),
    (events.AgentError(**RUN, message="it broke", code="STDERR", source="stderr"), "! stderr it broke · STDERR"),
    (
        events.AgentUsage(**RUN, input_tokens=900, output_tokens=20, cache_read_tokens=200, total_cost_usd=0.01),
        "1.1k tokens in · 20 out · $0.0100",
    ),
    (
        events.AgentPlan(
            **RUN,
            items=[
                events.PlanItem(content="read", status="completed"),
                events.PlanItem(content="write", status="in_progress"),
            ],
        ),
        "plan 1/2 write",
    ),
    (
        events.AgentRateLimit(**RUN, status="rejected", kind="five_hour", resets_at=MOMENT),
        "rate limit rejected · five_hour · until 12:00 UTC",
    ),
    (events.AgentStatus(**RUN, kind="compaction", message="half as long"), "compaction · half as long"),
    (events.AgentRaw(**RUN, kind="new_kind", raw={"a": 1}), 'new_kind {"a":1}'),
    (
        events.ApprovalRequested(
            **RUN, request_id="q-1", tool_name="Bash", input={"command": "rm -r build"}, expires_at=MOMENT
        ),
        "? allow Bash rm -r build  (request q-1)",
    ),
    (events.ApprovalResolved(**RUN, request_id="q-1", decision="deny", message="expired"), "✗ denied expired"),
    (events.FileChanged(**RUN, path="src/a.py", action="modified", size_bytes=2048), "~ src/a.py 2.0 KiB"),
    (
        events.ProgressUpdate(
            **RUN,
            percentage=40,
            current_phase="Testing",
            tool_call_count=7,
            elapsed_seconds=61.0,
            estimated_remaining_seconds=30.0,
        ),
        "40 % · Testing · 7 tool calls · 1:01 · about 30 s left",
    ),
    (events.UnknownEvent(**ORDER, type="agent_dance", data={"type": "agent_dance"}), "? agent_dance"),
)
