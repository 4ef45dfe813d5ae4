"""Endings told apart: each has its own code, says what to do, and whether another attempt is worth it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agentstream.agents.base import Exit, Outcome
from agentstream.agents.claude_code import ClaudeCodeAdapter
from tests.agents.claude_lines import DONE, INIT, lines
from tests.agents.conftest import play, recordings, request


def ending(*items: Any, code: int | None = 1, signal: str | None = None, stderr: str = "") -> Outcome:
    adapter = ClaudeCodeAdapter()
    parser = adapter.parser(request())
    play(parser, lines(*items))
    return adapter.outcome(parser.summary, Exit(code=code, signal=signal), stderr)


def failed(text: str, error: str, status: int | None = None, **more: Any) -> list[dict[str, Any]]:
    """What Claude Code prints when a request to the API failed for good."""
    content = [{"type": "text", "text": text}]
    return [
        INIT,
        {"type": "assistant", "message": {"id": "m", "model": "<synthetic>", "content": content}, "error": error},
        {"type": "result", "subtype": "success", "is_error": True, "api_error_status": status, "result": text, **more},
    ]


def retry(status: int | None, error: str = "unknown") -> dict[str, Any]:
    return {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 1,
        "max_retries": 2,
        "error_status": status,
        "error": error,
    }


def error(subtype: str, *errors: str, **more: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": subtype, "is_error": True, "errors": list(errors), **more}


REJECTED = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1795384259}}


@pytest.mark.parametrize(
    ("case", "code", "retryable"),
    [
        ("basic", None, False),
        ("d_401", "KILLED", True),
        ("d_529_always_retries2", "OVERLOADED", True),
        ("d_credit", "CREDIT_EXHAUSTED", False),
        ("e_maxturns1", "MAX_TURNS", False),
        ("g_SIGINT_pid", "ABORTED", False),
        ("g_SIGTERM_group", "KILLED", True),
        ("i_deny_interrupt", "ABORTED", False),
        ("j_resume_unknown", "SESSION_NOT_FOUND", False),
        ("k_nothing", "NOT_LOGGED_IN", False),
        ("m_invalid_flag", "INVALID_USAGE", False),
        ("m_no_verbose", "INVALID_USAGE", False),
        ("m_refusal_stop", "REFUSED", False),
        ("n_bash_timeout", None, False),
        ("n_ratelimit_rejected", "RATE_LIMITED", True),
    ],
)
def test_recorded_endings(case: str, code: str | None, retryable: bool) -> None:
    (recording,) = (recording for recording in recordings("claude") if recording.case == case)
    adapter = ClaudeCodeAdapter()
    parser = adapter.parser(request())
    play(parser, recording.lines)
    outcome = adapter.outcome(parser.summary, recording.exit, recording.meta["stderr"])
    assert (outcome.error_code, outcome.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("items", "code", "retryable"),
    [
        (failed("Invalid API key", "authentication_failed", 401), "AUTHENTICATION_FAILED", False),
        (failed("OAuth token has expired", "authentication_failed", 401), "AUTHENTICATION_FAILED", False),
        (failed("Not logged in · Please run /login", "authentication_failed"), "NOT_LOGGED_IN", False),
        (failed("not allowed", "oauth_org_not_allowed", 403), "AUTHENTICATION_FAILED", False),
        (failed("API Error: 500 broken", "server_error", 500), "API_ERROR", True),
        (failed("API Error: overloaded_error", "server_error"), "OVERLOADED", True),
        (failed("API Error: 429", "rate_limit", 429), "RATE_LIMITED", True),
        (failed("Prompt is too long", "invalid_request", 400), "INVALID_REQUEST", False),
        (failed("API Error: 404 no such model", "unknown", 404), "INVALID_REQUEST", False),
        (failed("no such model", "model_not_found", 404), "INVALID_REQUEST", False),
        (failed("API Error: Unable to connect to API (ECONNREFUSED)", "unknown"), "NETWORK", True),
        (failed("API Error: Connection error.", "server_error"), "NETWORK", True),
        ([INIT, retry(None), *failed("API Error: something new", "server_error")[1:]], "NETWORK", True),
        ([INIT, retry(500, "server_error"), *failed("API Error", "server_error", 500)[1:]], "API_ERROR", True),
        (failed("no", "invalid_request", None, stop_reason="refusal"), "REFUSED", False),
        ([INIT, error("error_max_budget_usd", "Reached maximum budget ($1)")], "MAX_BUDGET", False),
        ([INIT, error("error_during_execution", "hook exploded")], "AGENT_ERROR", False),
        ([INIT, error("error_during_execution", terminal_reason="aborted_streaming")], "ABORTED", False),
        ([INIT, error("error_brand_new")], "AGENT_ERROR", False),
        # Claude Code 1.x.
        ([INIT, {"type": "result", "subtype": "error_max_turns", "is_error": False}], "MAX_TURNS", False),
    ],
)
def test_each_failure_has_its_code_whatever_the_exit_status_is(
    items: list[dict[str, Any]], code: str, retryable: bool
) -> None:
    for status in (0, 1):
        outcome = ending(*items, code=status)
        assert (outcome.success, outcome.error_code, outcome.retryable) == (False, code, retryable)


def test_a_rate_limit_says_when_to_come_back_and_a_warning_does_not() -> None:
    outcome = ending(INIT, REJECTED, *failed("session limit", "rate_limit", 429)[1:])
    assert outcome.retry_at == datetime(2026, 11, 22, 21, 50, 59, tzinfo=UTC)
    assert "It resets at 2026-11-22T21:50:59.000Z." in (outcome.error or "")
    warning = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning", "resetsAt": 1795384259}}
    assert ending(INIT, warning, *failed("limit", "rate_limit", 429)[1:]).retry_at is None


@pytest.mark.parametrize("resets_at", [2**63, -(10**18), "soon", None, True, 1e308])
def test_a_time_out_of_all_range_is_none(resets_at: Any) -> None:
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": resets_at}}
    outcome = ending(INIT, limit, *failed("limit", "rate_limit", 429)[1:])
    assert (outcome.error_code, outcome.retry_at) == ("RATE_LIMITED", None)


def test_a_rate_limit_that_was_overcome_is_no_reason_to_wait_later() -> None:
    outcome = ending(INIT, REJECTED, *failed("API Error: 500", "server_error", 500)[1:])
    assert (outcome.error_code, outcome.retry_at) == ("API_ERROR", None)


@pytest.mark.parametrize(("code", "signal"), [(0, None), (1, None), (143, None), (None, "SIGKILL")])
def test_after_a_result_without_error_it_does_not_matter_how_the_process_ends(
    code: int | None, signal: str | None
) -> None:
    assert ending(INIT, DONE, code=code, signal=signal, stderr="Error: late") == Outcome(success=True)


def test_exit_status_0_without_a_result_is_a_failure() -> None:
    outcome = ending(INIT, code=0)
    assert (outcome.error_code, outcome.retryable) == ("NO_RESULT", True)
    assert ending(code=0).error_code == "NO_RESULT"
    assert ending(INIT, DONE, INIT, code=0).error_code == "NO_RESULT"


@pytest.mark.parametrize(
    ("code", "signal", "expected", "said"),
    [
        (None, "SIGKILL", "KILLED", "SIGKILL"),
        (143, None, "KILLED", "SIGTERM"),
        (130, None, "KILLED", "SIGINT"),
        (None, "SIGSEGV", "CRASHED", "SIGSEGV"),
        (134, None, "CRASHED", "SIGABRT"),
        (1, None, "CRASHED", "exit status 1: boom"),
        (160, None, "CRASHED", "exit status 160: boom"),
        (255, None, "CRASHED", "exit status 255: boom"),
    ],
)
def test_a_process_that_dies_in_its_work(code: int | None, signal: str | None, expected: str, said: str) -> None:
    outcome = ending(INIT, code=code, signal=signal, stderr="boom\n")
    assert outcome.error_code == expected
    assert said in (outcome.error or "")


def test_a_process_that_dies_in_trouble_tells_the_trouble() -> None:
    assert ending(INIT, retry(401, "authentication_failed")).error_code == "AUTHENTICATION_FAILED"
    killed = ending(INIT, retry(529, "overloaded"), code=None, signal="SIGKILL")
    assert killed.error_code == "KILLED"
    assert "overloaded (HTTP 529), attempt 1 of 2" in (killed.error or "")


def test_trouble_that_passed_is_forgotten() -> None:
    text = {"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "ok"}]}}
    assert ending(INIT, retry(401, "authentication_failed"), text).error_code == "CRASHED"
    assert ending(INIT, retry(None), text, *failed("API Error: odd", "server_error")[1:]).error_code == "API_ERROR"


def test_bad_usage_is_told_from_a_crash() -> None:
    stack = "file:///claude.js:1\nError: Cannot find module 'x'\n    at Module._load (node:internal)\n    at main\n"
    assert ending(stderr="error: unknown option '--x'\n").error_code == "INVALID_USAGE"
    assert ending(stderr=stack).error_code == "CRASHED"
    assert ending(stderr="").error_code == "CRASHED"
    assert ending(INIT, stderr="Error: late\n").error_code == "CRASHED"


def test_an_unknown_session_is_told_even_from_stderr_alone() -> None:
    assert ending(stderr="No conversation found with session ID: x\n").error_code == "SESSION_NOT_FOUND"
