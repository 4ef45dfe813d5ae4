"""Who is at the door: what the HTTP side and the WebSocket side need to know of a caller.

The two share these types and nothing else. `agentstream.server.auth` implements `Authenticator`; the composition root hands one
to both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final, Literal, Protocol

import attrs

Scope = Literal["read", "control", "admin"]

#: What each scope includes: who may control may read, who may administer may do everything.
INCLUDED_SCOPES: Final[Mapping[str, frozenset[str]]] = {
    "read": frozenset({"read"}),
    "control": frozenset({"read", "control"}),
    "admin": frozenset({"read", "control", "admin"}),
}


@attrs.frozen
class Principal:
    """A caller who was let in. ``name`` is for logs: the token's name, never the token."""

    scopes: frozenset[str]
    name: str
    #: What the authenticator knows the token by, which is not the token; None where none was needed.
    proof: str | None = attrs.field(default=None, repr=False)

    def may(self, scope: str) -> bool:
        """Whether one of the scopes is, or includes, ``scope``."""
        return any(scope in INCLUDED_SCOPES.get(held, frozenset({held})) for held in self.scopes)


class Authenticator(Protocol):
    """Tells who a caller is. No method blocks or raises."""

    def token(self, text: str) -> Principal | None:
        """Whose token that is; None when it is unknown, revoked or expired."""

    def anonymous(self) -> Principal | None:
        """Who a caller without a token is; None unless the daemon runs with ``--no-auth``."""

    def still(self, principal: Principal) -> bool:
        """Whether a caller who was let in would be so now: the token was not revoked and has not expired."""

    def state(self) -> Hashable:
        """Differs from what it was when the answer of `still` may."""


#: Whether a ``Host`` header ("" where there was none) names this daemon: the defence against DNS rebinding.
HostAllowed = Callable[[str], bool]

#: Whether a page of this ``Origin`` (None where there was none) may talk to this ``Host``; ``has_token`` tells whether the caller
#: sent a token or will have to, that is: False only for an anonymous caller. ``allowed(origin, host, has_token)``.
OriginAllowed = Callable[[str | None, str, bool], bool]
