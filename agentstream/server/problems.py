"""One shape for every answer (PROTOCOL.md, "HTTP"): the envelope, and what an error becomes in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

from agentstream.errors import AgentstreamError, RateLimited
from agentstream.redaction import Redactor

#: The status of each error code. A code that is not here is a failure of ours.
STATUS: Final[Mapping[str, int]] = {
    "INVALID_MESSAGE": 400,
    "PARSE_ERROR": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "CONFLICT": 409,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "AGENT_UNAVAILABLE": 503,
    "JOURNAL_ERROR": 503,
    "UNAVAILABLE": 503,
}


class Unavailable(AgentstreamError):
    """The daemon is stopping and takes no new work; another one will."""

    code = "UNAVAILABLE"


class UnsupportedMediaType(AgentstreamError):
    """A body that is not declared to be JSON. Browsers send others without asking us first."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class MethodNotAllowed(AgentstreamError):
    """The path is right, the method is not."""

    code = "METHOD_NOT_ALLOWED"


def success(data: Any, request_id: str, *, status: int = 200, redactor: Redactor) -> Response:
    """``{"success": true, ...}``. ``data`` is JSON-like; it may hold `orjson.Fragment`."""
    body = orjson.dumps({"success": True, "data": data, "requestId": request_id}, option=orjson.OPT_NON_STR_KEYS)
    return Response(redactor.data(body), status, media_type="application/json")


def problem(error: AgentstreamError, request_id: str, *, redactor: Redactor) -> Response:
    """``{"success": false, ...}`` with the status and headers of that kind of error."""
    told: dict[str, Any] = {"code": error.code, "message": redactor.text(error.message)}
    if error.details:
        told["details"] = redactor.value(error.details)
    body = orjson.dumps(
        {"success": False, "error": told, "requestId": request_id}, option=orjson.OPT_NON_STR_KEYS, default=str
    )
    status = STATUS.get(error.code, 500)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="agentstream"'
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil((error.details or {}).get("retryAfterSeconds", 1))))
    elif status == 503:
        headers["Retry-After"] = "5"
    return Response(body, status, headers, media_type="application/json")
