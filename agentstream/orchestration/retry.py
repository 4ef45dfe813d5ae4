"""When to try again: exponential backoff with full jitter, and a rate limit waits until it resets. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

#: Before the first further attempt, in seconds; doubled for each one after it.
BASE_DELAY: Final = 5.0
#: No delay of ours is longer, in seconds. The time at which a rate limit resets is the provider's and may be.
MAX_DELAY: Final = 600.0
#: Waiting longer than this for a rate limit is no retry any more, but another day's work. In seconds.
MAX_WAIT: Final = 24 * 3600.0


def delay_before(attempt: int, *, now: datetime, retry_at: datetime | None, random: float) -> float | None:
    """Seconds until attempt number ``attempt`` (2 is the first further one); None: don't try again.

    ``random`` is in [0, 1). Full jitter: somewhere between half of the exponential delay and all of it, so that many runs
    which failed together don't come back together. Behind ``retry_at`` only the jitter is added.
    """
    backoff = min(BASE_DELAY * 2.0 ** (attempt - 2), MAX_DELAY)
    jittered = backoff / 2 + backoff / 2 * random
    if retry_at is None:
        return jittered
    wait = (retry_at - now) / timedelta(seconds=1)
    if wait > MAX_WAIT:
        return None
    return max(wait, 0.0) + BASE_DELAY * random if wait > 0 else jittered
