"""Who may come in, as far as a request alone can tell: the rules for Host, Origin and the token's place. Pure.

Three attacks come through a browser on the operator's own machine, where "only loopback" means nothing:

* DNS rebinding: evil.example resolves to 127.0.0.1, so its page is same-origin with us. But its requests carry
  ``Host: evil.example``; so only names of ours are let in, with the port that was connected to.
* Cross-site requests, above all WebSockets, to which no same-origin policy applies. Browsers always send ``Origin`` with
  those, so it must be our own, or one that the operator named. ``Origin: null`` (sandboxed frames, files) is nobody's.
* What a browser sends without an Origin are plain GETs (images, scripts, links). They need a token, which a foreign page
  doesn't have; and where none is asked for (``--no-auth``), browsers still tell a cross-site one by ``Sec-Fetch-Site``.

The token is asked for besides (`agentstream.server.tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import attrs

from agentstream.errors import ConfigError, Forbidden
from agentstream.server.principal import HostAllowed, OriginAllowed
from agentstream.settings import LOOPBACK, ServerSettings

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: A host name or IPv4 address, or an IPv6 address in brackets, and perhaps a port (RFC 3986, without userinfo or escapes).
_HOST: Final = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


@attrs.frozen
class HostPort:
    """A name or address, lower case and without brackets, and a port if one was written."""

    name: str
    port: int | None


def parse_host(text: str) -> HostPort | None:
    """A Host header's value; None when it is none."""
    found = _HOST.fullmatch(text.lower())
    if found is None:
        return None
    return HostPort(found["six"] or found["name"], int(found["port"]) if found["port"] else None)


@attrs.frozen(kw_only=True)
class Rules:
    """What the settings say about Host and Origin."""

    #: Served with the port that was connected to: the loopback names and the address listened on.
    own: frozenset[str] = LOOPBACK
    #: Served besides; without a port: with any.
    hosts: frozenset[HostPort] = frozenset()
    origins: frozenset[str] = frozenset()
    #: Tokens are asked for.
    auth: bool = True

    @classmethod
    def of(cls, server: ServerSettings) -> Rules:
        """The rules of these settings. Raises `ConfigError` for a name or origin that is none."""
        return cls(
            own=LOOPBACK | {server.host.lower()},
            hosts=frozenset(_hosts(server.allowed_hosts)),
            origins=frozenset(_origins(server.allowed_origins)),
            auth=server.auth,
        )

    def host_check(self, port: int | None, *, secure: bool) -> HostAllowed:
        """`host_allowed` for one listener, as the WebSocket side wants it."""
        return lambda host: host_allowed(host, port=port, secure=secure, rules=self)

    def origin_check(self) -> OriginAllowed:
        """`origin_allowed`, as the WebSocket side wants it."""
        return lambda origin, host, has_token: origin_allowed(origin, host=host, has_token=has_token, rules=self)


def _hosts(names: Iterable[str]) -> Iterable[HostPort]:
    for name in names:
        host = parse_host(name)
        if host is None:
            raise ConfigError(f"server.allowed_hosts: {name!r} is no NAME or NAME:PORT")
        yield host


def _origins(origins: Iterable[str]) -> Iterable[str]:
    for origin in origins:
        if _origin_host(origin) is None:
            raise ConfigError(
                f"server.allowed_origins: {origin!r} is no origin: expected https://NAME or http://NAME:PORT"
            )
        yield origin.lower()


def host_allowed(host: str | None, *, port: int | None, secure: bool, rules: Rules) -> bool:
    """Whether a request with this Host header may come in.

    ``port`` is our end of the connection, None on a Unix socket, where a Host means nothing and loopback names do with any port.
    """
    parsed = parse_host(host) if host is not None else None
    if parsed is None:
        return False
    if parsed in rules.hosts or HostPort(parsed.name, None) in rules.hosts:
        return True
    written = parsed.port or _DEFAULT_PORTS["https" if secure else "http"]
    return parsed.name in rules.own and port in (None, written)


def origin_allowed(origin: str | None, *, host: str | None, has_token: bool, rules: Rules) -> bool:
    """Whether a request with this Origin may come in; ``host`` is its Host header, which was allowed.

    The scheme is not compared: behind a proxy that does TLS we see http where the browser sees https.
    """
    if origin is None:
        return has_token or not rules.auth
    if origin.lower() in rules.origins:
        return True
    own = parse_host(host) if host is not None else None
    theirs = _origin_host(origin)
    if own is None or theirs is None:
        return False
    default = _DEFAULT_PORTS[urlsplit(origin).scheme]
    return (own.name, own.port or default) == (theirs.name, theirs.port or default)


def _origin_host(origin: str) -> HostPort | None:
    scheme, separator, rest = origin.lower().partition("://")
    return parse_host(rest) if separator and scheme in ("http", "https") else None


def check_host(host: str | None, *, port: int | None, secure: bool, rules: Rules) -> None:
    """Raise `Forbidden` unless the Host is allowed (`host_allowed`)."""
    if not host_allowed(host, port=port, secure=secure, rules=rules):
        raise Forbidden(
            f"Host {_quoted(host)} is not served here; use the address that the daemon listens on, or add the name to "
            "server.allowed_hosts"
        )


def check_origin(
    origin: str | None, *, host: str | None, fetch_site: str | None, has_token: bool, rules: Rules
) -> None:
    """Raise `Forbidden` unless Origin and Sec-Fetch-Site are allowed. ``has_token``: a valid one was shown."""
    foreign = origin is None and not has_token and fetch_site in ("cross-site", "same-site")
    if foreign or not origin_allowed(origin, host=host, has_token=has_token, rules=rules):
        raise Forbidden(
            "a request without Origin needs a token"
            if origin is None
            else f"Origin {_quoted(origin)} is refused; if that site may use this daemon, add it to server.allowed_origins"
        )


def _quoted(text: str | None) -> str:
    return "(none)" if text is None else repr(text[:100])


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header; None where there is none, or another scheme."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
