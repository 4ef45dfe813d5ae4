"""What the settings decide about runs, made of them at the start and again at each reload: drivers, limits, redaction, TLS.

Nothing here runs; `agentstream.daemon` puts it in its place, `agentstream.reload` replaces it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from agentstream import config
from agentstream.agents.registry import registry
from agentstream.errors import ConfigError
from agentstream.orchestration.setup import OrchestratorOptions
from agentstream.redaction import Redactor, secrets_in
from agentstream.runs import cgroup
from agentstream.runs.driver import Driver
from agentstream.runs.sandbox import open_sandbox
from agentstream.runs.spec import RunLimits
from agentstream.server.websocket import WebSocketLimits
from agentstream.settings import ServerSettings, Settings

if TYPE_CHECKING:
    from agentstream.traces import Traces

#: What is kept of a run's output in memory, in bytes: the daemon has the raw log, and reads only the tail of stderr here.
_COLLECTED: Final = 16 * 1024


@attrs.frozen(kw_only=True)
class Assembly:
    """How runs are carried out."""

    drivers: Mapping[str, Driver]
    options: OrchestratorOptions
    redactor: Redactor
    #: Makes a run's redaction from the environment that its work order adds.
    redact_run: Callable[[Mapping[str, str]], Callable[[bytes], bytes]]


def assemble(settings: Settings, environ: Mapping[str, str], groups: cgroup.Groups | None) -> Assembly:
    """Everything of these settings. Blocking: tries the sandbox, where there is to be one. Raises `ConfigError`."""
    resources, group = cgroup.enforce(settings.limits, groups)
    limits = RunLimits(
        max_collected_bytes=_COLLECTED,
        max_output_bytes=settings.limits.output_bytes,
        approval_timeout=settings.runs.approval_seconds,
        resources=resources,
        cgroup=group,
    )
    redactor = redactor_of(settings, environ)
    patterns = settings.security.redact_variables
    return Assembly(
        drivers=_drivers(settings, environ, limits),
        options=OrchestratorOptions(
            workspace_roots=settings.runs.workspace_roots,
            data_dir=settings.server.data_dir,
            max_concurrent_runs=settings.runs.max_concurrent_runs,
            timeout=settings.runs.timeout_seconds,
            idle_timeout=settings.runs.idle_timeout_seconds,
            restart_policy=settings.runs.restart_policy,
            limits=limits,
        ),
        redactor=redactor,
        redact_run=lambda env: redactor.with_secrets(secrets_in(env, patterns)).data,
    )


def _drivers(settings: Settings, environ: Mapping[str, str], limits: RunLimits) -> dict[str, Driver]:
    agents = settings.agents
    known = registry({name: agent.command for name, agent in agents.items() if agent.command})
    sandbox = open_sandbox(settings.sandbox, hidden=[settings.server.data_dir]) if settings.sandbox.enabled else None
    return {
        name: Driver(
            known.get(name),
            environ=environ,
            env=agents[name].env if name in agents else None,
            limits=limits,
            sandbox=sandbox,
        )
        for name in known
    }


def redactor_of(settings: Settings, environ: Mapping[str, str]) -> Redactor:
    """Secrets of our environment, of the agents', and the machine's own token."""
    secrets = secrets_in(environ, settings.security.redact_variables)
    for agent in settings.agents.values():
        secrets |= secrets_in(agent.env, settings.security.redact_variables)
    plain = settings.server.data_dir / "token"
    if plain.exists():
        secrets["AGENTSTREAM_TOKEN"] = plain.read_text().strip()
    return Redactor(secrets)


def traces_of(settings: Settings) -> Traces | None:
    """None unless they are asked for. Raises `ConfigError` where what they need is not installed."""
    config.check_extras(settings)
    if settings.telemetry.otlp_endpoint is None:
        return None
    # Here, because it is optional and large.
    from agentstream.traces import open_traces

    return open_traces(settings.telemetry.otlp_endpoint)


def websocket_limits(settings: Settings) -> WebSocketLimits:
    """The bounds of WebSocket connections."""
    return WebSocketLimits(
        auth_seconds=settings.server.handshake_seconds,
        ping_interval=settings.broadcast.ping_interval_seconds,
        ping_timeout=settings.broadcast.ping_timeout_seconds,
        stall_limit=settings.broadcast.stall_seconds,
        max_message=settings.server.max_message_bytes,
    )


def tls_context(server: ServerSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises `ConfigError` for one that can't be used."""
    if server.tls_cert is None or server.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    renew(context, server)
    return context


def renew(context: ssl.SSLContext, server: ServerSettings) -> None:
    """Load the certificate; connections from now on see it. Raises `ConfigError`."""
    if server.tls_cert is None or server.tls_key is None:
        raise ConfigError("server.tls_cert, server.tls_key: a daemon that speaks TLS can't stop to without a restart")
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls_cert, server.tls_key: can't be used: {error}") from error
