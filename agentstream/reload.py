"""SIGHUP: settings, tokens and certificates are read again, and nobody who is connected or running notices.

What is wrong with the new settings is told and changes nothing. What can't be changed in a life (the address, the journal)
is named, and waits for the next. A run keeps what it began with; the next one gets the new. Tokens need no reload at all.
"""

from __future__ import annotations

import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs
import structlog
import trio

from agentstream import config, logs
from agentstream.assembly import Assembly, assemble, redactor_of, renew, tls_context, websocket_limits
from agentstream.entrances import LiveRules
from agentstream.errors import AgentstreamError
from agentstream.orchestration.orchestrator import Orchestrator
from agentstream.redaction import Redactor
from agentstream.runs.cgroup import Groups
from agentstream.server.auth import Rules
from agentstream.server.listener import Door
from agentstream.server.websocket import WebSocketServer
from agentstream.settings import SECTIONS, Settings, check_exposure
from agentstream.systemd import Notifier

log = structlog.get_logger("agentstream.daemon")

#: What waits for the next start: names, or whole sections.
AT_RESTART: Final = (
    *("server.host", "server.port", "server.unix", "server.data_dir", "server.auth", "server.handshake_seconds"),
    *("limits.cgroup", "journal.", "broadcast.backlog_bytes", "runs.restart_policy", "telemetry."),
)


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """The dotted names of what is different. Pure."""
    for section, cls in SECTIONS.items():
        for field in attrs.fields(cls):
            if getattr(getattr(old, section), field.name) != getattr(getattr(new, section), field.name):
                yield f"{section}.{field.name}"
    for agent in sorted({*old.agents, *new.agents}):
        if old.agents.get(agent) != new.agents.get(agent):
            yield f"agents.{agent}"


@attrs.define(kw_only=True)
class Reloader:
    """Knows everything that settings decide, and replaces it."""

    settings: Settings
    #: Reads the settings again; blocking.
    load: Callable[[], Settings]
    environ: Mapping[str, str]
    groups: Groups | None
    tls: ssl.SSLContext | None
    rules: LiveRules
    orchestrator: Orchestrator
    websocket: WebSocketServer
    door: Door
    make_app: Callable[[Settings, Redactor], Any]
    notifier: Notifier
    status: Callable[[], str]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reload on each SIGHUP, unless our parent had it ignored (nohup)."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            task_status.started()
            return
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                await self.reload()

    async def reload(self) -> None:
        """Read everything again. What is wrong is logged, and leaves everything as it was."""
        self.notifier.reloading()
        try:
            new = await trio.to_thread.run_sync(self.load)
            await self._replace(attrs.evolve(new, server=self._same_address(new)), [*changes(self.settings, new)])
        except (AgentstreamError, OSError) as error:
            log.error("the reload failed; everything stays as it was", reason=str(error))  # noqa: TRY400
            self.notifier.ready(f"{self.status()}; the last reload FAILED: {error}")
        else:
            self.notifier.ready(self.status())

    def _same_address(self, new: Settings) -> Any:
        """Where we listen does not change, so the rules go on being those of that address."""
        old = self.settings.server
        return attrs.evolve(
            new.server, host=old.host, port=old.port, unix=old.unix, data_dir=old.data_dir, auth=old.auth
        )

    async def _replace(self, new: Settings, changed: list[str]) -> None:
        check_exposure(new.server)
        rules = Rules.of(new.server)
        assembly = await trio.to_thread.run_sync(assemble, new, self.environ, self.groups)
        app = self.make_app(new, assembly.redactor)
        if self.tls is not None:
            # Tried on another one first: a certificate without its key would stay half loaded.
            tls_context(new.server)
            renew(self.tls, new.server)
        # From here on nothing can fail.
        self._put(new, rules, assembly, app)
        waiting = [name for name in changed if name.startswith(AT_RESTART)]
        log.info("reloaded", changed=[name for name in changed if name not in waiting], at_restart=waiting)

    def _put(self, new: Settings, rules: Rules, assembly: Assembly, app: Any) -> None:
        self.settings = new
        self.rules.rules = rules
        configure_logs(new, self.environ)
        self.orchestrator.reconfigure(assembly.drivers, assembly.options, assembly.redact_run)
        self.websocket.limits = websocket_limits(new)
        self.door.use(app)


def configure_logs(settings: Settings, environ: Mapping[str, str]) -> Redactor:
    """Log as the settings say, without their secrets."""
    redactor = redactor_of(settings, environ)
    logs.configure(settings.log, sys.stderr, journald=config.writes_to_journald(environ, 2), redactor=redactor)
    return redactor
