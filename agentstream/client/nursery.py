"""A nursery whose block keeps its own exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_helpers() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that serve the block: they are cancelled when it ends.

    The block's exception comes out as it is, where a plain nursery would put it into a group: callers of `connect` write
    ``except Gap``. Helpers handle their own exceptions; one that raises is a bug and comes out in a group. Nobody may cancel the
    nursery's own scope.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below, outside of the nursery
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
