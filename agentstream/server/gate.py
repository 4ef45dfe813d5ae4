"""From a request to its handler: for each call, in this order, the token, how often, the Origin, the scope, the query, the body.

Nothing is read of a body before it is known that its sender may send it. Whatever is wrong becomes a problem answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import attrs
import structlog
import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from agentstream.errors import (
    AgentstreamError,
    Forbidden,
    InvalidMessage,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from agentstream.model import wire
from agentstream.server.api import PREFIX, routes
from agentstream.server.auth import Rules, bearer, check_host, check_origin
from agentstream.server.call import Call, Parts, Route, query_of
from agentstream.server.principal import Authenticator, Principal, Scope
from agentstream.server.problems import MethodNotAllowed, UnsupportedMediaType, problem
from agentstream.server.ratelimit import RateLimiter
from agentstream.settings import ServerSettings, is_loopback

log = structlog.get_logger("agentstream.http")

#: Seconds in which a request's body must have come; a client that trickles must not hold a task for ever.
_BODY_SECONDS: Final = 30.0

Endpoint = Callable[[Request], Awaitable[Response]]


@attrs.define
class Notes:
    """What the wrapper and a call tell each other, in ``scope["agentstream"]``."""

    request_id: str
    route: str = "(none)"
    caller: str | None = None
    streaming: bool = False


@attrs.frozen(kw_only=True)
class Gate:
    """Lets a request through to its handler, or answers what is wrong with it."""

    parts: Parts
    authenticator: Authenticator
    server: ServerSettings
    rules: Rules
    limiter: RateLimiter
    clock: Callable[[], float]

    # --- who -------------------------------------------------------------------------------------------------------

    def check_door(self, request: Request) -> None:
        """Raise `Forbidden` unless the request names us, and comes from no foreign page, whatever it asks for."""
        hosts = request.headers.getlist("host")
        server = request.scope.get("server")
        check_host(
            hosts[0] if len(hosts) == 1 else None,
            port=server[1] if server else None,
            secure=request.scope["scheme"] == "https",
            rules=self.rules,
        )
        for origin in request.headers.getlist("origin"):
            # Whether one is needed is only known where a token is: see `admit`.
            check_origin(origin, host=hosts[0], fetch_site=None, has_token=True, rules=self.rules)

    def admit(self, request: Request, scope: Scope, *, token_in_query: bool = False) -> Principal:
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
        check_origin(
            request.headers.get("origin"),
            host=request.headers.get("host"),
            fetch_site=request.headers.get("sec-fetch-site"),
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

    def api_routes(self) -> Iterator[StarletteRoute]:
        """One route of Starlette for each path: it takes a method that is elsewhere in the list for a wrong one."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for route in routes():
            by_path.setdefault(route.path, {})[route.method] = self.endpoint(route)
        for path, by_method in by_path.items():
            yield StarletteRoute(PREFIX + path, _by_method(by_method), methods=list(by_method))

    def endpoint(self, route: Route) -> Endpoint:
        """What Starlette calls for one route of the table."""

        async def handle(request: Request) -> Response:
            notes = request.scope["agentstream"]
            notes.route = PREFIX + route.path
            wants_stream = route.streams and "text/event-stream" in request.headers.get("accept", "")
            notes.streaming = wants_stream
            principal = self.admit(request, route.scope, token_in_query=wants_stream)
            notes.caller = principal.name
            call = Call(
                parts=self.parts,
                request_id=notes.request_id,
                path=request.path_params,
                query=query_of(route.query, request.query_params),
                body=await self.body(request, route),
                wants_stream=wants_stream,
                last_event_id=request.headers.get("last-event-id"),
                allowed=lambda: self.authenticator.still(principal),
                traceparent=request.headers.get("traceparent") if route.traced else None,
            )
            return await route.handler(call)

        return self.guarded(handle)

    def guarded(self, handle: Endpoint) -> Endpoint:
        """``handle`` with its errors as answers."""

        async def guarded(request: Request) -> Response:
            request_id = request.scope["agentstream"].request_id
            try:
                return await handle(request)
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


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def dispatch(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return dispatch
