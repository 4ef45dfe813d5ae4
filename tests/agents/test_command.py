"""Any program: its text is output, whatever the text is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.agents.base import Adapter, Exit
from agentstream.agents.command import CommandAdapter, LenientParser, PlainParser
from agentstream.errors import Conflict, InvalidMessage
from agentstream.model.events import AgentError, AgentOutput, AgentRaw, AgentToolCall, Event
from agentstream.model.orders import StreamingOptions
from tests.agents.conftest import moment, play, request

COMMAND: Adapter = CommandAdapter()


def contents(events: list[Event]) -> list[str]:
    return [event.content for event in events if isinstance(event, AgentOutput)]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"])))
def test_the_outputs_joined_by_newlines_are_the_text(text: str) -> None:
    lines = text.encode().split(b"\n")
    assert "\n".join(contents(play(PlainParser(request()), lines))) == text


def test_text_with_braces_and_brackets_and_bytes_that_are_none() -> None:
    events = play(PlainParser(request()), [b'{"type":"text","text":"x"}', b"", b"\xffa\r", b"[1]"])
    assert contents(events) == ['{"type":"text","text":"x"}', "", "\ufffda", "[1]"]


def test_output_that_nobody_wants_is_not_made() -> None:
    quiet = request(streaming=StreamingOptions(emit_output=False))
    assert play(PlainParser(quiet), [b"a"]) == play(LenientParser(quiet), [b"a"]) == []


def test_json_objects_are_events_and_everything_else_is_text() -> None:
    parser = LenientParser(request())
    events = play(
        parser,
        [
            b"starting",
            b"",
            b"  indented",
            b'{"type":"tool_use","id":"t","name":"Bash","input":{}}',
            b"",
            b'{"type":"text","text":"hello"}',
            b'{"level":"info"}',
            b"[1, 2]",
            b"42",
            b"\xff",
        ],
    )
    assert contents(events) == ["starting", "", "  indented", "hello", "[1, 2]", "42", "\ufffd"]
    assert [type(event) for event in events if isinstance(event, AgentToolCall | AgentRaw)] == [AgentToolCall, AgentRaw]
    assert parser.summary.malformed_lines == 0


def test_what_begins_like_an_object_and_is_none_is_malformed_and_told_once() -> None:
    parser = LenientParser(request())
    events = play(parser, [b'{"type":', b"{ not json", b"text"])
    assert parser.summary.malformed_lines == 2
    assert [event.code for event in events if isinstance(event, AgentError)] == ["MALFORMED_LINE"]
    assert contents(events) == ["text"]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_hurt(lines: list[bytes]) -> None:
    for parser in (PlainParser(request()), LenientParser(request())):
        play(parser, lines)


def test_a_command_line_runs_in_a_shell() -> None:
    launch = COMMAND.launch(request(prompt="echo $X; exit 3", env={"X": "1"}, interactive=True), {"PATH": "/bin"})
    assert launch.argv == ("/bin/sh", "-c", "echo $X; exit 3")
    assert launch.env == {"PATH": "/bin", "X": "1"}
    assert launch.keep_stdin_open
    assert COMMAND.message("hi") == b"hi\n"


def test_its_exit_status_decides() -> None:
    summary = COMMAND.parser(request()).summary
    assert COMMAND.outcome(summary, Exit(code=0), "").success
    assert COMMAND.outcome(summary, Exit(code=3), "no\n").error_code == "EXIT_STATUS"


@pytest.mark.parametrize(
    "changes", [{"prompt": " "}, {"prompt": "a\0b"}, {"prompt": "x" * 200_000}, {"resume_session_id": "s"}]
)
def test_what_no_shell_can_run_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidMessage):
        COMMAND.launch(request(**changes), {})


def test_a_command_has_no_turns_and_asks_for_nothing() -> None:
    with pytest.raises(Conflict):
        COMMAND.interrupt()
    with pytest.raises(Conflict):
        COMMAND.approval("q", "allow", message=None, updated_input={})
    assert PlainParser(request()).parse(b"x", moment(0))
