"""Connections outlive requests: those that came in with a token that was good must not outlive the token.

A message over WebSocket is looked at as an HTTP request is, but a subscriber sends none. So what a token's worth hangs on (the
token file, the expiry times) is looked at once a second, and only when it has changed are the connections asked about. Rejected:
a timer for each connection, which says nothing of revoked tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from agentstream.server.principal import Authenticator

#: Seconds that a connection may outlive its token. A look costs 3 us.
INTERVAL: Final = 1.0


async def watch_tokens(
    authenticator: Authenticator,
    tell: Sequence[Callable[[], None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call each of ``tell`` when a token that was good may be so no longer; for ever."""
    known = authenticator.state()
    task_status.started()
    while True:
        await trio.sleep(INTERVAL)
        now = authenticator.state()
        if now != known:
            known = now
            for one in tell:
                one()
