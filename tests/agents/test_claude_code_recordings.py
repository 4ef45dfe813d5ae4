"""Every recording of the real Claude Code becomes what a reviewer found right; and what must hold for each of them."""

from __future__ import annotations

import json

import attrs
import pytest

from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.model import wire
from agentstream.model.events import AgentRaw, AgentToolCall, AgentToolResult
from agentstream.model.limits import MAX_EVENT_BYTES, fit
from agentstream.model.orders import StreamingOptions
from tests.agents.conftest import Recording, check, play, recordings, request

ALL = recordings("claude")
ADAPTER = ClaudeCodeAdapter()
by_case = pytest.mark.parametrize("recording", ALL, ids=lambda recording: recording.case)


@by_case
def test_a_recording_becomes_the_reviewed_events_summary_and_outcome(recording: Recording) -> None:
    check(ADAPTER, recording)


@by_case
def test_no_line_of_the_real_program_is_unknown_or_malformed(recording: Recording) -> None:
    parser = ADAPTER.parser(request())
    assert not [event for event in play(parser, recording.lines) if isinstance(event, AgentRaw)]
    assert parser.summary.malformed_lines == 0


@by_case
def test_each_call_has_exactly_one_result_and_nothing_stays_in_flight(recording: Recording) -> None:
    parser = ADAPTER.parser(request())
    events = play(parser, recording.lines)
    calls = [event.tool_use_id for event in events if isinstance(event, AgentToolCall)]
    results = [event.tool_use_id for event in events if isinstance(event, AgentToolResult)]
    assert sorted(calls) == sorted(results)
    assert parser.summary.in_flight == 0


@by_case
def test_what_is_left_out_changes_neither_the_summary_nor_the_other_events(recording: Recording) -> None:
    whole = ADAPTER.parser(request())
    quiet = ADAPTER.parser(
        request(streaming=StreamingOptions(emit_tool_calls=False, emit_tool_results=False, emit_output=False))
    )
    left_out = {"agent_tool_call", "agent_tool_result", "agent_output", "agent_output_delta"}
    kept = [event for event in play(whole, recording.lines) if event.type not in left_out]
    assert play(quiet, recording.lines) == kept
    assert quiet.summary == whole.summary


@by_case
def test_events_hold_no_base64_and_fit_the_wire(recording: Recording) -> None:
    for event in play(ADAPTER.parser(request(), preview_limit=None), recording.lines):
        for piece in fit(event):
            body = wire.event_body(piece)
            assert b"iVBORw0KGgo" not in body
            assert len(body) < MAX_EVENT_BYTES


@by_case
def test_success_is_told_by_the_result_line_and_never_by_the_exit_status_alone(recording: Recording) -> None:
    parser = ADAPTER.parser(request())
    play(parser, recording.lines)
    results = [json.loads(line) for line in recording.lines if b'"type":"result"' in line]
    done = bool(results) and not results[-1]["is_error"]
    for code in (0, 1):
        outcome = ADAPTER.outcome(parser.summary, attrs.evolve(recording.exit, code=code, signal=None), "")
        assert outcome.success == done
        assert (outcome.error_code is None) == done
