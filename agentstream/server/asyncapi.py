"""The AsyncAPI 3.0 document of the WebSocket, made from the attrs classes of its messages and events. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentstream.model import wire
from agentstream.model.events import EVENT_CLASSES
from agentstream.model.messages import CLIENT_MESSAGES, SERVER_MESSAGES, Filters, Submit
from agentstream.model.names import camel
from agentstream.model.orders import WorkOrderRequest
from agentstream.model.schema import JsonSchema, Schemas


def document(version: str) -> dict[str, Any]:
    """The whole document; ``version`` is the program's."""
    schemas = Schemas()
    incoming = {wire.type_of(cls): schemas.incoming(cls) for cls in CLIENT_MESSAGES if cls is not Submit}
    incoming["submit"] = _submit(schemas)
    _filters_at_top(schemas)
    outgoing = {wire.type_of(cls): schemas.outgoing(cls) for cls in (*SERVER_MESSAGES, *EVENT_CLASSES)}
    messages = {name: {"name": name, "payload": schema} for name, schema in {**incoming, **outgoing}.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "agentstream",
            "version": version,
            "description": "Subscribe to what agents do, and steer them. One JSON object a message.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": "/ws",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        # Seen from the daemon: it receives what clients say.
        "operations": {
            "fromClient": _operation("receive", incoming),
            "toClient": _operation("send", outgoing),
        },
        "components": {"messages": messages, "schemas": dict(schemas.components)},
    }


def _operation(action: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/ws"},
        "messages": [{"$ref": f"#/channels/ws/messages/{name}"} for name in names],
    }


def _submit(schemas: Schemas) -> JsonSchema:
    """`Submit` is flat on the wire: the request's fields beside ``type``."""
    schemas.incoming(WorkOrderRequest)
    request = schemas.components["WorkOrderRequest"]
    return schemas.add(
        "Submit",
        {
            "type": "object",
            "description": (Submit.__doc__ or "").partition("\n")[0],
            "properties": {
                "type": {"const": "submit"},
                **request["properties"],
                "workOrderId": {
                    "type": ["string", "null"],
                    "description": "The work order's own id, where it is not `id`.",
                },
            },
            "required": ["type", *request["required"]],
        },
    )


def _filters_at_top(schemas: Schemas) -> None:
    """`Subscribe` takes the filters beside its own fields too (`wire.client_message`)."""
    properties = schemas.components["Subscribe"]["properties"]
    for field, schema in schemas.fields(Filters, nullable=True):
        properties.setdefault(camel(field.name), schema)
