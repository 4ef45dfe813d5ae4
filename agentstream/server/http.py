"""The HTTP half of the door: who is let in, what is read of a request, and how answers and errors travel.

Around the route table (`agentstream.server.api`) lies one plain ASGI wrapper: request id, Host, security headers, one log line.
Then for each call, in this order: the token, the Origin, how often, the scope, the query, the body, the handler. Nothing is read of
a body before it is known that its sender may send it. Everything needs a token but ``/health``, the page and its files.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import aclosing
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentstream import __version__
from agentstream.errors import (
    AgentstreamError,
    Forbidden,
    InvalidMessage,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from agentstream.journal.base import Journal
from agentstream.model import calls, wire
from agentstream.orchestration.base import Orchestration
from agentstream.redaction import Redactor
from agentstream.server import asyncapi, openapi
from agentstream.server.api import PREFIX, routes
from agentstream.server.auth import Rules, bearer, check_door, host_allowed
from agentstream.server.call import Call, Parts, Route, query_of
from agentstream.server.metrics import CONTENT_TYPE, Metrics
from agentstream.server.principal import Authenticator, Principal
from agentstream.server.principal import Scope as TokenScope
from agentstream.server.problems import MethodNotAllowed, UnsupportedMediaType, problem
from agentstream.server.ratelimit import RateLimiter
from agentstream.server.sse import Doorbell
from agentstream.server.static import static_routes
from agentstream.server.tokens import utc_now
from agentstream.settings import ServerSettings, is_loopback

log = structlog.get_logger("agentstream.http")

DASHBOARD: Final = Path(__file__).parent / "dashboard"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
#: Seconds in which a request's body must have come; a client that trickles must not hold a task for ever.
_BODY_SECONDS: Final = 30.0
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


@attrs.define
class _Notes:
    """What the wrapper and a call tell each other, in ``scope["agentstream"]``."""

    request_id: str
    route: str = "(none)"
    caller: str | None = None
    streaming: bool = False


def make_app(
    *,
    orchestration: Orchestration,
    journal: Journal,
    authenticator: Authenticator,
    server: ServerSettings,
    doorbell: Doorbell,
    metrics: Metrics,
    redactor: Redactor | None = None,
    troubles: Callable[[], Iterable[str]] = lambda: (),
    now: Callable[[], datetime] = utc_now,
    clock: Callable[[], float] = trio.current_time,
    dashboard: Path = DASHBOARD,
) -> ASGIApp:
    """The ASGI application: everything but ``/ws``.

    ``doorbell`` is rung by whoever is handed what the journal published. ``troubles``: what else is wrong, for ``/health``.
    Raises `ConfigError` for allowed hosts or origins that are none.
    """
    parts = Parts(
        orchestration=orchestration, journal=journal, doorbell=doorbell, redactor=redactor or Redactor(), now=now
    )
    gate = _Gate(
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
            *(StarletteRoute(PREFIX + route.path, gate.endpoint(route), methods=[route.method]) for route in routes()),
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
            allow_headers=["authorization", "content-type", "last-event-id", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return _Wrapper(inner, gate, metrics, clock)


@attrs.frozen
class _Wrapper:
    """Around every request: its id, the Host, the headers of every answer, a log line and a count."""

    _app: ASGIApp
    _gate: _Gate
    _metrics: Metrics
    _clock: Callable[[], float]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"an ASGI scope of type {scope['type']} does not belong here")
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        notes = _Notes(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
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
            if self._gate.host_allowed(request):
                await self._app(scope, receive, send_with_headers)
            else:
                refused = self._gate.refuse_host(request, notes)
                await refused(scope, receive, send_with_headers)
        finally:
            seconds = self._clock() - began
            self._metrics.answered(request.method, notes.route, status, None if notes.streaming else seconds)
            # The path without its query, which may hold a token.
            log.debug(
                "http request",
                method=request.method,
                path=request.url.path,
                status=status,
                seconds=round(seconds, 4),
                request_id=notes.request_id,
                caller=notes.caller,
            )


@attrs.frozen(kw_only=True)
class _Gate:
    """Lets a request through to its handler, or answers what is wrong with it."""

    parts: Parts
    authenticator: Authenticator
    server: ServerSettings
    rules: Rules
    limiter: RateLimiter
    clock: Callable[[], float]

    # --- who -------------------------------------------------------------------------------------------------------

    def host_allowed(self, request: Request) -> bool:
        hosts = request.headers.getlist("host")
        return len(hosts) == 1 and host_allowed(
            hosts[0], port=_port(request), secure=request.scope["scheme"] == "https", rules=self.rules
        )

    def refuse_host(self, request: Request, notes: _Notes) -> Response:
        host = request.headers.get("host", "(none)")[:100]
        error = Forbidden(
            f"Host {host!r} is not served here; use the address that the daemon listens on, or add the name to "
            "server.allowed_hosts"
        )
        return problem(error, notes.request_id, redactor=self.parts.redactor)

    def admit(self, request: Request, scope: TokenScope, *, token_in_query: bool = False) -> Principal:
        """The caller. Raises `RateLimited`, `Unauthorized` or `Forbidden`."""
        token = bearer(request.headers.get("authorization"))
        if token is None and token_in_query:
            token = request.query_params.get("token")
        known = self.authenticator.token(token) if token else None
        client = f"token {known.name}" if known else f"peer {self.peer(request)}"
        wait = self.limiter.take(client, self.clock())
        if wait:
            raise RateLimited(
                f"too many requests; come back in {wait:.1f} s", details={"retryAfterSeconds": round(wait, 3)}
            )
        principal = known or self.authenticator.anonymous()
        if principal is None:
            raise Unauthorized(
                "the token is unknown, revoked or expired"
                if token
                else "send a token as `Authorization: Bearer TOKEN`; the first one is in the data directory's file `token`"
            )
        check_door(
            host=request.headers.get("host"),
            origin=request.headers.get("origin"),
            fetch_site=request.headers.get("sec-fetch-site"),
            port=_port(request),
            secure=request.scope["scheme"] == "https",
            has_token=known is not None,
            rules=self.rules,
        )
        if not principal.may(scope):
            raise Forbidden(f"the token {principal.name} has no scope {scope}")
        return principal

    def peer(self, request: Request) -> str:
        """Where the request comes from, as far as we can trust anybody to tell."""
        if self.server.behind_proxy and (forwarded := request.headers.get("x-forwarded-for")):
            # The last entry is the one that our own proxy appended.
            return forwarded.rpartition(",")[2].strip()[:64]
        return request.client.host if request.client else "local"

    def local(self, request: Request) -> bool:
        """Whether the request comes from this machine itself, and not through a proxy on it."""
        return not self.server.behind_proxy and (request.client is None or is_loopback(request.client.host))

    # --- what ------------------------------------------------------------------------------------------------------

    def endpoint(self, route: Route) -> Callable[[Request], Any]:
        """What Starlette calls for one route of the table."""

        async def handle(request: Request) -> Response:
            notes = request.scope["agentstream"]
            notes.route = PREFIX + route.path
            wants_stream = route.streams and "text/event-stream" in request.headers.get("accept", "")
            notes.streaming = wants_stream
            notes.caller = self.admit(request, route.scope, token_in_query=wants_stream).name
            call = Call(
                parts=self.parts,
                request_id=notes.request_id,
                path=request.path_params,
                query=query_of(route.query, request.query_params),
                body=await self.body(request, route),
                wants_stream=wants_stream,
                last_event_id=request.headers.get("last-event-id"),
            )
            return await route.handler(call)

        return self.guarded(handle)

    def guarded(self, handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """``handle`` with its errors as answers."""

        async def guarded(request: Request) -> Response:
            request_id = request.scope["agentstream"].request_id
            try:
                response: Response = await handle(request)
                return response
            except AgentstreamError as error:
                return problem(error, request_id, redactor=self.parts.redactor)
            except ClientDisconnect:
                # Nobody is there to read it; Starlette wants one all the same.
                return Response(status_code=400)
            except Exception:
                log.exception("a request failed", request_id=request_id, path=request.url.path)
                broken = AgentstreamError(
                    f"something broke in the daemon; its log has it under request id {request_id}"
                )
                return problem(broken, request_id, redactor=self.parts.redactor)

        return guarded

    async def body(self, request: Request, route: Route) -> Any:
        """The body as the route's class. Its size is checked while it is read, whatever Content-Length says."""
        if route.body is None:
            return None
        text = await self.read(request)
        if not text and not route.body_required:
            return wire.structure({}, route.body)
        declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if declared != "application/json":
            raise UnsupportedMediaType("send the body as Content-Type: application/json")
        return wire.structure(wire.json_object(text), route.body)

    async def read(self, request: Request) -> bytes:
        limit = self.server.max_body_bytes
        too_large = TooLarge(f"the body is over {limit} bytes (server.max_body_bytes)")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            raise too_large
        chunks = bytearray()
        with trio.move_on_after(_BODY_SECONDS) as late:
            async with aclosing(request.stream()) as stream:
                async for chunk in stream:
                    chunks += chunk
                    if len(chunks) > limit:
                        raise too_large
        if late.cancelled_caught:
            raise InvalidMessage(f"the body did not come within {_BODY_SECONDS:.0f} s")
        return bytes(chunks)

    async def not_routed(self, request: Request, error: Exception) -> Response:
        """No such path, or not with this method."""
        request_id = request.scope["agentstream"].request_id
        if isinstance(error, HTTPException) and error.status_code == 405:
            response = problem(
                MethodNotAllowed(f"{request.method[:20]} is not possible here"),
                request_id,
                redactor=self.parts.redactor,
            )
            response.headers.update(error.headers or {})
            return response
        return problem(NotFound(f"nothing is at {request.url.path[:200]}"), request_id, redactor=self.parts.redactor)


def _port(request: Request) -> int | None:
    server = request.scope.get("server")
    return server[1] if server else None


# --- outside the prefix ------------------------------------------------------------------------------------------------


def _outside(gate: _Gate, metrics: Metrics, troubles: Callable[[], Iterable[str]]) -> list[StarletteRoute]:
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

    def document(path: str) -> Callable[[Request], Any]:
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
