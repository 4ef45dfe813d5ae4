"""The composition root: builds the parts, wires them, and takes them down in the right order.

From the outside in, each inside the one before it: the lock on the data directory, the journal, the broadcaster, the
orchestrator, the door. So on the way out the door stops accepting first, runs end, subscribers get the last events and are told
that the daemon stops, and the journal is the last to go. docs/explanation/shutdown.md tells it from the operator's side.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from agentstream import config
from agentstream.assembly import assemble, tls_context, traces_of, websocket_limits
from agentstream.broadcast.broadcaster import EventBroadcaster
from agentstream.entrances import LiveRules, open_doorway
from agentstream.errors import AgentstreamError, ConfigError
from agentstream.journal.base import Record
from agentstream.journal.retention import Retention
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.orchestration.orchestrator import Orchestrator
from agentstream.redaction import Redactor
from agentstream.reload import Reloader, configure_logs
from agentstream.runs import cgroup
from agentstream.runs.inotify import InotifyHub
from agentstream.server.auth import Rules
from agentstream.server.http import make_app
from agentstream.server.listener import Door
from agentstream.server.metrics import Metrics
from agentstream.server.recheck import watch_tokens
from agentstream.server.sse import Doorbell
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.server.websocket import WebSocketServer
from agentstream.settings import Settings, check_exposure
from agentstream.systemd import Notifier

log = structlog.get_logger("agentstream.daemon")

#: Batches between the journal and the broadcaster. The broadcaster waits for nobody, so more would only hide a fault.
_PUBLISHED_BATCHES: Final = 256
#: Seconds in which subscribers may take their last events at the end. With the grace for runs (5 s by default) and the time that
#: stopping them takes, the whole stays below 15 s.
_GOODBYE: Final = 3.0
#: Seconds for all of it after the grace for runs, and more: what systemd is asked to wait.
_AFTER_GRACE: Final = 30.0
#: Seconds in which the last spans may be sent.
_LAST_SPANS: Final = 2.0


@attrs.frozen
class Listening:
    """Where the daemon is, once it accepts connections."""

    url: str
    data_dir: Path
    #: False with ``--no-auth``.
    asks_for_token: bool


OnListening = Callable[[Listening], Awaitable[None]]


@asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[None]:
    """One daemon per data directory: two would take each other's runs for those of a former life."""
    prepare_data_dir(data_dir)
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another agentstream daemon uses {data_dir}; stop it, or name another --data-dir"
            ) from None
        yield
    finally:
        os.close(fd)


def _retention(settings: Settings) -> Retention:
    return Retention(
        max_age_seconds=settings.journal.retention_seconds,
        max_bytes=settings.journal.retention_bytes,
        max_events_per_work_order=settings.journal.retention_events,
    )


def _remover(data_dir: Path) -> Callable[[Sequence[str]], Awaitable[None]]:
    async def remove(directories: Sequence[str]) -> None:
        for directory in directories:
            path = data_dir / directory
            if path.is_relative_to(data_dir / "runs"):
                await trio.to_thread.run_sync(lambda path=path: shutil.rmtree(path, ignore_errors=True))  # type: ignore[misc]

    return remove


@attrs.frozen(kw_only=True)
class _Parts:
    """What is built, so that it can be stopped and asked."""

    journal: SqliteJournal
    broadcaster: EventBroadcaster
    orchestrator: Orchestrator
    door: Door
    reloader: Reloader
    notifier: Notifier

    @property
    def settings(self) -> Settings:
        """As they are now."""
        return self.reloader.settings

    def status(self) -> str:
        """One line for systemctl status."""
        orders = self.orchestrator.statistics()
        subscribers = self.broadcaster.statistics().subscribers
        trouble = self.journal.statistics().trouble
        line = f"{orders.running} running, {orders.queued} queued, {subscribers} subscribers"
        return f"{line}; DEGRADED: {trouble}" if trouble else line


async def serve(
    settings: Settings, *, load: Callable[[], Settings] | None = None, on_listening: OnListening | None = None
) -> None:
    """Run the daemon until SIGTERM or SIGINT. ``on_listening`` runs beside it, from when it accepts connections.

    ``load`` reads the settings again, on SIGHUP; without it they stay. Raises `ConfigError` for settings that would let
    strangers in, and OSError for an address that can't be listened on.
    """
    check_exposure(settings.server)
    environ = config.process_environment()
    notifier = Notifier(environ)
    async with _locked(settings.server.data_dir):
        tokens = TokenStore(settings.server.data_dir, auth=settings.server.auth)
        await trio.to_thread.run_sync(tokens.ensure_first)
        configure_logs(settings, environ)
        tls = tls_context(settings.server)
        async with _plain_errors():
            doorway = await open_doorway(settings.server, environ, tls)
            settings = attrs.evolve(settings, server=doorway.server)
            rules = LiveRules(Rules.of(settings.server))
            async with _built(settings, load or (lambda: settings), environ, tokens, tls, rules, notifier) as parts:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(notifier.watch, parts.status)
                    await nursery.start(parts.reloader.run)
                    await nursery.start(parts.door.serve, doorway.entrances(rules))
                    config.announce(settings.server.data_dir, doorway.url)
                    log.info("listening", url=doorway.url, data_dir=str(settings.server.data_dir))
                    notifier.ready(parts.status())
                    if on_listening is not None:
                        where = Listening(doorway.url, settings.server.data_dir, settings.server.auth)
                        nursery.start_soon(on_listening, where)
                    await _until_told_to_stop(parts)
                    nursery.cancel_scope.cancel()
                config.retract(settings.server.data_dir, doorway.url)
        log.info("stopped")


