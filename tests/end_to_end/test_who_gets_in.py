"""Who gets in: every combination of transport, token, Host, Origin and path, asked of a real daemon.

What is expected is written down a second time, in words that are not the daemon's: `expected` and `expected_websocket`.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from agentstream.server.tokens import TokenStore
from tests.end_to_end.house import PATIENCE, Daemon

TRANSPORTS = ("tcp", "unix")
TOKENS = ("none", "wrong", "revoked", "read", "control", "admin")
HOSTS = ("own", "rebound", "other port", "none")
ORIGINS = ("none", "own", "evil", "null")
#: Path -> (method, scope that it needs; None: anybody's).
PATHS = {
    "/health": ("GET", None),
    "/": ("GET", None),
    "/metrics": ("GET", None),
    "/openapi.json": ("GET", "read"),
    "/api/v1/work-orders": ("GET", "read"),
    "/api/v1/work-orders/nothing/events": ("GET", "read"),
    "/api/v1/work-orders/nothing": ("DELETE", "control"),
}
RANK = {"read": 1, "control": 2, "admin": 3}


@attrs.frozen
class House:
    """A daemon on TCP and one on a Unix socket, with tokens of each scope in both."""

    daemons: dict[str, Daemon]
    tokens: dict[str, dict[str, str]]

    def connect(self, transport: str) -> socket.socket:
        address = self.daemons[transport].address
        if transport == "unix":
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE)
            client.connect(address.removeprefix("unix:"))
            return client
        host, _, port = address.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), PATIENCE)

    def host(self, transport: str, which: str) -> str | None:
        own = "localhost" if transport == "unix" else self.daemons[transport].address.removeprefix("http://")
        return {"own": own, "rebound": "evil.example", "other port": "127.0.0.1:1", "none": None}[which]

    def origin(self, transport: str, which: str) -> str | None:
        own = f"http://{self.host(transport, 'own')}"
        return {"none": None, "own": own, "evil": "https://evil.example", "null": "null"}[which]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    env = {"AGENTSTREAM_SERVER_REQUESTS_PER_SECOND": "100000", "AGENTSTREAM_SERVER_REQUEST_BURST": "100000"}
    homes = {transport: tmp_path_factory.mktemp(transport) for transport in TRANSPORTS}
    with Daemon(homes["tcp"], env=env) as tcp:
        with Daemon(homes["unix"], "--unix", str(homes["unix"] / "socket"), env=env) as unix:
            daemons = {"tcp": tcp, "unix": unix}
            yield House(daemons, {name: make_tokens(daemon.data) for name, daemon in daemons.items()})


def make_tokens(data: Path) -> dict[str, str]:
    store = TokenStore(data)
    made = {name: store.create(name, name) for name in ("read", "control", "admin")}
    made["revoked"] = store.create("gone", "admin")
    store.revoke("gone")
    return {**made, "wrong": "agentstream_" + "x" * 43}


def host_is_good(transport: str, host: str) -> bool:
    # On a Unix socket there is no port that could be wrong.
    return host == "own" or (host == "other port" and transport == "unix")


def same_origin(transport: str, host: str, origin: str) -> bool:
    """The page comes from the very address that it asks."""
    return origin == "own" and host == "own"


def expected(transport: str, token: str, host: str, origin: str, path: str) -> int:
    """The status by the rules of the issue."""
    _, needed = PATHS[path]
    if host == "none":
        return 400  # HTTP/1.1 demands one
    if not host_is_good(transport, host):
        return 403
    if origin != "none" and not same_origin(transport, host, origin):
        return 403
    if needed is not None and token not in RANK:
        return 401
    if needed is not None and RANK[token] < RANK[needed]:
        return 403
    return 404 if "nothing" in path else 200


def ask(house: House, transport: str, token: str, host: str, origin: str, path: str) -> tuple[int, str]:
    lines = [f"{PATHS[path][0]} {path} HTTP/1.1", "Connection: close"]
    for name, value in (("Host", house.host(transport, host)), ("Origin", house.origin(transport, origin))):
        if value is not None:
            lines.append(f"{name}: {value}")
    if token != "none":
        lines.append(f"Authorization: Bearer {house.tokens[transport][token]}")
    with house.connect(transport) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while data := client.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode(errors="replace")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_http(house: House, transport: str, path: str) -> None:
    wrong = []
    for token, host, origin in itertools.product(TOKENS, HOSTS, ORIGINS):
        status, body = ask(house, transport, token, host, origin, path)
        wanted = expected(transport, token, host, origin, path)
        if status != wanted:
            wrong.append((token, host, origin, status, wanted))
        if status in (401, 403):
            assert json.loads(body)["error"]["code"] == {401: "UNAUTHORIZED", 403: "FORBIDDEN"}[status]
        assert not any(secret in body for secret in house.tokens[transport].values())
    assert wrong == []


def expected_websocket(transport: str, token: str, host: str, origin: str) -> str:
    """``in``, ``refused`` (no handshake), or ``closed`` (1008)."""
    if not host_is_good(transport, host):
        return "refused"
    if origin != "none" and not same_origin(transport, host, origin):
        return "closed"
    return "in" if token in RANK else "closed"


def knock(house: House, transport: str, token: str, host: str, origin: str) -> tuple[str, str | None]:
    """What came of it; and who was let in: what came of a message that needs the scope control."""
    headers = {"Authorization": f"Bearer {house.tokens[transport][token]}"} if token != "none" else {}
    its_host = house.host(transport, host)
    its_origin = house.origin(transport, origin)
    client = house.connect(transport)
    try:
        websocket = connect(
            f"ws://{its_host}/ws",
            sock=client,
            additional_headers=headers,
            origin=Origin(its_origin) if its_origin is not None else None,
            open_timeout=PATIENCE,
            proxy=None,
        )
    except InvalidStatus as refused:
        client.close()
        return {403: "refused"}.get(refused.response.status_code, str(refused)), None
    with websocket:
        try:
            # Without a token the first message must be one, and this is none.
            websocket.send('{"type": "cancel", "workOrderId": "nothing", "id": "c"}')
            return "in", json.loads(websocket.recv(PATIENCE))["code"]
        except ConnectionClosed:
            return {1008: "closed"}.get(websocket.close_code or 0, str(websocket.close_code)), None


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_websocket(house: House, transport: str) -> None:
    wrong = []
    hosts = [host for host in HOSTS if host != "none"]
    for token, host, origin in itertools.product(TOKENS, hosts, ORIGINS):
        found, code = knock(house, transport, token, host, origin)
        wanted = expected_websocket(transport, token, host, origin)
        if code == "UNAUTHORIZED":
            # Said before the connection is closed.
            found = "closed"
        if found != wanted:
            wrong.append((token, host, origin, found, wanted))
        if found == "in":
            assert code == ("FORBIDDEN" if token == "read" else "NOT_FOUND")
    assert wrong == []


def test_a_token_may_come_later_and_only_as_the_first_message(house: House) -> None:
    daemon = house.daemons["tcp"]
    url = daemon.address.replace("http", "ws", 1) + "/ws"
    with connect(url, open_timeout=PATIENCE, proxy=None) as websocket:
        websocket.send(json.dumps({"type": "auth", "token": house.tokens["tcp"]["read"], "id": "a"}))
        assert json.loads(websocket.recv(PATIENCE))["type"] == "ok"
        websocket.send('{"type": "ping"}')
        assert json.loads(websocket.recv(PATIENCE))["type"] == "pong"
        # A second one replaces the first.
        websocket.send(json.dumps({"type": "auth", "token": house.tokens["tcp"]["wrong"]}))
        assert json.loads(websocket.recv(PATIENCE))["code"] == "UNAUTHORIZED"
        with pytest.raises(ConnectionClosed, match="1008"):
            websocket.recv(PATIENCE)


def test_without_auth_a_foreign_page_is_still_refused(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--no-auth") as daemon:
        house = House({"tcp": daemon}, {"tcp": {}})
        path = "/api/v1/work-orders"
        assert ask(house, "tcp", "none", "own", "none", path)[0] == 200
        assert ask(house, "tcp", "none", "own", "own", path)[0] == 200
        for host, origin in (("own", "evil"), ("own", "null"), ("rebound", "none"), ("rebound", "evil")):
            assert ask(house, "tcp", "none", host, origin, path)[0] == 403
        assert knock(house, "tcp", "none", "own", "none") == ("in", "NOT_FOUND")
        assert knock(house, "tcp", "none", "own", "evil")[0] == "closed"
        assert knock(house, "tcp", "none", "rebound", "none")[0] == "refused"
