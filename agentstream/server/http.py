"""The HTTP half of the door, put together: every path but ``/ws``.

Around the calls (`agentstream.server.gate`) lies one plain ASGI wrapper: request id, Host, security headers, one log line, one
count. Everything needs a token but ``/health``, the page and its files.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentstream import __version__
from agentstream.errors import (
    Forbidden,
)
from agentstream.journal.base import Journal
from agentstream.model import calls, wire
from agentstream.orchestration.base import Orchestration
from agentstream.redaction import Redactor
from agentstream.server import asyncapi, openapi
from agentstream.server.auth import Rules
from agentstream.server.call import Parts
from agentstream.server.gate import Endpoint, Gate, Notes
from agentstream.server.metrics import CONTENT_TYPE, Metrics
from agentstream.server.principal import Authenticator
from agentstream.server.problems import problem
from agentstream.server.ratelimit import RateLimiter
from agentstream.server.sse import Doorbell
from agentstream.server.static import static_routes
from agentstream.server.tokens import utc_now
from agentstream.settings import SECRET_VARIABLES, ServerSettings

log = structlog.get_logger("agentstream.http")

DASHBOARD: Final = Path(__file__).parent / "dashboard"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADERS: Final = {
    # The page asks nobody but us and runs nothing but its own files; agent output is text, never markup.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def make_app(
    *,
    orchestration: Orchestration,
    journal: Journal,
    authenticator: Authenticator,
    server: ServerSettings,
    doorbell: Doorbell,
    metrics: Metrics,
    redactor: Redactor | None = None,
    secret_variables: Sequence[str] = SECRET_VARIABLES,
    troubles: Callable[[], Iterable[str]] = lambda: (),
    now: Callable[[], datetime] = utc_now,
    clock: Callable[[], float] = trio.current_time,
    dashboard: Path = DASHBOARD,
) -> ASGIApp:
    """The ASGI application: everything but ``/ws``.

    ``doorbell`` is rung by whoever is handed what the journal published. ``secret_variables``: names (``*_TOKEN``) of those
    variables of work orders whose values must not show in raw output. ``troubles``: what else is wrong, for ``/health``.
    Raises `ConfigError` for allowed hosts or origins that are none.
    """
    parts = Parts(
        orchestration=orchestration,
        journal=journal,
        doorbell=doorbell,
        redactor=redactor or Redactor(),
        secret_variables=secret_variables,
        now=now,
    )
    gate = Gate(
        parts=parts,
        authenticator=authenticator,
        server=server,
        rules=Rules.of(server),
        limiter=RateLimiter(server.requests_per_second, server.request_burst),
        clock=clock,
    )
    outside = _outside(gate, metrics, troubles)
    app = Starlette(
        routes=[
            *gate.api_routes(),
            *outside,
            *static_routes(dashboard),
        ],
        exception_handlers={HTTPException: gate.not_routed},
    )
    # A redirect would be an answer that no document tells of.
    app.router.redirect_slashes = False
    inner: ASGIApp = app
    if server.allowed_origins:
        inner = CORSMiddleware(
            app,
            allow_origins=[origin.lower() for origin in server.allowed_origins],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id", "traceparent", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return _Wrapper(inner, gate, metrics, clock)


@attrs.frozen
class _Wrapper:
    """Around every request: its id, Host and Origin, the headers of every answer, a log line and a count."""

    _app: ASGIApp
    _gate: Gate
    _metrics: Metrics
    _clock: Callable[[], float]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"an ASGI scope of type {scope['type']} does not belong here")
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        notes = Notes(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        scope["agentstream"] = notes
        began, status = self._clock(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                have = {name.lower() for name, _ in message["headers"]}
                extra = {**_HEADERS, "x-request-id": notes.request_id, "cache-control": "no-store"}
                added = [(name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in have]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            try:
                self._gate.check_door(request)
            except Forbidden as error:
                refused = problem(error, notes.request_id, redactor=self._gate.parts.redactor)
                await refused(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            seconds = self._clock() - began
            # Methods are the client's to invent; each new one would be a series that stays.
            method = request.method if request.method in _METHODS else "other"
            self._metrics.answered(method, notes.route, status, None if notes.streaming else seconds)
            # The path without its query, which may hold a token.
            log.debug(
                "http request",
                method=request.method,
                path=request.url.path[:200],
                status=status,
                seconds=round(seconds, 4),
                request_id=notes.request_id,
                caller=notes.caller,
            )


# --- outside the prefix ------------------------------------------------------------------------------------------------


def _outside(gate: Gate, metrics: Metrics, troubles: Callable[[], Iterable[str]]) -> list[StarletteRoute]:
    generators = {"/openapi.json": openapi.document, "/asyncapi.json": asyncapi.document}
    documents: dict[str, bytes] = {}

    def problems() -> list[str]:
        trouble = gate.parts.journal.statistics().trouble
        found = [f"journal: {trouble}"] if trouble else []
        return [gate.parts.redactor.text(text) for text in (*found, *troubles())]

    async def health(request: Request) -> Response:
        request.scope["agentstream"].route = "/health"
        told = problems()
        return _json(calls.Health(status="degraded" if told else "ok", problems=told, version=__version__))

    async def ready(request: Request) -> Response:
        request.scope["agentstream"].route = "/health/ready"
        told = problems()
        if not gate.parts.orchestration.statistics().accepting:
            told.append("the daemon is stopping and takes no new work")
        return _json(
            calls.Health(status="unready" if told else "ok", problems=told, version=__version__), 503 if told else 200
        )

    async def scrape(request: Request) -> Response:
        request.scope["agentstream"].route = "/metrics"
        if not gate.local(request):
            request.scope["agentstream"].caller = gate.admit(request, "read").name
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    def document(path: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            request.scope["agentstream"].route = path
            request.scope["agentstream"].caller = gate.admit(request, "read").name
            if path not in documents:
                # When first asked for, and in a thread: it takes a while, and most daemons are never asked.
                generated = await trio.to_thread.run_sync(generators[path], __version__)
                documents[path] = orjson.dumps(generated)
            return Response(documents[path], media_type="application/json")

        return answer

    handlers = {
        "/health": health,
        "/health/ready": ready,
        "/metrics": scrape,
        **{path: document(path) for path in generators},
    }
    return [StarletteRoute(path, gate.guarded(handler), methods=["GET"]) for path, handler in handlers.items()]


def _json(value: Any, status: int = 200) -> Response:
    return Response(wire.to_json(value), status, media_type="application/json")
