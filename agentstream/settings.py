"""Every setting there is: frozen attrs classes, one a section. Pure; `agentstream.config` fills them.

A field's ``metadata["help"]`` is its documentation: the reference page and ``agentstream config show`` are made from it, so a
setting can't be undocumented. Names carry their unit (``_seconds``, ``_bytes``); bounds are validators. Where None is
allowed it means "no limit" or "not set", and is written ``none`` in a file, a variable or a flag.
"""

# ruff: noqa: RUF009 - `_setting` makes a field, not a default value shared by the instances

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from agentstream.errors import ConfigError

LogFormat = Literal["auto", "console", "json", "journald"]
LogLevel = Literal["debug", "info", "warning", "error"]
RestartPolicy = Literal["fail", "retry", "resume"]

_ge, _le = attrs.validators.ge, attrs.validators.le
_POSITIVE: Final = attrs.validators.gt(0)
_OPTIONAL_POSITIVE: Final = attrs.validators.optional(_POSITIVE)
MIB: Final = 1024 * 1024


def _setting(default: Any, text: str, validator: Any = None) -> Any:
    """A field with its documentation."""
    return attrs.field(default=default, validator=validator, metadata={"help": text})


@attrs.frozen(kw_only=True)
class ServerSettings:
    """The door: where the daemon listens and who may come in."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(7171, "TCP port; 0 picks a free one.", [_ge(0), _le(65535)])
    unix: Path | None = _setting(None, "Unix socket to listen on instead of TCP.")
    data_dir: Path = attrs.field(
        metadata={
            "help": "Journal, raw logs, tokens. Default: $XDG_STATE_HOME/agentstream, or ~/.local/state/agentstream."
        }
    )
    auth: bool = _setting(True, "Ask for tokens. False (--no-auth) is allowed on loopback and Unix sockets only.")
    tls_cert: Path | None = _setting(None, "Certificate chain (PEM); with tls_key the daemon speaks TLS.")
    tls_key: Path | None = _setting(None, "Private key (PEM) of tls_cert.")
    behind_proxy: bool = _setting(
        False, "A reverse proxy in front does TLS and appends X-Forwarded-For; only then is that header believed."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Names (NAME or NAME:PORT) that the Host header may carry besides localhost and the address listened on; "
        "anything else is refused, against DNS rebinding.",
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "Origins (https://NAME) of other sites whose pages may use this daemon from a browser."
    )
    max_body_bytes: int = _setting(MIB, "Largest HTTP request body.", _ge(1024))
    max_message_bytes: int = _setting(
        MIB, "Largest WebSocket message of a client; more closes it with 1009.", _ge(1024)
    )
    requests_per_second: float = _setting(100.0, "HTTP requests per second and client, sustained.", _POSITIVE)
    request_burst: int = _setting(200, "HTTP requests that a client may send at once.", _ge(1))
    handshake_seconds: float = _setting(
        10.0, "Time for the request head, the TLS handshake, and the first auth message.", _POSITIVE
    )


@attrs.frozen(kw_only=True)
class RunSettings:
    """Which agents run, where, and for how long."""

    workspace_roots: tuple[Path, ...] = attrs.field(
        metadata={"help": "Work orders may only name workspaces below these. Default: the current directory."}
    )
    max_concurrent_runs: int = _setting(8, "Runs at the same time; further work orders wait.", _ge(1))
    timeout_seconds: float | None = _setting(
        6 * 3600.0, "Wall-clock limit of a run whose work order sets none.", _OPTIONAL_POSITIVE
    )
    idle_timeout_seconds: float | None = _setting(
        1800.0,
        "A run that prints nothing for this long is stopped, unless it waits for an approval.",
        _OPTIONAL_POSITIVE,
    )
    approval_seconds: float = _setting(300.0, "A permission request without an answer is denied after this.", _POSITIVE)
    restart_policy: RestartPolicy = _setting(
        "fail",
        "What becomes of runs that a killed daemon left: fail them, retry from the start, or resume the agent's session.",
    )
    shutdown_grace_seconds: float = _setting(
        5.0, "On SIGTERM, runs may finish for this long before they are cancelled.", _ge(0)
    )


@attrs.frozen(kw_only=True)
class LimitSettings:
    """What one run may take of this machine. In a cgroup of its own where the daemon has one to give, otherwise by rlimits."""

    processes: int | None = _setting(
        None,
        "Processes and threads of a run. Without a cgroup it is RLIMIT_NPROC, which counts everything that the daemon's user "
        "runs, and does not hold root: set it well above what else is there.",
        _OPTIONAL_POSITIVE,
    )
    memory_bytes: int | None = _setting(
        None,
        "Memory of a run. Without a cgroup it is RLIMIT_DATA, which holds each process by itself.",
        attrs.validators.optional(_ge(16 * MIB)),
    )
    open_files: int | None = _setting(
        None, "Files that a process of a run may have open (RLIMIT_NOFILE).", attrs.validators.optional(_ge(64))
    )
    cpu_seconds: int | None = _setting(
        None,
        "CPU time of each process of a run (RLIMIT_CPU). runs.timeout_seconds limits wall-clock time.",
        _OPTIONAL_POSITIVE,
    )
    cpu_weight: int = _setting(
        100, "A run's share of a busy CPU, beside others with 100; only in a cgroup.", [_ge(1), _le(10_000)]
    )
    output_bytes: int = _setting(
        4 * 1024 * MIB, "A run that prints more to stdout or stderr is stopped: it is written to disk.", _ge(MIB)
    )
    cgroup: Path | None = _setting(
        None,
        "The cgroup v2 directory in which each run gets a group; the daemon must be alone in it. Default: the daemon's own, "
        "where systemd delegated it (Delegate=yes).",
    )


@attrs.frozen(kw_only=True)
class SandboxSettings:
    """Runs in a sandbox made by bubblewrap: the workspace can be written, nothing else of the machine."""

    enabled: bool = _setting(False, "Run every agent in a sandbox. Needs the program bwrap, and user namespaces.")
    network: bool = _setting(
        False, "Let agents in the sandbox use the network. An agent whose model is not on this machine needs it."
    )
    writable: tuple[Path, ...] = _setting(
        (),
        "Paths that agents may write besides the workspace and their own state (such as ~/.claude); those that do not "
        "exist are left out.",
    )


@attrs.frozen(kw_only=True)
class JournalSettings:
    """How long what happened is kept. A work order that is queued or running is never trimmed."""

    retention_seconds: float | None = _setting(
        30 * 86_400.0, "Events and raw logs older than this are removed.", _OPTIONAL_POSITIVE
    )
    retention_bytes: int | None = _setting(
        4 * 1024 * MIB, "Above this size of the journal the oldest ended work orders are removed.", _OPTIONAL_POSITIVE
    )
    retention_events: int | None = _setting(
        1_000_000, "Events kept per ended work order, the newest.", _OPTIONAL_POSITIVE
    )


@attrs.frozen(kw_only=True)
class BroadcastSettings:
    """How subscribers are served."""

    backlog_bytes: int = _setting(
        MIB,
        "Frames that may wait for one slow subscriber; above it the subscriber catches up from the journal.",
        _ge(65_536),
    )
    stall_seconds: float = _setting(
        60.0, "A subscriber that takes nothing for this long is closed with 4008.", _POSITIVE
    )
    ping_interval_seconds: float = _setting(25.0, "Time between two pings.", _POSITIVE)
    ping_timeout_seconds: float = _setting(10.0, "A peer that doesn't answer a ping within this is gone.", _POSITIVE)


@attrs.frozen(kw_only=True)
class AgentSettings:
    """One agent program: ``[agents.TYPE]``."""

    command: tuple[str, ...] | None = _setting(None, "The program and its leading arguments, instead of the usual one.")
    env: Mapping[str, str] = attrs.field(
        factory=dict, metadata={"help": "Variables that the program gets on top of the allow-list."}
    )


@attrs.frozen(kw_only=True)
class LogSettings:
    """What the daemon tells its operator, on stderr."""

    format: LogFormat = _setting(
        "auto", "auto: journald under systemd, console on a terminal, otherwise json (one object a line)."
    )
    level: LogLevel = _setting("info", "The least severe level that is shown. No event content at info.")


def _is_web_address(_instance: object, _attribute: attrs.Attribute[Any], value: str) -> None:
    if not value.startswith(("http://", "https://")):
        # Worded as attrs' own validators are, which `agentstream.config` reads.
        raise ValueError(f"'otlp_endpoint' must be http://HOST:PORT or https://HOST: {value}")


@attrs.frozen(kw_only=True)
class TelemetrySettings:
    """OpenTelemetry traces. Headers, certificates, sampling and the service's name are set by the standard ``OTEL_*`` variables."""

    otlp_endpoint: str | None = _setting(
        None,
        "Base URL of an OTLP/HTTP collector (http://127.0.0.1:4318), to which a span of each run and tool call is sent. "
        "Needs agentstream[otel].",
        attrs.validators.optional(_is_web_address),
    )


