"""Progress is an estimate, but it never falls, and 100 means complete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentPlan,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    Event,
    Phase,
    PlanItem,
    ProgressUpdate,
    ToolName,
)
from agentstream.runs.progress import Progress, runs_tests

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
IDS: dict[str, Any] = {"work_order_id": "w", "run_id": "r", "timestamp": NOON}


def call(tool: ToolName, command: str | None = None, *, name: str | None = None) -> AgentToolCall:
    return AgentToolCall(**IDS, tool_use_id="t", tool=tool, tool_name=name or tool, input={"command": command})


def plan(*statuses: str, prefix: str = "step") -> AgentPlan:
    items = [PlanItem(content=f"{prefix} {number}", status=status) for number, status in enumerate(statuses)]
    return AgentPlan(**IDS, items=items)


RESULT = AgentToolResult(**IDS, tool_use_id="t", success=True, content_preview="", content_length=0, duration_ms=1)
TEXT = AgentOutput(**IDS, content="Done.")
THOUGHT = AgentThinking(**IDS, content="hm")


def phases(*events: Event) -> list[Phase]:
    progress = Progress(0.0)
    seen: list[Phase] = []
    for event in events:
        progress.observe(event, 1.0)
        seen.append(progress.phase)
    return seen


def test_phases_follow_the_kinds_of_tool_calls_back_and_forth() -> None:
    assert phases(
        TEXT, call("Read"), THOUGHT, call("Grep"), call("Edit"), call("Bash", "pytest -q"), call("Glob"), call("Write")
    ) == ["Starting", "Reading", "Planning", "Reading", "Implementing", "Testing", "Reading", "Implementing"]


def test_a_shell_command_that_runs_no_tests_keeps_the_phase() -> None:
    assert phases(call("Read"), call("Bash", "ls"), call("Edit"), call("Bash", "git commit -m x")) == [
        "Reading",
        "Reading",
        "Implementing",
        "Implementing",
    ]
    assert phases(call("Bash", "mkdir x")) == ["Implementing"]


def test_planning_is_a_new_plan_but_not_ticking_it_off() -> None:
    assert phases(
        call("Other", name="TodoWrite"),
        plan("pending", "pending"),
        call("Edit"),
        call("Other", name="TodoWrite"),
        plan("completed", "pending"),
        THOUGHT,
        plan("completed", "pending", prefix="other"),
    ) == ["Planning", "Planning", "Implementing", "Implementing", "Implementing", "Implementing", "Planning"]


def test_text_after_tools_is_finalizing_until_the_next_tool() -> None:
    assert phases(call("Edit"), TEXT, RESULT, TEXT, call("Bash", "ls"), RESULT, TEXT) == [
        "Implementing",
        "Implementing",
        "Implementing",
        "Finalizing",
        "Implementing",
        "Implementing",
        "Finalizing",
    ]


def test_text_while_the_plan_has_open_items_is_not_the_end() -> None:
    assert phases(plan("completed", "pending"), call("Edit"), RESULT, TEXT)[-1] == "Implementing"
    assert phases(plan("completed", "completed"), call("Edit"), RESULT, TEXT)[-1] == "Finalizing"


@pytest.mark.parametrize(
    "command",
    [
        "pytest",
        "cd src && python -m pytest -x",
        ".venv/bin/python3.11 -m unittest",
        "uv run pytest tests/",
        "CI=1 npm test",
        "npm run test -- --watch=false",
        "npm run -s test",
        "make test",
        "make -j4 check",
        "cargo test --all",
        "cargo nextest run",
        "go test ./...",
        "timeout 60 ./gradlew test",
        "bash -lc 'npx vitest run'",
        "node --test",
        "npm run -- test",
        "ls\npytest",
        "(cd web; yarn test)",
    ],
)
def test_these_commands_run_tests(command: str) -> None:
    assert runs_tests({"command": command})


@pytest.mark.parametrize(
    "command",
    [
        "pip install pytest",
        "grep -r pytest .",
        "cat tests/test_x.py",
        "make",
        "go build ./...",
        "git commit -m 'add tests'",
        "test -f x",
        "npm install",
        "mkdir test",
        "",
        None,
        5,
    ],
)
def test_these_do_not(command: object) -> None:
    assert not runs_tests({"command": command})


def test_a_command_may_be_a_list_of_arguments() -> None:
    assert runs_tests({"command": ["bash", "-lc", "pytest -q"]})
    assert not runs_tests({})


@pytest.mark.parametrize(
    "piece",
    ["A=1 ", "npm -a ", "a/", "\n", "(", "sudo ", "python -m ", "\n'", "x=", "npm run ", "--test", "'a/", "npm -"],
)
def test_a_hostile_command_is_answered_all_the_same(piece: str) -> None:
    runs_tests({"command": piece * 1_000_000})


def test_without_a_plan_calls_and_time_move_the_percentage_and_there_is_no_estimate_of_the_rest() -> None:
    progress = Progress(100.0)
    assert progress.update(100.0).percentage == 0
    early = progress.update(160.0)
    assert early.percentage > 0
    assert early.estimated_remaining_seconds is None
    for _ in range(20):
        progress.observe(call("Read"), 160.0)
    assert progress.update(160.0).percentage > early.percentage + 20
    assert progress.update(1e9).percentage == 95


def test_with_a_plan_its_items_count() -> None:
    progress = Progress(0.0)
    progress.observe(plan("pending", "pending", "pending", "pending"), 1.0)
    assert progress.update(1.0).estimated_remaining_seconds is None
    progress.observe(plan("completed", "in_progress", "pending", "pending"), 10.0)
    estimate = progress.update(12.0)
    assert estimate.percentage == 24
    assert estimate.estimated_remaining_seconds == 28.0
    progress.observe(plan("completed", "completed", "completed", "completed"), 50.0)
    estimate = progress.update(50.0)
    assert estimate.percentage == 99
    assert estimate.estimated_remaining_seconds is None


def test_a_plan_that_grows_does_not_take_progress_back() -> None:
    progress = Progress(0.0)
    progress.observe(plan("completed", "pending"), 1.0)
    assert progress.update(1.0).percentage == 49
    progress.observe(plan("completed", *["pending"] * 50), 2.0)
    assert progress.update(2.0).percentage == 49


def test_complete_is_100() -> None:
    progress = Progress(10.0)
    progress.observe(call("Read"), 11.0)
    estimate = progress.complete(12.3456)
    event = ProgressUpdate(**IDS, **attrs.asdict(estimate))
    assert event == ProgressUpdate(
        **IDS,
        percentage=100,
        current_phase="Finalizing",
        tool_call_count=1,
        elapsed_seconds=2.346,
        estimated_remaining_seconds=0.0,
    )


EVENTS = st.one_of(
    st.builds(call, st.sampled_from(["Read", "Edit", "Bash", "Other"]), st.sampled_from(["ls", "pytest"])),
    st.lists(st.sampled_from(["pending", "in_progress", "completed"]), max_size=5).map(lambda it: plan(*it)),
    st.sampled_from([RESULT, TEXT, THOUGHT, AgentError(**IDS, message="m", code="c", source="agent")]),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 5000)), max_size=30))
def test_the_percentage_never_falls_and_is_100_only_when_complete(steps: list[tuple[Event, float]]) -> None:
    progress = Progress(0.0)
    now, before = 0.0, 0
    for event, pause in steps:
        now += pause
        progress.observe(event, now)
        estimate = progress.update(now)
        assert before <= estimate.percentage <= 99
        remaining = estimate.estimated_remaining_seconds
        assert remaining is None or remaining >= 0
        before = estimate.percentage
    assert progress.complete(now).percentage == 100
    assert progress.update(now + 1).percentage == 100
