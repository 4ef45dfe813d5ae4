"""Who is asking: what the door's halves (WebSocket, HTTP) know of a caller once the token was checked. Pure."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import attrs

Scope = Literal["read", "control", "admin"]

#: From weakest to strongest; each includes those before it.
SCOPES: Final[tuple[Scope, ...]] = ("read", "control", "admin")


def scopes_up_to(scope: Scope) -> frozenset[str]:
    """``scope`` and every weaker one: what a token of that scope grants."""
    return frozenset(SCOPES[: SCOPES.index(scope) + 1])


@attrs.frozen
class Principal:
    """A caller. ``name`` is the token's name, fit for logs; it is never the token itself."""

    name: str
    scopes: frozenset[str]


class Authenticator(Protocol):
    """Whoever knows the tokens."""

    def token(self, text: str) -> Principal | None:
        """The caller that ``text`` belongs to; None for an unknown, revoked or expired token."""


#: The caller of a daemon that runs with ``--no-auth``.
ANYBODY: Final = Principal("anybody", scopes_up_to("admin"))
