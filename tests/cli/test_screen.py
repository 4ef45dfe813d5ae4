"""The three screens, each with what it writes."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from agentstream.cli.screen import JsonScreen, LiveScreen, PlainScreen, choose
from agentstream.model import wire
from agentstream.model.events import (
    AgentOutput,
    AgentSession,
    AgentToolCall,
    AgentToolResult,
    ApprovalRequested,
    ProgressUpdate,
    RunStarted,
    WorkOrderCreated,
    WorkOrderUpdated,
)
from tests.cli.samples import MOMENT, ORDER, RUN, SAMPLES


def terminal(width: int = 90) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_json_is_the_wire_text_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"seq":7,"type":"agent_output","content":"a\x9bb","of_next_year":[1]}'
    with JsonScreen() as screen:
        screen.show(AgentOutput(**RUN, content="a"), text)
    assert capsys.readouterr().out == text + "\n"


def test_plain_lines_for_every_event_without_an_escape(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen(several=False) as screen:
        for event, _ in SAMPLES:
            screen.show(event, "")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for _, expected in SAMPLES:
        for part in expected.splitlines():
            assert part in out


def test_plain_lines_are_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen(several=False) as screen:
        screen.show(AgentOutput(**RUN, content="word " * 100), "")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_further_lines_of_a_text_stand_below_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen(several=True) as screen:
        screen.show(AgentOutput(**RUN, content="one\n\ntwo"), "")
    first, blank, second = capsys.readouterr().out.splitlines()
    assert "w-1" in first
    assert first.index("one") == second.index("two")
    assert not blank.strip()


def test_markup_of_an_agent_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainScreen(several=False) as screen:
        screen.show(AgentOutput(**RUN, content="[bold]x[/bold] :smile: [/]"), "")
    assert "[bold]x[/bold] :smile: [/]" in capsys.readouterr().out


def test_live_shows_lines_above_a_header() -> None:
    console = terminal()
    with LiveScreen(several=False, keys=True, live_console=console) as screen:
        screen.show(RunStarted(**RUN, run_number=1, agent_type="demo"), "")
        screen.show(AgentToolCall(**RUN, tool_use_id="t", tool="Bash", tool_name="Bash", input={"command": "ls"}), "")
        screen.show(
            ProgressUpdate(**RUN, percentage=30, current_phase="Reading", tool_call_count=1, elapsed_seconds=1.0), ""
        )
    out = written(console)
    assert "$ Bash ls" in out
    assert "‣" not in out  # progress is in the header alone
    assert out.rindex("30 %") > out.rindex("$ Bash ls")


def test_live_shows_paths_as_they_are_below_the_workspace_but_questions_whole() -> None:
    console = terminal(120)
    command = {"command": "cat /ws/a.txt /ws2/b.txt"}
    with LiveScreen(several=False, keys=True, live_console=console) as screen:
        screen.show(AgentSession(**RUN, session_id="s", cwd="/ws"), "")
        screen.show(AgentToolCall(**RUN, tool_use_id="t", tool="Bash", tool_name="Bash", input=command), "")
        screen.redraw()
        assert "$ Bash cat a.txt /ws2/b.txt" in written(console)
        screen.show(ApprovalRequested(**RUN, request_id="q-1", tool_name="Bash", input=command, expires_at=MOMENT), "")
        screen.redraw()
    assert "? allow Bash cat /ws/a.txt /ws2/b.txt [y/n]" in written(console)


def test_live_asks_below_and_says_how_to_answer() -> None:
    request = ApprovalRequested(
        **RUN, request_id="q-1", tool_name="Bash", input={"command": "rm -r build"}, expires_at=MOMENT
    )
    for keys, expected in ((True, "[y/n]"), (False, "agentstream approve q-1")):
        console = terminal()
        with LiveScreen(several=False, keys=keys, live_console=console) as screen:
            screen.show(request, "")
            screen.redraw()
            assert expected in written(console)


def test_live_shows_several_and_a_line_for_each_that_ended() -> None:
    console = terminal(140)
    with LiveScreen(several=True, keys=False, live_console=console) as screen:
        for name in ("w-1", "w-2"):
            order = {**ORDER, "work_order_id": name}
            screen.show(WorkOrderCreated(**order, task_prompt=f"task of {name}", status="queued"), "")
            screen.show(AgentOutput(**{**RUN, "work_order_id": name}, content=f"saying {name}"), "")
        screen.redraw()
        assert "saying w-1" in written(console)
        screen.show(WorkOrderUpdated(**{**ORDER, "work_order_id": "w-2"}, status="failed"), "")
        assert list(screen.board.views) == ["w-1"]
    assert "● failed task of w-2" in written(console)


def test_live_folds_below_the_first_line_and_cuts_previews_to_one_row() -> None:
    console = terminal(60)
    with LiveScreen(several=False, keys=False, live_console=console) as screen:
        screen.show(AgentOutput(**RUN, content="first " + "word " * 15 + "last\nsecond"), "")
        result = AgentToolResult(
            **RUN, tool_use_id="t", success=True, content_preview="x" * 100, content_length=100, duration_ms=1
        )
        screen.show(result, "")
    lines = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", written(console)).splitlines()
    first = next(number for number, text in enumerate(lines) if "first" in text)
    indent = " " * lines[first].index("first")
    assert [text.rstrip() for text in lines[first + 1 : first + 3]] == [
        indent + "word " * 6 + "last",
        indent + "second",
    ]
    assert [len(text) for text in lines if "xxx" in text] == [60]
    assert any(text.endswith("x…") for text in lines)


def test_live_bounds_what_waits_for_the_next_redraw() -> None:
    console = terminal()
    with LiveScreen(several=False, keys=False, live_console=console) as screen:
        for number in range(2000):
            screen.show(AgentOutput(**RUN, content=f"line {number}"), "")
        assert "line 1400" in written(console)
    assert "line 1999" in written(console)


def test_a_notice_goes_to_stderr_so_that_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonScreen() as screen:
        screen.notice("lost\x1b[2J it")
        event = AgentOutput(**RUN, content="x")
        screen.show(event, wire.to_json(event).decode())
    out, err = capsys.readouterr()
    assert json.loads(out)["type"] == "agent_output"
    assert err == "lost␛[2J it\n"


def test_a_pipe_gets_plain_lines_and_a_terminal_a_live_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose(as_json=False, several=False, keys=False), PlainScreen)
    assert isinstance(choose(as_json=True, several=False, keys=False), JsonScreen)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert isinstance(choose(as_json=False, several=False, keys=False), LiveScreen)
