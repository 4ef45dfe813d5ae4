"""What was wrong with a request to a model's API, from its HTTP status and how the program words it. Pure.

The status is the API's own word and counts most; texts are the last resort, for programs that tell nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

BY_STATUS: Final[Mapping[int, str]] = {
    401: "AUTHENTICATION_FAILED",
    402: "CREDIT_EXHAUSTED",
    403: "AUTHENTICATION_FAILED",
    408: "API_ERROR",
    409: "API_ERROR",
    429: "RATE_LIMITED",
    529: "OVERLOADED",
}

#: In lower case; the first that occurs decides.
_BY_TEXT: Final[tuple[tuple[str, str], ...]] = (
    ("not logged in", "NOT_LOGGED_IN"),
    ("please run /login", "NOT_LOGGED_IN"),
    ("credit balance is too low", "CREDIT_EXHAUSTED"),
    ("insufficient_quota", "CREDIT_EXHAUSTED"),
    ("invalid_api_key", "AUTHENTICATION_FAILED"),
    ("overloaded", "OVERLOADED"),
    ("connection error", "NETWORK"),
    ("unable to connect", "NETWORK"),
    ("request timed out", "NETWORK"),
    ("fetch failed", "NETWORK"),
    ("error sending request", "NETWORK"),
    ("econn", "NETWORK"),
    ("enotfound", "NETWORK"),
)

#: An HTTP status of failure in a text, where a number of tokens or milliseconds is not meant.
_STATUS: Final = re.compile(r"(?<![\d.,/:])[45]\d\d(?![\d.]|\s?(?:ms|tokens))")


def code_of_text(text: str) -> str | None:
    """The code for a wording that we know."""
    lower = text.lower()
    return next((code for words, code in _BY_TEXT if words in lower), None)


def code_of_status(status: Any) -> str | None:
    """The code for an HTTP status; None for what is none of failure."""
    if type(status) is not int or status < 400:
        return None
    return BY_STATUS.get(status) or ("API_ERROR" if status >= 500 else "INVALID_REQUEST")


def code_of_failure(text: str, status: Any = None) -> str:
    """The code of a failed request; without a ``status`` the first that the text mentions counts."""
    if (code := code_of_status(status)) is None and (found := _STATUS.search(text)):
        code = code_of_status(int(found[0]))
    by_text = code_of_text(text)
    # A refused account is told by 429 as well; waiting would not help it.
    if code is None or by_text == "CREDIT_EXHAUSTED":
        return by_text or code or "API_ERROR"
    return code
