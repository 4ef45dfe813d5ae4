"""One HTTP call: how it is described (`Route`), and what its handler is given (`Call`).

A handler gets its call already checked (who asks, the query, the body) and returns a response or raises an `AgentstreamError`; how
either travels is `agentstream.server.http`'s.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs
from starlette.responses import Response

from agentstream.errors import InvalidMessage
from agentstream.journal.base import Journal
from agentstream.model import calls, wire
from agentstream.model.names import camel
from agentstream.orchestration.base import Orchestration
from agentstream.redaction import Redactor
from agentstream.server.principal import Scope
from agentstream.server.problems import success
from agentstream.server.sse import Doorbell

INTEGER: Final = re.compile(r"-?[0-9]{1,20}")


@attrs.frozen(kw_only=True)
class Parts:
    """What handlers work with."""

    orchestration: Orchestration
    journal: Journal
    doorbell: Doorbell
    redactor: Redactor
    #: Names of variables whose values are secrets, for those that work orders bring along.
    secret_variables: Sequence[str]
    now: Callable[[], datetime]


@attrs.frozen(kw_only=True)
class Call:
    """One request, checked."""

    parts: Parts
    request_id: str
    path: Mapping[str, str]
    query: Any
    body: Any
    #: The client asked for ``text/event-stream``.
    wants_stream: bool = False
    last_event_id: str | None = None
    #: Whether the caller would still be let in; for answers that take long.
    allowed: Callable[[], bool] = lambda: True
    #: The caller's W3C trace context, as it came.
    traceparent: str | None = None

    def answer(self, data: Any, status: int = 200, *, redactor: Redactor | None = None) -> Response:
        """The envelope around one of our objects, or around what is JSON-like already."""
        plain = wire.to_dict(data) if attrs.has(type(data)) else data
        return success(plain, self.request_id, status=status, redactor=redactor or self.parts.redactor)


Handler = Callable[[Call], Awaitable[Response]]


@attrs.frozen(kw_only=True)
class Route:
    """One call. ``statuses``: the problems that it can answer besides those of every call (`COMMON_PROBLEMS`)."""

    method: str
    #: With ``{name}`` for a segment.
    path: str
    handler: Handler
    summary: str
    scope: Scope
    query: type[Any] = calls.NoQuery
    body: type[Any] | None = None
    body_required: bool = True
    #: What ``data`` is; None: the answer is ``media``, without envelope.
    data: type[Any] | None = calls.Done
    media: str = "application/json"
    #: The call also answers ``Accept: text/event-stream``, and then takes its token from ``?token=``: EventSource sends no headers.
    streams: bool = False
    #: What the call starts continues the trace of the header ``traceparent``.
    traced: bool = False
    status: tuple[int, ...] = (200,)
    problems: tuple[int, ...] = ()

    @property
    def operation_id(self) -> str:
        """The handler's name, as OpenAPI likes it."""
        return camel(self.handler.__name__.strip("_"))


#: Bad request, no token, wrong scope or Origin, too often, our fault, not now.
COMMON_PROBLEMS: Final = (400, 401, 403, 429, 500, 503)


def query_of(cls: type[Any], given: Mapping[str, str]) -> Any:
    """Query parameters as ``cls``: text is read by the field's type. Unknown ones are ignored."""
    hints = wire.hints(cls)
    values: dict[str, Any] = {}
    for field in attrs.fields(cls):
        name = camel(field.name)
        if name not in given:
            continue
        text = given[name]
        if hints[field.name] in (int, int | None):
            if not INTEGER.fullmatch(text):
                raise InvalidMessage(
                    f"{name}: expected an integer, got {text[:60]!r}", details={"field": name, "expected": "an integer"}
                )
            values[name] = int(text)
        else:
            values[name] = text
    return wire.structure(values, cls)
