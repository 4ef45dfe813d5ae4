"""What the header and the panels show."""

from __future__ import annotations

import io
from datetime import timedelta

from rich.console import Console, RenderableType

from agentstream.cli.board import Board, View, ask, header, side_by_side
from agentstream.model.events import (
    AgentOutput,
    AgentToolCall,
    AgentUsage,
    ApprovalRequested,
    ApprovalResolved,
    ProgressUpdate,
    RunCompleted,
    RunStarted,
    WorkOrderCreated,
    WorkOrderUpdated,
)
from tests.cli.samples import MOMENT, ORDER, RUN, SAMPLES


def drawn(renderable: RenderableType, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    with out.capture() as capture:
        out.print(renderable)
    return capture.get()


def question(request_id: str, work_order_id: str = "w-1", *, seconds: int = 0) -> ApprovalRequested:
    return ApprovalRequested(
        work_order_id=work_order_id,
        run_id="r-1",
        timestamp=MOMENT + timedelta(seconds=seconds),
        request_id=request_id,
        tool_name="Bash",
        input={"command": "rm -r build"},
        expires_at=MOMENT,
    )


def running() -> View:
    view = View("w-1")
    view.take(WorkOrderCreated(**ORDER, task_prompt="mend the tests", status="queued"))
    view.take(RunStarted(**RUN, run_number=1, agent_type="claude-code"))
    return view


def test_the_header_follows_the_run() -> None:
    view = running()
    later = MOMENT + timedelta(seconds=75)
    assert "Starting" in drawn(header(view, later))
    view.take(AgentToolCall(**RUN, tool_use_id="t", tool="Read", tool_name="Read", input={}))
    view.take(
        ProgressUpdate(
            **RUN,
            percentage=42,
            current_phase="Testing",
            tool_call_count=1,
            elapsed_seconds=70.0,
            estimated_remaining_seconds=90.0,
        )
    )
    view.take(AgentUsage(**RUN, input_tokens=1000, output_tokens=500, total_cost_usd=0.5))
    shown = drawn(header(view, later))
    for part in ("Testing", "42 %", "1 tool call ", "1:15", "about 1:30 left", "1.5k tokens", "$0.50"):
        assert part in shown


def test_the_clock_stops_when_the_run_ends() -> None:
    view = running()
    view.take(RunCompleted(**RUN, duration_ms=12_000))
    shown = drawn(header(view, MOMENT + timedelta(hours=1)))
    assert "12 s" in shown
    assert "succeeded" in shown
    assert "100 %" in shown


def test_a_clock_behind_ours_shows_no_negative_time() -> None:
    assert running().elapsed(MOMENT - timedelta(seconds=5)) == 0.0


def test_a_further_run_starts_from_nothing() -> None:
    view = running()
    view.take(AgentToolCall(**RUN, tool_use_id="t", tool="Read", tool_name="Read", input={}))
    view.take(RunCompleted(**RUN, duration_ms=12_000))
    view.take(RunStarted(**RUN, run_number=2, agent_type="claude-code"))
    assert (view.tool_calls, view.percentage, view.outcome) == (0, 0, None)


def test_the_oldest_question_is_asked_until_somebody_answers() -> None:
    board = Board()
    board.take(question("q-2", "w-2", seconds=2))
    board.take(question("q-1", "w-1", seconds=1))
    assert board.question is not None
    assert board.question.request_id == "q-1"
    assert "Asking" in drawn(header(board.views["w-1"], MOMENT))
    board.take(ApprovalResolved(**RUN, request_id="q-1", decision="deny"))
    assert board.question.request_id == "q-2"
    board.answered(board.question)
    assert board.question is None


def test_an_ended_run_asks_nothing_any_more() -> None:
    board = Board()
    board.take(question("q-1"))
    board.take(RunCompleted(**RUN, duration_ms=1))
    assert board.question is None


def test_a_question_says_how_to_answer_it() -> None:
    assert ask(question("q-1"), keys=True).plain == "? allow Bash rm -r build [y/n]"
    assert ask(question("q-1"), keys=False).plain == "? allow Bash rm -r build  agentstream approve q-1"


def test_panels_stand_side_by_side_where_there_is_room() -> None:
    views = []
    for number in range(4):
        view = View(f"w-{number}", status="running", agent_type="demo")
        view.take(AgentOutput(**RUN, content=f"saying {number}"))
        views.append(view)
    wide = drawn(side_by_side(views, MOMENT, 120, 60), 120)
    first = next(row for row in wide.splitlines() if "w-0" in row)
    assert "w-1" in first
    assert "demo agent" in first
    assert all(f"saying {number}" in wide for number in range(4))
    narrow = drawn(side_by_side(views, MOMENT, 60, 60), 60)
    assert not any("w-0" in row and "w-1" in row for row in narrow.splitlines())


def test_what_does_not_fit_is_counted_and_those_who_ask_come_first() -> None:
    views = [View(f"w-{number}", status="running") for number in range(50)]
    views[49].take(question("q", "w-49"))
    shown = drawn(side_by_side(views, MOMENT, 80, 24), 80)
    assert len(shown.splitlines()) <= 24
    assert "w-49" in shown
    assert "and 48 more" in shown


def test_any_event_can_be_taken_and_drawn() -> None:
    board = Board()
    for event, _ in SAMPLES:
        board.take(event)
    assert drawn(side_by_side(list(board.views.values()), MOMENT, 80, 24), 80)
    assert drawn(header(board.views["w-1"], MOMENT), 20)


def test_nothing_to_watch_says_so() -> None:
    assert "nothing runs" in drawn(side_by_side([], MOMENT, 80, 24))


def test_a_panel_keeps_the_end_of_long_output() -> None:
    view = running()
    view.take(AgentOutput(**RUN, content="\n".join(f"line {number}" for number in range(100))))
    assert [text.plain for text in view.last] == [f"line {number}" for number in range(95, 100)]


def test_a_work_order_has_ended_only_with_its_own_final_status() -> None:
    view = running()
    view.take(RunCompleted(**RUN, duration_ms=1))
    assert not view.ended
    view.take(WorkOrderUpdated(**ORDER, status="succeeded"))
    assert view.ended
