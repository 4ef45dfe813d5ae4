"""What the daemon tells its operator: one line per state change, on stderr. Set up once, by the composition root.

Three forms: ``console`` for people, ``json`` (one object a line) for machines, ``journald``: the syslog priority as ``<N>``
in front (sd-daemon(3)), then ``event key=value``; systemd adds the time itself. Run and work order ids come along by
``structlog.contextvars.bind_contextvars``, which follows Trio's tasks. The standard library's loggers (hypercorn,
trio-websocket) end in the same pipeline. Secrets are redacted last, after tracebacks have become text.
"""

from __future__ import annotations

import logging
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agentstream.redaction import Redactor
from agentstream.settings import LogFormat, LogLevel, LogSettings

#: Levels as syslog's priorities.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LEVELS: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def choose_format(configured: LogFormat, *, terminal: bool, journald: bool) -> LogFormat:
    """What ``auto`` means for a stream that is, or is not, a terminal or systemd's journal."""
    if configured != "auto":
        return configured
    if journald:
        return "journald"
    return "console" if terminal else "json"


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One JSON object; ``event``, ``level`` and ``timestamp`` first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return orjson.dumps(
        {**first, **event}, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS
    ).decode()


def render_journald(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """``<6>event key=value``, each line of a traceback with its priority."""
    mark = f"<{_PRIORITIES.get(str(event.pop('level', 'info')), 6)}>"
    exception = event.pop("exception", None)
    text = str(event.pop("event", ""))
    line = " ".join([text, *(f"{key}={_value(value)}" for key, value in event.items())])
    lines = [*line.splitlines(), *(exception.splitlines() if isinstance(exception, str) else ())]
    return "\n".join(mark + line for line in lines)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else orjson.dumps(text).decode()


def configure(
    settings: LogSettings, stream: TextIO, *, journald: bool = False, redactor: Redactor | None = None
) -> None:
    """Send structlog's and the standard library's lines to ``stream``.

    ``journald``: the stream is systemd's journal (`config.writes_to_journald`). May be called again, for another redactor or level.
    """
    chosen = choose_format(settings.format, terminal=stream.isatty(), journald=journald)
    level = _LEVELS[settings.level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
    ]
    if chosen != "journald":
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Not cached: loggers made at import would keep the first configuration for ever.
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Tracebacks as text in all forms, so that the redactor sees them; rich's would show local variables, and so secrets.
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            (redactor or Redactor()).processor,
            _renderer(chosen, stream),
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _renderer(chosen: LogFormat, stream: TextIO) -> Any:
    match chosen:
        case "json":
            return render_json
        case "journald":
            return render_journald
        case _:
            return structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
