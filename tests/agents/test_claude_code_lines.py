"""Claude Code's lines that no recording has, and the ways in which lines can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentstream.agents.claude_code_kinds import LINE_KINDS, line_kinds_markdown
from agentstream.agents.parsing import MAX_OPEN_CALLS
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentPlan,
    AgentSession,
    AgentStatus,
    AgentToolCall,
    AgentToolResult,
    AgentUsage,
    ApprovalRequested,
    ApprovalResolved,
)
from tests.agents.claude_lines import DONE, INIT, call, lines, only, parser, read, result, summary_of
from tests.agents.conftest import START, moment, play

# --- the simplified forms of older tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        {"type": "text", "text": "hi"},
        {"type": "assistant", "message": {"type": "text", "text": "hi"}},
        {"type": "assistant", "message": {"content": "hi"}},
        {"type": "assistant", "message": "hi"},
        {"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}},
    ],
)
def test_text_is_output_in_whatever_form(line: dict[str, Any]) -> None:
    assert [event.content for event in only(read(line), AgentOutput)] == ["hi"]


def test_one_block_lines_pair_calls_and_results() -> None:
    events = read(
        {"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "a"}},
        {"type": "tool_result", "tool_use_id": "t1", "content": "text of a"},
    )
    assert events == [
        AgentToolCall(
            work_order_id="w",
            run_id="r",
            timestamp=START,
            tool_use_id="t1",
            tool="Read",
            tool_name="Read",
            input={"file_path": "a"},
        ),
        AgentToolResult(
            work_order_id="w",
            run_id="r",
            timestamp=moment(1).wall,
            tool_use_id="t1",
            success=True,
            content_preview="text of a",
            content_length=9,
            duration_ms=250,
        ),
    ]


def test_a_result_without_an_id_belongs_to_the_last_open_call() -> None:
    events = read({"type": "tool_use", "name": "Bash", "input": {}}, {"type": "tool_result", "content": "x"})
    assert events[0].tool_use_id == events[1].tool_use_id  # type: ignore[attr-defined]


def test_a_message_that_is_a_tool_result_keeps_its_own_content() -> None:
    line = {
        "type": "user",
        "message": {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]},
    }
    assert [event.content_preview for event in only(read(line), AgentToolResult)] == ["x"]


def test_a_result_line_of_an_older_tool_ends_the_run() -> None:
    summary = summary_of(
        {"type": "result", "result": "fine", "session_id": "s", "cost_usd": 0.5, "usage": {"input_tokens": 3}}
    )
    assert (summary.finished, summary.error_code, summary.result_text, summary.session_id) == (True, None, "fine", "s")
    assert summary.usage is not None
    assert (summary.usage.input_tokens, summary.total_cost_usd) == (3, 0.5)


# --- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("Read", "Read"),
        ("MultiEdit", "Edit"),
        ("NotebookEdit", "Edit"),
        ("LS", "Other"),
        ("Task", "Other"),
        ("mcp__files__Read", "Other"),
        ("web_search", "WebSearch"),
    ],
)
def test_a_tool_has_the_name_of_the_protocol_and_its_own(name: str, tool: str) -> None:
    (event,) = read(call("t", name))
    assert isinstance(event, AgentToolCall)
    assert (event.tool, event.tool_name) == (tool, name)


def test_a_preview_is_500_characters_and_three_dots_and_the_length_is_in_characters() -> None:
    events = read(call("t"), result("t", "é" * 501), call("u"), result("u", "é" * 500))
    long, exact = only(events, AgentToolResult)
    assert (long.content_preview, long.content_length) == ("é" * 500 + "...", 501)
    assert (exact.content_preview, exact.content_length) == ("é" * 500, 500)


def test_the_whole_result_is_there_for_who_asks_for_it() -> None:
    whole = parser(preview_limit=None)
    events = [event for line in lines(call("t"), result("t", "x" * 9000)) for event in whole.parse(line, moment(0))]
    assert only(events, AgentToolResult)[0].content_preview == "x" * 9000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD" * 10 + "QQ=="}}],
            "[image image/png, 31 bytes]",
        ),
        (
            [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}],
            "[image https://example.org/a.png]",
        ),
        ([{"type": "image", "source": {"type": "url", "url": "data:image/png;base64,QUJD"}}], "[image]"),
        ([{"type": "tool_reference", "tool_name": "Grep"}], "[tool_reference Grep]"),
        (["plain", 5, None], "plain\n5\nnull"),
        ({"type": "image"}, "[image]"),
    ],
)
def test_a_result_is_readable_whatever_its_content_is(content: Any, text: str) -> None:
    (event,) = only(read(call("t"), result("t", content)), AgentToolResult)
    assert event.content_preview == text


def test_success_is_the_absence_of_is_error() -> None:
    events = read(*[call(name) for name in "abc"], result("a"), result("b", is_error=False), result("c", is_error=True))
    assert [event.success for event in only(events, AgentToolResult)] == [True, True, False]


def test_a_tool_at_the_api_fails_by_the_type_of_its_content() -> None:
    def line(block: dict[str, Any]) -> dict[str, Any]:
        return {"type": "assistant", "message": {"id": "m", "content": [block]}}

    events = read(
        line({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}),
        line(
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
            }
        ),
    )
    (answer,) = only(events, AgentToolResult)
    assert (answer.success, answer.content_preview) == (False, "[web_search_tool_result_error max_uses_exceeded]")


def test_the_duration_is_that_of_its_own_call_when_tools_run_side_by_side() -> None:
    events = read(call("slow"), call("fast"), result("fast"), result("slow"))
    assert [(event.tool_use_id, event.duration_ms) for event in only(events, AgentToolResult)] == [
        ("fast", 250),
        ("slow", 750),
    ]


def test_calls_without_a_result_are_failed_when_the_process_is_gone() -> None:
    fresh = parser()
    events = play(fresh, lines(INIT, call("t")))
    (answer,) = only(events, AgentToolResult)
    assert (answer.tool_use_id, answer.success, answer.duration_ms) == ("t", False, 250)
    assert not fresh.close(moment(9))


def test_calls_without_a_result_are_failed_when_their_turn_ends_so_that_the_run_can_become_idle() -> None:
    fresh = parser()
    for index, line in enumerate(lines(INIT, call("t"), DONE)):
        fresh.parse(line, moment(index))
    assert fresh.summary.in_flight == 0


def test_open_calls_are_bounded() -> None:
    fresh = parser()
    events = [event for n in range(MAX_OPEN_CALLS + 5) for event in fresh.parse(lines(call(f"t{n}"))[0], moment(n))]
    assert len(only(events, AgentToolResult)) == 5
    assert fresh.summary.in_flight == MAX_OPEN_CALLS


# --- background tasks, turns -----------------------------------------------------------------------------------------


def started(task_id: str, tool_use_id: str) -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": "task_started",
        "task_id": task_id,
        "tool_use_id": tool_use_id,
        "description": "d",
    }


def in_flight_after(*items: Any) -> int:
    fresh = parser()
    for index, line in enumerate(lines(*items)):
        fresh.parse(line, moment(index))
    return fresh.summary.in_flight


def test_a_background_task_is_in_flight_until_its_notification() -> None:
    background = result("t", structured={"backgroundTaskId": "b"})
    assert in_flight_after(INIT, call("t"), started("b", "t")) == 2
    assert in_flight_after(INIT, call("t"), started("b", "t"), background, DONE) == 1
    over = {"type": "system", "subtype": "task_notification", "task_id": "b", "status": "completed"}
    assert in_flight_after(INIT, call("t"), started("b", "t"), background, DONE, over) == 0


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (result("t", structured={"stdout": "x"}), 0),
        (result("t", is_error=True), 0),
        (result("t", structured={"status": "completed"}), 0),
        (result("t", structured={"status": "async_launched", "agentId": "a"}), 1),
        (result("t", structured="something"), 1),
    ],
)
def test_a_foreground_task_ends_with_its_tool_even_without_a_notification(answer: dict[str, Any], left: int) -> None:
    assert in_flight_after(INIT, call("t"), started("b", "t"), answer) == left


def test_a_subagent_in_the_background_goes_on_after_the_result() -> None:
    launched = result("t", structured={"status": "async_launched"})
    fresh = parser()
    for index, line in enumerate(
        lines(
            INIT,
            call("t", "Task"),
            started("b", "t"),
            launched,
            call("inner", parent="t"),
            DONE,
            call("later", parent="t"),
        )
    ):
        fresh.parse(line, moment(index))
    assert fresh.summary.finished
    assert fresh.summary.in_flight == 3


def test_a_further_turn_takes_the_end_back_and_a_session_is_told_once() -> None:
    fresh = parser()
    told = []
    for index, line in enumerate(lines(INIT, DONE, INIT)):
        told += only(fresh.parse(line, moment(index)), AgentSession)
    assert not fresh.summary.finished
    assert len(told) == 1
    assert only(fresh.parse(lines({**INIT, "model": "sonnet"})[0], moment(3)), AgentSession)


def test_an_interrupt_of_a_program_that_hangs_after_its_result_takes_nothing_back() -> None:
    aborted = {
        "type": "result",
        "subtype": "error_during_execution",
        "is_error": True,
        "terminal_reason": "aborted_streaming",
    }
    summary = summary_of(INIT, DONE, aborted)
    assert (summary.finished, summary.error_code, summary.result_text) == (True, None, "done")


def test_usage_of_several_turns_is_added_up_where_only_turns_are_told() -> None:
    turn = {**DONE, "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 1}}
    (first, second) = only(read(INIT, turn, INIT, turn), AgentUsage)
    assert (first.input_tokens, second.input_tokens, second.output_tokens, second.cache_read_tokens) == (10, 20, 4, 2)


def test_a_result_counts_whatever_its_usage_looks_like() -> None:
    summary = summary_of(INIT, {**DONE, "usage": "none", "modelUsage": [1], "num_turns": "two", "total_cost_usd": True})
    assert (summary.finished, summary.error_code, summary.turns, summary.total_cost_usd) == (True, None, 0, None)


# --- plans, permissions, compaction ----------------------------------------------------------------------------------


def test_a_task_of_an_earlier_run_of_the_session_appears_when_it_is_updated() -> None:
    (plan,) = only(
        read(call("t", "TaskUpdate", taskId="7", status="completed"), result("t", structured={"success": True})),
        AgentPlan,
    )
    assert [(item.content, item.status) for item in plan.items] == [("Task #7", "completed")]


def test_a_deleted_task_leaves_the_plan_and_a_failed_update_changes_nothing() -> None:
    create = [call("a", "TaskCreate", subject="A"), result("a", structured={"task": {"id": "1", "subject": "A"}})]
    failed = [call("b", "TaskUpdate", taskId="1", status="completed"), result("b", structured={"success": False})]
    delete = [call("c", "TaskUpdate", taskId="1", status="deleted"), result("c", structured={"success": True})]
    plans = only(read(*create, *failed, *delete), AgentPlan)
    assert [[item.content for item in plan.items] for plan in plans] == [["A"], []]


def test_a_subagents_list_does_not_replace_the_plan() -> None:
    assert not only(read(call("t", "TodoWrite", parent="p", todos=[{"content": "x", "status": "pending"}])), AgentPlan)


def test_an_expired_permission_is_a_date_even_when_it_never_expires() -> None:
    ask = {"type": "control_request", "request_id": "q", "request": {"subtype": "can_use_tool", "tool_name": "Bash"}}
    (event,) = parser(approval_seconds=float("inf")).parse(lines(ask)[0], moment(0))
    assert isinstance(event, ApprovalRequested)
    assert event.expires_at.year > START.year + 5


def test_a_request_that_was_never_made_can_not_be_taken_back() -> None:
    assert not only(read({"type": "control_cancel_request", "request_id": "other"}), ApprovalResolved)


def test_a_refused_control_message_is_told_and_a_confirmed_one_is_not() -> None:
    events = read(
        {"type": "control_response", "response": {"subtype": "success", "request_id": "a"}},
        {"type": "control_response", "response": {"subtype": "error", "request_id": "b", "error": "no turn"}},
    )
    assert [(event.code, event.message) for event in only(events, AgentError)] == [("CONTROL_REFUSED", "no turn")]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            {"subtype": "compact_boundary", "compact_metadata": {"trigger": "auto"}},
            "compaction",
            "the conversation was summarized",
        ),
        ({"subtype": "status", "status": None, "compact_result": "success"}, "compaction", "compaction success"),
        ({"subtype": "status", "status": None, "permissionMode": "plan"}, "status", "permission mode plan"),
        ({"subtype": "hook_response", "hook_name": "Stop", "outcome": "error"}, "hook", "hook Stop: error"),
    ],
)
def test_status_lines(line: dict[str, Any], kind: str, message: str) -> None:
    (event,) = only(read({"type": "system", **line}), AgentStatus)
    assert (event.kind, event.message) == (kind, message)


def test_a_network_that_is_gone_is_told_as_such() -> None:
    (event,) = only(
        read(
            {
                "type": "system",
                "subtype": "api_retry",
                "attempt": 2,
                "max_retries": 10,
                "retry_delay_ms": 1500,
                "error_status": None,
                "error": "unknown",
            }
        ),
        AgentError,
    )
    assert event.message == "attempt 2 of 10 in 1.5 s, because the API could not be reached"


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_reference_page_is_what_the_table_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "claude-code-lines.md"
    assert page.read_text() == line_kinds_markdown(), "run `make docs`"


def test_kinds_are_unique() -> None:
    assert len({row.kind for row in LINE_KINDS}) == len(LINE_KINDS)
