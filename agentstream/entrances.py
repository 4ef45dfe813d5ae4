"""Where the daemon listens: its own address, a Unix socket, or sockets that systemd opened and handed over.

Whoever opened it, an address that lets strangers in is refused (`settings.check_exposure`).
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from agentstream.errors import ConfigError
from agentstream.server.auth import Rules, host_allowed
from agentstream.server.listener import Entrance, open_tcp, open_unix
from agentstream.settings import ServerSettings, check_exposure
from agentstream.systemd import handed_over

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]


@attrs.define
class LiveRules:
    """The rules for Host and Origin as they are now; a reload replaces them."""

    rules: Rules

    def entrance(self, listener: Listener, port: int | None) -> Entrance:
        """The entrance of a listener; ``port`` None: a Unix socket."""
        secure = isinstance(listener, trio.SSLListener)
        return Entrance(listener, lambda host: host_allowed(host, port=port, secure=secure, rules=self.rules))

    def origin_allowed(self, origin: str | None, host: str, has_token: bool) -> bool:
        """As `server.principal.OriginAllowed`."""
        return self.rules.origin_check()(origin, host, has_token)


@attrs.frozen
class Doorway:
    """What was opened. ``server`` are the settings with the address that it really is."""

    listeners: list[Listener]
    server: ServerSettings
    #: What clients are told.
    url: str

    def entrances(self, live: LiveRules) -> list[Entrance]:
        """One for each listener."""
        return [live.entrance(listener, _port(_socket(listener))) for listener in self.listeners]


async def open_doorway(server: ServerSettings, environ: Mapping[str, str], tls: ssl.SSLContext | None) -> Doorway:
    """Listen. Raises `ConfigError` for an address that can't be listened on, or that was handed over and would let strangers in."""
    given = handed_over(environ)
    if given:
        server = _as_given(server, given)
        plain = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in given]
        listeners: list[Listener] = [trio.SSLListener(one, tls, https_compatible=True) if tls else one for one in plain]
    else:
        where = str(server.unix) if server.unix is not None else f"{server.host}:{server.port}"
        try:
            if server.unix is not None:
                listeners = [await open_unix(server.unix)]
            else:
                listeners = [*await open_tcp(server.host, server.port, tls)]
        except OSError as error:
            advice = (
                "stop who listens there, or choose another one"
                if error.errno == errno.EADDRINUSE
                else "choose another one"
            )
            raise ConfigError(f"can't listen on {where}: {(error.strerror or str(error)).lower()}; {advice}") from error
    port = _port(_socket(listeners[0]))
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"unix:{server.unix}" if port is None else f"{'https' if tls else 'http'}://{host}:{port}"
    return Doorway(listeners, server, url)


def _as_given(server: ServerSettings, given: list[socket.socket]) -> ServerSettings:
    """The settings as if these addresses had been configured; each must be fit to be listened on."""
    found: list[ServerSettings] = []
    for sock in given:
        if sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise ConfigError(
                f"systemd handed over a socket of {sock.family.name}, {sock.type.name}; use ListenStream="
            )
        name = sock.getsockname()
        address = {"unix": Path(name)} if isinstance(name, str) else {"host": name[0], "port": name[1], "unix": None}
        as_if = attrs.evolve(server, **address)
        check_exposure(as_if)
        found.append(as_if)
    return found[0]


def _socket(listener: Listener) -> trio.socket.SocketType:
    transport = listener if isinstance(listener, trio.SocketListener) else listener.transport_listener
    assert isinstance(transport, trio.SocketListener)
    return transport.socket


def _port(sock: trio.socket.SocketType) -> int | None:
    name = sock.getsockname()
    return name[1] if isinstance(name, tuple) else None
