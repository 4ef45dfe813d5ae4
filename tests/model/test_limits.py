"""Every event fits the wire, and nothing of a text is lost by that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentstream.model.events import AgentError, AgentOutput, AgentToolCall, RunCompleted
from agentstream.model.limits import MAX_EVENT_BYTES, encoded_size, fit, split_text
from agentstream.model.wire import event_body, with_seq

ENVELOPE: dict[str, Any] = {"work_order_id": "w" * 128, "run_id": "r" * 128, "timestamp": datetime.now(UTC)}


@example("\x1f\x07", 12)
@given(st.text(), st.integers(min_value=12, max_value=200))
def test_pieces_joined_are_the_text_and_each_fits(text: str, budget: int) -> None:
    pieces = list(split_text(text, budget))
    assert "".join(pieces) == text
    assert all(encoded_size(piece) <= budget for piece in pieces)


@pytest.mark.parametrize("character", ["a", "\x01", "é", "😀", '"', "\\"])
def test_output_is_split_whatever_it_is_made_of(character: str) -> None:
    event = AgentOutput(**ENVELOPE, content=character * 200_000)
    pieces = fit(event)
    assert "".join(piece.content for piece in pieces if isinstance(piece, AgentOutput)) == event.content
    assert all(len(with_seq(event_body(piece), 2**63 - 1)) <= MAX_EVENT_BYTES for piece in pieces)


@pytest.mark.parametrize(
    "value",
    [
        {"content": "x" * 1_000_000},
        {"list": ["y" * 1000] * 5000},
        {"deep": {"er": {"still": "z" * 100_000}}},
        {str(index): index for index in range(100_000)},
        {"k" * 100_000: "v"},
    ],
)
def test_input_is_cut_and_says_by_path_how_long_it_was(value: dict[str, Any]) -> None:
    [event] = fit(AgentToolCall(**ENVELOPE, tool_use_id="t", tool="Write", tool_name="Write", input=value))
    assert isinstance(event, AgentToolCall)
    assert event.truncated is not None
    assert len(with_seq(event_body(event), 2**63 - 1)) <= MAX_EVENT_BYTES


def test_the_path_of_what_was_cut_is_the_one_on_the_wire() -> None:
    call = AgentToolCall(
        **ENVELOPE, tool_use_id="t", tool="Edit", tool_name="Edit", input={"edits": [{"new_string": "n" * 70_000}]}
    )
    [event] = fit(call)
    assert isinstance(event, AgentToolCall)
    assert event.truncated == {"input.edits.0.new_string": 70_000}


def test_a_small_event_is_left_alone() -> None:
    event = AgentError(**ENVELOPE, message="m", code="C", source="agent")
    assert fit(event) == [event]


def test_a_long_result_is_cut() -> None:
    [event] = fit(RunCompleted(**ENVELOPE, duration_ms=1, result="r" * 100_000))
    assert isinstance(event, RunCompleted)
    assert event.truncated == {"result": 100_000}
