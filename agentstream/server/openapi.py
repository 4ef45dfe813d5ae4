"""The OpenAPI 3.1 document of the HTTP API, made from the route table and the attrs classes. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

import attrs

from agentstream.model import calls, wire
from agentstream.model.events import EVENT_CLASSES
from agentstream.model.names import camel
from agentstream.model.schema import JsonSchema, Schemas, one_of
from agentstream.server.api import PREFIX, routes
from agentstream.server.call import COMMON_PROBLEMS, Route

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_REQUEST_ID: Final[JsonSchema] = {
    "type": "string",
    "description": "Of the request's X-Request-Id header, or made here; it is in the daemon's log.",
}
#: No pattern: one that is none is ignored, not refused.
_TRACEPARENT: Final[JsonSchema] = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "The caller's W3C trace context, where the body has none; anything else is ignored.",
    "schema": {"type": "string"},
}


def document(version: str) -> dict[str, Any]:
    """The whole document; ``version`` is the program's."""
    schemas = Schemas()
    table = routes()
    for route in table:
        # First what comes in: a class used both ways allows null, as the parser does.
        if route.body is not None:
            schemas.incoming(route.body)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schemas)
    paths |= _outside(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "agentstream",
            "version": version,
            "description": "Run coding agents and follow what they do. The WebSocket at /ws is described by /asyncapi.json.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": dict(schemas.components),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "For event streams only: a browser's EventSource sends no headers.",
                },
            },
        },
    }


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": f"Needs a token with the scope `{route.scope}`.",
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in _PLACEHOLDER.findall(route.path)
            ),
            *_query(route.query, schemas),
            *([_TRACEPARENT] if route.traced else []),
        ],
        "responses": {
            **{str(status): _success(route, schemas, status) for status in route.status},
            **{
                str(status): _problem(schemas, status)
                for status in sorted({*COMMON_PROBLEMS, *route.problems, *_body(route)})
            },
        },
    }
    if route.streams:
        operation["security"] = [{"bearer": []}, {"query": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": schemas.incoming(route.body)}},
        }
    return operation


def _body(route: Route) -> tuple[int, ...]:
    return (413, 415) if route.body is not None else ()


def _query(query: type[Any], schemas: Schemas) -> list[dict[str, Any]]:
    return [
        {
            "name": camel(field.name),
            "in": "query",
            "required": field.default is attrs.NOTHING,
            "schema": schema,
        }
        for field, schema in schemas.fields(query, nullable=False)
    ]


def _success(route: Route, schemas: Schemas, status: int) -> dict[str, Any]:
    if route.data is None:
        return {"description": route.summary, "content": {route.media: {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {"application/json": {"schema": _envelope(schemas, _data(route.data, schemas))}}
    if route.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _data(cls: type[Any], schemas: Schemas) -> JsonSchema:
    reference = schemas.outgoing(cls)
    if cls is calls.EventPage:
        # Its items travel as the journal keeps them, so the class knows only that they are objects.
        events = [schemas.outgoing(event) for event in EVENT_CLASSES if not event.ephemeral]
        tags = [wire.type_of(event) for event in EVENT_CLASSES if not event.ephemeral]
        schemas.components["EventPage"]["properties"]["items"]["items"] = schemas.add("Event", one_of(events, tags))
    return reference


def _envelope(schemas: Schemas, data: JsonSchema) -> JsonSchema:
    return {
        "type": "object",
        "properties": {"success": {"const": True}, "data": data, "requestId": _REQUEST_ID},
        "required": ["success", "data", "requestId"],
    }


def _problem(schemas: Schemas, status: int) -> dict[str, Any]:
    failure = {
        "type": "object",
        "properties": {
            "success": {"const": False},
            "error": schemas.outgoing(calls.Problem),
            "requestId": _REQUEST_ID,
        },
        "required": ["success", "error", "requestId"],
    }
    reference = schemas.add("Failure", failure)
    return {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": reference}}}


def _outside(schemas: Schemas) -> dict[str, Any]:
    health = {"application/json": {"schema": schemas.outgoing(calls.Health)}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    json = {"application/json": {"schema": {"type": "object"}}}

    def get(operation_id: str, summary: str, responses: dict[str, Any], *, open_: bool) -> dict[str, Any]:
        # 403 is also what a request for a foreign Host gets.
        problems = (403, 500) if open_ else (401, 403, 429, 500)
        answers = {**responses, **{str(status): _problem(schemas, status) for status in problems}}
        access: dict[str, Any] = {"security": []} if open_ else {}
        return {"get": {"operationId": operation_id, "summary": summary, "responses": answers, **access}}

    paths = {
        "/health": get(
            "health", "200 as long as the daemon lives.", {"200": {"description": "OK", "content": health}}, open_=True
        ),
        "/health/ready": get(
            "ready",
            "Whether work orders are taken and journalled.",
            {
                "200": {"description": "OK", "content": health},
                "503": {"description": "Service Unavailable", "content": health},
            },
            open_=True,
        ),
        "/metrics": get(
            "metrics",
            "For Prometheus. Needs no token from this machine, unless a reverse proxy is in front.",
            {"200": {"description": "OK", "content": text}},
            open_=False,
        ),
        "/openapi.json": get("openapi", "This document.", {"200": {"description": "OK", "content": json}}, open_=False),
        "/asyncapi.json": get(
            "asyncapi", "What the WebSocket speaks.", {"200": {"description": "OK", "content": json}}, open_=False
        ),
    }
    paths["/metrics"]["get"]["security"] = [{}, {"bearer": []}]
    return paths
