"""A line can't hurt: what is unknown, absurd or broken becomes an event or is counted, and never an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentstream.agents.base import Exit
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.agents.content import MAX_DEPTH
from agentstream.model import wire
from agentstream.model.events import AgentError, AgentOutput, AgentRaw, AgentThinking, AgentToolCall
from agentstream.model.limits import fit
from tests.agents.claude_lines import DONE, call, lines, only, parser, read
from tests.agents.conftest import moment, play, recordings
from tests.agents.spoiling import JSON, spoilt


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"type": "brand_new", "x": 1}, "brand_new"),
        ({"x": 1}, "unknown"),
        ({"type": None}, "unknown"),
        ({"type": ["assistant"]}, "unknown"),
        ({"type": "system", "subtype": "brand_new"}, "system/brand_new"),
        ({"type": "system", "subtype": {"a": 1}}, "system/{'a': 1}"),
        ({"type": "control_request", "request": {"subtype": "hook_callback"}}, "control_request/hook_callback"),
        ({"type": "control_request", "request": 5}, "control_request/None"),
        ({"type": "assistant", "message": {"content": 5}}, "assistant"),
        ({"type": "assistant", "message": None}, "assistant"),
        ({"type": "assistant"}, "assistant"),
        ({"type": "assistant", "message": {"content": [{"type": "video"}]}}, "assistant [video]"),
        ({"type": "assistant", "message": {"content": [None]}}, "assistant [unknown]"),
        ({"type": "assistant", "message": {"content": [{"type": "text", "text": 5}]}}, "assistant [text]"),
        ({"type": "assistant", "message": {"content": [{"type": "tool_use", "input": {}}]}}, "assistant [tool_use]"),
        ({"type": "system", "subtype": "init", "session_id": None}, "system/init"),
        ({"type": "stream_event", "event": None}, "stream_event"),
        ({"type": "rate_limit_event", "rate_limit_info": []}, "rate_limit_event"),
        ({"type": "control_request", "request": {"subtype": "can_use_tool"}}, "control_request/can_use_tool"),
    ],
)
def test_what_is_not_known_becomes_raw(line: dict[str, Any], kind: str) -> None:
    (event,) = read(line)
    assert isinstance(event, AgentRaw)
    assert event.kind == kind


def test_one_strange_block_does_not_hurt_its_neighbours() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": None}, {"type": "thinking", "thinking": "b"}]
    first, strange, last = read({"type": "assistant", "message": {"content": blocks}})
    assert isinstance(first, AgentOutput)
    assert isinstance(strange, AgentRaw)
    assert isinstance(last, AgentThinking)


def test_malformed_lines_are_counted_and_each_kind_is_told_once() -> None:
    fresh = parser()
    bad = [b'{"type":"text"', b"[1]", b'"text"', b'{"a":"\xff"}', b"nonsense", b'{"n":NaN}', b"\x00\x01", b"[" * 10_000]
    events = play(fresh, [*bad, *lines(DONE)])
    told = only(events, AgentError)
    assert [(event.code, event.source) for event in told] == [("MALFORMED_LINE", "parser")] * 3
    assert [event.details["line"] for event in told] == [1, 2, 4]
    assert told[0].details["preview"] == '{"type":"text"'
    assert "line 1 of the agent's output is not JSON" in told[0].message
    assert fresh.summary.malformed_lines == len(bad)
    assert fresh.summary.finished


@pytest.mark.parametrize("line", [b"", b"   ", b"\r", b"\t\r"])
def test_empty_lines_are_nothing(line: bytes) -> None:
    fresh = parser()
    assert fresh.parse(line, moment(0)) == []
    assert fresh.summary.malformed_lines == 0


def test_half_an_emoji_does_not_cost_the_line() -> None:
    r"""Node cuts strings between the halves of a surrogate pair, and writes "\ud83d"."""
    line = rb'{"type":"text","text":"a\ud83d b\\ud83d c\ud83d\ude00 d\udc00"}'
    (event,) = parser().parse(line, moment(0))
    assert isinstance(event, AgentOutput)
    assert event.content == "a\ufffd b\\ud83d c\U0001f600 d\ufffd"


def test_what_is_nested_deeper_than_our_encoder_writes_is_cut() -> None:
    line = orjson.dumps(call("t", deep="@")).replace(b'"@"', b'{"a":[' * 400 + b"1" + b"]}" * 400)
    (event,) = only(parser().parse(line, moment(0)), AgentToolCall)
    body = wire.event_body(event)
    assert b"nested too deep" in body
    assert body.count(b"[") < MAX_DEPTH


#: Without the few long ones, which would only cost time.
RECORDED = [line for recording in recordings("claude") for line in recording.lines if len(line) < 20_000]

#: A busy machine is no bug.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def never_hurts(stream: list[bytes]) -> None:
    """Whatever the lines are: no exception, and every event can be journalled, sent, and read back by a client."""
    for preview_limit in (500, None):
        fresh = parser(preview_limit=preview_limit)
        for event in play(fresh, stream):
            for piece in fit(event):
                assert wire.event_from_dict(orjson.loads(wire.event_body(piece))).type == event.type
        adapter = ClaudeCodeAdapter()
        for code, signal in ((0, None), (1, None), (None, "SIGKILL")):
            adapter.outcome(fresh.summary, Exit(code=code, signal=signal), "")
        orjson.dumps(wire.to_dict(fresh.summary))


@unhurried
@given(st.lists(st.binary(max_size=60), max_size=5))
@example([b"[" * 100_000])
@example([b'{"a":' * 100_000])
@example([b'{"a":' * 900 + b"1" + b"}" * 900])
def test_no_bytes_hurt(stream: list[bytes]) -> None:
    never_hurts(stream)


@unhurried
@given(st.lists(JSON, max_size=4))
def test_no_json_hurts(items: list[Any]) -> None:
    never_hurts(lines(*items))


@unhurried
@given(data=st.data())
def test_no_line_with_the_right_names_and_a_wrong_value_hurts(data: st.DataObject) -> None:
    never_hurts(data.draw(st.lists(spoilt(RECORDED), max_size=6)))


def variants(line: dict[str, Any], value: Any, seen: set[tuple[Any, ...]]) -> Iterator[bytes]:
    """``line`` with ``value`` in the place of each of its values in turn; once for each place."""

    def walk(holder: Any, key: Any, path: tuple[Any, ...]) -> Iterator[bytes]:
        item = holder[key]
        if path not in seen:
            seen.add(path)
            holder[key] = value
            yield orjson.dumps(line)
            holder[key] = item
        keys = list(item) if isinstance(item, dict) else range(min(len(item), 1)) if isinstance(item, list) else ()
        for inner in keys:
            yield from walk(item, inner, (*path, inner))

    for key in list(line):
        yield from walk(line, key, (line.get("type"), line.get("subtype"), key))


@pytest.mark.parametrize("value", [None, True, 5, -1.5, 2**64 - 1, "x", "", [], [[]], {}, {"a": None}, "x" * 70_000])
def test_no_value_in_the_place_of_another_hurts(value: Any) -> None:
    seen: set[tuple[Any, ...]] = set()
    stream = [variant for raw in RECORDED for variant in variants(orjson.loads(raw), value, seen)]
    assert len(stream) > 200
    never_hurts(stream)
