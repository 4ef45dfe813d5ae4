"""The wire: what goes out reads as the protocol says, and what comes in wrong is told clearly."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentstream.errors import InvalidMessage, ParseFailed
from agentstream.model import wire
from agentstream.model.events import EVENT_CLASSES, AgentOutput, UnknownEvent
from agentstream.model.messages import Submit, Subscribe

NOON = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)


def test_event_is_camel_case_with_its_type_first_and_without_absent_fields() -> None:
    event = AgentOutput(work_order_id="w", run_id="r", timestamp=NOON, content="hi")
    assert wire.event_body(event) == (
        b'{"type":"agent_output","workOrderId":"w","timestamp":"2026-01-31T12:00:00.123Z","runId":"r","content":"hi"}'
    )


def test_seq_is_spliced_into_the_stored_body() -> None:
    event = AgentOutput(work_order_id="w", run_id="r", timestamp=NOON, content="hi")
    assert wire.json_object(wire.with_seq(wire.event_body(event), 7))["seq"] == 7


def test_an_event_type_of_a_later_version_is_kept() -> None:
    event = wire.event_from_dict({"type": "new", "workOrderId": "w", "timestamp": "2026-01-31T12:00:00Z", "x": 1})
    assert isinstance(event, UnknownEvent)
    assert event.data["x"] == 1


def test_types_are_unique() -> None:
    assert len({wire.type_of(cls) for cls in EVENT_CLASSES}) == len(EVENT_CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"subscribe","workOrderId":""}', "workOrderId: expected not empty"),
        ('{"type":"subscribe"}', "workOrderId: expected a value, it is missing"),
        ('{"type":"subscribe","workOrderId":5}', "workOrderId: expected a string, got 5"),
        (
            '{"type":"subscribe","workOrderId":"a","filters":{"includeOutput":"yes"}}',
            'filters.includeOutput: expected true or false, got "yes"',
        ),
        (
            '{"type":"subscribe","workOrderId":"a","includeOutput":1}',
            "filters.includeOutput: expected true or false, got 1",
        ),
        ('{"type":"subscribe","workOrderId":"a","sinceSeq":-1}', "sinceSeq: expected a value >= 0"),
        ('{"type":"subscribe","workOrderId":"a","sinceSeq":true}', "sinceSeq: expected an integer, got true"),
        ('{"type":"dance"}', "type: expected one of auth, subscribe"),
        ('{"workOrderId":"a"}', "type: expected one of auth, subscribe"),
        (
            '{"type":"submit","taskPrompt":"x","workspaceSource":{"type":"foo"}}',
            'workspaceSource.type: expected one of local, fresh, got "foo"',
        ),
        ('{"type":"submit","taskPrompt":"","workspaceSource":{"type":"fresh"}}', "taskPrompt: expected not empty"),
        (
            '{"type":"submit","taskPrompt":"x","workspaceSource":{"type":"fresh"},"allowedTools":["a",5]}',
            "allowedTools.1: expected a string, got 5",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        wire.client_message(text)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', b"\xff\xfe"])
def test_what_is_no_json_object_is_told(text: str) -> None:
    with pytest.raises(ParseFailed):
        wire.client_message(text)


def test_unknown_keys_are_ignored() -> None:
    assert wire.client_message('{"type":"ping","future":1}').type == "ping"


def test_filters_are_also_accepted_at_the_top_level_and_inside_they_win() -> None:
    message = wire.client_message(
        '{"type":"subscribe","workOrderId":"a","includeOutput":false,"includeRaw":false,"filters":{"includeRaw":true}}'
    )
    assert isinstance(message, Subscribe)
    assert not message.filters.include_output
    assert message.filters.include_raw


def test_submit_takes_the_body_of_the_http_call() -> None:
    message = wire.client_message('{"type":"submit","id":"mine","taskPrompt":"x","workspaceSource":{"type":"fresh"}}')
    assert isinstance(message, Submit)
    assert (message.id, message.request.id, message.request.task_prompt) == ("mine", "mine", "x")
