"""The whole HTTP side over a real journal and real tokens, with a test in the agent's place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from agentstream.journal.base import Record
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.redaction import Redactor
from agentstream.server import openapi
from agentstream.server.http import make_app
from agentstream.server.metrics import Metrics
from agentstream.server.sse import Doorbell
from agentstream.server.tokens import TokenStore, prepare_data_dir
from agentstream.settings import ServerSettings
from tests.support.asgi import Client
from tests.support.orchestration import NOON, Orchestration
from tests.support.schema import DocumentedAnswers

#: Every answer in every test is checked against it.
DOCUMENTED = DocumentedAnswers(openapi.document("test"))
SECRET = "sk-test-0123456789"
BODY = {"taskPrompt": "tidy up", "workspaceSource": {"type": "fresh"}, "agentType": "demo"}


@attrs.frozen(kw_only=True)
class Broadcast:
    """The broadcaster's numbers, as they might be."""

    subscribers: int = 5
    backlog_bytes: int = 0
    catching_up: int = 1
    catch_ups: int = 2
    delivered: int = 100
    stalled: int = 0

    def statistics(self) -> Broadcast:
        return self


@attrs.define(kw_only=True)
class Door:
    """What a test needs: clients with each scope, and the parts behind."""

    admin: Client
    control: Client
    read: Client
    nobody: Client
    tokens: TokenStore
    orchestration: Orchestration
    journal: SqliteJournal
    metrics: Metrics
    doorbell: Doorbell
    troubles: list[str]
    now: float = 0.0


@asynccontextmanager
async def open_door(tmp_path: Path, *, dashboard: Path | None = None, **server: Any) -> AsyncIterator[Door]:
    """A door with these server settings."""
    data_dir = tmp_path / "data"
    prepare_data_dir(data_dir)
    settings = ServerSettings(data_dir=data_dir, **server)
    tokens = TokenStore(data_dir, auth=settings.auth)
    tokens.ensure_first()
    doorbell, metrics = Doorbell(), Metrics()
    troubles: list[str] = []

    async def publish(records: Sequence[Record]) -> None:
        metrics.published(records)
        doorbell.ring(records)

    door: Door
    async with open_journal(
        data_dir / "journal.sqlite", publish=publish, observe_commit=metrics.commit.observe
    ) as journal:
        orchestration = Orchestration(journal, data_dir)
        metrics.watch(orchestration=orchestration, journal=journal, broadcast=Broadcast())
        app = make_app(
            orchestration=orchestration,
            journal=journal,
            authenticator=tokens,
            server=settings,
            doorbell=doorbell,
            metrics=metrics,
            redactor=Redactor({"API_KEY": SECRET}),
            troubles=lambda: troubles,
            now=lambda: NOON,
            clock=lambda: door.now,
            dashboard=dashboard or tmp_path / "nothing",
        )
        door = Door(
            admin=Client(app=app, check=DOCUMENTED, token=(data_dir / "token").read_text().strip()),
            control=Client(app=app, check=DOCUMENTED, token=tokens.create("controller", "control")),
            read=Client(app=app, check=DOCUMENTED, token=tokens.create("reader", "read")),
            nobody=Client(app=app, check=DOCUMENTED),
            tokens=tokens,
            orchestration=orchestration,
            journal=journal,
            metrics=metrics,
            doorbell=doorbell,
            troubles=troubles,
        )
        yield door