#: Names whose values are secrets wherever they are seen.
SECRET_VARIABLES: Final = (
    "*_API_KEY",
    "*_ACCESS_KEY",
    "*_SECRET_KEY",
    "*_AUTH_TOKEN",
    "*_OAUTH_TOKEN",
    "*_TOKEN",
    "*_SECRET",
    "*_PASSWORD",
)


@attrs.frozen(kw_only=True)
class SecuritySettings:
    """What must not be seen."""

    redact_variables: tuple[str, ...] = _setting(
        SECRET_VARIABLES,
        "Names of environment variables (* matches anything) whose values are replaced by [redacted:NAME] in events, "
        "raw logs, errors and the daemon's own log.",
    )


@attrs.frozen(kw_only=True)
class Settings:
    """All of them. ``origins`` tells for each dotted name where its value comes from, for ``agentstream config show``."""

    server: ServerSettings
    runs: RunSettings
    limits: LimitSettings
    sandbox: SandboxSettings
    journal: JournalSettings
    broadcast: BroadcastSettings
    agents: Mapping[str, AgentSettings]
    log: LogSettings
    telemetry: TelemetrySettings
    security: SecuritySettings
    origins: Mapping[str, str]


#: Section name -> its class. ``agents`` is a table of tables and stands apart.
SECTIONS: Final[Mapping[str, type[Any]]] = {
    "server": ServerSettings,
    "runs": RunSettings,
    "limits": LimitSettings,
    "sandbox": SandboxSettings,
    "journal": JournalSettings,
    "broadcast": BroadcastSettings,
    "log": LogSettings,
    "telemetry": TelemetrySettings,
    "security": SecuritySettings,
}


