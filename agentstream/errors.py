"""Everything agentstream raises on purpose.

The type says whose fault it is, ``code`` is what goes over the wire (PROTOCOL: error codes), and the message says what to
do. An exception that is not an `AgentstreamError` is a bug of ours and becomes ``INTERNAL_ERROR``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from agentstream.model.result import ExecutionResult


class AgentstreamError(Exception):
    """Base of all errors that agentstream raises on purpose."""

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class ConfigError(AgentstreamError):
    """A setting is unknown, of the wrong type, or contradicts another one. The operator's to mend."""

    code = "CONFIG_ERROR"


class InvalidMessage(AgentstreamError):
    """What somebody sent has a wrong or missing field. The message names the field and what was expected."""

    code = "INVALID_MESSAGE"


class ParseFailed(AgentstreamError):
    """What somebody sent is not JSON, or not a JSON object."""

    code = "PARSE_ERROR"


class NotFound(AgentstreamError):
    """No such work order, run, tool call or approval."""

    code = "NOT_FOUND"


class Conflict(AgentstreamError):
    """The thing exists, but not in a state in which this can be done to it."""

    code = "CONFLICT"


class IllegalTransition(Conflict):
    """A status change that the transition table does not have."""


class Unauthorized(AgentstreamError):
    """No token, or one that is unknown, revoked or expired."""

    code = "UNAUTHORIZED"


class Forbidden(AgentstreamError):
    """A known caller that may not do this: wrong scope, Host, Origin, or a workspace outside the roots."""

    code = "FORBIDDEN"


class TooLarge(AgentstreamError):
    """A request body or message over its bound."""

    code = "TOO_LARGE"


class RateLimited(AgentstreamError):
    """A caller that asks more often than it may. ``details["retryAfterSeconds"]`` says when to come back."""

    code = "RATE_LIMITED"


class AgentUnavailable(AgentstreamError):
    """The agent's program is not installed, or nobody is logged in. Raised before anything is started."""

    code = "AGENT_UNAVAILABLE"


class SpawnFailed(AgentstreamError):
    """The program could not be started: it is missing, is not executable, or its working directory does not exist."""

    code = "SPAWN_FAILED"


class ExecutionCancelled(AgentstreamError):
    """`StreamingExecutor.execute` was stopped by `StreamingExecutor.cancel`.

    You do *not* get it when a Trio scope around ``execute`` is cancelled: that cleans up the same way and propagates
    ``trio.Cancelled``. ``result`` holds what there was until then.
    """

    code = "CANCELLED"

    def __init__(self, reason: str | None, result: ExecutionResult) -> None:
        super().__init__("execution cancelled" + (f": {reason}" if reason else ""))
        self.reason = reason
        self.result = result


class JournalError(AgentstreamError):
    """The journal cannot be read or written: disk full, read-only, or corrupt."""

    code = "JOURNAL_ERROR"


class Unreachable(AgentstreamError):
    """A client can't reach the daemon, or lost it before the answer came. Nobody sends it over the wire."""

    code = "UNREACHABLE"


class Gap(AgentstreamError):
    """Events that a client asked for can't be replayed any more. The client raises it; ``on_gap="continue"`` goes on behind it.

    ``from_seq`` to ``to_seq`` is what is missing, ``reason`` is ``retention`` (trimmed) or ``epoch`` (it is another journal, in
    which the client's ``seq`` means nothing).
    """

    code = "GAP"

    def __init__(self, *, work_order_id: str, from_seq: int, to_seq: int, reason: str) -> None:
        why = "they were trimmed" if reason == "retention" else "the daemon has another journal now"
        super().__init__(
            f"events {from_seq} to {to_seq} of {work_order_id} can't be replayed: {why};"
            ' subscribe with on_gap="continue" to go on without them'
        )
        self.work_order_id = work_order_id
        self.from_seq = from_seq
        self.to_seq = to_seq
        self.reason = reason
