"""How a run of Claude Code ended, told apart. Pure.

Found by running it (tests/recordings/claude): ``is_error`` decides, for ``subtype`` is "success" with every error of the API;
the exit status after an interrupt is randomly 0 or 1, ``terminal_reason`` is what counts; what was wrong with a request is
said by the ``error`` of the synthetic message before the result, by ``api_error_status``, and sometimes only by the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentstream.agents.api_errors import BY_STATUS, code_of_text
from agentstream.agents.base import Exit, Outcome, Summary
from agentstream.agents.content import maybe_string
from agentstream.agents.endings import died, exit_signal, failure, last_line

#: ``error`` of a synthetic message, and of ``system/api_retry``.
_BY_ERROR: Final[Mapping[str, str]] = {
    "authentication_failed": "AUTHENTICATION_FAILED",
    "oauth_org_not_allowed": "AUTHENTICATION_FAILED",
    "billing_error": "CREDIT_EXHAUSTED",
    "rate_limit": "RATE_LIMITED",
    "overloaded": "OVERLOADED",
    "invalid_request": "INVALID_REQUEST",
    "model_not_found": "INVALID_REQUEST",
    "max_output_tokens": "INVALID_REQUEST",
    "server_error": "API_ERROR",
}

_NO_SESSION: Final = ("no conversation found", "--resume requires a valid session")


def api_code(error: str | None, status: Any, text: str, *, network: bool) -> str:
    """The code of a failed request. ``network``: the last thing heard of it was that it never reached the API."""
    if error == "authentication_failed" and status is None and "not logged in" in text.lower():
        return "NOT_LOGGED_IN"
    # The status is the API's own word; `error` calls an overload a server_error, and lack of credit comes with a plain 400.
    by_error = _BY_ERROR.get(error or "")
    if type(status) is int:
        if status in BY_STATUS:
            return BY_STATUS[status]
        if status >= 500:
            return "OVERLOADED" if by_error == "OVERLOADED" else "API_ERROR"
        if by_error in (None, "API_ERROR"):
            by_error = "INVALID_REQUEST"
    if by_error is not None and by_error != "API_ERROR":
        return by_error
    if network:
        return "NETWORK"
    return code_of_text(text) or by_error or "API_ERROR"


def result_code(line: Mapping[str, Any], error: str | None, text: str, *, refused: bool, network: bool) -> str | None:
    """The code of a ``result`` line; None: the task is done. ``error`` is that of the synthetic message before it."""
    subtype = maybe_string(line, "subtype") or "success"
    is_error = line.get("is_error")
    # Claude Code 1.x printed error_max_turns with is_error false; what calls itself an error never is a success.
    if not is_error and not subtype.startswith("error"):
        return None
    reason = maybe_string(line, "terminal_reason") or ""
    if subtype == "error_max_turns" or reason == "max_turns":
        return "MAX_TURNS"
    if subtype.startswith("error_max_budget"):
        return "MAX_BUDGET"
    if reason.startswith("aborted"):
        return "ABORTED"
    if any(words in text.lower() for words in _NO_SESSION):
        return "SESSION_NOT_FOUND"
    if refused or line.get("stop_reason") == "refusal":
        return "REFUSED"
    status = line.get("api_error_status")
    if error is not None or status is not None or text.startswith("API Error"):
        return api_code(error, status, text, network=network)
    return code_of_text(text) or "AGENT_ERROR"


def outcome(summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
    """What became of a run of Claude Code. After a result line the exit status says nothing more."""
    if summary.finished:
        if summary.error_code is None:
            return Outcome(success=True)
        return _failed(summary.error_code, summary)
    if any(words in stderr_tail.lower() for words in _NO_SESSION):
        return failure("SESSION_NOT_FOUND", last_line(stderr_tail))
    if exit_signal(exit) is None and exit.code != 0:
        if summary.error_code is not None:
            return _failed(summary.error_code, summary)
        if summary.session_id is None and _is_complaint(stderr_tail):
            return failure("INVALID_USAGE", last_line(stderr_tail))
    return died(exit, stderr_tail, before=summary.error)


def _failed(code: str, summary: Summary) -> Outcome:
    return failure(code, summary.error, retry_at=summary.resets_at if code == "RATE_LIMITED" else None)


def _is_complaint(stderr: str) -> bool:
    """Bad usage is one or two plain lines; a crash prints a stack."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return 0 < len(lines) <= 3 and not any(line.startswith("    at ") for line in lines)