@attrs.frozen(kw_only=True)
class Shown:
    """One line of ``agentstream config show``."""

    name: str
    value: Any
    origin: str
    help: str


def show(settings: Settings) -> Iterator[Shown]:
    """Each setting with its value and origin, in the order of the classes. Values of agents' ``env`` are masked."""
    for section, cls in SECTIONS.items():
        values = getattr(settings, section)
        for field in attrs.fields(cls):
            name = f"{section}.{field.name}"
            yield Shown(
                name=name,
                value=getattr(values, field.name),
                origin=settings.origins.get(name, "default"),
                help=field.metadata["help"],
            )
    for kind, agent in settings.agents.items():
        for field in attrs.fields(AgentSettings):
            name = f"agents.{kind}.{field.name}"
            value = getattr(agent, field.name)
            if field.name == "env":
                value = dict.fromkeys(value, "[redacted]")
            yield Shown(
                name=name, value=value, origin=settings.origins.get(name, "default"), help=field.metadata["help"]
            )


LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether ``host``, as written in the settings, can only be reached from this machine."""
    return host in LOOPBACK or (host.startswith("127.") and host.replace(".", "").isdigit())


def check_exposure(server: ServerSettings) -> None:
    """Refuse, with `ConfigError`, to open the door in a way that lets strangers in.

    A pure look at the settings, made by ``serve`` before it listens. Socket activation passes the address it was given as ``host``.
    """
    if (server.tls_cert is None) != (server.tls_key is None):
        raise ConfigError("server.tls_cert and server.tls_key go together: set both, or none")
    if server.unix is not None or is_loopback(server.host):
        return
    if not server.auth:
        raise ConfigError(
            f"--no-auth on {server.host} would let the whole network start programs here; "
            "listen on 127.0.0.1 or a Unix socket (--unix PATH), or leave --no-auth out"
        )
    if server.tls_cert is None and not server.behind_proxy:
        raise ConfigError(
            f"listening on {server.host} without TLS would send tokens in the clear; set server.tls_cert and server.tls_key, "
            "or, where a reverse proxy does TLS, server.behind_proxy = true (--behind-proxy), or listen on 127.0.0.1"
        )
