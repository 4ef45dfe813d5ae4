"""agentstream: run coding agents, and stream what they do while they do it.

The layers, each of which imports only from those before it::

    errors, settings, config <- model <- agents, pure cores <- runs, journal, broadcast <- orchestration <- server <- daemon <- cli

``model`` says what things are, ``agents`` what each program speaks, ``runs`` carries out one run in one Trio nursery, ``journal``
keeps what happened, ``broadcast`` tells who listens, ``orchestration`` decides which run happens when, ``server`` is the door.
The map is docs/architecture.md.

The names below are the public ones; they are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agentstream.agents.base import RunRequest
    from agentstream.broadcast.broadcaster import EventBroadcaster
    from agentstream.client import connect
    from agentstream.errors import (
        AgentstreamError,
        AgentUnavailable,
        Conflict,
        ExecutionCancelled,
        InvalidMessage,
        NotFound,
        SpawnFailed,
    )
    from agentstream.model.events import Event
    from agentstream.model.orders import StreamingOptions, WorkOrderRequest, WorkspaceSource
    from agentstream.model.result import ExecutionResult
    from agentstream.runs.driver import Availability, ClaudeCodeDriver, ClaudeCodeSubscriptionDriver, Driver, driver_for
    from agentstream.runs.executor import StreamingExecutor
    from agentstream.runs.spec import RunLimits

_HOMES = {
    "agents.base": ("RunRequest",),
    "broadcast.broadcaster": ("EventBroadcaster",),
    "client": ("connect",),
    "errors": (
        "AgentUnavailable",
        "AgentstreamError",
        "Conflict",
        "ExecutionCancelled",
        "InvalidMessage",
        "NotFound",
        "SpawnFailed",
    ),
    "model.events": ("Event",),
    "model.orders": ("StreamingOptions", "WorkOrderRequest", "WorkspaceSource"),
    "model.result": ("ExecutionResult",),
    "runs.driver": ("Availability", "ClaudeCodeDriver", "ClaudeCodeSubscriptionDriver", "Driver", "driver_for"),
    "runs.executor": ("StreamingExecutor",),
    "runs.spec": ("RunLimits",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentUnavailable",
    "AgentstreamError",
    "Availability",
    "ClaudeCodeDriver",
    "ClaudeCodeSubscriptionDriver",
    "Conflict",
    "Driver",
    "Event",
    "EventBroadcaster",
    "ExecutionCancelled",
    "ExecutionResult",
    "InvalidMessage",
    "NotFound",
    "RunLimits",
    "RunRequest",
    "SpawnFailed",
    "StreamingExecutor",
    "StreamingOptions",
    "WorkOrderRequest",
    "WorkspaceSource",
    "connect",
    "driver_for",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"agentstream.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'agentstream' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
