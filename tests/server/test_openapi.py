"""The documents say what the code does. (That every answer is documented is checked by each test of the HTTP API.)"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from agentstream.errors import InvalidMessage
from agentstream.model import wire
from agentstream.model.events import EVENT_CLASSES, AgentOutput, AgentPlan, PlanItem, RunCompleted, Usage
from agentstream.model.messages import CLIENT_MESSAGES, SERVER_MESSAGES, Filters, Pong, SubscriptionConfirmed
from agentstream.model.orders import WorkOrderRequest
from agentstream.server import asyncapi, openapi
from agentstream.server.api import PREFIX, routes
from tests.support.door import BODY, open_door
from tests.support.schema import problems

OPENAPI = openapi.document("1.2.3")
ASYNCAPI = asyncapi.document("1.2.3")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def test_both_documents_are_served(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        assert (await door.read.get("/openapi.json")).json()["openapi"].startswith("3.1")
        assert (await door.read.get("/asyncapi.json")).json()["asyncapi"].startswith("3.0")


def test_every_route_is_documented_once_with_a_name_of_its_own() -> None:
    documented = {(method.upper(), path) for path, operations in OPENAPI["paths"].items() for method in operations}
    assert {(route.method, PREFIX + route.path) for route in routes()} <= documented
    names = [op["operationId"] for operations in OPENAPI["paths"].values() for op in operations.values()]
    assert len(names) == len(set(names)) == len(documented)


def test_every_reference_leads_somewhere() -> None:
    def walk(value: Any, document: Any) -> int:
        if isinstance(value, list):
            return sum(walk(item, document) for item in value)
        if not isinstance(value, dict):
            return 0
        if "$ref" in value:
            target = document
            for part in value["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return 1
        return sum(walk(item, document) for item in value.values())

    assert walk(OPENAPI, OPENAPI) > 100
    assert walk(ASYNCAPI, ASYNCAPI) > 60


def test_the_websockets_document_has_every_message_and_event() -> None:
    names = {wire.type_of(cls) for cls in (*CLIENT_MESSAGES, *SERVER_MESSAGES, *EVENT_CLASSES)}
    assert set(ASYNCAPI["components"]["messages"]) == names


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {**BODY, "id": "a", "maxTurns": None, "permissionMode": "plan", "env": {"A": "1"}, "timeoutSeconds": 0.5},
        {**BODY, "streaming": {"progressIntervalMs": 100}, "future": [1]},
        {},
        {**BODY, "taskPrompt": ""},
        {**BODY, "taskPrompt": None},
        {**BODY, "workspaceSource": {"type": "moon"}},
        {**BODY, "workspaceSource": {}},
        {**BODY, "workspaceSource": []},
        {**BODY, "id": "-a"},
        {**BODY, "id": "a" * 129},
        {**BODY, "id": "a\n"},
        {**BODY, "maxTurns": 0},
        {**BODY, "maxTurns": True},
        {**BODY, "maxTurns": "5"},
        {**BODY, "maxTurns": 1.5},
        {**BODY, "maxTurns": 5.0},
        {**BODY, "permissionMode": "yolo"},
        {**BODY, "timeoutSeconds": 0},
        {**BODY, "env": {"A": 1}},
        {**BODY, "maxAttempts": 101},
        {**BODY, "maxAttempts": None},
        {**BODY, "interactive": "yes"},
        {**BODY, "allowedTools": "Bash"},
        {**BODY, "allowedTools": [None]},
        {**BODY, "streaming": {"progressIntervalMs": 99}},
        {**BODY, "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        {**BODY, "traceparent": "00-00000000000000000000000000000000-00f067aa0ba902b7-01"},
        {**BODY, "traceparent": "4bf92f3577b34da6a3ce929d0e0e4736"},
    ],
)
def test_the_schema_accepts_exactly_what_the_parser_accepts(body: dict[str, Any]) -> None:
    try:
        wire.structure(body, WorkOrderRequest)
        accepted = True
    except InvalidMessage:
        accepted = False
    schema = {"$ref": "#/components/schemas/WorkOrderRequest"}
    assert (not problems(body, schema, OPENAPI)) is accepted


@pytest.mark.parametrize(
    "value",
    [
        AgentOutput(work_order_id="w", run_id="r", timestamp=NOON, seq=7, content="x"),
        AgentPlan(work_order_id="w", run_id="r", timestamp=NOON, items=[PlanItem(content="a", status="pending")]),
        RunCompleted(work_order_id="w", run_id="r", timestamp=NOON, duration_ms=5, usage=Usage(), total_cost_usd=0.1),
        Pong(timestamp=NOON, id="mine"),
        SubscriptionConfirmed(timestamp=NOON, work_order_id="w", epoch="e", seq=3, filters=Filters()),
    ],
)
def test_what_we_send_is_as_documented(value: Any) -> None:
    sent = orjson.loads(wire.to_json(value))
    assert not problems(sent, ASYNCAPI["components"]["messages"][sent["type"]]["payload"], ASYNCAPI)


@pytest.mark.parametrize(
    ("message", "valid"),
    [
        ({"type": "subscribe", "workOrderId": "*", "sinceSeq": 5, "filters": {"includeRaw": True}}, True),
        ({"type": "subscribe", "workOrderId": "*", "includeRaw": True, "id": "1"}, True),
        ({"type": "subscribe", "workOrderId": ""}, False),
        ({"type": "subscribe", "workOrderId": "*", "includeRaw": 1}, False),
        ({"type": "submit", **BODY, "id": "a", "workOrderId": "b"}, True),
        ({"type": "submit"}, False),
        ({"type": "resolve_approval", "requestId": "r", "decision": "allow", "updatedInput": {}}, True),
        ({"type": "resolve_approval", "requestId": "r", "decision": "maybe"}, False),
        ({"type": "ping"}, True),
    ],
)
def test_what_clients_may_send_is_as_documented(message: dict[str, Any], valid: bool) -> None:
    payload = ASYNCAPI["components"]["messages"][message["type"]]["payload"]
    assert (not problems(message, payload, ASYNCAPI)) is valid
    try:
        wire.client_message(orjson.dumps(message))
        accepted = True
    except InvalidMessage:
        accepted = False
    assert accepted is valid


def test_comments_above_fields_become_descriptions() -> None:
    fields = OPENAPI["components"]["schemas"]["WorkOrderRequest"]["properties"]
    assert fields["id"]["description"].startswith("The client's own id makes the submission idempotent")
    assert OPENAPI["components"]["schemas"]["Usage"]["description"].startswith("Tokens and money.")