@asynccontextmanager
async def _plain_errors() -> AsyncIterator[None]:
    """What the operator can mend comes out as itself, not in the groups of the nurseries that it passed."""
    try:
        yield
    except BaseExceptionGroup as group:
        mendable, rest = group.split((AgentstreamError, OSError))
        if mendable is None or rest is not None:
            raise
        first: BaseException = mendable
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group  # noqa: ASYNC123 - the group is its cause, and has nothing else in it


@asynccontextmanager
async def _built(
    settings: Settings,
    load: Callable[[], Settings],
    environ: Mapping[str, str],
    tokens: TokenStore,
    tls: ssl.SSLContext | None,
    rules: LiveRules,
    notifier: Notifier,
) -> AsyncIterator[_Parts]:
    data_dir = settings.server.data_dir
    groups = await trio.to_thread.run_sync(cgroup.prepare, settings.limits.cgroup)
    assembly = await trio.to_thread.run_sync(assemble, settings, environ, groups)
    traces = traces_of(settings)
    metrics = Metrics()
    doorbell = Doorbell()
    publish, published = trio.open_memory_channel[Sequence[Record]](_PUBLISHED_BATCHES)
    async with (
        trio.open_nursery() as background,
        open_journal(
            data_dir / "journal.sqlite",
            publish=publish.send,
            retention=_retention(settings),
            remove_directories=_remover(data_dir),
            observe_commit=metrics.commit.observe,
        ) as journal,
    ):
        orchestrator = Orchestrator(
            journal,
            assembly.drivers,
            assembly.options,
            hub=await _hub(background),
            redactor=assembly.redact_run,
            trace=traces.begin if traces is not None else None,
        )
        broadcaster = EventBroadcaster(
            published,
            journal,
            backlog_limit=settings.broadcast.backlog_bytes,
            taps=(metrics.published, doorbell.ring, *([traces.published] if traces is not None else [])),
            deltas_wanted=orchestrator.deltas_wanted,
            observe_latency=metrics.delivery.observe,
        )
        metrics.watch(orchestration=orchestrator, journal=journal, broadcast=broadcaster)
        websocket = WebSocketServer(
            broadcaster=broadcaster,
            journal=journal,
            orchestration=orchestrator,
            authenticator=tokens,
            origin_allowed=rules.origin_allowed,
            limits=websocket_limits(settings),
        )

        def app(settings: Settings, redactor: Redactor) -> Any:
            return make_app(
                orchestration=orchestrator,
                journal=journal,
                authenticator=tokens,
                server=settings.server,
                doorbell=doorbell,
                metrics=metrics,
                redactor=redactor,
                secret_variables=settings.security.redact_variables,
                troubles=lambda: [tokens.trouble] if tokens.trouble else [],
            )

        door = Door(
            app=app(settings, assembly.redactor), websocket=websocket, head_seconds=settings.server.handshake_seconds
        )
        await background.start(broadcaster.run)
        await background.start(metrics.sample_loop_lag)
        await background.start(websocket.run)
        await background.start(watch_tokens, tokens, (websocket.recheck, doorbell.ring_all))
        await background.start(orchestrator.run)
        parts = _Parts(
            journal=journal,
            broadcaster=broadcaster,
            orchestrator=orchestrator,
            door=door,
            reloader=Reloader(
                settings=settings,
                load=load,
                environ=environ,
                groups=groups,
                tls=tls,
                rules=rules,
                orchestrator=orchestrator,
                websocket=websocket,
                door=door,
                make_app=app,
                notifier=notifier,
                status=lambda: parts.status(),
            ),
            notifier=notifier,
        )
        yield parts
        # The journal closes behind this; the broadcaster takes what it still publishes.
        await journal.aclose()
        background.cancel_scope.cancel()
    if traces is not None:
        await traces.close(_LAST_SPANS)


async def _hub(nursery: trio.Nursery) -> InotifyHub | None:
    try:
        hub = InotifyHub()
    except OSError as error:
        log.warning("no inotify; output and workspaces are polled", reason=str(error))
        return None
    await nursery.start(hub.run)
    return hub


async def _until_told_to_stop(parts: _Parts) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        number = await anext(aiter(signals))
        grace = parts.settings.runs.shutdown_grace_seconds
        log.info("stopping", signal=signal.Signals(number).name, grace=grace)
        parts.notifier.stopping("stopping", grace + _AFTER_GRACE)
        parts.door.stop_accepting()
        async with trio.open_nursery() as nursery:
            hurry = trio.Event()
            nursery.start_soon(_hurry_on_second_signal, signals, hurry)
            await _stop_runs(parts, hurry)
            await _last_events_out(parts)
            await parts.door.close(_GOODBYE)
            nursery.cancel_scope.cancel()


async def _hurry_on_second_signal(signals: AsyncIterator[int], hurry: trio.Event) -> None:
    await anext(signals)
    log.info("stopping at once, as asked a second time")
    hurry.set()


async def _stop_runs(parts: _Parts, hurry: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def stop(grace: float) -> None:
            await parts.orchestrator.stop(grace)
            nursery.cancel_scope.cancel()

        nursery.start_soon(partial(stop, parts.settings.runs.shutdown_grace_seconds))
        await hurry.wait()
        nursery.start_soon(stop, 0.0)


async def _last_events_out(parts: _Parts) -> None:
    """What was committed is with the broadcaster before the subscribers are told that it is over."""
    with trio.move_on_after(_GOODBYE):
        while parts.broadcaster.position < parts.journal.head:  # noqa: ASYNC110 - once in a life, for milliseconds
            await trio.sleep(0.005)
