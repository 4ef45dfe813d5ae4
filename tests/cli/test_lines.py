"""Every event has a line, and nothing that an agent says reaches the terminal as a command."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.cli.lines import TOOL_STYLES, line, tool_input
from agentstream.model.events import EVENT_CLASSES, AgentOutput, AgentToolCall, Event, UnknownEvent
from tests.cli.samples import RUN, SAMPLES

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x00\x7f"


def test_every_event_class_has_a_sample_and_so_a_line() -> None:
    assert {type(event) for event, _ in SAMPLES} == {*EVENT_CLASSES, UnknownEvent}


@pytest.mark.parametrize(("event", "expected"), SAMPLES, ids=lambda value: getattr(value, "type", ""))
def test_a_line_says_what_matters(event: Event, expected: str) -> None:
    assert expected in line(event).plain


@pytest.mark.parametrize("event", [event for event, _ in SAMPLES], ids=lambda event: event.type)
def test_no_line_carries_a_control_character(event: Event) -> None:
    plain = line(_poisoned(event)).plain
    assert not {character for character in plain if character < " " and character not in "\n\t"}
    assert not set(plain) & {"\x7f", "\x9b", "\u202e"}


def _poisoned(event: Event) -> Event:
    """``event`` with hostile text wherever a daemon would pass on text of an agent."""
    free = {"str", "str | None", "Any", "dict[str, Any]"}
    values: dict[str, Any] = {}
    for field in attrs.fields(type(event)):
        if field.name not in ("type", "work_order_id", "run_id") and str(field.type) in free and field.init:
            values[field.name] = {"command": HOSTILE} if "dict" in str(field.type) else HOSTILE
    return attrs.evolve(event, **values)


def test_only_long_texts_take_more_than_a_line() -> None:
    for event, _ in SAMPLES:
        assert isinstance(event, AgentOutput) or "\n" not in line(event).plain


def test_each_tool_has_a_symbol_of_its_own_and_a_sub_agents_call_is_indented() -> None:
    assert len({symbol for symbol, _ in TOOL_STYLES.values()}) == len(TOOL_STYLES)
    call = AgentToolCall(**RUN, tool_use_id="t", tool="Read", tool_name="Read", input={}, parent_tool_use_id="p")
    assert line(call).plain == "  ◇ Read"


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [
        ({"command": "ls", "description": "list"}, "ls"),
        ({"command": ["git", "status"]}, "git status"),
        ({"file_path": "/a/b.py", "content": "x" * 9}, "/a/b.py"),
        ({"odd": 1}, '{"odd":1}'),
        ({}, ""),
    ],
)
def test_the_telling_part_of_a_tools_input(given_input: dict[str, Any], expected: str) -> None:
    assert tool_input(given_input) == expected


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), st.recursive(st.text() | st.integers(-9, 9), st.lists), max_size=4))
def test_any_input_becomes_one_bounded_line(given_input: dict[str, Any]) -> None:
    text = tool_input(given_input)
    assert "\n" not in text
    assert len(text) <= 160
